/**
 * A broker's disk that can be full. Where mounting is allowed it is a file system of its own; elsewhere the process is
 * forbidden to make a file longer, which its writes meet in the same place.
 */
import { execFile } from 'node:child_process'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { RealStack } from '../stack/stack.ts'

const run = promisify(execFile)
const SIZE_MB = 256

export class Disk {
  readonly #stack: RealStack
  readonly #id: number
  #isMounted = false

  private constructor(stack: RealStack, id: number) {
    this.#stack = stack
    this.#id = id
  }

  /** Moves the data of a broker, which must not run, onto such a disk. */
  static async under(stack: RealStack, id: number): Promise<Disk> {
    const disk = new Disk(stack, id)
    const aside = `${disk.#data}.aside`
    await rename(disk.#data, aside)
    await run('mkdir', [disk.#data])
    const mount = ['-t', 'tmpfs', '-o', `size=${SIZE_MB}m`, 'sealgate-test', disk.#data]
    disk.#isMounted = await run('mount', mount).then(
      () => true,
      () => false,
    )
    await run('cp', ['-a', '--sparse=always', `${aside}/.`, disk.#data])
    await rm(aside, { recursive: true })
    return disk
  }

  get kind(): string {
    return this.#isMounted ? `a disk of ${SIZE_MB} MB` : 'a limit on files'
  }

  async fill(): Promise<void> {
    if (!this.#isMounted) {
      const pid = this.#stack.brokers.get(this.#id)?.pid ?? 0
      await run('prlimit', ['--pid', String(pid), '--fsize=1:'])
      return
    }
    // To its last byte: the end is the error.
    await run('cp', ['/dev/zero', this.#filler]).catch(() => undefined)
  }

  /** A limit ends with the process that has it. */
  async free(): Promise<void> {
    await rm(this.#filler, { force: true })
  }

  /** When its broker has ended. */
  async end(): Promise<void> {
    if (this.#isMounted) await run('umount', [this.#data])
  }

  get #data(): string {
    return join(this.#stack.connection.certificates, String(this.#id), 'data')
  }

  get #filler(): string {
    return join(this.#data, 'filler')
  }
}
