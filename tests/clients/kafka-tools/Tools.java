import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.common.utils.Exit;

/** The scenarios with Kafka's own command-line tools, all in one virtual machine. */
public final class Tools {
    private static final String TOOLS = "org.apache.kafka.tools.";
    private static final PrintStream REPORT = System.out;

    private interface Scenario {
        void run() throws Exception;
    }

    /** What a tool's exit throws in place of ending the virtual machine. */
    private static final class Ended extends RuntimeException {}

    /** The first code that a tool wanted to exit with: some catch what is thrown then, and want to exit once more. */
    private static Integer exitCode;

    private static void exit(int code) {
        if (exitCode == null) exitCode = code;
        throw new Ended();
    }

    /** Runs a tool; returns what it printed. Asserts that it succeeds, or fails, as expected. */
    private static String tool(boolean succeeds, String stdin, String main, Object... arguments) throws Exception {
        InputStream in = System.in;
        PrintStream err = System.err;
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        exitCode = null;
        try (PrintStream out = new PrintStream(printed, true, StandardCharsets.UTF_8)) {
            System.setIn(new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)));
            System.setOut(out);
            System.setErr(out);
            String[] all = Arrays.stream(arguments).map(String::valueOf).toArray(String[]::new);
            java.lang.reflect.Method method = Class.forName(main).getMethod("main", String[].class);
            // What is written in Scala prints to the stream that Scala's console has.
            scala.Console.withOut(out, () -> invoke(method, all));
        } catch (Ended ended) {
            // Its code is known.
        } finally {
            System.setIn(in);
            System.setOut(REPORT);
            System.setErr(err);
        }
        String text = printed.toString(StandardCharsets.UTF_8);
        Broker.equal(exitCode == null || exitCode == 0, succeeds, main + " " + Arrays.toString(arguments) + " succeeds: " + text);
        return text;
    }

    private static Object invoke(java.lang.reflect.Method main, String[] arguments) {
        try {
            return main.invoke(null, (Object) arguments);
        } catch (java.lang.reflect.InvocationTargetException thrown) {
            if (thrown.getCause() instanceof Ended) throw (Ended) thrown.getCause();
            throw new AssertionError(main.toString(), thrown.getCause());
        } catch (IllegalAccessException impossible) {
            throw new AssertionError(impossible);
        }
    }

    private static String ok(String main, Object... arguments) throws Exception {
        return tool(true, "", TOOLS + main, arguments);
    }

    private static String fails(String main, Object... arguments) throws Exception {
        return tool(false, "", TOOLS + main, arguments);
    }

    private static void contains(String text, String... expected) {
        for (String one : expected) Broker.check(text.contains(one), "no `" + one + "` in: " + text);
    }

    private static String create(String topic, int partitions, String... configs) throws Exception {
        List<Object> arguments = new ArrayList<>(List.of("--bootstrap-server", Broker.BOOTSTRAP, "--create", "--topic", topic,
            "--partitions", partitions));
        for (String config : configs) arguments.addAll(List.of("--config", config));
        contains(ok("TopicCommand", arguments.toArray()), "Created topic " + topic);
        Broker.until(() -> list().contains(topic), topic + " is listed");
        return topic;
    }

    private static String list() throws Exception {
        return ok("TopicCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--list");
    }

    private static String describe(String topic) throws Exception {
        return ok("TopicCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--describe", "--topic", topic);
    }

    private static void produce(String topic, String lines, String... properties) throws Exception {
        List<Object> arguments = new ArrayList<>(List.of("--bootstrap-server", Broker.BOOTSTRAP, "--topic", topic));
        for (String property : properties) arguments.addAll(List.of("--property", property));
        tool(true, lines, TOOLS + "ConsoleProducer", arguments.toArray());
    }

    /** The console's producer may return before what it sent has arrived. */
    private static void awaitEnd(String topic, int offset) throws Exception {
        Broker.until(() -> ok("GetOffsetShell", "--bootstrap-server", Broker.BOOTSTRAP, "--topic", topic)
            .contains(topic + ":0:" + offset), topic + " ends at " + offset);
    }

    private static List<String> consume(String topic, int count, Object... more) throws Exception {
        List<Object> arguments = new ArrayList<>(List.of("--bootstrap-server", Broker.BOOTSTRAP, "--topic", topic,
            "--max-messages", count, "--timeout-ms", 30_000));
        arguments.addAll(List.of(more));
        String printed = ok("consumer.ConsoleConsumer", arguments.toArray());
        return printed.lines().filter(line -> !line.startsWith("Processed a total")).collect(Collectors.toList());
    }

    private static String lines(int from, int to) {
        return IntStream.range(from, to).mapToObj(i -> i + "\n").collect(Collectors.joining());
    }

    static void apiVersions() throws Exception {
        String printed = ok("BrokerApiVersionsCommand", "--bootstrap-server", Broker.BOOTSTRAP);
        contains(printed, "Produce(0): 0 to ", "Fetch(1): ", "ApiVersions(18): ");
    }

    static void topics() throws Exception {
        String topic = create(Broker.name("tools"), 3, "retention.ms=3600000");
        contains(describe(topic), "PartitionCount: 3", "retention.ms=3600000", "Partition: 2");
        ok("TopicCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--alter", "--topic", topic, "--partitions", 5);
        Broker.until(() -> describe(topic).contains("PartitionCount: 5"), "five partitions");
        contains(fails("TopicCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--create", "--topic", topic), "exist");
        ok("TopicCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--delete", "--topic", topic);
        Broker.until(() -> !list().contains(topic), "the topic is gone");
    }

    static void configs() throws Exception {
        String topic = create(Broker.name("configured"), 1);
        Object[] alter = {"--bootstrap-server", Broker.BOOTSTRAP, "--entity-type", "topics", "--entity-name", topic, "--alter",
            "--add-config", "retention.ms=7200000"};
        tool(true, "", "kafka.admin.ConfigCommand", alter);
        Broker.until(() -> describe(topic).contains("retention.ms=7200000"), "the config is set");
        contains(tool(true, "", "kafka.admin.ConfigCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--entity-type", "topics",
            "--entity-name", topic, "--describe"), "retention.ms=7200000");
        alter[alter.length - 1] = "no.such.config=1";
        tool(false, "", "kafka.admin.ConfigCommand", alter);
    }

    static void console() throws Exception {
        String topic = create(Broker.name("console"), 1);
        produce(topic, lines(0, 100));
        Broker.equal(consume(topic, 100, "--from-beginning"), lines(0, 100).lines().collect(Collectors.toList()), "lines");
        Broker.equal(consume(topic, 3, "--partition", 0, "--offset", 42), List.of("42", "43", "44"), "from an offset");
        String keyed = create(Broker.name("keyed"), 1);
        produce(keyed, "a:1,b:2\tkey\tvalue\n", "parse.key=true", "parse.headers=true");
        Broker.equal(consume(keyed, 1, "--from-beginning", "--property", "print.key=true", "--property", "print.headers=true"),
            List.of("a:1,b:2\tkey\tvalue"), "headers, key and value");
    }

    static void groups() throws Exception {
        String topic = create(Broker.name("grouped"), 1);
        String group = Broker.name("readers");
        String command = "consumer.group.ConsumerGroupCommand";
        produce(topic, lines(0, 10));
        Broker.equal(consume(topic, 4, "--group", group, "--from-beginning").size(), 4, "lines of the group");
        contains(ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--list"), group);
        String described = ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--describe", "--group", group);
        Broker.check(described.lines().anyMatch(line -> line.matches(group + "\\s+" + topic + "\\s+0\\s+4\\s+10\\s+6\\s.*")), described);
        contains(ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--describe", "--group", group, "--state"), "Empty");
        ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--group", group, "--reset-offsets", "--to-offset", 7, "--topic", topic,
            "--execute");
        Broker.equal(consume(topic, 3, "--group", group), List.of("7", "8", "9"), "after the reset");
        contains(ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--delete-offsets", "--group", group, "--topic", topic), "Successful");
        ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--delete", "--group", group);
        Broker.check(!ok(command, "--bootstrap-server", Broker.BOOTSTRAP, "--list").contains(group), "the group is gone");
    }

    static void offsets() throws Exception {
        String topic = create(Broker.name("offsets"), 1);
        produce(topic, lines(0, 50));
        awaitEnd(topic, 50);
        Path file = Files.createTempFile("delete", ".json");
        Files.writeString(file, "{\"version\": 1, \"partitions\": [{\"topic\": \"" + topic + "\", \"partition\": 0, \"offset\": 20}]}");
        contains(ok("DeleteRecordsCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--offset-json-file", file), "low_watermark: 20");
        Files.delete(file);
        contains(ok("GetOffsetShell", "--bootstrap-server", Broker.BOOTSTRAP, "--topic", topic, "--time", "earliest"), topic + ":0:20");
        contains(ok("LogDirsCommand", "--bootstrap-server", Broker.BOOTSTRAP, "--describe", "--topic-list", topic), topic + "-0");
    }

    static void performance() throws Exception {
        String topic = create(Broker.name("performance"), 3);
        contains(ok("ProducerPerformance", "--topic", topic, "--num-records", 20_000, "--record-size", 100, "--throughput", -1,
            "--producer-props", "bootstrap.servers=" + Broker.BOOTSTRAP, "acks=all", "compression.type=lz4"), "20000 records sent");
        String consumed = ok("ConsumerPerformance", "--bootstrap-server", Broker.BOOTSTRAP, "--topic", topic, "--messages", 20_000);
        Broker.check(consumed.lines().anyMatch(line -> line.split(", ").length > 4 && line.split(", ")[4].equals("20000")), consumed);
    }

    /** Every segment of a topic with its indexes, and the groups' records, by Kafka's own reader; needs the node's DATA_DIR. */
    static void dumpLog() throws Exception {
        String topic = create(Broker.name("dumped"), 1, "segment.bytes=1048576");
        String group = Broker.name("dumpers");
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 3000; i++) text.append("line ").append(i).append(" ").append("x".repeat(1000)).append("\n");
        produce(topic, text.toString());
        awaitEnd(topic, 3000);
        consume(topic, 5, "--group", group, "--from-beginning");
        List<Path> segments = files(topic, ".log");
        Broker.check(segments.size() > 1, "several segments: " + segments);
        int lines = 0;
        for (Path segment : segments) {
            lines += dump(segment, "--deep-iteration", "--print-data-log").split("payload: line ", -1).length - 1;
        }
        Broker.equal(lines, 3000, "records that were dumped");
        // Without a flag the entries of an index are compared with the batches of its segment.
        List<Path> indexes = files(topic, ".index", ".timeindex");
        Broker.check(indexes.size() >= segments.size(), "indexes: " + indexes);
        for (Path index : indexes) dump(index);
        String stored = "";
        for (Path segment : files("__consumer_offsets", ".log")) stored += dump(segment, "--offsets-decoder", "--deep-iteration");
        contains(stored, group, topic);
    }

    private static String dump(Path file, String... how) throws Exception {
        List<Object> arguments = new ArrayList<>(List.of("--files", file));
        arguments.addAll(List.of(how));
        String printed = tool(true, "", "kafka.tools.DumpLogSegments", arguments.toArray());
        contains(printed, "Dumping " + file);
        for (String bad : List.of("isvalid: false", "ismatch", "Could not", "Non-consecutive", "out of order", "Index offset")) {
            Broker.check(!printed.contains(bad), file + ": " + printed.lines().filter(line -> line.contains(bad)).findFirst());
        }
        return printed;
    }

    private static List<Path> files(String topic, String... endings) throws IOException {
        try (Stream<Path> all = Files.walk(Path.of(System.getenv("DATA_DIR")))) {
            return all.filter(path -> path.toString().contains(topic)
                && Arrays.stream(endings).anyMatch(path.toString()::endsWith)).sorted().collect(Collectors.toList());
        }
    }

    public static void main(String[] arguments) {
        Exit.setExitProcedure((code, message) -> exit(code));
        Exit.setHaltProcedure((code, message) -> exit(code));
        Map<String, Scenario> all = new LinkedHashMap<>();
        all.put("api_versions", Tools::apiVersions);
        all.put("topics", Tools::topics);
        all.put("configs", Tools::configs);
        all.put("console", Tools::console);
        all.put("groups", Tools::groups);
        all.put("offsets", Tools::offsets);
        all.put("performance", Tools::performance);
        all.put("dump_log", Tools::dumpLog);
        int failed = 0;
        for (String name : arguments.length > 0 ? List.of(arguments) : List.copyOf(all.keySet())) {
            long started = System.nanoTime();
            try {
                all.get(name).run();
                REPORT.printf("PASS %s (%.1f s)%n", name, (System.nanoTime() - started) / 1e9);
            } catch (Throwable thrown) {
                failed++;
                REPORT.println("FAIL " + name + ": " + thrown);
                thrown.printStackTrace(REPORT);
            }
        }
        REPORT.flush();
        Runtime.getRuntime().halt(failed > 0 ? 1 : 0);
    }
}
