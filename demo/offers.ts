/** Where the events come from that the demo seals, and who is to seal each of them. */
import { open, readFile } from 'node:fs/promises'
import { BadLine, type LineEvent, MAX_LINE_BYTES, readEvent, readLines } from '../cli/event-lines.ts'
import { createPublishers } from '../cli/publishers.ts'
import type { EventInput } from '../lib/client/event.ts'
import type { Contract, Contracts } from '../lib/contract/contract.ts'
import { isArray, isObject, readJson } from '../lib/contract/json.ts'
import { codeOf, ConfigError, type Fault } from '../lib/errors.ts'
import { shopEvents } from './shop.ts'

/** An event, its producer, and where it goes. */
export interface Offer {
  readonly iss: string
  readonly channel: string
  readonly event: EventInput
  /** The contract that lets `iss` publish it there; undefined where none does. */
  readonly contract: Contract | undefined
  /** Where it stands, for a fault of it. */
  readonly place: Pick<Fault, 'where' | 'line'>
}

/** An offer, or a line that holds none. */
export type Offered = Offer | { readonly fault: Fault }

/** All events of the demo where nobody names a number: 20,000 flights and the shop's. */
export const DEMO_EVENTS = 26_000
const FLIGHTS_SHARE = 20_000 / DEMO_EVENTS

/** The shop's events, mixed with the flights of the public data set. */
export async function* demoOffers(contracts: Contracts, count: number): AsyncGenerator<Offered> {
  const offerOf = offering(contracts)
  const flights = await readFlights()
  const shop = shopEvents()
  let landed = 0
  for (let index = 0; index < count; index++) {
    const flight = landed < (index + 1) * FLIGHTS_SHARE ? flights[landed] : undefined
    if (flight !== undefined) landed++
    yield offerOf(flight ?? shop.next().value, { where: `event ${index + 1}` })
  }
}

const NO_DEFAULTS = { type: undefined, source: undefined, key: undefined }

/** The events of lines of JSON. Faults name `path`; where nothing but blank lines is there, rejects with `ConfigError`. */
export async function* inputOffers(
  contracts: Contracts,
  path: string,
  input: AsyncIterable<Uint8Array>,
): AsyncGenerator<Offered> {
  const offerOf = offering(contracts)
  let isEmpty = true
  for await (const lines of readLines(input)) {
    for (const { number, bytes } of lines) {
      isEmpty = false
      try {
        if (bytes === undefined)
          throw new BadLine(`It is longer than ${MAX_LINE_BYTES} bytes.`, 'An event takes at most 1 MiB.')
        yield offerOf(readEvent(bytes, NO_DEFAULTS), { where: path, line: number })
      } catch (error) {
        if (!(error instanceof BadLine)) throw error
        yield { fault: { where: path, line: number, what: error.message, fix: error.fix } }
      }
    }
  }
  if (isEmpty)
    throw new ConfigError([{ where: path, what: 'It holds no event.', fix: 'Give a JSON object a line.' }])
}

/** Gives each event to the first publisher whose sources fit, or to the one whom the gate is to refuse. */
function offering(contracts: Contracts): (event: LineEvent, place: Offer['place']) => Offer {
  const addressOf = createPublishers(contracts, undefined)
  return (event, place) => {
    const { channel, iss, source } = addressOf(event.type, event.source)
    const contract = contracts.find(channel, event.type)
    const isTheirs = contract?.publish.get(iss)?.has(source) === true
    return { iss, channel, event: { ...event, source }, contract: isTheirs ? contract : undefined, place }
  }
}

/** The bytes of a file, or of standard input for `-`. Rejects with `ConfigError` where it cannot be read. */
export async function openInput(path: string): Promise<AsyncIterable<Uint8Array>> {
  if (path === '-') return process.stdin
  let what = 'It is a folder.'
  try {
    const file = await open(path)
    if (!(await file.stat()).isDirectory()) return file.createReadStream()
    await file.close()
  } catch (error) {
    what = `It cannot be read (${codeOf(error)}).`
  }
  throw new ConfigError([{ where: path, what, fix: 'Name a file of events, a JSON object a line, or -.' }])
}

async function readFlights(): Promise<EventInput[]> {
  const url = new URL('../data/flights-20k.json', import.meta.resolve('vega-datasets'))
  const { value } = readJson(await readFile(url))
  if (!isArray(value)) throw new TypeError('vega-datasets holds other flights than expected')
  return value.map((row, index) => ({
    id: `flight-${index + 1}`,
    source: '/airfield',
    type: 'com.example.flight.landed.v1',
    key: isObject(row) && typeof row['destination'] === 'string' ? row['destination'] : null,
    dataBytes: Buffer.from(JSON.stringify(row)),
  }))
}
