/** Fetches what brokers of every version need, so that two runs side by side do not both fetch it. */
import { classPathOf } from './broker.ts'

for (const version of ['4.3.1', '3.9.1'] as const)
  await classPathOf(version, (line) => process.stdout.write(`${line}\n`))
