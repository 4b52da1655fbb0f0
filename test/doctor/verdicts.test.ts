/** What the doctor says of what was seen: for each check, one sound thing, and one with a fault that turns it red. */
import { describe, expect, it } from 'vitest'
import {
  authenticationVerdicts,
  certificateVerdicts,
  clockVerdicts,
  directoryVerdicts,
  expiryVerdicts,
  keyVerdicts,
  listenerVerdicts,
  passwordVerdicts,
  recordVerdicts,
  tlsVerdicts,
} from '../../lib/doctor/access-verdicts.ts'
import {
  brokerVerdicts,
  type FoundPosition,
  positionVerdicts,
  rightsVerdicts,
  type SeenTopic,
  topicVerdicts,
  versionVerdicts,
} from '../../lib/doctor/cluster-verdicts.ts'
import { addressVerdicts, diskVerdicts, type MskFacts, mskVerdicts } from '../../lib/doctor/place-verdicts.ts'
import { clusterNeeds, gateRights, named as byName, type NeededTopic } from '../../lib/cluster-needs.ts'
import { type Check, runChecks, type Verdict } from '../../lib/doctor/finding.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { byDeadline } from '../../lib/keys/deadline.ts'
import { signingRow } from '../keys/fixtures.ts'

const NOW = Date.parse('2026-11-22T12:00:00Z')
const SECONDS = NOW / 1000
const DAY_MS = 86_400_000
const says = (verdicts: readonly Verdict[]): string[] =>
  verdicts.map(({ status, message }) => `${status}: ${message}`)
const statuses = (verdicts: readonly Verdict[]): string[] => verdicts.map(({ status }) => status)

const NEEDS = clusterNeeds({
  deployment: 'shop',
  channels: new Map([['orders-in', 'orders']]),
  topics: new Map(),
  auditTopic: 'shop.audit',
  quarantineTopic: 'shop.quarantine',
  contracts: { digest: new Uint8Array(), all: [], find: () => undefined },
})
const topic = (use: string): NeededTopic => {
  const found = NEEDS.topics.find((each) => each.use === use)
  if (found === undefined) throw new TypeError(use)
  return found
}
const AUDIT = topic('audit')
const SOURCE = topic('source')
const seen = (allowed: readonly string[], replicas = 3, inSync = replicas): SeenTopic => ({
  partitions: [{ replicas, inSync }],
  allowed: new Set(allowed),
})
const look = (
  { name, settings }: NeededTopic,
  changes: Record<string, string> = {},
  there = seen([]),
): readonly Verdict[] => {
  const config = new Map(Object.entries({ ...settings, ...changes }))
  return topicVerdicts(
    [{ name, settings, use: 'audit' }],
    new Map([[name, there]]),
    new Map([[name, config]]),
  )
}

describe('topics', () => {
  it('are well as setup makes them, and with retention without end', () => {
    for (const each of NEEDS.topics) expect(statuses(look(each))).toEqual(['ok'])
    expect(statuses(look(AUDIT, { 'retention.ms': '-1' }))).toEqual(['ok'])
  })

  it.each([
    ['cleanup.policy', 'compact'],
    ['cleanup.policy', 'compact,delete'],
    ['retention.ms', String(364 * DAY_MS)],
    ['retention.bytes', '1073741824'],
    ['min.insync.replicas', '1'],
    ['max.message.bytes', '1000'],
  ])('is red where the audit topic has %s=%s', (setting, value) => {
    expect(says(look(AUDIT, { [setting]: value }))).toEqual([`fail: shop.audit: ${setting}=${value}.`])
  })

  it('is red with two replicas, with too few in sync, without the broker’s time, and where it is not there', () => {
    expect(says(look(AUDIT, {}, seen([], 2)))).toEqual(['fail: shop.audit: 2 of 3 replicas.'])
    expect(statuses(look(AUDIT, {}, seen([], 3, 1)))).toEqual(['fail'])
    expect(statuses(look(SOURCE, { 'message.timestamp.type': 'CreateTime' }))).toEqual(['fail'])
    expect(statuses(topicVerdicts([AUDIT], new Map(), new Map()))).toEqual(['fail'])
  })

  it('is never well where settings are not for us to see', () => {
    const found = topicVerdicts(
      [AUDIT],
      new Map([[AUDIT.name, seen([])]]),
      new Map([[AUDIT.name, undefined]]),
    )
    expect(statuses(found)).toEqual(['skip'])
  })

  it('says a fault that many have on one line', () => {
    const topics = Array.from({ length: 5 }, (_, index) => ({ ...SOURCE, name: `t${index}` }))
    const there = new Map(topics.map(({ name }) => [name, seen([], 1)]))
    const config = new Map(topics.map(({ name, settings }) => [name, new Map(Object.entries(settings))]))
    expect(says(topicVerdicts(topics, there, config))).toEqual([
      'fail: t0, t1, t2 and 2 more: 1 of 3 replicas.',
    ])
  })
})

