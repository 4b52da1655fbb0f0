/** What goes wrong between kafkajs and a broker, as an outage that says what to do (architecture.md §4). */
import { Outage, type OutageCode } from '../errors.ts'

/** What an operation touched, for the messages: names that stand in the settings anyway. */
export interface Operation {
  /** E.g. `commit of orders-3`. */
  readonly name: string
  readonly topics: readonly string[]
  readonly group: string
  readonly transactionalId: string
  /** The most bytes that it writes to one topic-partition, and which. */
  readonly largest?: { readonly place: string; readonly bytes: number }
}

/** What is left of an error when kafkajs's wrapping is taken off. */
interface Root {
  readonly name: string
  /** Kafka's own name of a protocol error; '' where it is none. */
  readonly type: string
  /** Node's or OpenSSL's code of a connection error; '' where it is none. */
  readonly code: string
  readonly message: string
}

/** Kafka's numbers that kafkajs 2.2.4 does not know. */
const UNKNOWN_CODES: Readonly<Record<string, string>> = { '90': 'PRODUCER_FENCED' }
const UNKNOWN_CODE = /^Unknown error code (\d{1,5})$/
const MAX_WRAPPINGS = 16

/** Where causes end, or at an outage: that has said already what there is to say. */
function innermost(error: unknown): unknown {
  let inner = error
  for (let depth = 0; depth < MAX_WRAPPINGS && !(inner instanceof Outage); depth++) {
    const cause = inner instanceof Error ? inner.cause : undefined
    if (!(cause instanceof Error)) break
    inner = cause
  }
  return inner
}

function rootOf(error: unknown): Root {
  const inner = innermost(error)
  if (!(inner instanceof Error)) return { name: 'unknown', type: '', code: '', message: 'unknown error' }
  const type = 'type' in inner && typeof inner.type === 'string' ? inner.type : ''
  const number = UNKNOWN_CODE.exec(inner.message)?.[1]
  return {
    name: inner.name,
    type: (number !== undefined && UNKNOWN_CODES[number]) || type,
    code: 'code' in inner && typeof inner.code === 'string' ? inner.code : '',
    message: oneLine(inner.message),
  }
}

/** What others say, for a message of ours: one line, printable and not endless. */
export const oneLine = (text: string): string => text.replace(/[^ -~]+/g, ' ').slice(0, 300)

/** Another has taken over, or the broker ended our transaction: both mean that we are not the holder any more. */
const FENCED = new Set([
  'INVALID_PRODUCER_EPOCH',
  'PRODUCER_FENCED',
  'INVALID_PRODUCER_ID_MAPPING',
  'TRANSACTION_COORDINATOR_FENCED',
])

/** Refused with no effect while the transaction before is still being ended. */
const BUSY = 'CONCURRENT_TRANSACTIONS'

/** A broker that is starting, stopping, or has just handed something over. */
const COLD = new Set([
  BUSY,
  'COORDINATOR_LOAD_IN_PROGRESS',
  'COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR',
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
  'LEADER_NOT_AVAILABLE',
  'NOT_LEADER_FOR_PARTITION',
  'NETWORK_EXCEPTION',
  'REQUEST_TIMED_OUT',
])

/** kafkajs's names for a broker that could not be reached, or not any more. */
const UNREACHED = new Set([
  'KafkaJSConnectionError',
  'KafkaJSConnectionClosedError',
  'KafkaJSRequestTimeoutError',
  'KafkaJSBrokerNotFound',
  'KafkaJSLockTimeout',
  'KafkaJSNoBrokerAvailableError',
  'KafkaJSMetadataNotLoaded',
  'CredentialsRenewed',
])

const REFUSED_LOGIN = 'SASL_AUTHENTICATION_FAILED'

const TLS_CODE = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|EPROTO$)/

/** Node's own, of a connection that is not made or does not last. */
const SOCKET_CODE = /^(ECONN(REFUSED|RESET|ABORTED)|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|EPIPE)$/

/** What a broker answers to a client certificate (RFC 8446 §6.2), as OpenSSL's codes spell it. */
const CERTIFICATE_ALERT = /ALERT_(NO_|BAD_|UNSUPPORTED_|UNKNOWN_)?(CERTIFICATE|CA)/

export const isRefusedCertificate = (error: Error): boolean => CERTIFICATE_ALERT.test(rootOf(error).code)

export const isBusy = (error: unknown): boolean => rootOf(error).type === BUSY

export const isCold = (error: unknown): boolean => COLD.has(rootOf(error).type)

/** Whether the broker does not know this user with this password: not, or not yet. */
export const isRefusedLogin = (error: unknown): boolean => rootOf(error).type === REFUSED_LOGIN

/** Whether the same may succeed in a moment without anybody's doing anything. */
export function isPassing(error: unknown): boolean {
  const { name, type, code } = rootOf(error)
  return type === '' ? UNREACHED.has(name) && !TLS_CODE.test(code) : COLD.has(type)
}

/** The outage for an error of kafkajs; an `Outage` is itself, also where kafkajs has wrapped it. */
export function kafkaOutage(error: unknown, operation: Operation): Outage {
  const inner = innermost(error)
  if (inner instanceof Outage) return inner
  const root = rootOf(error)
  const [code, what] = explain(root, operation)
  return new Outage(code, `${operation.name}: ${what}`, { cause: error })
}

