/** A quarantined record taken apart again: the record that was refused, and what the gate's added headers say of it. */
import type { RecordPlace } from '../audit/entry.ts'
import type { Header, SourceRecord } from '../ports.ts'
import { QUARANTINE_HEADERS } from './route.ts'

/** Anybody who may write to the topic may have written all of this: what is true of it, the audit proves. */
export interface Quarantined {
  /** Where it stands in quarantine. */
  readonly quarantine: RecordPlace
  /** Where it first came in. */
  readonly source: RecordPlace
  readonly code: string
  /** As its broker had it, milliseconds since 1970. */
  readonly timestamp: number
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  /** Its own, without those that were added. */
  readonly headers: readonly Header[]
  /** Whether all of it was kept: a record too long for the topic was not. */
  readonly isWhole: boolean
}

const { code, topic, partition, offset, timestamp, omitted } = QUARANTINE_HEADERS
const ADDED = [code, topic, partition, offset, timestamp]
const TOPIC = /^[a-zA-Z0-9._-]{1,249}$/
const NUMBER = /^(0|[1-9][0-9]{0,18})$/
/** Where the broker does not set it, a producer may: before 1970, too, or that there is none, −1. */
const TIME = /^(0|-?[1-9][0-9]{0,18})$/
const MAX_PARTITION = 2 ** 31 - 1

/** Undefined for what the gate does not write. */
export function parseQuarantined(record: SourceRecord): Quarantined | undefined {
  const isWhole = record.headers.at(-1)?.name !== omitted
  const end = record.headers.length - (isWhole ? 0 : 1)
  const own = record.headers.slice(0, Math.max(0, end - ADDED.length))
  const added = record.headers.slice(own.length, end)
  if (added.length !== ADDED.length || ADDED.some((name, index) => added[index]?.name !== name))
    return undefined
  const [codeText = '', topicText = '', partitionText = '', offsetText = '', timeText = ''] = added.map(
    ({ value }) => (value === null || value.length > 249 ? '' : Buffer.from(value).toString('latin1')),
  )
  if (!TOPIC.test(topicText) || !NUMBER.test(partitionText) || !NUMBER.test(offsetText)) return undefined
  if (!TIME.test(timeText)) return undefined
  if (Number(partitionText) > MAX_PARTITION) return undefined
  const { key, value } = record
  return {
    quarantine: { topic: record.topic, partition: record.partition, offset: record.offset },
    source: { topic: topicText, partition: Number(partitionText), offset: BigInt(offsetText) },
    ...{ code: codeText, timestamp: Number(timeText), key, value, headers: own, isWhole },
  }
}
