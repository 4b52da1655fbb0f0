/** `sealgate position` on a real cluster. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sealgate, type Ran } from '../cli/terminal.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { bytes, Cluster, connection, unique } from './world.ts'

const cluster = new Cluster()
let folder: string
let env: Record<string, string>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-position-'))
  const ca = join(folder, 'ca.pem')
  await writeFile(ca, connection.ca)
  env = {
    SEALGATE_DEPLOYMENT: DEPLOYMENT,
    SEALGATE_KAFKA_BROKERS: connection.brokers.join(),
    SEALGATE_KAFKA_SSL_CA: ca,
    SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
    SEALGATE_KAFKA_SASL_USERNAME: 'gate',
    SEALGATE_KAFKA_SASL_PASSWORD: connection.passwords.gate,
  }
})
afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
  await cluster.end()
})

const position = (...args: string[]): Promise<Ran> => sealgate(['position', ...args, '--json'], { env })

describe('sealgate position on a cluster', () => {
  it('makes the first position at the first record kept, at the end or at an offset, once, and shows it', async () => {
    const topic = `source.position.${unique()}`
    await cluster.createTopic(topic, 3)
    const messages = [0, 0, 0, 1].map((partition) => ({
      ...{ topic, partition, key: null, value: bytes('x'), headers: [] },
    }))
    await cluster.produce(messages)
    const admin = await cluster.admin()
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] })
    expect((await position('show', topic)).status).toBe(1)
    const first = await position('init', topic, '--partition', '0')
    expect([first.err, first.status]).toEqual(['', 0])
    expect((await position('init', topic, '--partition', '1', '--at', 'latest')).status).toBe(0)
    const beyond = await position('init', topic, '--partition', '2', '--at', '7')
    expect([beyond.status, beyond.out]).toEqual([2, expect.stringContaining('not between 0 and 0')])
    const again = await position('init', topic)
    expect(again.status).toBe(2)
    expect(again.out).toContain('a position already')
    const shown = await position('show', topic)
    expect(JSON.parse(shown.out)).toEqual({
      topic,
      partitions: [
        { partition: 0, next: '1' },
        { partition: 1, next: '1' },
        { partition: 2, next: null },
      ],
    })
  })

  it('says in one line what is wrong, and ends with 2 or 3', async () => {
    const none = await position('show', `source.none.${unique()}`)
    expect([none.status, JSON.parse(none.out).outage.code]).toEqual([3, 'sink-denied'])
    const nowhere = { ...env, SEALGATE_KAFKA_BROKERS: '127.0.0.1:1', SEALGATE_KAFKA_OPEN_TIMEOUT_MS: '500' }
    const unreachable = await sealgate(['position', 'show', 'x'], { env: nowhere })
    expect([unreachable.status, unreachable.err.split('\n')]).toEqual([
      3,
      [expect.stringContaining('no broker')],
    ])
    const typo = await sealgate(['position', 'show', 'x'], { env: { ...env, SEALGATE_KAFKA_TYPO: '1' } })
    expect([typo.status, typo.err]).toEqual([2, expect.stringContaining('SEALGATE_KAFKA_TYPO')])
  })
})
