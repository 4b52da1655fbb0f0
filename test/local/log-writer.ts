/** A process to be killed: `write FOLDER` commits transactions and says so, `hold FOLDER` only owns the log, `lock FOLDER MS` fights for it. */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { lockFolder } from '../../lib/local/log-lock.ts'
import { openLog } from '../../lib/local/log-open.ts'
import type { Log } from '../../lib/local/log.ts'

const [mode = '', folder = '', ms = '0'] = process.argv.slice(2)
const say = (line: string): void => void writeSync(1, `${line}\n`)

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

/** Each transaction writes its number to two partitions, with some ballast, and to its position. */
const write = async (log: Log, id: string, partitions: readonly number[]): Promise<never> => {
  const producer = await log.begin(id)
  const found = await log.groupOffset(id, 'events', partitions[0] ?? 0)
  for (let number = found?.next ?? 0n; ; number++) {
    const ballast = { name: 'ballast', value: new Uint8Array(Number(number % 7n) * 3000) }
    const value = bytes(`${id} ${number}`)
    const messages = partitions.map((partition) => ({
      topic: 'events',
      partition,
      key: null,
      value,
      headers: [ballast],
    }))
    await producer.append(messages)
    const place = { topic: 'events', partition: partitions[0] ?? 0 }
    await producer.commit([{ group: id, ...place, next: number + 1n, metadata: value }])
    say(`${id} ${number}`)
  }
}

if (mode === 'lock') {
  let wins = 0
  for (const end = Date.now() + Number(ms); ;) {
    try {
      const lock = lockFolder(folder)
      closeSync(openSync(join(folder, 'critical'), 'wx'))
      wins++
      unlinkSync(join(folder, 'critical'))
      // The last time it ends as the owner: the others find it dead.
      if (Date.now() > end) break
      lock.release()
    } catch (error) {
      if (!(error instanceof Error && error.name === 'ConfigError')) say(`broken ${String(error)}`)
    }
  }
  say(`wins ${wins}`)
} else {
  const log = await openLog(folder)
  say('open')
  if (mode === 'write') {
    await log.createTopic('events', 4)
    await Promise.all([write(log, 'a', [0, 1]), write(log, 'b', [1, 2]), write(log, 'c', [3, 0])])
  }
}
