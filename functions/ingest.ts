/**
 * The Lambda function of the MSK trigger. Its environment is read as the module is loaded, so that a deployment with faults
 * fails in Lambda's init phase, with all of them named, and takes no record; connections open at the first invocation.
 */
import { lambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import { openGate } from '../lib/runtime.ts'
import { readSettings } from '../lib/settings.ts'
import { ingestHandler, type IngestHandler } from './ingest-handler.ts'

const settings = readSettings(process.env)
const telemetry = lambdaTelemetry(process.env['POWERTOOLS_SERVICE_NAME'], {
  now: () => Date.now(),
})

export const handler: IngestHandler = ingestHandler(() => openGate(settings, telemetry.observer), telemetry)
