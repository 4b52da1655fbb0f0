/**
 * The Lambda function that gives out public keys over HTTPS, behind a function URL or API Gateway (payload format 2.0).
 * Its environment is read as the module is loaded: with faults it does not start.
 */
import { openDocument } from '../lib/adapters/document-place.ts'
import { lambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import type { Directory } from '../lib/keys/directory.ts'
import { createDirectory } from '../lib/keys/directory-reader.ts'
import { readKeysSettings } from '../lib/settings.ts'
import { keysHandler, type KeysHandler } from './keys-handler.ts'

const clock = { now: () => Date.now() }
const { directory, roots } = readKeysSettings(process.env)

function openDirectory(): Directory {
  const source = openDocument(directory, { outage: 'directory-unavailable', clock })
  return createDirectory({ source, roots, clock })
}

export const handler: KeysHandler = keysHandler(
  openDirectory,
  lambdaTelemetry(process.env['POWERTOOLS_SERVICE_NAME'], clock),
)
