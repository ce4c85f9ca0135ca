// What kafkajs' users do besides streaming. kafkajs is unmaintained and speaks old versions of each request:
// that is why it is here.
import { randomBytes } from 'node:crypto'
import kafkajs from 'kafkajs'
import { TYPES } from './codecs.js'
import { refused, same, until } from './report.js'

class Checks {
  constructor(kafka, admin, prefix) {
    Object.assign(this, { kafka, admin, prefix })
  }

  name(stem) {
    return `${this.prefix}-${stem}-${randomBytes(4).toString('hex')}`
  }

  async topic(stem, numPartitions = 1, configs = {}) {
    const topic = this.name(stem)
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value: String(value) }))
    await this.admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions, replicationFactor: 1, configEntries }] })
    return topic
  }

  async send(topic, messages, { producer = {}, ...options } = {}) {
    const client = this.kafka.producer(producer)
    await client.connect()
    try {
      return await client.send({ topic, messages, ...options })
    } finally {
      await client.disconnect()
    }
  }

  /** `count` messages of a topic from its beginning. */
  async fetch(topic, count) {
    const consumer = this.kafka.consumer({ groupId: this.name('reader'), maxWaitTimeInMs: 500 })
    const found = []
    await consumer.connect()
    try {
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => void found.push(message) })
      await until(`${count} messages`, 30, () => found.length >= count)
    } finally {
      await consumer.disconnect()
    }
    same('messages', found.length, count)
    return found
  }

  async cluster() {
    const { brokers, controller, clusterId } = await this.admin.describeCluster()
    same('brokers', brokers.length, 1)
    same('controller', controller, brokers[0].nodeId)
    same('cluster id', Boolean(clusterId), true)
  }

  async topics() {
    const topic = await this.topic('topics', 3, { 'segment.bytes': 1048576 })
    const partitions = async () => (await this.admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
    same('partitions', await partitions(), 3)
    await this.admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await until('5 partitions', 10, async () => (await partitions()) === 5)
    await this.admin.deleteTopics({ topics: [topic] })
    await until('gone', 10, async () => !(await this.admin.listTopics()).includes(topic))
  }

  async topicErrors() {
    const topic = await this.topic('again')
    same('created twice', await this.admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }), false)
    const create = (more) => this.admin.createTopics({ topics: [{ topic: `${topic}x`, numPartitions: 1, replicationFactor: 1, ...more }] })
    await refused('INVALID_TOPIC_EXCEPTION', () => create({ topic: 'no/slash' }))
    await refused('INVALID_REPLICATION_FACTOR', () => create({ replicationFactor: 3 }))
    await refused('INVALID_CONFIG', () => create({ configEntries: [{ name: 'retention.ms', value: 'soon' }] }))
  }

  async configs() {
    const name = await this.topic('configs', 1, { 'retention.ms': 3600000 })
    const resource = { type: kafkajs.ConfigResourceTypes.TOPIC, name }
    const retention = async () => {
      const { resources } = await this.admin.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }] })
      return resources[0].configEntries[0].configValue
    }
    same('as created', await retention(), '3600000')
    await this.admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '7200000' }] }] })
    await until('altered', 10, async () => (await retention()) === '7200000')
    await this.admin.alterConfigs({ resources: [{ ...resource, configEntries: [] }] })
    await until('back at the default', 10, async () => (await retention()) === '604800000')
  }

  async offsets() {
    const topic = await this.topic('offsets', 1, { 'retention.ms': -1 })
    const base = 1_700_000_000_000
    await this.send(topic, [0, 1, 5, 3, 4].map((second) => ({ value: 'v', timestamp: String(base + second * 1000) })))
    const [all] = await this.admin.fetchTopicOffsets(topic)
    same('low and high', [all.low, all.high], ['0', '5'])
    const [found] = await this.admin.fetchTopicOffsetsByTimestamp(topic, base + 1001)
    same('by timestamp', found.offset, '2')
  }

  async deleteRecords() {
    const topic = await this.topic('trimmed')
    await this.send(topic, Array.from({ length: 20 }, (_, i) => ({ value: `v${i}` })))
    await this.admin.fetchTopicOffsets(topic) // without it kafkajs does not know the topic's leader
    await this.admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '12' }] })
    same('low', (await this.admin.fetchTopicOffsets(topic))[0].low, '12')
    same('first left', (await this.fetch(topic, 8))[0].offset, '12')
  }

  async codecs() {
    const messages = Array.from({ length: 1000 }, (_, i) => ({ value: `${i} ${'snow '.repeat(40)}` }))
    for (const [codec, compression] of Object.entries(TYPES)) {
      const topic = await this.topic(`codec-${codec}`)
      await this.send(topic, messages, { compression })
      same(codec, (await this.fetch(topic, messages.length)).map((m) => m.value.toString()), messages.map((m) => m.value))
    }
  }

  async shapes() {
    const topic = await this.topic('shapes', 1, { 'max.message.bytes': 2000000 })
    const messages = [
      { key: null, value: null },
      { key: '', value: '', headers: { empty: '' } },
      { key: 'k', value: null, headers: { a: ['1', '2'], ü: 'ß' } },
      { key: null, value: Buffer.alloc(900_000, 'x') },
    ]
    await this.send(topic, messages)
    const got = await this.fetch(topic, messages.length)
    const plain = (v) => (v === null ? null : Buffer.from(v).toString('latin1'))
    got.forEach((message, i) => {
      same(`key ${i}`, plain(message.key), plain(messages[i].key))
      same(`value ${i}`, plain(message.value) === plain(messages[i].value), true)
    })
    same('headers', got[2].headers.a.map(String), ['1', '2'])
    same('header', String(got[2].headers.ü), 'ß')
  }

  async acknowledgements() {
    const topic = await this.topic('acks')
    for (const acks of [0, 1, -1]) await this.send(topic, [{ value: `acks ${acks}` }], { acks })
    same('values', (await this.fetch(topic, 3)).map((m) => String(m.value)), ['acks 0', 'acks 1', 'acks -1'])
  }

  async groupSharing() {
    const topic = await this.topic('shared', 4)
    const groupId = this.name('sharing')
    await this.send(topic, Array.from({ length: 200 }, (_, i) => ({ value: String(i), partition: i % 4 })))
    const seen = new Set()
    const join = async () => {
      const consumer = this.kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 300, maxWaitTimeInMs: 500 })
      const member = { consumer, owned: [] }
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => (member.owned = payload.memberAssignment[topic] ?? []))
      await consumer.connect()
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => void seen.add(String(message.value)) })
      return member
    }
    const members = [await join(), await join()]
    try {
      await until('two each', 30, () => members.every((m) => m.owned.length === 2) && new Set(members.flatMap((m) => m.owned)).size === 4)
      const described = (await this.admin.describeGroups([groupId])).groups[0]
      same('members', [described.state, described.members.length], ['Stable', 2])
      same('listed', (await this.admin.listGroups()).groups.some((g) => g.groupId === groupId), true)
      await members[0].consumer.disconnect()
      await until('the other takes all', 30, () => members[1].owned.length === 4)
      await until('all records', 30, () => seen.size === 200)
    } finally {
      for (const { consumer } of members) await consumer.disconnect()
    }
  }

  async groupOffsets() {
    const topic = await this.topic('committed')
    const groupId = this.name('offsets')
    await this.send(topic, Array.from({ length: 10 }, (_, i) => ({ value: String(i) })))
    await this.admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '5' }] })
    const [{ partitions }] = await this.admin.fetchOffsets({ groupId, topics: [topic] })
    same('committed', partitions[0].offset, '5')
    const consumer = this.kafka.consumer({ groupId, maxWaitTimeInMs: 500 })
    const got = []
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({ autoCommit: true, eachMessage: async ({ message }) => void got.push(message.offset) })
    await until('the rest', 30, () => got.length === 5)
    await consumer.disconnect()
    same('resumed at', got[0], '5')
    await this.admin.deleteGroups([groupId])
    same('gone', (await this.admin.listGroups()).groups.some((g) => g.groupId === groupId), false)
  }
}

const IN_ORDER = [
  'cluster', 'topics', 'topicErrors', 'configs', 'offsets', 'deleteRecords', 'codecs', 'shapes', 'acknowledgements',
  'groupSharing', 'groupOffsets',
]

export async function runChecks(report, kafka, prefix) {
  const admin = kafka.admin()
  await admin.connect()
  const checks = new Checks(kafka, admin, prefix)
  for (const name of IN_ORDER) {
    await report.check(name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`), () => checks[name]())
  }
  await admin.disconnect()
}
