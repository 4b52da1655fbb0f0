/** `sealgate inspect`: a sealed record in words. No key is needed, and nothing is verified. */
import type { Command } from 'commander'
import { BYTES_PER_PATH_HASH, type Envelope } from '../lib/envelope/format.ts'
import { ConfigError } from '../lib/errors.ts'
import type { Header } from '../lib/ports.ts'
import { algorithmName, inspect, type Inspection } from './inspection.ts'
import { EXIT, isoTime, LATEST_MS, paint, printable } from './io.ts'
import { givenRecord, type GivenRecord, parsePlace, parseRecordInput, readInput, recordAt } from './record.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openTopics } from './world.ts'

interface InspectOptions extends PlaceFlags {
  readonly hex?: true
  readonly base64?: true
  readonly json?: true
}

/** Adds `inspect` to the program. */
export function addInspectCommand(program: Command, terminal: Terminal): void {
  addPlaceOptions(program.command('inspect'))
    .description('say in words what a sealed record claims, without any key')
    .argument('[record]', 'file, - for standard input, or topic/partition/offset', '-')
    .option('--hex', 'the input is hexadecimal')
    .option('--base64', 'the input is base64')
    .option('--json', 'print the same as a JSON object')
    .addHelpText(
      'after',
      '\nWithout a flag the form is told by its looks: binary, hexadecimal, base64,\nor JSON as sealgate seal prints it.\n\nExamples:\n  sealgate inspect orders/0/0\n  sealgate seal event.json | sealgate inspect\n\nExit status 1: it would be refused before any key is looked at.',
    )
    .action(async (name: string, options: InspectOptions) => {
      const inspection = inspect(await given(terminal, name, options))
      terminal.write(
        options.json
          ? JSON.stringify(inspectionData(inspection, terminal.now()))
          : describeInspection(inspection, terminal),
      )
      terminal.exit(inspection.refusal === undefined ? EXIT.ok : EXIT.found)
    })
}

async function given(terminal: Terminal, name: string, options: InspectOptions): Promise<GivenRecord> {
  if (options.hex && options.base64)
    throw new ConfigError([{ where: '--hex', what: 'It cannot be base64 too.', fix: 'Give one of the two.' }])
  const place = parsePlace(name)
  if (place === undefined) {
    const form = options.hex ? 'hex' : options.base64 ? 'base64' : undefined
    return parseRecordInput(name === '-' ? 'standard input' : name, await readInput(terminal, name), form)
  }
  const topics = await openTopics(terminal, options, false)
  return closing(topics, async () => givenRecord(await recordAt(topics, place)))
}

/** The same for programs; numbers beyond 2^53 as text. */
export function inspectionData(inspection: Inspection, now: number): unknown {
  const { bytes, record, stored, refusal, envelope, parts } = inspection
  return {
    verified: false,
    bytes,
    ...(record && {
      record: {
        topic: record.topic,
        partition: record.partition,
        ...(stored && { offset: Number(stored.offset), timestamp: isoTime(stored.timestamp) }),
        key: keyText(record.key),
        headers: record.headers.map(({ name, value }) => ({
          name,
          value: value && Buffer.from(value).toString(),
        })),
      },
    }),
    ...(refusal && { refusal }),
    ...(envelope && parts && { event: envelopeData(envelope, now), sizes: sizesOf(inspection, envelope) }),
  }
}

function envelopeData({ body, proof }: Envelope, now: number): unknown {
  const { claims, recipient } = body
  return {
    iss: claims.iss,
    aud: claims.aud,
    iat: integer(claims.iat),
    exp: integer(claims.exp),
    expiresInSeconds: Number(claims.exp) - Math.floor(now / 1000),
    contentType: claims.contentType,
    ce: Object.fromEntries(claims.ce),
    session: hex(claims.session),
    number: integer(claims.number),
    contentEncryption: 'A256GCM',
    kekId: kekText(recipient.kekId),
    commitment: hex(body.commitment),
    proof: {
      alg: proof.alg,
      kid: Buffer.from(proof.kid).toString('base64url'),
      batch: proof.receipt && { treeSize: proof.receipt.treeSize, leafIndex: proof.receipt.leafIndex },
    },
  }
}

function sizesOf({ bytes, parts }: Inspection, { body, proof }: Envelope): Record<string, number> {
  return {
    value: bytes,
    body: parts?.body.bytes.length ?? 0,
    bodyHeader: body.protected.length,
    ciphertext: body.ciphertext.length,
    wrappedKey: body.recipient.wrapped.length,
    proof: parts?.proof.bytes.length ?? 0,
    signature: proof.signature.length,
    path: proof.receipt?.path.length ?? 0,
  }
}

