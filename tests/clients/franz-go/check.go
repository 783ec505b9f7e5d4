package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What the scenarios ask of a broker, and how they say what they expected of it. A failed expectation panics; main
// recovers it and goes on with the next scenario.

var (
	bootstrap = os.Getenv("BOOTSTRAP")
	codecs    = []string{"none", "gzip", "snappy", "lz4", "zstd"}
	limit     = 60 * time.Second
	unique    = strconv.FormatInt(time.Now().UnixNano(), 36)
	names     int
)

func name(what string) string {
	names++
	return fmt.Sprintf("%s-%s-%d", what, unique, names)
}

func number(variable string, otherwise int) int {
	if value, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return value
	}
	return otherwise
}

func check(truth bool, what string, more ...any) {
	if !truth {
		panic(fmt.Sprintf(what, more...))
	}
}

func equal(found, expected any, what string) {
	if !reflect.DeepEqual(found, expected) {
		foundText, expectedText := fmt.Sprintf("%v", found), fmt.Sprintf("%v", expected)
		panic(fmt.Sprintf("%s: expected %.300s, found %.300s", what, expectedText, foundText))
	}
}

func succeed(err error) {
	if err != nil {
		panic(err)
	}
}

func fails(err, expected error, what string) {
	check(errors.Is(err, expected), "%s: expected %v, found %v", what, expected, err)
}

func until(what string, condition func() bool) {
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(20 * time.Millisecond) {
		check(time.Now().Before(deadline), "%s: not within %s", what, limit)
	}
}

func timed() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	time.AfterFunc(limit, cancel)
	return ctx
}

func client(options ...kgo.Opt) *kgo.Client {
	opened, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.FetchMaxWait(100 * time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}, options...)...)
	succeed(err)
	return opened
}

func create(topic string, partitions int32, configs map[string]string) string {
	forever := "-1" // unless told otherwise, for records have timestamps of long ago
	all := map[string]*string{"retention.ms": &forever}
	for key, value := range configs {
		all[key] = &value
	}
	_, err := admin.CreateTopic(timed(), partitions, 1, all, topic)
	succeed(err)
	until(topic+" appears", func() bool {
		told, err := admin.ListTopics(timed(), topic)
		return err == nil && told[topic].Err == nil && len(told[topic].Partitions) == int(partitions)
	})
	return topic
}

func send(records []*kgo.Record, options ...kgo.Opt) ([]*kgo.Record, error) {
	producer := client(options...)
	defer producer.Close()
	results := producer.ProduceSync(timed(), records...)
	sent := []*kgo.Record{}
	for _, result := range results {
		sent = append(sent, result.Record)
	}
	return sent, results.FirstErr()
}

func numbered(topic string, count int) []*kgo.Record {
	records := []*kgo.Record{}
	for i := range count {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(i))})
	}
	return records
}

func take(consumer *kgo.Client, count int) []*kgo.Record {
	taken := []*kgo.Record{}
	for ctx := timed(); len(taken) < count; {
		fetches := consumer.PollFetches(ctx)
		for _, failed := range fetches.Errors() {
			panic(fmt.Sprintf("%d of %d records: %v", len(taken), count, failed.Err))
		}
		taken = append(taken, fetches.Records()...)
	}
	return taken
}

func read(topic string, count int, partitions int32, from kgo.Offset, options ...kgo.Opt) []*kgo.Record {
	assigned := map[int32]kgo.Offset{}
	for partition := range partitions {
		assigned[partition] = from
	}
	consumer := client(append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}))...)
	defer consumer.Close()
	return take(consumer, count)
}

func values(records []*kgo.Record) []string {
	found := []string{}
	for _, record := range records {
		found = append(found, string(record.Value))
	}
	return found
}

func codec(name string) kgo.Opt {
	return kgo.ProducerBatchCompression(map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[name])
}

// The shared records; without those that some clients cannot write, if the topic's name says that it is plain.
func shared(topic string) []*kgo.Record {
	var lines []struct {
		Partition int32
		Key       *string
		Value     *string
		Headers   [][2]*string
		Timestamp int64
	}
	content, err := os.ReadFile(os.Getenv("RECORDS"))
	succeed(err)
	succeed(json.Unmarshal(content, &lines))
	records := []*kgo.Record{}
	for _, line := range lines {
		record := &kgo.Record{Topic: topic, Partition: line.Partition, Key: decode(line.Key), Value: decode(line.Value)}
		record.Timestamp = time.UnixMilli(line.Timestamp)
		plain, seen := true, map[string]bool{}
		for _, header := range line.Headers {
			plain = plain && header[1] != nil && !seen[*header[0]]
			seen[*header[0]] = true
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: *header[0], Value: decode(header[1])})
		}
		if plain || !strings.HasSuffix(topic, "plain") {
			records = append(records, record)
		}
	}
	return records
}

func decode(text *string) []byte {
	if text == nil {
		return nil
	}
	bytes, err := base64.StdEncoding.DecodeString(*text)
	succeed(err)
	return bytes
}

func writeShared(topic, compression string) {
	_, err := send(shared(topic), codec(compression), kgo.ProducerLinger(50*time.Millisecond))
	succeed(err)
}

func expectShared(topic string) {
	expected := shared(topic)
	found := read(topic, len(expected), 3, kgo.NewOffset().AtStart())
	for partition := range int32(3) {
		equal(described(found, partition), described(expected, partition), topic)
	}
}

// Nil and empty bytes are told apart.
func described(records []*kgo.Record, partition int32) []string {
	found := []string{}
	for _, record := range records {
		if record.Partition == partition {
			text := fmt.Sprintf("%d %#v %#v", record.Timestamp.UnixMilli(), record.Key, record.Value)
			for _, header := range record.Headers {
				text += fmt.Sprintf(" %s=%#v", header.Key, header.Value)
			}
			found = append(found, text)
		}
	}
	return found
}

func ends(topic string) [2]int64 {
	start, err := admin.ListStartOffsets(timed(), topic)
	succeed(err)
	end, err := admin.ListEndOffsets(timed(), topic)
	succeed(err)
	return [2]int64{start[topic][0].Offset, end[topic][0].Offset}
}

var admin *kadm.Client
