/** The keys of the embedded key service as they are kept. */
import type { PrivateJwk } from '../envelope/crypto.ts'
import type { KeyAction, KeySpec, KeyState, PolicyStatement } from './key-service.ts'
import { damaged, isObject } from './private-file.ts'

/** One key as it is kept. */
export interface StoredKey {
  readonly keyId: string
  readonly spec: KeySpec
  readonly state: KeyState
  readonly deletionAt: number | null
  /** Symmetric: base64url of 32 bytes each, the newest last. Asymmetric: one private JWK. */
  readonly materials: readonly (string | PrivateJwk)[]
  readonly policy: readonly PolicyStatement[] | null
}

const SPECS: readonly KeySpec[] = ['SYMMETRIC_DEFAULT', 'ECC_NIST_EDWARDS25519', 'ECC_NIST_P256']
const STATES: readonly KeyState[] = ['Enabled', 'Disabled', 'PendingDeletion']
const ACTIONS: readonly KeyAction[] = ['GenerateDataKey', 'Encrypt', 'Decrypt', 'Sign']

/** What this service wrote, read back; throws `ConfigError` on anything else. */
export function storedKeys(stored: Record<string, unknown>, path: string): StoredKey[] {
  const refuse = (): never => {
    throw damaged(path)
  }
  const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : refuse())
  const text = (value: unknown): string => (typeof value === 'string' ? value : refuse())
  const object = (value: unknown): Record<string, unknown> => (isObject(value) ? value : refuse())
  const oneOf = <T extends string>(known: readonly T[], value: unknown): T =>
    known.find((one) => one === value) ?? refuse()

  const material = (value: unknown): string | PrivateJwk => {
    if (typeof value === 'string') return Buffer.from(value, 'base64url').length === 32 ? value : refuse()
    const { kty, crv, x, y, d } = object(value)
    const jwk = { kty: text(kty), crv: text(crv), x: text(x), d: text(d) }
    return y === undefined ? jwk : { ...jwk, y: text(y) }
  }
  const statement = (value: unknown): PolicyStatement => {
    const { principal, actions, context, contextNames } = object(value)
    const base = {
      principal: text(principal),
      actions: list(actions).map((action) => oneOf(ACTIONS, action)),
      ...(contextNames === undefined ? {} : { contextNames: list(contextNames).map(text) }),
    }
    if (context === undefined) return base
    const conditions = Object.entries(object(context)).map(
      ([name, values]) => [name, list(values).map(text)] as const,
    )
    return { ...base, context: Object.fromEntries(conditions) }
  }
  return list(stored['keys']).map((value) => {
    const key = object(value)
    const materials = list(key['materials']).map(material)
    const { deletionAt, policy } = key
    if (materials.length === 0) return refuse()
    return {
      keyId: text(key['keyId']),
      spec: oneOf(SPECS, key['spec']),
      state: oneOf(STATES, key['state']),
      deletionAt: deletionAt === null || typeof deletionAt === 'number' ? deletionAt : refuse(),
      materials,
      policy: policy === null ? null : list(policy).map(statement),
    }
  })
}
