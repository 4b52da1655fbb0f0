/** Who may use which KEK for what: everybody × every key × every action × every context, by the templates' own policies. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readParts, samText, STAGES } from '../../deploy/package.ts'
import { needsOf } from '../../deploy/rights.ts'
import {
  openLocalKeyService,
  type LocalKeyService,
  type PolicyStatement,
} from '../../lib/local/key-service.ts'
import { listOf, nodeOf, ofType, parseTemplate } from './compiled.ts'
import { identityOf, mayByIdentity, mayUseKey } from './policy.ts'

const ACCOUNT = 'arn:aws:iam::123456789012'
const ROOT = `${ACCOUNT}:root`
const GATE = 'gateway-eu'
const PRODUCERS = { checkout: 'CheckoutKek', fulfilment: 'FulfilmentKek', payments: 'PaymentsKek' }
const CONSUMERS = ['warehouse', 'notifications', 'accounting', 'fraud-watch']
const KEKS = ['GatewayKek', ...Object.values(PRODUCERS)]
const ROLES = new Map([
  ['IngestRole.Arn', GATE],
  ['RotateRole.Arn', 'nobody'],
  ['KeysRole.Arn', 'nobody'],
  ...[...Object.keys(PRODUCERS), ...CONSUMERS].map((name) => [`${ACCOUNT}:role/${name}`, name] as const),
  [`${ACCOUNT}:role/outsider`, 'nobody'],
])
const NAMES = [GATE, ...Object.keys(PRODUCERS), ...CONSUMERS, 'somebody-else']
const ACTIONS = [
  ...['kms:GenerateDataKey', 'kms:Decrypt', 'kms:Encrypt', 'kms:ReEncryptFrom', 'kms:ReEncryptTo'],
  ...['kms:GenerateDataKeyWithoutPlaintext', 'kms:GenerateDataKeyPair', 'kms:CreateGrant', 'kms:Sign'],
]

interface Attempt {
  readonly role: string
  readonly kek: string
  readonly action: string
  readonly iss: string
  readonly aud: string
}

const ATTEMPTS: readonly Attempt[] = [...ROLES.keys()].flatMap((role) =>
  KEKS.flatMap((kek) =>
    ACTIONS.flatMap((action) =>
      NAMES.flatMap((iss) => NAMES.map((aud) => ({ role, kek, action, iss, aud }))),
    ),
  ),
)

/** The design's words (issue, architecture): a producer makes data keys as itself; the gate opens what is for it, and makes its own; a consumer opens what is for it. */
function isMeant({ role, kek, action, iss, aud }: Attempt): boolean {
  const who = ROLES.get(role) ?? 'nobody'
  const owner = Object.entries(PRODUCERS).find(([, id]) => id === kek)?.[0] ?? GATE
  if (iss !== owner) return false
  if (action === 'kms:GenerateDataKey') return who === owner
  if (action !== 'kms:Decrypt') return false
  return owner === GATE ? CONSUMERS.includes(who) && aud === who : who === GATE && aud === GATE
}

const contextOf = ({ iss, aud }: Pick<Attempt, 'iss' | 'aud'>): Record<string, string> => ({
  'sealgate:v': '1',
  'sealgate:iss': iss,
  'sealgate:aud': aud,
  'sealgate:type': 'com.example.order.placed.v1',
})

const conditionKeys = (context: Readonly<Record<string, string>>): Record<string, readonly string[]> => ({
  'kms:EncryptionContextKeys': Object.keys(context),
  ...Object.fromEntries(
    Object.entries(context).map(([name, value]) => [`kms:EncryptionContext:${name}`, [value]]),
  ),
})

/** What its owner may have given a role that is none of ours: everything. */
const CARELESS = [{ Effect: 'Allow', Action: 'kms:*', Resource: '*' }]
const isOurs = (role: string): boolean => role.endsWith('Role.Arn')

