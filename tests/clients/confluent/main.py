"""The scenarios with confluent-kafka, which is librdkafka."""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from confluent_kafka import (
    OFFSET_BEGINNING, OFFSET_END, Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException,
    Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

from scenario import (
    BOOTSTRAP, CODECS, LIMIT_S, MANY_TOPICS, check, equal, exactly_once, main, matrix, name, records, restart_node, until,
)

admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def create(topic, partitions=1, **config):
    # Kept for ever unless told otherwise, for records have timestamps of long ago.
    names = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
    new = NewTopic(topic, partitions, 1, config=names)
    admin.create_topics([new])[topic].result(LIMIT_S)
    return appeared(topic)


def appeared(topic):
    """Waits until a topic that was created is told in Metadata, for a broker may answer before it knows itself."""
    until(lambda: topic in admin.list_topics(timeout=LIMIT_S).topics, f"{topic} appears")
    return topic


def producer(**config):
    settings = {"bootstrap.servers": BOOTSTRAP, "linger.ms": 1}
    return Producer(settings | {key.replace("_", "."): value for key, value in config.items()})


def consumer(group="unused", **config):
    settings = {
        "bootstrap.servers": BOOTSTRAP, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "enable.partition.eof": False,
    }
    return Consumer(settings | {key.replace("_", "."): value for key, value in config.items()})


def send(made_by, topic, messages):
    """Produces all, as keywords of `produce`, and returns the offsets in the order of acknowledgement."""
    offsets, errors = [], []

    def delivered(error, message):
        errors.append(error) if error else offsets.append((message.partition(), message.offset()))

    for message in messages:
        made_by.produce(topic, on_delivery=delivered, **message)
    check(made_by.flush(LIMIT_S) == 0, "records are not acknowledged")
    equal(errors, [], "errors of delivery")
    return offsets


def take(reader, count, limit_s=LIMIT_S):
    """The next records of a consumer that has an assignment."""
    taken, deadline = [], time.monotonic() + limit_s
    while len(taken) < count:
        for message in reader.consume(count - len(taken), 0.5):
            if message.error():
                raise KafkaException(message.error())
            taken.append(message)
        check(time.monotonic() < deadline, f"{len(taken)} of {count} records within {limit_s} s")
    return taken


readers = {}


def read(topic, count, partitions=(0,), offset=OFFSET_BEGINNING, **config):
    """The first records from an offset; the order is that of each partition. Consumers are kept, for making one is slow."""
    reader = readers.setdefault(str(config), None) or consumer(**config)
    readers[str(config)] = reader
    reader.assign([TopicPartition(topic, partition, offset) for partition in partitions])
    try:
        return take(reader, count)
    finally:
        reader.unassign()


def fails(code, call, what):
    try:
        call()
    except KafkaException as error:
        equal(error.args[0].name(), code, what)
        return
    raise AssertionError(f"{what}: expected {code}, but it succeeded")


def cluster():
    found = admin.describe_cluster().result(LIMIT_S)
    host, port = BOOTSTRAP.split(":")
    equal([(node.host, node.port) for node in found.nodes], [(host, int(port))], "nodes")
    check(found.controller is not None and found.cluster_id, "there is a controller and a cluster id")
    equal(admin.list_topics(timeout=LIMIT_S).cluster_id, found.cluster_id, "cluster id in Metadata")


def topics():
    topic = create(name("topics"), 3)
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(LIMIT_S)
    equal([(p.id, p.leader.id, len(p.replicas), len(p.isr)) for p in described.partitions],
          [(id, described.partitions[0].leader.id, 1, 1) for id in range(3)], "partitions")
    check(str(described.topic_id) != "AAAAAAAAAAAAAAAAAAAAAA", "the topic has an id")
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(LIMIT_S)
    until(lambda: len(admin.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions) == 5, "five partitions")
    admin.delete_topics([topic])[topic].result(LIMIT_S)
    until(lambda: topic not in admin.list_topics(timeout=LIMIT_S).topics, "the topic is gone")
    again = create(topic, 1)
    until(lambda: len(admin.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions) == 1, "one partition")
    second = admin.describe_topics(TopicCollection([again]))[again].result(LIMIT_S)
    check(str(second.topic_id) != str(described.topic_id), "a topic created again has another id")


def topic_errors():
    topic = create(name("errors"))

    def creating(topic, partitions=1, replication=1, config=None):
        return lambda: admin.create_topics([NewTopic(topic, partitions, replication, config=config or {})])[topic].result(LIMIT_S)

    fails("TOPIC_ALREADY_EXISTS", creating(topic), "duplicate topic")
    fails("TOPIC_EXCEPTION", creating("no spaces"), "invalid topic name")
    fails("TOPIC_EXCEPTION", creating("x" * 250), "topic name too long")
    fails("INVALID_PARTITIONS", creating(name("none"), 0), "no partitions")
    fails("INVALID_REPLICATION_FACTOR", creating(name("many"), 1, 3), "more replicas than brokers")
    fails("INVALID_CONFIG", creating(name("bad"), 1, 1, {"no.such.config": "1"}), "unknown config")
    fails("INVALID_CONFIG", creating(name("bad"), 1, 1, {"retention.ms": "soon"}), "bad value of a config")
    fails("INVALID_PARTITIONS", lambda: admin.create_partitions([NewPartitions(topic, 1)])[topic].result(LIMIT_S),
          "as many partitions as there are")
    unknown = name("unknown")
    fails("UNKNOWN_TOPIC_OR_PART", lambda: admin.delete_topics([unknown])[unknown].result(LIMIT_S), "delete an unknown topic")
    fails("UNKNOWN_TOPIC_OR_PART", lambda: admin.create_partitions([NewPartitions(unknown, 2)])[unknown].result(LIMIT_S),
          "partitions of an unknown topic")


def validate_only():
    topic = name("validated")
    admin.create_topics([NewTopic(topic, 1, 1)], validate_only=True)[topic].result(LIMIT_S)
    check(topic not in admin.list_topics(timeout=LIMIT_S).topics, "a validated topic is not created")


def auto_creation():
    topic = name("automatic")
    reader = consumer()
    reader.assign([TopicPartition(topic, 0, 0)])
    check(all(m.error() for m in reader.consume(1, 1.0)), "nothing comes from a topic that nobody created")
    reader.close()
    check(topic not in admin.list_topics(timeout=LIMIT_S).topics, "the topic is not created")
    send(producer(), topic, [{"value": b"made"}])
    equal(read(topic, 1)[0].value(), b"made", "a producer creates the topic")


def described_configs(topic):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    return admin.describe_configs([resource])[resource].result(LIMIT_S)


def configs():
    topic = create(name("configs"), retention_ms="3600000")
    found = described_configs(topic)
    equal(found["retention.ms"].value, "3600000", "retention.ms")
    equal((found["retention.ms"].is_default, found["segment.bytes"].is_default), (False, True), "what is a default")

    def alter(*entries):
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=list(entries))
        admin.incremental_alter_configs([resource])[resource].result(LIMIT_S)

    alter(ConfigEntry("segment.ms", "7200000", incremental_operation=AlterConfigOpType.SET),
          ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE))
    found = until(lambda: (now := described_configs(topic))["segment.ms"].value == "7200000" and now, "segment.ms set")
    equal(found["retention.ms"].value, "604800000", "retention.ms is the default again")
    legacy = ConfigResource(ResourceType.TOPIC, topic, set_config={"max.message.bytes": "2000000"})
    admin.alter_configs([legacy])[legacy].result(LIMIT_S)
    found = until(lambda: (now := described_configs(topic))["max.message.bytes"].value == "2000000" and now, "set")
    check(found["segment.ms"].value != "7200000", "a legacy alteration replaces all configs")
    fails("INVALID_CONFIG", lambda: alter(ConfigEntry("no.such.config", "1", incremental_operation=AlterConfigOpType.SET)),
          "unknown config")
    fails("INVALID_CONFIG", lambda: alter(ConfigEntry("segment.ms", "x", incremental_operation=AlterConfigOpType.SET)),
          "bad value of a config")
    unknown = ConfigResource(ResourceType.TOPIC, name("unknown"))
    fails("UNKNOWN_TOPIC_OR_PART", lambda: admin.describe_configs([unknown])[unknown].result(LIMIT_S), "unknown topic")


