/** As whom an event is sealed, and to which channel: the first publisher whose sources fit. */
import type { Contract, Contracts } from '../lib/contract/contract.ts'
import { ConfigError } from '../lib/errors.ts'

export interface Address {
  readonly channel: string
  readonly iss: string
  /** The event's own, else the publisher's first. */
  readonly source: string
  /** Whether any contract is for the type. One that none is for goes to the first contract's channel, to be rejected there. */
  readonly isKnown: boolean
}

/** Addresses events by contracts. Throws `ConfigError` for an issuer (`as`) that no contract names. */
export function createPublishers(
  contracts: Contracts,
  as: string | undefined,
): (type: string, source: string | undefined) => Address {
  const issuers = new Set(contracts.all.flatMap(({ publish }) => [...publish.keys()]))
  const [first] = contracts.all
  if (first === undefined || issuers.size === 0)
    throw new ConfigError([
      { where: 'contracts', what: 'No contract lets anybody publish.', fix: 'Add one with a publisher.' },
    ])
  if (as !== undefined && !issuers.has(as))
    throw new ConfigError([
      {
        where: '--as',
        what: `No contract names ${as}.`,
        fix: `There are: ${[...issuers].sort().join(', ')}.`,
      },
    ])
  const byType = Map.groupBy(contracts.all, ({ type }) => type)
  return (type, source) => {
    const ofType = byType.get(type)
    const candidates = ofType ?? contracts.all
    const fitting = firstFitting(candidates, source, as)
    const contract =
      fitting?.contract ?? candidates.find(({ publish }) => as === undefined || publish.has(as))
    const iss = as ?? fitting?.iss ?? firstOf(contract?.publish.keys()) ?? firstOf(issuers.values()) ?? ''
    return {
      channel: ofType === undefined ? first.channel : (contract ?? ofType[0] ?? first).channel,
      iss,
      source: source ?? fitting?.source ?? `/${iss}`,
      isKnown: ofType !== undefined,
    }
  }
}

function firstFitting(
  contracts: readonly Contract[],
  source: string | undefined,
  as: string | undefined,
): { contract: Contract; iss: string; source: string } | undefined {
  for (const contract of contracts) {
    for (const [iss, sources] of contract.publish) {
      if (as !== undefined && iss !== as) continue
      const own = source ?? firstOf(sources.values())
      if (own !== undefined && sources.has(own)) return { contract, iss, source: own }
    }
  }
  return undefined
}

const firstOf = <T>(items: Iterator<T> | undefined): T | undefined => {
  const next = items?.next()
  return next?.done === false ? next.value : undefined
}
