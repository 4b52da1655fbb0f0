/** What `sealgate doctor` looks at of the cluster: as the gate, and as an observer where settings are to be seen. */
import type { KafkaConnectionSettings } from '../lib/adapters/kafka-settings.ts'
import {
  addressesOf,
  admitsAnybody,
  hasLongPassword,
  type KafkaSurvey,
  shakeHands,
  surveyKafka,
} from '../lib/adapters/kafka-survey.ts'
import { createKafkaSink } from '../lib/adapters/kafka.ts'
import { clusterNeeds, type ClusterNeeds } from '../lib/cluster-needs.ts'
import {
  authenticationVerdicts,
  type Connected,
  expiryVerdicts,
  listenerVerdicts,
  MIN_PASSWORD_LENGTH,
  type Missed,
  passwordVerdicts,
} from '../lib/doctor/access-verdicts.ts'
import {
  brokerVerdicts,
  type FoundPosition,
  positionVerdicts,
  rightsVerdicts,
  type SeenTopic,
  topicVerdicts,
  versionVerdicts,
} from '../lib/doctor/cluster-verdicts.ts'
import { addressVerdicts, diskVerdicts, type MskFacts, mskVerdicts } from '../lib/doctor/place-verdicts.ts'
import { type Check, ok, skip, type Verdict } from '../lib/doctor/finding.ts'
import { Outage } from '../lib/errors.ts'
import { disksSeen, mskOf } from './doctor-places.ts'
import { type DeploymentOnCluster, once, type Patient } from './patient.ts'

const PROBE = 'doctor'

/** Of a topic and of a group; it begins as no name of ours does. */
const UNRULED = 'no-rule-is-for-this-name'

/** Kafka's number. */
const TOPIC_AUTHORIZATION_FAILED = 29

/** Of the listeners that a cluster names: more than clusters have, and none of them is ours to believe without end. */
const MAX_OTHERS = 100

