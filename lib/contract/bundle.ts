/**
 * Contracts as one frozen document of data (contracts.md, `build`), and ready for use. Deciding costs a map look-up;
 * what a contract needs besides (its schema's validator, its routes' plans and derived schemas) is made at first use.
 */
import { digest } from '../envelope/crypto.ts'
import { ConfigError, Rejection, type Fault } from '../errors.ts'
import { checkContract, checkCost, treatmentsOf } from './check.ts'
import { checkTogether } from './check-together.ts'
import {
  channelOf,
  readContractFile,
  secondsOf,
  type ContractFile,
  type Finding,
  type RouteFile,
} from './contract-file.ts'
import type { Contract, Contracts, PseudonymKeys, Route } from './contract.ts'
import { deriveSchema } from './derive.ts'
import { isArray, isObject, member, readJson, textOf, type JsonObject, type JsonValue } from './json.ts'
import { CompiledSchema } from './schema.ts'
import { pointerOf, tokensOf, type Schema } from './shape.ts'
import { DROP, applyPlan, literalAt, passesAll, planOf, type Plan } from './treatments.ts'

const FORMAT = 'sealgate-contracts/1'
/** The longest ciphertext's content (sealed-event.md §2). */
const MAX_BYTES = 1_048_576
const DAY = 86_400

/** The bundle of contracts that have been checked. The same contracts give the same bytes, in whatever order. */
export function buildBundle(files: readonly ContractFile[]): Uint8Array {
  const rows = files.map((file) => [`${file.channel} ${file.type}`, file] as const)
  const contracts = rows.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file)
  return Buffer.from(JSON.stringify({ bundle: FORMAT, contracts }), 'utf8')
}

/**
 * The contracts of a bundle. Their shape is looked at again, what their schemas cost, and how they go together: a bundle
 * may come from an older build, or from none. That schemas compile and that treatments fit is not, since it takes
 * seconds: `build` has proven it, and what does not compile admits nothing.
 * @throws ConfigError with every fault
 */
export function loadBundle(bytes: Uint8Array): Contracts {
  const data = readBundle(bytes)
  const contracts =
    isObject(data) && member(data, 'bundle') === FORMAT ? member(data, 'contracts') : undefined
  if (contracts === undefined || !isArray(contracts))
    throw new ConfigError([
      { where: 'bundle', what: `This is no ${FORMAT}.`, fix: 'Make one by sealgate contracts build.' },
    ])
  const faults: Fault[] = []
  const report = (where: string, finding: Finding): void => {
    if (finding.warning !== true)
      faults.push({ where: where + pointerOf(finding.path), what: finding.what, fix: finding.fix })
  }
  const placed: { file: ContractFile; where: string }[] = []
  for (const [index, contract] of contracts.entries()) {
    const where = `bundle/contracts/${index}`
    const read = readContractFile(contract)
    const findings = 'file' in read ? checkCost(read.file) : read.findings
    if ('file' in read) placed.push({ file: read.file, where })
    for (const finding of findings) report(where, finding)
  }
  for (const { where, finding } of checkTogether(placed, (name) => name)) report(where, finding)
  if (faults.length > 0) throw new ConfigError(faults)
  return new ContractTable(
    placed.map(({ file }) => file),
    digest(bytes),
  )
}

function readBundle(bytes: Uint8Array): JsonValue {
  try {
    return JSON.parse(textOf(bytes)) as JsonValue
  } catch {
    return null
  }
}

/**
 * Contracts from plain objects: as a file has them, or as the conformance vectors do (`publish` and `sources` as lists).
 * @throws ConfigError with every fault
 */
export function contractsFrom(objects: readonly unknown[]): Contracts {
  return loadBundle(bundleFrom(objects))
}

/** The same as a bundle. */
export function bundleFrom(objects: readonly unknown[]): Uint8Array {
  const faults: Fault[] = []
  const placed: { file: ContractFile; where: string }[] = []
  for (const [index, object] of objects.entries()) {
    const where = `contract ${index + 1}`
    const read = readContractFile(fromVector(JSON.parse(JSON.stringify(object)) as JsonValue))
    const findings = 'file' in read ? checkContract(read.file) : read.findings
    if ('file' in read) placed.push({ file: read.file, where })
    for (const finding of findings)
      if (finding.warning !== true)
        faults.push({ where: where + pointerOf(finding.path), what: finding.what, fix: finding.fix })
  }
  for (const { where, finding } of checkTogether(placed, (name) => name))
    if (finding.warning !== true)
      faults.push({ where: where + pointerOf(finding.path), what: finding.what, fix: finding.fix })
  if (faults.length > 0) throw new ConfigError(faults)
  return buildBundle(placed.map(({ file }) => file))
}