def produce_codecs():
    topic = create(name("codecs"))
    expected = []
    for codec in CODECS:
        for acks in ("0", "1", "all"):
            values = [b"%s %s %d " % (codec.encode(), acks.encode(), i) + b"x" * 200 for i in range(20)]
            send(producer(compression_type=codec, acks=acks), topic, [{"value": value} for value in values])
            expected += values
            # Without acknowledgement the next producer might overtake this one.
            equal([m.value() for m in read(topic, len(expected))], expected, f"{codec}, acks={acks}")


def produce_idempotent():
    topic = create(name("idempotent"))
    values = [b"%d" % i for i in range(2000)]
    made_by = producer(enable_idempotence=True, linger_ms=0, batch_num_messages=10)
    offsets = send(made_by, topic, [{"value": value, "partition": 0} for value in values])
    equal([offset for _, offset in offsets], list(range(2000)), "offsets")
    equal([m.value() for m in read(topic, 2000)], values, "values in order")


def writes(codec, topic):
    fields = ("partition", "key", "value", "headers", "timestamp")
    send(producer(compression_type=codec, linger_ms=50), topic, [dict(zip(fields, record)) for record in records(topic)])


def expect_records(topic, what):
    expected, found = [[], [], []], [[], [], []]
    for partition, *rest in records(topic):
        expected[partition].append(tuple(rest))
    for m in read(topic, sum(map(len, expected)), range(3)):
        found[m.partition()].append((m.key(), m.value(), m.headers() or [], m.timestamp()[1]))
    equal(found, expected, what)


