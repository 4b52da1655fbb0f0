/** What every `StagedSecrets` must keep: stages move as in AWS Secrets Manager, and of two who stage at once one succeeds. */
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import type { SecretStage, StagedSecrets } from '../../lib/ports.ts'
import { caseOf } from './known.ts'

export interface SecretsWorld {
  readonly secrets: StagedSecrets
  /** The name of a secret with this current value, in a version of its own. */
  newSecret(value: string): Promise<string>
  /** The name of one that is not there. */
  readonly missing: string
  end(): Promise<void>
}

export const STAGED_SECRETS_CASES = [
  'has nothing pending or previous at first, and says when what is there was made',
  'keeps a pending version aside until it is promoted, and the one before as previous',
  'goes through three values in turn, with the one before always at hand',
  'changes nothing where the same is staged again, and says so where there is another value',
  'promotes only where what was current still is',
  'does not promote over what somebody else made current meanwhile',
  'makes a version current at once where it is asked to',
  'a secret that is not there is an outage to read, and has no version',
  'a version that is not there is not promoted, with nothing changed',
  'a token under 32 characters is refused, with nothing changed',
  'a value over 65,536 bytes is refused, with nothing changed',
  'keeps every byte of a value',
  'keeps its deadline',
] as const
export type StagedSecretsCase = (typeof STAGED_SECRETS_CASES)[number]

const soon = (): number => Date.now() + 10_000
const bytes = (text: string): Buffer => Buffer.from(text)
/** As long as Secrets Manager wants an id to be. */
const token = (letter: string): string => letter.repeat(64)

