/** What `sealgate setup print` is made of, for names that no shell, authoriser or policy may take for anything else. */
import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import {
  type ClusterNeeds,
  clusterNeeds,
  named,
  producerRights,
  readerRights,
} from '../../lib/cluster-needs.ts'
import { mskSetupCommands, PARTS, setupCommands, setupFaults } from '../../lib/setup-commands.ts'

const CLUSTER = 'arn:aws:kafka:eu-west-1:123456789012:cluster/shop/6cc0432b-8618-4f44-bccc-e1fbd8fb7c4d-2'

const needsOf = (producer: string, consumer: string, deployment = 'shop'): ClusterNeeds => ({
  ...clusterNeeds({
    deployment,
    channels: new Map([['orders-in', 'orders']]),
    topics: new Map(),
    auditTopic: 'shop.audit',
    quarantineTopic: 'shop.quarantine',
    contracts: { digest: new Uint8Array(), all: [], find: () => undefined },
  }),
  producers: new Map([[producer, producerRights([named('orders-in')])]]),
  consumers: new Map([[consumer, readerRights(`${consumer}.`, [named('orders-out')])]]),
})
const byName = (name: string): string => `User:${name}`
const faultsOf = (needs: ClusterNeeds, isIam = false): string[] =>
  setupFaults(needs, byName, isIam).map(({ where, what }) => `${where}: ${what}`)

/** What a shell hands to the tools that the script calls, command by command. */
const calls = (script: string): string[][] => {
  const tools = ['kafka-topics.sh', 'kafka-configs.sh', 'kafka-acls.sh', 'aws']
  const told = tools.map((tool) => `${tool}() { printf '%s\\0' "$@"; printf '\\n\\n'; }`).join('\n')
  const body = script.replace(/kafka-(topics|configs|acls)\.sh/g, 'kafka_$1')
  const out = execFileSync('sh', { input: `${told.replace(/kafka-(\w+)\.sh/g, 'kafka_$1')}\n${body}\n` })
  return out
    .toString()
    .split('\n\n')
    .map((call) => call.split('\0').slice(0, -1))
}

describe('names that contracts may have', () => {
  const names = ["a'b", '$(id)', '`id`', 'a b', 'a\nid', '"', '\\', 'émetteur', 'https://shop.example/x', '#']

  it.each(names)('%j reaches Kafka’s tools as it is', (name) => {
    const needs = needsOf(name, name)
    expect(faultsOf(needs)).toEqual([])
    const options = { brokers: 'b:1', commandConfig: 'a.properties', partitions: 1, principals: byName }
    const given = calls(setupCommands(needs, options))
    expect(given.filter((call) => call.includes(`User:${name}`))).toHaveLength(3)
    expect(given.flat()).toContain(`${name}.`)
    expect(given.flat().join(' ')).not.toContain('uid=')
  })

  it.each(names)('%j reaches IAM in a policy with a name that IAM takes, of nobody else', (name) => {
    const options = { brokers: 'b:1', commandConfig: 'a.properties', partitions: 1, principals: () => 'role' }
    const given = calls(mskSetupCommands(needsOf(name, `${name}2`), CLUSTER, options))
    const policies = given.flatMap((call) => {
      const at = call.indexOf('--policy-name')
      return at === -1 ? [] : [call[at + 1] ?? '']
    })
    for (const policy of policies) expect(policy).toMatch(/^[\w+=,.@-]{1,128}$/)
    expect(new Set(policies).size).toBe(PARTS.length + 2)
  })
})

describe('consumers of which one’s name begins another’s', () => {
  const consumers = new Map(
    ['reports', 'reports.eu', 'reports.eu.vat', 'reports-us'].map((name) => [
      name,
      readerRights(`${name}.`, [named('orders-out')]),
    ]),
  )
  const needs = { ...needsOf('web', 'none'), consumers }
  const options = { brokers: 'b:1', commandConfig: 'a.properties', partitions: 1, principals: byName }

  it('are kept out of each other’s groups by Kafka, and let into their own', () => {
    const denials = calls(setupCommands(needs, options)).filter((call) => call.includes('--deny-principal'))
    const after = (call: string[], flag: string): string | undefined => call[call.indexOf(flag) + 1]
    expect(denials.map((call) => [after(call, '--deny-principal'), after(call, '--group')])).toEqual([
      ['User:reports', 'reports.eu.'],
      ['User:reports', 'reports.eu.vat.'],
      ['User:reports.eu', 'reports.eu.vat.'],
    ])
    for (const call of denials)
      expect([after(call, '--operation'), after(call, '--resource-pattern-type')]).toEqual([
        'All',
        'prefixed',
      ])
  })

  it('are kept out by IAM too', () => {
    const script = mskSetupCommands(needs, CLUSTER, options)
    const denied = calls(script).flatMap((call) => {
      const at = call.indexOf('--policy-document')
      if (at === -1) return []
      const { Statement }: { Statement: { Effect: string; Action: string[]; Resource: string[] }[] } =
        JSON.parse(call[at + 1] ?? '')
      return Statement.filter(({ Effect }) => Effect === 'Deny').map(({ Action, Resource }) => [
        call[call.indexOf('--role-name') + 1],
        Action,
        Resource.map((arn) => arn.split('/').at(-1)),
      ])
    })
    const actions = ['kafka-cluster:AlterGroup', 'kafka-cluster:DescribeGroup']
    expect(denied).toEqual([
      ['User:reports', actions, ['reports.eu.*', 'reports.eu.vat.*']],
      ['User:reports.eu', actions, ['reports.eu.vat.*']],
    ])
  })

  it('are let into both where one user is both, or has groups among the other’s', () => {
    const shared = (name: string): string =>
      ['reports', 'reports.eu.vat'].includes(name) ? 'User:both' : byName(name)
    const script = setupCommands(needs, { ...options, principals: shared })
    // To keep reports.eu.vat's own user out of reports.eu.* would keep it out of its own.
    expect(calls(script).filter((call) => call.includes('--deny-principal'))).toEqual([
      expect.arrayContaining(['--deny-principal', 'User:reports.eu', '--group', 'reports.eu.vat.']),
    ])
  })
})

describe('names that are refused', () => {
  it('are those of consumers whose groups are the gate’s or its poller’s, or among these', () => {
    for (const consumer of ['shop', 'shop.shadow', 'shop.shadow.v1', 'shop.lambda'])
      expect(faultsOf(needsOf('web', consumer))).toEqual([
        expect.stringMatching(/^contracts: consume\.shop.*: Its consumer groups would be those of shop\./),
      ])
    expect(faultsOf(needsOf('web', 'shop', 'shop.eu'))).toHaveLength(1)
    for (const consumer of ['sho', 'shop-eu', 'shop.reports', 'shadow'])
      expect(faultsOf(needsOf('web', consumer))).toEqual([])
  })

  it('are those that stand for everybody, in an ACL or in a policy', () => {
    expect(faultsOf(needsOf('*', 'reports'))).toEqual(['--principal: * would be User:*, which is everybody.'])
    for (const consumer of ['re*', '?', '${aws:username}']) {
      expect(faultsOf(needsOf('web', consumer), true)).toHaveLength(1)
      expect(faultsOf(needsOf('web', consumer))).toEqual([])
    }
  })
})
