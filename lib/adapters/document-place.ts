/** Where a document is kept, told by one text: a file's path, `s3://bucket/key`, an https address, or a secret's ARN. */
import { ConfigError, type OutageCode } from '../errors.ts'
import type { Clock, DocumentSource, DocumentStore } from '../ports.ts'
import { documentFile } from './document-file.ts'
import { documentHttps } from './document-https.ts'
import { documentS3 } from './document-s3.ts'
import { documentSecret } from './document-secret.ts'

export type DocumentPlace =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 's3'; readonly bucket: string; readonly key: string }
  /** `caFile`: a PEM file of the authorities to trust instead of the public ones. */
  | { readonly kind: 'https'; readonly url: URL; readonly caFile: string | undefined }
  | { readonly kind: 'secret'; readonly arn: string }

export interface DocumentOptions {
  /** What it means that the document cannot be read or written. */
  readonly outage: OutageCode
  readonly clock: Clock
  /** A larger document is not read. */
  readonly maxBytes?: number
}

/** The place that a text names. Throws `TypeError` with what is wrong with it; never quotes it, for it may hold a password. */
export function documentPlace(text: string, caFile?: string): DocumentPlace {
  if (text === '') throw new TypeError('It is empty.')
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase()
  if (caFile !== undefined && scheme !== 'https') throw new TypeError('An authority is for https addresses.')
  switch (scheme) {
    case undefined:
      return { kind: 'file', path: text }
    case 's3': {
      const { bucket, key } = S3.exec(text)?.groups ?? {}
      if (bucket === undefined || key === undefined || Buffer.byteLength(key) > MAX_KEY_BYTES)
        throw new TypeError('It is no s3://bucket/key.')
      return { kind: 's3', bucket, key }
    }
    case 'https':
      return { kind: 'https', url: addressOf(text), caFile }
    case 'http':
      throw new TypeError('Without TLS anybody on the way could keep revocations back.')
    case 'arn':
      if (!SECRET_ARN.test(text)) throw new TypeError('It is no ARN of a Secrets Manager secret.')
      return { kind: 'secret', arn: text }
    default:
      throw new TypeError(`Nothing is kept at ${scheme}:.`)
  }
}

const S3 = /^s3:\/\/(?<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\/(?<key>[^/\p{Cc}][^\p{Cc}]*)$/u
const MAX_KEY_BYTES = 1024
const SECRET_ARN = /^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}$/

function addressOf(text: string): URL {
  const url = URL.parse(text)
  if (url === null) throw new TypeError('It is no https address.')
  if (url.username !== '' || url.password !== '') throw new TypeError('It holds a user or password.')
  if (url.hash !== '') throw new TypeError('It has a fragment, which nobody is sent.')
  return url
}

/** How a place is told to people: an address without what follows its path. */
export function placeName(place: DocumentPlace): string {
  switch (place.kind) {
    case 'file':
      return place.path
    case 's3':
      return `s3://${place.bucket}/${place.key}`
    case 'https':
      return place.url.origin + place.url.pathname
    case 'secret':
      return place.arn
  }
}

/** Double a directory's own bound, so that one that is too large is named as such. */
const MAX_BYTES = 16 * 1024 * 1024

export function openDocument(place: DocumentPlace, options: DocumentOptions): DocumentSource {
  if (place.kind !== 'https') return openStored(place, options)
  const { url, caFile } = place
  const { outage, clock, maxBytes = MAX_BYTES } = options
  return documentHttps({ url, caFile, outage, clock, maxBytes })
}

/** The same to be written too. Throws `ConfigError` for an https address. */
export function openDocumentStore(place: DocumentPlace, options: DocumentOptions): DocumentStore {
  if (place.kind !== 'https') return openStored(place, options)
  const fix = 'Name the file, object or secret that is published at this address.'
  throw new ConfigError([{ where: placeName(place), what: 'Nothing is written to an https address.', fix }])
}

function openStored(
  place: Exclude<DocumentPlace, { kind: 'https' }>,
  options: DocumentOptions,
): DocumentStore {
  const { outage, clock, maxBytes = MAX_BYTES } = options
  switch (place.kind) {
    case 'file':
      return documentFile({ path: place.path, outage, clock, maxBytes })
    case 's3':
      return documentS3({ bucket: place.bucket, key: place.key, outage, clock, maxBytes })
    case 'secret':
      return documentSecret({ arn: place.arn, outage, clock })
  }
}
