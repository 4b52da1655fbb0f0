/** An example stage's text, edited; and what its reader says of the faults in it. */
import { readStage } from '../../deploy/stage-file.ts'
import { ConfigError, type Fault } from '../../lib/errors.ts'

/** What is to be found, and what is to stand there. */
export type Edit = readonly [string | RegExp, string]

/** With some of it replaced. Throws where something is not there. */
export const editedText = (text: string, edits: readonly Edit[]): string =>
  edits.reduce((before, [from, to]) => {
    const after = before.replace(from, to)
    if (after === before) throw new Error(`${String(from)} is not there`)
    return after
  }, text)

/** All faults of a stage's text, as if it stood at `path`. */
export function faultsAt(path: string, text: string): readonly Fault[] {
  try {
    readStage(text, path)
  } catch (error) {
    if (error instanceof ConfigError) return error.faults
    throw error
  }
  return []
}

/** The parameters that have faults, in order. */
export const placesAt = (path: string, text: string): string[] =>
  faultsAt(path, text).map(({ where }) => where.replace(`${path}: `, ''))
