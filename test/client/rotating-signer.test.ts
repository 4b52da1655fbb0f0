import { expect, it } from 'vitest'
import { createOpener } from '../../lib/client/opener.ts'
import { createSealer } from '../../lib/client/sealer.ts'
import { publicKeyOf } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { Outage } from '../../lib/errors.ts'
import {
  kidOf,
  newSigningSecret,
  openSecretSigner,
  readSigningSecret,
} from '../../lib/keys/signing-secret.ts'
import type { SecretStore } from '../../lib/ports.ts'
import { directoryOf, eventOf, kekRow, producer, type Producer, received, shop } from './shop.ts'

/** A row of the directory for the key of a secret. */
function rowed(value: Uint8Array): Producer {
  const key = readSigningSecret(value, 'secret')
  const given = producer('shipping-service')
  const kid = Buffer.from(kidOf(key), 'base64url')
  return { ...given, row: { ...given.row, kid, kidText: kidOf(key), key: publicKeyOf(key) } }
}

it('a sealer goes on with the new key when its secret is rotated, and what it sealed opens, before and after', async () => {
  const { clock, keyService, sealing, opening } = shop()
  const values = [newSigningSecret(ED25519), newSigningSecret(ED25519)]
  let turn = 0
  let isDown = false
  const secrets: SecretStore = {
    read: () => {
      const value = values[turn]
      return isDown || value === undefined
        ? Promise.reject(new Outage('secret-unavailable', 'down'))
        : Promise.resolve({ value, version: String(turn) })
    },
  }
  const signer = await openSecretSigner({ secrets, secret: 'secret', clock }, clock.now() + 1000)
  const sealer = createSealer({ ...sealing, signer, lifeSeconds: 86_400 })
  const event = { source: '/shipping', type: 'shipped', data: { id: 1 } }
  const before = await sealer.seal('orders', event)
  turn = 1
  clock.ms += 60_001
  const after = await sealer.seal('orders', event)
  isDown = true
  clock.ms += 3_600_001
  await expect(sealer.seal('orders', event)).rejects.toMatchObject({ code: 'signer-unavailable' })
  await sealer.close()
  const opened = async (value: Uint8Array, batch: typeof before) => {
    const directory = directoryOf([rowed(value)], [kekRow(['shipping-service'])])
    const opener = createOpener({ ...opening, keyService, directory })
    const [message] = batch.messages
    const record = { topic: 'orders', partition: message!.partition, message: received(message!) }
    return opener.open(record)
  }
  // Each under a directory that knows the one key alone.
  expect(eventOf(await opened(values[0]!, before)).data).toEqual({ id: 1 })
  expect(eventOf(await opened(values[1]!, after)).data).toEqual({ id: 1 })
  expect(await opened(values[0]!, after)).toMatchObject({ opened: false, code: 'key-unknown' })
})
