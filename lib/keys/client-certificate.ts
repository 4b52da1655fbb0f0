/**
 * A TLS client's certificate in a secret, renewed with overlap (keys.md §3): the old one counts until its own end, the new
 * one is used once every broker has taken it.
 */
import { exportPkcs8, generateKeyPair, type PublicKey, readCertificate } from '../envelope/crypto.ts'
import { ESP256 } from '../envelope/suite.ts'
import { ConfigError } from '../errors.ts'
import type { SecretStage, SecretVersion, StagedSecrets } from '../ports.ts'
import type {
  ClientCertificateRotation,
  ClientCertificateState,
  HeldCertificate,
  RotationPhase,
  RotationPlan,
  RotationPolicy,
  RotationStep,
} from './rotation.ts'

/** As Secrets Manager's convention has it, and as MSK, Lambda and `ssl.secret` read it. */
export interface ClientCertificate {
  /** PEM, those of its authorities behind. */
  readonly certificate: string
  /** PKCS #8 in PEM. */
  readonly privateKey: string
}

export interface CertificateRequest {
  /** `CN=gate,O=Example`. */
  readonly subject: string
  readonly key: PublicKey
  /** Milliseconds since 1970. */
  readonly until: number
}

/** Whom a rotation's certificates are from. */
export interface CertificateIssuer {
  /** Whether it has issued this one, PEM. */
  hasIssued(certificate: string): boolean
  /** A client certificate in PEM, with the authorities' behind. Rejects with `Outage`, or `ConfigError` where it cannot issue this. */
  issue(request: CertificateRequest, deadline: number): Promise<string>
  /** Has every broker take it, and tries again until the deadline. Rejects with `Outage`. */
  logIn(certificate: ClientCertificate, deadline: number): Promise<void>
}

/** Attributes of RFC 4514 §3 without any that would need an escape: what is compared and printed is what was written. */
const SUBJECT =
  /^(?:(?:CN|OU|O|L|ST)=[A-Za-z0-9][A-Za-z0-9 ._:@/-]{0,63}(?:,(?=.)|$)|C=[A-Z]{2}(?:,(?=.)|$)){1,8}$/

/** Whether a text is the subject of a certificate that can be asked for. */
export const isSubject = (text: string): boolean => SUBJECT.test(text) && !/ (?:,|$)/.test(text)

const MAX_BYTES = 65_536

/** Throws `ConfigError` that quotes nothing of it. */
export function readClientCertificate(value: Uint8Array, where: string): ClientCertificate {
  const fields = new Map<string, unknown>()
  try {
    const parsed: unknown = value.length > MAX_BYTES ? undefined : JSON.parse(Buffer.from(value).toString())
    if (typeof parsed === 'object' && parsed !== null)
      for (const [name, field] of Object.entries(parsed)) fields.set(name, field)
    const [certificate, privateKey] = [fields.get('certificate'), fields.get('privateKey')]
    if (typeof certificate === 'string' && typeof privateKey === 'string')
      if (readCertificate(certificate).fits(privateKey)) return { certificate, privateKey }
  } catch {
    // A parser's message quotes what it read.
  }
  const fix = 'Make it {"certificate":"…","privateKey":"…"}: PEM, the key PKCS #8, not encrypted.'
  throw new ConfigError([{ where, what: 'It holds no certificate with its private key.', fix }])
}

/**
 * A version as the plan needs it. Throws `ConfigError` where it is of another subject: whoever may write the secret must
 * not get a certificate in another's name.
 */
export function heldCertificate(
  { value, version }: SecretVersion,
  { subject }: ClientCertificateRotation,
  issuer: Pick<CertificateIssuer, 'hasIssued'>,
  where: string,
): HeldCertificate {
  const { certificate } = readClientCertificate(value, where)
  const read = readCertificate(certificate)
  if (read.subject !== subject.split(',').reverse().join('\n')) {
    const fix = `Correct subject in the rotation policy, or put the certificate of ${subject} there.`
    throw new ConfigError([{ where, what: 'Its certificate is of another subject.', fix }])
  }
  const [from, until] = [Math.floor(read.from / 1000), Math.floor(read.until / 1000)]
  return { version, from, until, isOurs: issuer.hasIssued(certificate) }
}

/** The next one is made, and used once the brokers take it. The one before counts until its own end: that is the overlap. */
export function planClientCertificate(
  { current, pending }: ClientCertificateState,
  { secret, renewBefore }: ClientCertificateRotation,
  { now: isAsked = false }: RotationPolicy,
  now: number,
): RotationPlan {
  const dueAt = current.until - renewBefore
  const plan = (phase: RotationPhase, ...steps: RotationStep[]): RotationPlan => {
    return { phase, rotatedAt: current.from, dueAt, steps }
  }
  // One that lay there for long, or is from an authority that was given up, is left for another.
  if (pending?.isOurs === true && pending.until - renewBefore > now) {
    const { version } = pending
    const promote = { do: 'promote', secret, version, from: current.version } as const
    return plan('under-way', { do: 'log-in', secret, version }, promote)
  }
  if (!isAsked && now < dueAt) return plan('current')
  return plan('due', { do: 'stage-certificate', after: [current.version, pending?.version].join() })
}

/** What a step on certificates works with. */
interface Tools {
  readonly secrets: StagedSecrets
  readonly issuer: CertificateIssuer
}

/** A new key and its certificate, pending under this id. */
export async function stageCertificate(
  { secret, subject, duration }: ClientCertificateRotation,
  token: string,
  { secrets, issuer, now }: Tools & { /** Milliseconds since 1970. */ readonly now: number },
  deadline: number,
): Promise<void> {
  const { publicKey, privateKey } = generateKeyPair(ESP256)
  const until = now + duration * 1000
  const certificate = await issuer.issue({ subject, key: publicKey, until }, deadline)
  const value: ClientCertificate = { certificate, privateKey: exportPkcs8(privateKey) }
  await secrets.stage(secret, Buffer.from(JSON.stringify(value)), 'AWSPENDING', token, deadline)
}

/** Logs in with a version that is pending; where it is so no more another has gone on. */
export async function tryCertificate(
  secret: string,
  version: string,
  { secrets, issuer }: Tools,
  deadline: number,
): Promise<void> {
  const stage: SecretStage = 'AWSPENDING'
  const found = await secrets.find(secret, stage, deadline)
  if (found?.version === version)
    await issuer.logIn(readClientCertificate(found.value, `${secret} (${stage})`), deadline)
}
