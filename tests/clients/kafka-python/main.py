"""The scenarios with kafka-python."""

import pathlib
import sys
import threading
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from kafka import (
    ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition,
)
from kafka import errors
from kafka.admin import ConfigResource, OffsetSpec
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from scenario import (
    BOOTSTRAP, CODECS, LIMIT_S, MANY_TOPICS, check, equal, exactly_once, main, matrix, name, records, restart_node, until,
)

admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def create(topic, partitions=1, **config):
    # Kept for ever unless told otherwise, for records have timestamps of long ago.
    names = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": names}
    admin.create_topics({topic: options}, wait_for_metadata=True)
    return topic


def producer(**config):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, **{"linger_ms": 1} | config)


def consumer(group=None, **config):
    settings = {
        "group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100,
        "session_timeout_ms": 6000, "heartbeat_interval_ms": 300, "max_partition_fetch_bytes": 4 << 20,
    }
    return KafkaConsumer(bootstrap_servers=BOOTSTRAP, **settings | config)


def send(made_by, topic, messages):
    futures = [made_by.send(topic, **message) for message in messages]
    made_by.flush(LIMIT_S)
    found = [future.get(LIMIT_S) for future in futures]
    return [(one.partition, one.offset) for one in found]


def take(reader, count, limit_s=LIMIT_S):
    taken, deadline = [], time.monotonic() + limit_s
    while len(taken) < count:
        for messages in reader.poll(timeout_ms=500, max_records=count - len(taken)).values():
            taken += messages
        check(time.monotonic() < deadline, f"{len(taken)} of {count} records within {limit_s} s")
    return taken


def read(topic, count, partitions=(0,), offset=0, **config):
    reader = consumer(**config)
    assigned = [TopicPartition(topic, partition) for partition in partitions]
    reader.assign(assigned)
    for partition in assigned:
        reader.seek(partition, offset)
    try:
        return take(reader, count)
    finally:
        reader.close()


def fails(kind, call, what):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, but it succeeded")


def cluster():
    found = admin.describe_cluster()
    host, port = BOOTSTRAP.split(":")
    equal([(node["host"], node["port"]) for node in found["brokers"]], [(host, int(port))], "nodes")
    check(found["controller_id"] == found["brokers"][0]["broker_id"] and found["cluster_id"], "controller and cluster id")
    check(admin.api_versions(), "versions of APIs")


def topics():
    topic = create(name("topics"), 3)
    described = admin.describe_topics([topic])[0]
    found = sorted((p["partition_index"], len(p["replica_nodes"]), len(p["isr_nodes"])) for p in described["partitions"])
    equal(found, [(0, 1, 1), (1, 1, 1), (2, 1, 1)], "partitions")
    topic_id = uuid.UUID(str(described["topic_id"]))
    equal(admin.describe_topics([topic_id])[0]["name"], topic, "by topic id")
    paged = admin.describe_topic_partitions([topic], response_partition_limit=2)
    equal(len(paged["topics"][0]["partitions"]), 2, "a page of partitions")
    rest = admin.describe_topic_partitions([topic], cursor=paged["next_cursor"])
    equal([p["partition_index"] for p in rest["topics"][0]["partitions"]], [2], "the rest of the partitions")
    admin.create_partitions({topic: 5})
    until(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 5, "five partitions")
    admin.delete_topics([topic_id])
    until(lambda: topic not in admin.list_topics(), "the topic is gone")
    create(topic)
    check(admin.describe_topics([topic])[0]["topic_id"] != described["topic_id"], "created again, it has another id")


def topic_errors():
    topic, unknown = create(name("errors")), name("unknown")

    def creating(topic, partitions=1, replication=1, configs=None):
        options = {"num_partitions": partitions, "replication_factor": replication, "configs": configs or {}}
        return lambda: admin.create_topics({topic: options})

    fails(errors.TopicAlreadyExistsError, creating(topic), "duplicate topic")
    fails(errors.InvalidTopicError, creating("no spaces"), "invalid topic name")
    fails(errors.InvalidTopicError, creating("x" * 250), "topic name too long")
    fails(errors.InvalidPartitionsError, creating(name("none"), 0), "no partitions")
    fails(errors.InvalidReplicationFactorError, creating(name("many"), 1, 3), "more replicas than brokers")
    fails(errors.InvalidConfigurationError, creating(name("bad"), configs={"no.such.config": "1"}), "unknown config")
    fails(errors.InvalidConfigurationError, creating(name("bad"), configs={"retention.ms": "soon"}), "bad value of a config")
    fails(errors.InvalidPartitionsError, lambda: admin.create_partitions({topic: 1}), "as many partitions as there are")
    fails(errors.UnknownTopicOrPartitionError, lambda: admin.delete_topics([unknown]), "delete an unknown topic")
    fails(errors.UnknownTopicOrPartitionError, lambda: admin.create_partitions({unknown: 2}), "partitions of an unknown topic")
    fails(errors.UnknownTopicOrPartitionError, lambda: admin.list_partition_offsets({TopicPartition(topic, 7): 0}),
          "offsets of an unknown partition")


