/**
 * Events as lines of JSON (NDJSON), as `sealgate send` and `npm start` take them: CloudEvents (JSON format 1.0.2),
 * `{eventType, timestamp, payload}` envelopes, or plain objects of one given type. The payload's bytes are those that
 * stand in the line: 12345678901234567890 and 1.10 stay what they are.
 */
import { isUtf8 } from 'node:buffer'
import { open } from 'node:fs/promises'
import { endOfString, endOfValue, skipBlank } from '../lib/contract/json.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'

/** One line that is not blank: an event, or what is wrong with it. `line` counts from 1. */
export type NdjsonLine =
  | { readonly line: number; readonly event: LineEvent; readonly dataBytes: Uint8Array }
  | { readonly line: number; readonly fault: Fault }

/** CloudEvents attributes as a line gives them, ready to be spread into an `EventInput`; lengths and names are the sealer's to check. */
export interface LineEvent {
  readonly type: string
  /** Absent where the line has none: an envelope, a plain object. */
  readonly source?: string
  readonly id?: string
  readonly specversion?: '1.0'
  readonly time?: string
  readonly subject?: string
  readonly dataschema?: string
  readonly datacontenttype?: string
  readonly extensions?: Readonly<Record<string, string>>
  /** The extension `partitionkey` (CloudEvents' Kafka binding maps it to the record's key). */
  readonly key?: string
}

export interface NdjsonOptions {
  /** What faults call the input: a file's name. */
  readonly name: string
  /** With it every line is the payload of an event of this type, whatever it looks like. */
  readonly type?: string
  /** A longer line is a fault, and is not kept in memory. Default 2 MiB: what a value of 1 MiB may come to in base64. */
  readonly maxLineBytes?: number
}

const MAX_LINE_BYTES = 2 * 1_048_576
const CHUNK_BYTES = 262_144

/** The bytes of a file, or of standard input for `-`. @throws ConfigError where it cannot be read */
export async function openNdjson(path: string): Promise<AsyncIterable<Uint8Array>> {
  if (path === '-') return process.stdin
  try {
    const file = await open(path)
    if (!(await file.stat()).isDirectory()) return file.createReadStream({ highWaterMark: CHUNK_BYTES })
    await file.close()
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new ConfigError([
      {
        where: path,
        what: `The file cannot be read (${code}).`,
        fix: 'Name a file of JSON lines, or - for standard input.',
      },
    ])
  }
  throw new ConfigError([{ where: path, what: 'It is a folder.', fix: 'Name a file of JSON lines.' }])
}

/** Reads line after line; holds one line and one chunk. Rejects only as `chunks` does. */
export async function* readNdjson(
  chunks: AsyncIterable<Uint8Array>,
  options: NdjsonOptions,
): AsyncGenerator<NdjsonLine, void, undefined> {
  const { maxLineBytes = MAX_LINE_BYTES } = options
  let line = 0
  for await (const bytes of linesOf(chunks, maxLineBytes)) {
    line++
    const read = bytes === undefined ? tooLong(maxLineBytes) : readLine(bytes, options.type)
    if (read === undefined) continue
    if ('what' in read) yield { line, fault: { where: options.name, line, ...read } }
    else yield { line, ...read }
  }
}

const NEWLINE = 0x0a

/** Each line without its end; undefined for one that is too long. */
async function* linesOf(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<Buffer | undefined, void, undefined> {
  let parts: Buffer[] = []
  let length = 0
  const add = (part: Buffer): void => {
    length += part.length
    if (length > maxBytes) parts = []
    else if (part.length > 0) parts.push(part)
  }
  const take = (): Buffer | undefined => {
    const whole = length > maxBytes ? undefined : parts.length === 1 ? parts[0] : Buffer.concat(parts)
    parts = []
    length = 0
    return whole
  }
  for await (const chunk of chunks) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    let start = 0
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      add(bytes.subarray(start, end))
      yield take()
      start = end + 1
    }
    add(bytes.subarray(start))
  }
  if (length > 0) yield take()
}

type Wrong = Pick<Fault, 'what' | 'fix'>
interface Read {
  readonly event: LineEvent
  readonly dataBytes: Uint8Array
}

const tooLong = (maxBytes: number): Wrong => ({
  what: `The line is longer than ${maxBytes} bytes.`,
  fix: 'Send less, or a reference to it.',
})

/** Undefined for a blank line. */
function readLine(bytes: Buffer, type: string | undefined): Read | Wrong | undefined {
  if (!isUtf8(bytes)) return { what: 'The line is not UTF-8.', fix: 'Save the file as UTF-8.' }
  const text = bytes.toString('utf8')
  if (text.startsWith('\uFEFF'))
    return { what: 'The line begins with a byte order mark.', fix: 'Save the file as UTF-8 without one.' }
  const start = skipBlank(text, 0)
  if (start === text.length) return undefined
  try {
    JSON.parse(text)
  } catch {
    // Without its cause: V8 quotes the text in its message.
    return { what: 'The line is not JSON.', fix: 'Write one whole JSON object on each line.' }
  }
  if (text[start] !== '{')
    return { what: 'The line is no JSON object.', fix: 'Write one event on each line.' }
  if (type !== undefined) return { event: { type }, dataBytes: Buffer.from(text.slice(start).trimEnd()) }
  const members = membersOf(text, start)
  if (typeof members === 'string')
    return { what: `The name ${quoted(members)} stands there twice.`, fix: 'Write each attribute once.' }
  if (members.has('specversion') || (members.has('type') && !members.has('eventType')))
    return cloudEvent(members)
  if (members.has('eventType') && members.has('payload')) return envelope(members)
  return {
    what: 'The line is neither a CloudEvent nor an {eventType, timestamp, payload} envelope.',
    fix: 'Give specversion, id, source, type and data; or say of which type plain objects are.',
  }
}

