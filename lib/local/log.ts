/**
 * The embedded log: a small stand-in for Kafka on one machine, with the promises the gate needs of it (exactly-once.md):
 * partitioned append-only topics, transactions with fencing, group offsets that commit with them, all on disk.
 *
 * `openLog` (log-open.ts) owns a log's folder; `connectLog` (log-client.ts) reaches the same log from another process.
 * Both give this interface. Errors: `Outage('sink-denied')` for a topic or partition that is not there,
 * `Outage('sink-unavailable')` for what the log does not take (with nothing moved) or a log that is closed or broken,
 * `ConfigError` for bad names and settings.
 */
import type { Message, SourceRecord, TopicPartition } from '../ports.ts'

/** What Kafka allows in one record batch by default, less a margin: the bound of a transaction for one topic-partition (`batchBytes`). */
export const MAX_BATCH_BYTES = 900_000

/** A topic's `max.message.bytes` where its settings name none: 1 MiB + 128 KiB. */
export const DEFAULT_MAX_MESSAGE_BYTES: number = 1_179_648

/** Longest metadata of a group offset, in bytes. */
export const MAX_METADATA_BYTES = 32_768

export type TimestampType = SourceRecord['timestampType']

export interface TopicSettings {
  /** Who sets a record's timestamp: the log (default) or its producer. */
  readonly timestampType?: TimestampType
  /** The largest single message (`batchBytes`); at least `MAX_BATCH_BYTES`, at most 8 MiB. */
  readonly maxMessageBytes?: number
}

export interface Topic extends Required<TopicSettings> {
  readonly name: string
  readonly partitions: number
}

/** A message of a producer. `timestamp` (milliseconds since 1970, default now) counts only on a `CreateTime` topic. */
export interface NewMessage extends Message {
  readonly timestamp?: number
}

/** Where a record is, or where reading would go on. */
export interface Place extends TopicPartition {
  readonly offset: bigint
}

/** How far a group has come in a topic-partition, with opaque bytes beside it. */
export interface GroupOffset extends TopicPartition {
  readonly group: string
  /** The first offset not yet done. */
  readonly next: bigint
  /** At most `MAX_METADATA_BYTES`; replaced with every commit, as Kafka does. */
  readonly metadata: Uint8Array
}

export interface ReadLimits {
  /** Bound of the records' `batchBytes` together; a single larger record is still given. Default 1 MiB. */
  readonly maxBytes?: number
  /** Default 10,000. */
  readonly maxRecords?: number
}

export interface ReadResult {
  /** Committed records only, by rising offset; offsets have gaps where control records stand. */
  readonly records: readonly SourceRecord[]
  /** Where to read on: beyond the last record, and beyond control records that follow it. */
  readonly next: bigint
  /** The offset that the next committed record will at least have. */
  readonly end: bigint
}

export interface Log {
  /**
   * Makes a topic. Resolves to false where it is there already with the same partitions and settings;
   * with others: `ConfigError`. Names as in Kafka: 1 to 249 of `a-z A-Z 0-9 . _ -`. 1 to 1,024 partitions.
   */
  createTopic(name: string, partitions: number, settings?: TopicSettings): Promise<boolean>
  /** All topics, by name. */
  topics(): Promise<readonly Topic[]>
  /** Appends outside any transaction: durable and visible, all or none, when it resolves. One place for each message, in order. */
  append(messages: readonly NewMessage[]): Promise<readonly Place[]>
  /**
   * Takes a transactional id over: whoever held it gets `Outage('fenced')` from now on, its open transaction is aborted,
   * and its commit already under way has ended, so that what is read after this is the truth.
   */
  begin(transactionalId: string): Promise<TransactionalProducer>
  /** Reads from `from` on. Beyond the end is `Outage('sink-unavailable')`: the log is not the one that the offset came from. */
  read(topic: string, partition: number, from: bigint, limits?: ReadLimits): Promise<ReadResult>
  /** Waits until reading on from one of these places would get further: true; or until the deadline (ms since 1970): false. */
  waitForData(places: readonly Place[], deadline: number): Promise<boolean>
  /** The end of each partition, in order: the offset that its next record will at least have. Every partition begins at 0. */
  endOffsets(topic: string): Promise<readonly bigint[]>
  /** Commits group offsets outside any transaction, all or none. */
  commitGroup(offsets: readonly GroupOffset[]): Promise<void>
  /** What the group committed last for this topic-partition. */
  groupOffset(group: string, topic: string, partition: number): Promise<GroupOffset | undefined>
  /** Waits for what is under way. An owner then releases the folder; a client's open transactions are aborted. */
  close(): Promise<void>
}

/** The holder of a transactional id: one transaction after the other, none of them visible before its commit. */
export interface TransactionalProducer {
  /** Adds to the open transaction, beginning one where none is. The bytes must not be changed before the commit has ended. */
  append(messages: readonly Message[]): Promise<void>
  /** Makes the transaction's messages and these group offsets durable and visible together. On rejection the transaction is gone. */
  commit(offsets: readonly GroupOffset[]): Promise<void>
  /** Ends the open transaction with nothing of it ever visible. */
  abort(): Promise<void>
}