/** The part of the answer that needs no error: what Kafka says by a type alone. */
function explain(root: Root, operation: Operation): [OutageCode, string] {
  const { type, message } = root
  const topics = operation.topics.join(', ')
  const sasl = type === REFUSED_LOGIN || root.name === 'KafkaJSSASLAuthenticationError' || isScram(message)
  if (FENCED.has(type))
    return ['fenced', `another holder has taken over, or the broker ended the transaction (${type}).`]
  if (message.startsWith('SASL OAUTHBEARER'))
    return [
      'sink-denied',
      `${message}. See that issuer, audience and principal are what the listener expects.`,
    ]
  if (sasl)
    return [
      'sink-denied',
      `the broker refuses our credentials. Check mechanism, user name and password (${message}).`,
    ]
  switch (type) {
    case 'UNSUPPORTED_SASL_MECHANISM':
      return [
        'sink-denied',
        'the listener does not offer this SASL mechanism. Set sasl.mechanism to one that it does, or another port.',
      ]
    case 'ILLEGAL_SASL_STATE':
      return ['sink-denied', 'the listener takes no SASL. Leave sasl out, or set another port.']
    case 'TOPIC_AUTHORIZATION_FAILED':
      return [
        'sink-denied',
        `the broker refuses us a topic of ${topics}. Allow Read on the source topic, Write on the others; see that each exists.`,
      ]
    case 'OPERATION_NOT_ATTEMPTED':
      return [
        'sink-denied',
        `the broker refuses us a topic of ${topics}. Allow Write on each; see that each exists.`,
      ]
    case 'GROUP_AUTHORIZATION_FAILED':
      return [
        'sink-denied',
        `the broker refuses us the group ${operation.group}. Allow Read on it, as a prefix.`,
      ]
    case 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED':
      return [
        'sink-denied',
        `the broker refuses us the transactional id ${operation.transactionalId}. Allow Write on its prefix.`,
      ]
    case 'CLUSTER_AUTHORIZATION_FAILED':
      return [
        'sink-denied',
        'the broker refuses us an operation on the cluster. See the rights in docs/kafka.md.',
      ]
    case 'UNKNOWN_TOPIC_OR_PARTITION':
    case 'INVALID_TOPIC_EXCEPTION':
      return [
        'sink-denied',
        `a topic or partition of ${topics} is not there. Create it, or correct its name.`,
      ]
    case 'MESSAGE_TOO_LARGE':
    case 'RECORD_LIST_TOO_LARGE':
      return ['sink-denied', tooLarge(operation)]
    case 'OFFSET_METADATA_TOO_LARGE':
      return [
        'sink-denied',
        "the position is too long. Set the broker's offset.metadata.max.bytes to 4096 or more.",
      ]
    case 'INVALID_TRANSACTION_TIMEOUT':
      return [
        'sink-denied',
        "transactionTimeoutMs is more than the broker allows. Lower it, or raise the broker's transaction.max.timeout.ms.",
      ]
    case '':
      return explainConnection(root)
    default:
      return ['sink-unavailable', `the broker did not take it (${type}). It is tried again.`]
  }
}

/** kafkajs names a wrong server signature, a wrong user and a wrong password by message alone. */
const isScram = (message: string): boolean => message.startsWith('SASL ')

function tooLarge({ largest }: Operation): string {
  const most = largest === undefined ? '' : `, the largest being ${largest.bytes} bytes for ${largest.place}`
  return `a topic does not take records as large as these${most}. Raise its max.message.bytes.`
}

function explainConnection({ name, code, message }: Root): [OutageCode, string] {
  if (TLS_CODE.test(code)) return ['sink-denied', `TLS to the broker fails: ${tlsAdvice(code)} (${code}).`]
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return ['sink-unavailable', `a broker's name is not known (${message}). Check brokers and the resolver.`]
  if (name === 'KafkaJSRequestTimeoutError')
    return ['sink-unavailable', 'a broker did not answer in time (requestTimeoutMs). It is tried again.']
  if (UNREACHED.has(name) || SOCKET_CODE.test(code))
    return [
      'sink-unavailable',
      `no broker can be reached (${code === '' ? message : code}). Check brokers, port and network, and whether that listener asks for TLS and SASL.`,
    ]
  // Of these not the words: they may quote what it was given to write.
  const kind = code === '' ? name : `${name} ${code}`
  return ['sink-unavailable', `the client failed (${oneLine(kind)}). It is tried again.`]
}

function tlsAdvice(code: string): string {
  if (code === 'CERT_HAS_EXPIRED')
    return "a certificate has expired. Renew the broker's, or the authority in ssl.ca"
  if (code === 'CERT_NOT_YET_VALID') return 'a certificate is not valid yet. Check the clocks'
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return "the certificate is another host's. List brokers by the names in it"
  if (CERTIFICATE_ALERT.test(code))
    return 'the broker does not take our certificate. Set ssl.cert and ssl.key (or ssl.secret) to one that is valid, of an authority that it knows'
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO')
    return 'no handshake. See that the port is a TLS listener'
  return "the authority of the broker's certificate is not one of ours. Set ssl.ca to it"
}
