import { afterEach, expect, it, vi } from 'vitest'
import { isoTime, processIo } from '../../cli/io.ts'

afterEach(() => vi.unstubAllGlobals())

it('shows any time that a record may have, also one that no date can hold', () => {
  expect(isoTime(1_795_000_000_000)).toBe('2026-11-18T11:06:40.000Z')
  expect(isoTime(-1)).toBe('1969-12-31T23:59:59.999Z')
  expect(isoTime(2 ** 63)).toBe('9223372036854776000 ms')
  expect(isoTime(-(2 ** 63))).toBe('-9223372036854776000 ms')
})

it('colours terminals, but for those that cannot and where nobody wants it', () => {
  const coloursOf = (env: Record<string, string>, isTTY: boolean): unknown => {
    const stream = { isTTY, write: () => true }
    vi.stubGlobal('process', { ...process, stdout: stream, stderr: stream })
    return processIo(env).colours
  }
  const [plain, coloured] = [false, true].map((is) => ({ out: is, err: is }))
  expect(coloursOf({ TERM: 'xterm-256color' }, true)).toEqual(coloured)
  expect(coloursOf({ TERM: 'xterm-256color' }, false)).toEqual(plain)
  expect(coloursOf({ TERM: 'dumb' }, true)).toEqual(plain)
  expect(coloursOf({ TERM: 'xterm-256color', NO_COLOR: '1' }, true)).toEqual(plain)
})
