/**
 * A world in which rotations run for ever-growing time: secrets with stages, a signed key directory, gates and signers
 * that see changes late, brokers with users, clocks that differ, and rotators that die anywhere.
 */
import { ownAuthority } from '../../lib/adapters/certificate-authority.ts'
import {
  exportPkcs8,
  generateKeyPair,
  importPkcs8,
  publicKeyOf,
  readCertificate,
} from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { Outage } from '../../lib/errors.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { type Directory, maySign } from '../../lib/keys/directory.ts'
import { parseDirectory, type SigningKeyEntry } from '../../lib/keys/directory-document.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import { readClientCertificate } from '../../lib/keys/client-certificate.ts'
import type { Rotation, RotationWaits } from '../../lib/keys/rotation.ts'
import type { ScramLogin } from '../../lib/keys/rotation-state.ts'
import { type RotationPorts, runRotation } from '../../lib/keys/rotation-steps.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { newSigningSecret, readSigningSecret, secretSigners } from '../../lib/keys/signing-secret.ts'
import type {
  Clock,
  DocumentStore,
  SecretStage,
  SecretVersion,
  Signer,
  StagedSecrets,
} from '../../lib/ports.ts'
import { selfSigned } from '../self-signed.ts'

export const SECRET = 'signing/gateway'
export const ISSUER = 'gateway-eu'
export const POINTER = 'kafka/gateway'
export const USERS = ['kafka/gateway-a', 'kafka/gateway-b'] as const
export const CERTIFICATE = 'kafka/gateway-tls'
export const SUBJECT = 'CN=gateway'
const LATE_MS = 10_000
const SKEW_MS = 10_000
const MAX_AGE_MS = 60_000

/** Secrets in memory, as Secrets Manager keeps them. */
export function memorySecrets(clock: Clock): StagedSecrets & { readonly made: ReadonlySet<string> } {
  const secrets = new Map<string, Map<string, SecretVersion>>()
  const labels = new Map<string, string>()
  const made = new Set<string>()
  const find = (name: string, stage: SecretStage): SecretVersion | undefined =>
    secrets.get(name)?.get(labels.get(`${name} ${stage}`) ?? '')
  const makeCurrent = (name: string, version: string): void => {
    const before = labels.get(`${name} AWSCURRENT`)
    if (before !== undefined) labels.set(`${name} AWSPREVIOUS`, before)
    labels.set(`${name} AWSCURRENT`, version)
    if (labels.get(`${name} AWSPENDING`) === version) labels.delete(`${name} AWSPENDING`)
    made.add(`${name} ${version}`)
  }
  return {
    made,
    read: (name) => {
      const found = find(name, 'AWSCURRENT')
      return found === undefined
        ? Promise.reject(new Outage('secret-unavailable', name))
        : Promise.resolve(found)
    },
    find: (name, stage) => Promise.resolve(find(name, stage)),
    stage: (name, value, stage, version) => {
      const versions = secrets.get(name) ?? new Map<string, SecretVersion>()
      secrets.set(name, versions)
      const known = versions.get(version)
      if (known !== undefined)
        return Promise.resolve(Buffer.compare(known.value, value) === 0 ? 'staged' : 'taken')
      versions.set(version, { value, version, createdAt: clock.now() })
      if (stage === 'AWSCURRENT') makeCurrent(name, version)
      else labels.set(`${name} ${stage}`, version)
      return Promise.resolve('staged')
    },
    promote: (name, version, from) => {
      if (labels.get(`${name} AWSCURRENT`) === version) return Promise.resolve('promoted')
      if (labels.get(`${name} AWSCURRENT`) !== from) return Promise.resolve('changed')
      makeCurrent(name, version)
      return Promise.resolve('promoted')
    },
  }
}

/** A document in memory. */
export function memoryDocument(): DocumentStore & { readonly bytes: () => Uint8Array } {
  let kept: { bytes: Uint8Array; etag: string } | undefined
  let writes = 0
  return {
    bytes: () => kept?.bytes ?? new Uint8Array(),
    find: () => Promise.resolve(kept),
    read: (etag) => {
      if (kept === undefined) return Promise.reject(new Outage('directory-unavailable', 'none'))
      return Promise.resolve(kept.etag === etag ? 'unchanged' : kept)
    },
    write: (bytes, etag) => {
      if (kept?.etag !== etag) return Promise.resolve('changed')
      kept = { bytes, etag: String(++writes) }
      return Promise.resolve('written')
    },
  }
}

