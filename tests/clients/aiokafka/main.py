"""The scenarios with aiokafka."""

import asyncio
import contextlib
import logging
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from aiokafka import (
    AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition, errors,
)
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import for_code

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry

from scenario import (
    BOOTSTRAP, CODECS, LIMIT_S, MANY_TOPICS, check, equal, exactly_once, main, matrix, name, records, restart_node,
)


@contextlib.asynccontextmanager
async def administrator():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def until(condition, what, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what}: not within {limit_s} s")


def raise_for(response):
    """The admin client hands over error codes as they came."""
    topics = getattr(response, "topic_errors", None) or getattr(response, "topic_error_codes", None) or []
    for entry in topics:
        if entry[1]:
            raise for_code(entry[1])(entry)
    return response


async def create(topic, partitions=1, **config):
    # Kept for ever unless told otherwise, for records have timestamps of long ago.
    names = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
    async with administrator() as admin:
        raise_for(await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=names)]))

        async def told():
            found = (await admin.describe_topics([topic]))[0]
            return found["error_code"] == 0 and len(found["partitions"]) == partitions

        await until(told, f"{topic} appears")
    return topic


def producer(**config):
    return AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **config)


def consumer(*topics, group=None, **config):
    settings = {
        "group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100,
        "session_timeout_ms": 6000, "heartbeat_interval_ms": 300, "max_partition_fetch_bytes": 4 << 20,
    }
    return AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, **settings | config)


async def send(topic, messages, **config):
    async with producer(**config) as made_by:
        futures = [await made_by.send(topic, **message) for message in messages]
        return [await asyncio.wait_for(future, LIMIT_S) for future in futures]


async def take(reader, count, limit_s=LIMIT_S):
    taken, deadline = [], time.monotonic() + limit_s
    while len(taken) < count:
        for messages in (await reader.getmany(timeout_ms=500, max_records=count - len(taken))).values():
            taken += messages
        check(time.monotonic() < deadline, f"{len(taken)} of {count} records within {limit_s} s")
    return taken


async def read(topic, count, partitions=(0,), offset=0, **config):
    assigned = [TopicPartition(topic, partition) for partition in partitions]
    async with consumer(**config) as reader:
        reader.assign(assigned)
        for partition in assigned:
            reader.seek(partition, offset)
        return await take(reader, count)


async def fails(kind, awaitable, what):
    try:
        await awaitable
    except kind:
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, but it succeeded")


async def cluster():
    async with administrator() as admin:
        found = await admin.describe_cluster()
    host, port = BOOTSTRAP.split(":")
    equal([(node["host"], node["port"]) for node in found["brokers"]], [(host, int(port))], "nodes")
    check(found["controller_id"] == found["brokers"][0]["node_id"] and found["cluster_id"], "controller and cluster id")


async def topics():
    topic = await create(name("topics"), 3)
    async with administrator() as admin:
        described = (await admin.describe_topics([topic]))[0]
        found = sorted((p["partition"], len(p["replicas"]), len(p["isr"])) for p in described["partitions"])
        equal(found, [(0, 1, 1), (1, 1, 1), (2, 1, 1)], "partitions")
        await admin.create_partitions({topic: NewPartitions(5)})

        async def partitions():
            return len((await admin.describe_topics([topic]))[0]["partitions"]) == 5

        async def gone():
            return topic not in await admin.list_topics()

        await until(partitions, "five partitions")
        await admin.delete_topics([topic])
        await until(gone, "the topic is gone")


async def topic_errors():
    topic = await create(name("errors"))
    async with administrator() as admin:
        async def creating(topic, partitions=1, replication=1, configs=None):
            raise_for(await admin.create_topics([NewTopic(topic, partitions, replication, topic_configs=configs or {})]))

        await fails(errors.TopicAlreadyExistsError, creating(topic), "duplicate topic")
        await fails(errors.InvalidTopicError, creating("no spaces"), "invalid topic name")
        await fails(errors.InvalidPartitionsError, creating(name("none"), 0), "no partitions")
        await fails(errors.InvalidReplicationFactorError, creating(name("many"), 1, 3), "more replicas than brokers")
        await fails(errors.InvalidConfigurationError, creating(name("bad"), configs={"no.such.config": "1"}), "unknown config")
        await fails(errors.InvalidConfigurationError, creating(name("bad"), configs={"retention.ms": "soon"}), "bad value")
        unknown = await admin.delete_topics([name("unknown")])
        equal([entry[1] for entry in unknown.topic_error_codes], [3], "delete an unknown topic")


