/** `sealgate rotate`: carries out what is due, or one by name, and says what is due when (docs/rotation.md). */
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { ConfigError, Outage } from '../lib/errors.ts'
import {
  planRotation,
  type RotationPlan,
  type RotationPolicy,
  type RotationStep,
} from '../lib/keys/rotation.ts'
import { type RotationRow, rotationRow } from '../lib/keys/rotation-status.ts'
import { readRotation, type RotationView } from '../lib/keys/rotation-state.ts'
import { type RotationPorts, runRotation } from '../lib/keys/rotation-steps.ts'
import { openLocalRotations, openRotations, type Rotations } from '../lib/rotation-runtime.ts'
import { CALL_MS, directoryTrust, timeText } from './directory-place.ts'
import { EXIT, oneLine, table } from './io.ts'
import { byOption, type Lifecycle, openLifecycle } from './lifecycle.ts'
import { choosePlace } from './place-settings.ts'
import { readBrokerSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'

interface Flags {
  readonly folder?: string
  readonly settings?: string
  readonly policy?: string
  readonly json?: true
}

interface RotateFlags extends Flags {
  readonly now?: true
  readonly dryRun?: true
  readonly wait?: true
  readonly by?: string
}

/** Read from the working directory where `--policy` names no other. */
const POLICY_FILE = 'rotation.yaml'

/** Adds `rotate` and `rotate status` to the program. */
export function addRotateCommands(program: Command, terminal: Terminal): void {
  const rotate = addOptions(
    program
      .command('rotate')
      .argument('[name]', 'one of the policy, instead of all that are due')
      .description('rotate keys and credentials that are due, without a moment when one is missing'),
    'print {"done":[{"name","step"}],"rows":[…],"audited"}',
  )
    .option('--now', 'rotate NAME though it is not due, or blocked')
    .option('--dry-run', 'show the steps that are next; do nothing')
    .option('--wait', 'go on after each wait, until the rotation is done')
    .addOption(byOption())
    .addHelpText(
      'after',
      '\nExample:\n  sealgate rotate gateway --now\n\nExit status 1: one of them is blocked. Run it again, or on a schedule, after the\nwait that it names.',
    )
    .action((name: string | undefined, _: unknown, command: Command) =>
      runAll(terminal, name, command.opts()),
    )
  addOptions(
    rotate.command('status').description('what was rotated when, and is due when'),
    'print {"rows":[{"name","kind","state","rotatedAt","dueAt","overdue"}]}',
  )
    .addHelpText('after', '\nExample:\n  sealgate rotate status\n\nExit status 1: something is overdue.')
    .action((_: unknown, command: Command) => status(terminal, command.optsWithGlobals()))
}

function addOptions(command: Command, json: string): Command {
  const text = (value: string): string => {
    // As a path it would be the current folder.
    if (value === '') throw new InvalidArgumentError('It is empty: name one, or leave it out.')
    return value
  }
  const option = (flags: string, what: string): Option => new Option(flags, what).argParser(text)
  return command
    .addOption(option('--folder <dir>', 'an embedded stack (default: SEALGATE_LOCAL, or .sealgate)'))
    .addOption(
      option('--settings <file>', 'settings with directory, roots, rootKey (default: sealgate.yaml)'),
    )
    .addOption(
      option('--policy <file>', `what to rotate (default: ${POLICY_FILE}; a stack has one of its own)`),
    )
    .option('--json', json)
}

async function open(
  terminal: Terminal,
  flags: Flags,
  needsRoot: boolean,
): Promise<{
  readonly rotations: Rotations
  readonly lifecycle: (by: string | undefined) => Promise<Lifecycle>
}> {
  const { folder, settings } = flags
  const place = choosePlace(
    { ...(folder !== undefined && { folder }), ...(settings !== undefined && { settings }) },
    terminal.env,
  )
  const policy = flags.policy ?? (existsSync(POLICY_FILE) ? POLICY_FILE : undefined)
  const { trust } = await directoryTrust(place, needsRoot)
  const lifecycle = (by: string | undefined): Promise<Lifecycle> => openLifecycle(terminal, place, trust, by)
  if ('folder' in place)
    return { rotations: await openLocalRotations(place.folder, trust, policy, terminal), lifecycle }
  const kafka = () => readBrokerSettings(place.cluster)
  return { rotations: openRotations({ ...trust, kafka }, policy ?? POLICY_FILE, terminal), lifecycle }
}

function chosen({ policies }: Rotations, name: string | undefined, now: boolean): readonly RotationPolicy[] {
  if (name === undefined) {
    if (!now) return policies
    throw new ConfigError([
      { where: '--now', what: 'It is for one rotation.', fix: 'Name it: rotate NAME --now.' },
    ])
  }
  const found = policies.filter(({ rotation }) => rotation.name === name)
  if (found.length > 0) return found.map((policy) => ({ ...policy, now }))
  const fix = `There are: ${policies.map(({ rotation }) => rotation.name).join(', ')}.`
  throw new ConfigError([{ where: name, what: 'The policy has no such rotation.', fix }])
}

async function runAll(terminal: Terminal, name: string | undefined, flags: RotateFlags): Promise<void> {
  const { now = false, dryRun = false, wait = false, json, by } = flags
  const { rotations, lifecycle } = await open(terminal, flags, !dryRun)
  const policies = chosen(rotations, name, now)
  const stop = wait ? terminal.stopSignal() : undefined
  const audit = dryRun ? undefined : await lifecycle(by)
  const done: { name: string; step: RotationStep['do'] }[] = []
  const failed: unknown[] = []
  let isBlocked = false
  let audited: boolean | null = null
  try {
    const ports = audit?.account.on(await rotations.ports(terminal.now() + CALL_MS))
    const rotate = async (policy: RotationPolicy): Promise<RotationPlan> => {
      const { rotation } = policy
      const told = async (step: RotationStep): Promise<void> => {
        done.push({ name: rotation.name, step: step.do })
        if (!json) terminal.write(oneLine(`${rotation.name}: ${describe(step)}`))
        audit?.account.add({ taken: step, rotation })
        await audit?.account.note(terminal.now() + CALL_MS)
      }
      const plan =
        ports === undefined
          ? await look(terminal, policy, rotations.view)
          : await turn(terminal, policy, ports, told, stop)
      if (ports === undefined) for (const step of plan.steps) await told(step)
      if (!json && (ports !== undefined || plan.steps.length === 0))
        terminal.write(oneLine(`${rotation.name}: ${outcome(plan)}`))
      return plan
    }
    for (const policy of policies) {
      try {
        if ((await rotate(policy)).phase === 'blocked') isBlocked = true
      } catch (error) {
        // The next ones all the same: a broker that is away must not let the key directory expire.
        failed.push(error)
        if (!json && policies.length > 1) terminal.warn(`${policy.rotation.name} failed; see below`)
      }
    }
  } finally {
    // Of one that failed too: what it has done stands.
    if (audit !== undefined) audited = await audit.settle('What was done stands.')
    await audit?.close()
  }
  if (failed.length > 0) throw inOne(failed)
  if (json) {
    const all = policies.map(({ rotation, waits }) => ({ rotation, waits }))
    const rows = await rowsOf(terminal, all, rotations.view)
    terminal.write(JSON.stringify({ dryRun, done, rows, audited }))
  }
  terminal.exit(audited === false ? EXIT.outage : isBlocked ? EXIT.found : EXIT.ok)
}

/** Faults of files and secrets together where there is nothing else; else what failed, in one line. */
function inOne(failed: readonly unknown[]): unknown {
  if (failed.length === 1) return failed[0]
  const faults = failed.flatMap((error) => (error instanceof ConfigError ? error.faults : []))
  if (failed.every((error) => error instanceof ConfigError)) return new ConfigError(faults)
  const reasons = failed.map((error) => (error instanceof Error ? error.message : 'unknown')).join('; ')
  return new Outage('unexpected', `${failed.length} rotations failed: ${reasons}`, { cause: failed[0] })
}

const look = async (
  terminal: Terminal,
  policy: RotationPolicy,
  view: RotationView,
): Promise<RotationPlan> => {
  const state = await readRotation(policy.rotation, view, terminal.now() + CALL_MS)
  return planRotation(state, policy, Math.floor(terminal.now() / 1000))
}

/** With `stop`, goes on after each wait until it is told to end. */
async function turn(
  terminal: Terminal,
  policy: RotationPolicy,
  ports: RotationPorts,
  told: (step: RotationStep) => Promise<void>,
  stop: AbortSignal | undefined,
): Promise<RotationPlan> {
  let next = policy
  for (;;) {
    const { done, plan } = await runRotation(next, ports, terminal.now() + CALL_MS, told)
    const wait = plan.steps.find((step) => step.do === 'wait')
    if (wait === undefined || stop === undefined) return plan
    await told(wait)
    const left = Math.min(wait.until * 1000 - terminal.now(), 2 ** 31 - 1)
    if (!(await sleep(Math.max(0, left), true, { signal: stop }).catch(() => false))) return plan
    // What was asked for has begun; not so where only the rotation before it is waited for.
    if (done.length > 0) next = { rotation: policy.rotation, waits: policy.waits }
  }
}

function outcome({ phase, dueAt, steps }: RotationPlan): string {
  const wait = steps.find((step) => step.do === 'wait')
  if (wait !== undefined) return `${describe(wait)}; then run this again`
  if (phase === 'blocked')
    return 'blocked. Its key is not active in the key directory, or may be rotated no more; with --now it is given another.'
  return dueAt === null ? 'nothing to do' : `nothing to do; due ${timeText(dueAt)}`
}

/** A step for people. */
function describe(step: RotationStep): string {
  switch (step.do) {
    case 'wait':
      return `waits until ${timeText(step.until)}, ${step.why}`
    case 'enrol-key':
      return `enrol key ${step.kid}`
    case 'retire-key':
      return `key ${step.kid} signs until ${timeText(step.at)}`
    case 'destroy-key':
      return `take key ${step.kid} out of the directory`
    case 'promote':
      return `make version ${step.version} of ${step.secret} current`
    case 'stage-key':
      return 'make a new key pair, pending'
    case 'enable-rotation':
      return `have it rotate itself every ${step.days} days`
    case 'rotate-on-demand':
      return 'rotate it on demand'
    case 'renew-directory':
      return `publish the directory again, after version ${step.version}`
    case 'stage-certificate':
      return 'make a new key and its certificate, pending'
    case 'stage-password':
      return `make a new password for ${step.username}, pending`
    case 'set-password':
      return `tell the brokers the password in ${step.secret}`
    case 'log-in':
      return `${step.do} of ${step.secret}`
    case 'associate':
      return `associate ${step.secrets.join(' and ')}`
    case 'move-pointer':
      return `clients are told to be the user of ${step.secret}`
  }
}

const endText = (endsAt: string, now: number): string =>
  Date.parse(endsAt) > now ? `ends ${endsAt}` : `ended ${endsAt}: nobody takes it any more`

const rowsOf = (
  terminal: Terminal,
  policies: readonly RotationPolicy[],
  view: RotationView,
): Promise<RotationRow[]> =>
  Promise.all(policies.map((policy) => rotationRow(policy, view, terminal.now() + CALL_MS)))

async function status(terminal: Terminal, flags: Flags): Promise<void> {
  const { policies, view } = (await open(terminal, flags, false)).rotations
  const rows = await rowsOf(terminal, policies, view)
  if (flags.json) terminal.write(JSON.stringify({ rows }))
  else {
    const head = ['NAME', 'KIND', 'STATE', 'ROTATED', 'DUE', '']
    const cells = rows.map(
      ({ name, kind, state, rotatedAt, dueAt, overdue, waitsUntil, onDemandLeft, endsAt, reason }) => [
        ...[name, kind, state, rotatedAt ?? '', dueAt ?? ''],
        [
          overdue ? 'overdue' : '',
          waitsUntil === undefined ? '' : `waits until ${waitsUntil}`,
          endsAt === undefined ? '' : endText(endsAt, terminal.now()),
          onDemandLeft === undefined ? '' : `${onDemandLeft} left on demand`,
          reason ?? '',
        ]
          .filter((note) => note !== '')
          .join('; '),
      ],
    )
    for (const line of table([head, ...cells])) terminal.write(oneLine(line))
  }
  terminal.exit(rows.some(({ overdue }) => overdue) ? EXIT.found : EXIT.ok)
}
