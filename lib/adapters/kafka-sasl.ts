/** SASL: who we are, proven anew on every connection by what the settings name, as of now. */
import type { AuthenticationProviderArgs, Authenticator, Mechanism } from 'kafkajs'
import plain from 'kafkajs/src/broker/saslAuthenticator/plain.js'
import scram256 from 'kafkajs/src/broker/saslAuthenticator/scram256.js'
import scram512 from 'kafkajs/src/broker/saslAuthenticator/scram512.js'
import { endpointToken, iamToken } from './bearer-token.ts'
import { type Credentials, credentialsOf, type SecretReading } from './kafka-credentials.ts'
import { authenticateByKerberos, sized } from './kafka-gssapi.ts'
import type { KafkaSasl, PasswordMechanism } from './kafka-settings.ts'
import type { Source } from './renewable.ts'

export interface SaslOptions extends SecretReading {
  /** How long getting credentials or a token may take, milliseconds. */
  readonly timeoutMs: number
}

/** For one connection, from its first authentication on (K20): a connection keeps its user (KIP-368). */
interface ConnectionMechanism extends Mechanism {
  readonly ofConnection: () => ConnectionMechanism
}

/** What kafkajs asks for, and what it does not. */
export interface KafkaMechanism extends ConnectionMechanism {
  /** Reads what proves who we are. Rejects with `Outage`. */
  ready(): Promise<unknown>
  /** The user that a secret names now, as far as is known; undefined where none does. */
  user(): string | undefined
}

/** What was refused has been replaced since: the same on a new connection may succeed. Without a cause, which would speak for it. */
class CredentialsRenewed extends Error {
  override readonly name = 'CredentialsRenewed'
}

/** For kafkajs. Authenticating rejects with what the connection or the broker said, or with `Outage`. */
export function mechanismOf(sasl: KafkaSasl, options: SaslOptions): KafkaMechanism {
  switch (sasl.mechanism) {
    case 'plain':
    case 'scram-sha-256':
    case 'scram-sha-512': {
      const source = credentialsOf(sasl.login, { name: 'username', secret: 'password' }, options)
      const provider = PASSWORD_PROVIDERS[sasl.mechanism]
      const prove: Prove<Credentials> = ({ name: username, secret: password }, args) =>
        provider({ username, password })(args).authenticate()
      const userOf = ({ name }: Credentials): string => name
      return renewing({ mechanism: sasl.mechanism, source, options, prove, userOf })
    }
    case 'oauthbearer': {
      const source = credentialsOf(sasl.login, { name: 'clientId', secret: 'clientSecret' }, options)
      return tokens(endpointToken(sasl, source, options.clock), options)
    }
    case 'aws-msk-iam':
      return tokens(iamToken(sasl.region, options.clock), options)
    case 'gssapi': {
      const authenticationProvider = (args: AuthenticationProviderArgs): Authenticator => ({
        authenticate: () => {
          const { clock, timeoutMs } = options
          return authenticateByKerberos(sasl.serviceName, args, clock, clock.now() + timeoutMs)
        },
      })
      const mechanism: KafkaMechanism = {
        ...{ mechanism: 'gssapi', authenticationProvider },
        ofConnection: () => mechanism,
        ready: () => Promise.resolve(),
        user: () => undefined,
      }
      return mechanism
    }
  }
}

const PASSWORD_PROVIDERS: Readonly<Record<PasswordMechanism, typeof plain>> = {
  plain,
  'scram-sha-256': scram256,
  'scram-sha-512': scram512,
}

type Prove<T> = (credentials: T, args: AuthenticationProviderArgs) => Promise<void>

interface Proof<T> {
  readonly mechanism: string
  readonly source: Source<T>
  readonly options: SaslOptions
  readonly prove: Prove<T>
  /** Whom a broker takes them for; undefined where it is always the same. */
  readonly userOf: (credentials: T) => string | undefined
}

/** A token says whose it is; ours are always of one. */
const tokens = (source: Source<string>, options: SaslOptions): KafkaMechanism =>
  renewing({ mechanism: 'oauthbearer', source, options, prove: sendToken, userOf: () => undefined })

function renewing<T>(proof: Proof<T>): KafkaMechanism {
  const { mechanism, source, userOf } = proof
  const { clock, timeoutMs } = proof.options
  const ofConnection = (): ConnectionMechanism => {
    // What this connection last authenticated with. Its user is as good as before, where another is to follow him.
    let held: T | undefined
    const authenticate = async (args: AuthenticationProviderArgs): Promise<void> => {
      const latest = await source.current(clock.now() + timeoutMs)
      const credentials = held !== undefined && userOf(held) !== userOf(latest) ? held : latest
      await proveOnce(proof, credentials, args)
      held = credentials
    }
    const authenticationProvider = (args: AuthenticationProviderArgs): Authenticator => ({
      authenticate: () => authenticate(args),
    })
    return { mechanism, authenticationProvider, ofConnection }
  }
  return {
    ...ofConnection(),
    ready: () => source.current(clock.now() + timeoutMs),
    user: () => {
      const known = source.glance?.(clock.now() + timeoutMs)
      return known === undefined ? undefined : userOf(known)
    },
  }
}

async function proveOnce<T>(
  { source, options: { clock, timeoutMs }, prove }: Proof<T>,
  credentials: T,
  args: AuthenticationProviderArgs,
): Promise<void> {
  // kafkajs's mechanisms make one error of a refusal and of a lost connection: what came first says which it was.
  let first: unknown
  try {
    await prove(credentials, {
      ...args,
      saslAuthenticate: (exchange) =>
        args.saslAuthenticate(exchange).catch((error: unknown) => {
          first ??= error
          throw error
        }),
    })
  } catch (error) {
    const cause = first ?? error
    if (isRefusal(cause) && (await source.isRenewed(credentials, clock.now() + timeoutMs)))
      throw new CredentialsRenewed('it refused credentials that have been replaced since')
    throw cause
  }
}

const isRefusal = (error: unknown): boolean =>
  error instanceof TokenRefused ||
  (error instanceof Error && 'type' in error && error.type === 'SASL_AUTHENTICATION_FAILED')

/** The broker answered a token with a challenge (RFC 7628 §3.2.2), which kafkajs's own mechanism does not look at (K9). */
class TokenRefused extends Error {
  override readonly name = 'KafkaJSSASLAuthenticationError'
}

const TOKEN_REFUSED = 'SASL OAUTHBEARER: the broker refuses our token'
const SEPARATOR = '\u0001'

async function sendToken(token: string, { saslAuthenticate }: AuthenticationProviderArgs): Promise<void> {
  const message = Buffer.from(`n,,${SEPARATOR}auth=Bearer ${token}${SEPARATOR}${SEPARATOR}`)
  await saslAuthenticate({
    request: { encode: () => sized(message) },
    response: {
      decode: (raw) => raw.subarray(4),
      parse: (challenge) => {
        if (challenge.length > 0) throw new TokenRefused(`${TOKEN_REFUSED}${statusIn(challenge)}`)
      },
    },
  })
}

/** The challenge's `status`, where it is a plain word. */
function statusIn(challenge: Buffer): string {
  const status = /"status"\s*:\s*"([a-z_]{1,40})"/.exec(challenge.toString('utf8', 0, 1000))?.[1]
  return status === undefined ? '' : ` (${status})`
}