async def auto_creation():
    topic = name("automatic")
    async with producer() as made_by:
        await made_by.send_and_wait(topic, b"made")
    equal((await read(topic, 1))[0].value, b"made", "a producer creates the topic")


async def configs():
    topic = await create(name("configs"), retention_ms="3600000")
    async with administrator() as admin:
        async def described():
            found = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            return {entry[0]: entry[1] for entry in found[0].resources[0][4]}

        equal((await described())["retention.ms"], "3600000", "retention.ms")
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000000"})])

        async def altered():
            return (await described())["max.message.bytes"] == "2000000"

        await until(altered, "a legacy alteration")
        equal((await described())["retention.ms"], "604800000", "it replaces all configs")


async def produce_codecs():
    topic, expected = await create(name("codecs")), []
    for codec in CODECS:
        for acks in (0, 1, "all"):
            values = [b"%s %s %d " % (codec.encode(), str(acks).encode(), i) + b"x" * 200 for i in range(20)]
            await send(topic, [{"value": value} for value in values], acks=acks,
                       compression_type=None if codec == "none" else codec)
            expected += values
            # Without acknowledgement the next producer might overtake this one.
            equal([m.value for m in await read(topic, len(expected))], expected, f"{codec}, acks={acks}")


async def produce_idempotent():
    topic = await create(name("idempotent"))
    values = [b"%d" % i for i in range(2000)]
    found = await send(topic, [{"value": value, "partition": 0} for value in values], enable_idempotence=True, max_batch_size=200)
    equal([one.offset for one in found], list(range(2000)), "offsets")
    equal([m.value for m in await read(topic, 2000)], values, "values in order")


async def writes(codec, topic):
    fields = ("partition", "key", "value", "headers", "timestamp_ms")
    await send(topic, [dict(zip(fields, record)) for record in records(topic)],
               compression_type=None if codec == "none" else codec, linger_ms=50)


async def expect_records(topic, what):
    expected, found = [[], [], []], [[], [], []]
    for partition, *rest in records(topic):
        expected[partition].append(tuple(rest))
    for m in await read(topic, sum(map(len, expected)), range(3)):
        found[m.partition].append((m.key, m.value, list(m.headers), m.timestamp))
    equal(found, expected, what)


async def record_fields():
    for codec in CODECS:
        topic = await create(name("fields"), 3)
        await writes(codec, topic)
        await expect_records(topic, codec)
    stamped = await create(name("stamped"), message_timestamp_type="LogAppendTime")
    await send(stamped, [{"value": b"v", "timestamp_ms": 1000}])
    message = (await read(stamped, 1))[0]
    check(message.timestamp_type == 1 and abs(message.timestamp - time.time() * 1000) < 60_000, "the log's time replaces it")


async def positions():
    topic, start = await create(name("positions")), 1_600_000_000_000
    await send(topic, [{"value": b"%d" % i, "timestamp_ms": start + i * 1000} for i in range(100)])
    partition = TopicPartition(topic, 0)
    async with consumer() as reader:
        reader.assign([partition])
        ends = (await reader.beginning_offsets([partition]))[partition], (await reader.end_offsets([partition]))[partition]
        equal(ends, (0, 100), "ends")
        found = [(await reader.offsets_for_times({partition: time}))[partition]
                 for time in (0, start + 50_000, start + 50_001, start + 1_000_000)]
        equal([one and (one.offset, one.timestamp) for one in found],
              [(0, start), (50, start + 50_000), (51, start + 51_000), None], "offsets by time")
        reader.seek(partition, 42)
        equal((await take(reader, 1))[0].value, b"42", "from an offset")
        await reader.seek_to_beginning()
        equal((await take(reader, 1))[0].value, b"0", "from the beginning")
        await reader.seek_to_end()
        equal(await reader.getmany(timeout_ms=500), {}, "nothing at the end")
        await send(topic, [{"value": b"later"}])
        equal((await take(reader, 1))[0].value, b"later", "what comes after the end")
    await fails(errors.OffsetOutOfRangeError, read(topic, 1, offset=1000, auto_offset_reset="none"), "offset out of range")
    equal((await read(topic, 1, offset=1000))[0].value, b"0", "reset to the earliest")


