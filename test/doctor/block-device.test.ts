/** Disks under a folder, told from a tree as Linux has it under /sys/dev/block. */
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isOnEncryptedDisk } from '../../lib/adapters/block-device.ts'

let system: string
let device: string

beforeEach(async () => {
  system = await mkdtemp(join(tmpdir(), 'sealgate-disk-'))
  const { dev } = await stat(system)
  // Of the small numbers that disks have, the old form is enough.
  device = join(system, `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`)
  await mkdir(device)
})
afterEach(() => rm(system, { recursive: true, force: true }))

const mapped = async (place: string, uuid: string): Promise<void> => {
  await mkdir(join(place, 'dm'), { recursive: true })
  await writeFile(join(place, 'dm', 'uuid'), `${uuid}\n`)
}
const below = (name: string): string => join(device, 'slaves', name)

describe('a folder on a disk', () => {
  it('is safe on a LUKS volume, and on a volume group that lies on nothing else', async () => {
    await mapped(device, 'CRYPT-LUKS2-0123456789abcdef-data')
    expect(await isOnEncryptedDisk(system, system)).toBe(true)
    await mapped(device, 'LVM-abc')
    for (const name of ['dm-1', 'dm-2']) await mapped(below(name), 'CRYPT-LUKS2-x')
    expect(await isOnEncryptedDisk(system, system)).toBe(true)
  })

  it('is not on a plain disk, nor where one of several below is plain', async () => {
    expect(await isOnEncryptedDisk(system, system)).toBe(false)
    await mapped(device, 'LVM-CRYPT-abc')
    await mapped(below('dm-1'), 'CRYPT-LUKS2-x')
    await mkdir(below('sdb1'))
    expect(await isOnEncryptedDisk(system, system)).toBe(false)
  })

  it('is a fault where it is not there, or on no disk', async () => {
    await expect(isOnEncryptedDisk(join(system, 'none'), system)).rejects.toThrow('is not there')
    await expect(isOnEncryptedDisk(system, join(system, 'none'))).rejects.toThrow('no block device')
  })
})
