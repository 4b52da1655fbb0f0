import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { KafkaAccess } from '../../lib/adapters/kafka-access.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'

const accessBy = (mechanism: string): KafkaAccess => {
  const sasl = { mechanism, username: 'gate', password: 'planted-secret' }
  return new KafkaAccess(readKafkaSettings({ brokers: ['b:1'], deployment: 'shop', sasl }), { now: () => 0 })
}

describe('access to a cluster', () => {
  it('warns once of PLAIN, TLS or not, and of nothing else', async () => {
    const warnings: Error[] = []
    const hear = (warning: Error): number => warnings.push(warning)
    process.on('warning', hear)
    try {
      for (const mechanism of ['scram-sha-512', 'plain', 'plain']) accessBy(mechanism)
      await new Promise(setImmediate)
    } finally {
      process.off('warning', hear)
    }
    expect(warnings.map(({ message }) => message)).toEqual([
      expect.stringMatching(/PLAIN .*use SCRAM-SHA-512/),
    ])
  })

  it('makes no connection with another authority than its own where that one cannot be read', () => {
    const folder = mkdtempSync(join(tmpdir(), 'kafka-access-'))
    const ca = join(folder, 'ca.pem')
    writeFileSync(ca, rootCertificates[0] ?? '')
    const raw = { brokers: ['b:1'], deployment: 'shop', ssl: { ca } }
    const access = new KafkaAccess(readKafkaSettings(raw), { now: () => 0 })
    rmSync(folder, { recursive: true })
    const to = { host: '127.0.0.1', port: 1, ssl: {}, onConnect: () => undefined }
    expect(() => access.config(['b:1']).socketFactory(to)).toThrow(/ssl\.ca cannot be read \(ENOENT\)/)
  })

  it('shows no secret to who looks into it', () => {
    const access = accessBy('scram-sha-512')
    const shown = [access, access.config(['b:1'])].map(
      (one) => JSON.stringify(one) + inspect(one, { depth: 9 }),
    )
    expect(shown.join()).not.toContain('planted-secret')
  })
})
