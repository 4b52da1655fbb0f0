/** The template as it is deployed: rights, mappings, network, alarms; and what the check of edited templates finds. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { needsOf, NETWORK_ACTIONS, rightsOf, TRACE_ACTIONS } from '../../deploy/rights.ts'
import { readParts, samText, STAGES } from '../../deploy/package.ts'
import { exampleTemplate } from '../../scripts/package.ts'
import { ConfigError, OUTAGE_CODES, REJECTION_CODES } from '../../lib/errors.ts'
import { readSettings } from '../../lib/settings.ts'
import { templateFaults } from '../../lib/template-faults.ts'
import { listOf, nodeOf, ofType, parseTemplate, resourcesIn } from './compiled.ts'
import { identityOf, mayByIdentity } from './policy.ts'

const text = readFileSync(join(STAGES, '../../template.yaml'), 'utf8')
const template = parseTemplate(text)
const stages = ['example', 'example-iam', 'example-mtls', 'example-self-managed'] as const

/** Checking its contracts takes a while: each stage's template is made once. */
const made = new Map<string, Promise<unknown>>()
function templateOf(stage: string): Promise<unknown> {
  const known = made.get(stage) ?? makeTemplate(stage)
  made.set(stage, known)
  return known
}

async function makeTemplate(stage: string): Promise<unknown> {
  const parts = await readParts(join(STAGES, `${stage}.yml`))
  return parseTemplate(samText(parts.stage, needsOf(parts.stage, parts.contracts), ''))
}