describe('the KEKs of a deployment', () => {
  const template = parseTemplate(readFileSync(join(STAGES, '../../template.yaml'), 'utf8'))
  const policies = ofType(template, 'AWS::IAM::Policy')
  const keyPolicies = new Map(
    ofType(template, 'AWS::KMS::Key').map(({ id, properties }) => [id, properties['KeyPolicy']]),
  )
  const decide = (attempt: Attempt, context: Readonly<Record<string, string>>): boolean =>
    mayUseKey(
      {
        principal: attempt.role,
        action: attempt.action,
        resource: `${attempt.kek}.Arn`,
        context: conditionKeys(context),
      },
      keyPolicies.get(attempt.kek),
      isOurs(attempt.role) ? identityOf(attempt.role.replace('.Arn', ''), policies) : CARELESS,
      ROOT,
    )

  it('are used by whom the design says, and in every other combination by nobody', () => {
    expect(ATTEMPTS).toHaveLength(11 * 4 * 9 * 81)
    const wrong = ATTEMPTS.filter((attempt) => decide(attempt, contextOf(attempt)) !== isMeant(attempt))
    expect(wrong).toEqual([])
    expect(ATTEMPTS.filter(isMeant).length).toBe(4 * 9 + 3 + 4)
  })

  it('are used by nobody without a context, with a part of it, or with more in it', () => {
    for (const attempt of ATTEMPTS.filter(isMeant)) {
      const whole = contextOf(attempt)
      const { 'sealgate:iss': iss, ...withoutIss } = whole
      expect(decide(attempt, {})).toBe(false)
      expect(decide(attempt, withoutIss)).toBe(false)
      expect(decide(attempt, { ...whole, 'sealgate:more': iss ?? '' })).toBe(false)
      if (attempt.action !== 'kms:Decrypt') continue
      const { 'sealgate:aud': aud, ...withoutAud } = whole
      expect([aud, decide(attempt, withoutAud)]).toEqual([attempt.aud, false])
    }
  })

  it('are administered by the account, which cannot use them, nor let anybody use them by a grant', () => {
    for (const kek of KEKS) {
      const as = (action: string): boolean =>
        mayUseKey(
          {
            principal: ROOT,
            action,
            resource: `${kek}.Arn`,
            context: conditionKeys(contextOf({ iss: GATE, aud: GATE })),
          },
          keyPolicies.get(kek),
          CARELESS,
          ROOT,
        )
      expect(as('kms:ScheduleKeyDeletion')).toBe(true)
      expect(ACTIONS.filter(as)).toEqual([])
    }
  })

  it('hold by the gate’s own policy too, where a key is given whose policy leaves all to the account', async () => {
    const { stage, contracts } = await readParts(join(STAGES, 'example-iam.yml'))
    const given = parseTemplate(samText(stage, needsOf(stage, contracts), ''))
    const identity = identityOf('IngestRole', ofType(given, 'AWS::IAM::Policy'))
    const arnOf: Record<string, string> = {
      GatewayKek: stage.kek.key,
      PaymentsKek: stage.producers['payments']?.kek ?? '',
      CheckoutKek: 'CheckoutKek.Arn',
      FulfilmentKek: 'FulfilmentKek.Arn',
    }
    const mine = ATTEMPTS.filter(({ role }) => role === 'IngestRole.Arn')
    const wrong = mine.filter((attempt) => {
      const resource = arnOf[attempt.kek] ?? ''
      const context = conditionKeys(contextOf(attempt))
      const may = mayByIdentity(
        { principal: attempt.role, action: attempt.action, resource, context },
        identity,
      )
      return may !== isMeant(attempt)
    })
    expect(wrong).toEqual([])
  })

  describe('in the embedded key service', () => {
    let folder: string
    let service: LocalKeyService
    const keys = new Map<string, string>()
    const wrapped = new Map<string, Uint8Array>()
    const local = ['GenerateDataKey', 'Decrypt', 'Encrypt'] as const

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sealgate-keks-'))
      service = await openLocalKeyService(folder, { now: () => Date.now() })
      for (const kek of KEKS) {
        const { keyId } = await service.createKey()
        keys.set(kek, keyId)
        // Before anybody is shut out.
        for (const iss of NAMES)
          for (const aud of NAMES)
            wrapped.set(
              `${kek} ${iss} ${aud}`,
              service.generateDataKey(keyId, contextOf({ iss, aud })).ciphertext,
            )
        await service.putKeyPolicy(keyId, localPolicy(keyPolicies.get(kek)))
      }
    })
    afterAll(async () => {
      await rm(folder, { recursive: true })
    })

    it('are used by the same and by nobody else, with the same policies', () => {
      const attempts = ATTEMPTS.filter(({ action }) => local.some((one) => action === `kms:${one}`))
      const wrong = attempts.filter((attempt) => isDone(attempt) !== isMeant(attempt))
      expect(wrong).toEqual([])
      expect(attempts.filter(isMeant)).toHaveLength(43)
    })

    it('are used by nobody with more in the context, also when the service was opened anew', async () => {
      const reopened = await openLocalKeyService(folder, { now: () => Date.now() })
      for (const attempt of ATTEMPTS.filter(isMeant)) {
        const key = keys.get(attempt.kek) ?? ''
        const more = { ...contextOf(attempt), 'sealgate:more': 'x' }
        const use = (): unknown =>
          attempt.action === 'kms:GenerateDataKey'
            ? reopened.generateDataKey(key, more, attempt.role)
            : reopened.decrypt(key, new Uint8Array(200), more, attempt.role)
        expect(use).toThrow(expect.objectContaining({ name: 'AccessDeniedException' }))
      }
    })

    function isDone(attempt: Attempt): boolean {
      const { role, kek, action, iss, aud } = attempt
      const key = keys.get(kek) ?? ''
      const context = contextOf(attempt)
      try {
        if (action === 'kms:GenerateDataKey') service.generateDataKey(key, context, role)
        else if (action === 'kms:Encrypt') service.encrypt(key, Buffer.from('x'), context, role)
        else service.decrypt(key, wrapped.get(`${kek} ${iss} ${aud}`) ?? new Uint8Array(), context, role)
        return true
      } catch (error) {
        if (error instanceof Error && error.name === 'AccessDeniedException') return false
        throw error
      }
    }
  })
})

/** A key policy of AWS in the words of the embedded service. */
function localPolicy(document: unknown): PolicyStatement[] {
  const actions = ['GenerateDataKey', 'Encrypt', 'Decrypt', 'Sign'] as const
  return listOf(nodeOf(document)['Statement']).flatMap((statement) => {
    const { Action, Principal, Condition } = nodeOf(statement)
    const equal = Object.entries(nodeOf(nodeOf(Condition)['StringEquals']))
    const context = equal.map(([key, value]) => [
      key.replace('kms:EncryptionContext:', ''),
      listOf(value).map(String),
    ])
    const names = nodeOf(nodeOf(Condition)['ForAllValues:StringEquals'])['kms:EncryptionContextKeys']
    return listOf(nodeOf(Principal)['AWS']).map((principal) => ({
      principal: String(principal),
      actions: actions.filter((one) => listOf(Action).includes(`kms:${one}`)),
      ...(names === undefined ? {} : { contextNames: listOf(names).map(String) }),
      context: Object.fromEntries(context) as Record<string, string[]>,
    }))
  })
}
