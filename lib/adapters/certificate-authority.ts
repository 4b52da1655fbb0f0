/**
 * A certificate authority of one's own (RFC 5280): its certificate at hand, its key wherever a `Signer` signs. It issues
 * certificates of TLS clients, and no others (docs/decisions/0008-certificates.md).
 */
import { AsnConvert, OctetString } from '@peculiar/asn1-schema'
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectKeyIdentifier,
  id_kp_clientAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from '@peculiar/asn1-x509'
import { digest, exportSpki, random, readCertificate, thumbprint } from '../envelope/crypto.ts'
import { ED25519 } from '../envelope/suite.ts'
import { ConfigError, Outage } from '../errors.ts'
import type { CertificateRequest } from '../keys/client-certificate.ts'
import type { Clock, Signer } from '../ports.ts'

/** Signature algorithms by COSE number: RFC 8410, RFC 5758. */
const ED25519_OID = '1.3.101.112'
const ECDSA_WITH_SHA256_OID = '1.2.840.10045.4.3.2'
/** What a subject may consist of (RFC 4514 §3). */
const ATTRIBUTES: Readonly<Record<string, string>> = {
  CN: '2.5.4.3',
  L: '2.5.4.7',
  ST: '2.5.4.8',
  O: '2.5.4.10',
  OU: '2.5.4.11',
  C: '2.5.4.6',
}
/** Brokers whose clocks are behind take it at once too. */
const BACKDATED_MS = 300_000
const SERIAL_BYTES = 16

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g

/**
 * Issues certificates in PEM, with the authority's own behind.
 * @param authority PEM: its certificate, and those above it but the root
 * @param signer its key. Throws `ConfigError` where that is another
 */
export function ownAuthority(
  authority: string,
  signer: (deadline: number) => Promise<Signer>,
  clock: Clock,
): (request: CertificateRequest, deadline: number) => Promise<string> {
  const own = readCertificate(authority)
  const { subject: issuer, extensions } = AsnConvert.parse(own.der, Certificate).tbsCertificate
  // Nothing else that may lie in the file, its key least of all.
  const chain = (authority.match(CERTIFICATE) ?? []).map((one) => `${one}\n`)
  const keyId = extensions?.find(({ extnID }) => extnID === id_ce_subjectKeyIdentifier)
  return async ({ subject, key, until }, deadline) => {
    const by = await signer(deadline)
    const fault = (what: string, fix: string): ConfigError =>
      new ConfigError([{ where: 'certificate authority', what, fix }])
    if (own.key === undefined || !thumbprint(own.key).equals(by.kid))
      throw fault('Its key is not that of its certificate.', 'Name the key of P-256 or Ed25519 that is.')
    if (!own.isAuthority) throw fault('Its certificate may not sign others.', 'Name that of an authority.')
    if (until > own.until)
      throw fault(
        `It ends on ${new Date(own.until).toISOString().slice(0, 10)}, before what it would issue.`,
        'Make its successor, and have brokers trust both.',
      )
    const signature = new AlgorithmIdentifier({
      algorithm: by.alg === ED25519.cose ? ED25519_OID : ECDSA_WITH_SHA256_OID,
    })
    const spki = exportSpki(key)
    const content = new TBSCertificate({
      version: Version.v3,
      serialNumber: serial(),
      signature,
      issuer,
      validity: new Validity({
        notBefore: wholeSecond(Math.max(clock.now() - BACKDATED_MS, own.from)),
        notAfter: wholeSecond(until),
      }),
      subject: nameOf(subject),
      subjectPublicKeyInfo: AsnConvert.parse(spki, SubjectPublicKeyInfo),
      extensions: new Extensions([
        extension(id_ce_basicConstraints, new BasicConstraints(), true),
        extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.digitalSignature), true),
        extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_clientAuth])),
        extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(digest(spki).subarray(0, 20))),
        ...(keyId === undefined ? [] : [authorityKeyId(keyId)]),
      ]),
    })
    const bytes = Buffer.from(AsnConvert.serialize(content))
    const raw = await by.sign(bytes, deadline)
    const made = new Certificate({
      ...{ tbsCertificate: content, tbsCertificateRaw: arrayOf(bytes), signatureAlgorithm: signature },
      signatureValue: arrayOf(by.alg === ED25519.cose ? raw : derOf(raw)),
    })
    const pem = pemOf(Buffer.from(AsnConvert.serialize(made)))
    if (!readCertificate(pem).isIssuedBy(own))
      throw new Outage('unexpected', 'the certificate authority has signed what does not verify')
    return [pem, ...chain].join('')
  }
}

/** Positive, and without a zero in front. */
function serial(): ArrayBuffer {
  const bytes = random(SERIAL_BYTES)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return arrayOf(bytes)
}

/** `CN=gate,O=Example` as RFC 4514 writes it: the last attribute of the certificate first. */
function nameOf(subject: string): Name {
  const parts = subject.split(',').reverse()
  return new Name(
    parts.map((part) => {
      const [type = '', text = ''] = part.split('=')
      const value = type === 'C' ? { printableString: text } : { utf8String: text }
      const attribute = { type: ATTRIBUTES[type] ?? '', value: new AttributeValue(value) }
      return new RelativeDistinguishedName([new AttributeTypeAndValue(attribute)])
    }),
  )
}

const extension = (extnID: string, value: object, critical = false): Extension =>
  new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) })

function authorityKeyId({ extnValue }: Extension): Extension {
  const { buffer } = AsnConvert.parse(extnValue.buffer, SubjectKeyIdentifier)
  const keyIdentifier = new KeyIdentifier(buffer)
  return extension(id_ce_authorityKeyIdentifier, new AuthorityKeyIdentifier({ keyIdentifier }))
}

const wholeSecond = (ms: number): Date => new Date(Math.floor(ms / 1000) * 1000)

const arrayOf = (bytes: Uint8Array): ArrayBuffer => new Uint8Array(bytes).buffer

/** r‖s → DER `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 §2.2.3). */
function derOf(raw: Uint8Array): Buffer {
  const integer = (bytes: Uint8Array): Buffer => {
    const from = bytes.findIndex((byte) => byte !== 0)
    const short = bytes.subarray(from === -1 ? bytes.length - 1 : from)
    const sign = (short[0] ?? 0) >= 0x80 ? [0] : []
    return Buffer.from([0x02, sign.length + short.length, ...sign, ...short])
  }
  const both = Buffer.concat([integer(raw.subarray(0, 32)), integer(raw.subarray(32))])
  return Buffer.from([0x30, both.length, ...both])
}

function pemOf(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n')
}