describe('rights', () => {
  const sound = {
    topics: new Map([
      ['orders-in', seen(['Read', 'Describe'])],
      ['shop.quarantine', seen(['Write', 'Describe'])],
      ['shop.audit', seen(['Write', 'Describe'])],
    ]),
    cluster: new Set<string>(),
    group: new Set(['Read', 'Describe']),
    mayTransact: true,
    unruled: [],
  }

  it('are well where they are those needed', () => {
    expect(statuses(rightsVerdicts(NEEDS, sound))).toEqual(['ok'])
  })

  it('are red where one is missing, of whatever kind', () => {
    const topics = new Map(sound.topics).set('shop.audit', seen(['Describe']))
    expect(says(rightsVerdicts(NEEDS, { ...sound, topics }))).toEqual([
      'fail: The gate may not Write topic shop.audit.',
    ])
    expect(statuses(rightsVerdicts(NEEDS, { ...sound, group: undefined }))).toEqual(['fail'])
    expect(statuses(rightsVerdicts(NEEDS, { ...sound, mayTransact: false }))).toEqual(['fail'])
  })

  it('are told on a line for each kind, whatever the number of topics', () => {
    const names = ['a', 'b', 'c', 'd', 'e']
    const gate = gateRights({ deployment: 'shop', sources: [], outputs: names.map(byName) })
    const topics = names.map((name) => ({ ...SOURCE, name }))
    const there = new Map(names.map((name) => [name, seen(['Read', 'Alter'])]))
    const nothing = { topics: there, cluster: new Set<string>(), group: undefined, mayTransact: false }
    expect(says(rightsVerdicts({ gate, topics }, { ...nothing, unruled: [] }))).toEqual([
      'fail: The gate may not Write transactional-id shop.*.',
      'fail: The gate may not Read group shop.shadow.*.',
      'fail: The gate may not Write topic a, b, c and 2 more.',
      'warn: The gate may Read topic a, b, c and 2 more, which it need not.',
      'warn: The gate may Alter topic a, b, c and 2 more, which it need not.',
    ])
  })

  it('are spoken of where the gate has more than it needs, and red where nothing is kept from it', () => {
    const topics = new Map(sound.topics).set('orders-in', seen(['Read', 'Write', 'Describe']))
    expect(statuses(rightsVerdicts(NEEDS, { ...sound, topics }))).toEqual(['warn'])
    const cluster = new Set(['Alter', 'ClusterAction'])
    const unruled = ['topics', 'groups']
    expect(statuses(rightsVerdicts(NEEDS, { ...sound, topics, cluster, unruled }))).toEqual(['fail'])
    expect(says(rightsVerdicts(NEEDS, { ...sound, unruled }))).toEqual([
      'fail: What no rule is for is open to the gate (topics, groups): allow.everyone.if.no.acl.found is true, or a rule is for every name.',
    ])
  })
})

