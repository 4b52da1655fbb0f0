/** What is wrong with a stage's parameters though each is well formed: places, and what does not go together. */
import { MSK_SECRET_ARN } from '../lib/adapters/msk-users.ts'
import type { ParameterReader } from './parameters.ts'
import { CREATE, directoryBucket, givenArns, hasMskUsers, pollerGroup, PORTS, type Stage } from './stage.ts'
import { idPart } from './template.ts'

/** Their ARNs begin with another word than `arn:aws:`, which templates and policies have. */
const OTHER_PARTITIONS = /^(cn|us-gov|(us|eu)-iso[a-z]*)-/
/** Before `Kek`, in the logical id of the gateway's own; a producer's begins with its name. */
const GATEWAY = 'Gateway'
const LOG_DAYS = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 3653]
/** Of a bucket's name, by S3. */
const MAX_BUCKET_CHARACTERS = 63
/** Of the group's id, by Lambda. */
const MAX_GROUP_CHARACTERS = 200
/** Of a self-managed cluster, by Lambda. */
const MAX_BROKERS = 10

/**
 * Adds what is wrong to the reader's faults.
 * @param takeOverMs how long Kafka may keep a gate waiting that takes a partition over, its transaction's time-out aside
 */
export function stageFaults(stage: Stage, read: ParameterReader, takeOverMs: number): void {
  placeFaults(stage, read)
  contradictions(stage, read, takeOverMs)
}

/** The account may be another's, who must let us; a region is not left, nor a partition. */
function placeFaults(stage: Stage, read: ParameterReader): void {
  if (OTHER_PARTITIONS.test(stage.region)) {
    read.fault('region', 'It is of another partition than aws.', 'There is no deployment to it yet.')
    return
  }
  const layers = stage.tracing === undefined ? [] : [['tracing.layer', stage.tracing.layer] as const]
  for (const [at, arn] of [...givenArns(stage), ...layers])
    if (
      arn !== '' &&
      stage.region !== '' &&
      !(arn.startsWith('arn:aws:') && arn.split(':')[3] === stage.region)
    )
      read.fault(at, `${arn} is not of ${stage.region}.`, 'Name one of the region that is deployed to.')
}

/** What is well formed and does not go together. */
function contradictions(stage: Stage, read: ParameterReader, takeOverMs: number): void {
  const { cluster, network, pollers, failureMode } = stage
  if (cluster.arn === undefined) ownClusterFaults(stage, read)
  else mskFaults(stage, cluster.arn, read)
  if (failureMode === 'partial' && pollers === undefined)
    read.fault(
      'failureMode',
      'Lambda takes answers for each partition from provisioned pollers alone.',
      'Set pollers, or throw.',
    )
  if (pollers !== undefined && pollers.minimum > pollers.maximum)
    read.fault('pollers', 'There are fewer at most than at least.', 'Exchange them.')
  const byEndpoints = read.has('network.ways') && network.ways === 'endpoints'
  endpointFaults(stage, read)
  if (byEndpoints && network.routeTables.length === 0 && !network.given.includes('s3'))
    read.fault('network.routeTables', 'S3 is reached by none.', 'List them, or set network.ways: nat.')
  if (byEndpoints && network.s3PrefixList === undefined) {
    const fix = 'Set what aws ec2 describe-managed-prefix-lists names com.amazonaws.REGION.s3.'
    read.fault('network.s3PrefixList', 'Which addresses S3 has is not known.', fix)
  }
  // Who takes a partition over waits until the broker has ended what a dead holder left open.
  const least = Math.ceil((cluster.transactionTimeoutMs + takeOverMs) / 1000)
  if (stage.timeoutSeconds < least)
    read.fault(
      'timeoutSeconds',
      `Taking a partition over may last ${least} s: the transaction's time-out, an opening and a request.`,
      `Set ${least} or more, or a lower cluster.transactionTimeoutMs.`,
    )
  const names = [stage.gateway, ...Object.keys(stage.producers)]
  if (new Set(names).size < names.length)
    read.fault('producers', "One has the gateway's own name.", 'Give every issuer a name of its own.')
  for (const [list, people] of Object.entries({ producers: stage.producers, consumers: stage.consumers })) {
    const roles = Object.values(people).map(({ role }) => role)
    if (new Set(roles).size < roles.length)
      read.fault(list, 'Two have one role: each could pass for the other.', 'Give each a role of its own.')
  }
  if (Object.keys(stage.producers).some((name) => idPart(name) === GATEWAY))
    read.fault('producers', `In the stack the KEK of one would be that of the ${GATEWAY}.`, 'Rename it.')
  for (const list of ['producers', 'channels'] as const) {
    const ids = Object.keys(stage[list]).map(idPart)
    if (new Set(ids).size < ids.length)
      read.fault(list, 'Two names differ in nothing but punctuation.', 'Rename one.')
  }
  for (const { rotation } of stage.rotations)
    if (rotation.kind === 'client-certificate' && rotation.authorityKey.startsWith('file:'))
      read.fault(
        'rotation',
        `${rotation.name}: its authority's key would lie in the package.`,
        'Put it into KMS.',
      )
  if (stage.directory === CREATE && directoryBucket(stage).length > MAX_BUCKET_CHARACTERS)
    read.fault(
      'directory',
      `Its bucket would be ${directoryBucket(stage)}, and S3 takes ${MAX_BUCKET_CHARACTERS} characters.`,
      'Give the stage a shorter name, or a bucket of your own.',
    )
  for (const topic of Object.keys(stage.channels))
    if (pollerGroup(stage, topic).length > MAX_GROUP_CHARACTERS) {
      const what = `Lambda takes names of groups of ${MAX_GROUP_CHARACTERS} characters: ${pollerGroup(stage, topic)}.`
      read.fault('channels', what, 'Name the deployment or the topic shorter.')
    }
  if (!LOG_DAYS.includes(stage.logDays))
    read.fault('logDays', 'CloudWatch keeps logs for no such time.', `Set one of ${LOG_DAYS.join(', ')}.`)
  if (stage.rotations.length > 0 && !stage.rotations.some(({ rotation }) => rotation.kind === 'directory')) {
    const fix = 'Add directory: { kind: directory } to it.'
    read.fault('rotation', 'Nobody would renew the key directory, and gates would stop.', fix)
  }
}

