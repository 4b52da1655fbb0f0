/** MiniStack, an emulator of AWS: key states, secrets, MSK's control plane. */
import { EMULATOR_MS, type Emulator, startEmulator } from './emulator.ts'

export const MINISTACK_MS: number = EMULATOR_MS

/**
 * One with nothing in it; the environment points at it, credentials included. `settings` are environment variables of
 * its own, such as MINISTACK_MSK_BOOTSTRAP_SASL_SCRAM, which GetBootstrapBrokers answers.
 */
export function startMinistack(settings: Readonly<Record<string, string>> = {}): Promise<Emulator> {
  return startEmulator({
    name: 'ministack',
    version: '1.5.33',
    extra: 'full',
    module: 'ministack',
    start: (port) => ({
      arguments: [],
      environment: {
        BIND_HOST: '127.0.0.1',
        GATEWAY_PORT: String(port),
        // By default it listens for things on another port, on every interface.
        IOT_MTLS_ENABLED: '0',
        SFTP_ENABLED: '0',
        ...settings,
      },
    }),
  })
}
