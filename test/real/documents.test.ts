/** The key directory in S3 and Secrets Manager, on an emulator of AWS. Which differences others have: docs/keys.md. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { documentPlace, openDocument, openDocumentStore } from '../../lib/adapters/document-place.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { rootsOf } from '../../lib/settings.ts'
import { sealgate } from '../cli/terminal.ts'
import { documentStoreContract } from '../contract-suites/document-store.ts'
import type { Emulator } from './emulators/emulator.ts'
import { MOTO_MS, startMoto } from './emulators/moto.ts'

const clock = { now: () => Date.now() }
const options = { outage: 'directory-unavailable', clock } as const
let moto: Emulator
beforeAll(async () => {
  moto = await startMoto()
}, MOTO_MS)
afterAll(() => moto.end())

async function newObject(): Promise<string> {
  const Bucket = `sealgate-${randomUUID()}`
  const region = { LocationConstraint: 'eu-central-1' } as const
  await new S3Client().send(new CreateBucketCommand({ Bucket, CreateBucketConfiguration: region }))
  return `s3://${Bucket}/keys/directory.jws`
}

async function newSecret(): Promise<string> {
  const made = await new SecretsManagerClient().send(
    new CreateSecretCommand({ Name: `directory-${randomUUID()}` }),
  )
  return made.ARN ?? ''
}

for (const [name, newPlace] of [
  ['an object in S3', newObject],
  ['a secret', newSecret],
] as const) {
  documentStoreContract(`${name}, on moto,`, () =>
    Promise.resolve({
      newPlace: async () => {
        const place = documentPlace(await newPlace())
        return () => openDocumentStore(place, options)
      },
      end: () => Promise.resolve(),
    }),
  )

  describe(`the key directory in ${name}`, () => {
    it('is made and changed by the command line, by several at once, and read as gates read it', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'sealgate-documents-'))
      try {
        const location = await newPlace()
        const file = join(folder, 'sealgate.yaml')
        await writeFile(
          file,
          `directory: ${location}\nroots: roots.json\nrootKey: file:root.jwk\nlifecycleAudit: none\n`,
        )
        const run = async (...args: string[]): Promise<string> => {
          const { out, err, status } = await sealgate(args)
          expect({ err, status }).toEqual({ err: '', status: 0 })
          return out
        }
        const at = (...args: string[]): Promise<string> => run(...args, '--settings', file)
        const roots = await run('keys', 'new', join(folder, 'root.jwk'))
        await writeFile(join(folder, 'roots.json'), roots)
        expect(await at('directory', 'init')).toContain(`Published version 1 at ${location}.`)
        const gate = createDirectory({
          source: openDocument(documentPlace(location), options),
          roots: rootsOf(Buffer.from(roots)),
          ...{ clock, maxAgeMs: 0 },
        })
        expect((await gate.snapshot(Date.now() + 5000)).snapshot.version).toBe(1)
        const enrol = async (iss: string): Promise<void> => {
          const own = join(folder, iss)
          await run('keys', 'new', `${own}.jwk`)
          await writeFile(`${own}.challenge`, await at('keys', 'challenge', iss))
          await writeFile(
            `${own}.proof`,
            await run('keys', 'prove', `${own}.challenge`, '--key', `${own}.jwk`),
          )
          await at('keys', 'enrol', `${own}.proof`)
        }
        await Promise.all(['a', 'b', 'c'].map(enrol))
        const { snapshot } = await gate.snapshot(Date.now() + 5000)
        expect([snapshot.version, snapshot.signingKeys.map(({ iss }) => iss).sort()]).toEqual([
          4,
          ['a', 'b', 'c'],
        ])
      } finally {
        await rm(folder, { recursive: true })
      }
    })
  })
}
