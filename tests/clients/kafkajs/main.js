// The scenarios with kafkajs.
'use strict';

const { randomUUID } = require('crypto');
const { readFileSync } = require('fs');
const readline = require('readline');
const { isDeepStrictEqual } = require('util');
const kafkajs = require('kafkajs');
const snappy = require('snappyjs');
const { ZstdCodec } = require('zstd-codec');

const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = kafkajs;
const BOOTSTRAP = process.env.BOOTSTRAP;
const MANY_TOPICS = Number(process.env.MANY_TOPICS || 1000);
const LIMIT_MS = 60000;
// LZ4 is left out: lz4js writes frames whose blocks depend on each other, which Kafka refuses, and cannot read all others.
const CODECS = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, zstd: CompressionTypes.ZSTD,
};

const kafka = new Kafka({ clientId: 'the-client', brokers: [BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } });
const admin = kafka.admin();

// Of the codecs, kafkajs brings gzip only.
const XERIAL = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0]);

function unframe(buffer) {
  if (!buffer.subarray(0, 8).equals(XERIAL)) return Buffer.from(snappy.uncompress(buffer));
  const parts = [];
  for (let at = 16; at < buffer.length;) {
    const size = buffer.readInt32BE(at);
    parts.push(Buffer.from(snappy.uncompress(buffer.subarray(at + 4, at + 4 + size))));
    at += 4 + size;
  }
  return Buffer.concat(parts);
}

async function installCodecs() {
  const zstd = await new Promise((resolve) => ZstdCodec.run((loaded) => resolve(new loaded.Simple())));
  const codec = (compress, decompress) => () => ({
    compress: async (encoder) => Buffer.from(compress(encoder.buffer)),
    decompress: async (buffer) => Buffer.from(decompress(buffer)),
  });
  CompressionCodecs[CompressionTypes.Snappy] = codec((data) => snappy.compress(data), unframe);
  CompressionCodecs[CompressionTypes.ZSTD] = codec((data) => zstd.compress(data), (data) => zstd.decompress(data));
}