export function stagedSecretsContract(
  name: string,
  openWorld: () => Promise<SecretsWorld>,
  differences: ReadonlySet<StagedSecretsCase> = new Set(),
): void {
  describe(`${name} as StagedSecrets`, () => {
    let world: SecretsWorld
    let secrets: StagedSecrets
    beforeAll(async () => {
      world = await openWorld()
      secrets = world.secrets
    }, 60_000)
    afterAll(() => world.end())
    const known = caseOf(differences)

    const textAt = async (secret: string, stage: SecretStage): Promise<string | undefined> => {
      const found = await secrets.find(secret, stage, soon())
      return found && Buffer.from(found.value).toString()
    }

    known('has nothing pending or previous at first, and says when what is there was made', async () => {
      const secret = await world.newSecret('one')
      const found = await secrets.find(secret, 'AWSCURRENT', soon())
      expect(Math.abs((found?.createdAt ?? 0) - Date.now())).toBeLessThan(60_000)
      expect(await textAt(secret, 'AWSPENDING')).toBeUndefined()
      expect(await textAt(secret, 'AWSPREVIOUS')).toBeUndefined()
    })

    known('keeps a pending version aside until it is promoted, and the one before as previous', async () => {
      const secret = await world.newSecret('one')
      const from = (await secrets.read(secret, soon())).version
      expect(await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('a'), soon())).toBe('staged')
      expect([await textAt(secret, 'AWSCURRENT'), await textAt(secret, 'AWSPENDING')]).toEqual(['one', 'two'])
      for (let time = 0; time < 2; time++)
        expect(await secrets.promote(secret, token('a'), from, soon())).toBe('promoted')
      expect([await textAt(secret, 'AWSCURRENT'), await textAt(secret, 'AWSPREVIOUS')]).toEqual([
        'two',
        'one',
      ])
      expect((await secrets.read(secret, soon())).version).toBe(token('a'))
      // Secrets Manager leaves the stage on what has become current; others take it away.
      expect(['two', undefined]).toContain(await textAt(secret, 'AWSPENDING'))
    })

    known(
      'changes nothing where the same is staged again, and says so where there is another value',
      async () => {
        const secret = await world.newSecret('one')
        for (let time = 0; time < 2; time++)
          expect(await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('b'), soon())).toBe('staged')
        expect(await secrets.stage(secret, bytes('three'), 'AWSPENDING', token('b'), soon())).toBe('taken')
        expect(await textAt(secret, 'AWSPENDING')).toBe('two')
      },
    )

    known('promotes only where what was current still is', async () => {
      const secret = await world.newSecret('one')
      await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('c'), soon())
      expect(await secrets.promote(secret, token('c'), token('d'), soon())).toBe('changed')
      expect(await textAt(secret, 'AWSCURRENT')).toBe('one')
    })

    known('goes through three values in turn, with the one before always at hand', async () => {
      const secret = await world.newSecret('one')
      for (const [value, letter, before] of [
        ['two', 'g', 'one'],
        ['three', 'h', 'two'],
      ] as const) {
        const from = (await secrets.read(secret, soon())).version
        expect(await secrets.stage(secret, bytes(value), 'AWSPENDING', token(letter), soon())).toBe('staged')
        expect(await secrets.promote(secret, token(letter), from, soon())).toBe('promoted')
        expect([await textAt(secret, 'AWSCURRENT'), await textAt(secret, 'AWSPREVIOUS')]).toEqual([
          value,
          before,
        ])
      }
    })

    known('does not promote over what somebody else made current meanwhile', async () => {
      const secret = await world.newSecret('one')
      const from = (await secrets.read(secret, soon())).version
      await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('i'), soon())
      await secrets.stage(secret, bytes('three'), 'AWSCURRENT', token('j'), soon())
      expect(await secrets.promote(secret, token('i'), from, soon())).toBe('changed')
      expect(await textAt(secret, 'AWSCURRENT')).toBe('three')
    })

    known('makes a version current at once where it is asked to', async () => {
      const secret = await world.newSecret('one')
      expect(await secrets.stage(secret, bytes('two'), 'AWSCURRENT', token('e'), soon())).toBe('staged')
      expect([await textAt(secret, 'AWSCURRENT'), await textAt(secret, 'AWSPREVIOUS')]).toEqual([
        'two',
        'one',
      ])
    })

    known('a secret that is not there is an outage to read, and has no version', async () => {
      const { missing } = world
      await expect(secrets.read(missing, soon())).rejects.toThrow(Outage)
      expect(await secrets.find(missing, 'AWSCURRENT', soon())).toBeUndefined()
      expect(await secrets.find(missing, 'AWSPENDING', soon())).toBeUndefined()
      await expect(secrets.promote(missing, token('k'), token('l'), soon())).rejects.toThrow(Outage)
    })

    known('a version that is not there is not promoted, with nothing changed', async () => {
      const secret = await world.newSecret('one')
      const from = (await secrets.read(secret, soon())).version
      const promoting = secrets.promote(secret, token('m'), from, soon())
      expect(await promoting.catch((error: unknown) => error instanceof Outage && 'changed')).toBe('changed')
      expect(await textAt(secret, 'AWSCURRENT')).toBe('one')
    })

    known('a token under 32 characters is refused, with nothing changed', async () => {
      const secret = await world.newSecret('one')
      await expect(secrets.stage(secret, bytes('x'), 'AWSPENDING', 'short', soon())).rejects.toThrow(Outage)
      expect(await textAt(secret, 'AWSPENDING')).toBeUndefined()
    })

    known('a value over 65,536 bytes is refused, with nothing changed', async () => {
      const secret = await world.newSecret('one')
      const long = Buffer.alloc(65_537, 'x')
      await expect(secrets.stage(secret, long, 'AWSPENDING', token('n'), soon())).rejects.toThrow(Outage)
      expect(await textAt(secret, 'AWSPENDING')).toBeUndefined()
    })

    known('keeps every byte of a value', async () => {
      const value = JSON.stringify({ password: 'ä€𝄞 "\\\u0000', long: 'x'.repeat(60_000) })
      const secret = await world.newSecret('one')
      await secrets.stage(secret, bytes(value), 'AWSCURRENT', token('o'), soon())
      expect(await textAt(secret, 'AWSCURRENT')).toBe(value)
    })

    known('keeps its deadline', async () => {
      const secret = await world.newSecret('one')
      const late = Date.now() - 1
      await expect(secrets.find(secret, 'AWSCURRENT', late)).rejects.toBeInstanceOf(Outage)
      await expect(secrets.stage(secret, bytes('x'), 'AWSPENDING', token('f'), late)).rejects.toThrow(Outage)
    })
  })
}
