/** What is wrong between contracts, none of which is wrong by itself (contracts.md, `check`). */
import { treatmentsOf } from './check.ts'
import { channelOf, type ContractFile, type Finding } from './contract-file.ts'
import { pointerOf } from './shape.ts'

/** A contract and where it is written, for findings that need more than one. */
export interface Placed<Where> {
  readonly file: ContractFile
  readonly where: Where
}

/** What is wrong between contracts: each finding with the later of the two. */
export function checkTogether<Where>(
  contracts: readonly Placed<Where>[],
  nameOf: (where: Where) => string,
): { where: Where; finding: Finding }[] {
  const found: { where: Where; finding: Finding }[] = []
  const owners = new Map<string, Where>()
  const outputs = new Map<string, { form: string; consumer: string; where: Where }>()
  const domains = new Map<string, { purpose: string; where: Where }>()
  const ingress = new Set(contracts.map(({ file }) => file.channel))
  for (const { file, where } of contracts) {
    const add = (path: readonly string[], what: string, fix: string, warning?: true): void => {
      found.push({ where, finding: { path, what, fix, ...(warning === undefined ? {} : { warning }) } })
    }
    const key = JSON.stringify([file.channel, file.type])
    const other = owners.get(key)
    if (other !== undefined)
      add(
        ['type'],
        `${nameOf(other)} is a contract for ${file.type} on ${file.channel} already.`,
        'Keep one of the two.',
      )
    owners.set(key, other ?? where)
    for (const [consumer, route] of Object.entries(file.consume ?? {})) {
      const channel = channelOf(route, file.type)
      const form = route.form ?? 'sealed'
      if (ingress.has(channel))
        add(
          ['consume', consumer, 'to'],
          `${channel} is a channel that producers write to: what goes out there would come in again.`,
          'Give the consumer a channel of its own.',
        )
      const output = outputs.get(channel)
      if (output !== undefined && output.form !== form)
        add(
          ['consume', consumer, 'to'],
          `${channel} would carry ${form} events beside the ${output.form} ones of ${output.consumer} (${nameOf(output.where)}).`,
          'Give each form a channel of its own.',
        )
      else if (output !== undefined && output.consumer !== consumer)
        add(
          ['consume', consumer, 'to'],
          `${channel} is written for ${output.consumer} too (${nameOf(output.where)}).`,
          'Give each consumer a channel of its own: who reads a channel reads all of it.',
          true,
        )
      if (output === undefined) outputs.set(channel, { form, consumer, where })
      for (const [tokens, treatment] of treatmentsOf(route)) {
        if (treatment.kind !== 'pseudonym') continue
        const domain = domains.get(treatment.domain)
        if (domain !== undefined && domain.purpose !== route.purpose)
          add(
            ['consume', consumer, 'treatments', pointerOf(tokens)],
            `The pseudonym domain ${treatment.domain} serves the purpose ${domain.purpose} already (${nameOf(domain.where)}), and would join the two.`,
            `Use another domain for ${route.purpose}.`,
          )
        if (domain === undefined) domains.set(treatment.domain, { purpose: route.purpose, where })
      }
    }
  }
  return found
}
