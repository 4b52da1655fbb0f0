import { expect, it } from 'vitest'
import { isoTime } from '../../cli/io.ts'

it('shows any time that a record may have, also one that no date can hold', () => {
  expect(isoTime(1_795_000_000_000)).toBe('2026-11-18T11:06:40.000Z')
  expect(isoTime(-1)).toBe('1969-12-31T23:59:59.999Z')
  expect(isoTime(2 ** 63)).toBe('9223372036854776000 ms')
  expect(isoTime(-(2 ** 63))).toBe('-9223372036854776000 ms')
})
