/**
 * Where the emulators are known to differ from AWS: the cases of the contract suites that do not hold on them. The suites
 * fail where a difference is no longer there; docs/keys.md names each with what the emulator does instead, and a test
 * holds the two together.
 */
import type { KeyMaterialCase } from '../../contract-suites/key-material.ts'
import type { KeyServiceCase } from '../../contract-suites/key-service.ts'
import type { KeySignerCase } from '../../contract-suites/key-signer.ts'
import type { StagedSecretsCase } from '../../contract-suites/staged-secrets.ts'

export interface Differences {
  readonly keyService: ReadonlySet<KeyServiceCase>
  readonly keyMaterial: ReadonlySet<KeyMaterialCase>
  readonly keySigner: ReadonlySet<KeySignerCase>
  readonly stagedSecrets: ReadonlySet<StagedSecretsCase>
}

export const MOTO: Differences = {
  keyService: new Set([
    'bytes that no key service made are a definite no',
    'another KEK than the one that wrapped is a definite no',
    'a KEK that signs is an outage',
    'a disabled KEK is an outage, and works again when enabled',
    'a KEK pending deletion is an outage',
  ]),
  keyMaterial: new Set([
    'a period is told back with the day that it is due, and replaced by another',
    'a period under 90 or over 2,560 days is refused, with nothing changed',
    'after 25 rotations on demand no more is made',
    'an asymmetric key is refused',
    'a disabled key is refused',
  ]),
  keySigner: new Set([
    'P-256: messages over 4,096 bytes too',
    'Ed25519: signatures of 64 bytes that verify',
    'a disabled key does not sign',
    'a key pending deletion does not sign',
  ]),
  stagedSecrets: new Set([
    'changes nothing where the same is staged again, and says so where there is another value',
    'a version that is not there is not promoted, with nothing changed',
    'a value over 65,536 bytes is refused, with nothing changed',
  ]),
}

export const MINISTACK: Differences = {
  keyService: new Set([
    'a tampered blob is a definite no',
    'another KEK than the one that wrapped is a definite no',
    'a KEK that is not there is an outage',
    'what was wrapped before a rotation still unwraps',
  ]),
  keyMaterial: new Set([
    'a new key is not rotated, and may be 25 times on demand',
    'a period is told back with the day that it is due, and replaced by another',
    'a period under 90 or over 2,560 days is refused, with nothing changed',
    'a rotation on demand is dated and counted',
    'after 25 rotations on demand no more is made',
    'an asymmetric key is refused',
    'a disabled key is refused',
    'a key that is not there is refused',
  ]),
  keySigner: new Set([]),
  stagedSecrets: new Set([
    'changes nothing where the same is staged again, and says so where there is another value',
    'a token under 32 characters is refused, with nothing changed',
    'a value over 65,536 bytes is refused, with nothing changed',
  ]),
}
