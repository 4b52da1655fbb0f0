/** What is kept of logs, when somebody is woken, and what he then looks at (docs/monitoring). */
import { functionNameOf, FUNCTIONS, IDS, logGroupId, serviceName } from './functions.ts'
import type { OutageCode, RejectionCode } from '../lib/errors.ts'
import { CREATE, type Stage } from './stage.ts'
import {
  attribute,
  idPart,
  policyDocument,
  ref,
  type Resource,
  type Resources,
  type Value,
  type Values,
} from './template.ts'

/** Where an event for the rotation goes that Lambda gave up: it says when, and nothing of keys. */
export const ROTATE_DEAD_LETTERS = 'RotateDeadLetters'

export function watchOf(stage: Stage): Resources {
  return {
    ...Object.fromEntries(
      FUNCTIONS.map((name) => [
        logGroupId(name),
        {
          Type: 'AWS::Logs::LogGroup',
          Properties: {
            LogGroupName: `/aws/lambda/${functionNameOf(stage, name)}`,
            RetentionInDays: stage.logDays,
          },
        },
      ]),
    ),
    [ROTATE_DEAD_LETTERS]: {
      Type: 'AWS::SQS::Queue',
      Properties: { MessageRetentionPeriod: 1_209_600, SqsManagedSseEnabled: true },
    },
    ...(stage.alarms.topic === CREATE ? alarmTopic(stage) : {}),
    ...Object.fromEntries(ALARMS.map((alarm) => [`${alarm.id}Alarm`, alarmOf(stage, alarm)])),
    Dashboard: {
      Type: 'AWS::CloudWatch::Dashboard',
      Properties: { DashboardName: serviceName(stage), DashboardBody: JSON.stringify(dashboard(stage)) },
    },
  }
}

/** Under no key: CloudWatch could not publish by AWS's own, and an alarm tells no secret. */
function alarmTopic(stage: Stage): Resources {
  return {
    [IDS.alarmTopic]: {
      Type: 'AWS::SNS::Topic',
      Properties: { DisplayName: `${serviceName(stage)} alarms` },
    },
    AlarmTopicPolicy: {
      Type: 'AWS::SNS::TopicPolicy',
      Properties: {
        Topics: [ref(IDS.alarmTopic)],
        PolicyDocument: policyDocument([
          {
            Effect: 'Allow',
            Principal: { Service: 'cloudwatch.amazonaws.com' },
            Action: ['sns:Publish'],
            Resource: ref(IDS.alarmTopic),
            Condition: { StringEquals: { 'aws:SourceAccount': stage.account } },
          },
        ]),
      },
    },
  }
}

/** A metric of ours, by `service`, and by a code; or one of Lambda's, by function. */
type Metric =
  | { readonly own: string; readonly code?: RejectionCode | OutageCode }
  | { readonly lambda: string; readonly of: (typeof FUNCTIONS)[number] }

interface Alarm {
  readonly id: string
  readonly metric: Metric
  readonly statistic: 'Sum' | 'Maximum'
  readonly says: string
  readonly over: (stage: Stage) => number
  readonly periodSeconds: (stage: Stage) => number
  readonly periods: number
  /** Whether it means something is wrong that nothing is heard. */
  readonly silence: 'alarms' | 'is well'
}

const MINUTES_5 = 300
const always = (value: number) => (): number => value

/** Records that somebody altered or copied. */
const FORGED: readonly RejectionCode[] = ['signature-invalid', 'replayed']
const STUCK: readonly OutageCode[] = ['unexpected', 'position-missing', 'position-damaged']

const ALARMS: readonly Alarm[] = [
  {
    id: 'Lag',
    metric: { lambda: 'OffsetLag', of: 'ingest' },
    statistic: 'Maximum',
    says: 'Records wait before the gate: is it stopped by an outage, or too small?',
    over: ({ alarms }) => alarms.lagRecords,
    periodSeconds: always(MINUTES_5),
    periods: 3,
    silence: 'is well',
  },
  ...FUNCTIONS.map((name): Alarm => ({
    id: `${name.slice(0, 1).toUpperCase()}${name.slice(1)}Errors`,
    metric: { lambda: 'Errors', of: name },
    statistic: 'Sum',
    says: `Invocations of ${name} fail: its log says with which code (docs/operations.md).`,
    over: always(0),
    periodSeconds: always(MINUTES_5),
    periods: name === 'rotate' ? 1 : 3,
    silence: 'is well',
  })),
  {
    id: 'Rejected',
    metric: { own: 'records.rejected' },
    statistic: 'Sum',
    says: 'Records are refused: sealgate quarantine list, and records.rejected by code.',
    over: ({ alarms }) => alarms.rejectedPerMinute * 5,
    periodSeconds: always(MINUTES_5),
    periods: 3,
    silence: 'is well',
  },
  {
    id: 'Outage',
    metric: { own: 'slices.outage' },
    statistic: 'Sum',
    says: 'The gate cannot decide, and records wait: slices.outage by code, docs/operations.md.',
    over: always(0),
    periodSeconds: always(MINUTES_5),
    periods: 3,
    silence: 'is well',
  },
  {
    id: 'RotationOverdue',
    metric: { own: 'rotation.overdue' },
    statistic: 'Maximum',
    says: 'A key or password is older than it may be, or the rotation does not run: sealgate rotate status.',
    over: always(0),
    periodSeconds: always(7200),
    periods: 2,
    silence: 'alarms',
  },
  {
    id: 'AuditSilence',
    metric: { own: 'audit.entries' },
    statistic: 'Sum',
    says: 'The audit gains no entries: is the gate stopped, or does nobody send?',
    over: always(0),
    periodSeconds: ({ alarms }) => alarms.silenceMinutes * 60,
    periods: 1,
    silence: 'alarms',
  },
  ...FORGED.map((code) => single('records.rejected', code, 'who writes to the topic? docs/keys.md')),
  ...STUCK.map((code) => single('slices.outage', code, 'it does not pass by itself: docs/operations.md')),
]