def record_fields():
    for codec in CODECS:
        topic = create(name("fields"), 3)
        writes(codec, topic)
        expect_records(topic, codec)
    neither = create(name("neither"))
    send(producer(), neither, [{"key": None, "value": None}])
    message = read(neither, 1)[0]
    equal((message.key(), message.value()), (None, None), "neither key nor value")
    stamped = create(name("stamped"), message_timestamp_type="LogAppendTime")
    send(producer(), stamped, [{"value": b"v", "timestamp": 1000}])
    kind, timestamp = read(stamped, 1)[0].timestamp()
    check(kind == 2 and abs(timestamp - time.time() * 1000) < 60_000, "the log's time replaces the producer's")


def positions():
    topic = create(name("positions"))
    start = 1_600_000_000_000
    send(producer(), topic, [{"value": b"%d" % i, "timestamp": start + i * 1000} for i in range(100)])
    reader = consumer()
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), LIMIT_S), (0, 100), "ends")
    at = [TopicPartition(topic, 0, time) for time in (0, start + 50_000, start + 50_001, start + 1_000_000)]
    equal([reader.offsets_for_times([one], LIMIT_S)[0].offset for one in at], [0, 50, 51, OFFSET_END], "offsets by time")
    reader.close()
    equal(read(topic, 1, offset=42)[0].value(), b"42", "from an offset")
    equal(read(topic, 1)[0].value(), b"0", "from the beginning")
    reader = consumer()
    reader.assign([TopicPartition(topic, 0, OFFSET_END)])
    equal(reader.consume(1, 1.0), [], "nothing at the end")
    send(producer(), topic, [{"value": b"later"}])
    equal(take(reader, 1)[0].value(), b"later", "what comes after the end")
    reader.close()
    fails("_AUTO_OFFSET_RESET", lambda: read(topic, 1, offset=1000, auto_offset_reset="error"), "offset out of range")
    equal(read(topic, 1, offset=1000)[0].value(), b"0", "reset to the earliest")


def list_offsets():
    topic = create(name("offsets"))
    send(producer(), topic, [{"value": b"v", "timestamp": 5000 - i} for i in range(10)])
    partition = TopicPartition(topic, 0)
    specs = [OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp(), OffsetSpec.for_timestamp(4995)]
    found = [admin.list_offsets({partition: spec}, isolation_level=IsolationLevel.READ_COMMITTED)[partition].result(LIMIT_S)
             for spec in specs]
    equal([(one.offset, one.timestamp) for one in found][2], (0, 5000), "of the largest timestamp")
    equal([one.offset for one in found], [0, 10, 0, 0], "offsets")


