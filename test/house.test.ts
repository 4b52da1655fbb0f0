/** House rules that a linter does not see: no cycles, and one home for what is written down twice. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = join(import.meta.dirname, '..')

const sources = ['lib', 'functions', 'cli'].flatMap((room) =>
  readdirSync(join(ROOT, room), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
    .map((file) => join(ROOT, room, file)),
)

/** What a module needs when it runs: imports of types alone make no cycle. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  return [...text.matchAll(/^(?:import|export)\s+(?!type\b)[^'"]*?from\s+'(\.[^']+)'|^import '(\.[^']+)'/gm)]
    .filter(([statement]) => !/^(?:import|export)\s*\{(?:\s*type\s+[^,}]+,?)+\s*\}/.test(statement))
    .map(([, from, bare]) => join(dirname(file), from ?? bare ?? ''))
}

function cycleFrom(start: string, graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const path: string[] = []
  const done = new Set<string>()
  const visit = (file: string): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    path.push(file)
    for (const next of graph.get(file) ?? []) {
      const cycle = visit(next)
      if (cycle !== undefined) return cycle
    }
    path.pop()
    done.add(file)
    return undefined
  }
  return visit(start)
}

describe('the house', () => {
  const graph = new Map(sources.map((file) => [file, importsOf(file)]))

  it('has no cycle of imports', () => {
    expect(graph.size).toBeGreaterThan(50)
    expect([...graph.values()].flat().length).toBeGreaterThan(150)
    const cycles = sources.map((file) =>
      cycleFrom(file, graph)
        ?.map((one) => relative(ROOT, one))
        .join(' → '),
    )
    expect(cycles.filter((cycle) => cycle !== undefined)).toEqual([])
  })

  it('would find one', () => {
    const graphWithCycle = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['b']],
    ])
    expect(cycleFrom('a', graphWithCycle)).toEqual(['b', 'c', 'b'])
  })
})