/** In words, for people. */
export function describeInspection(inspection: Inspection, terminal: Terminal): string {
  const { colours } = terminal
  const { bytes, record, refusal, envelope } = inspection
  const lines: string[] = []
  const part = (name: string, rows: readonly (readonly [string, string])[]): void => {
    lines.push('', paint(colours.out, 'bold', name))
    for (const [label, text] of rows)
      lines.push(`  ${label.padEnd(12)}  ${printable(text.replaceAll('\n', ' '))}`)
  }
  lines.push(
    envelope === undefined
      ? `Not a sealed event: ${bytes} bytes.`
      : `A sealed event, version 1: ${bytes} bytes.`,
  )
  if (envelope !== undefined)
    lines.push(
      paint(colours.out, 'yellow', 'Nothing here is verified: it is what the record says of itself.'),
    )
  if (refusal !== undefined)
    part('Would be refused', [
      ['code', refusal.code],
      ['why', refusal.reason],
      ['where', refusal.place],
    ])
  if (envelope !== undefined) describeEnvelope(part, inspection, envelope, terminal.now())
  if (record !== undefined)
    part('Record', [
      ['place', placeText(inspection)],
      ['key', record.key === null ? '(none)' : (keyText(record.key) ?? '')],
      ...record.headers.map((header): [string, string] => ['header', headerText(header)]),
    ])
  return lines.join('\n')
}

function describeEnvelope(
  part: (name: string, rows: readonly (readonly [string, string])[]) => void,
  inspection: Inspection,
  { body, proof }: Envelope,
  now: number,
): void {
  const { claims, recipient } = body
  const { receipt } = proof
  const attributes = [...claims.ce].filter(
    ([name]) => !['type', 'source', 'id', 'specversion'].includes(name),
  )
  const ce = (name: string): string => claims.ce.get(name) ?? ''
  part('Who', [
    ['issuer', claims.iss],
    ['signed with', `${algorithmName(proof.alg)}, kid ${Buffer.from(proof.kid).toString('base64url')}`],
    ['for', `${claims.aud} (audience)`],
  ])
  part('What', [
    ['type', ce('type')],
    ['source', ce('source')],
    ['id', ce('id')],
    ...attributes.map(([name, value]): [string, string] => [name, value]),
    ['payload', `${claims.contentType}, ${body.ciphertext.length - 16} bytes, encrypted (A256GCM)`],
  ])
  part('Where', [
    ['bound to', 'channel, partition and record key: signed, and not in the value. Only the place where it'],
    ['', 'was found can show whether it belongs there.'],
    ['number', `${claims.number} of session ${hex(claims.session)}, in that channel and partition`],
  ])
  part('When', [
    ['sealed', timeText(claims.iat, now)],
    ['expires', timeText(claims.exp, now)],
  ])
  part('Keys', [
    ['data key', `wrapped in ${recipient.wrapped.length} bytes, by KEK ${kekText(recipient.kekId)}`],
    ['commitment', hex(body.commitment)],
    [
      'proof',
      receipt === undefined
        ? 'of this event alone'
        : `event ${receipt.leafIndex + 1} of a batch of ${receipt.treeSize}: one signature, a path of ${receipt.path.length / BYTES_PER_PATH_HASH} hashes`,
    ],
  ])
  part('Covered', [
    ['signature', 'issuer, audience, times, all attributes, payload, wrapped key, and the place'],
    ['not covered', 'headers but the hints (which must agree), offset, timestamp'],
  ])
  const sizes = sizesOf(inspection, { body, proof })
  part(
    'Bytes',
    Object.entries(sizes).map(([name, size]) => [name, size.toLocaleString('en-GB').padStart(9)]),
  )
}

function placeText({ record, stored }: Inspection): string {
  if (record === undefined) return ''
  const place = `topic ${record.topic}, partition ${record.partition}`
  return stored === undefined
    ? place
    : `${place}, offset ${stored.offset}, ${isoTime(stored.timestamp)} (${stored.timestampType})`
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const integer = (value: bigint): number | string =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value)

/** Names are text mostly; where they are not, in hexadecimal. */
function kekText(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString()
  return Buffer.from(text).equals(bytes) ? text : `0x${hex(bytes)}`
}

const keyText = (key: Uint8Array | null): string | null => key && kekText(key)

const headerText = ({ name, value }: Header): string =>
  `${name}: ${value === null ? '(null)' : kekText(value.subarray(0, 200))}`

/** Seconds since 1970, as a time and how far from now. */
function timeText(seconds: bigint, now: number): string {
  const milliseconds = Number(seconds) * 1000
  if (milliseconds > LATEST_MS) return `${seconds} s after 1970: never`
  const away = Math.round((milliseconds - now) / 1000)
  return `${new Date(milliseconds).toISOString().replace('.000Z', 'Z')} (${away < 0 ? `${spanText(-away)} ago` : `in ${spanText(away)}`})`
}

function spanText(seconds: number): string {
  for (const [unit, size] of UNITS) {
    const amount = Math.floor(seconds / size)
    if (amount >= 2) return `${amount} ${unit}s`
  }
  return `${seconds} second${seconds === 1 ? '' : 's'}`
}

const UNITS = [
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
] as const
