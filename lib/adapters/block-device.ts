/** Disks of this machine, as Linux tells of them. */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError } from '../errors.ts'

/** As device mapper names a volume of dm-crypt, LUKS among them. */
const CRYPT = /^CRYPT-/
/** A volume on a volume on …: more than anybody stacks. */
const MAX_DEPTH = 8

/**
 * Whether a folder lies on encrypted volumes alone: its device, or every device below it. Throws `ConfigError` where there
 * is no such folder, or it lies on no block device.
 * @param system where the kernel tells of devices
 */
export async function isOnEncryptedDisk(folder: string, system = '/sys/dev/block'): Promise<boolean> {
  const fault = (what: string): ConfigError =>
    new ConfigError([{ where: '--disk', what, fix: 'Name a folder of log.dirs, on the broker itself.' }])
  const found = await stat(folder).catch(() => undefined)
  if (found === undefined) throw fault(`${folder} is not there.`)
  const device = join(system, numberOf(found.dev))
  if ((await namesIn(device)) === undefined) throw fault(`${folder} lies on no block device.`)
  return isEncrypted(device, 0)
}

/** As glibc takes a device number apart. */
function numberOf(dev: number): string {
  const bits = BigInt(dev)
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn)
  const minor = (bits & 0xffn) | ((bits >> 12n) & ~0xffn & 0xffffffffn)
  return `${major}:${minor}`
}

async function isEncrypted(device: string, depth: number): Promise<boolean> {
  const uuid = await readFile(join(device, 'dm', 'uuid'), 'utf8').catch(() => '')
  if (CRYPT.test(uuid)) return true
  const below = depth < MAX_DEPTH ? ((await namesIn(join(device, 'slaves'))) ?? []) : []
  const answers = await Promise.all(below.map((name) => isEncrypted(join(device, 'slaves', name), depth + 1)))
  return answers.length > 0 && answers.every((answer) => answer)
}

const namesIn = (folder: string): Promise<readonly string[] | undefined> =>
  readdir(folder).catch(() => undefined)