def validate_only():
    topic = name("validated")
    admin.create_topics([topic], validate_only=True)
    check(topic not in admin.list_topics(), "a validated topic is not created")


def auto_creation():
    topic = name("automatic")
    equal(admin.describe_topics([topic])[0]["error_code"], 3, "a topic nobody created")
    check(topic not in admin.list_topics(), "asking for a topic does not create it where that is not allowed")
    made_by = producer()
    until(lambda: attempt(lambda: send(made_by, topic, [{"value": b"made"}])), "a producer creates the topic")
    equal(read(topic, 1)[0].value, b"made", "it is there")


def described_configs(topic):
    found = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")
    return {key: value["value"] for key, value in found["topic"][topic].items()}


def configs():
    topic = create(name("configs"), retention_ms="3600000")
    equal(described_configs(topic)["retention.ms"], "3600000", "retention.ms")
    modified = admin.describe_configs([ConfigResource("TOPIC", topic)])["topic"][topic]
    equal(list(modified), ["retention.ms"], "what is not a default")

    def alter(incremental=True, **configs):
        names = {key.replace("_", "."): value for key, value in configs.items()}
        resource = ConfigResource("TOPIC", topic, configs=names)
        found = admin.alter_configs([resource], incremental=incremental, raise_on_unknown=False)["topic"][topic]
        if found != "OK":
            check("InvalidConfig" in str(found), f"the error is {found}")
            raise errors.InvalidConfigurationError(found)

    alter(segment_ms=("SET", "7200000"), retention_ms=("DELETE", None))
    until(lambda: described_configs(topic)["segment.ms"] == "7200000", "segment.ms set")
    equal(described_configs(topic)["retention.ms"], "604800000", "retention.ms is the default again")
    alter(incremental=False, max_message_bytes="2000000")
    until(lambda: described_configs(topic)["max.message.bytes"] == "2000000", "a legacy alteration")
    fails(errors.InvalidConfigurationError, lambda: alter(no_such_config=("SET", "1")), "unknown config")
    fails(errors.InvalidConfigurationError, lambda: alter(segment_ms=("SET", "x")), "bad value of a config")


def produce_codecs():
    topic, expected = create(name("codecs")), []
    for codec in CODECS:
        for acks in (0, 1, "all"):
            values = [b"%s %s %d " % (codec.encode(), str(acks).encode(), i) + b"x" * 200 for i in range(20)]
            compression = None if codec == "none" else codec
            made_by = producer(compression_type=compression, acks=acks, enable_idempotence=False)
            send(made_by, topic, [{"value": value} for value in values])
            made_by.close()
            expected += values
            # Without acknowledgement the next producer might overtake this one.
            equal([m.value for m in read(topic, len(expected))], expected, f"{codec}, acks={acks}")


def produce_idempotent():
    topic = create(name("idempotent"))
    values = [b"%d" % i for i in range(2000)]
    made_by = producer(enable_idempotence=True, linger_ms=0, batch_size=200)
    offsets = send(made_by, topic, [{"value": value, "partition": 0} for value in values])
    equal([offset for _, offset in offsets], list(range(2000)), "offsets")
    equal([m.value for m in read(topic, 2000)], values, "values in order")


def writes(codec, topic):
    fields = ("partition", "key", "value", "headers", "timestamp_ms")
    made_by = producer(compression_type=None if codec == "none" else codec, linger_ms=50)
    send(made_by, topic, [dict(zip(fields, record)) for record in records(topic)])
    made_by.close()


