/** What is to be said of where brokers stand: their addresses, their disks, and what MSK tells of both. */
import { BlockList, isIP } from 'node:net'
import { fail, ok, orElse, skip, type Verdict } from './finding.ts'

/** Whether brokers stand where nobody comes from outside: by the addresses that their names stand for. */
export function addressVerdicts(
  brokers: readonly { readonly host: string; readonly addresses: readonly string[] }[],
): readonly Verdict[] {
  const open = brokers.filter(({ addresses }) => !addresses.every(isPrivate))
  const faults = open.map(({ host, addresses }) =>
    fail(
      `${host} has a public address (${addresses.find((one) => !isPrivate(one)) ?? ''}).`,
      'Put brokers into private subnets; on MSK turn public access off (docs/network.md).',
    ),
  )
  return orElse(faults, `${brokers.length} hosts, all at private addresses.`)
}

const PRIVATE = new BlockList()
for (const [net, bits] of [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['127.0.0.0', 8],
  // Shared address space (RFC 6598), which VPCs may use.
  ['100.64.0.0', 10],
] as const)
  PRIVATE.addSubnet(net, bits, 'ipv4')
PRIVATE.addSubnet('fc00::', 7, 'ipv6')
PRIVATE.addAddress('::1', 'ipv6')

const isPrivate = (address: string): boolean => PRIVATE.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

/** What MSK tells of a cluster. */
export interface MskFacts {
  readonly isServerless: boolean
  /** The key that its disks are encrypted under; null where MSK names none. */
  readonly diskKey: string | null
  /** `TLS`, `TLS_PLAINTEXT` or `PLAINTEXT`; null where MSK does not say. */
  readonly clientBroker: string | null
  readonly isEncryptedBetweenBrokers: boolean
  /** Whether clients need not prove who they are. */
  readonly allowsNobodies: boolean
  readonly isPublic: boolean
}

/** Where records lie: on disks that MSK encrypts, on disks of this machine, or we do not know where. */
export function diskVerdicts(
  msk: MskFacts | undefined,
  disks: readonly { readonly path: string; readonly isEncrypted: boolean }[],
  plainOutputs: readonly string[],
): readonly Verdict[] {
  if (msk?.isServerless === true) return [ok('MSK Serverless encrypts its disks, under a key of AWS.')]
  if (msk !== undefined)
    return msk.diskKey === null
      ? [fail('MSK names no key for its disks.', 'See EncryptionInfo of the cluster.')]
      : [ok(`MSK encrypts the disks under ${msk.diskKey}.`)]
  const open = disks.filter(({ isEncrypted }) => !isEncrypted)
  const faults = open.map(({ path }) =>
    fail(`${path} lies on a disk that is not encrypted.`, 'Move it to a LUKS volume (docs/network.md).'),
  )
  if (disks.length > 0) return orElse(faults, `${disks.length} folders, all on encrypted disks.`)
  const clear =
    plainOutputs.length === 0 ? 'Payloads are sealed.' : `In clear there: ${plainOutputs.join(', ')}.`
  return [
    skip(
      `Brokers do not tell of their disks. ${clear}`,
      'Give --msk ARN; or, on a broker, --disk FOLDER of log.dirs.',
    ),
  ]
}

/** What MSK lets in, beside what was tried from here. */
export function mskVerdicts(msk: MskFacts): readonly Verdict[] {
  const faults: Verdict[] = []
  if (msk.isPublic) faults.push(fail('MSK has public access turned on.', 'Set PublicAccess to DISABLED.'))
  if (msk.allowsNobodies)
    faults.push(fail('MSK lets in clients that do not authenticate.', 'Turn Unauthenticated off.'))
  if (!msk.isServerless && msk.clientBroker !== 'TLS')
    faults.push(
      fail(
        `MSK takes connections by ${msk.clientBroker ?? 'what it does not say'}.`,
        'Set ClientBroker to TLS.',
      ),
    )
  if (!msk.isServerless && !msk.isEncryptedBetweenBrokers)
    faults.push(
      fail('Between the brokers of MSK nothing is encrypted.', 'Only a new cluster has InCluster on.'),
    )
  return faults
}