/** A vector's contract in a file's shape; anything else as it is. */
function fromVector(value: JsonValue): JsonValue {
  if (!isObject(value)) return value
  const { publish, sources, maxBytes, ...rest } = value
  if (publish === undefined || !isArray(publish) || sources === undefined) return value
  const issuers = publish.filter((iss) => typeof iss === 'string')
  return {
    contract: 'sealgate/1',
    ...rest,
    publish: Object.fromEntries(issuers.map((iss) => [iss, { sources }])),
    ...(maxBytes === undefined ? {} : { limits: { maxBytes } }),
  }
}

class ContractTable implements Contracts {
  readonly digest: Uint8Array
  readonly all: readonly Contract[]
  readonly #byChannel = new Map<string, Map<string, Contract>>()

  constructor(files: readonly ContractFile[], bundleDigest: Uint8Array) {
    this.digest = bundleDigest
    this.all = files.map(contractOf)
    for (const contract of this.all) {
      const types = this.#byChannel.get(contract.channel) ?? new Map<string, Contract>()
      types.set(contract.type, contract)
      this.#byChannel.set(contract.channel, types)
    }
  }

  find(channel: string, type: string): Contract | undefined {
    return this.#byChannel.get(channel)?.get(type)
  }
}

function contractOf(file: ContractFile): Contract {
  const assertFormats = file.assertFormats === true
  return {
    type: file.type,
    channel: file.channel,
    description: file.description ?? '',
    owner: file.owner ?? '',
    classification: file.classification ?? 'restricted',
    publish: new Map(Object.entries(file.publish).map(([iss, { sources }]) => [iss, new Set(sources)])),
    maxBytes: file.limits?.maxBytes ?? MAX_BYTES,
    perSecond: file.limits?.perSecond,
    routes: Object.entries(file.consume ?? {}).map(
      ([consumer, route]) => new PlannedRoute(consumer, route, file),
    ),
    payload: new CompiledSchema(file.schema, assertFormats),
  }
}

class PlannedRoute implements Route {
  readonly consumer: string
  readonly purpose: string
  readonly channel: string
  readonly form: 'sealed' | 'plain'
  readonly partitionBy: string | undefined
  readonly lifeSeconds: number
  readonly #route: RouteFile
  readonly #schema: Schema
  readonly #assertFormats: boolean
  #planned: Plan | undefined
  #derived: JsonObject | undefined
  #result: CompiledSchema | undefined

  constructor(consumer: string, route: RouteFile, file: ContractFile) {
    this.consumer = consumer
    this.purpose = route.purpose
    this.channel = channelOf(route, file.type)
    this.form = route.form ?? 'sealed'
    this.partitionBy = route.partitionBy
    this.lifeSeconds = route.life === undefined ? DAY : secondsOf(route.life)
    this.#route = route
    this.#schema = file.schema
    this.#assertFormats = file.assertFormats === true
  }

  get domains(): readonly string[] {
    const treatments = treatmentsOf(this.#route).map(([, treatment]) => treatment)
    return [
      ...new Set(
        treatments.flatMap((treatment) => (treatment.kind === 'pseudonym' ? [treatment.domain] : [])),
      ),
    ]
  }

  get derivedSchema(): JsonObject {
    return (this.#derived ??= deriveSchema(this.#schema, this.#plan))
  }

  get #plan(): Plan {
    return (this.#planned ??= planOf(treatmentsOf(this.#route)))
  }

  treat(payload: Uint8Array, keys: PseudonymKeys): Uint8Array {
    const source = textOf(payload)
    const treated = passesAll(this.#plan, DROP) ? undefined : applyPlan(this.#plan, source, keys)
    const result = treated === undefined ? payload : Buffer.from(treated, 'utf8')
    this.#result ??= new CompiledSchema(this.derivedSchema, this.#assertFormats)
    try {
      this.#result.checkJson(readJson(result))
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      throw new Rejection(
        'schema-invalid',
        `What ${this.consumer} would get is not as promised. ${error.message}`,
        { cause: error },
      )
    }
    return result
  }

  keyOf(treated: Uint8Array): Uint8Array | null {
    const tokens = this.partitionBy === undefined ? undefined : tokensOf(this.partitionBy)
    const literal = tokens === undefined ? undefined : literalAt(textOf(treated), tokens)
    if (literal === undefined) return null
    const value: unknown = JSON.parse(literal)
    if (typeof value === 'string') return Buffer.from(value, 'utf8')
    return typeof value === 'number' ? Buffer.from(literal, 'utf8') : null
  }
}