describe('brokers', () => {
  const sound = {
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'allow.everyone.if.no.acl.found': 'false',
    'auto.create.topics.enable': 'false',
    'unclean.leader.election.enable': 'false',
    'offset.metadata.max.bytes': '4096',
    'transaction.max.timeout.ms': '900000',
    'offsets.topic.replication.factor': '3',
    'transaction.state.log.replication.factor': '3',
    'transaction.state.log.min.isr': '2',
    'offsets.retention.minutes': '10080',
  }
  const judge = (changes: Record<string, string>): string[] =>
    statuses(brokerVerdicts(new Map(Object.entries({ ...sound, ...changes })), 15_000, false))

  it('are well with settings as needed; settings that are not for us to see are skipped', () => {
    expect(judge({})).toEqual(['ok'])
    expect(statuses(brokerVerdicts(undefined, 15_000, true))).toEqual(['skip'])
  })

  it.each([
    ['authorizer.class.name', '', 'fail'],
    ['allow.everyone.if.no.acl.found', 'true', 'fail'],
    ['unclean.leader.election.enable', 'true', 'fail'],
    ['auto.create.topics.enable', 'true', 'warn'],
    ['offset.metadata.max.bytes', '1024', 'fail'],
    ['transaction.max.timeout.ms', '10000', 'fail'],
    ['offsets.topic.replication.factor', '1', 'fail'],
    ['transaction.state.log.replication.factor', '1', 'fail'],
    ['transaction.state.log.min.isr', '1', 'fail'],
    ['offsets.retention.minutes', '60', 'warn'],
  ])('are not with %s=%s', (name, value, status) => {
    expect(judge({ [name]: value })).toEqual([status])
  })

  it('are not called well where a setting is not told', () => {
    for (const name of ['transaction.state.log.min.isr', 'offsets.retention.minutes']) {
      const others = Object.entries(sound).filter(([setting]) => setting !== name)
      const [verdict, ...more] = brokerVerdicts(new Map(others), 15_000, false)
      expect([verdict?.status, more]).toEqual(['skip', []])
      expect(verdict?.message).toBe(`The brokers do not tell ${name}.`)
    }
  })

  it('are not called well on MSK, which lets everybody where no ACL is found, unless they tell that they do not', () => {
    const name = 'allow.everyone.if.no.acl.found'
    const judgeMsk = (value?: string | null): string[] => {
      const told = new Map<string, string | null>(Object.entries(sound))
      told.delete(name)
      return statuses(brokerVerdicts(value === undefined ? told : told.set(name, value), 15_000, true))
    }
    expect([judgeMsk(), judgeMsk(null), judgeMsk('true'), judgeMsk('false')]).toEqual([
      ...[['warn'], ['warn'], ['fail'], ['ok']],
    ])
  })

  it('are red on Kafka 4.3 without replicas, before 3.9, and of several versions', () => {
    const of = (id: number, metadataVersion: number | undefined, fetchVersion = 18) => ({
      id,
      fetchVersion,
      metadataVersion,
    })
    expect(says(versionVerdicts([of(1, 30)], 3, '24.1.0'))).toEqual(['ok: Kafka 4.3, Node 24.1.0.'])
    expect(statuses(versionVerdicts([of(1, 30)], 1, '24.1.0'))).toEqual(['fail'])
    expect(statuses(versionVerdicts([of(1, 30)], undefined, '24.1.0'))).toEqual(['skip'])
    expect(statuses(versionVerdicts([of(1, 28)], undefined, '24.1.0'))).toEqual(['ok'])
    expect(statuses(versionVerdicts([of(1, 21, 17)], 1, '24.1.0'))).toEqual(['ok'])
    expect(statuses(versionVerdicts([of(1, 19, 16)], 3, '24.1.0'))).toEqual(['fail'])
    expect(statuses(versionVerdicts([of(1, 30), of(2, 28)], 3, '24.1.0'))).toEqual(['warn'])
    expect(statuses(versionVerdicts([of(1, 28)], 3, '20.9.0'))).toEqual(['fail'])
  })

  it('are not called well where a source topic is not to be seen; a partition without a position is red', () => {
    const found = (orders: readonly FoundPosition[] | undefined) =>
      positionVerdicts(new Map([['orders-in', orders]]))
    expect(says(found(['there', 'there']))).toEqual(['ok: 2 partitions, each with a position.'])
    expect(statuses(found(undefined))).toEqual(['skip'])
    expect(says(found(['there', 'missing']))[0]).toMatch(/^fail: orders-in\/1 has no position/)
    expect(statuses(found([new Outage('position-damaged', 'It does not parse.')]))).toEqual(['fail'])
    expect(
      statuses(
        positionVerdicts(
          new Map([
            ['a', ['missing']],
            ['b', undefined],
          ]),
        ),
      ),
    ).toEqual(['fail', 'skip'])
  })

  it('are red at a public address, of either family', () => {
    const at = (...addresses: string[]): string[] =>
      statuses(addressVerdicts([{ host: 'b-1.example', addresses }]))
    expect(at('10.0.1.5', 'fd00::1', '172.31.0.1', '192.168.1.1', '127.0.0.1', '100.64.0.9')).toEqual(['ok'])
    for (const address of ['52.1.2.3', '172.32.0.1', '2a05:d018::1', '100.128.0.1'])
      expect(at('10.0.1.5', address)).toEqual(['fail'])
  })
})

