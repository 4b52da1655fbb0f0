/** What may happen beside the decisions on records: `event_type` of entries on control chains (docs/audit.md). */
export const CONTROL_TYPES = [
  'audit.broken', // a break was found in a chain
  'contracts.loaded',
  'directory.published',
  'directory.renewed',
  'directory.loaded', // versions found that nobody had told of
  'key.enrolled',
  'key.activated',
  'key.suspended',
  'key.resumed',
  'key.retired',
  'key.revoked',
  'key.changed',
  'key.destroyed',
  'key.granted', // somebody may seal under a KEK
  'key.withdrawn',
  'key.staged', // a new value of a secret, pending
  'key.promoted', // the one in use
  'key.rotated', // a password set at the brokers, a KMS key's material
  'position.initialised',
  'position.restored',
  'quarantine.redriven',
  'subject.erased',
] as const

export type ControlType = (typeof CONTROL_TYPES)[number]
