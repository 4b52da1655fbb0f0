/** The process behind `sealgate` (bin/sealgate.js): the program on its own terminal. */
import { run } from './program.ts'
import { processTerminal } from './terminal.ts'

await run(process.argv.slice(2), processTerminal())
