/**
 * The few questions we ask the world (design: architecture.md §3). Each port has an embedded implementation in
 * `lib/local` and real ones in `lib/adapters`, held to one contract suite each (test/contract-suites).
 *
 * Every call takes its `deadline`: milliseconds since 1970 by the same clock as `Clock.now`. A call that has not
 * ended by then rejects with `Outage`. Adapters translate their vendor's errors at once and keep the `cause`.
 */

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
}

export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/** A Kafka record header; a header's value may be null. Names may repeat. */
export interface Header {
  readonly name: string
  readonly value: Uint8Array | null
}

/** A record to be written, its partition always chosen by us. */
export interface Message extends TopicPartition {
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** A record as it was read from a source topic. */
export interface SourceRecord extends TopicPartition {
  readonly offset: bigint
  /** Milliseconds since 1970. */
  readonly timestamp: number
  /** Whether the broker set `timestamp` (`LogAppendTime`) or the producer (`CreateTime`). */
  readonly timestampType: 'LogAppendTime' | 'CreateTime'
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** A key-encryption key, as the key directory names it (keys.md §1). `key` is the provider's own name, e.g. an ARN. */
export interface Kek {
  readonly kekId: string
  readonly provider: string
  readonly key: string
}

/** Authenticated with the wrapped key by the key service (KMS encryption context). */
export type EncryptionContext = Readonly<Record<string, string>>

export interface KeyService {
  /** A fresh 256-bit data key, in clear and wrapped. Every failure is an `Outage`. */
  generate(
    kek: Kek,
    context: EncryptionContext,
    deadline: number,
  ): Promise<{ dataKey: Uint8Array; wrapped: Uint8Array }>
  /**
   * The data key in `wrapped`. Rejects with `Rejection('undecryptable')` on the service's definite no
   * (KMS: InvalidCiphertextException, IncorrectKeyException), with `Outage` on everything else.
   */
  unwrap(kek: Kek, wrapped: Uint8Array, context: EncryptionContext, deadline: number): Promise<Uint8Array>
}

/** A private signing key somewhere: in this process, or in a key service. */
export interface Signer {
  /** 1 to 64 bytes, as on the wire. */
  readonly kid: Uint8Array
  /** COSE algorithm: −19 (Ed25519) or −9 (ESP256). */
  readonly alg: number
  /** 64 bytes. */
  sign(bytes: Uint8Array, deadline: number): Promise<Uint8Array>
  /**
   * Of a key that is replaced from time to time: the signer to use for the next piece of work, and for all of it, since
   * its kid is signed too. Rejects with `Outage('signer-unavailable')`. Undefined: this one, always.
   */
  readonly current?: (deadline: number) => Promise<Signer>
}

/** A document kept somewhere else: key directory, contract bundle. */
export interface DocumentSource {
  /** The document, or 'unchanged' where its etag is still `etag`. */
  read(
    etag: string | undefined,
    deadline: number,
  ): Promise<{ readonly bytes: Uint8Array; readonly etag: string } | 'unchanged'>
}

/** A document that we may replace. */
export interface DocumentStore extends DocumentSource {
  /** What is there now; undefined is a definite answer. */
  find(deadline: number): Promise<{ readonly bytes: Uint8Array; readonly etag: string } | undefined>
  /**
   * Writes it where it is still the one of `etag`; undefined: where there is none. Resolves to 'changed', with nothing
   * written, where another was first. After a rejection nobody knows which of the two is there.
   */
  write(bytes: Uint8Array, etag: string | undefined, deadline: number): Promise<'written' | 'changed'>
}

export interface SecretStore {
  /** The current version of a secret. */
  read(name: string, deadline: number): Promise<{ readonly value: Uint8Array; readonly version: string }>
}

/** Where a version of a secret stands, by the names of AWS Secrets Manager. */
export type SecretStage = 'AWSCURRENT' | 'AWSPENDING' | 'AWSPREVIOUS'

export interface SecretVersion {
  readonly value: Uint8Array
  readonly version: string
  /** Milliseconds since 1970, by the store's clock. */
  readonly createdAt: number
}

/** Secrets as rotation needs them (keys.md §3). Every rejection is `Outage('secret-unavailable')`. */
export interface StagedSecrets extends SecretStore {
  /** The version of a stage; undefined where none has it, or where it has no value yet. */
  find(name: string, stage: SecretStage, deadline: number): Promise<SecretVersion | undefined>
  /**
   * Adds a version, whose id is `token`, under a stage. The same again changes nothing; 'taken', with nothing changed,
   * where there is another value of this id: of two who make one, one succeeds.
   */
  stage(
    name: string,
    value: Uint8Array,
    stage: 'AWSCURRENT' | 'AWSPENDING',
    token: string,
    deadline: number,
  ): Promise<'staged' | 'taken'>
  /** Makes a version current where `from` still is, which becomes `AWSPREVIOUS`; 'changed', with nothing done, where it is not. */
  promote(name: string, version: string, from: string, deadline: number): Promise<'promoted' | 'changed'>
}

/** How far a source partition has come. To those above the sink `state` is opaque bytes. */
export interface Position {
  /** The first source offset not yet decided. */
  readonly next: bigint
  readonly state: Uint8Array
}

/** Topics as they are read: records of transactions that were committed, and no others. */
export interface RecordReader {
  partitions(topic: string): Promise<number>
  /** The first offset kept, and the one that the next committed record will at least have. */
  offsets(place: TopicPartition): Promise<{ readonly first: bigint; readonly end: bigint }>
  /** The end with what open transactions still hide: `end` comes to it when they have ended. */
  writtenEnd(place: TopicPartition): Promise<bigint>
  /** From an offset on, or from the first one kept; at least one record where there is one. `next` is where to read on. */
  fetch(
    place: TopicPartition,
    from: bigint,
    limits: { readonly maxBytes: number; readonly maxRecords: number },
  ): Promise<{ readonly records: readonly SourceRecord[]; readonly next: bigint; readonly end: bigint }>
}

/** Where verdicts go: one transaction per slice, with the source's position (exactly-once.md §1). */
export interface Sink {
  /** How many partitions a topic has. A topic that is not there: `Outage('sink-denied')`. */
  partitionsOf(topic: string, deadline: number): Promise<number>
  /**
   * Takes a source partition over: whoever held it before is fenced, its open transaction is ended, and only then
   * the position is read. No position is `Outage('position-missing')`, never a silent start.
   */
  open(source: TopicPartition, deadline: number): Promise<SinkSession>
}

export interface SinkSession {
  /** As of the last commit of this session, or as found when it was opened. */
  readonly position: Position
  /** A transaction may hold at most this many bytes for one topic-partition, unless one message alone is larger (`batchBytes`). */
  readonly maxBatchBytes: number
  /** The longest `position.state`. */
  readonly maxStateBytes: number
  /**
   * Messages and position together, or neither. Rejects with `Outage`: `fenced` where another holder has taken over.
   * After any rejection the outcome is unknown and the session is of no more use: `close` it and open anew.
   */
  commit(messages: readonly Message[], position: Position, deadline: number): Promise<void>
  close(): Promise<void>
}

/** First starts and repairs, by an operator and by name (exactly-once.md §1, §2). */
export interface PositionAdmin {
  /** Fails where there is a position already. */
  init(source: TopicPartition, position: Position, deadline: number): Promise<void>
  show(source: TopicPartition, deadline: number): Promise<Position | undefined>
  /** Takes a source partition over as `Sink.open` does, also where its position is missing or damaged. */
  repair(source: TopicPartition, deadline: number): Promise<RepairSession>
  /**
   * Writes a position again as it is, with its holder fenced, where it may expire for want of writing. Resolves to false
   * where there is no need; no position is `Outage('position-missing')`.
   */
  renew(source: TopicPartition, deadline: number): Promise<boolean>
}

export interface RepairSession extends Pick<SinkSession, 'maxStateBytes' | 'commit' | 'close'> {
  /** What is stored; 'damaged' where that cannot be read. */
  readonly found: Position | 'damaged' | undefined
}

const utf8Length = (text: string): number => {
  let length = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    length += unit < 0x80 ? 1 : unit < 0x800 ? 2 : unit >= 0xd800 && unit < 0xe000 ? 2 : 3
  }
  return length
}

/** Upper bound of what a message adds to a Kafka record batch, in bytes: fields, and varints at their longest for its sizes. */
export function batchBytes(message: Pick<Message, 'key' | 'value' | 'headers'>): number {
  let bytes = 30 + (message.key?.length ?? 0) + (message.value?.length ?? 0)
  for (const header of message.headers) bytes += 10 + utf8Length(header.name) + (header.value?.length ?? 0)
  return bytes
}
