import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What the scenarios ask of a broker, and how they say what they expected of it. */
final class Broker {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    static final int MANY_TOPICS = Integer.parseInt(System.getenv().getOrDefault("MANY_TOPICS", "1000"));
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final long LIMIT_S = 60;

    final Admin admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP));

    static String name(String what) {
        return what + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static void equal(Object found, Object expected, String what) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + ": expected " + shortened(expected) + ", found " + shortened(found));
        }
    }

    private static String shortened(Object value) {
        String text = String.valueOf(value);
        return text.length() < 600 ? text : text.substring(0, 600) + "...";
    }

    static void check(boolean truth, String what) {
        if (!truth) throw new AssertionError(what);
    }

    static void until(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_S);
        while (!condition.call()) {
            check(System.nanoTime() < deadline, what + ": not within " + LIMIT_S + " s");
            Thread.sleep(20);
        }
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(LIMIT_S, TimeUnit.SECONDS);
    }

    static void fails(Class<? extends Throwable> kind, Callable<?> call, String what) {
        try {
            call.call();
        } catch (Throwable thrown) {
            Throwable cause = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            check(kind.isInstance(cause), what + ": expected " + kind.getSimpleName() + ", found " + cause);
            return;
        }
        throw new AssertionError(what + ": expected " + kind.getSimpleName() + ", but it succeeded");
    }

    String create(String topic, int partitions, Map<String, String> configs) throws Exception {
        // Kept for ever unless told otherwise, for records have timestamps of long ago.
        Map<String, String> all = new HashMap<>(Map.of("retention.ms", "-1"));
        all.putAll(configs);
        get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(all))).all());
        // A broker may answer before it knows the topic itself.
        until(() -> admin.listTopics().names().get().contains(topic), topic + " appears");
        return topic;
    }

    String create(String topic, int partitions) throws Exception {
        return create(topic, partitions, Map.of());
    }

    private static Map<String, Object> settings(Object[] pairs, Map<String, Object> defaults) {
        Map<String, Object> settings = new HashMap<>(defaults);
        settings.put("bootstrap.servers", BOOTSTRAP);
        for (int i = 0; i < pairs.length; i += 2) settings.put((String) pairs[i], pairs[i + 1]);
        return settings;
    }

    static KafkaProducer<byte[], byte[]> producer(Object... pairs) {
        return new KafkaProducer<>(settings(pairs, Map.of()), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
        Map<String, Object> defaults = Map.of("enable.auto.commit", "false", "auto.offset.reset", "earliest",
            "fetch.max.wait.ms", "100", "session.timeout.ms", "6000", "heartbeat.interval.ms", "300");
        return new KafkaConsumer<>(settings(pairs, defaults), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<RecordMetadata> send(KafkaProducer<byte[], byte[]> producer, List<ProducerRecord<byte[], byte[]>> records)
            throws Exception {
        List<Future<RecordMetadata>> futures = records.stream().map(producer::send).collect(Collectors.toList());
        producer.flush();
        List<RecordMetadata> found = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) found.add(get(future));
        return found;
    }

    /** Sends the values to partition 0 with timestamps that grow by a second. */
    static List<RecordMetadata> send(String topic, List<byte[]> values, long start, Object... pairs) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(pairs)) {
            return send(producer, IntStream.range(0, values.size())
                .mapToObj(i -> new ProducerRecord<byte[], byte[]>(topic, 0, start + i * 1000L, null, values.get(i)))
                .collect(Collectors.toList()));
        }
    }

    static List<byte[]> numbers(int count) {
        return IntStream.range(0, count).mapToObj(i -> bytes(String.valueOf(i))).collect(Collectors.toList());
    }

    static List<ConsumerRecord<byte[], byte[]>> take(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> taken = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_S);
        while (taken.size() < count) {
            consumer.poll(Duration.ofMillis(200)).forEach(taken::add);
            check(System.nanoTime() < deadline, taken.size() + " of " + count + " records within " + LIMIT_S + " s");
        }
        return taken;
    }

    static List<ConsumerRecord<byte[], byte[]>> read(String topic, int count, int partitions, long offset, Object... pairs) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(pairs)) {
            Collection<TopicPartition> assigned =
                IntStream.range(0, partitions).mapToObj(p -> new TopicPartition(topic, p)).collect(Collectors.toList());
            consumer.assign(assigned);
            assigned.forEach(partition -> consumer.seek(partition, offset));
            return take(consumer, count);
        }
    }

    static List<String> values(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(record -> text(record.value())).collect(Collectors.toList());
    }

    /** The shared records; without those that some clients cannot write, if the topic's name says that it is plain. */
    static List<ProducerRecord<byte[], byte[]>> shared(String topic) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (JsonNode node : new ObjectMapper().readTree(new File(System.getenv("RECORDS")))) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode header : node.get("headers")) {
                headers.add(new RecordHeader(header.get(0).asText(), decode(header.get(1))));
            }
            boolean isPlain = headers.stream().map(Header::key).distinct().count() == headers.size()
                && headers.stream().allMatch(header -> header.value() != null);
            if (!topic.endsWith("plain") || isPlain) {
                records.add(new ProducerRecord<>(topic, node.get("partition").asInt(), node.get("timestamp").asLong(),
                    decode(node.get("key")), decode(node.get("value")), headers));
            }
        }
        return records;
    }

    private static byte[] decode(JsonNode node) {
        return node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    static void writeShared(String codec, String topic) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer("compression.type", codec, "linger.ms", "50")) {
            send(producer, shared(topic));
        }
    }

    static void expectShared(String topic) throws Exception {
        List<String> expected = shared(topic).stream()
            .map(r -> describe(r.partition(), r.timestamp(), r.key(), r.value(), r.headers())).collect(Collectors.toList());
        List<String> found = read(topic, expected.size(), 3, 0).stream()
            .map(r -> describe(r.partition(), r.timestamp(), r.key(), r.value(), r.headers())).collect(Collectors.toList());
        for (int partition = 0; partition < 3; partition++) {
            String prefix = partition + ":";
            equal(found.stream().filter(r -> r.startsWith(prefix)).collect(Collectors.toList()),
                expected.stream().filter(r -> r.startsWith(prefix)).collect(Collectors.toList()), topic);
        }
    }

    private static String describe(int partition, long timestamp, byte[] key, byte[] value, Iterable<Header> headers) {
        StringBuilder text = new StringBuilder(partition + ": " + timestamp);
        text.append(Arrays.toString(key)).append(Arrays.toString(value));
        headers.forEach(header -> text.append(header.key()).append(Arrays.toString(header.value())));
        return text.toString();
    }
}
