// The scenarios with franz-go.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func cluster() {
	found, err := admin.BrokerMetadata(timed())
	succeed(err)
	equal(len(found.Brokers), 1, "nodes")
	equal(fmt.Sprintf("%s:%d", found.Brokers[0].Host, found.Brokers[0].Port), bootstrap, "the node")
	check(found.Controller == found.Brokers[0].NodeID && found.Cluster != "", "controller and cluster id")
	dirs, err := admin.DescribeAllLogDirs(timed(), nil)
	succeed(err)
	equal(len(dirs), 1, "nodes with log dirs")
}

func topics() {
	topic := create(name("topics"), 3, nil)
	told, err := admin.ListTopics(timed(), topic)
	succeed(err)
	equal(told[topic].Partitions.Numbers(), []int32{0, 1, 2}, "partitions")
	check(told[topic].ID != kadm.TopicID{}, "the topic has an id")
	_, err = admin.UpdatePartitions(timed(), 5, topic)
	succeed(err)
	until("five partitions", func() bool {
		told, err := admin.ListTopics(timed(), topic)
		return err == nil && len(told[topic].Partitions) == 5
	})
	_, err = admin.DeleteTopic(timed(), topic)
	succeed(err)
	until("the topic is gone", func() bool {
		all, err := admin.ListTopics(timed())
		return err == nil && !all.Has(topic)
	})
	create(topic, 1, nil)
	again, err := admin.ListTopics(timed(), topic)
	succeed(err)
	check(again[topic].ID != told[topic].ID, "a topic created again has another id")
}

func topicErrors() {
	topic, one, soon := create(name("errors"), 1, nil), "1", "soon"
	creating := func(topic string, partitions int32, replicas int16, configs map[string]*string) error {
		_, err := admin.CreateTopic(timed(), partitions, replicas, configs, topic)
		return err
	}
	fails(creating(topic, 1, 1, nil), kerr.TopicAlreadyExists, "duplicate topic")
	fails(creating("no spaces", 1, 1, nil), kerr.InvalidTopicException, "invalid topic name")
	fails(creating(name("none"), 0, 1, nil), kerr.InvalidPartitions, "no partitions")
	fails(creating(name("many"), 1, 3, nil), kerr.InvalidReplicationFactor, "more replicas than brokers")
	fails(creating(name("bad"), 1, 1, map[string]*string{"no.such.config": &one}), kerr.InvalidConfig, "unknown config")
	fails(creating(name("bad"), 1, 1, map[string]*string{"retention.ms": &soon}), kerr.InvalidConfig, "bad value")
	_, err := admin.DeleteTopic(timed(), name("unknown"))
	fails(err, kerr.UnknownTopicOrPartition, "delete an unknown topic")
	grown, err := admin.UpdatePartitions(timed(), 1, topic)
	succeed(err)
	fails(grown[topic].Err, kerr.InvalidPartitions, "as many partitions as there are")
}

func autoCreation() {
	topic := name("automatic")
	_, err := send(numbered(topic, 1), kgo.UnknownTopicRetries(2))
	fails(err, kerr.UnknownTopicOrPartition, "not created where the client doesn't allow it")
	_, err = send(numbered(topic, 1), kgo.AllowAutoTopicCreation())
	succeed(err)
	equal(values(read(topic, 1, 1, kgo.NewOffset().AtStart())), []string{"0"}, "a producer creates the topic")
}

func configs() {
	topic := create(name("configs"), 1, map[string]string{"retention.ms": "3600000"})
	described := func(key string) string {
		found, err := admin.DescribeTopicConfigs(timed(), topic)
		succeed(err)
		one, err := found.On(topic, nil)
		succeed(err)
		at := slices.IndexFunc(one.Configs, func(config kadm.Config) bool { return config.Key == key })
		return one.Configs[at].MaybeValue()
	}
	equal(described("retention.ms"), "3600000", "retention.ms")
	alter := func(change kadm.AlterConfig) error {
		found, err := admin.AlterTopicConfigs(timed(), []kadm.AlterConfig{change}, topic)
		succeed(err)
		return found[0].Err
	}
	value := "7200000"
	succeed(alter(kadm.AlterConfig{Op: kadm.SetConfig, Name: "segment.ms", Value: &value}))
	succeed(alter(kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}))
	until("altered", func() bool { return described("segment.ms") == value && described("retention.ms") == "604800000" })
	fails(alter(kadm.AlterConfig{Op: kadm.SetConfig, Name: "no.such.config", Value: &value}), kerr.InvalidConfig, "unknown")
	limit := "2000000"
	replaced, err := admin.AlterTopicConfigsState(timed(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topic)
	succeed(err)
	succeed(replaced[0].Err)
	until("a legacy alteration replaces all configs", func() bool {
		return described("max.message.bytes") == limit && described("segment.ms") != value
	})
}

