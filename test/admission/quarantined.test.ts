import { expect, it } from 'vitest'
import { parseQuarantined } from '../../lib/admission/quarantined.ts'

const quarantined = (timestamp: string) =>
  parseQuarantined({
    ...{ topic: 'quarantine', partition: 0, offset: 1n, timestamp: 0, timestampType: 'LogAppendTime' },
    ...{ key: null, value: null },
    headers: Object.entries({
      code: 'value-missing',
      topic: 'orders',
      partition: '0',
      offset: '7',
      timestamp,
    }).map(([name, value]) => ({ name: `sealgate-${name}`, value: Buffer.from(value) })),
  })

it('takes a quarantined record apart, whatever time its producer has given it', () => {
  for (const time of [0, -1, 1_795_000_000_000, 2 ** 63, -(2 ** 63)])
    expect(quarantined(String(time))).toMatchObject({ source: { offset: 7n }, timestamp: time })
  for (const none of ['', '-', '-0', '00', '1.5', '1e3', '+1', '10000000000000000000'])
    expect(quarantined(none)).toBeUndefined()
})
