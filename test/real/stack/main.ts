/** `npm run stack -- [--kafka 4.3.1|3.9.1] [--brokers 1|3]`: a real Kafka to work on, until Ctrl-C. */
import { parseArgs } from 'node:util'
import { startStack } from './stack.ts'

const { values } = parseArgs({
  options: {
    kafka: { type: 'string', default: '4.3.1' },
    brokers: { type: 'string', default: '1' },
  },
})
const version = values.kafka === '3.9.1' || values.kafka === '4.3.1' ? values.kafka : undefined
const brokers = values.brokers === '1' ? 1 : values.brokers === '3' ? 3 : undefined
if (version === undefined || brokers === undefined) {
  console.error('usage: npm run stack -- [--kafka 4.3.1|3.9.1] [--brokers 1|3]')
  process.exit(2)
}

const ended = new Promise((resolve) => {
  process.once('SIGINT', resolve)
  process.once('SIGTERM', resolve)
})
const stack = await startStack({ version, brokers, say: (line) => console.log(line) })
console.log(`
Brokers   ${stack.connection.brokers.join(',')}  (SASL_SSL, SCRAM-SHA-512)
Users     admin, gate, producer, consumer, poller
Password of each, and the authority to trust (ca): ${stack.connectionFile}, which only you can read
Topics    none yet; the gate may read source.*, and write output.*, test.audit*, test.quarantine*
Ctrl-C ends it, and deletes everything.`)
await ended
console.log('stopping')
await stack.stop()
