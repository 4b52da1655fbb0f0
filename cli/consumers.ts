/** As whom a channel is read, and opened events in print. */
import { createOpener, type KafkaMessage, type OpenedEvent, type Opener } from '../lib/client/opener.ts'
import { ConfigError } from '../lib/errors.ts'
import type { SourceRecord } from '../lib/ports.ts'
import type { World } from './world.ts'

export interface Reading {
  readonly consumer: string
  readonly form: 'sealed' | 'plain'
}

/** Who reads an output channel: the consumer that its routes name, or the one given. `ConfigError` where that is open. */
export function readerOf(world: World, channel: string, consumer: string | undefined): Reading {
  const routes = world.contracts.all.flatMap(({ routes: each }) => each)
  const own = routes.filter((route) => route.channel === channel)
  const consumers = [...new Set(own.map((route) => route.consumer))]
  const all = [...new Set(routes.map((route) => route.consumer))].sort()
  if (own.length === 0)
    throw new ConfigError([
      {
        where: channel,
        what: world.ingress.includes(channel)
          ? 'This channel is what producers send: only the gate reads it.'
          : 'No contract writes to this channel.',
        fix: `Outputs are: ${world.outputs.join(', ')}.`,
      },
    ])
  if (consumer !== undefined && !all.includes(consumer))
    throw new ConfigError([
      { where: '--consumer', what: `No contract names ${consumer}.`, fix: `There are: ${all.join(', ')}.` },
    ])
  const [only] = consumers
  if (consumer === undefined && (only === undefined || consumers.length > 1))
    throw new ConfigError([
      {
        where: channel,
        what: 'Several consumers read it.',
        fix: `Name one with --consumer: ${consumers.join(', ')}.`,
      },
    ])
  return { consumer: consumer ?? only ?? '', form: own[0]?.form ?? 'sealed' }
}

/** An opener as this name: a consumer, or the gateway itself. */
export function openerOf(
  world: World,
  name: string,
  timestampType: SourceRecord['timestampType'] = 'LogAppendTime',
): Opener {
  const { gateway, directory, contracts } = world
  return createOpener({
    audience: name,
    issuers: name === gateway ? 'any-in-directory' : [gateway],
    directory,
    keyService: world.keyServiceOf(name),
    channelOf: world.channelOf,
    timestampType,
    ...(name === gateway && { contracts }),
  })
}

/** As kafkajs would give it. */
export function kafkaMessage(
  record: Omit<SourceRecord, 'topic' | 'partition' | 'timestampType'>,
): KafkaMessage {
  const headers = Map.groupBy(record.headers, ({ name }) => name)
  return {
    key: record.key,
    value: record.value,
    timestamp: String(record.timestamp),
    offset: String(record.offset),
    headers: Object.fromEntries(
      Array.from(headers, ([name, each]) => [name, each.map(({ value }) => value)] as const),
    ),
  }
}

/** A CloudEvent in JSON on one line. Its `data` keeps the source text of its numbers. */
export function eventJson(event: OpenedEvent, payload: Uint8Array): string {
  const { id, source, type, specversion, time, subject, dataschema, datacontenttype, extensions } = event
  const attributes = {
    specversion,
    id,
    source,
    type,
    time,
    subject,
    dataschema,
    datacontenttype,
    ...extensions,
  }
  return `${JSON.stringify(attributes).slice(0, -1)},${dataMember(event.data !== undefined, payload)}}`
}

/** Line ends in JSON stand between its parts only: a blank is as good. */
export function dataMember(isJson: boolean, payload: Uint8Array): string {
  return isJson
    ? `"data":${Buffer.from(payload)
        .toString()
        .replaceAll(/[\r\n\t]+/g, ' ')}`
    : `"data_base64":${JSON.stringify(Buffer.from(payload).toString('base64'))}`
}
