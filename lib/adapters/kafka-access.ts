/**
 * How each connection to a broker is made: TLS, and who we are. Files and secrets are looked at again, so that
 * connections opened later use what was put there since, without a restart.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, type SecureContextOptions } from 'node:tls'
import type { ISocketFactory, ISocketFactoryArgs, KafkaConfig } from 'kafkajs'
import type { Clock, SecretStore } from '../ports.ts'
import { isRefusedCertificate } from './kafka-outage.ts'
import { keptSecret, textOf, unusable } from './kafka-credentials.ts'
import { type KafkaMechanism, mechanismOf } from './kafka-sasl.ts'
import { isUsable, type KafkaConnectionSettings, type KafkaTls } from './kafka-settings.ts'
import type { Renewable } from './renewable.ts'
import { secretsManager } from './secrets-manager.ts'

const KEEP_ALIVE_MS = 60_000

export class KafkaAccess {
  readonly #settings: KafkaConnectionSettings
  readonly #clock: Clock
  readonly #config: Omit<KafkaConfig, 'brokers'>
  readonly #mechanism: KafkaMechanism | undefined
  readonly #clientSecret: Renewable<SecureContextOptions> | undefined
  /** As of the last time when all of it could be read. */
  #context: SecureContextOptions | undefined

  /** @param secrets by default AWS Secrets Manager */
  constructor(settings: KafkaConnectionSettings, clock: Clock, secrets: SecretStore = secretsManager(clock)) {
    const { tls, sasl, clientId } = settings
    this.#settings = settings
    this.#clock = clock
    const reading = { secrets, clock, maxAgeMs: settings.secretMaxAgeMs }
    const client = tls?.client
    if (client !== undefined && 'arn' in client)
      this.#clientSecret = keptSecret(client.arn, reading, clientOf)
    if (sasl?.mechanism === 'plain') warnOfPlain()
    const timeoutMs = settings.authenticationTimeoutMs
    const mechanism = sasl && mechanismOf(sasl, { ...reading, timeoutMs })
    this.#mechanism = mechanism
    this.#config = {
      clientId,
      ssl: tls !== undefined,
      ...(mechanism === undefined ? {} : { sasl: mechanism }),
      connectionTimeout: settings.connectionTimeoutMs,
      authenticationTimeout: settings.authenticationTimeoutMs,
      requestTimeout: settings.requestTimeoutMs,
      enforceRequestTimeout: true,
      // Whatever is tried again is tried again by us: kafkajs's own retries would partition and send anew (K4).
      retry: { retries: 0 },
    }
  }

  /** For kafkajs: no retries, and connections as the settings ask for. `refresh` before a client of it connects. */
  config(brokers: KafkaConfig['brokers']): KafkaConfig & { readonly socketFactory: ISocketFactory } {
    return { ...this.#config, brokers, socketFactory: (to) => this.#connect(to) }
  }

  /**
   * Reads what connections need, where it may have changed, and resolves to the user that they are from now on, or are
   * followed by. Rejects with `Outage('secret-unavailable')`.
   */
  async refresh(): Promise<string | undefined> {
    await this.#clientSecret?.current(this.#clock.now() + this.#settings.connectionTimeoutMs)
    this.#context = this.#read()
    await this.#mechanism?.ready()
    return this.user
  }

  /** As which of a secret's users new connections log in, as far as is known; undefined where no secret names one. */
  get user(): string | undefined {
    return this.#mechanism?.user()
  }

  #connect({ host, port, onConnect }: ISocketFactoryArgs): Socket {
    const socket =
      this.#settings.tls === undefined
        ? connectTcp({ host, port }, onConnect)
        : connectTls(
            {
              ...{ host, port, ...this.#latest(), minVersion: 'TLSv1.2', rejectUnauthorized: true },
              ...(isIP(host) === 0 ? { servername: host } : {}),
            },
            onConnect,
          )
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.once('error', (error: Error) => this.#suspect(error))
    // kafkajs gives a connection up that is not made in time, and would leave it open.
    const timer = setTimeout(() => socket.destroy(), 2 * this.#settings.connectionTimeoutMs).unref()
    socket.once(this.#settings.tls === undefined ? 'connect' : 'secureConnect', () => clearTimeout(timer))
    socket.once('close', () => clearTimeout(timer))
    return socket
  }

  /** Where the broker refuses our certificate, the next connection has what the secret holds by then. */
  #suspect(error: Error): void {
    const secret = this.#clientSecret
    const used = secret?.last
    if (secret === undefined || used === undefined || !isRefusedCertificate(error)) return
    void secret.isRenewed(used, this.#clock.now() + this.#settings.connectionTimeoutMs)
  }

  /** While files are being replaced they may not fit together: then what fitted last. */
  #latest(): SecureContextOptions {
    try {
      this.#context = this.#read()
    } catch (error) {
      // Said by `refresh` before the next client connects. Never with less than was asked for.
      if (this.#context === undefined) throw error
    }
    return this.#context
  }

  #read(): SecureContextOptions {
    const { tls } = this.#settings
    if (tls === undefined) return {}
    const context = { ...pemsOf(tls), ...this.#clientSecret?.last }
    if (!isUsable(context))
      throw unusable('TLS cannot use ssl.ca, or our certificate and key', 'See that they are whole and fit.')
    return context
  }
}

function pemsOf({ ca, client }: KafkaTls): SecureContextOptions {
  const pair = client !== undefined && 'key' in client ? client : undefined
  return {
    ...(ca && { ca: textOf(ca, 'ssl.ca') }),
    ...(pair && { cert: textOf(pair.cert, 'ssl.cert'), key: textOf(pair.key, 'ssl.key') }),
  }
}

/** What Secrets Manager's convention for client certificates holds, as MSK and Lambda read it too. */
function clientOf(fields: ReadonlyMap<string, string>): SecureContextOptions {
  const cert = fields.get('certificate')
  const key = fields.get('privateKey')
  if (cert === undefined || key === undefined) throw new TypeError('certificate and privateKey')
  const passphrase = fields.get('privateKeyPassword')
  return { cert, key, ...(passphrase === undefined ? {} : { passphrase }) }
}

let hasWarned = false

function warnOfPlain(): void {
  if (hasWarned) return
  hasWarned = true
  const message =
    'SASL/PLAIN shows the password to every broker: use SCRAM-SHA-512 where the cluster offers it.'
  process.emitWarning(message, { code: 'SEALGATE_SASL_PLAIN' })
}
