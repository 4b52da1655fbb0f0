/** A contract suite's cases, some of which something under test is known not to keep. */
import { expect, test } from 'vitest'

/**
 * Declares a case. One that is a known difference must fail, or the list of differences is out of date: so no list
 * outlives what it says.
 */
export function caseOf<Name extends string>(
  differences: ReadonlySet<Name>,
): (name: Name, run: () => Promise<void>) => void {
  return (name, run) => {
    if (!differences.has(name)) test(name, run)
    else test(`known to differ from AWS: ${name}`, () => expect(run()).rejects.toThrow())
  }
}