export class ClusterChecks {
  readonly #patient: Patient
  readonly #needs: ClusterNeeds
  readonly #deployment: DeploymentOnCluster
  readonly #kafka: DeploymentOnCluster['kafka']
  readonly #opened: Promise<KafkaSurvey>[] = []
  readonly #asGate: (deadline: number) => Promise<KafkaSurvey>
  readonly #asObserver: (deadline: number) => Promise<KafkaSurvey>
  readonly #msk: (deadline: number) => Promise<MskFacts | undefined>
  readonly #topics: (deadline: number) => Promise<ReadonlyMap<string, SeenTopic>>
  readonly #brokers: (deadline: number) => Promise<readonly { host: string; port: number }[]>
  readonly #listeners: (
    deadline: number,
  ) => Promise<{ made: readonly Connected[]; missed: readonly Missed[] }>

  constructor(deployment: DeploymentOnCluster, patient: Patient) {
    const { observer, clock } = patient
    this.#patient = patient
    this.#deployment = deployment
    this.#kafka = deployment.kafka
    this.#needs = clusterNeeds({ ...deployment, deployment: this.#kafka.deployment })
    const survey = (settings: KafkaConnectionSettings) =>
      once((deadline) => {
        const opening = surveyKafka(settings, clock, deadline)
        this.#opened.push(opening)
        return opening
      })
    this.#asGate = survey(this.#kafka)
    const asOther = observer === undefined ? this.#asGate : survey(observer)
    this.#asObserver = (deadline) =>
      asOther(deadline).catch((error: unknown) => {
        if (observer === undefined || !(error instanceof Outage)) throw error
        throw new Outage(error.code, `as the observer: ${error.message}`, { cause: error })
      })
    this.#msk = mskOf(patient)
    this.#topics = once(async (deadline) =>
      this.#seen(await (await this.#asGate(deadline)).metadata(this.#names)),
    )
    this.#brokers = once(async (deadline) => (await (await this.#asGate(deadline)).metadata([])).brokers)
    this.#listeners = once(async (deadline) => {
      const shake = async (broker: string): Promise<Connected | Missed> => {
        try {
          return { broker, ...(await shakeHands(this.#kafka, broker, clock, deadline)) }
        } catch (error) {
          if (!(error instanceof Outage)) throw error
          return { broker, outage: error }
        }
      }
      const { brokers } = this.#kafka
      const shaking = brokers.map(shake)
      // Those that the cluster names beside ours are the gate's too; the check of brokers says why it names none.
      const told = await this.#brokers(deadline).catch(() => [])
      const others = told
        .map(({ host, port }) => `${host}:${port}`)
        .filter((each) => !brokers.includes(each))
        .slice(0, MAX_OTHERS)
      const all = await Promise.all([...shaking, ...others.map(shake)])
      return {
        made: all.flatMap((each) => ('outage' in each ? [] : each)),
        missed: all.flatMap((each) => ('outage' in each ? each : [])),
      }
    })
  }

  checks(): readonly Check[] {
    const { clock, node } = this.#patient
    const mechanism = this.#kafka.sasl?.mechanism
    const hasCertificate = this.#kafka.tls?.client !== undefined
    return [
      {
        name: 'brokers',
        look: async (deadline) => [
          ok(`${(await this.#brokers(deadline)).length} brokers, and they let us in.`),
        ],
      },
      { name: 'network-segmentation', look: this.#inside((deadline) => this.#segmentation(deadline)) },
      {
        name: 'tls',
        look: async (deadline) => {
          const { made, missed } = await this.#listeners(deadline)
          return listenerVerdicts(made, missed)
        },
      },
      {
        name: 'certificate-expiry',
        look: async (deadline) => {
          const { made, missed } = await this.#listeners(deadline)
          return expiryVerdicts(made, missed, clock.now())
        },
      },
      {
        name: 'authentication',
        look: async (deadline) => {
          // Whom the brokers refuse has proved nothing, whatever the settings say.
          await this.#asGate(deadline)
          const isOpen = await admitsAnybody(this.#kafka, clock, deadline)
          return authenticationVerdicts(mechanism, hasCertificate, isOpen)
        },
      },
      {
        name: 'password-length',
        look: async (deadline) =>
          passwordVerdicts(await hasLongPassword(this.#kafka, MIN_PASSWORD_LENGTH, clock, deadline)),
      },
      { name: 'acls', look: this.#inside((deadline) => this.#rights(deadline)) },
      {
        name: 'topics',
        look: this.#inside((deadline) => this.#settings(deadline, (use) => use !== 'audit')),
      },
      {
        name: 'audit-topic',
        look: this.#inside((deadline) => this.#settings(deadline, (use) => use === 'audit')),
      },
      {
        name: 'broker-settings',
        look: this.#inside(async (deadline) => {
          const config = await (await this.#asObserver(deadline)).brokerConfig()
          return brokerVerdicts(config, this.#kafka.transactionTimeoutMs, this.#patient.cluster !== undefined)
        }),
      },
      { name: 'encryption-at-rest', look: (deadline) => this.#disks(deadline) },
      {
        name: 'versions',
        look: this.#inside(async (deadline) => {
          const software = await (await this.#asGate(deadline)).software()
          const replicas = [...(await this.#topics(deadline)).values()].flatMap(({ partitions }) =>
            partitions.map((each) => each.replicas),
          )
          return versionVerdicts(software, replicas.length === 0 ? undefined : Math.min(...replicas), node)
        }),
      },
      { name: 'positions', look: this.#inside((deadline) => this.#positions(deadline)) },
    ]
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#opened.map((opening) => opening.then((survey) => survey.close()).catch(() => undefined)),
    )
  }

  /** What only somebody sees whom the brokers let in; why they do not, the check `brokers` says. */
  #inside(look: Check['look']): Check['look'] {
    return async (deadline) => {
      try {
        await this.#asGate(deadline)
      } catch (error) {
        if (error instanceof Outage) return [skip('The brokers do not let us in.', 'See the check brokers.')]
        throw error
      }
      return look(deadline)
    }
  }

  get #names(): readonly string[] {
    return this.#needs.topics.map(({ name }) => name)
  }

  #seen({ topics }: Awaited<ReturnType<KafkaSurvey['metadata']>>): ReadonlyMap<string, SeenTopic> {
    return new Map([...topics].filter(([, { error }]) => error === 0))
  }

  async #segmentation(deadline: number): Promise<readonly Verdict[]> {
    const hosts = [
      ...this.#kafka.brokers.map((broker) => broker.split(':')[0] ?? ''),
      ...(await this.#brokers(deadline)).map(({ host }) => host),
    ]
    const found = await Promise.all(
      [...new Set(hosts)].map(async (host) => ({ host, addresses: await addressesOf(host) })),
    )
    const msk = await this.#msk(deadline)
    const verdicts = addressVerdicts(found)
    const faults = msk === undefined ? [] : mskVerdicts(msk)
    return [...verdicts.filter(({ status }) => status !== 'ok' || faults.length === 0), ...faults]
  }

  async #rights(deadline: number): Promise<readonly Verdict[]> {
    const survey = await this.#asGate(deadline)
    const { deployment, epoch } = this.#kafka
    const [topics, { allowed: cluster, topics: others }, group, other, mayTransact] = await Promise.all([
      this.#topics(deadline),
      survey.metadata([UNRULED]),
      survey.group(`${deployment}.shadow.v${epoch}`),
      survey.group(UNRULED),
      // An id of nobody's: whoever writes as an id fences those before.
      survey.mayTransact(`${deployment}.${PROBE}`),
    ])
    const unruled = [
      ...(others.get(UNRULED)?.error === TOPIC_AUTHORIZATION_FAILED ? [] : ['topics']),
      ...(other === undefined ? [] : ['groups']),
    ]
    return rightsVerdicts(this.#needs, { topics, cluster, group, mayTransact, unruled })
  }

  async #settings(
    deadline: number,
    which: (use: ClusterNeeds['topics'][number]['use']) => boolean,
  ): Promise<readonly Verdict[]> {
    const needed = this.#needs.topics.filter(({ use }) => which(use))
    const observer = await this.#asObserver(deadline)
    const topics = this.#seen(await observer.metadata(needed.map(({ name }) => name)))
    const configs = await observer.topicConfigs([...topics.keys()])
    return topicVerdicts(needed, topics, configs)
  }

  async #disks(deadline: number): Promise<readonly Verdict[]> {
    const { disks } = this.#patient
    const routes = this.#deployment.contracts.all.flatMap((contract) => contract.routes)
    const plain = routes.filter(({ form }) => form === 'plain').map(({ channel }) => channel)
    return diskVerdicts(await this.#msk(deadline), await disksSeen(disks), [...new Set(plain)])
  }

  async #positions(deadline: number): Promise<readonly Verdict[]> {
    const { clock } = this.#patient
    const topics = await this.#topics(deadline)
    const sink = createKafkaSink(this.#kafka, clock)
    try {
      const found = new Map<string, readonly FoundPosition[] | undefined>()
      for (const topic of this.#deployment.channels.keys()) {
        const partitions: FoundPosition[] = []
        for (let partition = 0; partition < (topics.get(topic)?.partitions.length ?? 0); partition++) {
          const shown = await sink.show({ topic, partition }, deadline).catch((error: unknown) => {
            if (error instanceof Outage && error.code === 'position-damaged') return error
            throw error
          })
          partitions.push(shown instanceof Outage ? shown : shown === undefined ? 'missing' : 'there')
        }
        found.set(topic, topics.has(topic) ? partitions : undefined)
      }
      return positionVerdicts(found)
    } finally {
      await sink.close()
    }
  }
}
