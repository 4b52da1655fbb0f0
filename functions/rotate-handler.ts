/**
 * What the Lambda function that rotates does (keys.md §3): on a schedule, all that is due; called by Secrets Manager, one
 * secret in four steps. Only one of the two should be set up for a secret.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import middy from '@middy/core'
import type { Context } from 'aws-lambda'
import type { OpenedLifecycleLog } from '../lib/adapters/control-cluster.ts'
import type { LambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import { outageOf } from '../lib/admission/slice.ts'
import { LifecycleAccount } from '../lib/audit/lifecycle.ts'
import { ConfigError, Outage } from '../lib/errors.ts'
import { planRotation, type RotationPolicy, type RotationStep } from '../lib/keys/rotation.ts'
import { type RotationRow, rotationRow } from '../lib/keys/rotation-status.ts'
import { readRotation } from '../lib/keys/rotation-state.ts'
import { type RotationPorts, runRotation, stageSigningKey } from '../lib/keys/rotation-steps.ts'
import type { Rotations } from '../lib/rotation-runtime.ts'

/** What has been done, and what is due when. */
export interface RotationReport {
  readonly done: readonly { readonly name: string; readonly step: RotationStep['do'] }[]
  readonly rows: readonly RotationRow[]
}

/** Takes a scheduled event of EventBridge, or `{ Step, SecretId, ClientRequestToken }`; typed as unknown, since it is checked. */
export type RotateHandler = middy.MiddyfiedHandler<unknown, RotationReport | undefined>

/** Kept in hand before Lambda's own deadline. Milliseconds. */
const MARGIN_MS = 2000

/** Kept in hand for the audit, at most. Milliseconds. */
const AUDIT_MS = 10_000

/** And to look at what is due when, at most. */
const ROWS_MS = 10_000

/**
 * A handler on rotations that are opened at each invocation: what they are told to do may have changed. What was done is
 * told to the audit; where that fails, the invocation does.
 *
 * @param openLog gives undefined where the settings say by name that lifecycle is not audited
 */
export function rotateHandler(
  open: () => Rotations,
  openLog: () => OpenedLifecycleLog | undefined,
  telemetry?: Pick<LambdaTelemetry, 'invocation' | 'rotations'>,
): RotateHandler {
  const rotate = async (event: unknown, context: Context): Promise<RotationReport | undefined> => {
    const left = context.getRemainingTimeInMillis() - MARGIN_MS
    const end = Date.now() + left
    const asked = secretStepOf(event)
    const rotations = open()
    const opened = openLog()
    const deadline = opened === undefined ? end : end - Math.min(AUDIT_MS, Math.floor(left / 4))
    const account = new LifecycleAccount(opened?.log, `Function:${context.functionName}`)
    const run: Run = {
      telemetry,
      rotations,
      account,
      ports: account.on(await rotations.ports(deadline)),
      deadline,
    }
    try {
      const [work] = await Promise.allSettled([asked === undefined ? rotateAll(run) : takeStep(asked, run)])
      const [told] = await Promise.allSettled([account.flush(end)])
      if (told.status === 'rejected') throw notAudited(told.reason, work)
      if (work.status === 'rejected') throw work.reason
      return work.value
    } finally {
      await opened?.close()
    }
  }
  return middy<unknown, RotationReport | undefined>().handler((event, context) => {
    const work = (): Promise<RotationReport | undefined> =>
      rotate(event, context).catch((error: unknown) => {
        throw ours(error)
      })
    return telemetry === undefined ? work() : telemetry.invocation(context, work)
  })
}

/** What an invocation works with. */
interface Run {
  readonly telemetry: Pick<LambdaTelemetry, 'rotations'> | undefined
  readonly rotations: Rotations
  readonly account: LifecycleAccount
  readonly ports: RotationPorts
  readonly deadline: number
}

/** Our own errors as they are; of any other only its kind, since Lambda logs what an invocation fails with. */
const ours = (error: unknown): ConfigError | Outage =>
  error instanceof ConfigError ? error : outageOf(error)

const wordsOf = (error: unknown): string => ours(error).message

function notAudited(cause: unknown, work: PromiseSettledResult<unknown>): Outage {
  const failed = work.status === 'rejected' ? `${wordsOf(work.reason)}; and ` : ''
  const reason = `${failed}what was done stands, and is not audited: ${wordsOf(cause)}`
  return new Outage('unexpected', reason, { cause })
}

/** Logs in to brokers, and tries again for as long as it may: one that is not there, or MSK, takes all of its time. */
const isPatient = ({ rotation: { kind } }: RotationPolicy): boolean =>
  kind === 'scram' || kind === 'client-certificate'

/**
 * Each for itself, and for its share of the time that is left: one that gets nowhere must not let the key directory expire.
 * Rejects at the end, with all that failed, so that the invocation counts as failed and is alarmed.
 */
