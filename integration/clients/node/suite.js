// The suite of kafkajs. See ../README.md for the commands. kafkajs knows no assignment outside of groups:
// `--mode assign` reads in a group of its own from the beginning.
import { parseArgs } from 'node:util'
import kafkajs from 'kafkajs'
import { runChecks } from './checks.js'
import { plugIn, TYPES } from './codecs.js'
import { keyOf, Ledger } from './ledger.js'
import { Report, same } from './report.js'

const IDLE_MS = 60_000
const BATCH = 1000

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    bootstrap: { type: 'string' },
    topic: { type: 'string', multiple: true, default: [] },
    rows: { type: 'string' },
    codec: { type: 'string', default: 'none' },
    mode: { type: 'string', default: 'assign' },
    group: { type: 'string' },
    seen: { type: 'string' },
    'stop-after': { type: 'string', default: '0' },
    prefix: { type: 'string', default: 'node' },
  },
})

const kafka = new kafkajs.Kafka({
  clientId: 'firn-suite',
  brokers: options.bootstrap.split(','),
  logLevel: kafkajs.logLevel.NOTHING,
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 },
})

/** Every row in order with an idempotent producer; prints `progress N` as records are acknowledged. */
async function produce(topic) {
  const { lines } = new Ledger(options.rows)
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  const choose = kafkajs.Partitioners.DefaultPartitioner()
  const partitionMetadata = await partitionsOf(topic)
  await producer.connect()
  try {
    for (let at = 0; at < lines.length; at += BATCH) {
      const values = lines.slice(at, at + BATCH)
      const messages = values.map((value) => ({ key: keyOf(value), value, headers: { source: 'node' } }))
      // Each partition by itself: kafkajs reports a send to several as done without those whose leader went in the middle to a
      // broker that had answered for others already.
      for (const [partition, own] of grouped(messages, (message) => choose({ topic, partitionMetadata, message }))) {
        const placed = own.map((message) => ({ ...message, partition }))
        await producer.send({ topic, messages: placed, acks: -1, compression: TYPES[options.codec] })
      }
      console.log('progress', at + values.length)
    }
  } finally {
    await producer.disconnect()
  }
}

/** What has the same key, in the order in which it came. */
function grouped(items, keyOf) {
  const groups = new Map()
  for (const item of items) {
    const key = keyOf(item)
    groups.set(key, [...(groups.get(key) ?? []), item])
  }
  return groups
}

/** The partitions of a topic as partitioners are given them. */
async function partitionsOf(topic) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions
  } finally {
    await admin.disconnect()
  }
}

/** One topic from its beginning (or the group's offsets) to its end, against the rows file. */
async function consume(topic) {
  const ledger = new Ledger(options.rows)
  const stopAfter = Number(options['stop-after'])
  ledger.resume(options.seen)
  const groupId = options.mode === 'group' ? options.group : `suite-${process.pid}-${Date.now()}-${topic}`
  const { ends, at } = await bounds(topic, groupId)
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 1000, maxWaitTimeInMs: 500, maxBytesPerPartition: 1 << 20 })
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await read(consumer, ledger, ends, at, stopAfter)
    if (options.mode === 'group') {
      const offsets = [...at].filter(([, next]) => next > 0n)
      await consumer.commitOffsets(offsets.map(([partition, next]) => ({ topic, partition, offset: String(next) })))
    }
  } finally {
    await consumer.disconnect()
  }
  ledger.save(options.seen)
  if (!stopAfter) ledger.whole()
}

/** The end of each partition, and where the group stands in it. */
async function bounds(topic, groupId) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    const ends = new Map((await admin.fetchTopicOffsets(topic)).map((p) => [p.partition, BigInt(p.high)]))
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
    return { ends, at: new Map(committed.partitions.map((p) => [p.partition, BigInt(p.offset)])) }
  } finally {
    await admin.disconnect()
  }
}

/** Until `at` has reached all `ends`, or `stopAfter` rows in all have been seen. */
function read(consumer, ledger, ends, at, stopAfter) {
  return new Promise((resolve, reject) => {
    let over = false
    let joins = 0
    let idle
    const finish = (end, value) => {
      over = true
      clearTimeout(idle)
      end(value)
    }
    const alive = () => {
      clearTimeout(idle)
      idle = setTimeout(() => finish(reject, new Error(`no record for a minute after ${ledger.count} rows`)), IDLE_MS)
    }
    const done = () =>
      stopAfter ? ledger.count >= stopAfter : [...ends].every(([partition, end]) => (at.get(partition) ?? 0n) >= end)
    const eachBatch = async ({ batch, heartbeat }) => {
      try {
        for (const message of batch.messages) {
          if (over || done()) break
          // A member that comes anew begins where its group has committed: without commits at the beginning.
          if (joins > 1 && BigInt(message.offset) < (at.get(batch.partition) ?? 0n)) continue
          ledger.take(batch.partition, message)
          at.set(batch.partition, BigInt(message.offset) + 1n)
        }
      } catch (why) {
        finish(reject, why)
      }
      if (over) return
      alive()
      if (done()) finish(resolve)
      else await heartbeat()
    }
    alive()
    consumer.on(consumer.events.GROUP_JOIN, () => joins++)
    // With its only broker away it may find none to ask, and starts itself again.
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || finish(reject, payload.error))
    consumer.run({ autoCommit: false, eachBatch }).catch((why) => finish(reject, why))
    if (done()) finish(resolve)
  })
}

await plugIn()
const report = new Report()
const [command] = positionals
if (command === 'checks') await runChecks(report, kafka, options.prefix)
for (const topic of options.topic) {
  if (command === 'produce') await report.check(`produce ${topic}`, () => produce(topic))
  else await report.check(`consume ${topic} by ${options.mode}`, () => consume(topic))
}
same('command', ['checks', 'produce', 'consume'].includes(command), true)
process.exit(report.failed ? 1 : 0)
