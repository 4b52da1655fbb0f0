/** Clients of a service of AWS, one for each region: an ARN names its own. */

interface ClientSettings {
  /** The SDK itself never tries again: who calls knows how much time is left. */
  readonly maxAttempts: 1
  readonly region?: string
}

/**
 * @param make is called at the first use: who never asks the service need not wait for its SDK
 * @param usual the region for names that are no ARN; the SDK's own where it is left out
 */
export function clientsByRegion<Client>(
  make: (settings: ClientSettings) => Promise<Client>,
  usual?: string,
): (arn: string) => Promise<Client> {
  const clients = new Map<string | undefined, Promise<Client>>()
  return (arn) => {
    const [prefix, , , named = ''] = arn.split(':', 4)
    const region = prefix === 'arn' && named !== '' ? named : usual
    const client = clients.get(region) ?? make({ maxAttempts: 1, ...(region !== undefined && { region }) })
    clients.set(region, client)
    return client
  }
}