async def delete_records():
    topic = await create(name("trimmed"))
    await send(topic, [{"value": b"%d" % i} for i in range(50)])
    partition = TopicPartition(topic, 0)
    async with administrator() as admin:
        found = await admin.delete_records({partition: RecordsToDelete(before_offset=30)})
        equal(found[partition], 30, "low watermark")
        equal((await read(topic, 1, offset=30))[0].offset, 30, "the first record")
        await fails(errors.OffsetOutOfRangeError, admin.delete_records({partition: RecordsToDelete(before_offset=1000)}), "beyond")


async def large_messages():
    topic, value = await create(name("large"), max_message_bytes="3000000"), bytes(range(256)) * 4096
    await send(topic, [{"value": value}, {"value": value[:-1]}], max_request_size=3_000_000)
    equal([m.value == value for m in await read(topic, 2)], [True, False], "messages of 1 MiB")
    # More than the fetch limits: the first batch comes whole all the same.
    equal([len(m.value) for m in await read(topic, 2, fetch_max_bytes=1000)], [2**20, 2**20 - 1], "with small fetches")
    small = await create(name("small"))
    await fails(errors.MessageSizeTooLargeError, send(small, [{"value": value}], max_request_size=3_000_000), "too large")


class Member(ConsumerRebalanceListener):
    """A consumer of a group in a task: commits what it took before it polls again."""

    def __init__(self, group, topic, delivered, **config):
        self.delivered, self.assigned, self.rebalances = delivered, set(), 0
        self.leaving, self.uncommitted = False, {}
        self.consumer = consumer(group=group, **config)
        self.topic = topic
        self.task = asyncio.create_task(self.run())

    async def on_partitions_assigned(self, assigned):
        self.rebalances += 1
        self.assigned = {p.partition for p in assigned}

    async def on_partitions_revoked(self, revoked):
        await self.commit()
        self.assigned -= {p.partition for p in revoked}

    async def run(self):
        await self.consumer.start()
        try:
            self.consumer.subscribe([self.topic], listener=self)
            while not self.leaving:
                for partition, messages in (await self.consumer.getmany(timeout_ms=100, max_records=50)).items():
                    self.delivered += [int(message.value) for message in messages]
                    self.uncommitted[partition] = messages[-1].offset + 1
                await self.commit()
        finally:
            await self.consumer.stop()

    async def commit(self):
        """Commits what was taken, and not what is read ahead."""
        if self.uncommitted:
            committing, self.uncommitted = self.uncommitted, {}
            await self.consumer.commit(committing)

    async def leave(self):
        self.leaving = True
        await asyncio.wait_for(self.task, LIMIT_S)


def covered(members, partitions=6):
    """Whether the assignments cover all partitions, none twice, and no member is idle."""
    for member in members:
        if member.task.done():
            member.task.result()
    sets = [set(member.assigned) for member in members]
    return all(sets) and sorted(sum(map(list, sets), [])) == list(range(partitions))


async def joins_and_leaves(**config):
    topic, group, delivered, count = await create(name("group"), 6), name("group"), [], 6000

    async def produce_slowly():
        async with producer() as made_by:
            for i in range(count):
                await made_by.send(topic, b"%d" % i, partition=i % 6)
                if i % 20 == 19:
                    await asyncio.sleep(0.01)

    writing = asyncio.create_task(produce_slowly())
    members = []
    for size in (1, 2, 3):
        members.append(Member(group, topic, delivered, **config))
        await until(lambda: covered(members), f"{size} members share the partitions")
    await members.pop(1).leave()
    await until(lambda: covered(members), "two members share the partitions after a leave")
    members.append(Member(group, topic, delivered, **config))
    await until(lambda: covered(members), "three members again")
    await writing
    await until(lambda: len(delivered) >= count or any(m.task.done() for m in members), f"{count} records, now {len(delivered)}")
    for member in members:
        await member.leave()
    exactly_once(delivered, count)


async def group_of_three():
    await joins_and_leaves(partition_assignment_strategy=(RangePartitionAssignor,))
    await joins_and_leaves(partition_assignment_strategy=(RoundRobinPartitionAssignor,))


