/**
 * What an insider with access to the brokers' disks may do to the audit, done to a copy of it as it is read: the log
 * itself stays as it is. Verification has to find each, and to name it.
 */
import type { Topics } from '../cli/world.ts'
import { closeSegment, parseSegment } from '../lib/audit/segment.ts'
import {
  type AuditBreak,
  type AuditRecord,
  type AuditSource,
  type VerificationReport,
  verifyAudit,
} from '../lib/audit/verification.ts'
import { generateKeyPair, type PublicKey } from '../lib/envelope/crypto.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { auditSource } from '../lib/local/audit-source.ts'
import { localSigner } from '../lib/keys/signer.ts'
import type { TopicPartition } from '../lib/ports.ts'
import type { EntryPlace, Ledger, Tail } from './ledger.ts'

/** One way of tampering, and what verification said. */
export interface Tampering {
  readonly name: string
  /** What was done, where. */
  readonly did: string
  readonly found: readonly AuditBreak[]
  /** Whether what was found is what was done, at its place. */
  readonly isNamed: boolean
}

/** An audit topic and the keys pinned for it. */
export interface OpenAudit {
  /** For one verification. */
  readonly source: () => AuditSource
  readonly keyOf: (kid: Uint8Array) => PublicKey | undefined
}

const READ_MS = 30_000

/** The audit, with the heads in the positions and the gate's own keys, out of the signed directory. */
export async function openAudit({
  clock,
  records,
  positions,
  sources,
  ...topics
}: Topics): Promise<OpenAudit> {
  const places: TopicPartition[] = []
  for (const topic of sources) {
    const count = await records.partitions(topic)
    places.push(...Array.from({ length: count }, (_, partition) => ({ topic, partition })))
  }
  const keys = await topics.gateKeys()
  return {
    source: () =>
      auditSource(records, topics.auditTopic, {
        positions,
        sources: places,
        auditTopic: topics.auditTopic,
        deadline: clock.now() + READ_MS,
      }),
    keyOf: (kid) => keys.get(Buffer.from(kid).toString('base64url')),
  }
}

export function verifyWhole({ source, keyOf }: OpenAudit): Promise<VerificationReport> {
  return verifyAudit(source(), { keyOf })
}

/** Tampers in every way that this audit has matter for. */
export async function tamper(audit: OpenAudit, ledger: Ledger): Promise<readonly Tampering[]> {
  const done: Tampering[] = []
  for (const { name, did, change, isIt } of plansFor(ledger)) {
    const sound = audit.source()
    const heads = await sound.heads?.()
    const tampered: AuditSource = {
      partitions: () => sound.partitions(),
      read: (partition) => change(sound.read(partition), partition),
      heads: () => Promise.resolve(heads),
    }
    const { verified, breaks } = await verifyAudit(tampered, { keyOf: audit.keyOf })
    done.push({ name, did, found: breaks, isNamed: !verified && breaks.some(isIt) })
  }
  return done
}

type Change = (records: AsyncIterable<AuditRecord>, auditPartition: number) => AsyncIterable<AuditRecord>

interface Plan {
  readonly name: string
  readonly did: string
  readonly change: Change
  readonly isIt: (found: AuditBreak) => boolean
}

