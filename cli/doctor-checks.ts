/** The checks of `sealgate doctor`: what each looks at. What is to be said of it stands in lib/doctor. */
import { createKafkaSource } from '../lib/adapters/kafka-source.ts'
import { clockVerdicts, recordVerdicts } from '../lib/doctor/access-verdicts.ts'
import { type Check, fail, orElse, type Verdict } from '../lib/doctor/finding.ts'
import { Outage } from '../lib/errors.ts'
import { byDeadline } from '../lib/keys/deadline.ts'
import { clockAddress, readNewestTime, serviceTime } from './doctor-clock.ts'
import { ClusterChecks } from './doctor-cluster.ts'
import { keyChecks } from './doctor-keys.ts'
import { placeChecks } from './doctor-places.ts'
import { templateVerdicts } from './doctor-template.ts'
import type { Clock } from '../lib/ports.ts'
import type { DeploymentOnCluster, Patient } from './patient.ts'
import type { GateSettings } from './settings.ts'

/** The checks that can be made of what is known, and what ends their connections. */
export function checksOf(patient: Patient): {
  readonly checks: readonly Check[]
  readonly close: () => Promise<void>
} {
  const { gate, deployment, clock, environment, template } = patient
  if (deployment === undefined) return { checks: placeChecks(patient), close: () => Promise.resolve() }
  const cluster = new ClusterChecks(deployment, patient)
  const checks: Check[] = [
    { name: 'contracts', look: () => Promise.resolve(contracts(deployment)) },
    ...(gate === undefined ? [] : keyChecks(gate, clock)),
    ...cluster.checks(),
    ...(gate === undefined
      ? []
      : [{ name: 'clock', look: (deadline: number) => clockCheck(gate, clock, environment, deadline) }]),
    { name: 'template', look: () => Promise.resolve(templateVerdicts(template)) },
  ]
  return { checks, close: () => cluster.close() }
}

function contracts(deployment: DeploymentOnCluster): readonly Verdict[] {
  const { all } = deployment.contracts
  const served = new Set(deployment.channels.values())
  const unserved = all.filter(({ channel }) => !served.has(channel))
  const faults = unserved.map(({ type, channel }) =>
    fail(`${type}: its channel ${channel} has no source topic.`, 'Add topic=channel to SEALGATE_CHANNELS.'),
  )
  return orElse(faults, `${all.length} contracts; each channel has its source topic.`)
}

async function clockCheck(
  { cluster: { signing, kafka, channels } }: GateSettings,
  clock: Clock,
  environment: Patient['environment'],
  deadline: number,
): Promise<readonly Verdict[]> {
  const arn = 'arn' in signing ? signing.arn : 'secret' in signing ? signing.secret : ''
  if (arn !== '') {
    const { aheadMs, exactMs } = await serviceTime(clockAddress(arn, environment), clock, deadline)
    return clockVerdicts(aheadMs, exactMs, 'AWS')
  }
  const source = createKafkaSource(kafka)
  try {
    const reading = readNewestTime(source, [...channels.keys()], deadline, clock)
    const newest = await byDeadline(reading, deadline, clock, late).catch(unlessOutage)
    return recordVerdicts(newest === undefined ? undefined : clock.now() - newest)
  } finally {
    // Whose answer we wait for no longer may keep its end waiting too.
    void source.close().catch(() => undefined)
  }
}

const late = (): Outage => new Outage('deadline', 'No record was read in time.')

/** What the brokers do not tell is not known; the check `brokers` says why. */
function unlessOutage(error: unknown): undefined {
  if (!(error instanceof Outage)) throw error
}
