/**
 * Proof of possession between two people (keys.md §1): whoever enrols keys makes a challenge and keeps a note of it; the
 * key's owner answers it with a private key that he keeps. A challenge is used once, and expires.
 */
import { readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { exportPublicJwk, importPublicKey, type PublicKey } from '../lib/envelope/crypto.ts'
import { suiteOf } from '../lib/envelope/suite.ts'
import { readJson } from '../lib/contract/json.ts'
import { ConfigError, type Fault, Rejection } from '../lib/errors.ts'
import { newChallenge, provePossession, provesPossession } from '../lib/keys/possession.ts'
import { makePrivateFolder, readPrivateJson, writePrivateFile } from '../lib/local/private-file.ts'
import type { Signer } from '../lib/ports.ts'

/** What the owner of a key is sent. Nothing in it is secret. */
export interface Challenge {
  readonly enrolment: 'challenge'
  readonly iss: string
  /** 32 random bytes in base64url. */
  readonly challenge: string
  /** Seconds since 1970. */
  readonly expiresAt: number
}

/** What the owner answers. Nothing in it is secret. */
export interface Proof {
  readonly iss: string
  readonly challenge: string
  readonly key: PublicKey
}

export const CHALLENGE_LIFE_SECONDS = 86_400
const MAX_SWEPT = 1000

/** Whose challenges they are that a folder has notes of. */
export class Challenges {
  readonly #folder: string

  constructor(stateFolder: string) {
    this.#folder = join(stateFolder, 'challenges')
  }

  /** @param now seconds since 1970 */
  async make(iss: string, now: number): Promise<Challenge> {
    await makePrivateFolder(this.#folder)
    await this.#forgetOld(now)
    const challenge = Buffer.from(newChallenge()).toString('base64url')
    const expiresAt = now + CHALLENGE_LIFE_SECONDS
    await writePrivateFile(this.#path(challenge), JSON.stringify({ iss, expiresAt }))
    return { enrolment: 'challenge', iss, challenge, expiresAt }
  }

  /** Throws `ConfigError` where this challenge was not made here for this issuer, was used, or has expired. */
  async check({ iss, challenge }: Proof, where: string, now: number): Promise<void> {
    const fix = `Make another: sealgate keys challenge ${iss}.`
    const fault = (what: string): ConfigError => new ConfigError([{ where, what, fix }])
    const note = await readPrivateJson(this.#path(challenge))
    if (note === undefined) throw fault('Its challenge was not made here, or has been used.')
    if (note['iss'] !== iss) throw fault('Its challenge was made for another issuer.')
    const { expiresAt } = note
    // A clock that went back makes no challenge last longer than it was to.
    if (typeof expiresAt !== 'number' || now >= expiresAt || now < expiresAt - CHALLENGE_LIFE_SECONDS - 300)
      throw fault('Its challenge has expired.')
  }

  /** Whether it was still there: of two who use it at once one is told so. */
  async use(proof: Proof, where: string): Promise<void> {
    try {
      await unlink(this.#path(proof.challenge))
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT') throw error
      const fix = `Make another: sealgate keys challenge ${proof.iss}.`
      throw new ConfigError([{ where, what: 'Its challenge has just been used.', fix }])
    }
  }

  async #forgetOld(now: number): Promise<void> {
    const names = await readdir(this.#folder)
    for (const name of names.filter((each) => CHALLENGE.test(each)).slice(0, MAX_SWEPT)) {
      const note = await readPrivateJson(join(this.#folder, name)).catch(() => ({ expiresAt: 0 }))
      const expiresAt = note?.['expiresAt']
      if (typeof expiresAt !== 'number' || now >= expiresAt)
        await unlink(join(this.#folder, name)).catch(() => undefined)
    }
  }

  #path(challenge: string): string {
    if (!CHALLENGE.test(challenge)) throw new TypeError('no challenge is a path')
    return join(this.#folder, challenge)
  }
}

/** 32 bytes in base64url; as a file's name it leads nowhere else. */
const CHALLENGE = /^[A-Za-z0-9_-]{43}$/

/** Reads a challenge. Throws `ConfigError` where it is none, or has expired. */
export function readChallenge(where: string, bytes: Uint8Array, now: number): Challenge {
  const { enrolment, iss, challenge, expiresAt } = objectOf(where, bytes)
  const fix = 'Ask whoever enrols the key for a challenge.'
  if (
    enrolment !== 'challenge' ||
    !isIssuer(iss) ||
    typeof challenge !== 'string' ||
    !CHALLENGE.test(challenge) ||
    typeof expiresAt !== 'number'
  )
    throw new ConfigError([{ where, what: 'It is no challenge.', fix }])
  if (now >= expiresAt) throw new ConfigError([{ where, what: 'It has expired.', fix }])
  return { enrolment, iss, challenge, expiresAt }
}

/** The answer to a challenge, as JSON. */
export async function answerOf(
  { iss, challenge }: Challenge,
  signer: Signer,
  publicKey: PublicKey,
  deadline: number,
): Promise<string> {
  const proof = await provePossession(signer, iss, Buffer.from(challenge, 'base64url'), deadline)
  return JSON.stringify({
    ...{ enrolment: 'proof', iss, challenge, jwk: exportPublicJwk(publicKey) },
    proof: Buffer.from(proof).toString('base64url'),
  })
}

/** Reads an answer whose signature holds. Throws `ConfigError` with what is wrong with it. */
export function readProof(where: string, bytes: Uint8Array): Proof {
  const { enrolment, iss, challenge, jwk, proof } = objectOf(where, bytes)
  const faults: Fault[] = []
  const fault = (field: string, what: string, fix: string): void => {
    faults.push({ where: `${where}: ${field}`, what, fix })
  }
  const again = 'Take what sealgate keys prove prints.'
  if (enrolment !== 'proof') fault('enrolment', 'It is no proof.', again)
  if (!isIssuer(iss)) fault('iss', 'It is no issuer.', again)
  if (typeof challenge !== 'string' || !CHALLENGE.test(challenge))
    fault('challenge', 'It is no challenge.', again)
  if (typeof proof !== 'string') fault('proof', 'It is no signature.', again)
  const key = keyOf(jwk, (what, fix) => fault('jwk', what, fix))
  if (
    faults.length > 0 ||
    key === undefined ||
    !isIssuer(iss) ||
    typeof challenge !== 'string' ||
    typeof proof !== 'string'
  )
    throw new ConfigError(faults)
  const signature = Buffer.from(proof, 'base64url')
  if (!provesPossession(key, iss, Buffer.from(challenge, 'base64url'), signature)) {
    const what = 'It was not made with this key, for this issuer and challenge.'
    throw new ConfigError([
      { where: `${where}: proof`, what, fix: "Let the key's owner run sealgate keys prove." },
    ])
  }
  return { iss, challenge, key }
}

function keyOf(jwk: unknown, fault: (what: string, fix: string) => void): PublicKey | undefined {
  const { kty, crv, x, y, d } = isObject(jwk) ? jwk : {}
  if (d !== undefined) {
    fault('It is a private key.', 'Hold it for compromised: make a new pair, and send the public half alone.')
    return undefined
  }
  const suite = suiteOf(crv === 'P-256' ? 'ESP256' : crv === 'Ed25519' ? 'Ed25519' : '')
  try {
    if (suite !== undefined && typeof kty === 'string' && typeof crv === 'string' && typeof x === 'string')
      return importPublicKey(suite, typeof y === 'string' ? { kty, crv, x, y } : { kty, crv, x })
  } catch {
    // What is wrong with it is told below, without what it is.
  }
  fault('It is no public JWK of Ed25519 or P-256.', 'Take what sealgate keys prove prints.')
  return undefined
}

function objectOf(where: string, bytes: Uint8Array): Readonly<Record<string, unknown>> {
  const fix = 'Take what the sealgate command printed.'
  try {
    const { value } = readJson(bytes)
    if (isObject(value)) return value
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
  }
  throw new ConfigError([{ where, what: 'It is no JSON object.', fix }])
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What the directory takes for one. */
export const isIssuer = (text: unknown): text is string =>
  typeof text === 'string' && text !== '' && text.isWellFormed() && Buffer.byteLength(text) <= 128
