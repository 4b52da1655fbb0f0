/** What every `StagedSecrets` must keep: stages move as in AWS Secrets Manager, and of two who stage at once one succeeds. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import type { SecretStage, StagedSecrets } from '../../lib/ports.ts'

export interface SecretsWorld {
  readonly secrets: StagedSecrets
  /** The name of a secret with this current value, in a version of its own. */
  newSecret(value: string): Promise<string>
  end(): Promise<void>
}

const soon = (): number => Date.now() + 10_000
const bytes = (text: string): Buffer => Buffer.from(text)
/** As long as Secrets Manager wants an id to be. */
const token = (letter: string): string => letter.repeat(64)

export function stagedSecretsContract(name: string, openWorld: () => Promise<SecretsWorld>): void {
  describe(`${name} as StagedSecrets`, () => {
    let world: SecretsWorld
    let secrets: StagedSecrets
    beforeAll(async () => {
      world = await openWorld()
      secrets = world.secrets
    }, 60_000)
    afterAll(() => world.end())

    const textAt = async (secret: string, stage: SecretStage): Promise<string | undefined> => {
      const found = await secrets.find(secret, stage, soon())
      return found && Buffer.from(found.value).toString()
    }

    it('has nothing pending or previous at first, and says when what is there was made', async () => {
      const secret = await world.newSecret('one')
      const found = await secrets.find(secret, 'AWSCURRENT', soon())
      expect(Math.abs((found?.createdAt ?? 0) - Date.now())).toBeLessThan(60_000)
      expect(await textAt(secret, 'AWSPENDING')).toBeUndefined()
      expect(await textAt(secret, 'AWSPREVIOUS')).toBeUndefined()
    })

    it('keeps a pending version aside until it is promoted, and the one before as previous', async () => {
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

    it('changes nothing where the same is staged again, and says so where there is another value', async () => {
      const secret = await world.newSecret('one')
      for (let time = 0; time < 2; time++)
        expect(await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('b'), soon())).toBe('staged')
      expect(await secrets.stage(secret, bytes('three'), 'AWSPENDING', token('b'), soon())).toBe('taken')
      expect(await textAt(secret, 'AWSPENDING')).toBe('two')
    })

    it('promotes only where what was current still is', async () => {
      const secret = await world.newSecret('one')
      await secrets.stage(secret, bytes('two'), 'AWSPENDING', token('c'), soon())
      expect(await secrets.promote(secret, token('c'), token('d'), soon())).toBe('changed')
      expect(await textAt(secret, 'AWSCURRENT')).toBe('one')
    })

    it('makes a version current at once where it is asked to', async () => {
      const secret = await world.newSecret('one')
      expect(await secrets.stage(secret, bytes('two'), 'AWSCURRENT', token('e'), soon())).toBe('staged')
      expect([await textAt(secret, 'AWSCURRENT'), await textAt(secret, 'AWSPREVIOUS')]).toEqual([
        'two',
        'one',
      ])
    })

    it('keeps its deadline', async () => {
      const secret = await world.newSecret('one')
      const late = Date.now() - 1
      await expect(secrets.find(secret, 'AWSCURRENT', late)).rejects.toBeInstanceOf(Outage)
      await expect(secrets.stage(secret, bytes('x'), 'AWSPENDING', token('f'), late)).rejects.toThrow(Outage)
    })
  })
}