def delete_records():
    topic = create(name("trimmed"))
    send(producer(), topic, [{"value": b"%d" % i} for i in range(50)])
    partition = TopicPartition(topic, 0, 30)
    deleted = admin.delete_records([partition])[partition].result(LIMIT_S)
    equal(deleted.low_watermark, 30, "low watermark")
    equal(read(topic, 1)[0].offset(), 30, "the first record")
    beyond = TopicPartition(topic, 0, 1000)
    fails("OFFSET_OUT_OF_RANGE", lambda: admin.delete_records([beyond])[beyond].result(LIMIT_S), "beyond the end")


def large_messages():
    topic = create(name("large"), max_message_bytes="3000000")
    value = bytes(range(256)) * 4096
    large = producer(message_max_bytes=3_000_000)
    send(large, topic, [{"value": value}, {"value": value[:-1]}])
    equal([m.value() == value for m in read(topic, 2)], [True, False], "messages of 1 MiB")
    # More than the fetch limits: the first batch comes whole all the same.
    found = read(topic, 2, fetch_message_max_bytes=1000, fetch_max_bytes=3_000_000, max_partition_fetch_bytes=1000)
    equal([len(m.value()) for m in found], [2**20, 2**20 - 1], "with small fetches")
    refused = []
    large.produce(create(name("small")), value, on_delivery=lambda error, _: refused.append(error and error.name()))
    large.flush(LIMIT_S)
    equal(refused, ["MSG_SIZE_TOO_LARGE"], "larger than max.message.bytes")


class Member(threading.Thread):
    """A consumer of a group in a thread: commits what it took before it polls again."""

    def __init__(self, group, topic, delivered, **config):
        super().__init__(daemon=True)
        self.delivered, self.error, self.assigned, self.rebalances = delivered, None, set(), 0
        self.leaving, self.uncommitted = threading.Event(), False
        self.consumer = consumer(group, **config)
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost)
        self.start()

    def on_assign(self, consumer, partitions):
        self.rebalances += 1
        self.assigned |= {p.partition for p in partitions}

    def on_revoke(self, consumer, partitions):
        self.commit()
        self.assigned -= {p.partition for p in partitions}

    def on_lost(self, consumer, partitions):
        self.error = AssertionError(f"lost {partitions}")

    def run(self):
        try:
            # A commit that a rebalance refused is repeated first: a closing consumer commits nothing.
            while not self.leaving.is_set() or self.uncommitted:
                # One by one: a revocation within `consume` would not know of the messages that it is about to return.
                message, taken = self.consumer.poll(0.1), 0
                while message is not None and taken < 50:
                    if message.error():
                        raise KafkaException(message.error())
                    self.delivered.append(int(message.value()))
                    self.uncommitted, taken = True, taken + 1
                    message = self.consumer.poll(0) if taken < 50 else None
                self.commit()
                time.sleep(0.005)
        except Exception as error:
            self.error = error
        self.consumer.close()

    def commit(self):
        """Commits what was taken; once more later where a new generation is just being made."""
        try:
            if self.uncommitted:
                self.consumer.commit(asynchronous=False)
            self.uncommitted = False
        except KafkaException as error:
            if error.args[0].name() not in ("REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION"):
                raise

    def leave(self):
        self.leaving.set()
        self.join(LIMIT_S)
        check(not self.is_alive(), "the member left")
        if self.error:
            raise self.error


def covered(members, partitions=6):
    """Whether the assignments cover all partitions, none twice, and no member is idle."""
    for member in members:
        if member.error:
            raise member.error
    sets = [member.assigned for member in members]
    return all(sets) and sorted(sum(map(list, sets), [])) == list(range(partitions))


