/** Lines of an input that have come in and whose end is not known yet, so that whoever is cut short can say which. */

const MAX_TOLD_RANGES = 20

export class OpenLines {
  /** In the order in which they came, which is that of their numbers. */
  readonly #open = new Set<number>()
  #last = 0

  add(line: number): void {
    this.#open.add(line)
    this.#last = line
  }

  close(line: number): void {
    this.#open.delete(line)
  }

  /** The last that came in, from 1; 0 where none did. */
  get last(): number {
    return this.#last
  }

  /** Those that are open: first and last line of each stretch. */
  ranges(): readonly (readonly [first: number, last: number])[] {
    const ranges: [number, number][] = []
    for (const line of this.#open) {
      const range = ranges.at(-1)
      if (range !== undefined && range[1] === line - 1) range[1] = line
      else ranges.push([line, line])
    }
    return ranges
  }

  /** `lines 3, 7-12`; long lists are cut short. */
  text(): string {
    const ranges = this.ranges()
    const told = ranges
      .slice(0, MAX_TOLD_RANGES)
      .map(([first, last]) => (first === last ? String(first) : `${first}-${last}`))
    if (ranges.length > told.length)
      told.push(`and ${ranges.length - told.length} more stretches (--json has all)`)
    return `${this.#open.size === 1 ? 'line' : 'lines'} ${told.join(', ')}`
  }
}
