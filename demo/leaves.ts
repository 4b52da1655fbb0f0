/** A payload's values in their source text, so that 12345678901234567890 and 1.10 are shown as they stand. */
import { endOfString, endOfValue, skipBlank } from '../lib/contract/json.ts'

/** Where a value stands, as JSON Pointer, and its source text. */
export type Leaf = readonly [pointer: string, text: string]

/** As many as a table shows. */
export const MAX_LEAVES = 16

/** The first leaves of a text that is JSON: scalars, and objects and arrays that are empty. */
export function leavesOf(text: string, max: number): Leaf[] {
  const leaves: Leaf[] = []
  const walk = (start: number, pointer: string): number => {
    const [open] = text.slice(start, start + 1)
    const first = skipBlank(text, start + 1)
    const isEmpty = text[first] === '}' || text[first] === ']'
    if ((open !== '{' && open !== '[') || isEmpty || leaves.length >= max) {
      const end = endOfValue(text, start)
      if (leaves.length < max) leaves.push([pointer, text.slice(start, end)])
      return end
    }
    let at = first
    for (let index = 0; at < text.length; index++) {
      let name = String(index)
      if (open === '{') {
        const end = endOfString(text, at)
        name = String(JSON.parse(text.slice(at, end)))
        at = skipBlank(text, skipBlank(text, end) + 1)
      }
      at = skipBlank(text, walk(at, `${pointer}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`))
      if (text[at] !== ',') break
      at = skipBlank(text, at + 1)
    }
    return at + 1
  }
  walk(skipBlank(text, 0), '')
  return leaves
}
