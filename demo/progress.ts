/** The story as it goes on: one line that moves, where there is a terminal, and a line for each chapter that is over. */
import { paint } from '../cli/io.ts'
import type { Terminal } from '../cli/terminal.ts'
import type { Fault } from '../lib/errors.ts'
import { describeFault } from '../lib/errors.ts'
import { MAX_TOLD_FAULTS } from './producers.ts'
import type { Phase, Watch } from './run.ts'

/** What is being done, and what was done when it is over; `#` stands for how many. */
const CHAPTERS: Readonly<Record<Phase, readonly [doing: string, done: string]>> = {
  seal: ['sealing', '# events signed, encrypted and sent by their producers'],
  admit: ['deciding', '# records through poller, handler and gate'],
  attack: ['attacking', '# records of an attacker decided'],
  open: ['opening', '# outputs read, the sealed ones opened by their consumers'],
  verify: ['verifying', 'the audit verified from beginning to end'],
  tamper: ['tampering', 'copies of the audit tampered with, and verified'],
}

const SHOW_EVERY_MS = 80
const BAR = 24

export class Progress implements Watch {
  readonly #terminal: Terminal
  readonly #isQuiet: boolean
  #phase: Phase = 'seal'
  #begun = 0
  #done = 0
  #before = 0
  #shownAt = -Infinity
  #faults = 0

  /** `isQuiet`: standard output is for something else. */
  constructor(terminal: Terminal, isQuiet: boolean) {
    this.#terminal = terminal
    this.#isQuiet = isQuiet
  }

  onPhase(phase: Phase): void {
    this.#before = phase === 'attack' ? this.#done : 0
    this.#phase = phase
    this.#done = this.#before
    this.#begun = performance.now()
    this.#show(undefined)
  }

  onProgress(done: number, of: number | undefined): void {
    this.#done = done
    const now = performance.now()
    if (now - this.#shownAt < SHOW_EVERY_MS) return
    this.#shownAt = now
    this.#show(of)
  }

  onPhaseEnd(phase: Phase, milliseconds: number): void {
    if (this.#isQuiet) return
    const [, done] = CHAPTERS[phase]
    const text = done.replace('#', count(this.#done - this.#before))
    const { out } = this.#terminal.colours
    const seconds = `${(milliseconds / 1000).toFixed(1)} s`.padStart(7)
    this.#terminal.write(`  ${paint(out, 'green', phase.padEnd(7))} ${paint(out, 'dim', seconds)}  ${text}`)
  }

  /** The first of them, each by name. */
  onFault(fault: Fault): void {
    this.#faults++
    const { err } = this.#terminal.colours
    if (this.#faults <= MAX_TOLD_FAULTS)
      this.#terminal.warn(`${paint(err, 'yellow', 'skipped')} ${describeFault(fault)}`)
    else if (this.#faults === MAX_TOLD_FAULTS + 1) this.#terminal.warn('and more')
  }

  #show(of: number | undefined): void {
    const { progress, colours } = this.#terminal
    if (progress === undefined) return
    const [doing] = CHAPTERS[this.#phase]
    const done = this.#done - this.#before
    const seconds = (performance.now() - this.#begun) / 1000
    const rate = seconds > 0.3 && done > 0 ? `${count(Math.round(done / seconds))}/s` : ''
    const total = of === undefined ? undefined : of - this.#before
    const filled = total === undefined ? 0 : Math.min(BAR, Math.floor((done / Math.max(1, total)) * BAR))
    const bar =
      total === undefined
        ? ''
        : paint(colours.err, 'cyan', '━'.repeat(filled)) +
          paint(colours.err, 'dim', '─'.repeat(BAR - filled)) +
          '  '
    const amount =
      done === 0 && total === undefined
        ? ''
        : count(done) + (total === undefined ? '' : ` of ${count(total)}`)
    progress(
      `  ${paint(colours.err, 'cyan', doing.padEnd(10))} ${bar}${amount}  ${paint(colours.err, 'dim', rate)}`,
    )
  }
}

/** A number as people read it. */
export const count = (number: number): string => number.toLocaleString('en-GB')
