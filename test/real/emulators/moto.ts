/** moto, an emulator of AWS: S3, KMS with its contexts, secrets. */
import { EMULATOR_MS, type Emulator, startEmulator } from './emulator.ts'

export const MOTO_MS: number = EMULATOR_MS

/** One with nothing in it; the environment points at it, credentials included. */
export function startMoto(): Promise<Emulator> {
  return startEmulator({
    name: 'moto',
    version: '5.2.5',
    extra: 'server',
    module: 'moto.server',
    start: (port) => ({ arguments: ['-H', '127.0.0.1', '-p', String(port)], environment: {} }),
  })
}
