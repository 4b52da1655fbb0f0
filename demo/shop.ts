/**
 * A shop's week, made up from a seed: customers who fill carts, order, pay and get their parcels, each event in its
 * order and agreeing with those before it. The types and fields are those of contracts/.
 */
import { faker as german } from '@faker-js/faker/locale/de'
import { faker as french } from '@faker-js/faker/locale/fr'
import type { EventInput } from '../lib/client/event.ts'

type Faker = typeof german

interface Customer {
  readonly id: string
  /** The record key of what is about the customer: opaque, since keys are visible to all. */
  readonly handle: string
  readonly country: 'DE' | 'FR'
  readonly name: string
  readonly email: string
  readonly phone: string | null
  address: Address
  /** When the last of what was ordered is delivered. */
  busyUntil: number
  readonly method: () => unknown
}

interface Address {
  readonly street: string
  readonly city: string
  readonly postcode: string
  readonly country: string
}

interface Article {
  readonly article: string
  readonly cents: number
  readonly weightKg: number
}

interface Due {
  readonly at: number
  readonly event: EventInput
}

const SEED = 20_261_101
/** The first minute of the week, so that two runs make the same events. */
const BEGIN = Date.UTC(2026, 10, 2, 6)
const MINUTE = 60_000
const HOUR = 60 * MINUTE
const ARTICLES = 80

/** Events without end, by the time when they happen. */
export function* shopEvents(): Generator<EventInput, never, undefined> {
  const shop = new Shop()
  for (;;) yield* shop.step()
}

class Shop {
  #now = BEGIN
  #orders = 0
  readonly #customers: Customer[] = []
  readonly #articles: readonly Article[]
  /** What is still to happen, latest first. */
  readonly #due: Due[] = []