def expect_records(topic, what):
    expected, found = [[], [], []], [[], [], []]
    for partition, *rest in records(topic):
        expected[partition].append(tuple(rest))
    for m in read(topic, sum(map(len, expected)), range(3)):
        found[m.partition].append((m.key, m.value, list(m.headers), m.timestamp))
    equal(found, expected, what)


def record_fields():
    for codec in CODECS:
        topic = create(name("fields") + "-plain", 3)
        writes(codec, topic)
        expect_records(topic, codec)
    twice, headers = create(name("twice")), [("a", b"1"), ("b", b"2"), ("a", b"1")]
    send(producer(), twice, [{"value": b"v", "headers": headers}])
    equal(list(read(twice, 1)[0].headers), headers, "duplicate header keys")
    stamped = create(name("stamped"), message_timestamp_type="LogAppendTime")
    send(producer(), stamped, [{"value": b"v", "timestamp_ms": 1000}])
    message = read(stamped, 1)[0]
    check(message.timestamp_type == 1 and abs(message.timestamp - time.time() * 1000) < 60_000, "the log's time replaces it")


def positions():
    topic, start = create(name("positions")), 1_600_000_000_000
    made_by = producer()
    send(made_by, topic, [{"value": b"%d" % i, "timestamp_ms": start + i * 1000} for i in range(100)])
    reader, partition = consumer(), TopicPartition(topic, 0)
    equal((reader.beginning_offsets([partition])[partition], reader.end_offsets([partition])[partition]), (0, 100), "ends")
    found = [reader.offsets_for_times({partition: time})[partition] for time in (0, start + 50_000, start + 50_001, start + 1_000_000)]
    equal([one and (one.offset, one.timestamp) for one in found],
          [(0, start), (50, start + 50_000), (51, start + 51_000), None], "offsets by time")
    reader.assign([partition])
    reader.seek(partition, 42)
    equal(take(reader, 1)[0].value, b"42", "from an offset")
    reader.seek_to_beginning()
    equal(take(reader, 1)[0].value, b"0", "from the beginning")
    reader.seek_to_end()
    equal(reader.poll(timeout_ms=500), {}, "nothing at the end")
    send(made_by, topic, [{"value": b"later"}])
    equal(take(reader, 1)[0].value, b"later", "what comes after the end")
    reader.close()
    fails(errors.OffsetOutOfRangeError, lambda: read(topic, 1, offset=1000, auto_offset_reset="none"), "offset out of range")
    equal(read(topic, 1, offset=1000)[0].value, b"0", "reset to the earliest")


def list_offsets():
    topic = create(name("offsets"))
    send(producer(), topic, [{"value": b"v", "timestamp_ms": 5000 - i} for i in range(10)])
    partition = TopicPartition(topic, 0)
    specs = [OffsetSpec.EARLIEST, OffsetSpec.LATEST, OffsetSpec.MAX_TIMESTAMP, 4995]
    found = [admin.list_partition_offsets({partition: spec})[partition].offset for spec in specs]
    equal(found, [0, 10, 0, 0], "offsets")


def delete_records():
    topic = create(name("trimmed"))
    send(producer(), topic, [{"value": b"%d" % i} for i in range(50)])
    partition = TopicPartition(topic, 0)
    equal(admin.delete_records({partition: 30})[partition]["low_watermark"], 30, "low watermark")
    equal(read(topic, 1, offset=30)[0].offset, 30, "the first record")
    fails(errors.OffsetOutOfRangeError, lambda: admin.delete_records({partition: 1000}), "beyond the end")
    producers = admin.describe_producers([partition])
    check(producers, "producers of the partition")
    check(admin.describe_log_dirs(), "log dirs")


def large_messages():
    topic = create(name("large"), max_message_bytes="3000000")
    value = bytes(range(256)) * 4096
    large = producer(max_request_size=3_000_000)
    send(large, topic, [{"value": value}, {"value": value[:-1]}])
    equal([m.value == value for m in read(topic, 2)], [True, False], "messages of 1 MiB")
    # More than the fetch limits: the first batch comes whole all the same.
    found = read(topic, 2, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)
    equal([len(m.value) for m in found], [2**20, 2**20 - 1], "with small fetches")
    small = create(name("small"))
    fails(errors.MessageSizeTooLargeError, lambda: send(large, small, [{"value": value}]), "larger than max.message.bytes")


