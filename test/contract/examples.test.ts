import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { readContracts } from '../../lib/adapters/contract-files.ts'
import type { Contracts, Route } from '../../lib/contract/contract.ts'
import { checkContracts, loadContracts, type ContractSource } from '../../lib/contract/load.ts'

const KEYS = { pseudonym: (domain: string, value: string): string => `p1:${domain}-${value.length}` }

describe('the example contracts', () => {
  let sources: ContractSource[] = []
  let contracts: Contracts
  beforeAll(async () => {
    sources = await readContracts(fileURLToPath(new URL('../../contracts', import.meta.url)))
    contracts = loadContracts(sources)
  })
  const routeOf = (channel: string, type: string, consumer: string): Route => {
    const route = contracts.find(channel, type)?.routes.find((one) => one.consumer === consumer)
    if (route === undefined) throw new TypeError(`${type} has no ${consumer}`)
    return route
  }
  const treat = (channel: string, type: string, consumer: string, payload: string): string => {
    contracts.find(channel, type)?.payload.check('application/json', Buffer.from(payload))
    return Buffer.from(routeOf(channel, type, consumer).treat(Buffer.from(payload), KEYS)).toString()
  }

  test('have neither fault nor warning', () => {
    expect(checkContracts(sources)).toMatchObject({ faults: [], warnings: [] })
  })

  test('show every treatment, both forms, and one channel with three types of different producers and consumers', () => {
    const text = sources.map((source) => source.text).join('\n')
    for (const treatment of [
      /: pass/,
      /: drop/,
      /mask: \{ show: /,
      /keep: \d/,
      /round: /,
      /date: /,
      /pseudonym: /,
      /to: \{ type: /,
    ])
      expect(text).toMatch(treatment)
    const customers = contracts.all.filter((contract) => contract.channel === 'customers')
    expect(customers).toHaveLength(3)
    expect(new Set(customers.map((contract) => [...contract.publish.keys()].join())).size).toBe(3)
    expect(
      new Set(customers.map((contract) => contract.routes.map((route) => route.consumer).join())).size,
    ).toBe(3)
    expect(new Set(contracts.all.flatMap((contract) => contract.routes.map((route) => route.form)))).toEqual(
      new Set(['sealed', 'plain']),
    )
  })

  test('pass a tracking number on digit by digit, and hide what support need not see', () => {
    const shipped =
      '{"orderId":"A-1","item":1,"shippedAt":"2026-03-01T09:30:00Z","parcel":{"carrier":"marin","trackingNumber":12345678901234567890,"weightKg":1.10},"receiver":{"name":"Ada","phone":"+49 761 5550123","postcode":"79100"}}'
    expect(treat('shipments', 'com.example.order.item-shipped.v1', 'support', shipped)).toBe(
      '{"orderId":"A-1","item":1,"shippedAt":"2026-03-01T09:30:00Z","parcel":{"carrier":"marin","trackingNumber":12345678901234567890,"weightKg":1.10},"receiver":{"name":"A","phone":"••••0123"}}',
    )
    expect(treat('shipments', 'com.example.order.item-shipped.v1', 'analytics', shipped)).toBe(
      '{"shippedAt":"2026-03-01","parcel":{"carrier":"marin","weightKg":1.1},"receiver":{"postcode":"79"}}',
    )
  })

  test('mask whichever means of payment was used', () => {
    const paid = (method: string): string =>
      `{"paymentId":"P-1","orderId":"A-1","capturedAt":"2026-03-01T09:30:00Z","amount":19.90,"currency":"EUR","method":${method}}`
    const accounting = (method: string): string =>
      treat('payments', 'com.example.payment.captured.v1', 'accounting', paid(method))
    expect(accounting('{"card":{"number":"4111111111111111","expires":"2027-01"}}')).toBe(
      paid('{"card":{"number":"••••1111"}}'),
    )
    expect(accounting('{"iban":"DE02120300000000202051"}')).toBe(paid('{"iban":"••••2051"}'))
    expect(
      treat(
        'payments',
        'com.example.payment.captured.v1',
        'analytics',
        paid('{"iban":"DE02120300000000202051"}'),
      ),
    ).toBe('{"capturedAt":"2026-03","amount":20,"currency":"EUR"}')
  })

  test('take every flight of the public data set', () => {
    const flights: unknown = JSON.parse(
      readFileSync(new URL('../../node_modules/vega-datasets/data/flights-2k.json', import.meta.url), 'utf8'),
    )
    const route = routeOf('flights', 'com.example.flight.landed.v1', 'delay-board')
    const contract = contracts.find('flights', 'com.example.flight.landed.v1')
    if (!Array.isArray(flights)) throw new TypeError('no flights')
    for (const flight of flights) {
      const payload = Buffer.from(JSON.stringify(flight))
      contract?.payload.check('application/json', payload)
      const treated = route.treat(payload, KEYS)
      expect(Buffer.from(route.keyOf(treated) ?? []).toString()).toMatch(/^[A-Z0-9]{3}$/)
    }
    expect(flights).toHaveLength(2000)
  })
})

test('the contract of docs/contracts.md is sound, and gives its consumers what the page says', () => {
  const page = readFileSync(new URL('../../docs/contracts.md', import.meta.url), 'utf8')
  const text = /```yaml\n([^]*?)```/.exec(page)?.[1] ?? ''
  expect(checkContracts([{ file: 'order-shipped.yaml', text }])).toMatchObject({ faults: [], warnings: [] })
  const [contract] = loadContracts([{ file: 'order-shipped.yaml', text }]).all
  const payload = /^Of `(.*)`/m.exec(page)?.[1] ?? ''
  const outputs = contract?.routes.map((route) =>
    Buffer.from(route.treat(Buffer.from(payload), KEYS)).toString(),
  )
  expect(outputs?.[0]).toBe('{"orderId":"A-1","customer":{"email":"a@b.c"}}')
  expect(outputs?.[1]).toBe('{"total":19.90,"customer":{"id":"p1:reporting-2","postcode":"791"}}')
  expect(contract?.routes[1]?.channel).toBe('analytics.com.example.order.shipped.v1')
})
