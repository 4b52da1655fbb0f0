import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { buildBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { ConfigError } from '../../lib/errors.ts'
import { AUDIT_TOPIC, openStack, QUARANTINE_TOPIC } from '../../lib/local/stack.ts'
import { ORDER_CONTRACT } from '../shop.ts'

/** The faults of a stack that is not made. */
async function refused(text: string): Promise<string> {
  const parent = mkdtempSync(join(tmpdir(), 'sealgate-stack-'))
  const folder = join(parent, 'stack')
  try {
    // A bundle may come from elsewhere: what `checkContracts` faults is in it all the same.
    const { files } = checkContracts([{ file: 'a.yaml', text }])
    const stack = await openStack({ folder, bundle: buildBundle(files), software: 'test' })
    await stack.close()
    return ''
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    expect(existsSync(folder)).toBe(false)
    return error.message
  } finally {
    rmSync(parent, { recursive: true, force: true })
  }
}

describe('a stack', () => {
  it.each([
    ['to: orders.fulfilment', 'to: orders', 'fulfilment/to: orders is a channel that producers write to'],
    [
      'to: orders.analytics',
      `to: ${AUDIT_TOPIC}`,
      'consumer analytics: local.audit would be the output topic',
    ],
    ['to: orders.analytics', `to: ${QUARANTINE_TOPIC}`, 'and is the quarantine topic. Give the consumer'],
    [
      'channel: orders',
      `channel: ${AUDIT_TOPIC}`,
      'local.audit would be a source topic, and is the audit topic',
    ],
  ])('is not made by contracts with %s changed into %s', async (from, to, message) => {
    expect(await refused(ORDER_CONTRACT.replace(from, to))).toContain(message)
  })
})
