/** A shell script with calls of Kafka's own tools, as an administrator would run it. */
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { classPathOf } from './broker.ts'
import type { Connection } from './stack.ts'

const run = promisify(execFile)
const LAUNCHER = join(import.meta.dirname, 'kafka', 'Tools.java')
/** Where each has its `main`, as of Kafka 4. */
const TOOLS = {
  'kafka-topics.sh': 'org.apache.kafka.tools.TopicCommand',
  'kafka-acls.sh': 'org.apache.kafka.tools.AclCommand',
  'kafka-configs.sh': 'kafka.admin.ConfigCommand',
}

/**
 * The shell runs the script; what it calls is then done by Kafka's own classes in one process: topics, their settings, rights. Rejects
 * where the shell or a tool does, with what it said.
 * @param folder for files of the run; `admin.properties` in it is how the tools connect
 */
export async function runScript(script: string, folder: string, connection: Connection): Promise<string> {
  const bin = join(folder, 'bin')
  const calls = join(folder, 'calls')
  await mkdir(bin, { recursive: true })
  await writeFile(calls, '')
  for (const [name, main] of Object.entries(TOOLS)) {
    const note = `#!/bin/sh\n{ printf '%s\\n' ${main} "$@"; echo; } >> '${calls}'\n`
    await writeFile(join(bin, name), note, { mode: 0o700 })
  }
  const login = 'org.apache.kafka.common.security.scram.ScramLoginModule'
  const properties = [
    'security.protocol=SASL_SSL',
    'sasl.mechanism=SCRAM-SHA-512',
    `sasl.jaas.config=${login} required username="admin" password="${connection.passwords.admin}";`,
    'ssl.truststore.type=PEM',
    `ssl.truststore.certificates=${connection.ca.trim().replaceAll('\n', '\\n')}`,
  ]
  await writeFile(join(folder, 'admin.properties'), `${properties.join('\n')}\n`, { mode: 0o600 })
  const file = join(folder, 'setup.sh')
  await writeFile(file, script)
  await run('sh', [file], { cwd: folder, env: { PATH: `${bin}:${process.env['PATH'] ?? ''}` } })
  const classPath = await classPathOf('4.3.1', () => undefined, 'tools')
  const java = [
    '-XX:TieredStopAtLevel=1',
    '-Djava.net.preferIPv4Stack=true',
    '-cp',
    classPath,
    LAUNCHER,
    calls,
  ]
  const { stdout } = await run('java', java, { cwd: folder, timeout: 90_000, maxBuffer: 10_000_000 })
  return stdout
}
