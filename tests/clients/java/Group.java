import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ConcurrentSkipListSet;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/** Consumers of one group in threads of their own, that commit what they took before they poll again. */
final class Group {
    final String topic;
    final String id;
    final ConcurrentLinkedQueue<Integer> delivered = new ConcurrentLinkedQueue<>();
    final List<Member> members = new ArrayList<>();

    Group(String topic, String id) {
        this.topic = topic;
        this.id = id;
    }

    final class Member extends Thread implements ConsumerRebalanceListener {
        final Set<Integer> assigned = new ConcurrentSkipListSet<>();
        volatile int rebalances;
        volatile Throwable error;
        private volatile boolean leaving;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();

        Member(Object... pairs) {
            Object[] all = new Object[pairs.length + 2];
            System.arraycopy(pairs, 0, all, 2, pairs.length);
            all[0] = "group.id";
            all[1] = id;
            consumer = Broker.consumer(all);
            setDaemon(true);
            start();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            rebalances++;
            partitions.forEach(partition -> assigned.add(partition.partition()));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            commit();
            partitions.forEach(partition -> assigned.remove(partition.partition()));
        }

        @Override
        public void run() {
            try (consumer) {
                consumer.subscribe(List.of(topic), this);
                // A commit that a rebalance refused is repeated first.
                while (!leaving || !uncommitted.isEmpty()) {
                    consumer.poll(Duration.ofMillis(50)).forEach(record -> {
                        delivered.add(Integer.valueOf(Broker.text(record.value())));
                        uncommitted.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                    });
                    commit();
                }
            } catch (Throwable thrown) {
                error = thrown;
            }
        }

        /** Commits what was taken; once more later where a new generation is just being made. */
        private void commit() {
            try {
                if (!uncommitted.isEmpty()) consumer.commitSync(uncommitted);
                uncommitted.clear();
            } catch (RebalanceInProgressException retried) {
                // The next poll ends the rebalance; what is not committed stays remembered.
            }
        }

        void leave() throws Exception {
            leaving = true;
            join(Broker.LIMIT_S * 1000);
            Broker.check(!isAlive(), "the member left");
            if (error != null) throw new AssertionError("a member failed", error);
        }
    }

    Member join(Object... pairs) {
        Member member = new Member(pairs);
        members.add(member);
        return member;
    }

    /** Waits until the assignments cover all partitions, none twice, and no member is idle. */
    void awaitCovered(int partitions, String what) throws Exception {
        Broker.until(() -> {
            checkMembers();
            List<Integer> all = new ArrayList<>();
            for (Member member : members) {
                if (member.assigned.isEmpty()) return false;
                all.addAll(member.assigned);
            }
            return all.size() == partitions && new TreeSet<>(all).size() == partitions;
        }, what);
    }

    private void checkMembers() {
        for (Member member : members) {
            if (member.error != null) throw new AssertionError("a member failed", member.error);
        }
    }

    void leaveAll() throws Exception {
        for (Member member : members) member.leave();
    }

    /** Members come and go while records come; every record is delivered once. */
    static void joinsAndLeaves(Broker broker, String assignor) throws Exception {
        int count = 6000;
        Group group = new Group(broker.create(Broker.name("group"), 6), Broker.name("group"));
        Object[] pairs = {"partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor, "max.poll.records", 50};
        Thread writing = new Thread(() -> {
            try (KafkaProducer<byte[], byte[]> producer = Broker.producer()) {
                for (int i = 0; i < count; i++) {
                    producer.send(new ProducerRecord<>(group.topic, i % 6, null, Broker.bytes(String.valueOf(i))));
                    if (i % 20 == 19) Thread.sleep(10);
                }
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        });
        writing.start();
        for (int size = 1; size <= 3; size++) {
            group.join(pairs);
            group.awaitCovered(6, size + " members share the partitions");
        }
        group.members.remove(1).leave();
        group.awaitCovered(6, "two members share the partitions after a leave");
        group.join(pairs);
        group.awaitCovered(6, "three members again");
        writing.join(Broker.LIMIT_S * 1000);
        Broker.until(() -> {
            group.checkMembers();
            return group.delivered.size() >= count;
        }, "all records are delivered");
        group.leaveAll();
        Broker.equal(new TreeSet<>(group.delivered).size(), count, "different records delivered");
        Broker.equal(group.delivered.size(), count, "records delivered");
    }
}