class Member(threading.Thread, ConsumerRebalanceListener):
    """A consumer of a group in a thread: commits what it took before it polls again."""

    def __init__(self, group, topic, delivered, **config):
        super().__init__(daemon=True)
        self.delivered, self.error, self.assigned, self.rebalances = delivered, None, set(), 0
        self.leaving, self.uncommitted = threading.Event(), False
        self.consumer = consumer(group, **config)
        self.consumer.subscribe([topic], listener=self)
        self.start()

    def on_partitions_assigned(self, assigned):
        self.rebalances += 1
        self.assigned |= {p.partition for p in assigned}

    def on_partitions_revoked(self, revoked):
        self.commit()
        self.assigned -= {p.partition for p in revoked}

    def run(self):
        try:
            # A commit that a rebalance refused is repeated first.
            while not self.leaving.is_set() or self.uncommitted:
                # A long poll: the client never takes over an assignment that arrives just as a poll times out.
                for messages in self.consumer.poll(timeout_ms=1000, max_records=50).values():
                    self.delivered += [int(message.value) for message in messages]
                    self.uncommitted = True
                self.commit()
                time.sleep(0.005)
        except Exception as error:
            self.error = error
        self.consumer.close()

    def commit(self):
        """Commits what was taken; once more later where a new generation is just being made."""
        try:
            if self.uncommitted:
                self.consumer.commit()
            self.uncommitted = False
        except (errors.RebalanceInProgressError, errors.IllegalGenerationError):
            pass

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
    sets = [set(member.assigned) for member in members]
    return all(sets) and sorted(sum(map(list, sets), [])) == list(range(partitions))


def joins_and_leaves(**config):
    topic, group, delivered, count = create(name("group"), 6), name("group"), [], 6000
    made_by = producer()

    def produce_slowly():
        for i in range(count):
            made_by.send(topic, b"%d" % i, partition=i % 6)
            if i % 20 == 19:
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
    joins_and_leaves(partition_assignment_strategy=(RangePartitionAssignor,))


def cooperative_group():
    joins_and_leaves(partition_assignment_strategy=(CooperativeStickyAssignor,))


def static_members():
    topic, group, delivered = create(name("static"), 6), name("static"), []

    def member(i):
        return Member(group, topic, delivered, group_instance_id=f"instance-{i}", session_timeout_ms=30000)

    members = [member(0), member(1)]
    until(lambda: covered(members), "two members share the partitions")
    before, rebalances = set(members[0].assigned), members[1].rebalances
    members[0].leave()
    members[0] = member(0)
    until(lambda: members[0].assigned, "the member is back")
    equal(members[0].assigned, before, "its partitions are the same")
    equal(members[1].rebalances, rebalances, "the other member saw no rebalance")
    for one in members:
        one.leave()
    equal(len(admin.describe_groups([group])[group]["members"]), 2, "static members stay when they are away")
    admin.remove_group_members(group, admin_members(group))
    equal(admin.describe_groups([group])[group]["members"], [], "an administrator removes them")


def admin_members(group):
    from kafka.admin import MemberToRemove
    members = admin.describe_groups([group])[group]["members"]
    return [MemberToRemove(group_instance_id=member["group_instance_id"]) for member in members]


def commits():
    topic, group = create(name("commits")), name("commits")
    partition = TopicPartition(topic, 0)
    send(producer(), topic, [{"value": b"%d" % i} for i in range(20)])
    first = consumer(group)
    first.subscribe([topic])
    taken = take(first, 7)
    first.commit({partition: OffsetAndMetadata(taken[-1].offset + 1, "half-way", -1)})
    first.close()
    second = consumer(group)
    equal((second.committed(partition), second.committed(partition, metadata=True).metadata), (7, "half-way"), "committed")
    if restart_node():
        stored = until(lambda: attempt(lambda: second.committed(partition)), "after the restart")
        equal(stored, 7, "committed before the restart")
    second.subscribe([topic])
    equal([int(m.value) for m in take(second, 13)], list(range(7, 20)), "resumed")
    second.close()
    never = consumer(name("never"))
    equal(never.committed(partition), None, "an unknown group has no offset")
    never.close()


def attempt(call):
    try:
        return call()
    except errors.KafkaError:
        return None


