/**
 * The Lambda function that rotates (docs/rotation.md). Its environment is read as the module is loaded: with faults it does
 * not start. The policy is read at each invocation.
 */
import { openClusterLifecycle } from '../lib/adapters/control-cluster.ts'
import { lambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import { openRotations, readRotationSettings } from '../lib/rotation-runtime.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import { rotateHandler, type RotateHandler } from './rotate-handler.ts'

const clock = { now: () => Date.now() }
const settings = readRotationSettings(process.env)
const { control } = settings

export const handler: RotateHandler = rotateHandler(
  () => openRotations(settings, settings.policy, clock),
  () => control && openClusterLifecycle(control, settings, clock, SOFTWARE),
  lambdaTelemetry(process.env['POWERTOOLS_SERVICE_NAME'], clock),
)
