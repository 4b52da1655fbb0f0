/** Two users of one principal on the shared cluster, each in a secret, and the secret that names the first. */
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { type AclEntry, Kafka } from 'kafkajs'
import { kafkaUsers } from '../../lib/adapters/kafka-users.ts'
import type { ScramLogin } from '../../lib/keys/rotation-state.ts'
import { clientConfig } from './stack/stack.ts'
import { type Cluster, connection, settings, soon, unique } from './world.ts'

export interface Principal {
  readonly pointer: string
  readonly secrets: readonly string[]
  /** As they are at first; the pointer names the first. */
  readonly logins: readonly [ScramLogin, ScramLogin]
}

const users = kafkaUsers(settings({}, 'admin'), { now: () => Date.now() })

/** Makes them at the brokers, with these rights each, and in the Secrets Manager that the environment names. */
export async function newPrincipal(
  cluster: Cluster,
  usernames: readonly [string, string],
  acl: readonly AclEntry[],
): Promise<Principal> {
  const client = new SecretsManagerClient({})
  const keep = async (name: string, login: ScramLogin): Promise<string> => {
    const command = new CreateSecretCommand({ Name: name, SecretString: JSON.stringify(login) })
    return (await client.send(command)).ARN ?? ''
  }
  const admin = await cluster.admin()
  const [first, second] = usernames
  const logins = [
    { username: first, password: unique() },
    { username: second, password: unique() },
  ] as const
  const secrets: string[] = []
  for (const login of logins) {
    await admin.createAcls({ acl: acl.map((entry) => ({ ...entry, principal: `User:${login.username}` })) })
    await users.setPassword(login, soon())
    secrets.push(await keep(login.username, login))
  }
  const pointer = await keep(`pointer-to-${first}`, logins[0])
  client.destroy()
  return { pointer, secrets, logins }
}

/** kafkajs, as such a user. */
export const clientAs = ({ username, password }: ScramLogin): Kafka =>
  new Kafka({
    ...clientConfig(connection, 'admin'),
    sasl: { mechanism: 'scram-sha-512', username, password },
    retry: { retries: 0 },
  })

/** Whether the broker takes this login, by one look. */
export async function isTaken(login: ScramLogin): Promise<boolean> {
  const client = clientAs(login).admin()
  try {
    await client.connect()
    return true
  } catch (error) {
    if (String(error).includes('SASL SCRAM SHA512 authentication failed')) return false
    throw error
  } finally {
    await client.disconnect()
  }
}
