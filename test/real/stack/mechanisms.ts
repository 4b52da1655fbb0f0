/** Listeners for every way to authenticate but Kerberos, and listeners that are not to be trusted. */
import { createSign, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { issue } from './certificates.ts'
import type { KafkaVersion } from './broker.ts'
import type { Connection, Listeners, Made } from './stack.ts'

const TOKEN_KEY = 'tokens.key'
const AUDIENCE = 'kafka'
const ISSUER = 'https://issuer.test'

const SECURITY = 'org.apache.kafka.common.security'
const TOKEN_LOGIN = `${SECURITY}.oauthbearer.OAuthBearerLoginModule`

const base64 = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A JWT for a principal that the stack's OAUTHBEARER listener takes; `changes` are of its claims. */
export function signToken(
  { certificates }: Pick<Connection, 'certificates'>,
  principal: string,
  lifeSeconds: number,
  changes: object = {},
): string {
  const key = readFileSync(join(certificates, TOKEN_KEY), 'utf8')
  const now = Math.floor(Date.now() / 1000)
  const claims = { iss: ISSUER, aud: AUDIENCE, sub: principal, iat: now, exp: now + lifeSeconds, ...changes }
  const text = `${base64({ alg: 'RS256', kid: 'k', typ: 'JWT' })}.${base64(claims)}`
  return `${text}.${createSign('RSA-SHA256').update(text).sign(key, 'base64url')}`
}

/**
 * MANY: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, and OAUTHBEARER by a JWKS, the principals as on the usual listener. RENEWED:
 * the usual one with sessions of a second, after which clients have to prove themselves anew. MTLS:
 * the principal is the certificate's common name. OPEN asks nobody who they are. EXPIRED and ELSEWHERE show a certificate of that kind.
 */
export async function everyMechanism(version: KafkaVersion, { folder, passwords }: Made): Promise<Listeners> {
  const jwks = join(folder, 'jwks.json')
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' })
  await writeFile(join(folder, TOKEN_KEY), pem, { mode: 0o600 })
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'RS256', use: 'sig' }
  await writeFile(jwks, JSON.stringify({ keys: [key] }))
  const expired = await issue(folder, { name: 'expired', names: ['IP:127.0.0.1'], days: -1 })
  const elsewhere = await issue(folder, { name: 'elsewhere', names: ['DNS:elsewhere.example'] })
  const users = Object.entries(passwords).map(([name, password]) => `user_${name}="${password}"`)
  const handler = `${SECURITY}.oauthbearer.${version === '3.9.1' ? 'secured.' : ''}OAuthBearerValidatorCallbackHandler`
  const scram = `sasl.jaas.config=${SECURITY}.scram.ScramLoginModule required;`
  const shows = (path: string): string[] => ['ssl.keystore.type=PEM', `ssl.keystore.location=${path}`]
  return {
    java: [`-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://${jwks}`],
    listeners: {
      MANY: {
        protocol: 'SASL_SSL',
        properties: [
          'sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
          `plain.sasl.jaas.config=${SECURITY}.plain.PlainLoginModule required ${users.join(' ')};`,
          `scram-sha-256.${scram}`,
          `scram-sha-512.${scram}`,
          // kafkajs proves itself anew 10 s before the end of a session.
          'oauthbearer.connections.max.reauth.ms=12000',
          `oauthbearer.sasl.jaas.config=${TOKEN_LOGIN} required;`,
          `oauthbearer.sasl.server.callback.handler.class=${handler}`,
          `oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://${jwks}`,
          `oauthbearer.sasl.oauthbearer.expected.audience=${AUDIENCE}`,
          `oauthbearer.sasl.oauthbearer.expected.issuer=${ISSUER}`,
        ],
      },
      // kafkajs proves itself anew 10 s before the end of a session.
      RENEWED: {
        protocol: 'SASL_SSL',
        properties: [
          'sasl.enabled.mechanisms=SCRAM-SHA-512',
          `scram-sha-512.${scram}`,
          'scram-sha-512.connections.max.reauth.ms=11000',
        ],
      },
      MTLS: {
        protocol: 'SSL',
        properties: [
          'ssl.client.auth=required',
          'ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT',
        ],
      },
      OPEN: { protocol: 'SSL', properties: ['ssl.client.auth=none'] },
      EXPIRED: {
        protocol: 'SASL_SSL',
        properties: ['sasl.enabled.mechanisms=SCRAM-SHA-512', `scram-sha-512.${scram}`, ...shows(expired)],
      },
      ELSEWHERE: {
        protocol: 'SASL_SSL',
        properties: ['sasl.enabled.mechanisms=SCRAM-SHA-512', `scram-sha-512.${scram}`, ...shows(elsewhere)],
      },
    },
  }
}
