/**
 * The next version of a key directory (keys.md §1, §3): changes of one document, and what forbids them. It knows neither
 * files nor roots; who publishes it signs it (`sealDirectory`) and writes it where the version before still stands.
 */
import { exportPublicJwk, type PublicKey, thumbprint } from '../envelope/crypto.ts'
import { ConfigError, type Fault } from '../errors.ts'
import type { Kek } from '../ports.ts'
import type { KeyState } from './directory.ts'
import type { DirectoryDocument, KekEntry, SigningKeyEntry } from './directory-document.ts'

/** A signing key to be enrolled, whose owner has proved to have it (`provesPossession`). Times are seconds since 1970. */
export interface Enrolment {
  readonly iss: string
  readonly key: PublicKey
  /** `active` where its owner may sign with it as soon as every gate has this version. */
  readonly state: 'pre-activation' | 'active'
  readonly notBefore: number
  readonly notAfter: number
}

export interface Publication {
  /** Seconds since 1970. */
  readonly now: number
  /** How long the version counts, seconds. */
  readonly life: number
  /** Issuers that may be left without a key to sign with, or a KEK to seal under. */
  readonly leaving?: ReadonlySet<string>
  /** Whether the version before may have expired long ago; else this clock is taken to be wrong. */
  readonly lapsed?: boolean
}

/** An entry of the directory that was there before no longer, or one that is not there yet. */
type Change = { readonly to: KeyState | 'destroyed' } & Partial<SigningKeyEntry>

/** NIST SP 800-57 part 1, §7: what a key may become. `destroyed` is no entry at all. */
const NEXT: Readonly<Record<KeyState, readonly (KeyState | 'destroyed')[]>> = {
  'pre-activation': ['active', 'compromised', 'destroyed'],
  active: ['suspended', 'deactivated', 'compromised'],
  suspended: ['active', 'deactivated', 'compromised'],
  deactivated: ['compromised', 'destroyed'],
  compromised: ['compromised', 'destroyed'],
}

/** Collects changes, and what is wrong with them until it is asked for the next version. */
export class DirectoryDraft {
  readonly #before: DirectoryDocument
  readonly #signingKeys: Map<string, SigningKeyEntry>
  readonly #keks: Map<string, KekEntry>
  readonly #faults: Fault[] = []

  constructor(before: DirectoryDocument) {
    this.#before = before
    this.#signingKeys = new Map(before.signingKeys.map((entry) => [entry.kid, entry]))
    this.#keks = new Map(before.keks.map((entry) => [entry.kekId, entry]))
  }

  /** Adds a signing key by its RFC 7638 thumbprint, and gives that in base64url. */
  enrol({ iss, key, state, notBefore, notAfter }: Enrolment): string {
    const kid = thumbprint(key).toString('base64url')
    const known = this.#signingKeys.get(kid)
    if (known !== undefined)
      this.#fault(kid, `is enrolled already, for ${known.iss}`, 'Make a new key pair: none is used twice.')
    if (notAfter <= notBefore)
      this.#fault(kid, 'would never be valid', 'Let its notAfter lie after its notBefore.')
    const times = { notBefore, notAfter, compromisedAt: null }
    this.#signingKeys.set(kid, { kid, iss, alg: key.suite.name, jwk: exportPublicJwk(key), state, ...times })
    return kid
  }

  activate(kid: string): void {
    this.#become(kid, { to: 'active' })
  }

  /** What it signs is refused until it is resumed; what it signed before, too. */
  suspend(kid: string): void {
    this.#become(kid, { to: 'suspended' })
  }

  resume(kid: string): void {
    const entry = this.#signingKeys.get(kid)
    if (entry !== undefined && entry.state !== 'suspended')
      this.#fault(kid, `is not suspended but ${entry.state}`, 'Only a suspended key is resumed.')
    else this.#become(kid, { to: 'active' })
  }

  /** What it signs after `at` (seconds since 1970) is refused; what it signed until then stays good. */
  retire(kid: string, at: number): void {
    const entry = this.#signingKeys.get(kid)
    const notAfter = Math.max(entry?.notBefore ?? 0, Math.min(entry?.notAfter ?? at, at))
    this.#become(kid, { to: 'deactivated', notAfter })
  }

