/**
 * Pseudonyms (contracts.md): the same value in the same domain gives the same name, which nobody can turn back or make
 * without the domain's key. Keys are versioned; old ones stay, to join old data.
 */
import { encodeCbor } from '../cbor.ts'
import { hmac } from '../envelope/crypto.ts'
import { ConfigError, type Fault, Outage } from '../errors.ts'
import type { SecretStore } from '../ports.ts'

export interface Pseudonyms {
  /** `p<version>:` and base64url of HMAC-SHA-256(key, dCBOR [domain, value]). Throws `Outage` for a domain without a key. */
  pseudonym(domain: string, value: string): string
  readonly domains: readonly string[]
}

/** Where no contract makes any. */
export const NO_PSEUDONYMS: Pseudonyms = {
  domains: [],
  pseudonym: (domain) => {
    throw new TypeError(`no contract names the pseudonym domain ${domain}`)
  },
}

interface DomainKey {
  readonly version: number
  readonly key: Uint8Array
}

/**
 * Reads the pseudonym keys: a JSON secret `{ domain: { version: base64url of 32 bytes or more, … }, … }`, versions
 * counted from 1; the highest is in use. Throws `ConfigError` with every fault (no key is ever quoted), `Outage` where
 * the store does not answer.
 */
export async function loadPseudonyms(
  store: SecretStore,
  name: string,
  deadline: number,
): Promise<Pseudonyms> {
  const { value } = await store.read(name, deadline)
  const faults: Fault[] = []
  const keys = new Map<string, DomainKey>()
  for (const [domain, versions] of entriesOf(parseJson(value), name, faults)) {
    const all = entriesOf(versions, `${name}: ${domain}`, faults).map(([version, text]) =>
      domainKey(version, text, `${name}: ${domain}: ${version}`, faults),
    )
    const [newest] = all.flatMap((key) => key ?? []).sort((a, b) => b.version - a.version)
    if (newest !== undefined) keys.set(domain, newest)
    else faults.push({ where: `${name}: ${domain}`, what: 'has no usable key.', fix: 'Give it version "1".' })
  }
  if (faults.length > 0) throw new ConfigError(faults)
  return {
    domains: [...keys.keys()],
    pseudonym(domain, text) {
      const newest = keys.get(domain)
      if (newest === undefined)
        throw new Outage(
          'secret-unavailable',
          `no pseudonym key for the domain ${domain}: add one to ${name}`,
        )
      const code = hmac(newest.key, encodeCbor([domain, text])).toString('base64url')
      return `p${newest.version}:${code}`
    },
  }
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString())
  } catch {
    // A parser's message may quote what it read.
    return undefined
  }
}

function entriesOf(value: unknown, where: string, faults: Fault[]): [string, unknown][] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return Object.entries(value)
  faults.push({
    where,
    what: 'is no JSON object.',
    fix: 'Write {"domain":{"1":"<base64url of 32 random bytes>"}}.',
  })
  return []
}

function domainKey(version: string, text: unknown, where: string, faults: Fault[]): DomainKey | undefined {
  const key = typeof text === 'string' ? Buffer.from(text, 'base64url') : undefined
  if (
    /^[1-9][0-9]{0,8}$/.test(version) &&
    key !== undefined &&
    key.length >= 32 &&
    key.toString('base64url') === text
  )
    return { version: Number(version), key }
  faults.push({
    where,
    what: 'is no version with a key.',
    fix: 'Use a number from 1 up and base64url of at least 32 random bytes.',
  })
  return undefined
}
