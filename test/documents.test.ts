/** All documents, as one: a command that they show is one that there is, and a link leads somewhere. */
import { globSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sealgate } from './cli/terminal.ts'

const ROOT = join(import.meta.dirname, '..')
const PAGES = ['README.md', 'SECURITY.md', 'CHANGELOG.md', ...globSync('docs/**/*.md', { cwd: ROOT })]
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const FENCED = /^ *```(\w*)\n([^]*?)^ *```$/gm
const withoutBlocks = (text: string): string => text.replaceAll(FENCED, '')

/** Command lines of `sealgate`: of shell blocks, and whole ones within a sentence. */
function commandsIn(text: string): string[] {
  const lines = [...text.matchAll(FENCED)].flatMap(([, kind, block = '']) =>
    kind === 'sh' ? block.replaceAll('\\\n', ' ').split(/\n|&&|\||;/) : [],
  )
  const inline = [...withoutBlocks(text).matchAll(/`((?:npx )?sealgate [^`]+)`/g)].map(
    ([, code]) => code ?? '',
  )
  return [...lines, ...inline].flatMap((line) =>
    expanded(/^ *(?:npx )?sealgate ((?![…A-Z.])[^#>]+)/.exec(line)?.[1]?.trim()),
  )
}

/** `audit verify|search` is two. */
function expanded(command: string | undefined): readonly string[] {
  if (command === undefined) return []
  const [all, names = ''] = /(?<= )([a-z]+(?:\|[a-z]+)+)/.exec(command) ?? []
  return all === undefined ? [command] : names.split('|').map((name) => command.replace(all, name))
}

const helps = new Map<string, Promise<string>>()
function helpOf(path: readonly string[]): Promise<string> {
  const name = path.join(' ')
  const found = helps.get(name) ?? sealgate([...path, '--help']).then(({ out }) => out)
  helps.set(name, found)
  return found
}

/** What is wrong with a command line: undefined where nothing is. */
async function faultOf(command: string): Promise<string | undefined> {
  const words = command
    .replaceAll(/\$\([^)]*\)/g, ' ')
    .replaceAll(/[[\]…]/g, ' ')
    .split(/\s+/)
  const path: string[] = []
  for (const word of words) {
    const help = await helpOf(path)
    const [, list = ''] = /\nCommands:\n([^]*)/.exec(help) ?? []
    const known = [...list.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name = '']) => name)
    if (known.includes(word)) path.push(word)
    // A command that takes nothing but others, and a word that is none, nor a placeholder.
    else if (/^Usage: .*\[command\]$/m.test(help) && /^[a-z]/.test(word)) return `${word} is no command`
    else break
  }
  const flags = words.slice(0, words.includes('--') ? words.indexOf('--') : undefined)
  const known: readonly string[] = (await helpOf(path)).match(/(?<=[\s,])--?[a-z][a-z-]*/g) ?? []
  const unknown = flags.filter((word) => /^--?[a-z]/.test(word) && !known.includes(word))
  return unknown.length === 0 ? undefined : `${path.join(' ')} has no ${unknown.join(', ')}`
}

describe('commands that documents show', () => {
  it('are there, with their flags', async () => {
    const shown = PAGES.flatMap((page) => commandsIn(read(page)).map((command) => ({ page, command })))
    expect(shown.length).toBeGreaterThan(100)
    const faults: string[] = []
    for (const { page, command } of shown) {
      const fault = await faultOf(command)
      if (fault !== undefined) faults.push(`${page}: sealgate ${command}: ${fault}`)
    }
    expect(faults).toEqual([])
  })

  it('are there, those of npm too', () => {
    const { scripts }: { scripts: Record<string, string> } = JSON.parse(read('package.json'))
    const named = PAGES.flatMap((page) => [...read(page).matchAll(/npm run ([a-z][a-z:-]*)/g)])
    expect(named.length).toBeGreaterThan(20)
    for (const [command, name = ''] of named) expect(Object.keys(scripts), command).toContain(name)
  })

  it('are found out where there is none, or no such flag', async () => {
    const block = '```sh\nnpx sealgate audit prove\nsealgate doctor --cure now # so\n```\n'
    const faults = await Promise.all(commandsIn(`${block}and \`sealgate audits verify|sign\``).map(faultOf))
    expect(faults).toEqual([
      ...['prove is no command', 'doctor has no --cure', 'audits is no command', 'audits is no command'],
    ])
  })
})

/** As GitHub makes one of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}_\- ]/gu, '')
    .replaceAll(' ', '-')
const anchorsIn = (text: string): string[] =>
  [...withoutBlocks(text).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading ?? ''))

describe('links of documents', () => {
  it.each(PAGES)('of %s lead somewhere', (page) => {
    const links = [...withoutBlocks(read(page)).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link ?? '')
    for (const link of links.filter((each) => !/^[a-z]+:/.test(each))) {
      const [path = '', anchor] = link.split('#')
      const to = path === '' ? page : join(dirname(page), path)
      expect(statSync(join(ROOT, to), { throwIfNoEntry: false }), link).toBeDefined()
      if (anchor !== undefined) expect(anchorsIn(read(to)), link).toContain(anchor)
    }
  })
})