describe('disks and access as MSK tells of them', () => {
  const sound: MskFacts = {
    isServerless: false,
    diskKey: 'arn:aws:kms:eu-west-1:123456789012:key/k',
    clientBroker: 'TLS',
    isEncryptedBetweenBrokers: true,
    allowsNobodies: false,
    isPublic: false,
  }

  it('are well, or red for each thing that is open', () => {
    expect(mskVerdicts(sound)).toEqual([])
    expect(statuses(diskVerdicts(sound, [], []))).toEqual(['ok'])
    expect(statuses(diskVerdicts({ ...sound, diskKey: null }, [], []))).toEqual(['fail'])
    for (const change of [
      { clientBroker: 'TLS_PLAINTEXT' },
      { isEncryptedBetweenBrokers: false },
      { allowsNobodies: true },
      { isPublic: true },
    ])
      expect(statuses(mskVerdicts({ ...sound, ...change }))).toEqual(['fail'])
  })

  it('of one’s own are red where one is not encrypted, and skipped where none was named', () => {
    const disk = (isEncrypted: boolean) => ({ path: '/data', isEncrypted })
    expect(statuses(diskVerdicts(undefined, [disk(true), disk(false)], []))).toEqual(['fail'])
    expect(statuses(diskVerdicts(undefined, [disk(true)], []))).toEqual(['ok'])
    expect(says(diskVerdicts(undefined, [], ['reports']))).toEqual([
      'skip: Brokers do not tell of their disks. In clear there: reports.',
    ])
  })
})

describe('connections', () => {
  const tls = {
    protocol: 'TLSv1.3',
    cipher: 'TLS_AES_256_GCM_SHA384',
    endsAt: NOW + 90 * DAY_MS,
    ownEndsAt: undefined,
  }
  const at = (changes: object) => [{ broker: 'b-1:9096', tls: { ...tls, ...changes } }]

  it('are red without TLS, and by a version of it that is broken', () => {
    expect(statuses(tlsVerdicts(at({})))).toEqual(['ok'])
    expect(statuses(tlsVerdicts(at({ protocol: 'TLSv1.1' })))).toEqual(['fail'])
    expect(statuses(tlsVerdicts([{ broker: 'b-1:9092', tls: undefined }]))).toEqual(['fail'])
  })

  it('are spoken of a month before a certificate ends, ours or theirs, and red when it has', () => {
    expect(statuses(certificateVerdicts(at({}), NOW))).toEqual(['ok'])
    expect(statuses(certificateVerdicts(at({ endsAt: NOW + 29 * DAY_MS }), NOW))).toEqual(['warn'])
    expect(statuses(certificateVerdicts(at({ ownEndsAt: NOW + DAY_MS }), NOW))).toEqual(['warn'])
    expect(statuses(certificateVerdicts(at({ ownEndsAt: NOW }), NOW))).toEqual(['fail'])
    expect(statuses(certificateVerdicts([{ broker: 'b-1:9092', tls: undefined }], NOW))).toEqual(['skip'])
  })

  it('to one listener that fail leave what is known of the others to be told', () => {
    const missed = (message: string, code: 'sink-unavailable' | 'sink-denied' = 'sink-unavailable') => [
      { broker: 'b-2:9096', outage: new Outage(code, message) },
    ]
    expect(says(listenerVerdicts(at({ protocol: 'TLSv1.1' }), missed('b-2:9096: nobody there.')))).toEqual([
      'fail: b-2:9096: nobody there. (sink-unavailable)',
      'fail: b-1:9096: TLSv1.1.',
    ])
    expect(statuses(listenerVerdicts(at({}), missed('nobody there')))).toEqual(['fail'])
    expect(statuses(listenerVerdicts(at({}), []))).toEqual(['ok'])
    const soon = at({ endsAt: NOW + DAY_MS })
    expect(says(expiryVerdicts(soon, missed('nobody there'), NOW))).toEqual([
      'warn: It ends in 1 days: the certificate of b-1:9096.',
      'skip: No connection was made to b-2:9096.',
    ])
    const ended = missed('b-2:9096: it has expired (CERT_HAS_EXPIRED).', 'sink-denied')
    expect(statuses(expiryVerdicts(at({}), ended, NOW))).toEqual(['fail', 'ok'])
    expect(statuses(expiryVerdicts([], missed('nobody there'), NOW))).toEqual(['skip'])
  })

  it('are red where nobody proves anything, or need not', () => {
    expect(statuses(authenticationVerdicts('scram-sha-512', false, false))).toEqual(['ok'])
    expect(statuses(authenticationVerdicts(undefined, true, false))).toEqual(['ok'])
    expect(statuses(authenticationVerdicts(undefined, false, false))).toEqual(['fail'])
    expect(statuses(authenticationVerdicts('scram-sha-512', false, true))).toEqual(['fail'])
    expect(statuses(authenticationVerdicts('plain', false, false))).toEqual(['warn'])
  })

  it('are red with a short password, and its length is not told', () => {
    expect(statuses(passwordVerdicts(undefined))).toEqual(['ok'])
    expect(statuses(passwordVerdicts(true))).toEqual(['ok'])
    expect(says(passwordVerdicts(false))).toEqual(['fail: The password has fewer than 12 characters.'])
  })
})