async function rotateAll({ telemetry, rotations, account, ports, deadline }: Run): Promise<RotationReport> {
  const done: { name: string; step: RotationStep['do'] }[] = []
  const failed = new Map<string, unknown>()
  const { clock } = ports
  const until = deadline - Math.min(ROWS_MS, Math.floor((deadline - clock.now()) / 4))
  const patient = rotations.policies.filter(isPatient)
  const inTurn = [...rotations.policies.filter((policy) => !isPatient(policy)), ...patient]
  for (const [index, policy] of inTurn.entries()) {
    const { rotation } = policy
    const end = clock.now() + Math.floor((until - clock.now()) / (inTurn.length - index))
    const onStep = (step: RotationStep): Promise<void> => {
      done.push({ name: rotation.name, step: step.do })
      account.add({ taken: step, rotation })
      return account.note(end)
    }
    try {
      await runRotation(policy, ports, end, onStep)
    } catch (error) {
      failed.set(rotation.name, error)
    }
  }
  const looked = await Promise.allSettled(
    rotations.policies.map((policy) => rotationRow(policy, ports, deadline)),
  )
  const rows = looked.flatMap((look) => (look.status === 'fulfilled' ? [look.value] : []))
  for (const [index, { rotation }] of rotations.policies.entries()) {
    const look = looked[index]
    if (look?.status === 'rejected' && !failed.has(rotation.name)) failed.set(rotation.name, look.reason)
  }
  telemetry?.rotations(rows, done)
  if (failed.size === 0) return { done, rows }
  const [first] = failed.values()
  const reasons = [...failed.values()].map(wordsOf).join('; ')
  throw new Outage('unexpected', `${failed.size} of ${looked.length} rotations failed: ${reasons}`, {
    cause: first,
  })
}

const STEPS = ['createSecret', 'setSecret', 'testSecret', 'finishSecret'] as const

interface SecretStep {
  readonly step: (typeof STEPS)[number]
  readonly secret: string
  readonly token: string
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Undefined for any event that is none of Secrets Manager's. */
function secretStepOf(event: unknown): SecretStep | undefined {
  if (!isObject(event) || !('Step' in event || 'SecretId' in event)) return undefined
  const { Step, SecretId: secret, ClientRequestToken: token } = event
  const step = STEPS.find((known) => known === Step)
  if (step === undefined || typeof secret !== 'string' || typeof token !== 'string' || !TOKEN.test(token))
    throw new ConfigError([
      {
        where: 'event',
        what: 'It is no rotation event of Secrets Manager.',
        fix: 'It needs Step, SecretId and ClientRequestToken.',
      },
    ])
  return { step, secret, token }
}

/** As Secrets Manager allows it. */
const TOKEN = /^[A-Za-z0-9-]{32,64}$/

async function takeStep(
  { step, secret, token }: SecretStep,
  { rotations, account, ports, deadline }: Run,
): Promise<undefined> {
  const policy = rotations.policies.find(
    ({ rotation }) => rotation.kind === 'signing-key' && rotation.secret === secret,
  )
  if (policy?.rotation.kind !== 'signing-key') {
    const fix = 'Add it, or take the rotation of the secret away.'
    throw new ConfigError([{ where: 'rotation policy', what: 'It has no signing key in this secret.', fix }])
  }
  const { rotation } = policy
  const onStep = (taken: RotationStep): void => account.add({ taken, rotation })
  const found = await readRotation(rotation, ports, deadline)
  if (found.kind !== 'signing-key' || found.current.version === token) return
  if (found.pending !== undefined && found.pending.version !== token) {
    const reason = `${rotation.name}: version ${found.pending.version} is pending already: the schedule finishes it`
    throw new Outage('unexpected', reason)
  }
  switch (step) {
    case 'createSecret':
      if (planOf(policy, found, ports).phase === 'blocked') throw blocked(rotation.name)
      if (found.pending === undefined) {
        await stageSigningKey(rotation, token, ports, deadline)
        onStep({ do: 'stage-key', after: found.current.version })
      }
      return
    case 'setSecret':
      await runRotation(policy, ports, deadline, onStep, (one) => one.do === 'enrol-key')
      return
    case 'testSecret':
      await untilUsable(policy, ports, deadline)
      return
    case 'finishSecret': {
      await runRotation(
        policy,
        ports,
        deadline,
        onStep,
        (one) => one.do === 'promote' || one.do === 'retire-key',
      )
      const after = await readRotation(rotation, ports, deadline)
      if (after.kind === 'signing-key' && after.current.version === token) return
      throw new Outage('unexpected', `${rotation.name}: its new key is not current yet; it is tried again`)
    }
  }
}

const planOf = (
  policy: RotationPolicy,
  state: Parameters<typeof planRotation>[0],
  { clock }: RotationPorts,
) => planRotation(state, policy, Math.floor(clock.now() / 1000))

const blocked = (name: string): Outage =>
  new Outage('unexpected', `${name}: its key is not active in the directory; see sealgate rotate status`)

/** Waits, as long as there is time, until every gate must know the new key. */
async function untilUsable(policy: RotationPolicy, ports: RotationPorts, deadline: number): Promise<void> {
  for (;;) {
    const { steps } = planOf(policy, await readRotation(policy.rotation, ports, deadline), ports)
    if (steps.some((step) => step.do === 'promote')) return
    const wait = steps.find((step) => step.do === 'wait')
    if (wait === undefined) throw blocked(policy.rotation.name)
    const left = wait.until * 1000 - ports.clock.now()
    if (ports.clock.now() + left >= deadline) {
      const until = new Date(wait.until * 1000).toISOString()
      throw new Outage(
        'deadline',
        `${policy.rotation.name}: not every gate knows the new key before ${until}`,
      )
    }
    await sleep(Math.max(0, left))
  }
}
