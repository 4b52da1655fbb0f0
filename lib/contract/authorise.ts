/** Step 7 of admission: may this issuer publish this type here, for this source? (sealed-event.md §5) */
import { Rejection } from '../errors.ts'
import type { Contract, Contracts } from './contract.ts'

/** What the signed header says about an event, as far as a contract asks. */
export interface Claims {
  readonly iss: string
  /** CloudEvents `type`. */
  readonly type: string
  /** CloudEvents `source`. */
  readonly source: string
}

/**
 * The contract under which the event may enter `channel`.
 * @throws Rejection `type-unknown` or `not-authorised`
 */
export function authorise(channel: string, claims: Claims, contracts: Contracts): Contract {
  const contract = contracts.find(channel, claims.type)
  if (contract === undefined)
    throw new Rejection('type-unknown', 'No contract for this event type on this channel.')
  const sources = contract.publish.get(claims.iss)
  if (sources === undefined)
    throw new Rejection('not-authorised', 'The contract does not let this issuer publish this event type.')
  if (!sources.has(claims.source))
    throw new Rejection('not-authorised', 'The contract does not let this issuer speak for this source.')
  return contract
}