function mskFaults(stage: Stage, arn: string, read: ParameterReader): void {
  const { authentication, brokers, secret = CREATE, rotateSecret = CREATE } = stage.cluster
  // MSK takes users from secrets of such names; who rotates two of them logs in by a third, which points at one.
  const pointers = stage.rotations.flatMap(({ rotation: one }) => (one.kind === 'scram' ? [one.pointer] : []))
  const logins = [
    ['cluster.secret', secret],
    ...(rotateSecret === secret ? [] : [['cluster.rotateSecret', rotateSecret]]),
  ] as const
  for (const [at, login] of logins)
    if (
      authentication === 'scram' &&
      ![CREATE, '', ...pointers].includes(login) &&
      !MSK_SECRET_ARN.test(login)
    )
      read.fault(
        at,
        'MSK takes no user from a secret of such a name, and no rotation points by it.',
        'Name one that begins with AmazonMSK_, or the pointer of a scram rotation.',
      )
  const [, , , region, account] = arn.split(':')
  if (region !== undefined && (region !== stage.region || account !== stage.account))
    read.fault('cluster.arn', 'It is of another account or region.', 'Deploy where the cluster is.')
  const port = PORTS[authentication]
  if (!brokers.every((broker) => broker.endsWith(`:${port}`))) {
    const what = `MSK's port for ${authentication} is ${port}.`
    read.fault('cluster.brokers', what, 'Take the list from aws kafka get-bootstrap-brokers.')
  }
}

/** What is MSK's does not go with a cluster of one's own. */
function ownClusterFaults(stage: Stage, read: ParameterReader): void {
  const { brokers, secret, rotateSecret } = stage.cluster
  const ports = [...new Set(brokers.map((broker) => Number(broker.split(':').at(-1))))]
  if (ports.length > 1) {
    const fix = 'List those of one listener: security groups let the gate through to its port alone.'
    read.fault('cluster.brokers', `They have ${ports.length} ports.`, fix)
  }
  if (ports.some((port) => port < 1 || port > 65_535))
    read.fault('cluster.brokers', 'There is no such port.', 'Set one from 1 to 65535.')
  if (brokers.length > MAX_BROKERS) {
    const fix = `List ${MAX_BROKERS}: Kafka tells of the others.`
    read.fault('cluster.brokers', `Lambda takes ${MAX_BROKERS} of them.`, fix)
  }
  read.none('network.pollerRules', 'Here pollers have a group of their own, with its rules: leave it out.')
  if (stage.network.given.includes('kafka') && !hasMskUsers(stage))
    read.fault('network.given', "Nothing here asks MSK's API.", 'Take kafka out.')
  for (const { rotation: one } of stage.rotations)
    if (one.kind === 'scram' && one.msk !== undefined && [secret, rotateSecret].includes(one.pointer))
      read.fault(
        'rotation',
        `${one.name}: it would have MSK take the passwords over, and these brokers would not know them.`,
        'Leave its msk out.',
      )
}

/** What is there already is not made again, which EC2 would refuse in the middle of a deployment. */
function endpointFaults({ network }: Stage, read: ParameterReader): void {
  const { ways, given, endpointsSecurityGroup: group, routeTables } = network
  if (ways === 'nat') {
    for (const name of ['network.given', 'network.endpointsSecurityGroup'])
      if (read.has(name)) read.none(name, 'Leave it out, or set network.ways: endpoints.')
    return
  }
  if (given.includes('s3') && routeTables.length > 0)
    read.fault('network.routeTables', 'They have a route to S3 already.', 'Leave them out, or s3 of given.')
  if (given.some((service) => service !== 's3') && group === undefined) {
    const fix = 'Set the id of the security group that the given endpoints have.'
    read.fault('network.endpointsSecurityGroup', 'Who reaches the given endpoints is not known.', fix)
  }
}
