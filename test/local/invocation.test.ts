import { describe, expect, it } from 'vitest'
import { FunctionTimeout, invokeOnce } from '../../lib/local/invocation.ts'
import type { LambdaContext, LambdaHandler } from '../../lib/local/invocation.ts'

const QUICK = { timeoutMs: 1_000 }

describe('an invocation', () => {
  it('gives the function a copy of the event and passes on a copy of its answer', async () => {
    const event = { records: { list: [1] } }
    const kept: unknown[] = []
    const answer = { deep: [event] }
    const received = await invokeOnce((given) => (kept.push(given), answer), event, QUICK)
    expect(kept).toEqual([event])
    expect(kept[0]).not.toBe(event)
    expect(received).toEqual(answer)
    expect(received).not.toBe(answer)
  })

  it('gives it a context as Lambda does', async () => {
    const contexts: LambdaContext[] = []
    const keep: LambdaHandler = (_, context) => void contexts.push(context)
    await invokeOnce(keep, {}, { timeoutMs: 5_000, functionName: 'gate' })
    await invokeOnce(keep, {}, { timeoutMs: 5_000, functionName: 'gate' })
    const [one, other] = contexts
    expect(one).toMatchObject({
      functionName: 'gate',
      functionVersion: '$LATEST',
      logGroupName: '/aws/lambda/gate',
    })
    expect(one!.invokedFunctionArn).toMatch(/^arn:aws:lambda:[a-z0-9-]+:\d{12}:function:gate$/)
    expect(one!.awsRequestId).not.toBe(other!.awsRequestId)
    expect(() => one!.done()).toThrow('return a promise')
  })

  it('counts the remaining time down to zero and no further', async () => {
    const left: number[] = []
    await expect(
      invokeOnce(
        async (_, context) => {
          left.push(context.getRemainingTimeInMillis())
          await new Promise((resolve) => setTimeout(resolve, 30))
          left.push(context.getRemainingTimeInMillis())
          return new Promise((resolve) =>
            setTimeout(() => {
              left.push(context.getRemainingTimeInMillis())
              resolve(undefined)
            }, 200),
          )
        },
        {},
        { timeoutMs: 200 },
      ),
    ).rejects.toThrow(FunctionTimeout)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(left[0]).toBeGreaterThan(100)
    expect(left[1]).toBeLessThan(175)
    expect(left[2]).toBe(0)
  })

  it('has no answer as null', async () => {
    expect(await invokeOnce(() => undefined, {}, QUICK)).toBeNull()
  })

  it('fails with what the function throws, at once or later', async () => {
    const error = new Error('its own')
    const throwing: LambdaHandler = () => {
      throw error
    }
    await expect(invokeOnce(throwing, {}, QUICK)).rejects.toBe(error)
    await expect(invokeOnce(async () => Promise.reject(error), {}, QUICK)).rejects.toBe(error)
  })

  it('fails with an answer that is not JSON or over 6 MiB', async () => {
    await expect(invokeOnce(() => 1n, {}, QUICK)).rejects.toThrow(TypeError)
    await expect(invokeOnce(() => () => 1, {}, QUICK)).rejects.toThrow('not JSON')
    await expect(invokeOnce(() => 'x'.repeat(6 * 1024 * 1024), {}, QUICK)).rejects.toThrow('6 MiB')
  })

  it('takes a handler that middy has wrapped', async () => {
    const { default: middy } = await import('@middy/core')
    const handler = middy().handler(async (event: unknown) => Promise.resolve({ event }))
    expect(await invokeOnce(handler, { a: 1 }, QUICK)).toEqual({ event: { a: 1 } })
  })
})
