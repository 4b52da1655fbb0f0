/** What the doctor sees of real listeners: certificates that are not to be trusted, and who is let in. */
import { join } from 'node:path'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KafkaConnectionSettings } from '../../lib/adapters/kafka-settings.ts'
import { admitsAnybody, type KafkaSurvey, shakeHands, surveyKafka } from '../../lib/adapters/kafka-survey.ts'
import { rightsVerdicts, versionVerdicts } from '../../lib/doctor/cluster-verdicts.ts'
import { sealgate } from '../cli/terminal.ts'
import { openShop, ORDER_CONTRACT, type Shop } from '../shop.ts'
import { named, right } from './stack/rights.ts'
import { writeCommandSettings } from './stack/settings.ts'
import { type Connection, startStack, withAdmin } from './stack/stack.ts'
import { connection, settings, soon, unique } from './world.ts'

const clock = { now: () => Date.now() }
const listener = (name: string): string => connection.listeners[name] ?? ''
const adminOf = ({ brokers, ca, passwords }: Connection): KafkaConnectionSettings => {
  const sasl = { mechanism: 'scram-sha-512', username: 'admin', password: passwords.admin }
  return settings({ brokers, ssl: { ca }, sasl })
}
const at = (name: string): KafkaConnectionSettings => ({ ...settings(), brokers: [listener(name)] })

let survey: KafkaSurvey
beforeAll(async () => {
  survey = await surveyKafka(settings(), clock, soon())
})
afterAll(() => survey.close())

describe('a listener', () => {
  it('is seen with TLS, its cipher, and when its certificate ends', async () => {
    const [broker = ''] = settings().brokers
    const { tls, address } = await shakeHands(settings(), broker, clock, soon())
    expect(address).toBe('127.0.0.1')
    expect(tls).toMatchObject({ protocol: 'TLSv1.3', ownEndsAt: undefined })
    expect(tls?.endsAt).toBeGreaterThan(Date.now())
  })

  it('is refused where its certificate has ended, or is another host’s', async () => {
    const shake = (name: string) => shakeHands(at(name), listener(name), clock, soon())
    await expect(shake('EXPIRED')).rejects.toMatchObject({
      code: 'sink-denied',
      message: expect.stringContaining('CERT_HAS_EXPIRED'),
    })
    await expect(shake('ELSEWHERE')).rejects.toMatchObject({
      code: 'sink-denied',
      message: expect.stringContaining('ALTNAME'),
    })
  })

  it('is found out where it lets anybody in, and only there', async () => {
    expect(await admitsAnybody(at('OPEN'), clock, soon())).toBe(true)
    expect(await admitsAnybody(settings(), clock, soon())).toBe(false)
    expect(await admitsAnybody(at('MTLS'), clock, soon())).toBe(false)
  })
})

describe('the doctor', () => {
  let shop: Shop
  beforeAll(async () => {
    shop = await openShop([ORDER_CONTRACT])
  })
  afterAll(() => shop.close())

  const doctor = async (to: Connection) => {
    const file = await writeCommandSettings(join(shop.folder, unique()), {
      connection: to,
      ...{ principal: 'gate', stack: shop.stack, stackFolder: shop.folder },
      ...{ sources: new Map([['orders', 'orders-in']]), outputs: new Map([['none', 'none']]) },
      ...{ auditTopic: 'test.audit', quarantineTopic: 'test.quarantine' },
    })
    const { out, status } = await sealgate(['doctor', '--json', '--settings', file])
    const { checks }: { checks: { name: string; status: string; message: string }[] } = JSON.parse(out)
    const red = checks.filter((check) => check.status === 'fail')
    const said = (name: string) => red.filter((row) => row.name === name).map(({ message }) => message)
    return { red: red.map(({ name }) => name), said, status }
  }

  it('is red for TLS and for the end of a certificate where a listener’s has ended', async () => {
    const { red, status } = await doctor({ ...connection, brokers: [listener('EXPIRED')] })
    expect(red).toEqual(['brokers', 'tls', 'certificate-expiry', 'authentication'])
    expect(status).toBe(1)
  })

  it('is red where brokers let everybody do what no rule is for, which they do not tell', async () => {
    const setting = 'allow.everyone.if.no.acl.found'
    const stack = await startStack({ properties: [`${setting}=true`] })
    try {
      const { AclResourceTypes, AclOperationTypes } = kafkajs
      // Else nothing is kept from the gate, which is seen anyway.
      const other = right(
        'consumer',
        AclResourceTypes.CLUSTER,
        named('kafka-cluster'),
        AclOperationTypes.ALTER,
      )
      await withAdmin(stack.connection, (admin) => admin.createAcls({ acl: [other] }))
      const { said } = await doctor(stack.connection)
      expect(said('acls')).toContain(
        `What no rule is for is open to the gate (topics, groups): ${setting} is true, or a rule is for every name.`,
      )
      const admin = await surveyKafka(adminOf(stack.connection), clock, soon())
      expect((await admin.brokerConfig().finally(() => admin.close()))?.get(setting)).toBeNull()
    } finally {
      await stack.stop()
    }
  })
})

describe('the cluster', () => {
  it('keeps from the gate what no rule is for', async () => {
    const { topics } = await survey.metadata(['no-such-topic'])
    expect([topics.get('no-such-topic')?.error, await survey.group('no-such-group')]).toEqual([29, undefined])
  })

  it('refuses a wrong password, which is not an outage that may pass', async () => {
    const sasl = { mechanism: 'scram-sha-512', username: 'gate', password: 'wrong-password-wrong' }
    await expect(surveyKafka(settings({ sasl }), clock, soon())).rejects.toMatchObject({
      code: 'sink-denied',
    })
  })

  it('tells what each principal may do', async () => {
    const [group, other, mine, theirs] = await Promise.all([
      survey.group('test.shadow.v1'),
      survey.group(unique()),
      survey.mayTransact('test.doctor'),
      survey.mayTransact('other.doctor'),
    ])
    expect(group).toEqual(new Set(['Read', 'Describe']))
    expect([other, mine, theirs]).toEqual([undefined, true, false])
    expect(await survey.brokerConfig()).toBeUndefined()
    const admin = await surveyKafka(settings({}, 'admin'), clock, soon())
    try {
      expect((await admin.brokerConfig())?.get('offset.metadata.max.bytes')).toBe('4096')
      const { allowed } = await admin.metadata([])
      const seen = { topics: new Map(), cluster: allowed, group, mayTransact: true, unruled: [] }
      const [first] = rightsVerdicts({ gate: [], topics: [] }, seen)
      expect(first).toMatchObject({
        status: 'fail',
        message: expect.stringContaining('nothing is kept from it'),
      })
    } finally {
      await admin.close()
    }
  })

  it('is Kafka 4.3, which is not to be used without replicas', async () => {
    const software = await survey.software()
    expect(software).toEqual([{ id: 1, fetchVersion: 18, metadataVersion: 30 }])
    expect(versionVerdicts(software, 1, '24.0.0')[0]?.status).toBe('fail')
  })
})
