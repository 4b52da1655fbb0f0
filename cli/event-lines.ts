/**
 * Events as people have them, a JSON object a line: CloudEvents, `{eventType, timestamp, payload}` envelopes, and plain
 * objects. Payloads keep their source text, so that 12345678901234567890 and 1.10 arrive as they came.
 */
import type { EventInput } from '../lib/client/event.ts'
import { isDateTime } from '../lib/client/options.ts'
import { endOfString, endOfValue, skipBlank, textOf } from '../lib/contract/json.ts'
import { literalAt } from '../lib/contract/treatments.ts'
import { Rejection } from '../lib/errors.ts'

/** Longer lines are refused unread: a payload of 1 MiB with every character escaped fits. */
export const MAX_LINE_BYTES: number = 8 * 1024 * 1024

/** One line, counted from 1; `bytes` is undefined where it is longer than `MAX_LINE_BYTES`. */
export interface Line {
  readonly number: number
  readonly bytes: Uint8Array | undefined
}

/** Why a line is no event: what is wrong with it, without anything of its content, and what to do. */
export class BadLine extends Error {
  override readonly name = 'BadLine'
  readonly fix: string

  constructor(what: string, fix: string) {
    super(what)
    this.fix = fix
  }
}

/** What a line may leave out, and where its key stands. */
export interface LineDefaults {
  /** The type of plain objects. */
  readonly type: string | undefined
  readonly source: string | undefined
  /** A JSON Pointer's names into the payload. */
  readonly key: readonly string[] | undefined
}

/** An event whose source may still be open. */
export type LineEvent = Omit<EventInput, 'source'> & { readonly source: string | undefined }

/** The lines of a stream that are not blank, as they come in: a list for each chunk, so that memory stays bounded. */
export async function* readLines(input: AsyncIterable<Uint8Array>): AsyncGenerator<readonly Line[]> {
  let number = 1
  let parts: Uint8Array[] = []
  let length = 0
  const take = (): Line => {
    const bytes = length > MAX_LINE_BYTES ? undefined : Buffer.concat(parts)
    parts = []
    length = 0
    return { number: number++, bytes }
  }
  const add = (part: Uint8Array): void => {
    length += part.length
    if (length > MAX_LINE_BYTES) parts = []
    else parts.push(part)
  }
  for await (const chunk of input) {
    const lines: Line[] = []
    let start = 0
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      add(chunk.subarray(start, end))
      lines.push(take())
      start = end + 1
    }
    add(chunk.subarray(start))
    yield lines.filter(isFilled)
  }
  if (length > 0) yield [take()].filter(isFilled)
}

const LINE_FEED = 0x0a

const isFilled = ({ bytes }: Line): boolean =>
  bytes === undefined || bytes.some((byte) => byte !== 0x20 && byte !== 0x0d && byte !== 0x09)

/** The event of a line; throws `BadLine`. */
export function readEvent(bytes: Uint8Array, defaults: LineDefaults): LineEvent {
  const text = textIn(bytes)
  const members = membersOf(text)
  const event = has(members, 'specversion')
    ? cloudEvent(members)
    : has(members, 'eventType') && members.has('payload')
      ? envelope(members)
      : defaults.type === undefined && has(members, 'type') && members.has('data')
        ? cloudEvent(members)
        : plainObject(text, defaults.type)
  const key = event.key ?? keyOf(event.dataBytes, defaults.key)
  return { ...event, source: event.source ?? defaults.source, key }
}

type Draft = LineEvent & { readonly dataBytes: Uint8Array }

function plainObject(text: string, type: string | undefined): Draft {
  if (type === undefined)
    throw new BadLine(
      'It is neither a CloudEvent (specversion, type, source, data) nor an envelope (eventType, timestamp, payload).',
      'Give plain objects a type with --type.',
    )
  return { type, source: undefined, dataBytes: Buffer.from(text.trim()) }
}

const ATTRIBUTES = ['id', 'source', 'type', 'time', 'subject', 'dataschema', 'datacontenttype'] as const

/** CloudEvents' JSON format 1.0.2. */
function cloudEvent(members: Members): Draft {
  const texts = new Map<string, string>()
  const extensions = new Map<string, string>()
  for (const [name, raw] of members) {
    if (name === 'data' || name === 'data_base64' || raw === 'null') continue
    const isKnown = name === 'specversion' || ATTRIBUTES.some((known) => known === name)
    ;(isKnown ? texts : extensions).set(name, isKnown ? textAt(members, name) : scalarAt(members, name))
  }
  if (texts.get('specversion') !== undefined && texts.get('specversion') !== '1.0')
    throw new BadLine('Its specversion is not 1.0.', 'CloudEvents 1.0 are taken.')
  const type = texts.get('type')
  if (type === undefined) throw new BadLine('It has no type.', 'Every CloudEvent has one.')
  const time = texts.get('time')
  if (time !== undefined && !isDateTime(time))
    throw new BadLine('Its time is no time of RFC 3339.', 'Give one such as 2026-11-22T09:15:00Z.')
  const attributes = Object.fromEntries(
    [...texts].filter(([name]) => name !== 'specversion' && name !== 'type' && name !== 'source'),
  )
  return {
    ...attributes,
    type,
    source: texts.get('source'),
    dataBytes: dataOf(members, texts.get('datacontenttype')),
    ...keyed(extensions),
  }
}

