import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Scanner;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.record.TimestampType;

/** The scenarios with the Java client; the same program runs with every release of it. */
public final class Main {
    private static final Broker BROKER = new Broker();
    private static final Admin ADMIN = BROKER.admin;

    private interface Scenario {
        void run() throws Exception;
    }

    static void cluster() throws Exception {
        DescribeClusterResult found = ADMIN.describeCluster();
        Broker.equal(Broker.get(found.nodes()).stream().map(node -> node.host() + ":" + node.port()).collect(Collectors.toList()),
            List.of(Broker.BOOTSTRAP), "nodes");
        Broker.check(Broker.get(found.controller()) != null && !Broker.get(found.clusterId()).isEmpty(), "controller, cluster id");
        int node = Broker.get(found.nodes()).iterator().next().id();
        Broker.equal(Broker.get(ADMIN.describeLogDirs(List.of(node)).allDescriptions()).get(node).size(), 1, "log dirs");
        Broker.check(!Broker.get(ADMIN.describeFeatures().featureMetadata()).supportedFeatures().containsKey("no.such"), "features");
    }

    static void topics() throws Exception {
        String topic = BROKER.create(Broker.name("topics"), 3);
        TopicDescription described = Broker.get(ADMIN.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        Broker.equal(described.partitions().stream().map(p -> p.partition() + "/" + p.replicas().size() + "/" + p.isr().size())
            .collect(Collectors.toList()), List.of("0/1/1", "1/1/1", "2/1/1"), "partitions");
        TopicCollection byId = TopicCollection.ofTopicIds(List.of(described.topicId()));
        Broker.equal(Broker.get(ADMIN.describeTopics(byId).allTopicIds()).get(described.topicId()).name(), topic, "by topic id");
        Broker.get(ADMIN.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all());
        Broker.until(() -> ADMIN.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5, "five");
        Broker.get(ADMIN.deleteTopics(byId).all());
        Broker.until(() -> !ADMIN.listTopics().names().get().contains(topic), "the topic is gone");
        BROKER.create(topic, 1);
        TopicDescription again = Broker.get(ADMIN.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        Broker.check(!again.topicId().equals(described.topicId()), "a topic created again has another id");
    }

    static void topicErrors() throws Exception {
        String topic = BROKER.create(Broker.name("errors"), 1);
        String unknown = Broker.name("unknown");
        creating(TopicExistsException.class, topic, 1, 1, Map.of(), "duplicate topic");
        creating(InvalidTopicException.class, "no spaces", 1, 1, Map.of(), "invalid topic name");
        creating(InvalidTopicException.class, "x".repeat(250), 1, 1, Map.of(), "topic name too long");
        creating(InvalidPartitionsException.class, Broker.name("none"), 0, 1, Map.of(), "no partitions");
        creating(InvalidReplicationFactorException.class, Broker.name("many"), 1, 3, Map.of(), "more replicas than brokers");
        creating(InvalidConfigurationException.class, Broker.name("bad"), 1, 1, Map.of("no.such.config", "1"), "unknown config");
        creating(InvalidConfigurationException.class, Broker.name("bad"), 1, 1, Map.of("retention.ms", "soon"), "bad value");
        Broker.fails(InvalidPartitionsException.class,
            () -> Broker.get(ADMIN.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all()), "as many as there are");
        Broker.fails(UnknownTopicOrPartitionException.class,
            () -> Broker.get(ADMIN.deleteTopics(List.of(unknown)).all()), "delete an unknown topic");
        Broker.fails(UnknownTopicOrPartitionException.class,
            () -> Broker.get(ADMIN.describeTopics(List.of(unknown)).allTopicNames()), "describe an unknown topic");
        Broker.fails(UnknownTopicOrPartitionException.class,
            () -> Broker.get(ADMIN.createPartitions(Map.of(unknown, NewPartitions.increaseTo(2))).all()), "grow an unknown topic");
    }

    private static void creating(Class<? extends Throwable> kind, String topic, int partitions, int replicas,
            Map<String, String> configs, String what) {
        NewTopic wanted = new NewTopic(topic, partitions, (short) replicas).configs(configs);
        Broker.fails(kind, () -> Broker.get(ADMIN.createTopics(List.of(wanted)).all()), what);
    }

    static void validateOnly() throws Exception {
        String topic = Broker.name("validated");
        Broker.get(ADMIN.createTopics(List.of(new NewTopic(topic, Optional.empty(), Optional.empty())),
            new CreateTopicsOptions().validateOnly(true)).all());
        Broker.check(!Broker.get(ADMIN.listTopics().names()).contains(topic), "a validated topic is not created");
    }

    static void autoCreation() throws Exception {
        String topic = Broker.name("automatic");
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("allow.auto.create.topics", "false")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            Broker.check(consumer.poll(Duration.ofMillis(500)).isEmpty(), "nothing comes from a topic that nobody created");
        }
        Broker.check(!Broker.get(ADMIN.listTopics().names()).contains(topic), "not created where the consumer doesn't allow it");
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Broker.send(producer, List.of(new ProducerRecord<>(topic, Broker.bytes("made"))));
        }
        Broker.equal(Broker.values(Broker.read(topic, 1, 1, 0)), List.of("made"), "a producer creates the topic");
    }