def group_admin():
    topic, group, delivered = create(name("admin"), 6), name("admin"), []
    send(producer(), topic, [{"value": b"1"}])
    member = Member(group, topic, delivered, client_id="the-client", partition_assignment_strategy=(RangePartitionAssignor,))
    until(lambda: covered([member]) and delivered, "one member takes a record")
    equal([g["group_state"] for g in admin.list_groups() if g["group_id"] == group], ["Stable"], "listed")
    equal([g["group_id"] for g in admin.list_groups(states_filter=["Empty"]) if g["group_id"] == group], [], "by state")
    described = admin.describe_groups([group])[group]
    equal((described["group_state"], described["protocol_data"], len(described["members"])), ("Stable", "range", 1), "described")
    equal(described["members"][0]["client_id"], "the-client", "client id")
    equal(admin.delete_groups([group]), {group: "NonEmptyGroupError"}, "delete a group in use")
    found = admin.delete_group_offsets(group, [TopicPartition(topic, 0)])
    check("GroupSubscribedToTopicError" in str(found), f"delete an offset of a topic that is consumed: {found}")
    member.leave()
    stored = {p.partition: o.offset for p, o in admin.list_group_offsets(group)[group].items() if o.offset > 0}
    equal(list(stored.values()), [1], "offsets of the group")
    partition = TopicPartition(topic, 5)
    admin.alter_group_offsets(group, {partition: OffsetAndMetadata(9, "", -1)})
    equal(admin.list_group_offsets(group)[group][partition].offset, 9, "altered")
    admin.delete_group_offsets(group, [partition])
    check(partition not in admin.list_group_offsets(group)[group], "the offset is deleted")
    equal(admin.delete_groups([group]), {group: "OK"}, "delete the group")
    check(group not in [g["group_id"] for g in admin.list_groups()], "the group is gone")
    equal(admin.delete_groups([group]), {group: "GroupIdNotFoundError"}, "delete it again")


def stale_commit():
    topic, group = create(name("stale")), name("stale")
    send(producer(), topic, [{"value": b"%d" % i} for i in range(10)])
    stale = consumer(group)
    stale.subscribe([topic])
    take(stale, 1)
    member = admin.describe_groups([group])[group]["members"][0]["member_id"]
    from kafka.admin import MemberToRemove
    admin.remove_group_members(group, [MemberToRemove(member_id=member)])
    partition = TopicPartition(topic, 0)
    fails(errors.CommitFailedError, lambda: stale.commit({partition: OffsetAndMetadata(3, "", -1)}),
          "a commit of a member that was removed")
    stale.close()


def many_topics():
    prefix = name("many")
    names = [f"{prefix}-{i}" for i in range(MANY_TOPICS)]
    admin.create_topics({one: {"num_partitions": 1, "replication_factor": 1} for one in names})
    mine = lambda: [one for one in admin.list_topics() if one.startswith(prefix)]
    until(lambda: len(mine()) == MANY_TOPICS, "all topics are told")
    some = names[:: max(1, MANY_TOPICS // 20)]
    made_by = producer()
    for one in some:
        send(made_by, one, [{"value": one.encode()}])
    reader = consumer()
    reader.assign([TopicPartition(one, 0) for one in names])
    equal(sorted(m.topic for m in take(reader, len(some))), sorted(some), "the records of some topics")
    reader.close()
    admin.delete_topics(names)
    until(lambda: not mine(), "all topics are gone")


def transactions():
    started = time.monotonic()
    made_by = producer(transactional_id=name("transaction"), max_block_ms=15_000, transaction_timeout_ms=5000)
    try:
        made_by.init_transactions()
    except errors.KafkaError as error:
        check(time.monotonic() - started < 30, f"refused late: {error}")
        return
    topic = create(name("transaction"))
    made_by.begin_transaction()
    made_by.send(topic, b"aborted")
    made_by.abort_transaction()
    made_by.begin_transaction()
    made_by.send(topic, b"committed")
    made_by.commit_transaction()
    equal(read(topic, 1, isolation_level="read_committed")[0].value, b"committed", "what was committed")


def write_matrix():
    for codec in CODECS:
        writes(codec, create(f"matrix-kafka-python-{codec}-plain", 3))


def read_matrix():
    for topic in matrix(admin.list_topics()):
        expect_records(topic, topic)


if __name__ == "__main__":
    main([
        cluster, topics, topic_errors, validate_only, auto_creation, configs, produce_codecs, produce_idempotent,
        record_fields, positions, list_offsets, delete_records, large_messages, group_of_three, cooperative_group,
        static_members, commits, group_admin, stale_commit, many_topics, transactions, write_matrix, read_matrix,
    ])
