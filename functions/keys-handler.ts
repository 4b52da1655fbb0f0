/** Answers requests for public keys: `GET /jwks.json` (also `/.well-known/jwks.json`) and `GET /keys/KID`. */
import middy from '@middy/core'
import type { APIGatewayProxyStructuredResultV2, Context } from 'aws-lambda'
import type { LambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import { digest } from '../lib/envelope/crypto.ts'
import { Outage } from '../lib/errors.ts'
import type { Directory } from '../lib/keys/directory.ts'
import { jwksOf, publishedKey } from '../lib/keys/jwks.ts'

/** Takes an `APIGatewayProxyEventV2` (@types/aws-lambda); typed as unknown, since anybody on the Internet may shape it. */
export type KeysHandler = middy.MiddyfiedHandler<unknown, APIGatewayProxyStructuredResultV2>

/** As long as a gate serves its own copy: a revocation is out in as much time again. Seconds. */
const MAX_AGE = 60
const MARGIN_MS = 500
const MAX_KID_CHARS = 86
const JWKS_PATHS: ReadonlySet<string> = new Set(['/jwks.json', '/.well-known/jwks.json'])
const KEY_PATH = /^\/keys\/([^/]*)$/

/** A handler on a directory that is opened at the first request and kept for the next. */
export function keysHandler(
  open: () => Directory,
  telemetry?: Pick<LambdaTelemetry, 'invocation' | 'failed'>,
): KeysHandler {
  let directory: Directory | undefined
  const respond = async (event: unknown, context: Context): Promise<APIGatewayProxyStructuredResultV2> => {
    const request = requestOf(event)
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return answer(405, { error: 'method not allowed' }, request, { Allow: 'GET, HEAD' })
    const kid = KEY_PATH.exec(request.path)?.[1]
    if (kid === undefined && !JWKS_PATHS.has(request.path)) return notFound(request)
    // Not worth a look: and what a stranger sends decides no read anyway.
    if (kid !== undefined && kid.length > MAX_KID_CHARS) return notFound(request)
    try {
      const deadline = Date.now() + context.getRemainingTimeInMillis() - MARGIN_MS
      const { snapshot } = await (directory ??= open()).snapshot(deadline)
      const found = kid === undefined ? jwksOf(snapshot) : publishedKey(snapshot, kid)
      if (found === undefined) return notFound(request)
      return answer(200, found, request, { 'Cache-Control': `public, max-age=${MAX_AGE}` })
    } catch (error) {
      if (!(error instanceof Outage)) throw error
      telemetry?.failed(error)
      const wait = { 'Retry-After': '5', 'Cache-Control': 'no-store' }
      return answer(503, { error: 'the key directory cannot be read now' }, request, wait)
    }
  }
  return middy<unknown, APIGatewayProxyStructuredResultV2>().handler((event, context) =>
    telemetry === undefined
      ? respond(event, context)
      : telemetry.invocation(context, () => respond(event, context)),
  )
}

interface Request {
  readonly method: string
  readonly path: string
  readonly ifNoneMatch: string
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

function requestOf(event: unknown): Request {
  const { rawPath, requestContext, headers } = isObject(event) ? event : {}
  const { http } = isObject(requestContext) ? requestContext : {}
  const { method } = isObject(http) ? http : {}
  // Lambda and API Gateway write header names in lower case.
  const ifNoneMatch = isObject(headers) ? headers['if-none-match'] : undefined
  return { method: textOf(method), path: textOf(rawPath), ifNoneMatch: textOf(ifNoneMatch) }
}

/** An unknown kid may be published within minutes: told for as long as a known one. */
const notFound = (request: Request): APIGatewayProxyStructuredResultV2 =>
  answer(404, { error: 'not found' }, request, { 'Cache-Control': `public, max-age=${MAX_AGE}` })

function answer(
  statusCode: number,
  content: object,
  request: Request,
  headers: Record<string, string>,
): APIGatewayProxyStructuredResultV2 {
  const body = JSON.stringify(content)
  const etag = `"${digest(Buffer.from(body)).toString('base64url')}"`
  const always = { ...headers, 'X-Content-Type-Options': 'nosniff' }
  if (statusCode === 200 && isMatch(request.ifNoneMatch, etag))
    return { statusCode: 304, headers: { ...always, ETag: etag } }
  const type = { 'Content-Type': 'application/json' }
  const tagged = statusCode === 200 ? { ETag: etag } : {}
  return {
    statusCode,
    headers: { ...always, ...type, ...tagged },
    body: request.method === 'HEAD' ? '' : body,
  }
}

/** RFC 9110 §13.1.2: a list of entity tags, compared weakly, or `*`. */
function isMatch(ifNoneMatch: string, etag: string): boolean {
  return ifNoneMatch.split(',').some((tag) => {
    const bare = tag.trim().replace(/^W\//, '')
    return bare === '*' || bare === etag
  })
}
