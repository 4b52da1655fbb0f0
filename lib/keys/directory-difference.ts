/** What one version of a key directory changes in another, row by row: for people, and for whatever keeps account. */
import type { DirectoryDocument } from './directory-document.ts'

export interface RowDifference {
  readonly list: 'signingKeys' | 'keks'
  /** A kid in base64url, or a kekId. */
  readonly name: string
  /** The issuer of a signing key; those that may seal under a KEK. As of the later version, where it has the row. */
  readonly iss: readonly string[]
  readonly change: 'added' | 'removed' | 'changed'
  /** Fields that differ, with the values of both versions; none where the whole row was added or removed. */
  readonly fields: readonly { readonly field: string; readonly from: unknown; readonly to: unknown }[]
}

/** Rows in the order of the earlier version, new ones after them. */
export function differences(before: DirectoryDocument, after: DirectoryDocument): readonly RowDifference[] {
  const kids = (document: DirectoryDocument) =>
    new Map(document.signingKeys.map((entry) => [entry.kid, { iss: [entry.iss], row: { ...entry } }]))
  const keks = (document: DirectoryDocument) =>
    new Map(document.keks.map((entry) => [entry.kekId, { iss: entry.iss, row: { ...entry } }]))
  return [...compare('signingKeys', kids(before), kids(after)), ...compare('keks', keks(before), keks(after))]
}

interface Row {
  readonly iss: readonly string[]
  readonly row: Readonly<Record<string, unknown>>
}

function compare(
  list: RowDifference['list'],
  before: ReadonlyMap<string, Row>,
  after: ReadonlyMap<string, Row>,
): RowDifference[] {
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((name): RowDifference[] => {
    const [from, to] = [before.get(name), after.get(name)]
    const iss = (to ?? from)?.iss ?? []
    if (from === undefined) return [{ list, name, iss, change: 'added', fields: [] }]
    if (to === undefined) return [{ list, name, iss, change: 'removed', fields: [] }]
    const fields = [...new Set([...Object.keys(from.row), ...Object.keys(to.row)])]
      .filter((field) => JSON.stringify(from.row[field]) !== JSON.stringify(to.row[field]))
      .map((field) => ({ field, from: from.row[field] ?? null, to: to.row[field] ?? null }))
    return fields.length === 0 ? [] : [{ list, name, iss, change: 'changed', fields }]
  })
}
