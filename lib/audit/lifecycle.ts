/**
 * Tells the control chain what was done to keys and to the key directory (keys.md §3: every step leaves an entry). What is
 * done comes first and is told afterwards, since a revocation has to work while Kafka is down. The chain remembers the last
 * version of the directory that it was told of: who writes next and finds that another was published since says so, and what
 * has changed, before anything else.
 */
import { CborError } from '../cbor.ts'
import { ConfigError, Outage } from '../errors.ts'
import {
  changesOf,
  type DirectoryMemory,
  encodeMemory,
  memoryOf,
  NO_MEMORY,
  parseMemory,
} from '../keys/directory-memory.ts'
import type { Published } from '../keys/directory-publisher.ts'
import type { Rotation, RotationStep } from '../keys/rotation.ts'
import type { RotationPorts } from '../keys/rotation-steps.ts'
import { type ControlAccount, type ControlFact, type ControlParts, writeControl } from './control-chain.ts'

/** Something that was done: a version of the directory was published, or a step of a rotation taken outside of it. */
export type LifecycleStep =
  { readonly published: Published } | { readonly taken: RotationStep; readonly rotation: Rotation }

/** Writes steps to the chain, in order. Rejects with `Outage`, or with `ConfigError` where nobody may sign them. */
export type LifecycleLog = (
  steps: readonly LifecycleStep[],
  principal: string | null,
  deadline: number,
) => Promise<void>

export const lifecycleLog =
  (parts: ControlParts): LifecycleLog =>
  (steps, principal, deadline) =>
    writeControl(
      parts,
      (memory, maxBytes) => accountOf(steps, principal, readMemory(memory), maxBytes),
      deadline,
    )

function readMemory(bytes: Uint8Array): DirectoryMemory {
  if (bytes.length === 0) return NO_MEMORY
  try {
    return parseMemory(bytes)
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    throw new Outage('position-damaged', 'what the control chain remembers does not parse', { cause })
  }
}

function accountOf(
  steps: readonly LifecycleStep[],
  principal: string | null,
  found: DirectoryMemory,
  maxBytes: number,
): ControlAccount {
  let memory = found
  const facts = steps.flatMap((step): readonly ControlFact[] => {
    if ('taken' in step) return takenFacts(step.taken, step.rotation, principal, memory.version)
    const { before, document } = step.published
    const gap = gapFacts(memory, memoryOf(before))
    // Of two who published at once, the later one may have told of the earlier one's version already, without who it was.
    if (before.version === 0 || document.version > memory.version) memory = memoryOf(document)
    return [...gap, ...publishedFacts(step.published, principal)]
  })
  return { facts, memory: encodeMemory(memory, maxBytes) }
}

function publishedFacts({ before, document }: Published, principal: string | null): readonly ControlFact[] {
  const { version: directory } = document
  const changes = changesOf(memoryOf(before), memoryOf(document)) ?? []
  const kind = changes.length === 0 && before.version > 0 ? 'directory.renewed' : 'directory.published'
  const version = { kind, resource: `directory:${directory}` } as const
  return [version, ...changes].map((fact) => ({ ...fact, principal, success: true, directory }))
}

/**
 * Versions that nobody told of, another of the number that was told of among them, and what can be seen of what they changed.
 * Who it was nobody can say.
 */
function gapFacts(told: DirectoryMemory, now: DirectoryMemory): readonly ControlFact[] {
  const changes = changesOf(told, now) ?? []
  // Of two who published at once, the earlier one may come later: what he did was told.
  if (now.version < told.version || (now.version === told.version && changes.length === 0)) return []
  const first = Math.min(told.version + 1, now.version)
  const resource = `directory:${first === now.version ? '' : `${first}..`}${now.version}`
  const more = { principal: null, directory: now.version }
  return [
    { kind: 'directory.loaded', resource, success: false, ...more },
    ...changes.map((change) => ({ ...change, success: true, ...more })),
  ]
}

/** Undefined: of no consequence by itself, or told by the version of the directory that it publishes. */
const KIND_OF: Readonly<Record<RotationStep['do'], ControlFact['kind'] | undefined>> = {
  'stage-key': 'key.staged',
  'stage-certificate': 'key.staged',
  'stage-password': 'key.staged',
  promote: 'key.promoted',
  'move-pointer': 'key.promoted',
  'set-password': 'key.rotated',
  associate: 'key.rotated',
  'rotate-on-demand': 'key.rotated',
  'enable-rotation': 'key.changed',
  'enrol-key': undefined,
  'retire-key': undefined,
  'destroy-key': undefined,
  'renew-directory': undefined,
  'log-in': undefined,
  wait: undefined,
}

function takenFacts(
  step: RotationStep,
  rotation: Rotation,
  principal: string | null,
  directory: number,
): readonly ControlFact[] {
  const kind = KIND_OF[step.do]
  if (kind === undefined) return []
  const secrets = 'secret' in step ? [step.secret] : 'secrets' in step ? step.secrets : []
  const own = 'secret' in rotation ? [rotation.secret] : []
  const resources =
    rotation.kind === 'kms-key'
      ? [`kms:${rotation.key}`]
      : (secrets.length > 0 ? secrets : own).map((secret) => `secret:${secret}`)
  return resources.map((resource) => ({ kind, resource, principal, success: true, directory }))
}

/** Keeps what was done until it is told. */
export class LifecycleAccount {
  readonly #log: LifecycleLog | undefined
  readonly #principal: string | null
  #steps: LifecycleStep[] = []
  #hasFailed = false

  /** @param log undefined where the settings say by name that lifecycle is not audited */
  constructor(log: LifecycleLog | undefined, principal: string | null) {
    this.#log = log
    this.#principal = principal
  }

  add(step: LifecycleStep): void {
    if (this.#log === undefined || ('taken' in step && KIND_OF[step.taken.do] === undefined)) return
    this.#steps.push(step)
  }

  /** The same ports, whose directory is told of here. */
  on(ports: RotationPorts): RotationPorts {
    const onPublished = (published: Published): void => this.add({ published })
    return { ...ports, directory: { ...ports.directory, onPublished } }
  }

  /** Writes what was added, unless it failed before: what is under way goes on, and `flush` says at its end that it did. */
  async note(deadline: number): Promise<void> {
    if (this.#hasFailed) return
    await this.flush(deadline).catch((error: unknown) => {
      if (!(error instanceof Outage) && !(error instanceof ConfigError)) throw error
      this.#hasFailed = true
    })
  }

  /** Writes what was added, and rejects as the log does; then all of it is kept for the next time. */
  async flush(deadline: number): Promise<void> {
    const steps = [...this.#steps]
    if (steps.length === 0) return
    await this.#log?.(steps, this.#principal, deadline)
    this.#steps = this.#steps.slice(steps.length)
  }
}
