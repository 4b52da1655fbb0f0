/**
 * Calling a Lambda handler as the Node.js runtime would: a JSON copy of the event, a context with a deadline, an answer
 * that must survive JSON, a time-out. What cannot be had in one process: on AWS a timed-out function is frozen or killed;
 * here the call goes on unheeded, as a zombie that the sink's fencing must hold off (exactly-once.md §1).
 */
import { randomUUID } from 'node:crypto'

/** The runtime's context object (nodejs24.x, with the callback-era members that types still ask for and that only throw). */
export interface LambdaContext {
  callbackWaitsForEmptyEventLoop: boolean
  functionName: string
  functionVersion: string
  invokedFunctionArn: string
  memoryLimitInMB: string
  awsRequestId: string
  logGroupName: string
  logStreamName: string
  getRemainingTimeInMillis(): number
  done(): never
  fail(): never
  succeed(): never
}

/** A function's entry point. A rejection is a failed invocation. */
export type LambdaHandler = (event: unknown, context: LambdaContext) => unknown

export interface InvocationOptions {
  /** The function's time-out, in milliseconds: 1 to 900,000 (Kafka event sources: at most 840,000). */
  readonly timeoutMs: number
  /** Default `ingest`. */
  readonly functionName?: string
}

/** The function did not answer in time. */
export class FunctionTimeout extends Error {
  override readonly name = 'FunctionTimeout'
}

/** Lambda's bound of an answer, in bytes of JSON. */
const MAX_ANSWER_BYTES = 6 * 1024 * 1024

/**
 * One invocation. Resolves to the answer as Lambda would pass it on (a JSON copy; null where there is none). Rejects with
 * what the handler threw, with `FunctionTimeout`, or where the answer is not JSON or is over 6 MiB.
 */
export async function invokeOnce(
  handler: LambdaHandler,
  event: unknown,
  options: InvocationOptions,
): Promise<unknown> {
  return invokeJson(handler, JSON.stringify(event), options)
}

/** As `invokeOnce`, with the event as the JSON text that Lambda would send. */
export async function invokeJson(
  handler: LambdaHandler,
  eventJson: string,
  { timeoutMs, functionName = 'ingest' }: InvocationOptions,
): Promise<unknown> {
  const event: unknown = JSON.parse(eventJson)
  const timeout = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    timeout.reject(new FunctionTimeout(`The function did not answer within ${timeoutMs} ms.`))
  }, timeoutMs)
  const context = contextOf(functionName, performance.now() + timeoutMs)
  try {
    const call = Promise.resolve().then(() => handler(event, context))
    return jsonCopy(await Promise.race([call, timeout.promise]))
  } finally {
    clearTimeout(timer)
  }
}

/** The function's ARN, as its context and records of its failures name it. */
export function functionArnOf(functionName: string): string {
  return `arn:aws:lambda:eu-west-1:000000000000:function:${functionName}`
}

function contextOf(functionName: string, deadline: number): LambdaContext {
  const gone = (): never => {
    throw new TypeError('Callbacks are gone from nodejs24.x: return a promise.')
  }
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionName,
    functionVersion: '$LATEST',
    invokedFunctionArn: functionArnOf(functionName),
    memoryLimitInMB: '1024',
    awsRequestId: randomUUID(),
    logGroupName: `/aws/lambda/${functionName}`,
    logStreamName: `local/[$LATEST]${process.pid}`,
    getRemainingTimeInMillis: () => Math.max(0, Math.floor(deadline - performance.now())),
    done: gone,
    fail: gone,
    succeed: gone,
  }
}

function jsonCopy(answer: unknown): unknown {
  if (answer === undefined || answer === null) return null
  const text: unknown = JSON.stringify(answer)
  if (typeof text !== 'string') throw new TypeError("The function's answer is not JSON.")
  if (Buffer.byteLength(text) > MAX_ANSWER_BYTES) throw new RangeError("The function's answer is over 6 MiB.")
  return JSON.parse(text)
}