func produceCodecs() {
	topic, expected := create(name("codecs"), 1, nil), []string{}
	acks := []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()}
	for _, compression := range codecs {
		for at, ack := range acks {
			records := []*kgo.Record{}
			for i := range 20 {
				value := fmt.Sprintf("%s %d %d %s", compression, at, i, strings.Repeat("x", 200))
				records = append(records, &kgo.Record{Topic: topic, Value: []byte(value)})
				expected = append(expected, value)
			}
			_, err := send(records, codec(compression), kgo.RequiredAcks(ack), kgo.DisableIdempotentWrite())
			succeed(err)
			// Without acknowledgement the next producer might overtake this one.
			equal(values(read(topic, len(expected), 1, kgo.NewOffset().AtStart())), expected, compression)
		}
	}
}

func produceIdempotent() {
	topic := create(name("idempotent"), 1, nil)
	sent, err := send(numbered(topic, 2000), kgo.MaxBufferedRecords(50))
	succeed(err)
	for i, record := range sent {
		equal(record.Offset, int64(i), "offset")
	}
	for i, record := range read(topic, 2000, 1, kgo.NewOffset().AtStart()) {
		equal(string(record.Value), fmt.Sprint(i), "value in order")
	}
	found, err := admin.DescribeProducers(timed(), kadm.TopicsSet{topic: {0: {}}})
	succeed(err)
	equal(len(found.SortedProducers()), 1, "producers of the partition")
}

func recordFields() {
	for _, compression := range codecs {
		topic := create(name("fields"), 3, nil)
		writeShared(topic, compression)
		expectShared(topic)
	}
	stamped := create(name("stamped"), 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	_, err := send([]*kgo.Record{{Topic: stamped, Timestamp: time.UnixMilli(1000)}})
	succeed(err)
	found := read(stamped, 1, 1, kgo.NewOffset().AtStart())[0]
	check(found.Key == nil && found.Value == nil, "neither key nor value")
	check(found.Attrs.TimestampType() == 1 && time.Since(found.Timestamp).Abs() < time.Minute, "the log's time replaces it")
}

func positions() {
	topic, start := create(name("positions"), 1, nil), int64(1_600_000_000_000)
	records := numbered(topic, 100)
	for i, record := range records {
		record.Timestamp = time.UnixMilli(start + int64(i)*1000)
	}
	_, err := send(records)
	succeed(err)
	equal(ends(topic), [2]int64{0, 100}, "ends")
	for after, offset := range map[int64]int64{0: 0, start + 50_000: 50, start + 50_001: 51, start + 1_000_000: 100} {
		found, err := admin.ListOffsetsAfterMilli(timed(), after, topic)
		succeed(err)
		equal(found[topic][0].Offset, offset, "offset by time")
	}
	largest, err := admin.ListMaxTimestampOffsets(timed(), topic)
	succeed(err)
	equal(largest[topic][0].Offset, int64(99), "of the largest timestamp")
	equal(values(read(topic, 1, 1, kgo.NewOffset().At(42))[:1]), []string{"42"}, "from an offset")
	equal(values(read(topic, 3, 1, kgo.NewOffset().AtEnd().Relative(-3))), []string{"97", "98", "99"}, "the last three")
	equal(values(read(topic, 1, 1, kgo.NewOffset().AfterMilli(start+60_000))[:1]), []string{"60"}, "from a time")
	equal(values(read(topic, 1, 1, kgo.NewOffset().At(1000), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))[:1]), []string{"0"}, "reset")
	strict := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1000)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer strict.Close()
	fails(strict.PollFetches(timed()).Err(), kerr.OffsetOutOfRange, "offset out of range")
}

