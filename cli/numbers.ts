/** Numbers, times and lists in flags. */
import { InvalidArgumentError } from 'commander'

/** A parser of flags that take a whole number. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = /^\d{1,16}$/.test(text) ? Number(text) : NaN
    if (number >= min && number <= max) return number
    throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`)
  }
}

/** Milliseconds since 1970 of an ISO 8601 date or time; NaN for any other text. */
export const timeOf = (text: string): number =>
  /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:\d{2}))?$/.test(text) ? Date.parse(text) : NaN

/** A parser of flags that may stand several times. */
export const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value]
