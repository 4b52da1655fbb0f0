/** An operator at a command line, with the gate's rights and keys, and Read on what the gate writes. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import kafkajs from 'kafkajs'
import { type Around, type Ran, sealgate } from '../cli/terminal.ts'
import type { RealShop } from './shop.ts'
import { named, right } from './stack/rights.ts'
import { writeCommandSettings } from './stack/settings.ts'
import { connection } from './world.ts'

export interface Operator {
  run(args: readonly string[], around?: Around): Promise<Ran>
  end(): Promise<void>
}

/** Lets the principal `gate` read the audit and the quarantine of a shop. */
export async function letGateRead({ cluster, audit, quarantine }: RealShop): Promise<void> {
  const admin = await cluster.admin()
  const { AclResourceTypes, AclOperationTypes } = kafkajs
  await admin.createAcls({
    acl: [audit, quarantine].map((topic) =>
      right('gate', AclResourceTypes.TOPIC, named(topic), AclOperationTypes.READ),
    ),
  })
}

export async function openOperator(real: RealShop): Promise<Operator> {
  await letGateRead(real)
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-operator-'))
  const { shop, source, audit, quarantine, topicOf } = real
  const { stack } = shop
  const settings = await writeCommandSettings(folder, {
    ...{ connection, principal: 'gate', stack, stackFolder: shop.folder },
    sources: new Map([['orders', source]]),
    outputs: new Map(stack.outputs.map((channel) => [channel, topicOf(channel)])),
    ...{ auditTopic: audit, quarantineTopic: quarantine },
  })
  return {
    run: (args, around) => sealgate([...args, '--settings', settings], around),
    end: () => rm(folder, { recursive: true, force: true }),
  }
}
