/** `sealgate setup print`: the commands that make a cluster ready (docs/setup.md). It changes nothing itself. */
import type { Command } from 'commander'
import { MSK_CLUSTER_ARN } from '../lib/adapters/msk-users.ts'
import { clusterNeeds } from '../lib/cluster-needs.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import { mskSetupCommands, PARTS, rightsByName, setupCommands, setupFaults } from '../lib/setup-commands.ts'
import { collect, wholeNumber } from './numbers.ts'
import { choosePlace } from './place-settings.ts'
import { readDeploymentSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'
import { namingOption } from './world.ts'

interface Flags {
  readonly settings?: string
  readonly partitions: number
  readonly principal: readonly string[]
  readonly commandConfig: string
  readonly mskIam?: string
  readonly serverless?: true
}

/** Adds `setup print` to the program. */
export function addSetupCommands(program: Command, terminal: Terminal): void {
  const setup = program.command('setup').description('what a Kafka cluster needs for a deployment')
  setup
    .command('print')
    .description('print the commands that make topics, rights and settings; nothing is done')
    .addOption(namingOption('--settings <file>', "the gate's settings (default: sealgate.yaml)"))
    .option('--partitions <n>', 'of each topic that is made', wholeNumber(1, 10_000), 12)
    .addOption(
      namingOption(
        '--principal <name=who>',
        'who gate, poller, an issuer … is: User:… or a role; by default its name',
      )
        .argParser(collect)
        .default([], ''),
    )
    .addOption(
      namingOption('--command-config <file>', "how Kafka's tools connect").default('admin.properties'),
    )
    .addOption(namingOption('--msk-iam <arn>', 'on MSK with IAM: policies for roles, instead of ACLs'))
    .option('--serverless', 'with --msk-iam: the cluster is MSK Serverless')
    .addHelpText(
      'after',
      '\nExample:\n  sealgate setup print --principal gate=User:sealgate > setup.sh && less setup.sh && sh setup.sh',
    )
    .action((flags: Flags) => print(terminal, flags))
}

async function print(terminal: Terminal, flags: Flags): Promise<void> {
  const { settings, partitions, commandConfig, mskIam, serverless = false } = flags
  const place = choosePlace(settings === undefined ? {} : { settings }, terminal.env)
  if ('folder' in place) {
    const what = 'It is for a cluster, and these settings name none.'
    throw new ConfigError([{ where: '--settings', what, fix: 'Name settings of a cluster (docs/cli.md).' }])
  }
  const found = await readDeploymentSettings(place.cluster)
  const needs = clusterNeeds({ ...found, deployment: found.kafka.deployment })
  const names = [...rightsByName(needs).keys()]
  const faults: Fault[] = []
  if (found.channels.size === 0)
    faults.push({
      where: 'SEALGATE_CHANNELS',
      what: 'It names no source topic.',
      fix: 'Set topic=channel,topic=channel.',
    })
  if (!/^[A-Za-z0-9._/-]+$/.test(commandConfig))
    faults.push({
      where: '--command-config',
      what: 'It is no plain path.',
      fix: 'Use letters, digits, and . _ - / alone.',
    })
  if (mskIam !== undefined && !MSK_CLUSTER_ARN.test(mskIam))
    faults.push({ where: '--msk-iam', what: 'It is no ARN of a cluster.', fix: 'Give it whole.' })
  if (serverless && mskIam === undefined)
    faults.push({
      where: '--serverless',
      what: 'MSK Serverless knows IAM alone.',
      fix: 'Give --msk-iam ARN too.',
    })
  const principals = new Map(flags.principal.map((text) => pairOf(text, names, mskIam !== undefined, faults)))
  const reserved = PARTS.filter((part) => needs.producers.has(part) || needs.consumers.has(part))
  if (reserved.length > 0) {
    const what = `It names somebody ${reserved.join(', ')}, as a part of the deployment is named.`
    faults.push({ where: 'contracts', what, fix: 'Give issuers and consumers other names.' })
  }
  const principalOf = (name: string): string =>
    principals.get(name) ?? (mskIam === undefined ? `User:${name}` : name)
  faults.push(...setupFaults(needs, principalOf, mskIam !== undefined))
  if (faults.length > 0) throw new ConfigError(faults)
  const brokers = found.kafka.brokers.join(',')
  const options = { brokers, commandConfig, partitions, principals: principalOf, serverless }
  terminal.write(
    mskIam === undefined ? setupCommands(needs, options) : mskSetupCommands(needs, mskIam, options),
  )
}

/** As Kafka spells one, with a certificate's subject too; nothing that ends a shell's quotation marks. */
const PRINCIPAL = /^User:[^'\p{Cc}]{1,500}$/u
const ROLE = /^[A-Za-z0-9_+=,.@-]{1,64}$/

function pairOf(
  text: string,
  names: readonly string[],
  isRole: boolean,
  faults: Fault[],
): readonly [string, string] {
  const [, name = '', who = ''] = /^([^=]*)=([^]*)$/.exec(text) ?? []
  const where = '--principal'
  if (!names.includes(name))
    faults.push({
      where,
      what: `${name} is no part of this deployment.`,
      fix: `Known are ${names.join(', ')}.`,
    })
  else if (!(isRole ? ROLE : PRINCIPAL).test(who))
    faults.push({
      where,
      what: `${name} is no such principal.`,
      fix: isRole ? 'Give NAME=ROLE.' : 'Give NAME=User:WHO.',
    })
  return [name, who]
}
