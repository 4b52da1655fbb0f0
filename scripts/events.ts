/**
 * Makes events/*.json, Lambda events with real sealed records, and events/world.json, the vector file whose gateway,
 * keys and contracts decide them. All from test/vectors, byte for byte the same in every run: `node scripts/events.ts`.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type EventOrigin, toMskEvent } from '../lib/adapters/msk-event.ts'
import { parseVectorFile } from '../lib/admission/vector-file.ts'
import { isArray, isObject, type JsonObject, type JsonValue, member } from '../lib/contract/json.ts'
import type { SourceRecord } from '../lib/ports.ts'

const VECTORS = join(import.meta.dirname, '..', 'test', 'vectors')
const EVENTS = join(import.meta.dirname, '..', 'events')

/** The vectors taken, in this order: none needs a state or a time of its own. */
const CHOSEN: Readonly<Record<string, readonly string[] | undefined>> = {
  'single.json': undefined,
  'batch.json': undefined,
  'binding.json': ['other-partition', 'other-key', 'other-channel', 'ciphertext-bit', 'other-audience'],
  'headers.json': ['ce-type-differs', 'twice', 'null-hint'],
  'contracts.json': undefined,
  'keys.json': ['unknown', 'alg-of-another-key', 'issuer-of-another', 'state-suspended'],
  'malformed.json': ['null-value', 'stripped', 'trailing-outer', 'body-typ', 'text-1025-bytes'],
  'data-key.json': ['kek-of-another', 'kc-bit', 'outage'],
}

const MSK: EventOrigin = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:123456789012:cluster/shop/6cc0432b-8618-4f44-bccc-e1fbd8fb7c4d-2',
  bootstrapServers:
    'b-1.shop.example.c2.kafka.eu-west-1.amazonaws.com:9098,b-2.shop.example.c2.kafka.eu-west-1.amazonaws.com:9098',
}
const SELF_MANAGED: EventOrigin = {
  eventSourceArn: '',
  bootstrapServers: 'kafka-1.example.com:9092,kafka-2.example.com:9092',
  selfManaged: true,
}

const FIRST_OFFSET = 1000
/** A mirror keeps its channel, which is what is signed: in one deployment a channel has one topic. */
const MIRROR = /^mirror\./

/** Every file by its name in events/, with its text. */
export function makeEvents(): ReadonlyMap<string, string> {
  const files = Object.entries(CHOSEN).map(([file, names]) => chosenOf(file, names))
  const world = worldOf(files)
  const { vectors } = parseVectorFile('events/world.json', world)
  const records = vectors.map(({ record }) => record)
  const where = (condition: (expect: string, index: number) => boolean): SourceRecord[] =>
    records.filter((_, index) => condition(vectors[index]?.expect ?? '', index))
  const event = (some: readonly SourceRecord[], origin: EventOrigin): string =>
    `${JSON.stringify(toMskEvent(some, origin), undefined, 1)}\n`
  return new Map([
    ['msk-single.json', event(records.slice(0, 1), MSK)],
    [
      'msk-mixed.json',
      event(
        where((expect) => expect !== 'outage'),
        MSK,
      ),
    ],
    [
      'msk-outage.json',
      event(
        where((expect, index) => expect === 'outage' || index === 0),
        MSK,
      ),
    ],
    ['self-managed.json', event(where((expect) => expect !== 'outage').slice(0, 21), SELF_MANAGED)],
    ['world.json', world],
  ])
}

interface Chosen {
  readonly file: JsonObject
  readonly vectors: readonly JsonObject[]
}

function chosenOf(name: string, names: readonly string[] | undefined): Chosen {
  const file = objectOf(parseExact(readFileSync(join(VECTORS, name), 'utf8')))
  const vectors = rowsOf(file, 'vectors').filter(
    (row) => names === undefined || names.some((each) => each === row['name']),
  )
  if (names !== undefined && vectors.length !== names.length) throw new Error(`${name} lacks a vector`)
  const group = textOf(file, 'group')
  return { file, vectors: vectors.map((row) => ({ ...row, name: `${group}/${textOf(row, 'name')}` })) }
}

/** One vector file of all: the rows of every file's world, and the vectors at offsets that rise. */
function worldOf(files: readonly Chosen[]): string {
  const first = files[0]?.file ?? {}
  const directories = files.map(({ file }) => objectOf(member(file, 'directory')))
  const offsets = new Map<string, number>()
  const vectors = files
    .flatMap(({ vectors: rows }) => rows)
    .map((row) => {
      const topic = textOf(row, 'topic').replace(MIRROR, '')
      const place = `${topic}/${JSON.stringify(row['partition'])}`
      const offset = offsets.get(place) ?? FIRST_OFFSET
      offsets.set(place, offset + 1)
      return { ...row, topic, offset: String(offset) }
    })
  const world = {
    group: 'events',
    about: 'The vectors in events/*.json, one after the other. Made by scripts/events.ts.',
    gateway: objectOf(member(first, 'gateway')),
    directory: {
      signingKeys: union(
        directories.map((directory) => rowsOf(directory, 'signingKeys')),
        ['kid'],
      ),
      keks: union(
        directories.map((directory) => rowsOf(directory, 'keks')),
        ['kekId'],
      ),
    },
    contracts: union(
      files.map(({ file }) => rowsOf(file, 'contracts')),
      ['type', 'channel'],
    ),
    unwraps: union(
      files.map(({ file }) => rowsOf(file, 'unwraps')),
      ['wrapped'],
    ),
    sequence: true,
    vectors,
  }
  return `${JSON.stringify(world, undefined, 1)}\n`
}

/** Rows of all files, each once. Two that say different things of one name would make two worlds: an error. */
function union(lists: readonly (readonly JsonObject[])[], names: readonly string[]): readonly JsonObject[] {
  const rows = new Map<string, JsonObject>()
  for (const row of lists.flat()) {
    const name = JSON.stringify(names.map((each) => row[each]))
    const known = rows.get(name)
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(row))
      throw new Error(`two rows for ${name}`)
    rows.set(name, row)
  }
  return [...rows.values()]
}

/** Integers beyond 2^53 become text, which a vector file may have in their place. */
function parseExact(text: string): JsonValue {
  return JSON.parse(text, (_, value: JsonValue, context?: { source?: string }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) ? (context?.source ?? value) : value,
  ) as JsonValue
}

function objectOf(value: JsonValue | undefined): JsonObject {
  if (isObject(value)) return value
  throw new Error('a vector file of another shape')
}

function rowsOf(object: JsonObject, name: string): readonly JsonObject[] {
  const rows = member(object, name)
  if (rows === undefined || !isArray(rows)) throw new Error(`a vector file without ${name}`)
  return rows.map(objectOf)
}

function textOf(object: JsonObject, name: string): string {
  const value = member(object, name)
  if (typeof value === 'string') return value
  throw new Error(`a vector file without ${name}`)
}

if (import.meta.main) {
  mkdirSync(EVENTS, { recursive: true })
  for (const [name, text] of makeEvents()) writeFileSync(join(EVENTS, name), text)
}
