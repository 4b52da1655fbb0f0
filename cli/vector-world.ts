/**
 * A gate in the world of a vector file, on a log of its own that goes when it is closed: for Lambda events made from
 * vectors (events/), whose keys and topics no embedded stack has.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { tableService } from '../lib/admission/conformance.ts'
import { parseVectorFile, type VectorGroup } from '../lib/admission/vector-file.ts'
import { firstPosition } from '../lib/admission/position.ts'
import { createIngest, type IngestParts } from '../lib/admission/slice.ts'
import type { AnswerMode } from '../lib/adapters/msk-event.ts'
import { generateKeyPair } from '../lib/envelope/crypto.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { codeOf, ConfigError, Outage } from '../lib/errors.ts'
import { createDataKeys } from '../lib/keys/data-keys.ts'
import { createSealingKeys } from '../lib/keys/sealing-keys.ts'
import { localSigner } from '../lib/keys/signer.ts'
import type { Log } from '../lib/local/log.ts'
import { openLog } from '../lib/local/log-open.ts'
import { createLocalPositions, createLocalSink } from '../lib/local/log-sink.ts'
import { AUDIT_TOPIC, QUARANTINE_TOPIC } from '../lib/local/stack.ts'
import { createGate, type Gate, SOFTWARE } from '../lib/runtime.ts'

const DEPLOYMENT = 'vectors'
const SET_UP_MS = 10_000

export interface VectorWorld {
  readonly gate: Gate
  readonly log: Log
  close(): Promise<void>
}

/** `ConfigError` where the file is no vector file. */
export async function openVectorWorld(file: string, mode: AnswerMode): Promise<VectorWorld> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new ConfigError([
      {
        where: file,
        what: `It cannot be read (${codeOf(error)}).`,
        fix: 'Name a vector file, such as events/world.json.',
      },
    ])
  })
  const group = parseVectorFile(file, text)
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-world-'))
  try {
    const log = await openLog(join(folder, 'log'))
    await setUp(log, group)
    // Their time may be ahead of this machine's: all deadlines are then as far ahead.
    const aheadMs = Math.max(0, ...group.vectors.map(({ nowMs }) => nowMs - Date.now()))
    const gate = createGate(createIngest(partsOf(group, log, aheadMs)), mode)
    return {
      gate: { ...gate, handle: (event, deadline) => gate.handle(event, deadline + aheadMs) },
      log,
      close: async () => {
        await gate.close()
        await log.close()
        await rm(folder, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
}

async function setUp(log: Log, { vectors, world }: VectorGroup): Promise<void> {
  const partitions = Math.max(0, ...vectors.map(({ record }) => record.partition)) + 1
  const positions = createLocalPositions(log, { deployment: DEPLOYMENT })
  for (const topic of [AUDIT_TOPIC, QUARANTINE_TOPIC]) await log.createTopic(topic, 1)
  for (const topic of world.channels.keys()) {
    await log.createTopic(topic, partitions)
    for (let partition = 0; partition < partitions; partition++)
      await positions.init({ topic, partition }, firstPosition(0n), Date.now() + SET_UP_MS)
  }
}

function partsOf({ world }: VectorGroup, log: Log, aheadMs: number): IngestParts {
  const clock = { now: () => Date.now() + aheadMs }
  const keyService = tableService(world.table)
  return {
    settings: {
      name: world.audience,
      deployment: DEPLOYMENT,
      epoch: 1,
      software: SOFTWARE,
      maxValueBytes: world.maxValueBytes,
      limits: { maxSessions: world.maxSessions, newDataKeysPerMinute: Number.MAX_SAFE_INTEGER },
      outlet: {
        auditTopic: AUDIT_TOPIC,
        quarantineTopic: QUARANTINE_TOPIC,
        kekId: 'none',
        topicOf: (channel) => channel,
      },
      reserveMs: 1000,
      channelOf: (topic) => world.channels.get(topic),
    },
    clock,
    sink: createLocalSink(log, { deployment: DEPLOYMENT }),
    directory: {
      snapshot: () => Promise.resolve({ snapshot: world.snapshot, fresh: true }),
      onKeksChanged: () => undefined,
    },
    dataKeys: createDataKeys({ keyService, clock }),
    signer: localSigner(generateKeyPair(ED25519).privateKey),
    contracts: () => Promise.resolve(world.contracts),
    pseudonyms: () =>
      Promise.resolve({
        pseudonym: () => {
          throw new Outage('secret-unavailable', 'vectors have no pseudonym keys')
        },
      }),
    newSealingKeys: () => createSealingKeys({ keyService, clock }),
  }
}