describe('template.yaml', () => {
  it('is what the example stage makes', async () => {
    expect(text).toBe(await exampleTemplate())
  })

  it('gives every function a role of its own, which Lambda alone may take', () => {
    const functions = ofType(template, 'AWS::Serverless::Function')
    const roles = functions.map(({ properties }) => properties['Role'])
    expect(roles).toEqual(['IngestRole.Arn', 'RotateRole.Arn', 'KeysRole.Arn'])
    const trusted = ofType(template, 'AWS::IAM::Role').map(
      ({ properties }) => properties['AssumeRolePolicyDocument'],
    )
    for (const document of trusted)
      expect(nodeOf(document)['Statement']).toEqual([
        { Effect: 'Allow', Principal: { Service: 'lambda.amazonaws.com' }, Action: 'sts:AssumeRole' },
      ])
    expect(trusted).toHaveLength(3)
  })

  it.each(stages)('allows no wildcard where AWS takes a name (%s)', async (stage) => {
    const policies = ofType(await templateOf(stage), 'AWS::IAM::Policy')
    const statements = policies
      .flatMap(({ properties }) => listOf(nodeOf(properties['PolicyDocument'])['Statement']))
      .map(nodeOf)
      .filter(({ Effect }) => Effect === 'Allow')
    expect(statements.length).toBeGreaterThan(15)
    for (const { Action, Resource } of statements) {
      expect(listOf(Action).filter((action) => String(action).includes('*'))).toEqual([])
      const wild = listOf(Resource)
        .map(String)
        .filter((resource) => resource.includes('*'))
      // A log group's streams, and names that begin with the deployment's: a prefix is all that is known of them.
      const named =
        /^arn:aws:(logs:.*:log-group:\/aws\/lambda\/sealgate-[a-z-]+:\*|kafka:.*:(transactional-id|group)\/shop\/[0-9a-f-]+\/shop\.([a-z.]+\.)?\*)$/
      const others = wild.filter((resource) => !named.test(resource))
      const isNetwork = [...Object.values(NETWORK_ACTIONS), TRACE_ACTIONS].some((actions) =>
        isDeepEqual(Action, actions),
      )
      expect(others.length === 0 || isNetwork).toBe(true)
    }
  })

  it.each(stages)('asks of a grant whom it is for only where KMS tells (%s)', async (stage) => {
    const whole = await templateOf(stage)
    const keys = ofType(whole, 'AWS::KMS::Key').map(({ properties }) => properties['KeyPolicy'])
    const rights = ofType(whole, 'AWS::IAM::Policy').map(({ properties }) => properties['PolicyDocument'])
    const told = ['kms:CreateGrant', 'kms:ListGrants', 'kms:RevokeGrant']
    const dead = [...keys, ...rights]
      .flatMap((document) => listOf(nodeOf(document)['Statement']).map(nodeOf))
      .filter(({ Condition }) => JSON.stringify(Condition ?? '').includes('kms:GrantIsForAWSResource'))
      .flatMap(({ Action }) => listOf(Action).map(String))
      .filter((action) => !told.includes(action))
    expect(dead).toEqual([])
  })

  it('is not made where IAM would not take all the rights of a role', async () => {
    const { stage, contracts } = await readParts(join(STAGES, 'example.yml'))
    const role = 'arn:aws:iam::123456789012:role/one'
    const of = (count: number) => {
      const names = Array.from({ length: count }, (_, index) => [`one${index}`, { role, kek: 'create' }])
      return rightsOf({ ...stage, producers: Object.fromEntries(names) }, needsOf(stage, contracts))
    }
    expect(Object.keys(of(10))).toHaveLength(6)
    expect(() => of(30)).toThrow(/10240 characters/)
  })

  it('lets no code of ours touch network interfaces, which only Lambda itself needs', () => {
    const policies = ofType(template, 'AWS::IAM::Policy')
    for (const name of ['ingest', 'rotate'] as const) {
      const role = name === 'ingest' ? 'IngestRole' : 'RotateRole'
      const identity = identityOf(role, policies)
      const asks = (from: Record<string, string[]>): boolean[] =>
        NETWORK_ACTIONS[name].map((action) =>
          mayByIdentity({ principal: role, action, resource: 'arn:aws:ec2:any', context: from }, identity),
        )
      const arn = `arn:aws:lambda:eu-west-1:123456789012:function:sealgate-example-${name}`
      expect(new Set(asks({}))).toEqual(new Set([true]))
      expect(new Set(asks({ 'lambda:SourceFunctionArn': [arn] }))).toEqual(new Set([false]))
    }
  })

  it('lets the functions of keys and ingestion write no directory', () => {
    const policies = ofType(template, 'AWS::IAM::Policy')
    const resource = 'arn:aws:s3:::sealgate-example-directory-123456789012-eu-west-1/directory.jws'
    const may = (role: string, action: string): boolean =>
      mayByIdentity({ principal: role, action, resource, context: {} }, identityOf(role, policies))
    expect(['IngestRole', 'KeysRole', 'RotateRole'].map((role) => may(role, 's3:GetObject'))).toEqual([
      true,
      true,
      true,
    ])
    expect(['IngestRole', 'KeysRole', 'RotateRole'].map((role) => may(role, 's3:PutObject'))).toEqual([
      false,
      false,
      true,
    ])
  })

  it('makes a mapping after the user, the rules and the endpoints that its poller comes by', async () => {
    const pollers = ['BrokersFromFunctions', 'BrokersFromPollers', 'PollersToBrokers', 'PollersToServices']
    const endpoints = [
      ...['EndpointsFromFunctions', 'EndpointsFromPollers', 'KmsEndpoint', 'LambdaEndpoint'],
      ...['SecretsmanagerEndpoint', 'StsEndpoint', 'S3Endpoint'],
    ]
    for (const [stage, ways] of [
      ['example', ['KafkaUser', ...pollers, ...endpoints]],
      ['example-iam', pollers],
    ] as const) {
      const resources = nodeOf(nodeOf(await templateOf(stage))['Resources'])
      const mapping = nodeOf(resources['IngressOrdersMapping'])
      expect(mapping['DependsOn']).toEqual(['IngestRights', ...ways])
      expect(listOf(mapping['DependsOn']).filter((id) => !Object.hasOwn(resources, String(id)))).toEqual([])
    }
  })

  it('opens no more ports than TLS to brokers and to AWS', () => {
    const rules = resourcesIn(template)
      .filter(({ type }) => /SecurityGroup(Ingress|Egress)?$/.test(type))
      .flatMap(({ properties }) => [properties, ...listOf(properties['SecurityGroupEgress'])])
      .map(nodeOf)
      .filter((rule) => 'FromPort' in rule)
    expect(new Set(rules.map(({ FromPort, ToPort }) => `${String(FromPort)}-${String(ToPort)}`))).toEqual(
      new Set(['9096-9096', '443-443']),
    )
    expect(rules.filter((rule) => 'CidrIp' in rule)).toEqual([])
    const endpoints = ofType(template, 'AWS::EC2::VPCEndpoint').map(
      ({ properties }) => properties['ServiceName'],
    )
    expect(endpoints).toEqual(
      ['kms', 'lambda', 'secretsmanager', 'sts', 's3'].map((service) => `com.amazonaws.eu-west-1.${service}`),
    )
  })

  it('lets nobody carry anything out by its endpoints into another account', async () => {
    const { stage, contracts } = await readParts(join(STAGES, 'example.yml'))
    const rootKey = stage.rootKey.replace(stage.account, '999999999999')
    const alarms = { ...stage.alarms, topic: 'arn:aws:sns:eu-west-1:888888888888:on-call' }
    const edited = { ...stage, rootKey, alarms, directory: 's3://theirs/a/directory.jws' }
    const statementsOf = (whole: unknown, service: string): unknown[] =>
      ofType(whole, 'AWS::EC2::VPCEndpoint')
        .filter(({ properties }) => String(properties['ServiceName']).endsWith(`.${service}`))
        .flatMap(({ properties }) => listOf(nodeOf(properties['PolicyDocument'])['Statement']))
    const own = (...accounts: string[]) => {
      const Condition = { StringEquals: { 'aws:ResourceAccount': accounts } }
      return { Effect: 'Allow', Action: ['*'], Resource: '*', Condition, Principal: '*' }
    }
    const shared = parseTemplate(samText(edited, needsOf(edited, contracts), ''))
    for (const service of ['s3', 'kms', 'secretsmanager']) {
      expect(statementsOf(template, service)).toEqual([own(stage.account)])
      expect(statementsOf(shared, service)[0]).toEqual(own(stage.account, '999999999999'))
    }
    expect(statementsOf(shared, 's3').slice(1)).toMatchObject([
      { Effect: 'Allow', Resource: ['arn:aws:s3:::theirs', 'arn:aws:s3:::theirs/a/directory.jws'] },
    ])
  })

  it.each(stages)(
    'describes security groups and their rules in letters that EC2 takes (%s)',
    async (stage) => {
      const groups = resourcesIn(await templateOf(stage)).filter(({ type }) =>
        /SecurityGroup(Ingress|Egress)?$/.test(type),
      )
      const told = groups
        .flatMap(({ properties }) => [properties, ...listOf(properties['SecurityGroupEgress'])])
        .map(nodeOf)
        .flatMap(({ Description, GroupDescription }) => [Description, GroupDescription])
        .filter((one) => one !== undefined)
        .map(String)
      expect(told.length).toBeGreaterThan(3)
      expect(told.filter((one) => !/^[a-zA-Z0-9. _:/()#,@[\]+=&;{}!$*-]{1,255}$/.test(one))).toEqual([])
    },
  )

  it('keeps what holds keys when the stack is deleted', () => {
    const kept = Object.entries(nodeOf(nodeOf(template)['Resources']))
      .filter(([, resource]) => nodeOf(resource)['UpdateReplacePolicy'] === 'Retain')
      .map(([id]) => id)
    expect(kept).toEqual([
      ...['GatewayKek', 'CheckoutKek', 'FulfilmentKek', 'PaymentsKek', 'DirectoryBucket'],
      ...[
        'DirectoryBucketPolicy',
        'SigningKey',
        'SecretsKey',
        'KafkaSecret',
        'RotateKafkaSecret',
        'KafkaUser',
      ],
    ])
  })

  it('has alarms of the metrics that the functions write, and each wakes somebody', () => {
    const alarms = ofType(template, 'AWS::CloudWatch::Alarm').map(({ properties }) => properties)
    const monitoring = readFileSync(join(STAGES, '../../docs/monitoring/README.md'), 'utf8')
    for (const { MetricName, Namespace, AlarmActions, Dimensions } of alarms) {
      expect(AlarmActions).toEqual(['AlarmTopic'])
      if (Namespace !== 'sealgate') continue
      expect(monitoring).toContain(`| \`${String(MetricName)}\``)
      const [service, ...code] = listOf(Dimensions).map(nodeOf)
      expect(service).toEqual({ Name: 'service', Value: 'sealgate-example' })
      for (const { Name, Value } of code) {
        expect(Name).toBe('code')
        expect([...REJECTION_CODES, ...OUTAGE_CODES].map(String)).toContain(Value)
      }
    }
    expect(alarms.map(({ MetricName }) => MetricName)).toEqual([
      ...['OffsetLag', 'Errors', 'Errors', 'Errors', 'records.rejected', 'slices.outage'],
      ...['rotation.overdue', 'audit.entries'],
      ...['records.rejected', 'records.rejected', 'slices.outage', 'slices.outage', 'slices.outage'],
    ])
    // One is enough of these.
    const single = alarms.filter(({ EvaluationPeriods }) => EvaluationPeriods === 1)
    expect(
      single
        .flatMap(({ Dimensions }) => listOf(Dimensions).map(nodeOf))
        .flatMap(({ Name, Value }) => (Name === 'code' ? [Value] : [])),
    ).toEqual(['signature-invalid', 'replayed', 'unexpected', 'position-missing', 'position-damaged'])
    // Of these silence is the alarm itself.
    const silent = alarms.filter(({ TreatMissingData }) => TreatMissingData === 'breaching')
    expect(silent.map(({ MetricName }) => MetricName)).toEqual(['rotation.overdue', 'audit.entries'])
  })
})

describe('failure mode', () => {
  it.each(stages)('agrees between code and mapping (%s)', async (stage) => {
    expect(templateFaults(await templateOf(stage), 'template.yaml')).toEqual([])
  })

  it('is set by one switch', async () => {
    for (const stage of stages) {
      const whole = await templateOf(stage)
      const [gate] = ofType(whole, 'AWS::Serverless::Function')
      const told = nodeOf(nodeOf(gate?.properties['Environment'])['Variables'])
      const isPartial = stage === 'example-iam'
      expect(told['SEALGATE_FAILURE_MODE']).toBe(isPartial ? 'partial' : 'throw')
      const mappings = ofType(whole, 'AWS::Lambda::EventSourceMapping')
      expect(mappings).toHaveLength(2)
      for (const { properties } of mappings)
        expect(properties['FunctionResponseTypes']).toEqual(
          isPartial ? ['ReportBatchItemFailures'] : undefined,
        )
    }
  })

  const ids = { gate: 'IngestFunction', mapping: 'IngressOrdersMapping' }
  const answers = ['ReportBatchItemFailures']
  const provisioned = { MinimumPollers: 1, MaximumPollers: 2 }

  it.each<[string, string, keyof typeof ids, Record<string, unknown>]>([
    ['expects no partial answers', 'example-iam', 'mapping', { FunctionResponseTypes: undefined }],
    ['expects partial answers', 'example', 'mapping', { FunctionResponseTypes: answers }],
    ['take no partial answers', 'example-iam', 'mapping', { ProvisionedPollerConfig: undefined }],
    ['MaximumRetryAttempts is not −1', 'example', 'mapping', { MaximumRetryAttempts: 3 }],
    ['MaximumRetryAttempts is not −1', 'example-iam', 'mapping', { MaximumRetryAttempts: undefined }],
    ['MaximumRecordAgeInSeconds is not −1', 'example-iam', 'mapping', { MaximumRecordAgeInSeconds: 3600 }],
    ['MaximumRecordAgeInSeconds is not −1', 'example', 'mapping', { ProvisionedPollerConfig: provisioned }],
    ['after ten retries', 'example', 'mapping', { DestinationConfig: { OnFailure: { Destination: 'x' } } }],
    ['no gate decides', 'example', 'mapping', { FilterCriteria: { Filters: [{ Pattern: '{}' }] } }],
    ['no gate decides', 'example', 'mapping', { StartingPosition: 'LATEST' }],
    ['cannot be known', 'example', 'mapping', { FunctionResponseTypes: { 'Fn::If': ['a', answers, []] } }],
    ['14 minutes', 'example', 'gate', { Timeout: 900 }],
    ['never take a partition over', 'example', 'gate', { Timeout: 15 }],
    ['runtime', 'example', 'gate', { Runtime: 'nodejs20.x' }],
    ['expects no partial answers', 'example', 'gate', { SEALGATE_FAILURE_MODE: 'partial' }],
    ['says otherwise', 'example', 'gate', { SEALGATE_MAPPING_ANSWERS: 'ReportBatchItemFailures' }],
  ])(
    'or anything that loses records is refused in an edited template: %s (%s, %s)',
    async (says, stage, what, edit) => {
      const edited = withEdit(await templateOf(stage), ids[what], edit)
      const faults = templateFaults(edited, 't')
      expect(faults.map(({ what: said }) => said).join('\n')).toContain(says)
      expect(faults.every(({ fix }) => fix !== '')).toBe(true)
    },
  )

  it('is looked at in SAM’s short form too, and a gate without a mapping is a fault', () => {
    const gate = (Events: object) => ({
      Resources: {
        Gate: {
          Type: 'AWS::Serverless::Function',
          Properties: {
            Runtime: 'nodejs24.x',
            Timeout: 60,
            Environment: { Variables: { SEALGATE_CHANNELS: 'a=b' } },
            Events,
          },
        },
      },
    })
    const event = { Type: 'MSK', Properties: { MaximumRetryAttempts: 5 } }
    expect(templateFaults(gate({ Orders: event }), 't').map(({ where }) => where)).toEqual(['t: Gate.Orders'])
    expect(templateFaults(gate({}), 't')).toHaveLength(1)
    for (const none of [null, 'x', [], {}, { Resources: [] }])
      expect(templateFaults(none, 't')).toHaveLength(1)
  })

  it('is looked at in a mapping that names the function by its own name', async () => {
    const whole = nodeOf(await templateOf('example'))
    const name = 'sealgate-example-ingest'
    const names = [
      ...[name, `${name}:live`, `arn:aws:lambda:eu-west-1:123456789012:function:${name}`],
      { 'Fn::Sub': `arn:\${AWS::Partition}:lambda:\${AWS::Region}:\${AWS::AccountId}:function:${name}` },
      { 'Fn::Join': [':', ['arn:aws:lambda:eu-west-1:123456789012:function', name]] },
    ]
    const placesWith = (FunctionName: unknown): string[] => {
      const second = {
        Type: 'AWS::Lambda::EventSourceMapping',
        Properties: { FunctionName, StartingPosition: 'LATEST' },
      }
      const resources = { ...nodeOf(whole['Resources']), Second: second }
      return templateFaults({ ...whole, Resources: resources }, 't').map(({ where }) => where)
    }
    for (const one of names) expect([one, placesWith(one)]).toEqual([one, ['t: Second']])
    expect(placesWith(`${name}-2`)).toEqual([])
  })

  it('keeps a function from starting where its mapping is not said to have it', () => {
    const start = (told: Record<string, string>): string => {
      try {
        return readSettings({ SEALGATE_LOCAL: '/x', ...told }).answerMode
      } catch (error) {
        if (error instanceof ConfigError) return error.faults.map(({ where }) => where).join()
        throw error
      }
    }
    const lambda = { AWS_LAMBDA_FUNCTION_NAME: 'gate' }
    const refused = 'SEALGATE_MAPPING_ANSWERS'
    expect(start({ ...lambda, SEALGATE_FAILURE_MODE: 'partial' })).toBe(refused)
    expect(start({ ...lambda, SEALGATE_FAILURE_MODE: 'partial', [refused]: 'none' })).toBe(refused)
    expect(start({ ...lambda, SEALGATE_FAILURE_MODE: 'throw', [refused]: 'ReportBatchItemFailures' })).toBe(
      refused,
    )
    expect(start({ ...lambda, [refused]: 'Reportbatchitemfailures' })).toBe(refused)
    expect(start({ ...lambda, SEALGATE_FAILURE_MODE: 'partial', [refused]: 'ReportBatchItemFailures' })).toBe(
      'partial',
    )
    expect(start({ ...lambda, [refused]: 'none' })).toBe('throw')
    expect(start({ ...lambda })).toBe('throw')
    expect(start({ SEALGATE_FAILURE_MODE: 'partial' })).toBe('partial')
  })
})

const isDeepEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** The template with properties of a resource, or variables of a function, set anew; undefined takes one out. */
function withEdit(whole: unknown, id: string, edit: Readonly<Record<string, unknown>>): unknown {
  const resources = nodeOf(nodeOf(whole)['Resources'])
  const resource = nodeOf(resources[id])
  const properties = nodeOf(resource['Properties'])
  const variables = Object.keys(edit).every((name) => name.startsWith('SEALGATE_'))
  const apply = (before: unknown): object =>
    Object.fromEntries(
      Object.entries({ ...nodeOf(before), ...edit }).filter(([, value]) => value !== undefined),
    )
  const changed = variables
    ? { ...properties, Environment: { Variables: apply(nodeOf(properties['Environment'])['Variables']) } }
    : apply(properties)
  return { ...nodeOf(whole), Resources: { ...resources, [id]: { ...resource, Properties: changed } } }
}
