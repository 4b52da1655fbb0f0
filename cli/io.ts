/** What every command of `sealgate` needs of the terminal: two streams, colours, exit statuses, faults in print. */
import { styleText } from 'node:util'
import { ConfigError, Outage, describeFault, type Fault } from '../lib/errors.ts'

/** The statuses that `sealgate` ends with; docs/cli.md explains them. */
export const EXIT = {
  ok: 0,
  /** The command ran, and what it looked at is not as it should be. */
  found: 1,
  /** A flag, file, setting or contract is wrong; nothing was done. */
  badInput: 2,
  /** Something that the command needs does not answer. */
  outage: 3,
  /** Ctrl-C ended it before its end; what it had done stands. */
  interrupted: 130,
} as const

export type ExitStatus = (typeof EXIT)[keyof typeof EXIT]

export interface Io {
  /** Results, to standard output. A line end is added. */
  write(text: string): void
  /** All else, to standard error. A line end is added. */
  warn(text: string): void
  /** Colours on standard output and standard error: never where NO_COLOR is set, TERM is dumb, or it is no terminal. */
  readonly colours: { readonly out: boolean; readonly err: boolean }
  /** How the process is to end once nothing keeps it running. */
  exit(status: ExitStatus): void
}

/** The process's own streams. */
export function processIo(env: Readonly<Record<string, string | undefined>>): Io {
  const isPlain = (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb'
  return {
    write: (text) => void process.stdout.write(`${text}\n`),
    warn: (text) => void process.stderr.write(`${text}\n`),
    colours: { out: !isPlain && process.stdout.isTTY, err: !isPlain && process.stderr.isTTY },
    exit: (status) => {
      process.exitCode = status
    },
  }
}

export type Colour = 'red' | 'green' | 'yellow' | 'cyan' | 'bold' | 'dim'

/** The text in a colour, where there are colours. */
export function paint(isOn: boolean, colour: Colour, text: string): string {
  return isOn ? styleText(colour, text, { validateStream: false }) : text
}

/**
 * Prints why a command failed and sets the exit status: every fault of a `ConfigError` (2), an `Outage` (3).
 * Anything else is a bug, and thrown again. With `json`, standard output gets `{"faults":[…]}` or `{"outage":…}`.
 */
export function fail(io: Io, error: unknown, json = false): void {
  if (error instanceof ConfigError) {
    if (json) io.write(JSON.stringify({ faults: error.faults }))
    else printFaults(io, error.faults)
    io.exit(EXIT.badInput)
  } else if (error instanceof Outage) {
    if (json) io.write(JSON.stringify({ outage: { code: error.code, reason: error.message } }))
    else io.warn(`${paint(io.colours.err, 'red', 'unreachable')} ${oneLine(error.message)} (${error.code})`)
    io.exit(EXIT.outage)
  } else throw error
}

/** Each fault on a line of standard error. */
export function printFaults(io: Io, faults: readonly Fault[], kind: 'fault' | 'warning' = 'fault'): void {
  const mark = paint(io.colours.err, kind === 'fault' ? 'red' : 'yellow', kind)
  for (const fault of faults) io.warn(`${mark} ${oneLine(describeFault(fault))}`)
}

/** Texts of others may hold what a terminal obeys, or what turns letters round: all that is no sign but line feeds, escaped. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (character) =>
    character === '\n' ? character : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )
}

/** The same on one line. */
export const oneLine = (text: string): string => printable(text.replaceAll('\n', ' '))

/** A word of a command that a user is to copy: quoted for a shell where it has to be. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`

/** Rows in columns two blanks apart; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => widthOf(row[column] ?? ''))),
  )
  return rows.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell)))
      .join('  ')
      .trimEnd(),
  )
}

const widthOf = (text: string): number => Array.from(text).length

/** The latest time that a date can hold. */
export const LATEST_MS = 8.64e15

/** A record's time; a producer may have given it one that no date can hold. */
export const isoTime = (milliseconds: number): string =>
  Math.abs(milliseconds) <= LATEST_MS ? new Date(milliseconds).toISOString() : `${milliseconds} ms`
