import { describe, expect, it } from 'vitest'
import { ownAuthority } from '../../lib/adapters/certificate-authority.ts'
import { exportPkcs8, generateKeyPair, importPkcs8, readCertificate } from '../../lib/envelope/crypto.ts'
import { ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import { isSubject } from '../../lib/keys/client-certificate.ts'
import {
  type ClientCertificateRotation,
  type HeldCertificate,
  planRotation,
} from '../../lib/keys/rotation.ts'
import { DEFAULT_WAITS, readRotationPolicy } from '../../lib/keys/rotation-policy.ts'
import { readRotation, type RotationView } from '../../lib/keys/rotation-state.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { selfSigned } from '../self-signed.ts'
import { memoryDocument, memorySecrets } from './rotation-world.ts'

const DAY = 86_400
const NOW = 1_795_000_000
const clock = { now: () => NOW * 1000 }
const rotation: ClientCertificateRotation = {
  ...{ kind: 'client-certificate', name: 'gate', secret: 'gate-tls', subject: 'CN=gate,O=Example' },
  ...{ authority: 'ca.pem', authorityKey: 'file:ca.key', brokers: undefined },
  ...{ duration: 90 * DAY, renewBefore: 30 * DAY },
}

describe('the plan for a client certificate', () => {
  const held = (version: string, until: number, isOurs = true): HeldCertificate => {
    return { version, from: NOW - DAY, until, isOurs }
  }
  const plan = (current: HeldCertificate, pending?: HeldCertificate, now = false) =>
    planRotation({ kind: rotation.kind, current, pending }, { rotation, waits: DEFAULT_WAITS, now }, NOW)

  it('makes the next one 30 days before the end, or when it is asked to', () => {
    expect(plan(held('old', NOW + 30 * DAY + 1))).toMatchObject({
      ...{ phase: 'current', dueAt: NOW + 1, rotatedAt: NOW - DAY, steps: [] },
    })
    const make = [{ do: 'stage-certificate', after: 'old,' }]
    for (const found of [
      plan(held('old', NOW + 30 * DAY)),
      plan(held('old', NOW + 40 * DAY), undefined, true),
    ])
      expect(found).toMatchObject({ phase: 'due', steps: make })
    expect(plan(held('old', NOW - DAY))).toMatchObject({ phase: 'due', dueAt: NOW - 31 * DAY })
  })

  it('uses the pending one once the brokers have taken it, whether or not one is due', () => {
    expect(plan(held('old', NOW + 80 * DAY), held('new', NOW + 90 * DAY))).toMatchObject({
      phase: 'under-way',
      steps: [
        { do: 'log-in', secret: 'gate-tls', version: 'new' },
        { do: 'promote', secret: 'gate-tls', version: 'new', from: 'old' },
      ],
    })
  })

  it.each([
    ['that ends soon itself', held('new', NOW + 30 * DAY)],
    ['of an authority that was given up', held('new', NOW + 90 * DAY, false)],
  ])('leaves a pending one %s, and makes another where one is due', (_, pending) => {
    expect(plan(held('old', NOW + 80 * DAY), pending)).toMatchObject({ phase: 'current', steps: [] })
    const steps = [{ do: 'stage-certificate', after: 'old,new' }]
    expect(plan(held('old', NOW + DAY), pending)).toMatchObject({ phase: 'due', steps })
  })
})

describe('a secret with a certificate', () => {
  const ca = selfSigned()
  const pairOf = async (subject: string): Promise<{ certificate: string; privateKey: string }> => {
    const { publicKey, privateKey } = generateKeyPair(ESP256)
    const signer = localSigner(importPkcs8(ca.key))
    const issue = ownAuthority(ca.cert, () => Promise.resolve(signer), clock)
    const certificate = await issue({ subject, key: publicKey, until: (NOW + DAY) * 1000 }, NOW * 1000 + 1000)
    return { certificate, privateKey: exportPkcs8(privateKey) }
  }
  const read = async (value: string) => {
    const secrets = memorySecrets(clock)
    await secrets.stage('gate-tls', Buffer.from(value), 'AWSCURRENT', 'first', 0)
    const authority = readCertificate(ca.cert)
    const view: RotationView = {
      ...{ clock, secrets, directory: { store: memoryDocument(), roots: [] } },
      issuerOf: () => ({
        hasIssued: (pem) => readCertificate(pem).isIssuedBy(authority),
        issue: () => Promise.reject(new Error('not asked')),
        logIn: () => Promise.reject(new Error('not asked')),
      }),
    }
    return readRotation(rotation, view, 0)
  }

  it('is read as it is kept: from when until when, and whose it is', async () => {
    const current = { version: 'first', until: NOW + DAY, from: NOW - 300, isOurs: true }
    expect(await read(JSON.stringify(await pairOf(rotation.subject)))).toMatchObject({ current })
  })

  it('does not get whoever can write it a certificate in another’s name', async () => {
    for (const subject of ['CN=admin', 'CN=gate', 'O=Example,CN=gate', 'CN=gate,O=Example,O=Example'])
      await expect(read(JSON.stringify(await pairOf(subject)))).rejects.toThrow(
        'gate-tls (AWSCURRENT): Its certificate is of another subject.',
      )
  })

  it.each([
    ['no JSON', () => 'planted-secret'],
    ['no object', () => '[]'],
    ['no certificate', () => JSON.stringify({ certificate: 'planted-secret', privateKey: ca.key })],
    ['another’s key', () => JSON.stringify({ certificate: selfSigned().cert, privateKey: ca.key })],
    ['no key', () => JSON.stringify({ certificate: ca.cert, privateKey: 'planted-secret' })],
  ])('is refused with what to do where it holds %s, and is not quoted', async (_, value) => {
    const error: unknown = await read(value()).catch((reason: unknown) => reason)
    if (!(error instanceof ConfigError)) throw new Error('no fault', { cause: error })
    expect(error.message).toContain('gate-tls (AWSCURRENT): It holds no certificate with its private key.')
    expect(error.message).not.toContain('planted')
  })
})

describe('a policy of client certificates', () => {
  const read = (fields: string) =>
    readRotationPolicy(`rotations: { gate: { kind: client-certificate, ${fields} } }`, 'rotation.yaml')
  const NEEDED = "secret: s, subject: 'CN=gate', authority: ca.pem, authorityKey: 'file:ca.key'"

  it('has them last 90 days and be renewed 30 days before their end', () => {
    expect(read(NEEDED).entries).toMatchObject([
      { rotation: { subject: 'CN=gate', duration: 90 * DAY, renewBefore: 30 * DAY, brokers: undefined } },
    ])
    expect(read(`${NEEDED}, brokers: ['b:9094']`).entries).toMatchObject([
      { rotation: { brokers: ['b:9094'] } },
    ])
  })

  it('is refused with all that is wrong', () => {
    const wrong = (fields: string): string => {
      try {
        read(fields)
      } catch (error) {
        if (error instanceof ConfigError) return error.message
      }
      throw new Error('no fault')
    }
    const none = wrong('duration: 40d')
    for (const field of ['secret', 'subject', 'authority', 'authorityKey'])
      expect(none).toContain(`rotations.gate: It has no ${field}.`)
    expect(none).toContain('rotations.gate.duration: It would be due again soon after it was renewed.')
    expect(wrong(`${NEEDED}, renewBefore: 1h, brokers: []`).split('\n')).toEqual([
      'rotation.yaml: rotations.gate.brokers: It is no list of texts. Write [b-1.example.com:9094, b-2.example.com:9094].',
      'rotation.yaml: rotations.gate.renewBefore: Clients may take 3660 s to see it. Set at least 3660s.',
    ])
  })

  it('is watched alone, in one place', () => {
    const watch = (fields: string) =>
      readRotationPolicy(`rotations: { ca: { kind: certificate${fields} } }`, 'rotation.yaml')
    expect(watch(', file: ca.pem').entries).toMatchObject([{ file: 'ca.pem' }])
    expect(watch(', secret: s').entries).toMatchObject([{ rotation: { secret: 's' } }])
    for (const fields of ['', ', file: ca.pem, secret: s'])
      expect(() => watch(fields)).toThrow(
        'rotations.ca: Where it is, is not told once. Set file (PEM), or secret.',
      )
  })

  it.each(['CN=gate', 'CN=gate.eu,OU=kafka,O=Example Inc.,L=Berlin,ST=BE,C=DE'])('knows %s', (subject) => {
    expect(isSubject(subject)).toBe(true)
  })

  it.each([
    '',
    'gate',
    'CN=',
    'CN=gate,',
    ',CN=gate',
    'CN=a\\,b',
    'CN=a+OU=b',
    'UID=x',
    'C=Germany',
    'CN=a ,O=b',
    'CN=a\nb',
  ])('does not take %j for a subject', (subject) => {
    expect(isSubject(subject)).toBe(false)
  })
})
