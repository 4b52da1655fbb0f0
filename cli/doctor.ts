/** `sealgate doctor`: looks at a deployment before it runs, and while it does, and says what to do (docs/doctor.md). */
import type { Command } from 'commander'
import { MSK_CLUSTER_ARN } from '../lib/adapters/msk-users.ts'
import type { KafkaConnectionSettings } from '../lib/adapters/kafka-settings.ts'
import {
  fail,
  type Finding,
  orElse,
  runChecks,
  skip,
  type Status,
  type Verdict,
  verdictsOf,
} from '../lib/doctor/finding.ts'
import { ConfigError } from '../lib/errors.ts'
import { type Colour, EXIT, type ExitStatus, oneLine, paint } from './io.ts'
import { collect, wholeNumber } from './numbers.ts'
import { choosePlace } from './place-settings.ts'
import type { Patient } from './patient.ts'
import { readBrokerSettings, readDeploymentSettings, readGateSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'
import { namingOption } from './world.ts'

interface Flags {
  readonly settings?: string
  readonly observer?: string
  readonly msk?: string
  readonly disk: readonly string[]
  readonly template?: string
  /** Seconds. */
  readonly timeout: number
  readonly json?: true
}

const EXIT_STATUSES = `
Example:
  sealgate doctor --observer observer.yaml --msk arn:aws:kafka:eu-west-1:123456789012:cluster/shop/6cc0432b-1

Exit status: 0 no fault, 1 a warning or a fault, 3 something does not answer, 2 settings that cannot be used. What is
skipped cannot be known from here, and is no fault.`

/** Adds `doctor` to the program. */
export function addDoctorCommand(program: Command, terminal: Terminal): void {
  program
    .command('doctor')
    .description('look at settings, contracts, keys, brokers, topics and rights, and say what to do')
    .addOption(namingOption('--settings <file>', "the gate's settings (default: sealgate.yaml)"))
    .addOption(namingOption('--observer <file>', 'settings of somebody who may see topics and brokers'))
    .addOption(namingOption('--msk <arn>', 'the MSK cluster: MSK is asked about disks and access too'))
    .addOption(
      namingOption('--disk <folder>', 'on a broker: a folder of its log.dirs')
        .argParser(collect)
        .default([], ''),
    )
    .addOption(namingOption('--template <file>', 'the compiled template of the deployment'))
    .option('--timeout <seconds>', 'how long all of it may take', wholeNumber(1, 600), 20)
    .option('--json', 'print {"checks":[{"name","status","message","fix"}]}')
    .addHelpText('after', EXIT_STATUSES)
    .action((flags: Flags) => doctor(terminal, flags))
}

async function doctor(terminal: Terminal, flags: Flags): Promise<void> {
  const clock = { now: () => terminal.now() }
  const { msk, disk: disks, template, timeout } = flags
  const cluster = msk !== undefined && MSK_CLUSTER_ARN.test(msk) ? msk : undefined
  const { findings: said, isBad, ...settings } = await settingsOf(terminal, flags)
  const { checksOf } = await import('./doctor-checks.ts')
  const { node } = process.versions
  const environment = terminal.env
  const { checks, close } = checksOf({ ...settings, cluster, disks, template, clock, environment, node })
  try {
    const findings = [...said, ...(await runChecks(checks, clock, timeout * 1000))]
    print(terminal, findings, flags)
    terminal.exit(isBad ? EXIT.badInput : statusOf(findings))
  } finally {
    await close()
  }
}

interface Settings extends Pick<Patient, 'gate' | 'deployment' | 'observer'> {
  /** What is to be said of them. */
  readonly findings: readonly Finding[]
  readonly isBad: boolean
}

/** As much of them as can be read: what is wrong with some keeps nothing else from being looked at. */
async function settingsOf(terminal: Terminal, flags: Flags): Promise<Settings> {
  const { settings, observer: file, msk, disk, template } = flags
  const faults: Verdict[] = []
  const noting = <T>(read: () => T): T | undefined => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      faults.push(...verdictsOf(error))
      return undefined
    }
  }
  const place = noting(() => choosePlace(settings === undefined ? {} : { settings }, terminal.env))
  if (msk !== undefined && !MSK_CLUSTER_ARN.test(msk))
    faults.push(fail('--msk: It is no ARN of a cluster.', 'Give it whole.'))
  const observer = file === undefined ? undefined : noting(() => observerOf(file, terminal))
  if (place !== undefined && 'cluster' in place) {
    const gate = noting(() => readGateSettings(place.cluster))
    const deployment = gate?.cluster ?? (await readDeploymentSettings(place.cluster).catch(unlessFaults))
    return { gate, deployment, observer, ...told(orElse(faults, 'Read, with no fault.'), faults) }
  }
  const isNamed = file === undefined && (msk !== undefined || disk.length > 0 || template !== undefined)
  const fix = 'Name settings of a cluster (docs/cli.md).'
  if (place !== undefined && !isNamed)
    faults.push(fail('--settings: It looks at a cluster, and these settings name none.', fix))
  const none = [skip('No cluster is named.', fix)]
  return {
    ...{ gate: undefined, deployment: undefined, observer },
    ...told(faults.length > 0 ? faults : none, faults),
  }
}

const told = (
  verdicts: readonly Verdict[],
  faults: readonly Verdict[],
): Pick<Settings, 'findings' | 'isBad'> => ({
  findings: verdicts.map((verdict) => ({ name: 'settings', ...verdict })),
  isBad: faults.length > 0,
})

/** They are among those of the gate. */
function unlessFaults(error: unknown): undefined {
  if (!(error instanceof ConfigError)) throw error
}

/** The file alone: the environment is the gate's. */
function observerOf(settings: string, { env }: Terminal): KafkaConnectionSettings {
  const others = Object.entries(env).filter(([name]) => !name.startsWith('SEALGATE_'))
  const place = choosePlace({ settings }, Object.fromEntries(others))
  const kafka = 'cluster' in place ? readBrokerSettings(place.cluster) : undefined
  if (kafka !== undefined) return kafka
  throw new ConfigError([
    { where: '--observer', what: 'It names no brokers.', fix: 'Set kafka.brokers there.' },
  ])
}

const COLOURS: Readonly<Record<Status, Colour>> = { ok: 'green', warn: 'yellow', fail: 'red', skip: 'dim' }

function print(terminal: Terminal, findings: readonly Finding[], { json }: Flags): void {
  if (json) {
    const checks = findings.map(({ name, status, message, fix }) => ({ name, status, message, fix }))
    terminal.write(JSON.stringify({ checks }))
    return
  }
  const width = Math.max(...findings.map(({ name }) => name.length))
  for (const { name, status, message, fix } of findings) {
    const mark = paint(terminal.colours.out, COLOURS[status], status.padEnd(4))
    terminal.write(`${name.padEnd(width)}  ${mark}  ${oneLine(`${message} ${fix}`.trimEnd())}`)
  }
}

function statusOf(findings: readonly Finding[]): ExitStatus {
  if (findings.some(({ isOutage }) => isOutage === true)) return EXIT.outage
  const isRed = findings.some(({ status }) => status === 'warn' || status === 'fail')
  return isRed ? EXIT.found : EXIT.ok
}
