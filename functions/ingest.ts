/**
 * The Lambda function of the MSK trigger. Its environment is read as the module is loaded, so that a deployment with faults
 * fails in Lambda's init phase, with all of them named, and takes no record; connections open at the first invocation.
 */
import { openGate } from '../lib/runtime.ts'
import { readSettings } from '../lib/settings.ts'
import { ingestHandler, type IngestHandler } from './ingest-handler.ts'

const settings = readSettings(process.env)

export const handler: IngestHandler = ingestHandler(() => openGate(settings))