function plansFor({ refusal, neighbours, tails }: Ledger): Plan[] {
  const plans: Plan[] = []
  if (refusal !== undefined) {
    const { record } = refusal
    plans.push({
      name: 'an entry rewritten',
      did: `the refusal of ${record} is made to read as a success`,
      change: replacing(refusal, (audited) => [{ ...audited, value: praised(audited.value) }]),
      isIt: (found) => found.kind === 'altered' && covers(found, record),
    })
    plans.push({
      name: 'an entry removed',
      did: `the refusal of ${record} is taken out`,
      change: replacing(refusal, () => []),
      isIt: (found) => found.kind === 'missing' && covers(found, record),
    })
  }
  if (neighbours !== undefined) {
    const [first, second] = neighbours
    plans.push({
      name: 'two entries swapped',
      did: `those of ${first.record} and of the record after it`,
      change: swapping(first, second),
      isIt: (found) =>
        found.kind === 'reordered' && (covers(found, first.record) || covers(found, second.record)),
    })
  }
  const tail = tails.toSorted((a, b) => b.entries - a.entries)[0]
  if (tail !== undefined) {
    const { source, entries } = tail
    plans.push({
      name: 'the end cut off',
      did: `the last segment of ${source} goes, with its ${entries} ${entries === 1 ? 'entry' : 'entries'}`,
      change: cutting(tail),
      isIt: (found) => found.kind === 'cut at the end' && nameOf(found) === source,
    })
    plans.push({
      name: 'a segment forged',
      did: `the last segment of ${source} is signed anew, with a key of the insider's`,
      change: replacing(tail, async (audited) => [{ ...audited, value: await forged(audited.value) }]),
      isIt: (found) => found.kind === 'signed by an unknown key' && nameOf(found) === source,
    })
  }
  return plans
}

const nameOf = ({ topic, partition }: AuditBreak): string => `${topic ?? ''}/${partition ?? ''}`

/** Whether a break lies over the record `topic/partition/offset`. */
function covers(found: AuditBreak, record: string): boolean {
  const offset = BigInt(record.slice(record.lastIndexOf('/') + 1))
  if (!record.startsWith(`${nameOf(found)}/`) || found.from === null || found.next === null) return false
  return found.from <= offset && offset < found.next
}

function replacing(
  place: { readonly auditPartition: number; readonly auditOffset: bigint },
  by: (record: AuditRecord) => readonly AuditRecord[] | Promise<readonly AuditRecord[]>,
): Change {
  return async function* (records, auditPartition) {
    for await (const record of records) {
      if (auditPartition === place.auditPartition && record.offset === place.auditOffset)
        yield* await by(record)
      else yield record
    }
  }
}

/** Each stands at the other's offset; they follow each other. */
function swapping(first: EntryPlace, second: EntryPlace): Change {
  return async function* (records, auditPartition) {
    let held: AuditRecord | undefined
    for await (const record of records) {
      if (auditPartition === first.auditPartition && record.offset === first.auditOffset) held = record
      else if (held !== undefined && record.offset === second.auditOffset) {
        yield { ...record, offset: held.offset }
        yield { ...held, offset: record.offset }
      } else yield record
    }
  }
}

function cutting({ source, auditPartition: home, auditOffset, from }: Tail): Change {
  return async function* (records, auditPartition) {
    for await (const record of records) {
      const key = Buffer.from(record.key ?? []).toString()
      const isLate = key.startsWith(`${source}/`) && BigInt(key.slice(source.length + 1)) >= from
      const isSegment = record.offset === auditOffset
      if (auditPartition !== home || !(isLate || isSegment)) yield record
    }
  }
}

/** The entry of a refusal, as its author would rather have it. */
function praised(value: Uint8Array | null): Buffer {
  return Buffer.from(
    Buffer.from(value ?? [])
      .toString()
      .replace('"result":"failure"', '"result":"success"'),
  )
}

/** The segment as whoever has no key of the gate's can make it. */
async function forged(value: Uint8Array | null): Promise<Uint8Array> {
  const segment = value === null ? undefined : parseSegment(value)
  if (segment === undefined) throw new TypeError('there is no segment to be forged')
  const { sequence, previous, deployment, topic, partition, from, next, time } = segment
  const { bundle, directory, software, epoch, unseen } = segment
  const fields = {
    deployment,
    topic,
    partition,
    from,
    next,
    time,
    bundle,
    directory,
    software,
    epoch,
    unseen,
  }
  const signer = localSigner(generateKeyPair(ED25519).privateKey)
  const head = { sequence: sequence - 1, hash: previous }
  return (await closeSegment({ ...fields, head, entries: [] }, signer, Infinity)).value
}
