//! The topic connector over a log in memory: what a reader sees is what was committed, once and in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use bytes::{Bytes, BytesMut};
use logmill_pipelines::UnknownFields;
use logmill_pipelines::flow::{CheckpointEpoch, Position, RowBatch, SplitId};
use logmill_protocol::{BatchBuilder, BatchOptions, Compression, Offset, Timestamp, partition_for_key};
use tokio::sync::watch;

use super::sink::MakeEncoder;
use super::*;
use crate::conformance::memory_log::{MemoryLog, MemoryTransaction};
use crate::decode::Encoder;
use crate::error::ConnectorError;
use crate::format::Format;
use crate::log::{FetchRequest, Isolation, Log, NewTopic, TopicPartition};
use crate::sink::{Attempt, OpenWriter};
use crate::source::{ChunkData, Reader, Records, Source};

const TOPIC: &str = "flights";

async fn log_with(partitions: i32) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::default());
    log.create_topic(NewTopic { name: TOPIC.into(), partitions, configs: Vec::new() }).await.unwrap();
    log
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC.into(), partition }
}

fn batch(compression: Compression, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    for value in values {
        builder.append(Timestamp(5), None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn source_of(log: &Arc<MemoryLog>, yaml: &str) -> Arc<dyn Source> {
    // By way of JSON, as a pipeline's keys come.
    let keys: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
    source(log.clone(), &serde_json::from_value(keys).unwrap())
}

fn told(ends: &[(i32, i64)]) -> watch::Receiver<Option<BTreeMap<i32, i64>>> {
    watch::channel(Some(ends.iter().copied().collect())).1
}

fn values(records: &Records) -> Vec<String> {
    (0..records.len()).map(|index| String::from_utf8(records.value(index).unwrap().to_vec()).unwrap()).collect()
}

/// Reads to the end: the values, and the last position.
async fn drain(reader: &mut dyn Reader) -> (Vec<String>, Option<Position>) {
    let (mut seen, mut last) = (Vec::new(), None);
    while let Some(chunk) = reader.next().await.unwrap() {
        let ChunkData::Records(records) = &chunk.data else { panic!("rows") };
        assert_eq!(records.offsets.len(), records.len());
        assert!(records.offsets.is_sorted());
        seen.extend(values(records));
        last = Some(chunk.position);
    }
    assert!(reader.next().await.unwrap().is_none(), "the end is the end");
    (seen, last)
}

async fn open(source: &Arc<dyn Source>, partition: i32, position: Option<i64>) -> Box<dyn Reader> {
    let position = position.map(|offset| Position(serde_json::json!({ "offset": offset })));
    source.open(&SplitId::new(partition.to_string()), position.as_ref()).await.unwrap()
}

#[tokio::test]
async fn records_come_in_order_whatever_the_codec() {
    for codec in Compression::ALL {
        let log = log_with(1).await;
        log.produce(&place(0), batch(codec, &["a", "b"])).await.unwrap();
        log.produce(&place(0), batch(Compression::None, &["c", ""])).await.unwrap();
        log.produce(&place(0), batch(codec, &["e"])).await.unwrap();
        let source = source_of(&log, "{ topic: flights, until: end }");
        let (seen, last) = drain(open(&source, 0, None).await.as_mut()).await;
        assert_eq!(seen, ["a", "b", "c", "", "e"], "{codec:?}");
        assert_eq!(last, Some(Position(serde_json::json!({ "offset": 5 }))));
    }
}

#[tokio::test]
async fn a_reader_resumes_within_a_batch_and_ends_within_one() {
    let log = log_with(1).await;
    log.produce(&place(0), batch(Compression::Lz4, &["a", "b", "c", "d"])).await.unwrap();
    let source = bounded_source(log, TOPIC, told(&[(0, 3)]));
    let (seen, last) = drain(open(&source, 0, Some(1)).await.as_mut()).await;
    assert_eq!(seen, ["b", "c"]);
    assert_eq!(last, Some(Position(serde_json::json!({ "offset": 3 }))));
    assert_eq!(drain(open(&source, 0, Some(3)).await.as_mut()).await, (Vec::new(), None));
}

#[tokio::test]
async fn aborted_records_and_markers_are_left_out() {
    let log = log_with(1).await;
    let transaction = MemoryTransaction::begin(log.clone()).await.unwrap();
    for (value, commit) in [("a", false), ("b", true), ("c", false), ("d", true)] {
        let mut records = RecordWriter::new(
            Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap()),
            TOPIC,
            1,
            CheckpointEpoch(1),
        );
        records.append(None, Some(value.as_bytes()), &[], Timestamp::NONE).await.unwrap();
        records.prepare(CheckpointEpoch(1)).await.unwrap();
        transaction.end(commit).await.unwrap();
        log.produce(&place(0), batch(Compression::None, &[&format!("plain after {value}")])).await.unwrap();
    }
    let source = source_of(&log, "{ topic: flights, until: end }");
    let (seen, _) = drain(open(&source, 0, None).await.as_mut()).await;
    assert_eq!(seen, ["plain after a", "b", "plain after b", "plain after c", "d", "plain after d"]);
    let source = source_of(&log, "{ topic: flights, until: end, isolation: read_uncommitted }");
    let (seen, _) = drain(open(&source, 0, None).await.as_mut()).await;
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[tokio::test]
async fn an_open_transaction_is_waited_for() {
    let log = log_with(1).await;
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let mut records = RecordWriter::new(transaction.clone(), TOPIC, 1, CheckpointEpoch(1));
    records.append(None, Some(b"a"), &[], Timestamp::NONE).await.unwrap();
    records.prepare(CheckpointEpoch(1)).await.unwrap();
    let source = source_of(&log, "{ topic: flights }");
    let mut reader = open(&source, 0, None).await;
    let waiting = tokio::spawn(async move { reader.next().await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    transaction.end(true).await.unwrap();
    let chunk = waiting.await.unwrap().unwrap().unwrap();
    let ChunkData::Records(records) = chunk.data else { panic!("rows") };
    assert_eq!(values(&records), ["a"]);
}

#[tokio::test]
async fn a_told_end_wakes_a_waiting_reader() {
    let log = log_with(2).await;
    let (tell, ends) = watch::channel(None);
    let source = bounded_source(log, TOPIC, ends);
    let mut readers = Vec::new();
    for partition in [0, 1] {
        let mut reader = open(&source, partition, None).await;
        readers.push(tokio::spawn(async move { reader.next().await }));
    }
    tokio::task::yield_now().await;
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    tell.send(Some(BTreeMap::from([(0, 0)]))).unwrap();
    for reader in readers {
        assert!(reader.await.unwrap().unwrap().is_none());
    }
}

#[tokio::test]
async fn a_dropped_call_takes_nothing() {
    let log = log_with(1).await;
    let source = source_of(&log, "{ topic: flights }");
    let mut reader = open(&source, 0, None).await;
    for _ in 0..3 {
        tokio::select! {
            biased;
            chunk = reader.next() => panic!("{chunk:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    log.produce(&place(0), batch(Compression::Zstd, &["a"])).await.unwrap();
    let ChunkData::Records(records) = reader.next().await.unwrap().unwrap().data else { panic!("rows") };
    assert_eq!(values(&records), ["a"]);
}

#[tokio::test]
async fn reading_begins_where_from_says() {
    let split = SplitId::new("0");
    let log = log_with(1).await;
    for (time, value) in [(1000, "a"), (2000, "b"), (3000, "c")] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(Timestamp(time), None, Some(value.as_bytes()), &[]).unwrap();
        log.produce(&place(0), builder.finish().unwrap()).await.unwrap();
    }
    log.commit_offsets("g", &[(place(0), Offset(1))]).await.unwrap();
    for (from, expected) in [
        ("earliest", vec!["a", "b", "c"]),
        ("latest", vec![]),
        ("{ time: 1970-01-01T00:00:02Z }", vec!["b", "c"]),
        ("{ offset: 2 }", vec!["c"]),
        ("{ group: g }", vec!["b", "c"]),
        ("{ group: unknown }", vec!["a", "b", "c"]),
    ] {
        let source = source_of(&log, &format!("{{ topic: flights, from: {from}, until: end }}"));
        let starts = source.start_positions().await.unwrap();
        let (seen, _) = drain(source.open(&split, starts.get(&split)).await.unwrap().as_mut()).await;
        assert_eq!(seen, expected, "{from}");
    }
    let source = source_of(&log, "{ topic: flights, until: { time: 1970-01-01T00:00:02Z } }");
    assert_eq!(drain(open(&source, 0, None).await.as_mut()).await.0, ["a"]);
}

#[tokio::test]
async fn a_first_start_fixes_where_every_partition_is_read_from() {
    let log = log_with(2).await;
    log.produce(&place(0), batch(Compression::None, &["old"])).await.unwrap();
    for (from, expected) in [("earliest", [0, 0]), ("latest", [1, 0])] {
        let source = source_of(&log, &format!("{{ topic: flights, from: {from} }}"));
        let expected = (0..2).zip(expected).map(|(partition, offset): (i32, i64)| {
            (SplitId::new(partition.to_string()), Position(serde_json::json!({ "offset": offset })))
        });
        assert_eq!(source.start_positions().await.unwrap(), expected.collect(), "{from}");
    }
}

#[tokio::test]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let log = log_with(1).await;
    let source = source_of(&log, "{ topic: flights, from: latest }");
    let found = source.discover(&BTreeSet::new()).await.unwrap();
    assert!(!found.complete);
    let known: BTreeSet<_> = found.new.into_iter().collect();
    assert_eq!(known, BTreeSet::from([SplitId::new("0")]));
    log.create_partitions(TOPIC, 2).await.unwrap();
    log.produce(&place(1), batch(Compression::None, &["a"])).await.unwrap();
    assert_eq!(source.discover(&known).await.unwrap().new, [SplitId::new("1")]);
    let chunk = open(&source, 1, None).await.next().await.unwrap().unwrap();
    let ChunkData::Records(records) = chunk.data else { panic!("rows") };
    assert_eq!(values(&records), ["a"]);
}

#[tokio::test]
async fn a_gap_stops_the_pipeline_or_is_skipped() {
    let log = log_with(1).await;
    log.produce(&place(0), batch(Compression::None, &["a"])).await.unwrap();
    log.produce(&place(0), batch(Compression::None, &["b"])).await.unwrap();
    log.delete_records(&place(0), Offset(1)).await.unwrap();
    let source = source_of(&log, "{ topic: flights, until: end }");
    let error = open(&source, 0, Some(0)).await.next().await.unwrap_err().to_string();
    let expected = "flights-0: the records from offset 0 to 1 were deleted before they were read; keep them for longer, \
                    or accept the gap with `on_gap: skip`";
    assert_eq!(error, expected);
    let source = source_of(&log, "{ topic: flights, until: end, on_gap: skip }");
    assert_eq!(drain(open(&source, 0, Some(0)).await.as_mut()).await.0, ["b"]);
}

#[tokio::test]
async fn keys_headers_and_nulls_are_kept() {
    let log = log_with(3).await;
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let mut records = RecordWriter::new(transaction.clone(), TOPIC, 3, CheckpointEpoch(1));
    records.append(Some(b"k"), Some(b"a"), &[], Timestamp(9)).await.unwrap();
    records.append(Some(b"k"), None, &[("h", Some(b"1")), ("h", None)], Timestamp(8)).await.unwrap();
    records.prepare(CheckpointEpoch(1)).await.unwrap();
    transaction.end(true).await.unwrap();
    let source = source_of(&log, "{ topic: flights, until: end }");
    let partition = partition_for_key(b"k", 3);
    let ChunkData::Records(records) = open(&source, partition, None).await.next().await.unwrap().unwrap().data else {
        panic!("rows")
    };
    assert_eq!((records.len(), records.partition, &*records.place), (2, partition, &*format!("flights-{partition}")));
    assert_eq!((records.key(0), records.key(1)), (Some(&b"k"[..]), Some(&b"k"[..])));
    assert_eq!((records.value(0), records.value(1)), (Some(&b"a"[..]), None));
    assert_eq!(records.timestamps, [9, 8]);
    assert!(records.headers[0].is_empty());
    let at = |range: &Range<u32>| &records.buffer[range.start as usize..range.end as usize];
    let [(name, Some(value)), (again, None)] = records.headers[1].as_slice() else { panic!("{:?}", records.headers) };
    assert_eq!((at(name), at(value), at(again)), (&b"h"[..], &b"1"[..], &b"h"[..]));
}

/// Values of the column `v`.
struct ValueColumn;

impl Encoder for ValueColumn {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let column = rows.column_by_name("v").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
        for value in column.iter().flatten() {
            let start = buffer.len();
            buffer.extend_from_slice(value.as_bytes());
            values.push(start..buffer.len());
        }
        Ok(())
    }
}

fn sink_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("v", DataType::Utf8, false),
        Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

#[tokio::test]
async fn rows_become_keyed_records_of_the_epochs_transaction() {
    let log = log_with(4).await;
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let config = "{ topic: flights, key: n, timestamp: t, headers: { number: n }, batch_bytes: 100 }";
    let encoder: MakeEncoder = Arc::new(|_| Ok(Box::new(ValueColumn)));
    let config = serde_yaml::from_str(config).unwrap();
    let sink = sink(log.clone(), transaction.clone(), config, sink_schema(), encoder).unwrap();
    let open_writer =
        OpenWriter { shard: 0, attempt: Attempt("a".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
    let mut writer = sink.open(open_writer).await.unwrap();
    let numbers: Vec<Option<i64>> = (0..100).map(|n| (n % 10 != 0).then_some(n)).collect();
    let texts: Vec<String> = (0..100).map(|n| format!("value {n}")).collect();
    let rows = RecordBatch::try_new(
        sink_schema(),
        vec![
            Arc::new(Int64Array::from(numbers.clone())),
            Arc::new(StringArray::from(texts.clone())),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(5_000_000); 100]).with_timezone("UTC")),
        ],
    )
    .unwrap();
    writer.write(RowBatch::inserts(rows)).await.unwrap();
    let prepared = writer.prepare(CheckpointEpoch(1), true).await.unwrap();
    assert!(prepared.tokens.is_empty() && prepared.carried.is_none());
    let read = || async {
        let source = source_of(&log, "{ topic: flights, until: end }");
        let mut seen = BTreeMap::new();
        for partition in 0..4 {
            let mut reader = open(&source, partition, None).await;
            while let Some(chunk) = reader.next().await.unwrap() {
                let ChunkData::Records(records) = chunk.data else { panic!("rows") };
                for (index, value) in values(&records).into_iter().enumerate() {
                    let key = records.key(index).map(|key| String::from_utf8(key.to_vec()).unwrap());
                    if let Some(key) = &key {
                        assert_eq!(partition_for_key(key.as_bytes(), 4), partition);
                    }
                    assert_eq!(records.timestamps[index], 5000);
                    let (_, header) = &records.headers[index][0];
                    let header = header.clone().map(|h| records.buffer[h.start as usize..h.end as usize].to_vec());
                    assert_eq!(header, key.clone().map(String::into_bytes));
                    assert!(seen.insert(value, key).is_none());
                }
            }
        }
        seen
    };
    assert!(read().await.is_empty(), "nothing is visible before the commit");
    transaction.end(true).await.unwrap();
    let expected: BTreeMap<_, _> = texts.into_iter().zip(numbers.iter().map(|n| n.map(|n| n.to_string()))).collect();
    assert_eq!(read().await, expected);
}

/// Bytes that no codec makes smaller, as text.
fn incompressible(length: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(3);
    (0..length).map(|_| rng.alphanumeric()).collect()
}

#[tokio::test]
async fn records_that_the_topic_can_never_take_are_refused_and_the_others_written() {
    for (stored, large, fits) in [
        // One of 3 KB in a topic of 2 KB, among many that fill batches.
        ("producer", incompressible(3000), false),
        // What counts is the size after compression,
        ("producer", "x".repeat(30_000), true),
        // unless the topic stores it otherwise.
        ("uncompressed", "x".repeat(30_000), false),
    ] {
        let log = Arc::new(MemoryLog::default());
        let configs = [("max.message.bytes", "2000"), ("compression.type", stored)];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        log.create_topic(NewTopic { name: TOPIC.into(), partitions: 1, configs }).await.unwrap();
        let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
        let config = serde_yaml::from_str("{ topic: flights, key: n }").unwrap();
        let encoder: MakeEncoder = Arc::new(|_| Ok(Box::new(ValueColumn)));
        let sink = sink(log.clone(), transaction.clone(), config, sink_schema(), encoder).unwrap();
        let open =
            OpenWriter { shard: 0, attempt: Attempt("a".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
        let mut writer = sink.open(open).await.unwrap();
        let texts: Vec<String> =
            (0..100).map(|n| if n == 42 { large.clone() } else { format!("{n} {}", incompressible(50)) }).collect();
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..100)),
            Arc::new(StringArray::from(texts)),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(5_000_000); 100]).with_timezone("UTC")),
        ];
        let rows = RecordBatch::try_new(sink_schema(), columns).unwrap();
        let refused = writer.write(RowBatch::inserts(rows)).await.unwrap().refused;
        let numbers: Vec<_> =
            refused.iter().map(|refused| refused.rows.rows.column(0).as_primitive::<Int64Type>().value(0)).collect();
        assert_eq!(numbers, if fits { vec![] } else { vec![42] }, "{stored}");
        assert!(refused.iter().all(|refused| refused.reason.contains("the topic takes 2000 at most")), "{refused:?}");
        let prepared = writer.prepare(CheckpointEpoch(1), true).await.unwrap();
        assert_eq!(prepared.visible.rows, 100 - numbers.len() as u64);
        transaction.end(true).await.unwrap();
        let isolation = Isolation::ReadCommitted;
        let request = FetchRequest { partition: place(0), offset: Offset(0), max_bytes: 1 << 20, isolation };
        let (fetched, mut records) = (log.fetch(&request).await.unwrap(), 0);
        for batch in logmill_protocol::batches(&fetched.batches) {
            let batch = batch.unwrap();
            assert!(batch.bytes().len() <= 2000, "a batch of {} bytes", batch.bytes().len());
            records += if batch.header().is_control() { 0 } else { batch.header().record_count };
        }
        assert_eq!(records, 100 - numbers.len() as i32);
    }
}

