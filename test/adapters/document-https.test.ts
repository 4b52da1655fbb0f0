import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { documentPlace, openDocument, openDocumentStore } from '../../lib/adapters/document-place.ts'
import { ConfigError } from '../../lib/errors.ts'
import type { DocumentSource } from '../../lib/ports.ts'
import { selfSigned } from '../self-signed.ts'

let server: Server
let folder = ''
let base = ''
let respond: (response: ServerResponse, headers: IncomingHttpHeaders) => void = () => undefined
const clock = { now: () => Date.now() }
const soon = (ms = 10_000): number => Date.now() + ms

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-https-'))
  const pair = selfSigned()
  await writeFile(join(folder, 'ca.pem'), pair.cert)
  server = createServer(pair, ({ headers }, response) => respond(response, headers))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  base = `https://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await rm(folder, { recursive: true })
})

const source = (path = '/directory.jws', ca: string | undefined = join(folder, 'ca.pem')): DocumentSource =>
  openDocument(documentPlace(base + path, ca), { outage: 'directory-unavailable', clock, maxBytes: 1000 })
const outage = { name: 'Outage', code: 'directory-unavailable' }

describe('a document at an https address', () => {
  it('is asked for by its entity tag, and unchanged under it', async () => {
    const asked: (string | undefined)[] = []
    let current = '"one"'
    respond = (response, headers) => {
      asked.push(headers['if-none-match'])
      if (headers['if-none-match'] === current) response.writeHead(304).end()
      else response.writeHead(200, { etag: current }).end(current)
    }
    expect(await source().read(undefined, soon())).toMatchObject({ etag: '"one"' })
    expect(await source().read('"one"', soon())).toBe('unchanged')
    current = 'W/"two"'
    expect(await source().read('"one"', soon())).toMatchObject({ etag: 'W/"two"' })
    expect(asked).toEqual([undefined, '"one"', '"one"'])
  })

  it.each([undefined, 'no tag', `"${'x'.repeat(300)}"`])(
    'is compared by its content where its entity tag is %j',
    async (etag) => {
      const asked: (string | undefined)[] = []
      let content = 'one'
      respond = (response, headers) => {
        asked.push(headers['if-none-match'])
        response.writeHead(200, etag === undefined ? {} : { etag }).end(content)
      }
      const first = await source().read(undefined, soon())
      if (first === 'unchanged') throw new Error('it was never read')
      expect(await source().read(first.etag, soon())).toBe('unchanged')
      content = 'two'
      const second = await source().read(first.etag, soon())
      expect(second !== 'unchanged' && Buffer.from(second.bytes).toString()).toBe('two')
      expect(asked).toEqual([undefined, undefined, undefined])
    },
  )

  it.each([
    [302, 'not followed'],
    [304, 'redirect'],
    [401, 'refuses us'],
    [404, 'no such document'],
    [500, 'status 500'],
  ])('is an outage where the answer is %i', async (status, reason) => {
    respond = (response) => response.writeHead(status, { location: 'http://127.0.0.1/' }).end()
    const reading = source('/d?token=planted').read(undefined, soon())
    await expect(reading).rejects.toMatchObject(outage)
    await expect(reading).rejects.toThrow(reason)
    await expect(reading).rejects.not.toThrow('planted')
  })

  it('is an outage where it is too large, packed, cut off, late, or comes in drops', async () => {
    respond = (response) => response.end('x'.repeat(1001))
    await expect(source().read(undefined, soon())).rejects.toThrow('larger than 1000 bytes')
    respond = (response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('one')
    await expect(source().read(undefined, soon())).rejects.toThrow('encoding')
    respond = (response) => {
      response.writeHead(200, { 'content-length': '10' }).write('one')
      setTimeout(() => response.destroy(), 20)
    }
    await expect(source().read(undefined, soon())).rejects.toMatchObject(outage)
    respond = () => undefined
    await expect(source().read(undefined, soon(200))).rejects.toThrow('no answer in time')
    await expect(source().read(undefined, soon(-1))).rejects.toThrow('no time left')
    respond = (response) => {
      const drip = setInterval(() => response.write('x'), 20)
      response.on('close', () => clearInterval(drip))
    }
    const begun = Date.now()
    await expect(source().read(undefined, soon(200))).rejects.toMatchObject(outage)
    expect(Date.now() - begun).toBeLessThan(2000)
  })

  it('is not taken from a server whose certificate nobody vouches for', async () => {
    respond = (response) => response.end('one')
    const elsewhere = openDocument(documentPlace(`${base}/d`), { outage: 'directory-unavailable', clock })
    await expect(elsewhere.read(undefined, soon())).rejects.toThrow('DEPTH_ZERO_SELF_SIGNED_CERT')
    const missing = source('/d', join(folder, 'no.pem'))
    await expect(missing.read(undefined, soon())).rejects.toThrow('no.pem cannot be read (ENOENT)')
  })

  it('is never written', () => {
    const place = documentPlace(`${base}/d`)
    expect(() => openDocumentStore(place, { outage: 'directory-unavailable', clock })).toThrow(ConfigError)
  })
})
