/** The control chain's position as the gate's operators work with it: made again from the audit where it was lost. */
import {
  CONTROL_NAME,
  type ControlParts,
  controlPlaceOf,
  controlSegment,
  encodeControlState,
  firstControlPosition,
  parseControlState,
} from '../audit/control-chain.ts'
import { ConfigError, Outage } from '../errors.ts'
import { encodeMemory } from '../keys/directory-memory.ts'
import { currentSigner } from '../keys/signer.ts'
import type { Position, RepairSession } from '../ports.ts'
import { openChainEnds } from './chain-ends.ts'
import type { Restored, RestoreParts } from './restore.ts'
import type { IngestParts } from './slice.ts'

const CALL_MS = 30_000
const MEMORY_BYTES = 64

/** With the gate's own rights and key. */
export function controlPartsOf({ sink, clock, signer, settings }: IngestParts): ControlParts {
  const { deployment, epoch, software, outlet } = settings
  const parts = { sink, clock, deployment, epoch, software, auditTopic: outlet.auditTopic }
  return { ...parts, signer: () => Promise.resolve(signer) }
}

/**
 * The chain goes on after its last segment. What it remembered is lost but for the version that it told of last. Rejects with
 * `ConfigError` where the audit has none of it, with `Outage` where something does not answer.
 *
 * @param by who does it, for the audit
 * @param orFirst whether a chain that the audit has none of begins: under a raised epoch, its position is made like this
 */
export async function restoreControlPosition(
  by: string | null,
  { ingest, reader, positions }: RestoreParts,
  onProgress: (records: number) => void,
  orFirst = false,
): Promise<Restored> {
  const parts = controlPartsOf(ingest)
  const { clock, auditTopic, epoch } = parts
  const place = controlPlaceOf(auditTopic)
  const ends = await openChainEnds([CONTROL_NAME], { ingest, reader }, onProgress, clock.now() + CALL_MS)
  const seen = await positions.show(place, clock.now() + CALL_MS).catch(damaged)
  if (isGood(seen)) return { next: seen.next, lost: 0n, isNew: false }
  // What takes long before it is taken over; behind the fence only what has come since.
  await ends.read(place)
  const session = await positions.repair(place, clock.now() + CALL_MS)
  try {
    if (isGood(session.found)) return { next: session.found.next, lost: 0n, isNew: false }
    await ends.read(place)
    const last = ends.last(CONTROL_NAME)
    const home = ends.homeOf(CONTROL_NAME)
    if (last === undefined && orFirst) {
      await session.commit([], firstControlPosition(), clock.now() + CALL_MS)
      return { next: 0n, lost: 0n, isNew: true }
    }
    if (last === undefined || home === undefined) {
      const fix = 'Where nothing was ever told there, make a first position: sealgate position init.'
      throw new ConfigError([{ where: auditTopic, what: 'The audit holds no segment of _control.', fix }])
    }
    if (last.epoch > epoch) {
      const what = `Its last segment is of epoch ${last.epoch}, not ${epoch}.`
      throw new ConfigError([{ where: auditTopic, what, fix: 'Set that epoch.' }])
    }
    const deadline = clock.now() + CALL_MS
    const principal = by === null ? null : `User:${by}`
    const fact = { kind: 'position.restored', principal, resource: `position:${CONTROL_NAME}` } as const
    const facts = [{ ...fact, success: true, directory: last.directory }]
    const next = last.next + 1n
    const link = { head: last, from: last.next, next, home }
    const signer = await currentSigner(ingest.signer, deadline)
    const { head, messages } = await controlSegment(parts, facts, link, signer, deadline)
    const memory = encodeMemory({ version: last.directory, rows: undefined }, MEMORY_BYTES)
    await session.commit(messages, { next, state: encodeControlState({ head, home, memory }) }, deadline)
    return { next, lost: 0n, isNew: true }
  } finally {
    await session.close()
  }
}

type Found = RepairSession['found']

function damaged(error: unknown): 'damaged' {
  if (error instanceof Outage && error.code === 'position-damaged') return 'damaged'
  throw error
}

function isGood(found: Found): found is Position {
  if (found === undefined || found === 'damaged') return false
  try {
    parseControlState(found.state)
    return true
  } catch (error) {
    if (error instanceof Outage) return false
    throw error
  }
}