def joins_and_leaves(**config):
    topic, group, delivered, count = create(name("group"), 6), name("group"), [], 6000
    made_by = producer()

    def produce_slowly():
        for i in range(count):
            made_by.produce(topic, b"%d" % i, partition=i % 6)
            if i % 20 == 19:
                made_by.flush(LIMIT_S)
                time.sleep(0.01)
        made_by.flush(LIMIT_S)

    writing = threading.Thread(target=produce_slowly, daemon=True)
    writing.start()
    members = []
    for size in (1, 2, 3):
        members.append(Member(group, topic, delivered, **config))
        until(lambda: covered(members), f"{size} members share the partitions")
    members.pop(1).leave()
    until(lambda: covered(members), "two members share the partitions after a leave")
    members.append(Member(group, topic, delivered, **config))
    until(lambda: covered(members), "three members again")
    writing.join(LIMIT_S)
    until(lambda: len(delivered) >= count or any(m.error for m in members), f"{count} records, now {len(delivered)}")
    for member in members:
        member.leave()
    exactly_once(delivered, count)


def group_of_three():
    joins_and_leaves(partition_assignment_strategy="range")


def cooperative_group():
    joins_and_leaves(partition_assignment_strategy="cooperative-sticky")


def static_members():
    topic, group, delivered = create(name("static"), 6), name("static"), []
    members = [Member(group, topic, delivered, group_instance_id=f"instance-{i}", session_timeout_ms=30000) for i in range(2)]
    until(lambda: covered(members), "two members share the partitions")
    before, rebalances = set(members[0].assigned), members[1].rebalances
    members[0].leave()
    members[0] = Member(group, topic, delivered, group_instance_id="instance-0", session_timeout_ms=30000)
    until(lambda: members[0].assigned, "the member is back")
    equal(members[0].assigned, before, "its partitions are the same")
    equal(members[1].rebalances, rebalances, "the other member saw no rebalance")
    usurper = Member(group, topic, delivered, group_instance_id="instance-1", session_timeout_ms=30000)
    until(lambda: members[1].error, "the old holder of the id is fenced")
    equal(members[1].error.args[0].name(), "_FATAL", "the fenced member's error")
    usurper.leave()
    members[0].leave()


def commits():
    topic, group = create(name("commits")), name("commits")
    send(producer(), topic, [{"value": b"%d" % i} for i in range(20)])
    first = consumer(group)
    first.subscribe([topic])
    taken = take(first, 7)
    first.commit(offsets=[TopicPartition(topic, 0, taken[-1].offset() + 1, metadata="half-way")], asynchronous=False)
    first.close()
    second = consumer(group)
    stored = second.committed([TopicPartition(topic, 0)], LIMIT_S)[0]
    equal((stored.offset, stored.metadata), (7, "half-way"), "committed")
    if restart_node():
        # The node needs a moment to load its groups, and the client to reconnect.
        stored = until(lambda: attempt(lambda: second.committed([TopicPartition(topic, 0)], 5)), "after the restart")[0]
        equal((stored.offset, stored.metadata), (7, "half-way"), "committed before the restart")
    second.subscribe([topic])
    equal([int(m.value()) for m in take(second, 13)], list(range(7, 20)), "resumed")
    second.close()
    never = consumer(name("never"))
    equal(never.committed([TopicPartition(topic, 0)], LIMIT_S)[0].offset, -1001, "an unknown group has no offset")
    never.close()


def attempt(call):
    try:
        return call()
    except KafkaException:
        return None


