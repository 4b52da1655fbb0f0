/**
 * As much of the peers' own types as the benchmarks use, so that this folder type-checks without them
 * (they are installed only when a benchmark wants them).
 */
declare module '@aws-crypto/client-node' {
  export interface Cache {
    del(key: string): void
  }
  export interface Keyring {
    readonly keyName: string
  }
  export const RawAesKeyringNode: new (input: {
    keyName: string
    keyNamespace: string
    unencryptedMasterKey: Uint8Array
    wrappingSuite: number
  }) => Keyring
  export interface MaterialsManager {
    readonly _cache: Cache
  }
  export const NodeCachingMaterialsManager: new (input: {
    backingMaterials: Keyring
    cache: Cache
    maxAge: number
  }) => MaterialsManager
  export const RawAesWrappingSuiteIdentifier: { readonly AES256_GCM_IV12_TAG16_NO_PADDING: number }
  export const AlgorithmSuiteIdentifier: {
    readonly ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY: number
    readonly ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY_ECDSA_P384: number
  }
  export const CommitmentPolicy: { readonly REQUIRE_ENCRYPT_REQUIRE_DECRYPT: string }
  export function getLocalCryptographicMaterialsCache(capacity: number): Cache
  export function buildClient(policy: string): {
    encrypt(
      materials: MaterialsManager,
      plaintext: Uint8Array,
      options: { suiteId: number; encryptionContext: Record<string, string>; plaintextLength: number },
    ): Promise<{ result: Buffer }>
    decrypt(materials: MaterialsManager, message: Uint8Array): Promise<{ plaintext: Buffer }>
  }
}

declare module 'jose' {
  import type { webcrypto } from 'node:crypto'

  type Key = webcrypto.CryptoKey

  export function generateKeyPair(
    alg: string,
    options?: { crv?: string },
  ): Promise<{ publicKey: Key; privateKey: Key }>
  export function compactVerify(
    jws: string | Uint8Array,
    key: Key,
    options?: { algorithms: string[] },
  ): Promise<{ payload: Uint8Array }>
  export function compactDecrypt(
    jwe: string | Uint8Array,
    key: Key,
    options?: { keyManagementAlgorithms: string[]; contentEncryptionAlgorithms: string[] },
  ): Promise<{ plaintext: Uint8Array }>
  export class CompactSign {
    constructor(payload: Uint8Array)
    setProtectedHeader(header: Record<string, string>): this
    sign(key: Key): Promise<string>
  }
  export class CompactEncrypt {
    constructor(plaintext: Uint8Array)
    setProtectedHeader(header: Record<string, string>): this
    encrypt(key: Key): Promise<string>
  }
}