/** What all in the world are set to. */
export const WAITS: RotationWaits = {
  directoryGrace: 300,
  secretHold: 600,
  eventLife: 300,
  margin: 60,
  retention: 4000,
}

interface Call {
  readonly since: number
  run(): Promise<void>
}

interface Flight {
  readonly kid: Uint8Array
  readonly arrivesMs: number
}

/** Pseudo-random numbers of a seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export class RotationWorld {
  readonly #random: () => number
  #ms = 1_795_000_000_000
  readonly clock: Clock = { now: () => this.#ms }
  readonly secrets: ReturnType<typeof memorySecrets>
  readonly #document = memoryDocument()
  readonly #root = generateKeyPair(ED25519)
  readonly #gates: readonly Directory[]
  readonly #signers: readonly ((deadline: number) => Promise<Signer>)[]
  readonly #flying: Flight[] = []
  readonly #kept: { readonly kid: Uint8Array; readonly t: number }[] = []
  readonly #brokers: readonly Map<string, string>[] = [new Map(), new Map()]
  readonly #clients: { login: ScramLogin; readAtMs: number }[] = []
  readonly #authority = selfSigned()
  readonly #certificates: { pem: string; readAtMs: number }[] = []
  /** Calls of rotators that are under way, and what lands late. */
  readonly #calls: Call[] = []
  #running = 0
  /** What went wrong for want of a key. */
  readonly failures: string[] = []

  constructor(seed: number) {
    this.#random = randomOf(seed)
    this.secrets = memorySecrets(this.#skewed())
    const clock = this.clock
    this.#gates = [0, 1].map(() => {
      const source = this.#flaky(this.#document.read)
      return createDirectory({
        source: { read: source },
        roots: [this.#root.publicKey],
        clock,
        retryMs: 1000,
      })
    })
    this.#signers = [0, 1, 2].map(() => {
      const secrets = { read: this.#flaky(this.secrets.read) }
      return secretSigners({
        secrets,
        secret: SECRET,
        clock,
        maxAgeMs: MAX_AGE_MS,
        holdMs: WAITS.secretHold * 1000,
      })
    })
  }

  async begin(): Promise<void> {
    const options = this.#publisher(this.clock)
    await publishFirst(options, this.#ms + 1000)
    const value = newSigningSecret(ED25519)
    const key = publicKeyOf(readSigningSecret(value, SECRET))
    const now = Math.floor(this.#ms / 1000)
    await publishChange(
      options,
      (draft) =>
        draft.enrol({ iss: ISSUER, key, state: 'active', notBefore: now - 400, notAfter: now + 20_000 }),
      this.#ms + 1000,
    )
    await this.secrets.stage(SECRET, value, 'AWSCURRENT', 'first', 0)
    const { publicKey, privateKey } = generateKeyPair(ESP256)
    const request = { subject: SUBJECT, key: publicKey, until: this.#ms + 3_000_000 }
    const certificate = await this.#issuer(this.clock)(request, 0)
    const pair = Buffer.from(JSON.stringify({ certificate, privateKey: exportPkcs8(privateKey) }))
    await this.secrets.stage(CERTIFICATE, pair, 'AWSCURRENT', 'first', 0)
    for (const [index, secret] of USERS.entries()) {
      const login = { username: `gateway-${index}`, password: `first-${index}` }
      for (const broker of this.#brokers) broker.set(login.username, login.password)
      await this.secrets.stage(secret, Buffer.from(JSON.stringify(login)), 'AWSCURRENT', 'first', 0)
      if (index === 0)
        await this.secrets.stage(POINTER, Buffer.from(JSON.stringify(login)), 'AWSCURRENT', 'first', 0)
    }
  }

  /** So many seconds of it, with `policy` fired again and again, sometimes twice at once. */
  async live(rotation: Rotation, waits: RotationWaits, seconds: number): Promise<void> {
    const end = this.#ms + seconds * 1000
    while (this.#ms < end && this.failures.length === 0) {
      if (this.#running < 2 && this.#random() < 0.3) this.#fire(rotation, waits)
      await this.#work(0.6)
      // While a rotator is at work little time passes: its calls have deadlines.
      const step = this.#calls.length > 0 ? 2000 : 60_000
      this.#ms += Math.ceil(this.#random() * step)
      for (const call of this.#calls.filter(({ since }) => this.#ms - since > LATE_MS)) await this.#end(call)
      if (rotation.kind === 'scram') await this.#logInSomewhere()
      else if (rotation.kind === 'client-certificate') await this.#presentSomewhere()
      else await this.#sealAndVerify()
    }
  }

  rows(): readonly SigningKeyEntry[] {
    return parseDirectory(this.#document.bytes(), [this.#root.publicKey]).document.signingKeys
  }

  /** How many versions of a secret have been current. */
  turns(secret: string): number {
    return [...this.secrets.made].filter((one) => one.startsWith(`${secret} `)).length
  }

  #publisher(clock: Clock): PublisherOptions {
    const { find, read, write } = this.#document
    const root = localSigner(this.#root.privateKey)
    return { store: { find, read, write }, roots: [this.#root.publicKey], root, clock, life: 10 ** 9 }
  }

  #skewed(): Clock {
    const skew = Math.round((this.#random() * 2 - 1) * SKEW_MS)
    return { now: () => this.#ms + skew }
  }

  #flaky<A extends unknown[], T>(read: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
    return (...args) => {
      if (this.#random() < 0.5) return Promise.reject(new Outage('secret-unavailable', 'does not answer'))
      return read(...args)
    }
  }

  #fire(rotation: Rotation, waits: RotationWaits): void {
    this.#running++
    const clock = this.#skewed()
    const { store, ...publisher } = this.#publisher(clock)
    const { read, find, stage, promote } = this.secrets
    const late = <A extends unknown[], T>(call: (...args: A) => Promise<T>) => this.#rotatorsCall(call)
    const ports: RotationPorts = {
      clock,
      secrets: { read, find: late(find), stage: late(stage), promote: late(promote) },
      directory: {
        ...publisher,
        store: { read: store.read, find: late(store.find), write: late(store.write) },
      },
      issuerOf: () => ({
        hasIssued: (pem) => readCertificate(pem).isIssuedBy(readCertificate(this.#authority.cert)),
        issue: late(this.#issuer(clock)),
        logIn: late(({ certificate }) => this.#take(certificate)),
      }),
      users: {
        setPassword: late((login) => this.#setPassword(login)),
        associate: () => Promise.resolve(),
        logIn: late((login) => this.#accept(login, this.#brokers)),
      },
    }
    runRotation({ rotation, waits }, ports, clock.now() + 60_000)
      .catch((error: unknown) => {
        if (!(error instanceof Outage)) this.failures.push(`rotator: ${String(error)}`)
      })
      .finally(() => this.#running--)
  }

  /** Now or later, or with its caller dead before, after, or before it lands. */
  #rotatorsCall<A extends unknown[], T>(call: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
    return (...args) =>
      new Promise((resolve, reject) => {
        const fate = this.#random()
        const died = new Outage('unexpected', 'died')
        const since = this.#ms
        if (fate < 0.02) reject(died)
        else if (fate < 0.035) {
          reject(died)
          this.#calls.push({
            since,
            run: () =>
              call(...args).then(
                () => undefined,
                () => undefined,
              ),
          })
        } else
          this.#calls.push({
            since,
            run: () => call(...args).then((value) => (fate < 0.05 ? reject(died) : resolve(value)), reject),
          })
      })
  }

  /** Some of the calls, in any order. */
  async #work(share: number): Promise<void> {
    for (let turn = 0; turn < 8; turn++) {
      await new Promise((resolve) => setImmediate(resolve))
      const call = this.#calls[Math.floor(this.#random() * this.#calls.length)]
      if (call === undefined || this.#random() > share) return
      await this.#end(call)
    }
  }

  async #end(call: Call): Promise<void> {
    this.#calls.splice(this.#calls.indexOf(call), 1)
    await call.run()
  }

  async #sealAndVerify(): Promise<void> {
    const signer = await this.#pick(this.#signers)(this.#ms + 1000).catch(() => undefined)
    if (signer !== undefined) {
      const arrivesMs = this.#ms + Math.floor(this.#random() ** 2 * WAITS.eventLife * 1000)
      this.#flying.push({ kid: signer.kid, arrivesMs })
      this.#flying.push({ kid: signer.kid, arrivesMs: this.#ms })
    }
    for (const flight of this.#flying.filter(({ arrivesMs }) => arrivesMs <= this.#ms)) {
      this.#flying.splice(this.#flying.indexOf(flight), 1)
      const skew = Math.round((this.#random() * 2 - 1) * SKEW_MS)
      const record = { kid: flight.kid, t: Math.floor((flight.arrivesMs + skew) / 1000) }
      this.#kept.push(record)
      await this.#judge(record)
    }
    while ((this.#kept[0]?.t ?? Infinity) * 1000 < this.#ms - WAITS.retention * 1000) this.#kept.shift()
    for (const record of [this.#kept[0], this.#pick(this.#kept)])
      if (record !== undefined) await this.#judge(record)
  }

  async #judge({ kid, t }: { readonly kid: Uint8Array; readonly t: number }): Promise<void> {
    const copy = await this.#pick(this.#gates)
      .snapshot(this.#ms + 1000)
      .catch(() => undefined)
    if (copy === undefined) return
    const row = copy.snapshot.signingKey(kid)
    if (row !== undefined && maySign(row, t)) return
    const now = Math.floor(this.#ms / 1000)
    this.failures.push(
      `at ${now} a record of ${t}: ${row === undefined ? 'unknown' : `${row.state} ${row.notBefore}–${row.notAfter}`}`,
    )
  }

  #setPassword({ username, password }: ScramLogin): Promise<void> {
    const [first, second] = this.#brokers
    first?.set(username, password)
    this.#calls.push({
      since: this.#ms,
      run: () => Promise.resolve(void second?.set(username, password)),
    })
    return Promise.resolve()
  }

  #accept({ username, password }: ScramLogin, brokers: readonly Map<string, string>[]): Promise<void> {
    const isTaken = brokers.every((broker) => broker.get(username) === password)
    return isTaken ? Promise.resolve() : Promise.reject(new Outage('sink-denied', `${username} is refused`))
  }

  async #logInSomewhere(): Promise<void> {
    while (this.#clients.length < 3) this.#clients.push({ login: await this.#told(), readAtMs: this.#ms })
    const client = this.#pick(this.#clients)
    const age = this.#ms - client.readAtMs
    if (age > WAITS.secretHold * 1000 || (age > MAX_AGE_MS && this.#random() < 0.5)) {
      client.login = await this.#told()
      client.readAtMs = this.#ms
    }
    await this.#accept(client.login, [this.#pick(this.#brokers)]).catch((error: unknown) => {
      this.failures.push(`at ${this.#ms}, read ${age} ms ago: ${String(error)}`)
    })
  }

  #issuer(clock: Clock): ReturnType<typeof ownAuthority> {
    const signer = localSigner(importPkcs8(this.#authority.key))
    return ownAuthority(this.#authority.cert, () => Promise.resolve(signer), clock)
  }

  /** By a broker's clock. */
  #take(pem: string): Promise<void> {
    const { from, until } = readCertificate(pem)
    const now = this.#ms + Math.round((this.#random() * 2 - 1) * SKEW_MS)
    const isTaken = now >= from && now <= until
    return isTaken ? Promise.resolve() : Promise.reject(new Outage('sink-denied', `${from}–${until}`))
  }

  async #presentSomewhere(): Promise<void> {
    const read = async (): Promise<string> =>
      readClientCertificate((await this.secrets.read(CERTIFICATE, 0)).value, CERTIFICATE).certificate
    while (this.#certificates.length < 3) this.#certificates.push({ pem: await read(), readAtMs: this.#ms })
    const client = this.#pick(this.#certificates)
    const age = this.#ms - client.readAtMs
    if (age > WAITS.secretHold * 1000 || (age > MAX_AGE_MS && this.#random() < 0.5)) {
      client.pem = await read()
      client.readAtMs = this.#ms
    }
    await this.#take(client.pem).catch((error: unknown) => {
      this.failures.push(`at ${this.#ms}, read ${age} ms ago: ${String(error)}`)
    })
  }

  async #told(): Promise<ScramLogin> {
    return JSON.parse(Buffer.from((await this.secrets.read(POINTER, 0)).value).toString())
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)]!
  }
}
