import { X509Certificate } from 'node:crypto'
import tls from 'node:tls'
import { describe, expect, it } from 'vitest'
import { ownAuthority } from '../../lib/adapters/certificate-authority.ts'
import {
  exportPkcs8,
  generateKeyPair,
  importPkcs8,
  type PrivateKey,
  readCertificate,
} from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import type { Signer } from '../../lib/ports.ts'
import { selfSigned } from '../self-signed.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 5000
const HOUR = 3_600_000
const ca = selfSigned()
const SUBJECT = 'CN=gate,OU=kafka,O=Example Inc.,C=DE'

const signerOf = (pem: string): Signer => localSigner(importPkcs8(pem))
async function issued(
  authority = ca,
  changes: { signer?: Signer; until?: number } = {},
): Promise<{ pem: string; key: PrivateKey }> {
  const { publicKey, privateKey } = generateKeyPair(ESP256)
  const { signer = signerOf(authority.key), until = Date.now() + HOUR } = changes
  const issue = ownAuthority(authority.cert, () => Promise.resolve(signer), clock)
  return { pem: await issue({ subject: SUBJECT, key: publicKey, until }, soon()), key: privateKey }
}

/** Whether a server that trusts an authority takes a client, and whom it sees. */
async function shakesHands(pem: string, key: PrivateKey, trusted: string): Promise<string> {
  const server = tls.createServer(
    { ...ca, ca: trusted, requestCert: true, rejectUnauthorized: false },
    (socket) => {
      socket.end(
        String(socket.authorized ? socket.getPeerCertificate().subject.CN : socket.authorizationError),
      )
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  try {
    const socket = tls.connect({ port, host: '127.0.0.1', ca: ca.cert, cert: pem, key: exportPkcs8(key) })
    let said = ''
    for await (const chunk of socket) said += String(chunk)
    return said
  } finally {
    await new Promise((resolve) => server.close(resolve))
  }
}

describe('an authority of one’s own', () => {
  it('issues what a TLS server that trusts it takes, by its name, and one of another authority does not', async () => {
    const { pem, key } = await issued()
    expect(await shakesHands(pem, key, ca.cert)).toBe('gate')
    expect(await shakesHands(pem, key, selfSigned().cert)).toMatch(/SIGNATURE|ISSUER|SELF_SIGNED/)
  })

  it('issues for TLS clients alone: for their key and subject, for as long as asked, never an authority', async () => {
    const until = Math.floor(Date.now() / 1000) * 1000 + HOUR
    const { pem, key } = await issued(ca, { until })
    const read = new X509Certificate(pem)
    expect(read.subject.split('\n')).toEqual(['C=DE', 'O=Example Inc.', 'OU=kafka', 'CN=gate'])
    expect([read.ca, read.keyUsage, read.validToDate.getTime()]).toEqual([
      false,
      ['1.3.6.1.5.5.7.3.2'],
      until,
    ])
    expect(Date.now() - read.validFromDate.getTime()).toBeLessThan(310_000)
    expect(readCertificate(pem).fits(exportPkcs8(key))).toBe(true)
    expect(pem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
    expect(read.serialNumber).not.toBe(new X509Certificate((await issued()).pem).serialNumber)
    expect(read.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/)
  })

  it('has every signature taken, whatever its numbers begin with', async () => {
    for (let index = 0; index < 300; index++) await issued()
  })

  it.each([
    ['a key that is not its own', { signer: signerOf(selfSigned().key) }, 'Its key is not that of its'],
    ['an end after its own', { until: Date.parse('2050-01-01') }, 'It ends on 2049-12-31, before what'],
    ['a key of another kind', { signer: localSigner(generateKeyPair(ED25519).privateKey) }, 'Its key is not'],
  ])('does not issue with %s', async (_, changes, message) => {
    await expect(issued(ca, changes)).rejects.toThrow(ConfigError)
    await expect(issued(ca, changes)).rejects.toThrow(message)
  })

  it('gives nothing out that does not verify, and issues nothing with a certificate that may not', async () => {
    const broken = { ...signerOf(ca.key), sign: () => Promise.resolve(Buffer.alloc(64, 1)) }
    await expect(issued(ca, { signer: broken })).rejects.toThrow(Outage)
    const { pem, key } = await issued()
    await expect(issued({ cert: pem, key: exportPkcs8(key) })).rejects.toThrow('may not sign others')
  })
})