    static void configs() throws Exception {
        String topic = BROKER.create(Broker.name("configs"), 1, Map.of("retention.ms", "3600000"));
        Broker.equal(described(topic).get("retention.ms").value(), "3600000", "retention.ms");
        Broker.equal(described(topic).get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "its source");
        Broker.check(described(topic).get("segment.bytes").isDefault(), "segment.bytes is a default");
        alter(topic, "segment.ms", "7200000", AlterConfigOp.OpType.SET);
        alter(topic, "retention.ms", null, AlterConfigOp.OpType.DELETE);
        Broker.until(() -> described(topic).get("segment.ms").value().equals("7200000"), "segment.ms is set");
        Broker.until(() -> described(topic).get("retention.ms").value().equals("604800000"), "retention.ms is the default again");
        Broker.fails(InvalidConfigurationException.class, () -> alter(topic, "no.such", "1", AlterConfigOp.OpType.SET), "unknown");
        Broker.fails(InvalidConfigurationException.class, () -> alter(topic, "segment.ms", "x", AlterConfigOp.OpType.SET), "value");
        int node = Broker.get(ADMIN.describeCluster().nodes()).iterator().next().id();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node));
        Broker.check(!Broker.get(ADMIN.describeConfigs(List.of(broker)).all()).get(broker).entries().isEmpty(), "broker configs");
    }

    private static Config described(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return Broker.get(ADMIN.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private static Void alter(String topic, String name, String value, AlterConfigOp.OpType how) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp operation = new AlterConfigOp(new ConfigEntry(name, value), how);
        return Broker.get(ADMIN.incrementalAlterConfigs(Map.of(resource, List.of(operation))).all());
    }

    static void produceCodecs() throws Exception {
        String topic = BROKER.create(Broker.name("codecs"), 1);
        List<String> expected = new ArrayList<>();
        for (String codec : Broker.CODECS) {
            for (String acks : List.of("0", "1", "all")) {
                List<String> values = IntStream.range(0, 20).mapToObj(i -> codec + acks + i + "x".repeat(200)).collect(Collectors.toList());
                Broker.send(topic, values.stream().map(Broker::bytes).collect(Collectors.toList()), 0,
                    "compression.type", codec, "acks", acks, "enable.idempotence", "false");
                expected.addAll(values);
                // Without acknowledgement the next producer might overtake this one.
                Broker.equal(Broker.values(Broker.read(topic, expected.size(), 1, 0)), expected, codec + ", acks=" + acks);
            }
        }
    }

    static void produceIdempotent() throws Exception {
        String topic = BROKER.create(Broker.name("idempotent"), 1);
        List<RecordMetadata> found = Broker.send(topic, Broker.numbers(2000), 0, "enable.idempotence", "true", "batch.size", "200");
        Broker.equal(found.stream().map(RecordMetadata::offset).collect(Collectors.toList()),
            IntStream.range(0, 2000).mapToObj(Long::valueOf).collect(Collectors.toList()), "offsets");
        Broker.equal(Broker.values(Broker.read(topic, 2000, 1, 0)),
            IntStream.range(0, 2000).mapToObj(String::valueOf).collect(Collectors.toList()), "values in order");
        TopicPartition partition = new TopicPartition(topic, 0);
        Broker.equal(Broker.get(ADMIN.describeProducers(List.of(partition)).all()).get(partition).activeProducers().stream()
            .map(producer -> producer.lastSequence()).collect(Collectors.toList()), List.of(1999), "last sequence of the producer");
    }

    static void recordFields() throws Exception {
        for (String codec : Broker.CODECS) {
            String topic = BROKER.create(Broker.name("fields"), 3);
            Broker.writeShared(codec, topic);
            Broker.expectShared(topic);
        }
        String neither = BROKER.create(Broker.name("neither"), 1);
        Broker.send(neither, Arrays.asList((byte[]) null), 0);
        ConsumerRecord<byte[], byte[]> empty = Broker.read(neither, 1, 1, 0).get(0);
        Broker.check(empty.key() == null && empty.value() == null, "neither key nor value");
        String stamped = BROKER.create(Broker.name("stamped"), 1, Map.of("message.timestamp.type", "LogAppendTime"));
        Broker.send(stamped, Broker.numbers(1), 1000);
        ConsumerRecord<byte[], byte[]> found = Broker.read(stamped, 1, 1, 0).get(0);
        Broker.equal(found.timestampType(), TimestampType.LOG_APPEND_TIME, "type of timestamp");
        Broker.check(Math.abs(found.timestamp() - System.currentTimeMillis()) < 60_000, "the log's time replaces the producer's");
    }

    static void positions() throws Exception {
        String topic = BROKER.create(Broker.name("positions"), 1);
        long start = 1_600_000_000_000L;
        Broker.send(topic, Broker.numbers(100), start);
        TopicPartition partition = new TopicPartition(topic, 0);
        List<TopicPartition> all = List.of(partition);
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer("max.poll.records", 1)) {
            Broker.equal(List.of(consumer.beginningOffsets(all).get(partition), consumer.endOffsets(all).get(partition)),
                List.of(0L, 100L), "ends");
            List<Long> found = new ArrayList<>();
            for (long time : new long[] {0, start + 50_000, start + 50_001, start + 1_000_000}) {
                OffsetAndTimestamp one = consumer.offsetsForTimes(Map.of(partition, time)).get(partition);
                found.add(one == null ? null : one.offset());
            }
            Broker.equal(found, Arrays.asList(0L, 50L, 51L, null), "offsets by time");
            consumer.assign(all);
            consumer.seek(partition, 42);
            Broker.equal(Broker.values(Broker.take(consumer, 1)), List.of("42"), "from an offset");
            consumer.seekToBeginning(all);
            Broker.equal(Broker.values(Broker.take(consumer, 1)), List.of("0"), "from the beginning");
            consumer.seekToEnd(all);
            Broker.check(consumer.poll(Duration.ofMillis(500)).isEmpty(), "nothing at the end");
            Broker.send(topic, List.of(Broker.bytes("later")), start);
            Broker.equal(Broker.values(Broker.take(consumer, 1)), List.of("later"), "what comes after the end");
        }
        Broker.fails(OffsetOutOfRangeException.class, () -> Broker.read(topic, 1, 1, 1000, "auto.offset.reset", "none"), "range");
        Broker.equal(Broker.text(Broker.read(topic, 1, 1, 1000).get(0).value()), "0", "reset to the earliest");
    }

    static void listOffsets() throws Exception {
        String topic = BROKER.create(Broker.name("offsets"), 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        Broker.equal(offset(partition, OffsetSpec.maxTimestamp()), -1L, "no largest timestamp in an empty partition");
        Broker.send(topic, Broker.numbers(10), 5000);
        Broker.send(topic, Broker.numbers(1), 5000);
        Broker.equal(offset(partition, OffsetSpec.earliest()), 0L, "earliest");
        Broker.equal(offset(partition, OffsetSpec.latest()), 11L, "latest");
        Broker.equal(offset(partition, OffsetSpec.maxTimestamp()), 9L, "of the largest timestamp");
        Broker.equal(offset(partition, OffsetSpec.forTimestamp(7001)), 3L, "by time");
        Broker.equal(offset(partition, OffsetSpec.forTimestamp(99_000)), -1L, "by a time to come");
    }

    private static long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return Broker.get(ADMIN.listOffsets(Map.of(partition, spec)).all()).get(partition).offset();
    }

    static void deleteRecords() throws Exception {
        String topic = BROKER.create(Broker.name("trimmed"), 1);
        Broker.send(topic, Broker.numbers(50), 0);
        TopicPartition partition = new TopicPartition(topic, 0);
        Broker.equal(Broker.get(ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(30))).lowWatermarks()
            .get(partition)).lowWatermark(), 30L, "low watermark");
        Broker.equal(Broker.read(topic, 1, 1, 0).get(0).offset(), 30L, "the first record");
        Broker.fails(org.apache.kafka.common.errors.OffsetOutOfRangeException.class,
            () -> Broker.get(ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(1000))).all()), "beyond the end");
    }

    static void largeMessages() throws Exception {
        String topic = BROKER.create(Broker.name("large"), 1, Map.of("max.message.bytes", "3000000"));
        byte[] value = new byte[1 << 20];
        for (int i = 0; i < value.length; i++) value[i] = (byte) (i * 31);
        Broker.send(topic, List.of(value, value), 0, "max.request.size", "3000000");
        for (ConsumerRecord<byte[], byte[]> record : Broker.read(topic, 2, 1, 0)) {
            Broker.check(Arrays.equals(record.value(), value), "a message of 1 MiB");
        }
        // More than the fetch limits: the first batch comes whole all the same.
        Broker.equal(Broker.read(topic, 2, 1, 0, "max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000).size(), 2, "small fetches");
        String small = BROKER.create(Broker.name("small"), 1);
        Broker.fails(RecordTooLargeException.class,
            () -> Broker.send(small, List.of(value), 0, "max.request.size", "3000000"), "larger than max.message.bytes");
    }

    static void groupOfThree() throws Exception {
        Group.joinsAndLeaves(BROKER, "RangeAssignor");
    }

    static void cooperativeGroup() throws Exception {
        Group.joinsAndLeaves(BROKER, "CooperativeStickyAssignor");
    }

    static void staticMembers() throws Exception {
        Group group = new Group(BROKER.create(Broker.name("static"), 6), Broker.name("static"));
        group.join("group.instance.id", "instance-0", "session.timeout.ms", "30000");
        group.join("group.instance.id", "instance-1", "session.timeout.ms", "30000");
        group.awaitCovered(6, "two members share the partitions");
        Set<Integer> before = new TreeSet<>(group.members.get(0).assigned);
        int rebalances = group.members.get(1).rebalances;
        group.members.remove(0).leave();
        Group.Member back = group.join("group.instance.id", "instance-0", "session.timeout.ms", "30000");
        group.awaitCovered(6, "the member is back");
        Broker.equal(new TreeSet<>(back.assigned), before, "its partitions are the same");
        Group.Member other = group.members.get(0);
        Broker.equal(other.rebalances, rebalances, "the other member saw no rebalance");
        Group.Member usurper = group.join("group.instance.id", "instance-1", "session.timeout.ms", "30000");
        Broker.until(() -> other.error != null, "the old holder of the id is fenced");
        Broker.check(other.error instanceof FencedInstanceIdException, "the fenced member's error: " + other.error);
        usurper.leave();
        back.leave();
        Broker.equal(Broker.get(ADMIN.describeConsumerGroups(List.of(group.id)).all()).get(group.id).members().size(), 2, "they stay");
        Broker.get(ADMIN.removeMembersFromConsumerGroup(group.id, new RemoveMembersFromConsumerGroupOptions(
            List.of(new MemberToRemove("instance-0"), new MemberToRemove("instance-1")))).all());
        Broker.equal(Broker.get(ADMIN.describeConsumerGroups(List.of(group.id)).all()).get(group.id).members().size(), 0, "removed");
    }

    static void commits() throws Exception {
        String topic = BROKER.create(Broker.name("commits"), 1);
        String group = Broker.name("commits");
        TopicPartition partition = new TopicPartition(topic, 0);
        Broker.send(topic, Broker.numbers(20), 0);
        try (KafkaConsumer<byte[], byte[]> first = Broker.consumer("group.id", group, "max.poll.records", 7)) {
            first.subscribe(List.of(topic));
            Broker.take(first, 7);
            first.commitSync(Map.of(partition, new OffsetAndMetadata(7, "half-way")));
        }
        try (KafkaConsumer<byte[], byte[]> second = Broker.consumer("group.id", group, "max.poll.records", 3)) {
            Broker.equal(second.committed(Set.of(partition)).get(partition), new OffsetAndMetadata(7, "half-way"), "committed");
            second.subscribe(List.of(topic));
            Broker.equal(Broker.values(Broker.take(second, 3)), List.of("7", "8", "9"), "resumed");
            second.commitSync();
            System.out.println("RESTART?");
            Scanner answers = new Scanner(System.in);
            if (answers.hasNextLine() && answers.nextLine().equals("restarted")) {
                Broker.equal(second.committed(Set.of(partition)).get(partition).offset(), 10L, "committed before the restart");
            }
            Broker.equal(Broker.values(Broker.take(second, 10)), List.of("10", "11", "12", "13", "14", "15", "16", "17", "18", "19"), "on");
            second.commitSync();
        }
        try (KafkaConsumer<byte[], byte[]> never = Broker.consumer("group.id", Broker.name("never"))) {
            Broker.equal(never.committed(Set.of(partition)).get(partition), null, "an unknown group has no offset");
        }
    }

    static void groupAdmin() throws Exception {
        Group group = new Group(BROKER.create(Broker.name("admin"), 6), Broker.name("admin"));
        Broker.send(group.topic, Broker.numbers(1), 0);
        Group.Member member = group.join("client.id", "the-client", "partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.RangeAssignor");
        Broker.until(() -> !group.delivered.isEmpty(), "one member takes a record");
        group.awaitCovered(6, "one member has all partitions");
        Broker.check(Broker.get(ADMIN.listConsumerGroups().all()).stream().anyMatch(one -> one.groupId().equals(group.id)), "listed");
        ConsumerGroupDescription found = Broker.get(ADMIN.describeConsumerGroups(List.of(group.id)).all()).get(group.id);
        Broker.equal(List.of(found.state().toString(), found.partitionAssignor(), found.members().size()), List.of("Stable", "range", 1), "described");
        Broker.equal(found.members().iterator().next().clientId(), "the-client", "client id");
        Broker.equal(found.members().iterator().next().assignment().topicPartitions().size(), 6, "assignment");
        Broker.fails(GroupNotEmptyException.class, () -> Broker.get(ADMIN.deleteConsumerGroups(List.of(group.id)).all()), "in use");
        TopicPartition partition = new TopicPartition(group.topic, 0);
        Broker.fails(GroupSubscribedToTopicException.class,
            () -> Broker.get(ADMIN.deleteConsumerGroupOffsets(group.id, Set.of(partition)).all()), "delete an offset in use");
        member.leave();
        Broker.equal(offsets(group.id).get(partition).offset(), 1L, "offsets of the group");
        Broker.get(ADMIN.alterConsumerGroupOffsets(group.id, Map.of(partition, new OffsetAndMetadata(9))).all());
        Broker.equal(offsets(group.id).get(partition).offset(), 9L, "altered");
        Broker.get(ADMIN.deleteConsumerGroupOffsets(group.id, Set.of(partition)).all());
        Broker.check(!offsets(group.id).containsKey(partition), "the offset is deleted");
        Broker.get(ADMIN.deleteConsumerGroups(List.of(group.id)).all());
        Broker.fails(GroupIdNotFoundException.class, () -> Broker.get(ADMIN.deleteConsumerGroups(List.of(group.id)).all()), "again");
    }

    private static Map<TopicPartition, OffsetAndMetadata> offsets(String group) throws Exception {
        return Broker.get(ADMIN.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    static void staleCommit() throws Exception {
        String topic = BROKER.create(Broker.name("stale"), 1);
        String group = Broker.name("stale");
        Broker.send(topic, Broker.numbers(10), 0);
        try (KafkaConsumer<byte[], byte[]> stale = Broker.consumer("group.id", group)) {
            stale.subscribe(List.of(topic));
            Broker.take(stale, 1);
            Broker.get(ADMIN.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all());
            Broker.fails(CommitFailedException.class, () -> {
                stale.commitSync();
                return null;
            }, "a commit of a member that was removed");
        }
    }

    static void manyTopics() throws Exception {
        String prefix = Broker.name("many");
        List<String> names = IntStream.range(0, Broker.MANY_TOPICS).mapToObj(i -> prefix + "-" + i).collect(Collectors.toList());
        Broker.get(ADMIN.createTopics(names.stream().map(one -> new NewTopic(one, 1, (short) 1)).collect(Collectors.toList())).all());
        Broker.until(() -> ADMIN.listTopics().names().get().stream().filter(one -> one.startsWith(prefix)).count() == names.size(), "told");
        Broker.equal(Broker.get(ADMIN.describeTopics(names).allTopicNames()).size(), names.size(), "described");
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
            Broker.send(producer, names.stream().map(one -> new ProducerRecord<>(one, (byte[]) null, Broker.bytes(one))).collect(Collectors.toList()));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = Broker.consumer()) {
            consumer.assign(names.stream().map(one -> new TopicPartition(one, 0)).collect(Collectors.toList()));
            Broker.equal(new TreeSet<>(Broker.values(Broker.take(consumer, names.size()))), new TreeSet<>(names), "a record of each");
        }
        Broker.get(ADMIN.deleteTopics(names).all());
        Broker.until(() -> ADMIN.listTopics().names().get().stream().noneMatch(one -> one.startsWith(prefix)), "all are gone");
    }

    static void transactions() throws Exception {
        long started = System.nanoTime();
        String topic = BROKER.create(Broker.name("transaction"), 1);
        try (KafkaProducer<byte[], byte[]> producer = Broker.producer("transactional.id", Broker.name("transaction"),
                "transaction.timeout.ms", "5000", "max.block.ms", "15000")) {
            try {
                producer.initTransactions();
            } catch (KafkaException refused) {
                Broker.check(System.nanoTime() - started < 30_000_000_000L, "refused late: " + refused);
                return;
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, Broker.bytes("aborted")));
            producer.flush();
            producer.abortTransaction();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, Broker.bytes("committed")));
            producer.commitTransaction();
        }
        Broker.equal(Broker.values(Broker.read(topic, 1, 1, 0, "isolation.level", "read_committed")), List.of("committed"), "committed");
    }

    static void writeMatrix() throws Exception {
        for (String codec : Broker.CODECS) {
            Broker.writeShared(codec, BROKER.create("matrix-" + System.getenv("CLIENT") + "-" + codec, 3));
        }
    }

    static void readMatrix() throws Exception {
        List<String> topics = Broker.get(ADMIN.listTopics().names()).stream().filter(topic -> topic.startsWith("matrix-"))
            .collect(Collectors.toList());
        int written = Integer.parseInt(System.getenv().getOrDefault("MATRIX_TOPICS", "1"));
        Broker.check(topics.size() >= written, written + " topics of the matrix, found " + topics);
        for (String topic : topics) Broker.expectShared(topic);
    }

    private static Map<String, Scenario> scenarios() {
        Map<String, Scenario> all = new LinkedHashMap<>();
        all.put("cluster", Main::cluster);
        all.put("topics", Main::topics);
        all.put("topic_errors", Main::topicErrors);
        all.put("validate_only", Main::validateOnly);
        all.put("auto_creation", Main::autoCreation);
        all.put("configs", Main::configs);
        all.put("produce_codecs", Main::produceCodecs);
        all.put("produce_idempotent", Main::produceIdempotent);
        all.put("record_fields", Main::recordFields);
        all.put("positions", Main::positions);
        all.put("list_offsets", Main::listOffsets);
        all.put("delete_records", Main::deleteRecords);
        all.put("large_messages", Main::largeMessages);
        all.put("group_of_three", Main::groupOfThree);
        all.put("cooperative_group", Main::cooperativeGroup);
        all.put("static_members", Main::staticMembers);
        all.put("commits", Main::commits);
        all.put("group_admin", Main::groupAdmin);
        all.put("stale_commit", Main::staleCommit);
        all.put("many_topics", Main::manyTopics);
        all.put("transactions", Main::transactions);
        all.put("write_matrix", Main::writeMatrix);
        all.put("read_matrix", Main::readMatrix);
        return all;
    }

    public static void main(String[] arguments) {
        Map<String, Scenario> all = scenarios();
        List<String> chosen = arguments.length > 0 ? List.of(arguments)
            : all.keySet().stream().filter(name -> !name.endsWith("_matrix")).collect(Collectors.toList());
        int failed = 0;
        for (String name : chosen) {
            long started = System.nanoTime();
            try {
                all.get(name).run();
                System.out.printf("PASS %s (%.1f s)%n", name, (System.nanoTime() - started) / 1e9);
            } catch (Throwable thrown) {
                failed++;
                System.out.println("FAIL " + name + ": " + thrown);
                thrown.printStackTrace(System.out);
            }
        }
        System.out.flush();
        Runtime.getRuntime().halt(failed > 0 ? 1 : 0); // threads of a client that failed may hang
    }
}