#[tokio::test]
async fn meta_columns_become_what_they_were_and_no_part_of_the_value() {
    let log = log_with(1).await;
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let mut records = RecordWriter::new(transaction.clone(), TOPIC, 1, CheckpointEpoch(1));
    records.append(Some(b"k"), Some(b"{\"v\":1}"), &[("h", Some(b"1")), ("h", None)], Timestamp(9)).await.unwrap();
    records.append(None, Some(b"{\"v\":2}"), &[], Timestamp::NONE).await.unwrap();
    records.prepare(CheckpointEpoch(1)).await.unwrap();
    transaction.end(true).await.unwrap();
    let read = async |position| {
        let source = source_of(&log, "{ topic: flights, until: end }");
        let chunk = open(&source, 0, Some(position)).await.next().await.unwrap().unwrap();
        let ChunkData::Records(records) = chunk.data else { panic!("rows") };
        records
    };
    let told = |records: &Records, index: usize| {
        let text = |range: &Range<u32>| records.buffer[range.start as usize..range.end as usize].to_vec();
        let headers = records.headers[index].iter().map(|(name, value)| (text(name), value.as_ref().map(text)));
        let (key, value) = (records.key(index).map(<[u8]>::to_vec), records.value(index).map(<[u8]>::to_vec));
        (key, value, records.timestamps[index], headers.collect::<Vec<_>>())
    };
    let first = read(0).await;
    let value = Schema::new(vec![Field::new("v", DataType::Int64, true)]);
    let columns = ["_key", "_headers", "v", "_timestamp", "_offset"].map(str::to_owned);
    let mut decoder = Format::Json.decoder(&value, &columns, UnknownFields::Ignore).unwrap();
    let rows = decoder.decode(&first).unwrap().rows;
    let rows = rows.project(&[0, 1, 2, 3]).unwrap();
    let config = "{ topic: flights, key: _key, timestamp: _timestamp, headers: _headers }";
    let config: SinkConfig = serde_yaml::from_str(config).unwrap();
    assert_eq!(meta_columns(&config), ["_key", "_timestamp", "_headers"]);
    assert_eq!(value_schema(&config, &rows.schema()), Arc::new(value));
    let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
    let encoder: MakeEncoder = Arc::new(|schema| Format::Json.encoder(schema));
    let sink = sink(log.clone(), transaction.clone(), config, rows.schema(), encoder).unwrap();
    let open_writer =
        OpenWriter { shard: 0, attempt: Attempt("a".into()), epoch: CheckpointEpoch(1), carried: Vec::new() };
    let mut writer = sink.open(open_writer).await.unwrap();
    writer.write(RowBatch::inserts(rows)).await.unwrap();
    writer.prepare(CheckpointEpoch(1), true).await.unwrap();
    transaction.end(true).await.unwrap();
    let second = read(3).await;
    assert_eq!((told(&second, 0), told(&second, 1)), (told(&first, 0), told(&first, 1)));
}

#[test]
fn headers_come_from_a_column_that_can_hold_them() {
    let config: SinkConfig = serde_yaml::from_str("{ topic: flights, headers: n }").unwrap();
    let told = check_sink(&config, &sink_schema());
    let [problem] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        problem.message,
        "`n` is of type Int64; it must be a list of structs of `key` and `value`, as `_headers` is"
    );
}

#[test]
fn mistakes_of_a_sinks_configuration_are_told_together() {
    let yaml = "{ topic: flights, key: m, timestamp: v, headers: { a: b }, batch_bytes: 0 }";
    let config: SinkConfig = serde_yaml::from_str(yaml).unwrap();
    let told = check_sink(&config, &sink_schema());
    let keys: Vec<_> = told.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["key", "timestamp", "headers.a", "batch_bytes"]);
    assert_eq!(told[0].message, "there is no column `m`; the input has n, v, t");
    assert_eq!(told[0].hint.as_deref(), Some("did you mean `n`?"));
    assert!(serde_yaml::from_str::<SinkConfig>("{ topic: flights, keys: n }").is_err());
}
