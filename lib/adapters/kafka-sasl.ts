/** SASL: who we are, proven anew on every connection by what the settings name, as of now. */
import type { AuthenticationProviderArgs, Authenticator, Mechanism } from 'kafkajs'
import plain from 'kafkajs/src/broker/saslAuthenticator/plain.js'
import scram256 from 'kafkajs/src/broker/saslAuthenticator/scram256.js'
import scram512 from 'kafkajs/src/broker/saslAuthenticator/scram512.js'
import type { Clock, SecretStore } from '../ports.ts'
import { endpointToken, iamToken } from './bearer-token.ts'
import { credentialsOf } from './kafka-credentials.ts'
import { authenticateByKerberos, sized } from './kafka-gssapi.ts'
import type { KafkaSasl, PasswordMechanism } from './kafka-settings.ts'
import type { Source } from './renewable.ts'

export interface SaslOptions {
  readonly secrets: SecretStore
  readonly clock: Clock
  /** How long getting credentials or a token may take, milliseconds. */
  readonly timeoutMs: number
}

/** What was refused has been replaced since: the same on a new connection may succeed. Without a cause, which would speak for it. */
class CredentialsRenewed extends Error {
  override readonly name = 'CredentialsRenewed'
}

/** For kafkajs. Authenticating rejects with what the connection or the broker said, or with `Outage`. */
export function mechanismOf(sasl: KafkaSasl, options: SaslOptions): Mechanism {
  switch (sasl.mechanism) {
    case 'plain':
    case 'scram-sha-256':
    case 'scram-sha-512': {
      const names = { name: 'username', secret: 'password' }
      const source = credentialsOf(sasl.login, names, options.secrets, options.clock)
      const provider = PASSWORD_PROVIDERS[sasl.mechanism]
      return renewing(sasl.mechanism, source, options, ({ name: username, secret: password }, args) =>
        provider({ username, password })(args).authenticate(),
      )
    }
    case 'oauthbearer': {
      const names = { name: 'clientId', secret: 'clientSecret' }
      const source = credentialsOf(sasl.login, names, options.secrets, options.clock)
      return renewing('oauthbearer', endpointToken(sasl, source, options.clock), options, sendToken)
    }
    case 'aws-msk-iam':
      return renewing('oauthbearer', iamToken(sasl.region, options.clock), options, sendToken)
    case 'gssapi':
      return {
        mechanism: 'gssapi',
        authenticationProvider: (args): Authenticator => ({
          authenticate: () => {
            const { clock, timeoutMs } = options
            return authenticateByKerberos(sasl.serviceName, args, clock, clock.now() + timeoutMs)
          },
        }),
      }
  }
}

const PASSWORD_PROVIDERS: Readonly<Record<PasswordMechanism, typeof plain>> = {
  plain,
  'scram-sha-256': scram256,
  'scram-sha-512': scram512,
}

function renewing<T>(
  mechanism: string,
  source: Source<T>,
  { clock, timeoutMs }: SaslOptions,
  prove: (credentials: T, args: AuthenticationProviderArgs) => Promise<void>,
): Mechanism {
  const authenticate = async (args: AuthenticationProviderArgs): Promise<void> => {
    const credentials = await source.current(clock.now() + timeoutMs)
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
  return {
    mechanism,
    authenticationProvider: (args): Authenticator => ({ authenticate: () => authenticate(args) }),
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