/** One is enough. */
function single(own: string, code: RejectionCode | OutageCode, says: string): Alarm {
  return {
    id: idPart(code),
    metric: { own, code },
    statistic: 'Sum',
    says: `${own} by ${code}: ${says}`,
    over: always(0),
    periodSeconds: always(MINUTES_5),
    periods: 1,
    silence: 'is well',
  }
}

const NAMESPACE = 'sealgate'

function alarmOf(stage: Stage, alarm: Alarm): Resource {
  const topic: Value = stage.alarms.topic === CREATE ? ref(IDS.alarmTopic) : stage.alarms.topic
  // Of the audit too little is wrong, of all else too much.
  const isFloor = alarm.id === 'AuditSilence'
  return {
    Type: 'AWS::CloudWatch::Alarm',
    Properties: {
      AlarmName: `${serviceName(stage)}-${alarm.id}`,
      AlarmDescription: alarm.says,
      ...metricOf(stage, alarm.metric),
      Statistic: alarm.statistic,
      Period: alarm.periodSeconds(stage),
      EvaluationPeriods: alarm.periods,
      ComparisonOperator: isFloor ? 'LessThanOrEqualToThreshold' : 'GreaterThanThreshold',
      Threshold: alarm.over(stage),
      TreatMissingData: alarm.silence === 'alarms' ? 'breaching' : 'notBreaching',
      AlarmActions: [topic],
      OKActions: [topic],
    },
  }
}

function metricOf(stage: Stage, metric: Metric): Values {
  if ('own' in metric)
    return {
      Namespace: NAMESPACE,
      MetricName: metric.own,
      Dimensions: [
        { Name: 'service', Value: serviceName(stage) },
        ...(metric.code === undefined ? [] : [{ Name: 'code', Value: metric.code }]),
      ],
    }
  return {
    Namespace: 'AWS/Lambda',
    MetricName: metric.lambda,
    Dimensions: [{ Name: 'FunctionName', Value: functionNameOf(stage, metric.of) }],
  }
}

function dashboard(stage: Stage): Values {
  const own = (name: string, stat: string): Value => [
    NAMESPACE,
    name,
    'service',
    serviceName(stage),
    { stat },
  ]
  const lambda = (name: string, of: (typeof FUNCTIONS)[number], stat: string): Value => [
    'AWS/Lambda',
    name,
    'FunctionName',
    functionNameOf(stage, of),
    { stat, label: `${of} ${name}` },
  ]
  const byCode = (name: string): Value => [
    {
      expression: `SEARCH('{${NAMESPACE},service,code} service="${serviceName(stage)}" MetricName="${name}"', 'Sum')`,
    },
  ]
  const graphs: readonly (readonly [string, readonly Value[]])[] = [
    ['Admitted and rejected', [own('records.admitted', 'Sum'), own('records.rejected', 'Sum')]],
    ['Rejected, by code', [byCode('records.rejected')]],
    ['Outages, by code', [byCode('slices.outage')]],
    ['Waiting before the gate', [lambda('OffsetLag', 'ingest', 'Maximum')]],
    ['Age at commit, ms', [own('records.age', 'Maximum'), own('slice.duration', 'p99')]],
    ['Audit entries', [own('audit.entries', 'Sum')]],
    ['Errors', FUNCTIONS.map((name) => lambda('Errors', name, 'Sum'))],
    ['Duration, ms', FUNCTIONS.map((name) => lambda('Duration', name, 'p99'))],
    ['Running at once', [lambda('ConcurrentExecutions', 'ingest', 'Maximum')]],
    ['Rotations overdue', [own('rotation.overdue', 'Maximum')]],
  ]
  return {
    widgets: graphs.map(([title, metrics], index) => ({
      type: 'metric',
      x: (index % 2) * 12,
      y: Math.floor(index / 2) * 6,
      width: 12,
      height: 6,
      properties: { title, region: stage.region, period: 300, view: 'timeSeries', metrics },
    })),
  }
}

/** What lets the rotation's events be put there when they fail. */
export const deadLetterArn: Values = attribute(ROTATE_DEAD_LETTERS, 'Arn')
