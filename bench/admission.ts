/** Admission, steps 1 to 11, on one core, beside its floor and beside the peers that do the equal job. */
import { createDecipheriv, createSecretKey, hash, verify } from 'node:crypto'
import { readJson } from '../lib/contract/json.ts'
import { encodeStatement, encStructure, sigStructure } from '../lib/envelope/binding.ts'
import { parse } from '../lib/envelope/format.ts'
import { leafHash, treeRoot } from '../lib/envelope/merkle.ts'
import { ED25519, ESP256, type SignatureSuite } from '../lib/envelope/suite.ts'
import type { SourceRecord } from '../lib/ports.ts'
import {
  type Arm,
  measure,
  type Peer,
  type Result,
  rounded,
  type Setting,
  type Spread,
  spreadText,
  type Table,
  type Timings,
} from './measure.ts'
import { admitSlice, makeWorld, newState, placeOf, sealSlices, SLICE, type World } from './world.ts'

/** One kind of record: how it is signed, and how long its payload is. */
interface Case {
  readonly name: string
  readonly suite: SignatureSuite
  readonly perSignature: number
  readonly bytes: number
}

const KIB = 1024
const BATCH: Case = { name: 'batch', suite: ED25519, perSignature: SLICE, bytes: KIB }
const SINGLE: Case = { name: 'single', suite: ED25519, perSignature: 1, bytes: KIB }
const MORE: readonly Case[] = [
  { name: 'single P-256', suite: ESP256, perSignature: 1, bytes: KIB },
  { name: 'batch 200 B', suite: ED25519, perSignature: SLICE, bytes: 200 },
  { name: 'batch 10 KiB', suite: ED25519, perSignature: SLICE, bytes: 10 * KIB },
  { name: 'single 200 B', suite: ED25519, perSignature: 1, bytes: 200 },
  { name: 'single 10 KiB', suite: ED25519, perSignature: 1, bytes: 10 * KIB },
]

export interface AdmissionRow {
  readonly case: string
  readonly eventsPerSecond: number
  /** Time of admission over time of its floor. */
  readonly floorRatio: number
  /** Our events per second over the peer's. */
  readonly peers: Readonly<Record<string, number>>
  readonly microseconds: Spread
  readonly floorMicroseconds: Spread
  readonly floorSpread: Spread
  readonly peerSpreads: Readonly<Record<string, Spread>>
}

export async function admission({ peers: load, effort, quick }: Setting): Promise<Result> {
  const main = [await admittedCase(BATCH), await admittedCase(SINGLE)]
  const floors: Timings[] = []
  // Each with its floor alone, and before the peers are loaded: what they leave on the heap is not ours.
  for (const one of main) floors.push(await measure([one.admission, one.floor], effort))
  const peers = await load()
  const arms = [...main.map((one) => one.admission), ...peers.map((peer) => peer.opening)]
  const beside = peers.length > 0 ? await measure(arms, effort) : undefined
  const rows = main.flatMap((one, at) => {
    const timings = floors[at]
    return timings === undefined ? [] : [rowOf(one.name, timings, beside, peers)]
  })
  const more: AdmissionRow[] = []
  for (const other of quick ? [] : MORE) {
    const one = await admittedCase(other)
    more.push(rowOf(one.name, await measure([one.admission, one.floor], effort), undefined, []))
  }
  return { table: tableOf([...rows, ...more], peers), data: { rows, more } }
}

function tableOf(rows: readonly AdmissionRow[], peers: readonly Peer[]): Table {
  const heads = ['case', 'events/s', 'µs', 'floor, µs', '× its floor']
  const cells = rows.map((row) => [
    row.case,
    String(row.eventsPerSecond),
    row.microseconds.median.toFixed(1),
    row.floorMicroseconds.median.toFixed(1),
    spreadText(row.floorSpread),
    ...peers.map(({ name }) =>
      row.peerSpreads[name] === undefined ? '' : spreadText(row.peerSpreads[name], 1),
    ),
  ])
  return [[...heads, ...peers.map(({ name }) => `× ${name}`)], ...cells]
}

function rowOf(
  name: string,
  timings: Timings,
  beside: Timings | undefined,
  peers: readonly Peer[],
): AdmissionRow {
  const peerSpreads = Object.fromEntries(
    beside === undefined ? [] : peers.map((peer) => [peer.name, beside.ratio(peer.name, name)]),
  )
  const floorSpread = timings.ratio(name, `${name} floor`)
  return {
    case: name,
    eventsPerSecond: Math.round(timings.eventsPerSecond(name).median),
    floorRatio: rounded(floorSpread.median),
    peers: Object.fromEntries(
      Object.entries(peerSpreads).map(([peer, { median }]) => [peer, rounded(median)]),
    ),
    microseconds: timings.microseconds(name),
    floorMicroseconds: timings.microseconds(`${name} floor`),
    floorSpread,
    peerSpreads,
  }
}