describe('keys and clocks', () => {
  const row = signingRow({ state: 'active', notBefore: SECONDS - 100, notAfter: SECONDS + 90 * 86_400 })
  const directory = (leftSeconds: number) => ({
    version: 7,
    issuedAt: SECONDS + leftSeconds - 86_400,
    expiresAt: SECONDS + leftSeconds,
    signingKeys: [row],
  })

  it('are spoken of when the directory soon counts no more, and when an issuer has no key', () => {
    expect(statuses(directoryVerdicts(directory(80_000), [row.iss], NOW))).toEqual(['ok'])
    expect(statuses(directoryVerdicts(directory(10_000), [row.iss], NOW))).toEqual(['warn'])
    expect(says(directoryVerdicts(directory(80_000), ['nobody'], NOW))).toEqual([
      'warn: No key may sign for nobody, whom contracts name.',
    ])
  })

  it('are spoken of when the last key of an issuer ends soon, not while another follows', () => {
    const old = { ...row, notAfter: SECONDS + 86_400 }
    expect(statuses(keyVerdicts([row], NOW))).toEqual(['ok'])
    expect(statuses(keyVerdicts([old], NOW))).toEqual(['warn'])
    expect(statuses(keyVerdicts([old, row], NOW))).toEqual(['ok'])
  })

  it('by a record are red when it comes from later, and say so where an old one may be a clock that is ahead', () => {
    expect(statuses(recordVerdicts(4000))).toEqual(['ok'])
    expect(says(recordVerdicts(-60_000))).toEqual(['fail: This clock is 60.0 s behind the brokers.'])
    expect(says(recordVerdicts(60_000))[0]).toMatch(/^skip: .* 60 s old, or this clock as much ahead\.$/)
    expect(statuses(recordVerdicts(undefined))).toEqual(['skip'])
  })

  it('are red when this clock is off by more than is known', () => {
    expect(statuses(clockVerdicts(5400, 500, 'AWS'))).toEqual(['ok'])
    expect(says(clockVerdicts(-60_000, 500, 'AWS'))).toEqual(['fail: This clock is 60.0 s behind AWS.'])
    expect(statuses(clockVerdicts(60_000, 500, 'AWS'))).toEqual(['fail'])
  })
})

describe('checks', () => {
  const clock = { now: () => Date.now() }
  const check = (name: string, looking: Check['look']): Check => ({ name, look: looking })

  it('run side by side, each ending in time, in their order, whatever they throw', async () => {
    const begun = performance.now()
    const found = await runChecks(
      [
        check('slow', () => new Promise(() => undefined)),
        check('refused', () => Promise.reject(new Outage('sink-denied', 'no'))),
        check('silent', () => Promise.reject(new Outage('sink-unavailable', 'nobody there'))),
        check('wrong', () => Promise.reject(new ConfigError([{ where: 'a', what: 'b.', fix: 'c.' }]))),
        check('broken', () => Promise.reject(new RangeError('canary-5d1b'))),
        check('stuck', () => new Promise(() => undefined)),
      ],
      clock,
      200,
    )
    expect(performance.now() - begun).toBeLessThan(5000)
    expect(JSON.stringify(found)).not.toContain('canary')
    expect(found[4]?.message).toBe('It ended with RangeError, which nobody expected.')
    expect(found.map(({ name, status, isOutage = false }) => [name, status, isOutage])).toEqual([
      ['slow', 'fail', true],
      ['refused', 'fail', false],
      ['silent', 'fail', true],
      ['wrong', 'fail', false],
      ['broken', 'fail', true],
      ['stuck', 'fail', true],
    ])
    expect(found[3]).toMatchObject({ message: 'a: b.', fix: 'c.' })
  })

  it('end in time to say of themselves what was not answered', async () => {
    const silent = (until: number): Promise<never> =>
      byDeadline(new Promise(() => undefined), until, clock, () => new Outage('deadline', 'b-1 is silent.'))
    const found = await runChecks([check('silent', silent)], clock, 200)
    expect(found.map(({ message }) => message)).toEqual(['b-1 is silent. (deadline)'])
  })
})
