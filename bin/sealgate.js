#!/usr/bin/env node
/*
 * Starts the `sealgate` command: compiled in an installed package, from its sources in a checkout. Plain JavaScript, so
 * that a Node that is too old can say so, or start the one that the checkout brings along.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const NEEDED = [22, 18]

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'cli', 'main.ts')
const isCheckout = existsSync(source)
const [major, minor] = process.versions.node.split('.').map(Number)
const isRecent = major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])

if (isRecent) {
  await import(pathToFileURL(isCheckout ? source : join(root, 'dist', 'cli', 'main.js')).href)
} else {
  const node = join(root, 'node_modules', 'node', 'bin', 'node')
  if (isCheckout && existsSync(node)) startWith(node)
  else {
    const hint = isCheckout ? ', or run npm ci, which brings one along' : ''
    console.error(
      `sealgate needs Node ${NEEDED.join('.')} or later; this is ${process.versions.node}. Install Node 24${hint}.`,
    )
    process.exitCode = 2
  }
}

/** Runs this file again under another Node and ends as that does, by code or by signal. */
function startWith(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  const forward = (signal) => child.kill(signal)
  process.on('SIGTERM', forward)
  process.on('SIGHUP', forward)
  // A terminal gives Ctrl-C to both; a second one from here would be a second Ctrl-C.
  process.on('SIGINT', (signal) => {
    if (!process.stdin.isTTY) child.kill(signal)
  })
  child.on('error', (error) => {
    console.error(`sealgate cannot start ${node}: ${error.message}`)
    process.exitCode = 2
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code)
    for (const name of ['SIGTERM', 'SIGHUP', 'SIGINT']) process.removeAllListeners(name)
    process.kill(process.pid, signal)
  })
}
