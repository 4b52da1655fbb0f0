/**
 * What the package publishes: all that an application needs to seal and open events (docs/client.md). Nothing inside
 * imports this file. A name that leaves it, or changes, is a new major version.
 */
import { activeTrace } from '../adapters/tracing.ts'
import { createSealer as createPlainSealer, type Sealer } from './sealer.ts'
import type { SealerOptions } from './sealer-options.ts'

export { type EventInput, RefusedEvents, type Refusal } from './event.ts'
export {
  createOpener,
  type KafkaBatch,
  type KafkaHeaders,
  type KafkaMessage,
  type KafkaRecord,
  type Opened,
  type OpenedEvent,
  type Opener,
  type OpenerOptions,
  type ReplayStore,
  type Sighting,
} from './opener.ts'
export type { Sealer } from './sealer.ts'
export type { SealedBatch, SealedMessage, SealerOptions } from './sealer-options.ts'
export type { TraceContext } from '../trace-context.ts'
export { systemClock } from './machine.ts'

export {
  ConfigError,
  type Fault,
  Outage,
  type OutageCode,
  Rejection,
  type RejectionCode,
  REJECTION_CODES,
} from '../errors.ts'
export type {
  Clock,
  DocumentSource,
  EncryptionContext,
  Kek,
  KeyService,
  SecretStore,
  Signer,
} from '../ports.ts'

// Keys: signing keys of this process, and the directory that says whose keys count.
export {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  importPrivateKey,
  importPublicKey,
  type PrivateJwk,
  type PrivateKey,
  type PublicJwk,
  type PublicKey,
  thumbprint,
} from '../envelope/crypto.ts'
export { ED25519, ESP256, type SignatureSuite } from '../envelope/suite.ts'
export type { DataKeyCounts } from '../keys/data-keys.ts'
export { localSigner } from '../keys/signer.ts'
export { openSecretSigner, type SecretSignerOptions } from '../keys/signing-secret.ts'
export type { Directory, DirectoryCopy, DirectorySnapshot } from '../keys/directory.ts'
export {
  type DirectoryDocument,
  type KekEntry,
  sealDirectory,
  type SigningKeyEntry,
} from '../keys/directory-document.ts'
export { createDirectory, type DirectoryOptions } from '../keys/directory-reader.ts'

// Contracts, for those who check events against them before sealing.
export type { Contract, Contracts } from '../contract/contract.ts'
export { type ContractSource, loadContracts } from '../contract/load.ts'

// The world: AWS KMS, files, and the embedded key service for trying things out.
export { documentFile, type DocumentFileOptions } from '../adapters/document-file.ts'
export { kmsKeyService, type KmsOptions, kmsSigner } from '../adapters/kms.ts'
export { secretsManager } from '../adapters/secrets-manager.ts'
export { continueTrace } from '../adapters/tracing.ts'
export { type LocalKeyService, openLocalKeyService } from '../local/key-service.ts'
export { localKeyPort } from '../local/key-service-port.ts'

/**
 * A producer's sealer. Make one when the process starts and keep it: each has a session of its own, and a gateway takes
 * at most 64 live sessions of an issuer in a partition. A copy of a running process (a snapshot that is restored twice)
 * must make its own, after it was copied; worker threads and child processes of Node share nothing. Events are sent with
 * OpenTelemetry's active trace, where there is one and the option `trace` says nothing else.
 *
 * Throws `TypeError` that names every unknown or wrong option.
 */
export function createSealer(options: SealerOptions): Sealer {
  return createPlainSealer({ trace: activeTrace, ...options })
}
