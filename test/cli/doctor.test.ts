/** `sealgate doctor` and `sealgate setup print` as a user calls them, with nobody at the brokers' address. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { templateVerdicts } from '../../cli/doctor-template.ts'
import { setEnvironment } from '../secrets-endpoint.ts'
import { selfSigned } from '../self-signed.ts'
import { openShop, ORDER_CONTRACT, type Shop } from '../shop.ts'
import { writeCommandSettings } from '../real/stack/settings.ts'
import { type Ran, sealgate } from './terminal.ts'

const MSK = 'arn:aws:kafka:eu-west-1:123456789012:cluster/shop/6cc0432b-8618-4f44-bccc-e1fbd8fb7c4d-2'
const PASSWORD = 'short'

let shop: Shop
let folder: string
let settings: string

beforeAll(async () => {
  shop = await openShop([ORDER_CONTRACT])
  folder = join(shop.folder, 'commands')
  const names = { admin: '', gate: PASSWORD, producer: '', consumer: '', poller: '', operator: '' }
  settings = await writeCommandSettings(folder, {
    connection: {
      ...{ version: '4.3.1', brokers: ['127.0.0.1:1'], certificates: '', listeners: {} },
      ...{ ca: selfSigned().cert, passwords: names },
    },
    ...{ principal: 'gate', stack: shop.stack, stackFolder: shop.folder },
    ...{
      sources: new Map([['orders', 'orders-in']]),
      outputs: new Map([['orders.fulfilment', 'orders.fulfilment']]),
    },
    ...{ auditTopic: 'test.audit', quarantineTopic: 'test.quarantine' },
  })
})
afterAll(() => shop.close())

interface Row {
  readonly name: string
  readonly status: string
  readonly message: string
  readonly fix: string
}
const rowsOf = ({ out }: Ran): readonly Row[] => JSON.parse(out).checks
const doctor = (...args: string[]): Promise<Ran> => sealgate(['doctor', '--settings', settings, ...args])
const statusesOf = (ran: Ran, name: string): string[] =>
  rowsOf(ran).flatMap((row) => (row.name === name ? [row.status] : []))

describe('doctor', () => {
  it('looks at all it can reach, and ends with 3 where the brokers do not answer', async () => {
    const ran = await doctor('--json', '--timeout', '10')
    expect(ran.status).toBe(3)
    for (const name of ['settings', 'contracts', 'directory', 'keys', 'signing-key', 'key-service'])
      expect([name, statusesOf(ran, name)]).toEqual([name, ['ok']])
    for (const name of ['brokers', 'tls', 'authentication'])
      expect([name, statusesOf(ran, name)]).toEqual([name, ['fail']])
    const inside = ['acls', 'topics', 'audit-topic', 'broker-settings', 'versions', 'positions']
    for (const name of [...inside, 'network-segmentation', 'certificate-expiry', 'clock'])
      expect([name, statusesOf(ran, name)]).toEqual([name, ['skip']])
    expect(statusesOf(ran, 'password-length')).toEqual(['fail'])
    expect(statusesOf(ran, 'encryption-at-rest')).toEqual(['skip'])
    expect(statusesOf(ran, 'template')).toEqual(['skip'])
    for (const row of rowsOf(ran)) expect(Object.keys(row)).toEqual(['name', 'status', 'message', 'fix'])
    expect(ran.out + ran.err).not.toContain(PASSWORD)
  })

  it('prints a line for each, without colours where there is no terminal', async () => {
    const { out } = await doctor('--timeout', '10')
    const lines = out.split('\n')
    expect(lines.find((line) => line.startsWith('directory '))).toMatch(/^directory +ok +Version \d+, signed/)
    expect(lines.find((line) => line.startsWith('template '))).toMatch(/ skip +No template was given\. Give/)
    expect(out).not.toContain('\u001b')
  })

  it('names every fault of the settings, and ends with 2', async () => {
    const broken = join(folder, 'broken.yaml')
    const text = readFileSync(settings, 'utf8')
      .replace(/^kekId: .*$/m, '')
      .replace(/^name: .*$/m, 'nmae: x')
    await writeFile(broken, text, { mode: 0o600 })
    const ran = await sealgate(['doctor', '--json', '--settings', broken, '--timeout', '5'])
    expect(ran.status).toBe(2)
    const messages = rowsOf(ran).map(({ name, status, message }) => `${name} ${status} ${message}`)
    expect(messages.join('\n')).toContain('kekId: It is not set')
    expect(messages.join('\n')).toContain('nmae')
    expect(messages.every((line) => line.startsWith('settings fail '))).toBe(true)
  })

  it('looks at the cluster before there are keys, which needs no more than topics and brokers', async () => {
    const early = join(folder, 'early.yaml')
    const text = readFileSync(settings, 'utf8').replaceAll(
      /^(kekId|name|directory|roots|signingKey): .*$/gm,
      '',
    )
    await writeFile(early, text, { mode: 0o600 })
    const ran = await sealgate(['doctor', '--json', '--settings', early, '--timeout', '5'])
    expect(ran.status).toBe(2)
    expect(statusesOf(ran, 'settings')).toEqual(['fail', 'fail', 'fail', 'fail', 'fail'])
    expect([statusesOf(ran, 'contracts'), statusesOf(ran, 'tls')]).toEqual([['ok'], ['fail']])
    for (const name of ['directory', 'signing-key', 'key-service', 'clock'])
      expect(statusesOf(ran, name)).toEqual([])
  })

  it('is red where the key that signs is not the one that the directory has', async () => {
    const other = join(folder, 'other.yaml')
    const text = readFileSync(settings, 'utf8').replace('file:gate.jwk', 'file:shop-web.jwk')
    await writeFile(other, text, { mode: 0o600 })
    const ran = await sealgate(['doctor', '--json', '--settings', other, '--timeout', '5'])
    expect(statusesOf(ran, 'signing-key')).toEqual(['fail'])
  })

  it('is red for a channel of a contract that has no source topic, and for a KEK that is not there', async () => {
    const other = join(folder, 'kek.yaml')
    const text = readFileSync(settings, 'utf8').replace(/^kekId: .*$/m, 'kekId: gone')
    await writeFile(other, text, { mode: 0o600 })
    const ran = await sealgate(['doctor', '--json', '--settings', other, '--timeout', '5'])
    expect(statusesOf(ran, 'key-service')).toEqual(['fail'])
  })

  it('reads a template of either form, and is red where code and mapping disagree', async () => {
    const file = join(folder, 'template.yaml')
    const template = (mode: string): string => `
Resources:
  Gate:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: nodejs24.x
      Timeout: 60
      VpcConfig: { SecurityGroupIds: [!GetAtt Group.GroupId] }
      Environment:
        Variables: { SEALGATE_CHANNELS: a=b, SEALGATE_FAILURE_MODE: ${mode}, SEALGATE_MAPPING_ANSWERS: none }
  Group:
    Type: AWS::EC2::SecurityGroup
    Properties:
      SecurityGroupEgress: [{ IpProtocol: tcp, FromPort: 443, ToPort: 443, CidrIp: 0.0.0.0/0 }]
  Pollers:
    Type: AWS::EC2::SecurityGroupIngress
    Properties: { GroupId: sg-1, SourceSecurityGroupId: sg-1 }
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties: { FunctionName: !Ref Gate }
`
    const look = async (text: string): Promise<string[]> => {
      await writeFile(file, text)
      return templateVerdicts(file).map(({ status }) => status)
    }
    expect(await look(template('throw'))).toEqual(['ok'])
    expect(new Set(await look(template('partial')))).toEqual(new Set(['fail']))
    expect((await look('{"Resources": {}}'))[0]).toBe('fail')
    await expect(look('{"Resources": ')).rejects.toThrow('neither JSON nor YAML')
    expect(statusesOf(await doctor('--json', '--timeout', '5', '--template', folder), 'template')).toEqual([
      'fail',
    ])
  })

  it('looks at disks and a template where there are no settings, as on a broker', async () => {
    const nowhere = { env: { SEALGATE_LOCAL: folder } }
    const ran = await sealgate(['doctor', '--json', '--disk', folder], nowhere)
    expect(rowsOf(ran).map(({ name }) => name)).toEqual(['settings', 'encryption-at-rest'])
    const [disk] = statusesOf(ran, 'encryption-at-rest')
    expect([statusesOf(ran, 'settings'), ran.status]).toEqual([['skip'], disk === 'ok' ? 0 : 1])
    const missing = join(folder, 'no-such-template.yaml')
    const other = await sealgate(['doctor', '--json', '--template', missing], nowhere)
    expect(rowsOf(other).map(({ name, status }) => [name, status])).toEqual([
      ['settings', 'skip'],
      ['template', 'fail'],
    ])
  })

  it('looks at them with settings that cannot be used too, and says so as checks', async () => {
    const none = join(folder, 'none.yaml')
    const ran = await sealgate(['doctor', '--json', '--settings', none, '--disk', folder, '--msk', 'shop'])
    expect(rowsOf(ran).map(({ name, status }) => `${name} ${status}`)).toEqual([
      ...['settings fail', 'settings fail'],
      expect.stringMatching(/^encryption-at-rest /),
    ])
    expect(ran.status).toBe(2)
    const unnamed = await sealgate(['doctor', '--json'], { env: { SEALGATE_LOCAL: folder } })
    expect([rowsOf(unnamed).map(({ name }) => name), unnamed.status]).toEqual([['settings'], 2])
  })

  it('refuses what is no place to look at', async () => {
    expect((await sealgate(['doctor'], { env: { SEALGATE_LOCAL: folder } })).status).toBe(2)
    expect((await doctor('--msk', 'shop')).status).toBe(2)
    await mkdir(join(folder, 'empty'), { recursive: true })
    await appendFile(join(folder, 'empty', 'observer.yaml'), 'deployment: x\n', { mode: 0o600 })
    expect((await doctor('--observer', join(folder, 'empty', 'observer.yaml'))).status).toBe(2)
  })
})

describe('doctor on MSK', () => {
  let server: Server
  let restore: () => void
  let told: object

  beforeAll(async () => {
    server = createServer((request, response) => {
      const isKnown = request.url === `/api/v2/clusters/${encodeURIComponent(MSK)}`
      response
        .writeHead(isKnown ? 200 : 404, { 'content-type': 'application/json' })
        .end(JSON.stringify({ clusterInfo: { clusterType: 'PROVISIONED', provisioned: told } }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    restore = setEnvironment({
      AWS_ENDPOINT_URL_KAFKA: `http://127.0.0.1:${port}`,
      AWS_ACCESS_KEY_ID: 'x',
      AWS_SECRET_ACCESS_KEY: 'y',
    })
  })
  afterAll(async () => {
    restore()
    await new Promise((resolve) => server.close(resolve))
  })

  it('learns of the disks from MSK, and is red where it names no key', async () => {
    told = { encryptionInfo: { encryptionAtRest: { dataVolumeKMSKeyId: 'arn:aws:kms:eu-west-1:1:key/k' } } }
    const sound = await doctor('--json', '--timeout', '5', '--msk', MSK)
    expect(statusesOf(sound, 'encryption-at-rest')).toEqual(['ok'])
    told = {}
    const red = await doctor('--json', '--timeout', '5', '--msk', MSK)
    expect(statusesOf(red, 'encryption-at-rest')).toEqual(['fail'])
  })
})

describe('setup print', () => {
  const print = (...args: string[]): Promise<Ran> =>
    sealgate(['setup', 'print', '--settings', settings, ...args])

  it('prints a script that a shell takes, with each topic, its settings and the least rights', async () => {
    const { out, status } = await print('--partitions', '6', '--principal', 'gate=User:CN=gate,O=shop')
    expect(status).toBeUndefined()
    execFileSync('sh', ['-n'], { input: out })
    const lines = out.split('\n')
    for (const topic of [
      'orders-in',
      'orders.fulfilment',
      'orders.analytics',
      'test.audit',
      'test.quarantine',
    ])
      expect(lines).toContain(
        `kafka-topics.sh $ADMIN --create --if-not-exists --topic ${topic} --partitions 6 --replication-factor 3 --config min.insync.replicas=2`,
      )
    expect(out).toContain(
      '--entity-name test.audit --add-config cleanup.policy=delete,min.insync.replicas=2,retention.ms=31622400000,retention.bytes=-1',
    )
    expect(lines.filter((line) => line.includes('CN=gate'))).toEqual([
      "kafka-acls.sh $ADMIN --add --allow-principal 'User:CN=gate,O=shop' --operation Write --transactional-id test. --resource-pattern-type prefixed",
      "kafka-acls.sh $ADMIN --add --allow-principal 'User:CN=gate,O=shop' --operation Read --group test.shadow. --resource-pattern-type prefixed",
      "kafka-acls.sh $ADMIN --add --allow-principal 'User:CN=gate,O=shop' --operation Read --topic orders-in",
      "kafka-acls.sh $ADMIN --add --allow-principal 'User:CN=gate,O=shop' --operation Write --topic orders.analytics --topic orders.fulfilment --topic test.quarantine --topic test.audit",
    ])
    expect(lines).toContain(
      'kafka-acls.sh $ADMIN --add --allow-principal User:shop-web --operation Write --topic orders-in',
    )
  })

  it('prints IAM policies for MSK, with the actions of transactions', async () => {
    const { out } = await print('--msk-iam', MSK, '--principal', 'gate=shop-gate')
    execFileSync('sh', ['-n'], { input: out })
    const line = out.split('\n').find((each) => each.includes('--role-name shop-gate ')) ?? ''
    expect(line).toContain('--policy-name sealgate-kafka-gate ')
    const { Statement: statements } = JSON.parse(/--policy-document '(.*)'$/.exec(line)?.[1] ?? '')
    const within = (kind: string, name: string): string => `${MSK.replace(':cluster/', `:${kind}/`)}/${name}`
    expect(statements.slice(0, 3)).toEqual([
      {
        Effect: 'Allow',
        Action: ['kafka-cluster:Connect', 'kafka-cluster:WriteDataIdempotently'],
        Resource: [MSK],
      },
      {
        Effect: 'Allow',
        Action: ['kafka-cluster:AlterTransactionalId', 'kafka-cluster:DescribeTransactionalId'],
        Resource: [within('transactional-id', 'test.*')],
      },
      {
        Effect: 'Allow',
        Action: ['kafka-cluster:AlterGroup', 'kafka-cluster:DescribeGroup'],
        Resource: [within('group', 'test.shadow.*')],
      },
    ])
    expect(out).not.toContain('kafka-acls')
  })

  it('leaves out for MSK Serverless what it refuses, and takes it for no cluster without IAM', async () => {
    const { out, status } = await print('--msk-iam', MSK, '--serverless')
    expect(status).toBeUndefined()
    execFileSync('sh', ['-n'], { input: out })
    expect(out).not.toMatch(/replication-factor|min\.insync\.replicas/)
    expect(out).toContain(
      'kafka-topics.sh $ADMIN --create --if-not-exists --topic test.audit --partitions 12 --config cleanup.policy=delete\n' +
        'kafka-configs.sh $ADMIN --alter --entity-type topics --entity-name test.audit --add-config retention.ms=31622400000,retention.bytes=-1,max.message.bytes=1048588\n',
    )
    expect((await print('--serverless')).status).toBe(2)
  })

  it('takes nothing that could end a word of the shell', async () => {
    for (const who of ["gate=User:a' $(id) '", 'gate=gate', 'nobody=User:x', 'gate'])
      expect((await print('--principal', who)).status).toBe(2)
    expect((await print('--command-config', 'a; id')).status).toBe(2)
    expect((await print('--msk-iam', 'shop')).status).toBe(2)
    expect((await print('--partitions', '0')).status).toBe(2)
  })

  it('prints nothing by settings whose names are a shell’s, a flag’s or no topic’s, and says so of each', async () => {
    const hostile = join(folder, 'hostile.yaml')
    const text = readFileSync(settings, 'utf8')
      .replace(/^auditTopic: .*$/m, 'auditTopic: "$(id)"')
      .replace(/^quarantineTopic: .*$/m, 'quarantineTopic: --force')
      .replace('orders.fulfilment: orders.fulfilment', 'orders.fulfilment: ".."')
    await writeFile(hostile, text, { mode: 0o600 })
    const { out, err, status } = await sealgate(['setup', 'print', '--settings', hostile])
    expect([out, status]).toEqual(['', 2])
    for (const name of ['"$(id)"', '"--force"', '".."'])
      expect(err).toContain(`${name} is no name of a topic.`)
  })

  it('prints nothing where the groups of a consumer would be those of the gate’s positions', async () => {
    const named = join(folder, 'named.yaml')
    for (const [deployment, status] of [
      ['analytics', 2],
      ['analytics.eu', 2],
      ['analytics-eu', undefined],
    ] as const) {
      const text = readFileSync(settings, 'utf8').replace(/^deployment: .*$/m, `deployment: ${deployment}`)
      await writeFile(named, text, { mode: 0o600 })
      const ran = await sealgate(['setup', 'print', '--settings', named])
      expect([deployment, ran.status]).toEqual([deployment, status])
      expect(ran.err.includes(`those of ${deployment}.shadow.`)).toBe(status === 2)
    }
  })
})