async def static_members():
    topic, group, delivered = await create(name("static"), 6), name("static"), []

    def member(i):
        return Member(group, topic, delivered, group_instance_id=f"instance-{i}", session_timeout_ms=30000)

    members = [member(0), member(1)]
    await until(lambda: covered(members), "two members share the partitions")
    before, rebalances = set(members[0].assigned), members[1].rebalances
    await members[0].leave()
    members[0] = member(0)
    await until(lambda: members[0].assigned, "the member is back")
    equal(members[0].assigned, before, "its partitions are the same")
    equal(members[1].rebalances, rebalances, "the other member saw no rebalance")
    for one in members:
        await one.leave()


async def commits():
    topic, group = await create(name("commits")), name("commits")
    partition = TopicPartition(topic, 0)
    await send(topic, [{"value": b"%d" % i} for i in range(20)])
    async with consumer(topic, group=group) as first:
        taken = await take(first, 7)
        await first.commit({partition: OffsetAndMetadata(taken[-1].offset + 1, "half-way")})
    async with consumer(topic, group=group) as second:
        equal(await second.committed(partition), 7, "committed")
        equal([int(m.value) for m in await take(second, 3)], [7, 8, 9], "resumed")
        await second.commit({partition: 10})
        if await asyncio.to_thread(restart_node):
            async def stored():
                try:
                    return await second.committed(partition)
                except errors.KafkaError:
                    return None

            equal(await until(stored, "after the restart"), 10, "committed before the restart")
        equal([int(m.value) for m in await take(second, 10)], list(range(10, 20)), "it goes on")
    async with consumer(group=name("never")) as never:
        equal(await never.committed(partition), None, "an unknown group has no offset")


async def group_admin():
    topic, group, delivered = await create(name("admin"), 6), name("admin"), []
    await send(topic, [{"value": b"1"}])
    member = Member(group, topic, delivered, client_id="the-client", partition_assignment_strategy=(RangePartitionAssignor,))
    await until(lambda: covered([member]) and delivered, "one member takes a record")
    async with administrator() as admin:
        check(group in [one[0] for one in await admin.list_consumer_groups()], "listed")
        described = (await admin.describe_consumer_groups([group]))[0].groups[0]
        equal((described[0], described[2], described[4], len(described[5])), (0, "Stable", "range", 1), "described")
        equal(described[5][0][1] == "the-client" or described[5][0][2] == "the-client", True, "client id")
        stored = await admin.list_consumer_group_offsets(group)
        equal([one.offset for one in stored.values() if one.offset > 0], [1], "offsets of the group")
    await member.leave()


async def many_topics():
    prefix = name("many")
    names = [f"{prefix}-{i}" for i in range(MANY_TOPICS)]
    async with administrator() as admin:
        async def mine():
            return [one for one in await admin.list_topics() if one.startswith(prefix)]

        async def all_told():
            return len(await mine()) == MANY_TOPICS

        async def gone():
            return not await mine()

        raise_for(await admin.create_topics([NewTopic(one, 1, 1) for one in names]))
        await until(all_told, "all topics are told")
        async with consumer() as reader:
            reader.assign([TopicPartition(one, 0) for one in names])
            some = names[:: max(1, MANY_TOPICS // 20)]
            for one in some:
                await send(one, [{"value": one.encode()}])
            equal(sorted(m.topic for m in await take(reader, len(some))), sorted(some), "the records of some topics")
        raise_for(await admin.delete_topics(names))
        await until(gone, "all topics are gone")


async def transactions():
    started = time.monotonic()
    made_by = producer(transactional_id=name("transaction"), transaction_timeout_ms=5000, request_timeout_ms=10_000)
    try:
        await asyncio.wait_for(made_by.start(), 30)
    except errors.KafkaError as error:
        check(time.monotonic() - started < 30, f"refused late: {error}")
        await made_by.stop()
        return
    topic = await create(name("transaction"))
    async with made_by.transaction():
        await made_by.send(topic, b"committed")
    await made_by.stop()
    equal((await read(topic, 1, isolation_level="read_committed"))[0].value, b"committed", "what was committed")


async def write_matrix():
    for codec in CODECS:
        await writes(codec, await create(f"matrix-aiokafka-{codec}", 3))


async def read_matrix():
    async with administrator() as admin:
        names = await admin.list_topics()
    for topic in matrix(names):
        await expect_records(topic, topic)


if __name__ == "__main__":
    main([
        cluster, topics, topic_errors, auto_creation, configs, produce_codecs, produce_idempotent, record_fields,
        positions, delete_records, large_messages, group_of_three, static_members, commits, group_admin, many_topics,
        transactions, write_matrix, read_matrix,
    ])
