/**
 * SASL/GSSAPI with Kerberos V5 (RFC 4752), by the optional package `kerberos`. Who we are, and by which keytab, is told
 * to Kerberos itself: KRB5_CONFIG, KRB5_CLIENT_KTNAME, KRB5CCNAME (docs/kafka.md).
 */
import { createRequire } from 'node:module'
import type { AuthenticationProviderArgs } from 'kafkajs'
import { Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'
import { oneLine } from './kafka-outage.ts'

/** What is used of `kerberos` 7. Texts are base64. */
interface Kerberos {
  initializeClient(service: string, options: { mechOID: number; gssFlag: number }): Promise<KerberosClient>
}

interface KerberosClient {
  readonly contextComplete: boolean
  step(challenge: string): Promise<string | null>
  wrap(message: string): Promise<string>
  unwrap(message: string): Promise<string>
}

/** Kerberos V5, mutual, in sequence and integrity, as `kerberos` numbers them. */
const KRB5 = 9
const FLAGS = 2 | 8 | 32
/** The security layer that we take, since TLS is around it: none (RFC 4752 §3.3). */
const NO_LAYER = 1
/** More rounds than Kerberos has. */
const MAX_STEPS = 4

/** Proves to the broker at `host` who we are. Rejects with `Outage`, or with what the connection or the broker said. */
export async function authenticateByKerberos(
  serviceName: string,
  { host, saslAuthenticate }: AuthenticationProviderArgs,
  clock: Clock,
  deadline: number,
): Promise<void> {
  const late = (): Outage => kerberosOutage('sink-unavailable', 'no answer of the KDC in time')
  const asking = <T>(work: Promise<T>): Promise<T> =>
    byDeadline(work, deadline, clock, late).catch((error: unknown) => {
      throw error instanceof Outage ? error : explain(error)
    })
  const exchange = async (token: string): Promise<string> => {
    const answer = await saslAuthenticate({
      request: { encode: () => sized(Buffer.from(token, 'base64')) },
      response: { decode: (raw) => raw.subarray(4), parse: (bytes) => bytes.toString('base64') },
    })
    return answer ?? ''
  }
  const kerberos = loadKerberos()
  if (kerberos === undefined) throw kerberosOutage('sink-denied', 'the package kerberos is not installed')
  const client = await asking(
    kerberos.initializeClient(`${serviceName}@${host}`, { mechOID: KRB5, gssFlag: FLAGS }),
  )
  let challenge = ''
  for (let step = 0; !client.contextComplete; step++) {
    if (step === MAX_STEPS) throw kerberosOutage('sink-denied', 'the broker does not come to an end')
    const token = await asking(client.step(challenge))
    challenge = await exchange(token ?? '')
  }
  const offer = Buffer.from(await asking(client.unwrap(challenge)), 'base64')
  if (offer.length !== 4 || ((offer[0] ?? 0) & NO_LAYER) === 0)
    throw kerberosOutage('sink-denied', 'the broker insists on a security layer of GSSAPI')
  await exchange(await asking(client.wrap(Buffer.from([NO_LAYER, 0, 0, 0]).toString('base64'))))
}

/** Kafka's BYTES: their length in 32 bits, then they. */
export function sized(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(4)
  length.writeInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** The package, where it is installed: also in a Lambda layer (NODE_PATH), which `import` would not find. */
export function loadKerberos(): Kerberos | undefined {
  try {
    const loaded: unknown = createRequire(import.meta.url)('kerberos')
    return isKerberos(loaded) ? loaded : undefined
  } catch {
    return undefined
  }
}

const isKerberos = (loaded: unknown): loaded is Kerberos =>
  typeof loaded === 'object' && loaded !== null && 'initializeClient' in loaded

const kerberosOutage = (code: 'sink-denied' | 'sink-unavailable', what: string, cause?: unknown): Outage =>
  new Outage(
    code,
    `Kerberos: ${what}. Check KRB5_CONFIG, the keytab (KRB5_CLIENT_KTNAME), sasl.serviceName, and that brokers are listed by the names of their principals.`,
    { cause },
  )

/** GSSAPI's own words: they name principals and realms, and are what an operator knows to look for. */
function explain(error: unknown): Outage {
  const text = oneLine(error instanceof Error ? error.message : 'unknown error')
  const isAway = /cannot (contact|resolve)/i.test(text)
  return kerberosOutage(isAway ? 'sink-unavailable' : 'sink-denied', text, error)
}