func deleteRecords() {
	topic := create(name("trimmed"), 1, nil)
	_, err := send(numbered(topic, 50))
	succeed(err)
	before := func(at int64) error {
		found, err := admin.DeleteRecords(timed(), kadm.Offsets{topic: {0: {Topic: topic, At: at}}})
		succeed(err)
		return found[topic][0].Err
	}
	succeed(before(30))
	equal(ends(topic), [2]int64{30, 50}, "ends")
	equal(read(topic, 1, 1, kgo.NewOffset().AtStart())[0].Offset, int64(30), "the first record")
	fails(before(1000), kerr.OffsetOutOfRange, "beyond the end")
}

func largeMessages() {
	topic := create(name("large"), 1, map[string]string{"max.message.bytes": "3000000"})
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	large := kgo.ProducerBatchMaxBytes(3_000_000)
	_, err := send([]*kgo.Record{{Topic: topic, Value: value}, {Topic: topic, Value: value}}, large, codec("none"))
	succeed(err)
	// More than the fetch limits: the first batch comes whole all the same.
	for _, options := range [][]kgo.Opt{nil, {kgo.FetchMaxBytes(1000), kgo.FetchMaxPartitionBytes(1000)}} {
		for _, record := range read(topic, 2, 1, kgo.NewOffset().AtStart(), options...) {
			check(bytes.Equal(record.Value, value), "a message of 1 MiB")
		}
	}
	small := create(name("small"), 1, nil)
	_, err = send([]*kgo.Record{{Topic: small, Value: value}}, large, codec("none"))
	fails(err, kerr.MessageTooLarge, "larger than max.message.bytes")
}

func commits() {
	topic, group := create(name("commits"), 1, nil), name("commits")
	_, err := send(numbered(topic, 20))
	succeed(err)
	member := func() *kgo.Client {
		return client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	}
	first := member()
	records := first.PollRecords(timed(), 7).Records()
	equal(len(records), 7, "records at first")
	succeed(first.CommitRecords(timed(), records...))
	first.Close()
	second := member()
	defer second.Close()
	equal(values(second.PollRecords(timed(), 3).Records()), []string{"7", "8", "9"}, "resumed")
	succeed(second.CommitUncommittedOffsets(timed()))
	fmt.Println("RESTART?")
	answers := bufio.NewScanner(os.Stdin)
	restarted := answers.Scan() && answers.Text() == "restarted"
	rest := []string{}
	for ctx := timed(); len(rest) < 10; {
		check(ctx.Err() == nil, "only %v after the restart", rest)
		rest = append(rest, values(second.PollFetches(ctx).Records())...)
	}
	equal(rest, []string{"10", "11", "12", "13", "14", "15", "16", "17", "18", "19"}, fmt.Sprintf("it goes on, restarted: %t", restarted))
	// The admin's connection was cut by the restart, which it learns by asking.
	until("committed", func() bool {
		stored, err := admin.FetchOffsets(timed(), group)
		return err == nil && stored[topic][0].At == 10
	})
}

func groupAdmin() {
	topic, group := create(name("admin"), 6, nil), name("admin")
	_, err := send(numbered(topic, 1))
	succeed(err)
	member := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ClientID("the-client"),
		kgo.Balancers(kgo.RangeBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	succeed(member.CommitRecords(timed(), take(member, 1)...))
	listed, err := admin.ListGroups(timed())
	succeed(err)
	equal(listed[group].State, "Stable", "listed")
	found, err := admin.DescribeGroups(timed(), group)
	succeed(err)
	described := found[group]
	equal([]any{described.State, described.Protocol, len(described.Members)}, []any{"Stable", "range", 1}, "described")
	equal(described.Members[0].ClientID, "the-client", "client id")
	_, err = admin.DeleteGroup(timed(), group)
	fails(err, kerr.NonEmptyGroup, "delete a group in use")
	member.Close()
	succeed(admin.CommitAllOffsets(timed(), group, kadm.Offsets{topic: {1: {Topic: topic, Partition: 1, At: 9}}}))
	stored, err := admin.FetchOffsets(timed(), group)
	succeed(err)
	equal([]int64{stored[topic][0].At, stored[topic][1].At}, []int64{1, 9}, "offsets of the group")
	_, err = admin.DeleteOffsets(timed(), group, kadm.TopicsSet{topic: {1: {}}})
	succeed(err)
	stored, err = admin.FetchOffsets(timed(), group)
	succeed(err)
	_, kept := stored[topic][1]
	check(!kept, "the offset is deleted")
	_, err = admin.DeleteGroup(timed(), group)
	succeed(err)
	_, err = admin.DeleteGroup(timed(), group)
	fails(err, kerr.GroupIDNotFound, "delete it again")
}

func manyTopics() {
	prefix, all := name("many"), []string{}
	for i := range number("MANY_TOPICS", 1000) {
		all = append(all, fmt.Sprintf("%s-%d", prefix, i))
	}
	created, err := admin.CreateTopics(timed(), 1, 1, nil, all...)
	succeed(err)
	succeed(created.Error())
	told := func() int {
		found, err := admin.ListTopics(timed())
		succeed(err)
		return len(slices.DeleteFunc(found.Names(), func(topic string) bool { return !strings.HasPrefix(topic, prefix) }))
	}
	until("all topics are told", func() bool { return told() == len(all) })
	records, assigned := []*kgo.Record{}, map[string]map[int32]kgo.Offset{}
	for _, topic := range all {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(topic)})
		assigned[topic] = map[int32]kgo.Offset{0: kgo.NewOffset().AtStart()}
	}
	_, err = send(records)
	succeed(err)
	consumer := client(kgo.ConsumePartitions(assigned))
	found := values(take(consumer, len(all)))
	consumer.Close()
	slices.Sort(found)
	slices.Sort(all)
	equal(found, all, "a record of each topic")
	_, err = admin.DeleteTopics(timed(), all...)
	succeed(err)
	until("all topics are gone", func() bool { return told() == 0 })
}

