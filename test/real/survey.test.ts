/** What the doctor sees of real listeners: certificates that are not to be trusted, and who is let in. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KafkaConnectionSettings } from '../../lib/adapters/kafka-settings.ts'
import { admitsAnybody, type KafkaSurvey, shakeHands, surveyKafka } from '../../lib/adapters/kafka-survey.ts'
import { rightsVerdicts, versionVerdicts } from '../../lib/doctor/cluster-verdicts.ts'
import { sealgate } from '../cli/terminal.ts'
import { openShop, ORDER_CONTRACT } from '../shop.ts'
import { writeCommandSettings } from './stack/settings.ts'
import { connection, settings, soon, unique } from './world.ts'

const clock = { now: () => Date.now() }
const listener = (name: string): string => connection.listeners[name] ?? ''
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
  it('is red for TLS and for the end of a certificate where a listener’s has ended', async () => {
    const shop = await openShop([ORDER_CONTRACT])
    try {
      const file = await writeCommandSettings(join(shop.folder, 'commands'), {
        connection: { ...connection, brokers: [listener('EXPIRED')] },
        ...{ principal: 'gate', stack: shop.stack, stackFolder: shop.folder },
        ...{ sources: new Map([['orders', 'orders-in']]), outputs: new Map([['none', 'none']]) },
        ...{ auditTopic: 'test.audit', quarantineTopic: 'test.quarantine' },
      })
      const { out, status } = await sealgate(['doctor', '--json', '--settings', file])
      const { checks }: { checks: { name: string; status: string }[] } = JSON.parse(out)
      const red = checks.filter((check) => check.status === 'fail').map(({ name }) => name)
      expect(red).toEqual(['brokers', 'tls', 'certificate-expiry', 'authentication'])
      expect(status).toBe(1)
    } finally {
      await shop.close()
    }
  })
})

describe('the cluster', () => {
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
      const seen = { topics: new Map(), cluster: allowed, group, mayTransact: true }
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