const name = (what) => `${what}-${randomUUID().slice(0, 8)}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => String(from + i));

function check(truth, what) {
  if (!truth) throw new Error(what);
}

function equal(found, expected, what) {
  if (!isDeepStrictEqual(found, expected)) {
    throw new Error(`${what}: expected ${JSON.stringify(expected).slice(0, 400)}, found ${JSON.stringify(found).slice(0, 400)}`);
  }
}

async function until(what, condition) {
  for (const deadline = Date.now() + LIMIT_MS; !(await condition()); await sleep(20)) {
    check(Date.now() < deadline, `${what}: not within ${LIMIT_MS} ms`);
  }
}

async function fails(type, promise, what) {
  const error = await promise.then(() => null, (thrown) => thrown);
  const found = error ? [error, error.cause, ...(error.errors || [])] : [{ type: 'success' }];
  const types = found.map((one) => one && one.type);
  check(types.includes(type), `${what}: expected ${type}, found ${types} ${error}`);
}

async function create(topic, numPartitions = 1, configs = {}) {
  // Kept for ever unless told otherwise, for records have timestamps of long ago.
  const configEntries = Object.entries({ 'retention.ms': '-1', ...configs }).map(([key, value]) => ({ name: key, value }));
  await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false });
  const told = () => admin.fetchTopicMetadata({ topics: [topic] }).then((found) => found.topics[0].partitions.length, () => 0);
  await until(`${topic} appears`, async () => (await told()) === numPartitions);
  return topic;
}

async function send(topic, messages, options = {}, settings = {}) {
  const producer = kafka.producer({ allowAutoTopicCreation: false, ...settings });
  await producer.connect();
  try {
    return await producer.send({ topic, messages, ...options });
  } finally {
    await producer.disconnect();
  }
}

// The records of a topic from an offset of each partition on, through a group that nobody else has.
async function read(topic, count, { from = '0', partitions = 1, ...settings } = {}) {
  const consumer = kafka.consumer({ groupId: name('reader'), maxWaitTimeInMs: 100, ...settings });
  const found = [];
  await consumer.connect();
  try {
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({ autoCommit: false, eachMessage: async (one) => found.push(one) });
    for (let partition = 0; partition < partitions && from !== '0'; partition++) consumer.seek({ topic, partition, offset: from });
    await until(`${count} records of ${topic}`, () => found.length >= count);
  } finally {
    await consumer.disconnect();
  }
  return found.filter(({ message }) => BigInt(message.offset) >= BigInt(from));
}

const values = (found) => found.map(({ message }) => message.value.toString());

function shared() {
  const decode = (text) => (text === null ? null : Buffer.from(text, 'base64'));
  return JSON.parse(readFileSync(process.env.RECORDS)).map((record) => ({
    ...record, key: decode(record.key), value: decode(record.value), headers: record.headers.map(([key, value]) => [key, decode(value)]),
  }));
}

const isPlain = ({ headers }) => new Set(headers.map(([key]) => key)).size === headers.length && headers.every(([, value]) => value !== null);

async function writeShared(topic, compression) {
  const messages = shared().filter(isPlain).map(({ partition, key, value, headers, timestamp }) => ({
    partition, key, value, headers: Object.fromEntries(headers), timestamp: String(timestamp),
  }));
  await send(topic, messages, { compression });
}

// Headers are an object here: the values of a key are in order, the keys among themselves are not.
function gather(headers) {
  const found = {};
  for (const [key, value] of headers) (found[key] ||= []).push(value === null ? null : value.toString('hex'));
  return found;
}

async function expectShared(topic) {
  const expected = [[], [], []];
  const found = [[], [], []];
  const hex = (bytes) => (bytes === null || bytes === undefined ? null : bytes.toString('hex'));
  for (const record of shared().filter((one) => !topic.endsWith('plain') || isPlain(one))) {
    expected[record.partition].push([String(record.timestamp), hex(record.key), hex(record.value), gather(record.headers)]);
  }
  for (const { partition, message } of await read(topic, expected.flat().length, { partitions: 3 })) {
    const headers = Object.entries(message.headers || {}).flatMap(([key, value]) => [value].flat().map((one) => [key, one ?? null]));
    found[partition].push([message.timestamp, hex(message.key), hex(message.value), gather(headers)]);
  }
  equal(found, expected, topic);
}

const scenarios = {
  async cluster() {
    const found = await admin.describeCluster();
    equal(found.brokers.map(({ host, port }) => `${host}:${port}`), [BOOTSTRAP], 'nodes');
    check(found.clusterId && found.controller === found.brokers[0].nodeId, 'cluster id and controller');
  },

  async topics() {
    const topic = await create(name('topics'), 3);
    const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions;
    equal((await partitions()).map((one) => [one.partitionId, one.replicas.length, one.isr.length]).sort(), [[0, 1, 1], [1, 1, 1], [2, 1, 1]], 'partitions');
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
    await until('five partitions', async () => (await partitions()).length === 5);
    await admin.deleteTopics({ topics: [topic] });
    await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic));
  },

  async topic_errors() {
    const topic = await create(name('errors'));
    const creating = (wanted) => admin.createTopics({ topics: [{ numPartitions: 1, ...wanted }], waitForLeaders: false });
    equal(await creating({ topic }), false, 'duplicate topic');
    await fails('INVALID_TOPIC_EXCEPTION', creating({ topic: 'no spaces' }), 'invalid topic name');
    await fails('INVALID_PARTITIONS', creating({ topic: name('none'), numPartitions: 0 }), 'no partitions');
    await fails('INVALID_REPLICATION_FACTOR', creating({ topic: name('many'), replicationFactor: 3 }), 'more replicas than brokers');
    await fails('INVALID_CONFIG', creating({ topic: name('bad'), configEntries: [{ name: 'no.such', value: '1' }] }), 'unknown config');
    await fails('UNKNOWN_TOPIC_OR_PARTITION', admin.deleteTopics({ topics: [name('unknown')] }), 'delete an unknown topic');
    await fails('UNKNOWN_TOPIC_OR_PARTITION', admin.fetchTopicMetadata({ topics: [name('unknown')] }), 'an unknown topic');
  },

  async auto_creation() {
    const topic = name('automatic');
    await fails('UNKNOWN_TOPIC_OR_PARTITION', send(topic, [{ value: 'x' }], {}, { retry: { retries: 1 } }), 'where it is not allowed');
    await send(topic, [{ value: 'made' }], {}, { allowAutoTopicCreation: true });
    equal(values(await read(topic, 1)), ['made'], 'a producer creates the topic');
  },

  async configs() {
    const topic = await create(name('configs'), 1, { 'retention.ms': '3600000' });
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
    const described = async () => {
      const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [resource] });
      return Object.fromEntries(resources[0].configEntries.map((entry) => [entry.configName, entry.configValue]));
    };
    equal((await described())['retention.ms'], '3600000', 'retention.ms');
    const alter = (entry) => admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [entry] }] });
    await alter({ name: 'max.message.bytes', value: '2000000' });
    await until('a legacy alteration', async () => (await described())['max.message.bytes'] === '2000000');
    equal((await described())['retention.ms'], '604800000', 'it replaces all configs');
    await fails('INVALID_CONFIG', alter({ name: 'no.such', value: '1' }), 'unknown config');
  },

  async produce_codecs() {
    const topic = await create(name('codecs'));
    const expected = [];
    for (const [codec, compression] of Object.entries(CODECS)) {
      for (const acks of [0, 1, -1]) {
        const sent = numbers(0, 20).map((i) => `${codec} ${acks} ${i} ${'x'.repeat(200)}`);
        await send(topic, sent.map((value) => ({ value })), { acks, compression });
        expected.push(...sent);
        const end = async () => Number((await admin.fetchTopicOffsets(topic))[0].high);
        // Without acknowledgement the next producer might overtake this one.
        await until('all arrive', async () => (await end()) === expected.length);
      }
    }
    equal(values(await read(topic, expected.length)), expected, 'every codec with every acks');
  },

  async produce_idempotent() {
    const topic = await create(name('idempotent'));
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    for (let at = 0; at < 500; at += 10) {
      const [{ baseOffset }] = await producer.send({ topic, messages: numbers(at, at + 10).map((value) => ({ value })) });
      equal(baseOffset, String(at), 'offset');
    }
    await producer.disconnect();
    equal(values(await read(topic, 500)), numbers(0, 500), 'values in order');
  },

  async record_fields() {
    for (const compression of Object.values(CODECS)) {
      const topic = await create(`${name('fields')}-plain`, 3);
      await writeShared(topic, compression);
      await expectShared(topic);
    }
  },

  async positions() {
    const topic = await create(name('positions'));
    const start = 1600000000000;
    await send(topic, numbers(0, 100).map((value, i) => ({ value, timestamp: String(start + i * 1000) })));
    equal((await admin.fetchTopicOffsets(topic)).map(({ low, high }) => [low, high]), [['0', '100']], 'ends');
    const by = async (time) => (await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset;
    equal([await by(0), await by(start + 50000), await by(start + 50001)], ['0', '50', '51'], 'offsets by time');
    equal(values(await read(topic, 58, { from: '42' })).filter((value) => Number(value) >= 42).slice(0, 2), ['42', '43'], 'from an offset');
  },

  async delete_records() {
    const topic = await create(name('trimmed'));
    await send(topic, numbers(0, 50).map((value) => ({ value })));
    const trim = () => admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '30' }] });
    await until('records are deleted', () => trim().then(() => true, () => false));
    equal((await admin.fetchTopicOffsets(topic))[0].low, '30', 'low watermark');
    equal(values(await read(topic, 20))[0], '30', 'the first record');
  },

  async large_messages() {
    const topic = await create(name('large'), 1, { 'max.message.bytes': '3000000' });
    const value = Buffer.alloc(1 << 20, 'logmill ');
    await send(topic, [{ value }]);
    await send(topic, [{ value }]);
    // More than the fetch limits: the first batch comes whole all the same.
    for (const limits of [{}, { maxBytes: 1000, maxBytesPerPartition: 1000 }]) {
      for (const { message } of await read(topic, 2, limits)) check(message.value.equals(value), 'a message of 1 MiB');
    }
    await fails('MESSAGE_TOO_LARGE', send(await create(name('small')), [{ value }]), 'larger than max.message.bytes');
  },

  async group_of_three() {
    const topic = await create(name('group'), 6);
    const groupId = name('group');
    const count = 3000;
    const delivered = [];
    const join = async () => {
      const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300, maxWaitTimeInMs: 100, rebalanceTimeout: 10000 });
      const member = { consumer, assigned: [] };
      consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { member.assigned = payload.memberAssignment[topic] || []; });
      consumer.on(consumer.events.REBALANCING, () => { member.assigned = []; });
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({
        autoCommit: false,
        eachMessage: async ({ partition, message }) => {
          await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }]);
          delivered.push(Number(message.value));
        },
      });
      return member;
    };
    const members = [];
    const covered = (what) => until(what, () => {
      const all = members.flatMap(({ assigned }) => assigned);
      return members.every(({ assigned }) => assigned.length > 0) && all.length === 6 && new Set(all).size === 6;
    });
    const writing = (async () => {
      const producer = kafka.producer();
      await producer.connect();
      for (let at = 0; at < count; at += 20) {
        await producer.send({ topic, messages: numbers(at, at + 20).map((value, i) => ({ value, partition: i % 6 })) });
        await sleep(10);
      }
      await producer.disconnect();
    })();
    for (let size = 1; size <= 3; size++) {
      members.push(await join());
      await covered(`${size} members share the partitions`);
    }
    await members.splice(1, 1)[0].consumer.disconnect();
    await covered('two members share the partitions after a leave');
    members.push(await join());
    await covered('three members again');
    await writing;
    await until(`${count} records`, () => new Set(delivered).size >= count);
    for (const { consumer } of members) await consumer.disconnect();
    equal(delivered.length, count, 'each record is delivered once');
  },

  async commits() {
    const topic = await create(name('commits'));
    const groupId = name('commits');
    await send(topic, numbers(0, 20).map((value) => ({ value })));
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] });
    const stored = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0].offset;
    equal(await stored(), '7', 'committed');
    console.log('RESTART?');
    const answers = readline.createInterface({ input: process.stdin });
    const answer = await new Promise((resolve) => answers.once('line', resolve).once('close', resolve));
    answers.close();
    if (answer === 'restarted') equal(await stored(), '7', 'committed before the restart');
    equal(values(await read(topic, 13, { groupId })), numbers(7, 20), 'resumed');
    equal((await admin.fetchOffsets({ groupId: name('never'), topics: [topic] }))[0].partitions[0].offset, '-1', 'an unknown group');
  },

  async group_admin() {
    const topic = await create(name('admin'), 6);
    const groupId = name('admin');
    const consumer = kafka.consumer({ groupId });
    await consumer.connect();
    await consumer.subscribe({ topic });
    const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve));
    await consumer.run({ eachMessage: async () => {} });
    await joined;
    check((await admin.listGroups()).groups.some((group) => group.groupId === groupId), 'listed');
    const [found] = (await admin.describeGroups([groupId])).groups;
    equal([found.state, found.protocol, found.members.length, found.members[0].clientId], ['Stable', 'RoundRobinAssigner', 1, 'the-client'], 'described');
    await fails('NON_EMPTY_GROUP', admin.deleteGroups([groupId]).catch((error) => { throw error.groups ? { type: error.groups[0].error.type } : error; }), 'in use');
    await consumer.disconnect();
    await admin.deleteGroups([groupId]);
    check(!(await admin.listGroups()).groups.some((group) => group.groupId === groupId), 'the group is gone');
  },

  async many_topics() {
    const prefix = name('many');
    const all = numbers(0, MANY_TOPICS).map((i) => `${prefix}-${i}`);
    await admin.createTopics({ topics: all.map((topic) => ({ topic, numPartitions: 1 })), waitForLeaders: false, timeout: LIMIT_MS });
    const told = async () => (await admin.listTopics()).filter((topic) => topic.startsWith(prefix)).length;
    await until('all topics are told', async () => (await told()) === all.length);
    equal((await admin.fetchTopicMetadata({ topics: all })).topics.length, all.length, 'described');
    await admin.deleteTopics({ topics: all, timeout: LIMIT_MS });
    await until('all topics are gone', async () => (await told()) === 0);
  },

  async transactions() {
    const topic = await create(name('transaction'));
    const started = Date.now();
    const producer = kafka.producer({ transactionalId: name('transaction'), idempotent: true, maxInFlightRequests: 1, transactionTimeout: 5000, retry: { retries: 3 } });
    try {
      await producer.connect();
      const transaction = await producer.transaction();
      await transaction.send({ topic, messages: [{ value: 'committed' }] });
      await transaction.commit();
    } catch (refused) {
      check(Date.now() - started < 30000, `refused late: ${refused}`);
      return;
    } finally {
      await producer.disconnect();
    }
    equal(values(await read(topic, 1)), ['committed'], 'what was committed');
  },

  async write_matrix() {
    for (const [codec, compression] of Object.entries(CODECS)) {
      await writeShared(await create(`matrix-kafkajs-${codec}-plain`, 3), compression);
    }
  },

  async read_matrix() {
    const topics = (await admin.listTopics()).filter((topic) => topic.startsWith('matrix-'));
    check(topics.length >= Number(process.env.MATRIX_TOPICS || 1), `topics of the matrix: ${topics}`);
    // Of zstd its decoder reads frames only that say how long they are, as those of librdkafka do not.
    for (const topic of topics.filter((one) => /-(none|gzip|snappy)/.test(one))) await expectShared(topic);
  },
};

async function main() {
  await installCodecs();
  await admin.connect();
  const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(scenarios).filter((one) => !one.endsWith('_matrix'));
  let failed = 0;
  for (const scenario of chosen) {
    const started = Date.now();
    try {
      await scenarios[scenario]();
      console.log(`PASS ${scenario} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed++;
      console.log(`FAIL ${scenario}: ${error.stack || JSON.stringify(error)}`);
    }
  }
  process.exit(failed ? 1 : 0); // connections of a client that failed may keep it alive
}

main();
