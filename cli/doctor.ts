/** `sealgate doctor`: looks at a deployment before it runs, and while it does, and says what to do (docs/doctor.md). */
import type { Command } from 'commander'
import { MSK_CLUSTER_ARN } from '../lib/adapters/msk-users.ts'
import type { KafkaConnectionSettings } from '../lib/adapters/kafka-settings.ts'
import { type Finding, runChecks, skip, type Status, verdictsOf } from '../lib/doctor/finding.ts'
import { ConfigError } from '../lib/errors.ts'
import { type Colour, EXIT, type ExitStatus, oneLine, paint } from './io.ts'
import { collect, wholeNumber } from './numbers.ts'
import { choosePlace } from './place-settings.ts'
import { type GateSettings, readBrokerSettings, readGateSettings } from './settings.ts'
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
  const places = { cluster, disks, template, clock }
  const settings = settingsOf(terminal, flags)
  if (!('gate' in settings)) {
    const { placeChecks } = await import('./doctor-places.ts')
    const findings = [...settings.findings, ...(await runChecks(placeChecks(places), clock, timeout * 1000))]
    print(terminal, findings, flags)
    terminal.exit(settings.isBad ? EXIT.badInput : statusOf(findings))
    return
  }
  const { checksOf } = await import('./doctor-checks.ts')
  const { node } = process.versions
  const { checks, close } = checksOf({ ...settings, ...places, environment: terminal.env, node })
  try {
    const findings = await runChecks(checks, clock, timeout * 1000)
    print(terminal, findings, flags)
    terminal.exit(statusOf(findings))
  } finally {
    await close()
  }
}

type Settings =
  | { readonly gate: GateSettings; readonly observer: KafkaConnectionSettings | undefined }
  | { readonly findings: readonly Finding[]; readonly isBad: boolean }

/** Those of the gate; or what is to be said where there are none that can be used, which keeps nothing else from being looked at. */
function settingsOf(terminal: Terminal, flags: Flags): Settings {
  const { settings, observer, msk, disk, template } = flags
  try {
    if (msk !== undefined && !MSK_CLUSTER_ARN.test(msk))
      throw new ConfigError([{ where: '--msk', what: 'It is no ARN of a cluster.', fix: 'Give it whole.' }])
    const place = choosePlace(settings === undefined ? {} : { settings }, terminal.env)
    if ('cluster' in place) {
      const gate = readGateSettings(place.cluster)
      return { gate, observer: observer === undefined ? undefined : observerOf(observer, terminal) }
    }
    const fix = 'Name settings of a cluster (docs/cli.md).'
    if (observer === undefined && (msk !== undefined || disk.length > 0 || template !== undefined))
      return { findings: [{ name: 'settings', ...skip('No cluster is named.', fix) }], isBad: false }
    const what = 'It looks at a cluster, and these settings name none.'
    throw new ConfigError([{ where: '--settings', what, fix }])
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { findings: verdictsOf(error).map((verdict) => ({ name: 'settings', ...verdict })), isBad: true }
  }
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
