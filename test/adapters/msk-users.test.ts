/** The secrets of an MSK cluster's users, through the real SDK against an endpoint on 127.0.0.1. */
import { createServer, type Server } from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { mskUsers } from '../../lib/adapters/msk-users.ts'
import { Outage } from '../../lib/errors.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const CLUSTER = 'arn:aws:kafka:eu-west-1:111122223333:cluster/shop/12345678-1234-1234-1234-123456789012-1'
const secret = (name: string): string =>
  `arn:aws:secretsmanager:eu-west-1:111122223333:secret:AmazonMSK_${name}`
const soon = (): number => Date.now() + 10_000

interface Unprocessed {
  readonly secretArn: string
  readonly errorCode: string
  readonly errorMessage: string
}

/** Its clients keep the endpoint that they began with. */
let users: ReturnType<typeof mskUsers>
let server: Server
let restore: () => void
/** What the cluster has, in the order in which it took it, and each list that it was told. */
let taken: string[]
let told: string[][]
let refuses: readonly Unprocessed[]
let failure: { readonly status: number; readonly name: string } | undefined

beforeEach(async () => {
  users = mskUsers({ now: () => Date.now() })
  taken = []
  told = []
  refuses = []
  failure = undefined
  server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const answer = (status: number, body: object, headers = {}): void =>
        void response
          .writeHead(status, { 'content-type': 'application/json', ...headers })
          .end(JSON.stringify(body))
      const url = new URL(request.url ?? '', 'http://msk')
      if (failure !== undefined) {
        answer(failure.status, { message: 'planted-message' }, { 'x-amzn-errortype': failure.name })
        return
      }
      if (decodeURIComponent(url.pathname) !== `/v1/clusters/${CLUSTER}/scram-secrets`) {
        answer(404, {})
        return
      }
      if (request.method === 'GET') {
        // Pages of two, as MSK's are of a hundred.
        const from = Number(url.searchParams.get('nextToken') ?? 0)
        const next = from + 2 < taken.length ? { nextToken: String(from + 2) } : {}
        answer(200, { secretArnList: taken.slice(from, from + 2), ...next })
        return
      }
      const { secretArnList: list }: { secretArnList: string[] } = JSON.parse(Buffer.concat(parts).toString())
      told.push(list)
      taken.push(...list.filter((arn) => !refuses.some(({ secretArn }) => secretArn === arn)))
      answer(200, { clusterArn: CLUSTER, unprocessedScramSecrets: refuses })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  restore = setEnvironment({
    AWS_ENDPOINT_URL_KAFKA: `http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
  })
})
afterEach(async () => {
  restore()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const outage = async (work: Promise<void>): Promise<Outage> => {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof Outage) return error
  throw new Error('no outage', { cause: error })
}

it('associates what is not associated yet, and nothing twice', async () => {
  taken = ['x', 'y', 'z', secret('a')].map((name) => (name.startsWith('arn') ? name : secret(name)))
  const both = [secret('a'), secret('b')]
  await users.associate(CLUSTER, both, soon())
  await users.associate(CLUSTER, both, soon())
  expect(told).toEqual([[secret('b')]])
})

it('tells MSK of no more than ten at a time', async () => {
  const many = Array.from({ length: 23 }, (_, index) => secret(`user-${index}`))
  await users.associate(CLUSTER, many, soon())
  expect(told.map((list) => list.length)).toEqual([10, 10, 3])
  expect(taken).toEqual(many)
})

it('fails where MSK did not process one, and names each with its error', async () => {
  refuses = [
    { secretArn: secret('a'), errorCode: 'InvalidSecret', errorMessage: 'default key\nof Secrets Manager' },
    { secretArn: secret('b'), errorCode: 'NotFound', errorMessage: 'no such secret' },
  ]
  const { code, message } = await outage(users.associate(CLUSTER, [secret('a'), secret('b')], soon()))
  expect(code).toBe('sink-denied')
  expect(message).toContain(`${secret('a')} (InvalidSecret: default key of Secrets Manager)`)
  expect(message).toContain(`${secret('b')} (NotFound: no such secret)`)
})

it.each([
  [403, 'ForbiddenException', 'sink-denied', 'Allow kafka:ListScramSecrets'],
  [404, 'NotFoundException', 'sink-denied', 'no such cluster'],
  [400, 'BadRequestException', 'sink-denied', 'SASL/SCRAM is on'],
  [503, 'ServiceUnavailableException', 'sink-unavailable', 'It is tried again'],
])('says what to do about %i %s, in its own words', async (status, name, code, part) => {
  failure = { status, name }
  const found = await outage(users.associate(CLUSTER, [secret('a')], soon()))
  expect(found).toMatchObject({ code, message: expect.stringContaining(part) })
  expect(found.message).not.toContain('planted')
})

it('ends by its deadline', async () => {
  server.removeAllListeners('request')
  const begun = Date.now()
  expect((await outage(users.associate(CLUSTER, [secret('a')], begun + 300))).code).toBe('sink-unavailable')
  expect(Date.now() - begun).toBeLessThan(3000)
})
