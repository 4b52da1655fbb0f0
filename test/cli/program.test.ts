import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { sealgate } from './terminal.ts'

const COMMANDS = [
  'local start',
  'local status',
  'local event',
  'send',
  'tail',
  'seal',
  'open',
  'inspect',
  'quarantine list',
  'quarantine show',
  'audit verify',
  'audit search',
  'invoke ingest',
  'contracts check',
  'contracts build',
  'contracts show',
  'conformance',
]

describe('sealgate', () => {
  it.each(COMMANDS)('explains %s with its flags and an example, and exits 0', async (command) => {
    const { out, status } = await sealgate([...command.split(' '), '--help'])
    expect(out).toContain(`Usage: sealgate ${command}`)
    expect(out).toMatch(/\nExamples?[:,]/)
    expect(out).toContain(`\n  sealgate ${command}`)
    expect(status).toBe(0)
  })

  it.each([...COMMANDS, 'rotate', 'keys kek withdraw', ''])(
    'explains %s within 80 columns',
    async (command) => {
      const { out } = await sealgate([...command.split(' ').filter(Boolean), '--help'])
      const isExample = (line: string): boolean => /^ {2}\S+ .*sealgate |^ {2}sealgate /.test(line)
      const isUnbroken = (line: string): boolean => /^ +\{\S+$/.test(line)
      const long = out.split('\n').filter((line) => line.length > 80 && !isExample(line) && !isUnbroken(line))
      expect(long).toEqual([])
      expect(out).not.toContain('[])')
    },
  )

  it('has --json on every command that prints anything but JSON', async () => {
    for (const command of COMMANDS.filter((name) => name !== 'local event'))
      expect((await sealgate([...command.split(' '), '--help'])).out, command).toContain('--json')
  })

  it('prints the version of the package', async () => {
    const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
    const { out, status } = await sealgate(['--version'])
    expect(text).toContain(`"version": "${out}"`)
    expect(status).toBe(0)
  })

  it.each([
    [['tial', 'x'], "fault sealgate: unknown command 'tial' (Did you mean tail?). See sealgate --help."],
    [['quarantine', 'lst'], "unknown command 'lst' (Did you mean list?). See sealgate quarantine --help."],
    [['send', 'x', '--tpe', 'y'], "fault sealgate send: unknown option '--tpe' (Did you mean --type?)."],
    [['send'], "fault sealgate send: missing required argument 'file'."],
    [['send', 'a', 'b'], 'too many arguments'],
    [['tail', 'x', '--max', 'many'], 'Give a whole number from 1'],
    [['tail', 'x', '--from', 'here'], 'Allowed choices are beginning, end'],
    [['seal', 'x', '--life', '0'], 'Give a whole number from 1 to 86400. See sealgate seal --help.'],
  ])('refuses %j in one line that says what to do, and exits 2', async (args, message) => {
    const { out, err, status } = await sealgate(args)
    expect(err).toContain(message)
    expect(err.split('\n')).toHaveLength(1)
    expect(out).toBe('')
    expect(status).toBe(2)
  })

  it('gives the faults as JSON where that is asked for', async () => {
    const { out, err, status } = await sealgate(['conformance', '--json', '--nope', 'x'])
    expect(JSON.parse(out)).toMatchObject({ faults: [{ where: 'sealgate conformance' }] })
    expect({ err, status }).toEqual({ err: '', status: 2 })
  })

  it('shows its commands where none is given, and exits 2', async () => {
    const { err, status } = await sealgate([])
    expect(err).toContain('Commands:')
    expect(status).toBe(2)
  })
})