def group_admin():
    topic, group, delivered = create(name("admin"), 6), name("admin"), []
    send(producer(), topic, [{"value": b"1"}])
    member = Member(group, topic, delivered, client_id="the-client")
    until(lambda: covered([member]) and delivered, "one member takes a record")
    listed = admin.list_consumer_groups().result(LIMIT_S)
    equal([g.state.name for g in listed.valid if g.group_id == group], ["STABLE"], "listed")
    described = admin.describe_consumer_groups([group])[group].result(LIMIT_S)
    equal((described.state.name, described.partition_assignor, len(described.members)), ("STABLE", "range", 1), "described")
    equal(described.members[0].client_id, "the-client", "client id")
    equal(sorted(p.partition for p in described.members[0].assignment.topic_partitions), list(range(6)), "assignment")
    fails("NON_EMPTY_GROUP", lambda: admin.delete_consumer_groups([group])[group].result(LIMIT_S), "delete a group in use")
    member.leave()
    wanted = [ConsumerGroupTopicPartitions(group)]
    found = admin.list_consumer_group_offsets(wanted)[group].result(LIMIT_S)
    equal([p.offset for p in found.topic_partitions if p.offset > 0], [1], "offsets of the group")
    altered = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 9)])]
    admin.alter_consumer_group_offsets(altered)[group].result(LIMIT_S)
    found = admin.list_consumer_group_offsets(wanted)[group].result(LIMIT_S)
    check((0, 9) in [(p.partition, p.offset) for p in found.topic_partitions], "altered offset")
    admin.delete_consumer_groups([group])[group].result(LIMIT_S)
    check(group not in [g.group_id for g in admin.list_consumer_groups().result(LIMIT_S).valid], "the group is gone")
    fails("GROUP_ID_NOT_FOUND", lambda: admin.delete_consumer_groups([group])[group].result(LIMIT_S), "delete it again")


def stale_commit():
    topic, group = create(name("stale")), name("stale")
    send(producer(), topic, [{"value": b"%d" % i} for i in range(10)])
    stale = consumer(group, max_poll_interval_ms=6000, session_timeout_ms=6000)
    stale.subscribe([topic])
    take(stale, 1)
    stale.commit(asynchronous=False)
    other = consumer(group)
    other.subscribe([topic])
    until(lambda: other.consume(1, 0.5), "the other member takes over once the first no longer polls")
    fails(("UNKNOWN_MEMBER_ID"), lambda: stale.commit(asynchronous=False,
          offsets=[TopicPartition(topic, 0, 3)]), "a commit of a member that was removed")
    other.close()


def many_topics():
    prefix = name("many")
    names = [f"{prefix}-{i}" for i in range(MANY_TOPICS)]
    for future in admin.create_topics([NewTopic(one, 1, 1) for one in names]).values():
        future.result(LIMIT_S)
    mine = lambda: [one for one in admin.list_topics(timeout=LIMIT_S).topics if one.startswith(prefix)]
    until(lambda: len(mine()) == MANY_TOPICS, "all topics are told")
    reader = consumer()
    made_by = producer()
    for one in names:
        made_by.produce(one, one.encode())
    check(made_by.flush(LIMIT_S) == 0, "a record in each topic")
    reader.assign([TopicPartition(one, 0, 0) for one in names])
    equal(sorted(m.value().decode() for m in take(reader, MANY_TOPICS)), sorted(names), "a record of each topic")
    reader.close()
    for future in admin.delete_topics(names).values():
        future.result(LIMIT_S)
    until(lambda: not mine(), "all topics are gone")


def transactions():
    made_by = producer(transactional_id=name("transaction"), transaction_timeout_ms=5000)
    started = time.monotonic()
    try:
        made_by.init_transactions(15)
    except KafkaException as error:
        check(time.monotonic() - started < 30, f"refused late: {error}")
        return
    topic = create(name("transaction"))
    made_by.begin_transaction()
    made_by.produce(topic, b"aborted")
    made_by.abort_transaction(LIMIT_S)
    made_by.begin_transaction()
    made_by.produce(topic, b"committed")
    made_by.commit_transaction(LIMIT_S)
    equal(read(topic, 1, isolation_level="read_committed")[0].value(), b"committed", "what was committed")


def write_matrix():
    for codec in CODECS:
        writes(codec, create(f"matrix-confluent-{codec}", 3))


def read_matrix():
    for topic in matrix(admin.list_topics(timeout=LIMIT_S).topics):
        expect_records(topic, topic)


if __name__ == "__main__":
    main([
        cluster, topics, topic_errors, validate_only, auto_creation, configs, produce_codecs, produce_idempotent,
        record_fields, positions, list_offsets, delete_records, large_messages, group_of_three, cooperative_group,
        static_members, commits, group_admin, stale_commit, many_topics, transactions, write_matrix, read_matrix,
    ])
