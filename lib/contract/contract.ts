/**
 * What may happen to an event type on a channel (design: contracts.md). A `Contract` is looked up by (channel, type);
 * what is not in one is denied. Contracts are made by `load.ts` from files, or by `bundle.ts` from a built bundle.
 */
import type { JsonValue } from './json.ts'

/** How sensitive an event type is as a whole, from least to most. Not the same as classified fields. */
export const CLASSIFICATIONS = ['public', 'internal', 'confidential', 'restricted'] as const

export type Classification = (typeof CLASSIFICATIONS)[number]

export interface Contracts {
  /** SHA-256 of the bundle: every audit entry names the rules it was decided by. */
  readonly digest: Uint8Array
  readonly all: readonly Contract[]
  /** One map look-up, whatever the number of contracts. Both names are compared exactly. */
  find(channel: string, type: string): Contract | undefined
}

export interface Contract {
  readonly type: string
  /** The logical channel it arrives on. */
  readonly channel: string
  readonly description: string
  readonly owner: string
  readonly classification: Classification
  /** The issuers (`iss`) that may publish it, each with the CloudEvents sources it may speak for. */
  readonly publish: ReadonlyMap<string, ReadonlySet<string>>
  /** The longest payload, in bytes of plaintext. */
  readonly maxBytes: number
  /** Events per second of judging time, per issuer and partition. */
  readonly perSecond: number | undefined
  readonly routes: readonly Route[]
  readonly payload: PayloadSchema
}

/** One consumer's way out: what it may see, and where it goes. */
export interface Route {
  /** The consumer's name; also the `aud` of its sealed outputs. */
  readonly consumer: string
  readonly purpose: string
  /** The logical output channel. */
  readonly channel: string
  readonly form: 'sealed' | 'plain'
  /** JSON Pointer into the treated payload; without one the output's key is the input's. */
  readonly partitionBy: string | undefined
  /** `exp` − `iat` of sealed outputs, in seconds. */
  readonly lifeSeconds: number
  /** The pseudonym domains whose keys `treat` will ask for. */
  readonly domains: readonly string[]
  /** What the consumer gets, as JSON Schema 2020-12. */
  readonly derivedSchema: JsonValue
  /**
   * The treated payload's bytes; where every field passes, the payload's own.
   * @param payload bytes that `PayloadSchema.check` has accepted
   * @throws Rejection `schema-invalid` where the result is not what `derivedSchema` promises
   */
  treat(payload: Uint8Array, keys: PseudonymKeys): Uint8Array
  /** The output's record key: UTF-8 of the string at `partitionBy`, or the number's source text; null where it has none. */
  keyOf(treated: Uint8Array): Uint8Array | null
}

/** The keys of pseudonym domains, kept elsewhere and read before `treat` is called. */
export interface PseudonymKeys {
  /**
   * `p<key version>:` + base64url(HMAC-SHA-256(the domain's key, dCBOR [domain, value])). Throws `Outage` without a key.
   * An integer comes as its decimal text, so that it joins with the same number kept as a string.
   */
  pseudonym(domain: string, value: string): string
}

export interface PayloadSchema {
  /**
   * Step 11 of admission (sealed-event.md §5).
   * @throws Rejection `schema-invalid`; its text names places and rules of the schema, never a value of the payload
   */
  check(contentType: string, payload: Uint8Array): void
}