  /**
   * Nothing counts that it signed at `compromisedAt` (seconds since 1970) or later, nor anything at all where nobody can
   * tell since when (null). An earlier time may follow a later one, and null any time; never the other way round.
   */
  revoke(kid: string, compromisedAt: number | null): void {
    const entry = this.#signingKeys.get(kid)
    if (entry?.state === 'compromised' && compromisedAt !== null) {
      if (entry.compromisedAt === null || compromisedAt > entry.compromisedAt) {
        const since = entry.compromisedAt === null ? 'from its beginning' : `since ${entry.compromisedAt}`
        this.#fault(
          kid,
          `is compromised ${since} already`,
          'What was refused stays refused: give an earlier time.',
        )
        return
      }
    }
    this.#become(kid, { to: 'compromised', compromisedAt })
  }

  /** Takes its entry away: what it signed is refused as of an unknown key. Once nobody keeps such records any longer. */
  destroy(kid: string): void {
    this.#become(kid, { to: 'destroyed' })
  }

  /** Lets an issuer seal under a KEK, which is added where it is not there. */
  grantKek(kek: Kek, iss: string): void {
    const known = this.#keks.get(kek.kekId)
    this.#refuseOther(known, kek)
    const others = (known?.iss ?? []).filter((one) => one !== iss)
    this.#keks.set(kek.kekId, {
      kekId: kek.kekId,
      provider: kek.provider,
      key: kek.key,
      iss: [...others, iss],
    })
  }

  /** What was sealed under it is `undecryptable` from then on; for one issuer, or for all. */
  withdrawKek(kekId: string, iss?: string): void {
    const known = this.#keks.get(kekId)
    if (known === undefined || (iss !== undefined && !known.iss.includes(iss))) {
      const whose = iss === undefined ? '' : ` for ${iss}`
      this.#fault(kekId, `is no KEK of this directory${whose}`, 'See `sealgate directory show`.')
      return
    }
    const left = iss === undefined ? [] : known.iss.filter((one) => one !== iss)
    if (left.length === 0) this.#keks.delete(kekId)
    else this.#keks.set(kekId, { ...known, iss: left })
  }

  /** Takes over what somebody made of this very version by hand; the rules are those of the single changes. */
  take(edited: DirectoryDocument): void {
    const { version } = this.#before
    if (edited.version !== version) {
      const fix = 'Edit what `sealgate directory show --json` prints now.'
      this.#fault('version', `is ${edited.version}, and the directory is at ${version}`, fix)
    }
    const kids = new Set(edited.signingKeys.map(({ kid }) => kid))
    for (const kid of [...this.#signingKeys.keys()])
      if (!kids.has(kid)) this.#become(kid, { to: 'destroyed' })
    for (const entry of edited.signingKeys) {
      const known = this.#signingKeys.get(entry.kid)
      if (known !== undefined) this.#compare(known, entry)
      this.#signingKeys.set(entry.kid, entry)
    }
    const before = new Map(this.#keks)
    this.#keks.clear()
    for (const entry of edited.keks) {
      this.#refuseOther(before.get(entry.kekId), entry)
      this.#keks.set(entry.kekId, entry)
    }
  }

  /** The next version. Throws `ConfigError` with every fault of the changes, and where they leave an issuer unable to sign or to seal. */
  next({ now, life, leaving = new Set(), lapsed = false }: Publication): DirectoryDocument {
    const { version, issuedAt, expiresAt } = this.#before
    const clock = 'Set the clock of this machine, or of the one that published the version before.'
    if (issuedAt > now + MAX_LEAD_SECONDS)
      this.#fault('this clock', `says ${now}, and version ${version} was issued at ${issuedAt}`, clock)
    if (version > 0 && now > expiresAt + MAX_LAPSE_SECONDS && !lapsed) {
      const fix = 'Set the clock; if it is right, `sealgate directory publish --lapsed`.'
      this.#fault(
        'this clock',
        `says ${now}, and version ${version} expired at ${expiresAt}, long before`,
        fix,
      )
    }
    const signing = (entries: Iterable<SigningKeyEntry>): Set<string> =>
      new Set([...entries].filter((entry) => canSign(entry, now)).map(({ iss }) => iss))
    const still = signing(this.#signingKeys.values())
    for (const iss of signing(this.#before.signingKeys)) {
      if (still.has(iss) || leaving.has(iss)) continue
      const fix = `Enrol another key first, or say by name that it may be left without one (--leaving ${iss}).`
      this.#fault(iss, 'would have no key left to sign with', fix)
    }
    const sealing = (keks: Iterable<KekEntry>): Set<string> => new Set([...keks].flatMap(({ iss }) => iss))
    const wrapped = sealing(this.#keks.values())
    for (const iss of sealing(this.#before.keks)) {
      if (wrapped.has(iss) || !still.has(iss) || leaving.has(iss)) continue
      const fix = `Add another KEK first, or say by name that it may be left without one (--leaving ${iss}).`
      this.#fault(iss, 'would have no KEK left to seal under', fix)
    }
    if (this.#faults.length > 0) throw new ConfigError(this.#faults)
    return {
      directory: 'sealgate/1',
      version: version + 1,
      issuedAt: now,
      expiresAt: now + life,
      signingKeys: [...this.#signingKeys.values()],
      keks: [...this.#keks.values()],
    }
  }

  #become(kid: string, { to, ...fields }: Change): void {
    const entry = this.#signingKeys.get(kid)
    if (entry === undefined) {
      this.#fault(kid, 'is no key of this directory', 'See `sealgate keys list`.')
    } else if (!NEXT[entry.state].includes(to)) {
      const fix = `It may become ${NEXT[entry.state].join(' or ')}.`
      this.#fault(kid, `is ${entry.state}, and cannot become ${to}`, fix)
    } else if (to === 'destroyed') {
      this.#signingKeys.delete(kid)
    } else {
      this.#signingKeys.set(kid, { ...entry, ...fields, state: to })
    }
  }

  /** Whether one entry of a kid may follow another, by whatever way. */
  #compare(known: SigningKeyEntry, entry: SigningKeyEntry): void {
    const { kid, state } = known
    for (const field of ['iss', 'alg', 'jwk'] as const)
      if (JSON.stringify(known[field]) !== JSON.stringify(entry[field]))
        this.#fault(
          kid,
          `has another ${field}`,
          'A kid stands for one key of one issuer for ever: enrol another.',
        )
    if (entry.state !== state) this.#become(kid, { to: entry.state })
    if (refusedFrom(entry) > refusedFrom(known))
      this.#fault(kid, 'would be compromised no more, or later', 'What was refused stays refused.')
    if (ENDED.has(state) && entry.notAfter > known.notAfter)
      this.#fault(kid, `is ${state}, and would sign longer`, 'Enrol another key.')
  }

  #refuseOther(known: Kek | undefined, kek: Kek): void {
    if (known !== undefined && (known.provider !== kek.provider || known.key !== kek.key))
      this.#fault(kek.kekId, `is another key, ${known.provider} ${known.key}`, 'Give the new KEK a new name.')
  }

  #fault(where: string, what: string, fix: string): void {
    this.#faults.push({ where, what: `It ${what}.`, fix })
  }
}

const ENDED: ReadonlySet<KeyState> = new Set<KeyState>(['deactivated', 'compromised'])

/** From this second on nothing counts that the key signed. */
const refusedFrom = ({ state, compromisedAt }: SigningKeyEntry): number =>
  compromisedAt ?? (state === 'compromised' ? 0 : Infinity)

/** As `createDirectory` bears it: a version from further ahead is refused there. */
const MAX_LEAD_SECONDS = 300
/** Gates stop when their copy expires: nobody leaves it at that for so long, unless it is a clock that is wrong. */
const MAX_LAPSE_SECONDS = 30 * 86_400

/** Whether its owner can sign with it, now or once it begins: what a principal must not be left without. */
const canSign = ({ state, notAfter }: SigningKeyEntry, now: number): boolean =>
  state === 'active' && notAfter > now

/** A directory in which there is nothing yet, and which was never published: its next version is the first. */
export const EMPTY_DIRECTORY: DirectoryDocument = {
  directory: 'sealgate/1',
  version: 0,
  issuedAt: 0,
  expiresAt: 0,
  signingKeys: [],
  keks: [],
}
