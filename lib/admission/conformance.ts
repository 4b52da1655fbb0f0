/**
 * Runs conformance vectors through the whole of admission. Implementers in other languages use the same files
 * (vector-file.ts).
 */
import { Outage, Rejection } from '../errors.ts'
import { UNDECRYPTABLE } from '../envelope/seal.ts'
import { ProvenBatches } from '../envelope/verify.ts'
import { createDataKeys } from '../keys/data-keys.ts'
import type { EncryptionContext, Kek, KeyService } from '../ports.ts'
import { admit, type Gate, type Verdict } from './admit.ts'
import { ReplayState } from './replay.ts'
import { contentText, type Unwrap, type Vector, type VectorGroup, type World } from './vector-file.ts'

/** Where a vector's outcome differs from what its file expects. */
export interface Difference {
  /** `group/name`. */
  readonly vector: string
  readonly expected: string
  readonly got: string
}

export interface GroupResult {
  readonly group: string
  readonly passed: number
  readonly failed: number
  readonly differences: readonly Difference[]
}

/** What each vector comes to beside what its file expects. */
export async function runGroup({ group, vectors, world }: VectorGroup): Promise<GroupResult> {
  const differences: Difference[] = []
  const kept = stateOf(world)
  for (const vector of vectors) {
    const run = world.sequence ? kept : stateOf(world)
    const got = await outcomeOf(vector, world, run)
    const expected = vector.content === undefined ? vector.expect : `${vector.expect} ${vector.content}`
    if (got !== expected) differences.push({ vector: `${group}/${vector.name}`, expected, got })
  }
  return { group, passed: vectors.length - differences.length, failed: differences.length, differences }
}

const DEADLINE_MS = 10_000

interface RunState {
  readonly partitions: Map<string, ReplayState>
  readonly gate: Omit<Gate, 'now'>
}

function stateOf(world: World): RunState {
  const clock = { now: () => 0 }
  return {
    partitions: new Map(),
    gate: {
      audience: world.audience,
      maxValueBytes: world.maxValueBytes,
      directory: { snapshot: world.snapshot, fresh: true },
      contracts: world.contracts,
      dataKeys: createDataKeys({ keyService: tableService(world.table), clock }),
      pseudonyms: {
        pseudonym: () => {
          throw new Outage('secret-unavailable', 'vectors have no pseudonym keys')
        },
      },
      batches: new ProvenBatches(),
      channelOf: (topic) => world.channels.get(topic),
    },
  }
}

async function outcomeOf(vector: Vector, world: World, run: RunState): Promise<string> {
  const { topic, partition } = vector.record
  const limits = { maxSessions: world.maxSessions, newDataKeysPerMinute: Number.MAX_SAFE_INTEGER }
  const place = `${topic}/${partition}`
  const state = run.partitions.get(place) ?? new ReplayState(limits, Number.MAX_SAFE_INTEGER)
  run.partitions.set(place, state)
  try {
    const verdict = await admit(vector.record, { ...run.gate, now: () => vector.nowMs }, state, DEADLINE_MS)
    return verdict.admitted ? `admitted ${contentOf(verdict)}` : verdict.code
  } catch (error) {
    return error instanceof Outage ? 'outage' : `an exception: ${String(error)}`
  }
}

function contentOf(verdict: Verdict & { admitted: true }): string {
  const { claims } = verdict.event.body
  return contentText({
    plaintext: Buffer.from(verdict.payload).toString('hex'),
    iss: claims.iss,
    aud: claims.aud,
    iat: claims.iat,
    exp: claims.exp,
    session: Buffer.from(claims.session).toString('hex'),
    number: claims.number,
    ce: [...claims.ce],
  })
}

/** Answers by its table only; it does not ask whose KEK it is: the gate must. */
export function tableService(table: readonly Unwrap[]): KeyService {
  return {
    generate: () => Promise.reject(new Outage('key-service-denied', 'the table makes no data keys')),
    unwrap: (kek: Kek, wrapped: Uint8Array, context: EncryptionContext) => {
      const rows = table.filter((row) => row.wrapped === Buffer.from(wrapped).toString('hex'))
      if (rows.some((row) => row.dek === undefined))
        return Promise.reject(new Outage('key-service-unavailable', 'the table says: no answer'))
      const row = rows.find(
        (candidate) =>
          candidate.kekId === Buffer.from(kek.kekId, 'latin1').toString('hex') &&
          sameContext(candidate.context, context),
      )
      if (row?.dek === undefined) return Promise.reject(new Rejection('undecryptable', UNDECRYPTABLE))
      return Promise.resolve(Buffer.from(row.dek, 'hex'))
    },
  }
}

function sameContext(a: EncryptionContext, b: EncryptionContext): boolean {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name])
}
