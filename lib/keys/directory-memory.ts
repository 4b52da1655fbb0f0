/**
 * What the control chain remembers of a key directory (audit.md §1): enough of the last version that it has told of to say
 * what has changed since, though nobody told of it when it happened. In deterministic CBOR:
 * `[version, nil | [[[kid, state, notBefore, notAfter, compromisedAt | nil] …], [[kekId, [issuer …]] …]]]`.
 */
import { CborError, CborReader, type CborValue, encodeCbor, MAJOR } from '../cbor.ts'
import { KEY_STATES, type KeyState } from './directory.ts'
import type { DirectoryDocument, SigningKeyEntry } from './directory-document.ts'

/** What may happen to a key, as the audit names it. `granted` and `withdrawn` are said of a KEK: who may seal under it. */
export type KeyChangeKind =
  | 'key.enrolled'
  | 'key.activated'
  | 'key.suspended'
  | 'key.resumed'
  | 'key.retired'
  | 'key.revoked'
  | 'key.changed'
  | 'key.destroyed'
  | 'key.granted'
  | 'key.withdrawn'

export interface KeyChange {
  readonly kind: KeyChangeKind
  /** `key:KID` or `kek:KEKID`. */
  readonly resource: string
}

type KeyMemory = Pick<SigningKeyEntry, 'state' | 'notBefore' | 'notAfter' | 'compromisedAt'>

interface Rows {
  /** By kid in base64url. */
  readonly keys: ReadonlyMap<string, KeyMemory>
  /** Who may seal under each, by kekId. */
  readonly keks: ReadonlyMap<string, readonly string[]>
}

export interface DirectoryMemory {
  /** 0: nothing was told yet. */
  readonly version: number
  /** Undefined where there were too many to remember. */
  readonly rows: Rows | undefined
}

/** Before anything was told. */
export const NO_MEMORY: DirectoryMemory = { version: 0, rows: { keys: new Map(), keks: new Map() } }

export function memoryOf({ version, signingKeys, keks }: DirectoryDocument): DirectoryMemory {
  return {
    version,
    rows: {
      keys: new Map(signingKeys.map((entry) => [entry.kid, entry])),
      keks: new Map(keks.map(({ kekId, iss }) => [kekId, iss])),
    },
  }
}

/** What differs, in the order of the rows; undefined where the earlier rows are not known. */
export function changesOf(before: DirectoryMemory, after: DirectoryMemory): readonly KeyChange[] | undefined {
  if (before.rows === undefined || after.rows === undefined) return undefined
  const changes: KeyChange[] = []
  for (const kid of new Set([...before.rows.keys.keys(), ...after.rows.keys.keys()]))
    for (const kind of kindsOf(before.rows.keys.get(kid), after.rows.keys.get(kid)))
      changes.push({ kind, resource: `key:${kid}` })
  for (const kekId of new Set([...before.rows.keks.keys(), ...after.rows.keks.keys()])) {
    const [from, to] = [before.rows.keks.get(kekId) ?? [], after.rows.keks.get(kekId) ?? []]
    const resource = `kek:${kekId}`
    if (to.some((iss) => !from.includes(iss))) changes.push({ kind: 'key.granted', resource })
    if (from.some((iss) => !to.includes(iss))) changes.push({ kind: 'key.withdrawn', resource })
  }
  return changes
}

const STATE_KINDS: Readonly<Record<KeyState, KeyChangeKind>> = {
  'pre-activation': 'key.changed',
  active: 'key.activated',
  suspended: 'key.suspended',
  deactivated: 'key.retired',
  compromised: 'key.revoked',
}

function kindsOf(from: KeyMemory | undefined, to: KeyMemory | undefined): readonly KeyChangeKind[] {
  if (to === undefined) return from === undefined ? [] : ['key.destroyed']
  if (from === undefined) {
    const isNew = to.state === 'active' || to.state === 'pre-activation'
    return isNew ? ['key.enrolled'] : ['key.enrolled', STATE_KINDS[to.state]]
  }
  if (from.state !== to.state)
    return [from.state === 'suspended' && to.state === 'active' ? 'key.resumed' : STATE_KINDS[to.state]]
  if (from.compromisedAt !== to.compromisedAt) return ['key.revoked']
  return from.notBefore === to.notBefore && from.notAfter === to.notAfter ? [] : ['key.changed']
}

/** In at most so many bytes: where the rows need more, without them. */
export function encodeMemory({ version, rows }: DirectoryMemory, maxBytes: number): Uint8Array {
  const bytes = encodeCbor([version, rows === undefined ? null : valueOf(rows)])
  return bytes.length <= maxBytes ? bytes : encodeCbor([version, null])
}

const valueOf = ({ keys, keks }: Rows): CborValue => [
  Array.from(keys, ([kid, { state, notBefore, notAfter, compromisedAt }]) => [
    Buffer.from(kid, 'base64url'),
    ...[KEY_STATES.indexOf(state), notBefore, notAfter, compromisedAt],
  ]),
  Array.from(keks, ([kekId, issuers]) => [kekId, issuers]),
]

/** Reads what `encodeMemory` wrote; throws `CborError` for anything else. */
export function parseMemory(bytes: Uint8Array): DirectoryMemory {
  const reader = new CborReader(bytes)
  expectArray(reader, 2)
  const version = reader.count()
  let rows: Rows | undefined
  if (reader.major === MAJOR.array) rows = readRows(reader)
  else reader.nil()
  reader.end()
  return { version, rows }
}

function readRows(reader: CborReader): Rows {
  const keys = new Map<string, KeyMemory>()
  const keks = new Map<string, readonly string[]>()
  expectArray(reader, 2)
  for (let left = reader.array(); left > 0; left--) {
    expectArray(reader, 5)
    const kid = Buffer.from(reader.byteString()).toString('base64url')
    const state = KEY_STATES[reader.count()]
    if (state === undefined) throw new CborError('a state that is not known')
    const [notBefore, notAfter] = [reader.count(), reader.count()]
    keys.set(kid, { state, notBefore, notAfter, compromisedAt: reader.countOrNil() ?? null })
  }
  for (let left = reader.array(); left > 0; left--) {
    expectArray(reader, 2)
    const kekId = reader.text()
    const issuers: string[] = []
    for (let more = reader.array(); more > 0; more--) issuers.push(reader.text())
    keks.set(kekId, issuers)
  }
  return { keys, keks }
}

function expectArray(reader: CborReader, length: number): void {
  if (reader.array() !== length) throw new CborError('another shape')
}