func transactions() {
	topic, started := create(name("transaction"), 1, nil), time.Now()
	producer := client(kgo.TransactionalID(name("transaction")), kgo.TransactionTimeout(5*time.Second), kgo.RetryTimeout(10*time.Second))
	defer producer.Close()
	if err := producer.BeginTransaction(); err != nil {
		check(time.Since(started) < 15*time.Second, "refused late: %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := producer.ProduceSync(ctx, numbered(topic, 1)...).FirstErr(); err != nil {
		check(time.Since(started) < 15*time.Second, "refused late: %v", err)
		return
	}
	succeed(producer.EndTransaction(timed(), kgo.TryCommit))
	equal(len(read(topic, 1, 1, kgo.NewOffset().AtStart(), kgo.FetchIsolationLevel(kgo.ReadCommitted()))), 1, "committed")
}

func writeMatrix() {
	for _, compression := range codecs {
		writeShared(create("matrix-franz-go-"+compression, 3, nil), compression)
	}
}

func readMatrix() {
	all, err := admin.ListTopics(timed())
	succeed(err)
	found := slices.DeleteFunc(all.Names(), func(topic string) bool { return !strings.HasPrefix(topic, "matrix-") })
	check(len(found) >= number("MATRIX_TOPICS", 1), "topics of the matrix: %v", found)
	for _, topic := range found {
		expectShared(topic)
	}
}

func attempt(scenario func()) (failure any) {
	defer func() { failure = recover() }()
	scenario()
	return nil
}

func main() {
	opened := client()
	admin = kadm.NewClient(opened)
	scenarios := []struct {
		name string
		run  func()
	}{
		{"cluster", cluster}, {"topics", topics}, {"topic_errors", topicErrors}, {"auto_creation", autoCreation},
		{"configs", configs}, {"produce_codecs", produceCodecs}, {"produce_idempotent", produceIdempotent},
		{"record_fields", recordFields}, {"positions", positions}, {"delete_records", deleteRecords},
		{"large_messages", largeMessages}, {"group_of_three", groupOfThree}, {"cooperative_group", cooperativeGroup},
		{"static_members", staticMembers}, {"commits", commits}, {"group_admin", groupAdmin}, {"many_topics", manyTopics},
		{"transactions", transactions}, {"write_matrix", writeMatrix}, {"read_matrix", readMatrix},
	}
	failed := 0
	for _, scenario := range scenarios {
		chosen := slices.Contains(os.Args[1:], scenario.name)
		if !chosen && (len(os.Args) > 1 || strings.HasSuffix(scenario.name, "_matrix")) {
			continue
		}
		started := time.Now()
		if failure := attempt(scenario.run); failure != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", scenario.name, failure)
		} else {
			fmt.Printf("PASS %s (%.1f s)\n", scenario.name, time.Since(started).Seconds())
		}
	}
	if failed > 0 {
		os.Exit(1)
	}
}