  constructor() {
    for (const faker of [german, french]) {
      faker.seed(SEED)
      faker.setDefaultRefDate(new Date(BEGIN))
    }
    this.#articles = Array.from({ length: ARTICLES }, () => ({
      article: `${german.helpers.arrayElement(['BKS', 'TEA', 'PEN', 'MUG', 'TOY'])}-${german.string.numeric(5)}`,
      cents: german.number.int({ min: 190, max: 14_990 }),
      weightKg: german.number.float({ min: 0.05, max: 8, fractionDigits: 2 }),
    }))
  }

  /** A visitor comes; then all that happens before the next one. */
  step(): EventInput[] {
    this.#visit()
    this.#now += german.number.int({ min: 5_000, max: 20 * MINUTE })
    const events: EventInput[] = []
    for (let next = this.#due.at(-1); next !== undefined && next.at <= this.#now; next = this.#due.at(-1)) {
      events.push(next.event)
      this.#due.pop()
    }
    return events
  }

  #visit(): void {
    const known = german.helpers.maybe(() => german.helpers.arrayElement(this.#customers), {
      probability: this.#customers.length === 0 ? 0 : 0.7,
    })
    const customer = known ?? this.#newCustomer()
    const cartId = german.string.uuid()
    const device = german.internet.userAgent().slice(0, 200)
    const items = german.helpers.multiple(() => this.#itemOf(), { count: { min: 1, max: 4 } })
    let at = this.#now
    for (const { article, cents, quantity } of items) {
      at += german.number.int({ min: 10_000, max: 4 * MINUTE })
      const addedAt = timeOf(at)
      const shopper = { id: customer.id, device }
      const data = { cartId, addedAt, article, quantity, price: exact(euros(cents)), shopper }
      this.#plan(at, 'cart.item-added', german.helpers.arrayElement(['/shop/web', '/shop/app']), cartId, data)
    }
    if (german.datatype.boolean(0.65)) this.#order(customer, items, at + 2 * MINUTE)
    if (german.datatype.boolean(0.06)) this.#move(customer, at + 20 * MINUTE)
    if (german.datatype.boolean(0.02)) this.#erase(customer, Math.max(at, customer.busyUntil) + 90 * MINUTE)
  }

  #itemOf(): Article & { readonly quantity: number } {
    return {
      ...german.helpers.arrayElement(this.#articles),
      quantity: german.helpers.weightedArrayElement([
        { value: 1, weight: 7 },
        { value: 2, weight: 2 },
        { value: 5, weight: 1 },
      ]),
    }
  }

  #newCustomer(): Customer {
    const country = german.helpers.arrayElement(['DE', 'DE', 'FR'] as const)
    const faker = country === 'DE' ? german : french
    const [firstName, lastName] = [faker.person.firstName(), faker.person.lastName()]
    const customer: Customer = {
      id: `C-${10_001 + this.#customers.length}`,
      handle: german.string.hexadecimal({ length: 16, prefix: '', casing: 'lower' }),
      country,
      name: `${firstName} ${lastName}`,
      email: faker.internet.email({ firstName, lastName, provider: 'example.com' }),
      phone: faker.helpers.maybe(() => faker.phone.number({ style: 'international' })) ?? null,
      address: addressOf(faker, country),
      busyUntil: this.#now,
      method: methodOf(faker, country),
    }
    this.#customers.push(customer)
    const { id, name, email } = customer
    const born = faker.date.birthdate().toISOString().slice(0, 10)
    const newsletter = faker.datatype.boolean(0.4)
    const data = { customerId: id, createdAt: timeOf(this.#now), name, email, bornOn: born, newsletter }
    this.#plan(this.#now, 'customer.created', '/accounts/web', customer.handle, data)
    return customer
  }

  #order(customer: Customer, items: readonly (Article & { readonly quantity: number })[], at: number): void {
    const orderId = `A-${100_000 + ++this.#orders}`
    const total = exact(euros(items.reduce((sum, { cents, quantity }) => sum + cents * quantity, 0)))
    const { id, name, email, address } = customer
    this.#plan(at, 'order.placed', '/shop/checkout', orderId, {
      orderId,
      placedAt: timeOf(at),
      currency: 'EUR',
      total,
      customer: { id, name, email },
      deliverTo: address,
      items: items.map(({ article, quantity, cents }) => ({
        article,
        quantity,
        price: exact(euros(cents)),
        ...(german.datatype.boolean(0.1) && { engraving: `für ${name.split(' ')[0] ?? ''}` }),
      })),
    })
    const paidAt = at + german.number.int({ min: 10_000, max: 3 * MINUTE })
    this.#plan(paidAt, 'payment.captured', '/payments', orderId, {
      paymentId: german.string.uuid(),
      orderId,
      capturedAt: timeOf(paidAt),
      amount: total,
      currency: 'EUR',
      method: customer.method(),
    })
    let last = paidAt
    for (const [index, { article, weightKg, quantity }] of items.entries()) {
      const shippedAt = paidAt + german.number.int({ min: HOUR, max: 9 * HOUR })
      last = Math.max(last, shippedAt)
      const source = german.helpers.arrayElement([
        '/warehouse/berlin',
        '/warehouse/lyon',
        '/warehouse/marseille',
      ])
      this.#plan(shippedAt, 'order.item-shipped', source, orderId, {
        orderId,
        item: index + 1,
        article,
        shippedAt: timeOf(shippedAt),
        parcel: {
          carrier: german.helpers.arrayElement(['gelbe-post', 'marin', 'velo-kurier']),
          trackingNumber: exact(german.string.numeric({ length: 20, allowLeadingZeros: false })),
          weightKg: Number((weightKg * quantity).toFixed(2)),
        },
        receiver: { name, phone: customer.phone, postcode: address.postcode },
      })
    }
    const fulfilledAt = last + german.number.int({ min: 4 * HOUR, max: 30 * HOUR })
    customer.busyUntil = Math.max(customer.busyUntil, fulfilledAt)
    this.#plan(fulfilledAt, 'order.fulfilled', '/fulfilment', orderId, {
      orderId,
      fulfilledAt: timeOf(fulfilledAt),
      items: items.length,
      signedBy: name,
    })
  }

  #move(customer: Customer, at: number): void {
    const faker = customer.country === 'DE' ? german : french
    customer.address = addressOf(faker, customer.country)
    const { street, city, postcode, country } = customer.address
    const source = german.helpers.arrayElement(['/accounts/web', '/accounts/app', '/support'])
    this.#plan(at, 'customer.address-changed', source, customer.handle, {
      customerId: customer.id,
      address: { lines: [customer.name, street], city, postcode, country },
    })
  }

  /** The customer does not come back. */
  #erase(customer: Customer, at: number): void {
    this.#customers.splice(this.#customers.indexOf(customer), 1)
    this.#plan(at, 'customer.erased', '/privacy', customer.handle, {
      customerId: customer.id,
      erasedOn: timeOf(at).slice(0, 10),
      request: `GDPR-${german.string.numeric(6)}`,
    })
  }

  #plan(at: number, name: string, source: string, key: string, data: unknown): void {
    const id = german.string.uuid()
    const event = {
      id,
      source,
      type: `com.example.${name}.v1`,
      time: timeOf(at),
      key,
      dataBytes: bytesOf(data),
    }
    let index = this.#due.length
    while (index > 0 && (this.#due[index - 1]?.at ?? Infinity) <= at) index--
    this.#due.splice(index, 0, { at, event })
  }
}

function addressOf(faker: Faker, country: string): Address {
  return {
    street: faker.location.streetAddress(),
    city: faker.location.city(),
    postcode: faker.location.zipCode(),
    country,
  }
}

/** A customer always pays the same way. */
function methodOf(faker: Faker, country: string): () => unknown {
  const number = faker.finance.creditCardNumber('mastercard').replaceAll(/\D/g, '')
  const expires = faker.date.future({ years: 4 }).toISOString().slice(0, 7)
  const iban = faker.finance.iban({ countryCode: country })
  const byCard = faker.datatype.boolean(0.6)
  return () => (byCard ? { card: { number, expires } } : { iban })
}

const timeOf = (at: number): string => new Date(at).toISOString()
const euros = (cents: number): string => `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, '0')}`

/** A number that is to stand in the text digit by digit: 1.10, or more digits than a double holds. */
const exact = (digits: string): string => `#${digits}#`

function bytesOf(data: unknown): Buffer {
  return Buffer.from(JSON.stringify(data).replaceAll(/"#([0-9.]+)#"/g, '$1'))
}
