/** The peers: other ways to bring the same payload, encrypted and signed, from a producer to its reader. */
import { createRequire } from 'node:module'
import { random } from '../lib/envelope/crypto.ts'
import type { Peer } from './measure.ts'
import { orderOf, SLICE, TYPE } from './world.ts'

const PACKAGES = { sdk: '@aws-crypto/client-node', jose: 'jose' }
const PAYLOADS = Array.from({ length: SLICE }, (_, index) => orderOf(index, 1024))

/** Whether `npm ci --prefix bench` has been done. */
export function peersInstalled(): boolean {
  return Object.values(PACKAGES).every((name) => versionOf(name) !== undefined)
}

/** Names and versions of those that are installed. */
export function peerVersions(): Record<string, string> {
  return Object.fromEntries(Object.values(PACKAGES).map((name) => [name, versionOf(name) ?? 'not installed']))
}

export async function loadPeers(): Promise<Peer[]> {
  return [await encryptionSdk(), await joseInARow()]
}

function versionOf(name: string): string | undefined {
  try {
    const manifest: unknown = createRequire(import.meta.url)(`./node_modules/${name}/package.json`)
    return typeof manifest === 'object' && manifest !== null && 'version' in manifest
      ? String(manifest.version)
      : undefined
  } catch {
    return undefined
  }
}

async function peerOf<Message>(
  name: string,
  seal: (payload: Uint8Array) => Promise<Message>,
  open: (message: Message) => Promise<Uint8Array>,
): Promise<Peer> {
  const messages: Message[] = []
  for (const payload of PAYLOADS) messages.push(await seal(payload))
  const inARow = async <T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> => {
    for (const item of items) await work(item)
  }
  const openAndParse = async (message: Message): Promise<unknown> =>
    JSON.parse(Buffer.from(await open(message)).toString())
  return {
    name,
    opening: { name, events: SLICE, run: () => inARow(messages, openAndParse) },
    sealing: { name, events: SLICE, run: () => inARow(PAYLOADS, seal) },
  }
}

/** Suite 0x0578: HKDF, key commitment, AES-256-GCM, ECDSA P-384; data keys cached on both sides. */
async function encryptionSdk(): Promise<Peer> {
  const sdk = await import('@aws-crypto/client-node')
  const suiteId = sdk.AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
  const client = sdk.buildClient(sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
  const keyring = new sdk.RawAesKeyringNode({
    keyName: 'bench',
    keyNamespace: 'bench',
    unencryptedMasterKey: random(32),
    wrappingSuite: sdk.RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
  })
  const cache = sdk.getLocalCryptographicMaterialsCache(100)
  const materials = new sdk.NodeCachingMaterialsManager({
    backingMaterials: keyring,
    cache,
    maxAge: 3_600_000,
  })
  const encryptionContext = { iss: 'urn:shop:checkout', aud: 'urn:shop:gateway', type: TYPE }
  return peerOf(
    'aws-encryption-sdk',
    async (payload) => {
      const options = { suiteId, encryptionContext, plaintextLength: payload.length }
      return (await client.encrypt(materials, payload, options)).result
    },
    async (message) => (await client.decrypt(materials, message)).plaintext,
  )
}

/** A JWE (`dir`, A256GCM) within a JWS (EdDSA, Ed25519), both compact. */
async function joseInARow(): Promise<Peer> {
  const jose = await import('jose')
  const { publicKey, privateKey } = await jose.generateKeyPair('EdDSA', { crv: 'Ed25519' })
  const dataKey = await crypto.subtle.importKey('raw', random(32), 'AES-GCM', false, ['encrypt', 'decrypt'])
  const decryption = { keyManagementAlgorithms: ['dir'], contentEncryptionAlgorithms: ['A256GCM'] }
  return peerOf(
    'jose',
    async (payload) => {
      const encryption = new jose.CompactEncrypt(payload).setProtectedHeader({ alg: 'dir', enc: 'A256GCM' })
      const jwe = Buffer.from(await encryption.encrypt(dataKey))
      return new jose.CompactSign(jwe).setProtectedHeader({ alg: 'EdDSA' }).sign(privateKey)
    },
    async (message) => {
      const { payload } = await jose.compactVerify(message, publicKey, { algorithms: ['EdDSA'] })
      return (await jose.compactDecrypt(payload, dataKey, decryption)).plaintext
    },
  )
}