/** The Kafka binding's rule: the partitioning extension names the record's key. */
function keyed(extensions: ReadonlyMap<string, string>): Partial<LineEvent> {
  const key = extensions.get('partitionkey')
  return {
    ...(extensions.size > 0 && { extensions: Object.fromEntries(extensions) }),
    ...(key !== undefined && { key }),
  }
}

function dataOf(members: Members, contentType = 'application/json'): Uint8Array {
  const data = members.get('data')
  const encoded = members.get('data_base64')
  if ((data === undefined) === (encoded === undefined))
    throw new BadLine('It has no data, or data and data_base64 both.', 'Give one of them.')
  if (encoded !== undefined) {
    const text = textAt(members, 'data_base64')
    const bytes = Buffer.from(text, 'base64')
    if (bytes.toString('base64') === text) return bytes
    throw new BadLine('Its data_base64 is not base64.', 'RFC 4648 §4, padded.')
  }
  const isJson = /^[^;]*[/+]json\s*(;|$)/.test(contentType)
  return Buffer.from(!isJson && data?.startsWith('"') === true ? textAt(members, 'data') : (data ?? ''))
}

const ENVELOPE = new Set(['eventType', 'timestamp', 'payload', 'id', 'eventId', 'source', 'subject'])

/** Further members that are scalars become attributes, by their names in lower case. */
function envelope(members: Members): Draft {
  const extensions = new Map<string, string>()
  for (const name of members.keys())
    if (!ENVELOPE.has(name)) extensions.set(name.toLowerCase(), scalarAt(members, name))
  const id = members.has('id') ? 'id' : members.has('eventId') ? 'eventId' : undefined
  return {
    type: textAt(members, 'eventType'),
    source: members.has('source') ? textAt(members, 'source') : undefined,
    ...(id !== undefined && { id: scalarAt(members, id) }),
    ...(members.has('subject') && { subject: textAt(members, 'subject') }),
    ...(members.has('timestamp') && { time: timeOf(members) }),
    dataBytes: Buffer.from(members.get('payload') ?? ''),
    ...keyed(extensions),
  }
}

/** The end of 9999, the last year that RFC 3339 can write. */
const MAX_TIME_MS = 253_402_300_799_999

/** A time as text is passed on; a number is milliseconds since 1970. */
function timeOf(members: Members): string {
  const raw = members.get('timestamp') ?? ''
  if (raw.startsWith('"')) {
    const text = textAt(members, 'timestamp')
    if (isDateTime(text)) return text
  } else if (/^\d{1,15}$/.test(raw) && Number(raw) <= MAX_TIME_MS) return new Date(Number(raw)).toISOString()
  throw new BadLine('Its timestamp is no time.', 'Give RFC 3339 text, or milliseconds since 1970.')
}

function keyOf(data: Uint8Array, pointer: readonly string[] | undefined): string | null {
  if (pointer === undefined) return null
  let literal: string | undefined
  try {
    literal = literalAt(Buffer.from(data).toString(), pointer)
  } catch {
    // The payload is no JSON: the gate will say so.
    return null
  }
  if (literal === undefined || literal === 'null') return null
  const value: unknown = JSON.parse(literal)
  return typeof value === 'string' ? value : literal
}

/** Each member's source text, by name. */
type Members = ReadonlyMap<string, string>

const has = (members: Members, name: string): boolean => members.get(name)?.startsWith('"') === true

function textIn(bytes: Uint8Array): string {
  try {
    return textOf(bytes)
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    throw new BadLine('It is not UTF-8, or begins with a byte order mark.', 'Save it as UTF-8 without one.')
  }
}

function membersOf(text: string): Members {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new BadLine('It is not JSON.', 'Give one JSON object a line.')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadLine('It is JSON, but no object.', 'Give one JSON object a line.')
  const members = new Map<string, string>()
  let at = skipBlank(text, skipBlank(text, 0) + 1)
  while (text[at] === '"') {
    const end = endOfString(text, at)
    const start = skipBlank(text, skipBlank(text, end) + 1)
    const stop = endOfValue(text, start)
    const name: unknown = JSON.parse(text.slice(at, end))
    if (typeof name !== 'string' || members.has(name))
      throw new BadLine('It holds a name twice.', 'Each member once.')
    members.set(name, text.slice(start, stop))
    at = skipBlank(text, stop)
    if (text[at] === ',') at = skipBlank(text, at + 1)
  }
  return members
}

function textAt(members: Members, name: string): string {
  const value: unknown = JSON.parse(members.get(name) ?? 'null')
  if (typeof value === 'string') return value
  throw new BadLine(`Its ${name} is no text.`, 'Put it in quotes.')
}

/** A text, or the source text of a number or boolean. */
function scalarAt(members: Members, name: string): string {
  const raw = members.get(name) ?? ''
  if (raw.startsWith('{') || raw.startsWith('['))
    throw new BadLine(
      `A member beside the payload is no text, number or boolean (${name.slice(0, 40)}).`,
      'Put it into the payload.',
    )
  return raw.startsWith('"') ? textAt(members, name) : raw
}
