/** Settings of the command line for a gateway on a real cluster: sealgate.yaml, and the private files that it names. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exportPublicJwk } from '../../../lib/envelope/crypto.ts'
import { openLocalSecrets } from '../../../lib/local/secrets.ts'
import { LOCAL_GATEWAY, type Stack } from '../../../lib/local/stack.ts'
import type { Principal } from './rights.ts'
import { type Connection, DEPLOYMENT } from './stack.ts'

export interface CommandPlace {
  readonly connection: Connection
  /** As whom the brokers know the command. */
  readonly principal: Principal
  /** The embedded stack that has keys and contracts, and its folder. */
  readonly stack: Stack
  readonly stackFolder: string
  /** Source topics by channel, and output topics by channel. */
  readonly sources: ReadonlyMap<string, string>
  readonly outputs: ReadonlyMap<string, string>
  readonly auditTopic: string
  readonly quarantineTopic: string
}

/** Writes the files into a folder that is made, for its owner alone. Returns the path of sealgate.yaml. */
export async function writeCommandSettings(folder: string, place: CommandPlace): Promise<string> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { connection, principal, stack, stackFolder } = place
  const file = async (name: string, content: string): Promise<string> => {
    await writeFile(join(folder, name), content, { mode: 0o600 })
    return name
  }
  const text = await readFile(join(stackFolder, 'keys', 'principals.json'), 'utf8')
  const { principals }: { principals: readonly { iss: string; jwk: unknown }[] } = JSON.parse(text)
  const issuers = new Set(stack.contracts.all.flatMap(({ publish }) => [...publish.keys()]))
  const keys: string[] = []
  const gate = principals.find(({ iss }) => iss === LOCAL_GATEWAY)
  for (const { iss, jwk } of principals)
    if (issuers.has(iss)) keys.push(`  ${iss}: file:${await file(`${iss}.jwk`, JSON.stringify(jwk))}`)
  const roots = stack.directory.roots.map(exportPublicJwk)
  const secrets = await openLocalSecrets(join(stackFolder, 'secrets'), stack.clock)
  const pseudonyms = await secrets.read('pseudonyms', stack.clock.now() + 10_000).catch(() => undefined)
  const domains = pseudonyms && (await file('pseudonyms.json', Buffer.from(pseudonyms.value).toString()))
  const lines = [
    `name: ${LOCAL_GATEWAY}`,
    `deployment: ${DEPLOYMENT}`,
    'channels:',
    ...Array.from(place.sources, ([channel, topic]) => `  ${topic}: ${channel}`),
    'topics:',
    ...Array.from(place.outputs, ([channel, topic]) => `  ${channel}: ${topic}`),
    `auditTopic: ${place.auditTopic}`,
    `quarantineTopic: ${place.quarantineTopic}`,
    `contracts: ${join(stackFolder, 'contracts.bundle.json')}`,
    `directory: ${join(stackFolder, 'keys', 'directory.jws')}`,
    `roots: ${await file('roots.json', JSON.stringify(roots))}`,
    `rootKey: file:${join(stackFolder, 'keys', 'root.json')}`,
    `signingKey: file:${await file('gate.jwk', JSON.stringify(gate?.jwk))}`,
    `kekId: ${stack.gateParts().settings.outlet.kekId}`,
    ...(domains === undefined ? [] : [`pseudonyms: ${domains}`]),
    `keyService: local:${join(stackFolder, 'keys')}`,
    'signingKeys:',
    ...keys,
    'kafka:',
    `  brokers: [${connection.brokers.join(', ')}]`,
    `  ssl: { ca: ${await file('ca.pem', connection.ca)} }`,
    '  sasl:',
    '    mechanism: scram-sha-512',
    `    username: ${principal}`,
    `    passwordFile: ${await file(`${principal}.password`, connection.passwords[principal])}`,
    '',
  ]
  return join(folder, await file('sealgate.yaml', lines.join('\n')))
}