/** Slices of a case, and where they were made. */
export async function sealedCase(
  one: Pick<Case, 'suite' | 'perSignature' | 'bytes'>,
): Promise<{ world: World; slices: SourceRecord[][] }> {
  const world = await makeWorld(one.suite)
  // A batch is met once in a pass, so that its signature is verified and not remembered.
  const slices = await sealSlices(world, 4 * SLICE, one.perSignature, one.bytes)
  return { world, slices }
}

interface AdmittedCase {
  readonly name: string
  readonly admission: Arm
  readonly floor: Arm
}

async function admittedCase(one: Case): Promise<AdmittedCase> {
  const { name } = one
  const { world, slices } = await sealedCase(one)
  return {
    name,
    admission: admissionArm(name, world, slices),
    floor: floorArm(`${name} floor`, world, slices),
  }
}

/** A slice with each run; after the last a new partition, which remembers nothing. */
export function admissionArm(name: string, world: World, slices: readonly SourceRecord[][]): Arm {
  let gate = world.gate()
  let state = newState()
  let next = 0
  return {
    name,
    events: SLICE,
    run: () => {
      if (next === slices.length) {
        gate = world.gate()
        state = newState()
        next = 0
      }
      return admitSlice(slices[next++] ?? [], gate, state)
    },
  }
}

/** What is left of a record for the floor: every byte string that it needs, made beforehand. */
interface Bare {
  readonly body: Uint8Array
  /** 00 ‖ statement, in a batch only. */
  readonly leaf: Uint8Array | undefined
  /** What is signed, in the one record of a batch that pays for it or in each single one. */
  readonly signed: Uint8Array | undefined
  readonly signature: Uint8Array
  readonly nonce: Uint8Array
  readonly aad: Uint8Array
  readonly ciphertext: Uint8Array
  readonly tag: Uint8Array
}

/**
 * The floor: SHA-256 of the body, in a batch the leaf's hash, the signature's verification (in a batch one for 128),
 * AES-256-GCM with its AAD, and `readJson`: the bytes' text, JSON.parse, and the scan for duplicate names. No parsing,
 * no looking up, no path of the tree, no commitment, no replay window, no schema.
 */
export function floorArm(name: string, world: World, slices: readonly SourceRecord[][]): Arm {
  const bare = slices.map(bareSlice)
  const { handle, suite } = world.publicKey
  const secret = createSecretKey(world.secret)
  let next = 0
  return {
    name,
    events: SLICE,
    run: () => {
      for (const record of bare[next++ % bare.length] ?? []) {
        hash('sha256', record.body)
        if (record.leaf !== undefined) hash('sha256', record.leaf)
        if (record.signed !== undefined && !verify(suite.hash, record.signed, handle, record.signature))
          throw new TypeError('the floor verifies something else')
        const decipher = createDecipheriv('aes-256-gcm', secret, record.nonce, { authTagLength: 16 })
        decipher.setAAD(record.aad)
        decipher.setAuthTag(record.tag)
        const plaintext = decipher.update(record.ciphertext)
        decipher.final()
        readJson(plaintext)
      }
    },
  }
}

function bareSlice(slice: readonly SourceRecord[]): Bare[] {
  const records = slice.map((record) => {
    const { body, proof } = parse(record.value, 1_048_576)
    const place = placeOf(Number(record.offset))
    return { body, proof, place, statement: encodeStatement(place, body.bytes) }
  })
  const root = treeRoot(records.map(({ statement }) => leafHash(statement)))
  return records.map(({ body, proof, place, statement }, at) => {
    const batch = proof.receipt !== undefined
    const said = batch ? (at === 0 ? root : undefined) : statement
    return {
      body: body.bytes,
      leaf: batch ? Buffer.concat([Buffer.of(0), statement]) : undefined,
      signed: said === undefined ? undefined : sigStructure(proof.protected, said),
      signature: proof.signature,
      nonce: body.nonce,
      aad: encStructure(body.protected, place),
      ciphertext: body.ciphertext.subarray(0, -16),
      tag: body.ciphertext.subarray(-16),
    }
  })
}
