/** Tokens for SASL/OAUTHBEARER: from a token endpoint by a client's credentials, or signed by AWS's IAM rules. */
import { request } from 'node:https'
import { Outage } from '../errors.ts'
import type { Clock } from '../ports.ts'
import { type Credentials, textOf } from './kafka-credentials.ts'
import type { TokenEndpoint } from './kafka-settings.ts'
import { type Copy, Renewable, type Source } from './renewable.ts'

/** Of a token's life; then another is got while this one still serves. */
const FRESH_PART = 0.8
const MAX_ANSWER_BYTES = 65_536
/** Where the endpoint does not say (RFC 6749 §5.1 only recommends it). */
const USUAL_LIFE_SECONDS = 300
/** What a token may be made of (RFC 6750 §2.1): nothing that could add to the message it goes into. */
const TOKEN = /^[A-Za-z0-9._~+/-]{1,32768}=*$/

/** By the client-credentials grant (RFC 6749 §4.4) over HTTPS, the credentials in the Authorization header (§2.3.1). */
export function endpointToken(
  endpoint: TokenEndpoint,
  credentials: Source<Credentials>,
  clock: Clock,
): Renewable<string> {
  const ask = async (deadline: number): Promise<Copy<string>> => {
    const { name, secret } = await credentials.current(deadline)
    const user = `${encodeURIComponent(name)}:${encodeURIComponent(secret)}`
    const begun = clock.now()
    const answer = await post(endpoint, `Basic ${Buffer.from(user).toString('base64')}`, deadline, clock)
    if (answer.status === 400 || answer.status === 401 || answer.status === 403)
      throw new ClientRefused(
        `the token endpoint ${endpoint.url} refuses us (${answer.status}${reasonIn(answer.body)}). Check sasl.clientId, its secret and sasl.scope.`,
      )
    if (answer.status !== 200) throw unavailable(endpoint, `answers with status ${answer.status}`)
    return tokenIn(answer.body, endpoint, begun)
  }
  return new Renewable(async (deadline) => {
    const used = await credentials.current(deadline)
    try {
      return await ask(deadline)
    } catch (error) {
      if (error instanceof ClientRefused && (await credentials.isRenewed(used, deadline)))
        return ask(deadline)
      throw error
    }
  }, clock)
}

/**
 * A token that MSK takes for IAM's word: a presigned request by the credentials that the AWS SDK finds (environment,
 * role, …).
 */
export function iamToken(region: string, clock: Clock): Renewable<string> {
  return new Renewable(async (deadline) => {
    const begun = clock.now()
    const late = (): Outage => iamOutage('there was no time to find AWS credentials')
    try {
      const { iamSignature } = await import('./iam-signature.ts')
      const { token, goodUntil } = await iamSignature(region, { deadline, clock, late })
      return copyOf(token, begun, goodUntil)
    } catch (cause) {
      if (cause instanceof Outage) throw cause
      const name = cause instanceof Error ? cause.name : 'unknown error'
      throw iamOutage(`there are no AWS credentials to sign with (${name})`, cause)
    }
  }, clock)
}

const iamOutage = (what: string, cause?: unknown): Outage =>
  new Outage('sink-unavailable', `${what}. Give the function a role, or set AWS_PROFILE.`, { cause })

/** Of the client by the endpoint, for good until somebody changes something. */
class ClientRefused extends Outage {
  constructor(reason: string) {
    super('sink-denied', reason)
  }
}

const unavailable = ({ url }: TokenEndpoint, what: string, cause?: unknown): Outage =>
  new Outage(
    'sink-unavailable',
    `the token endpoint ${url} ${what}. Check sasl.tokenEndpoint, sasl.tokenCa and network.`,
    {
      cause,
    },
  )

const copyOf = (token: string, begun: number, goodUntil: number): Copy<string> => ({
  value: token,
  version: token,
  freshUntil: begun + (goodUntil - begun) * FRESH_PART,
  goodUntil,
})

function tokenIn(body: Buffer, endpoint: TokenEndpoint, begun: number): Copy<string> {
  const fields = fieldsIn(body)
  const token = fields.get('access_token')
  const type = fields.get('token_type')
  const given = fields.get('expires_in') ?? USUAL_LIFE_SECONDS
  const life = typeof given === 'string' && /^[0-9]{1,9}$/.test(given) ? Number(given) : given
  if (typeof token !== 'string' || !TOKEN.test(token) || typeof type !== 'string' || !/^bearer$/i.test(type))
    throw unavailable(endpoint, 'answers with no bearer token')
  if (typeof life !== 'number' || !(life > 0) || life > 1e9)
    throw unavailable(endpoint, 'answers with a token of no life')
  return copyOf(token, begun, begun + life * 1000)
}

/** The endpoint's own word for why, where it is one (RFC 6749 §5.2). */
function reasonIn(body: Buffer): string {
  const error = fieldsIn(body).get('error')
  return typeof error === 'string' && /^[a-z_]{1,40}$/.test(error) ? `, ${error}` : ''
}

function fieldsIn(body: Buffer): ReadonlyMap<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(body.toString())
    return new Map(typeof parsed === 'object' && parsed !== null ? Object.entries(parsed) : [])
  } catch {
    return new Map()
  }
}

interface Answer {
  readonly status: number
  readonly body: Buffer
}

/** One request; redirects are not followed. Rejects with `Outage`. */
function post(
  endpoint: TokenEndpoint,
  authorization: string,
  deadline: number,
  clock: Clock,
): Promise<Answer> {
  const { url, scope, ca } = endpoint
  const body = new URLSearchParams({ grant_type: 'client_credentials', ...(scope && { scope }) }).toString()
  const left = Math.max(0, Math.min(deadline - clock.now(), 2 ** 31 - 1))
  const options = {
    method: 'POST',
    headers: {
      authorization,
      accept: 'application/json',
      'content-type': 'application/x-www-form-urlencoded',
      'content-length': Buffer.byteLength(body),
    },
    ...(ca && { ca: textOf(ca, 'sasl.tokenCa') }),
    minVersion: 'TLSv1.2',
    rejectUnauthorized: true,
    agent: false,
    signal: AbortSignal.timeout(left),
  } as const
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const code = 'code' in cause ? String(cause.code) : cause.name
      const isLate = cause.name === 'AbortError' || code === 'ABORT_ERR'
      reject(unavailable(endpoint, isLate ? 'did not answer in time' : `cannot be reached (${code})`, cause))
    }
    const asking = request(url, options, (answer) => {
      const chunks: Buffer[] = []
      let bytes = 0
      answer.on('error', fail)
      answer.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes > MAX_ANSWER_BYTES) answer.destroy(new Error('too long'))
      })
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks) }))
    })
    asking.on('error', fail)
    asking.end(body)
  })
}