/** The source text of each member of an object, or a name that comes twice. */
function membersOf(text: string, start: number): ReadonlyMap<string, string> | string {
  const members = new Map<string, string>()
  let index = skipBlank(text, start + 1)
  while (text[index] === '"') {
    const end = endOfString(text, index)
    const name = String(JSON.parse(text.slice(index, end)))
    if (members.has(name)) return name
    const from = skipBlank(text, skipBlank(text, end) + 1)
    const to = endOfValue(text, from)
    members.set(name, text.slice(from, to))
    index = skipBlank(text, to)
    if (text[index] === ',') index = skipBlank(text, index + 1)
  }
  return members
}

const ATTRIBUTES = ['source', 'id', 'time', 'subject', 'dataschema', 'datacontenttype'] as const
const TAKEN = new Set<string>([...ATTRIBUTES, 'type', 'specversion', 'data', 'data_base64'])

function cloudEvent(members: ReadonlyMap<string, string>): Read | Wrong {
  const attributes: Record<string, string> = {}
  const extensions = new Map<string, string>()
  for (const [name, source] of members) {
    if (name === 'data' || name === 'data_base64' || source === 'null') continue
    const text = attributeText(source)
    if (text === undefined || (TAKEN.has(name) && !source.startsWith('"')))
      return {
        what: `The attribute ${quoted(name)} is no text.`,
        fix: 'Only data may hold objects and arrays.',
      }
    if (TAKEN.has(name)) attributes[name] = text
    else extensions.set(name, text)
  }
  const { type, specversion = '1.0', ...rest } = attributes
  if (type === undefined) return { what: 'The event has no type.', fix: 'Give the attribute type.' }
  if (specversion !== '1.0')
    return { what: `The specversion is ${quoted(specversion)}.`, fix: 'Only 1.0 of CloudEvents is known.' }
  const dataBytes = payloadOf(members, rest['datacontenttype'])
  if ('what' in dataBytes) return dataBytes
  const key = extensions.get('partitionkey')
  const event = {
    type,
    specversion,
    ...rest,
    ...(extensions.size > 0 && { extensions: Object.fromEntries(extensions) }),
    ...(key !== undefined && { key }),
  } as const
  return { event, dataBytes }
}

/** Text as it is; integers and truth values in their canonical form (CloudEvents JSON format §2.2). */
function attributeText(source: string): string | undefined {
  if (source.startsWith('"')) return String(JSON.parse(source))
  return source === 'true' || source === 'false' || /^-?\d{1,10}$/.test(source) ? source : undefined
}

/** CloudEvents JSON format §3.1: `data_base64` is bytes; `data` is JSON, or a text of another content type. */
function payloadOf(
  members: ReadonlyMap<string, string>,
  contentType: string | undefined,
): Uint8Array | Wrong {
  const data = members.get('data')
  const base64 = members.get('data_base64')
  if (data !== undefined && base64 !== undefined)
    return { what: 'The event has both data and data_base64.', fix: 'Give one of them.' }
  if (base64 !== undefined) {
    const text = base64.startsWith('"') ? String(JSON.parse(base64)) : ''
    const bytes = Buffer.from(text, 'base64')
    if (text !== '' && bytes.toString('base64') === text) return bytes
    return { what: 'data_base64 is not base64.', fix: 'Write it with padding (RFC 4648 §4).' }
  }
  if (data === undefined) return { what: 'The event has no data.', fix: 'Give data, or data_base64.' }
  const isJson = contentType === undefined || /^[^;]*[/+]json *(;|$)/i.test(contentType)
  return Buffer.from(!isJson && data.startsWith('"') ? String(JSON.parse(data)) : data)
}

function envelope(members: ReadonlyMap<string, string>): Read | Wrong {
  const type = attributeText(members.get('eventType') ?? '')
  if (type === undefined) return { what: 'eventType is no text.', fix: 'Give the event type as text.' }
  for (const name of members.keys()) {
    if (name !== 'eventType' && name !== 'timestamp' && name !== 'payload')
      return {
        what: `The envelope has a member ${quoted(name)}.`,
        fix: 'It has eventType, timestamp and payload only: put it into the payload, or send a CloudEvent.',
      }
  }
  const time = timeOf(members.get('timestamp'))
  if (time === null)
    return { what: 'timestamp is no time.', fix: 'Write RFC 3339, or milliseconds since 1970.' }
  return {
    event: { type, ...(time !== undefined && { time }) },
    dataBytes: Buffer.from(members.get('payload') ?? ''),
  }
}

/** RFC 3339; undefined where there is none, null where it is no time. */
function timeOf(source: string | undefined): string | null | undefined {
  if (source === undefined || source === 'null') return undefined
  if (source.startsWith('"')) {
    const text = String(JSON.parse(source))
    return Number.isNaN(Date.parse(text)) ? null : text
  }
  const date = new Date(/^\d{1,15}$/.test(source) ? Number(source) : NaN)
  return Number.isNaN(date.getTime()) ? null : date.toISOString()
}

/** A name out of the input, cut short and fit for a terminal. */
const quoted = (name: string): string =>
  JSON.stringify(name.slice(0, 40)).replaceAll(/[\u007f-\u{10ffff}]/gu, '?')
