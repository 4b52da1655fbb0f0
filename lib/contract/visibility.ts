/** Who may see what of an event type: its fields by its consumers, for people (contracts.md, "who may see what"). */
import { treatmentsOf } from './check.ts'
import type { ContractFile } from './contract-file.ts'
import { roundToMultiple } from './decimal.ts'
import { fieldsOf } from './fields.ts'
import { pointerOf } from './shape.ts'
import { planOf, type Treatment } from './treatments.ts'

export interface FieldVisibility {
  /** JSON Pointer, with `*` for every item of an array. */
  readonly field: string
  /** Its `x-classification`, or that of what it is in. */
  readonly classification: string | undefined
  /** Per consumer, in the contract's order: its treatment in words. */
  readonly treatments: Readonly<Record<string, string>>
}

/** The fields that hold values, in the schema's order. */
export function visibilityOf(file: ContractFile): FieldVisibility[] {
  const consumers = Object.entries(file.consume ?? {}).map(([consumer, route]) => {
    const fields = fieldsOf(file.schema, planOf(treatmentsOf(route)))
    return [consumer, new Map(fields.map((field) => [pointerOf(field.tokens), field.treatment]))] as const
  })
  return fieldsOf(file.schema)
    .filter((field) => field.isLeaf)
    .map((field) => {
      const pointer = pointerOf(field.tokens)
      const treatments = consumers.map(([consumer, byField]) => {
        const treatment = byField.get(pointer)
        return [consumer, treatment === undefined ? 'drop' : inWords(treatment)]
      })
      return {
        field: pointer,
        classification: field.classification,
        treatments: Object.fromEntries(treatments) as Record<string, string>,
      }
    })
}

function inWords(treatment: Treatment): string {
  switch (treatment.kind) {
    case 'pass':
    case 'drop':
      return treatment.kind
    case 'mask':
      return `mask, last ${treatment.show}`
    case 'keep':
      return `first ${treatment.characters}`
    case 'round':
      return `round to ${roundToMultiple(treatment.step, treatment.step) ?? '…'}`
    case 'date':
      return `${treatment.unit} only`
    case 'pseudonym':
      return `pseudonym (${treatment.domain})`
  }
}
