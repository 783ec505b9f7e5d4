//! The object_store sink against a folder and a store in memory, held to the conformance suite of sinks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod s3;

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::LineDelimitedWriter;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use logmill_pipelines::{ByteSize, DurationSpec};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::partition::{Partitioner, escape};
use super::*;
use crate::conformance::sink::{Destination, TestRow, check, schema};
use crate::decode::Encoder;
use crate::error::ConnectorError;
use crate::sink::{Attempt, Committed, OpenWriter, Sink, Token};

/// Lines as arrow-json writes them.
struct JsonLines;

impl Encoder for JsonLines {
    fn encode(
        &mut self,
        rows: &RecordBatch,
        buffer: &mut BytesMut,
        values: &mut Vec<std::ops::Range<usize>>,
    ) -> Result<(), ConnectorError> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(rows).unwrap();
        for line in writer.into_inner().split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let start = buffer.len();
            buffer.extend_from_slice(line);
            values.push(start..buffer.len());
        }
        Ok(())
    }
}

fn ndjson() -> FileFormat {
    let lines = |_: &arrow::datatypes::SchemaRef| Ok(TextLines { header: None, encoder: Box::new(JsonLines) });
    FileFormat::Text { extension: "ndjson", lines: Arc::new(lines) }
}

fn config(url: &str, partitioned: bool, roll: Roll) -> Config {
    Config {
        url: url.into(),
        partition_by: if partitioned { vec!["group".into()] } else { Vec::new() },
        roll,
        compression: None,
        options: Default::default(),
    }
}

fn roll(every: Duration, bytes: u64, rows: Option<u64>) -> Roll {
    Roll { every: DurationSpec(every), bytes: ByteSize(bytes), rows }
}

/// A clock that goes on by a second at every look.
fn ticking() -> Clock {
    let ticks = AtomicU64::new(0);
    Arc::new(move || Duration::from_secs(ticks.fetch_add(1, Ordering::Relaxed)))
}

/// The context of a deployment.
fn context_of(deployment: &str, base_dir: PathBuf, clock: Clock) -> SinkContext {
    SinkContext { deployment: deployment.into(), ..context(base_dir, clock) }
}

/// A group that makes a folder of too long a name where groups are folders.
fn impossible_group(config: &Config) -> Option<String> {
    (!config.partition_by.is_empty()).then(|| "x".repeat(1100))
}

fn context(base_dir: PathBuf, clock: Clock) -> SinkContext {
    SinkContext { deployment: "d".into(), pipeline: "p".into(), sink: "lake".into(), base_dir, schema: schema(), clock }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The rows of a file, the group taken from its folder where that names it.
fn read_rows(name: &str, bytes: Bytes) -> Vec<TestRow> {
    let folder = name.split('/').find_map(|part| part.strip_prefix("group=")).map(unescape);
    let group_of = |group: Option<String>| match folder.as_deref() {
        Some("__HIVE_DEFAULT_PARTITION__") => None,
        Some(folder) => Some(folder.to_owned()),
        None => group,
    };
    if name.ends_with(".parquet") {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        return reader.flat_map(|batch| rows_of(&batch.unwrap())).map(|(id, group)| (id, group_of(group))).collect();
    }
    let text = if name.ends_with(".zst") {
        zstd::decode_all(bytes.as_ref()).unwrap()
    } else if name.ends_with(".gz") {
        std::io::read_to_string(flate2::read::GzDecoder::new(bytes.as_ref())).unwrap().into_bytes()
    } else {
        bytes.to_vec()
    };
    (text.split(|&b| b == b'\n').filter(|line| !line.is_empty()))
        .map(|line| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            (value["id"].as_i64().unwrap(), group_of(value["group"].as_str().map(str::to_owned)))
        })
        .collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<TestRow> {
    let ids = batch.column_by_name("id").unwrap().as_any().downcast_ref::<Int64Array>().unwrap().clone();
    let groups = batch.column_by_name("group").map(|c| c.as_any().downcast_ref::<StringArray>().unwrap().clone());
    (0..batch.num_rows())
        .map(|row| {
            let group = groups.as_ref().filter(|g| g.is_valid(row)).map(|g| g.value(row).to_owned());
            (ids.value(row), group)
        })
        .collect()
}

fn files_below(folder: &FilePath) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

struct LocalDestination {
    dir: tempfile::TempDir,
    config: Config,
    format: FileFormat,
    clock: Clock,
}

impl LocalDestination {
    fn new(partitioned: bool, roll: Roll, format: FileFormat, compression: Option<Compression>, clock: Clock) -> Self {
        let mut config = config("./out/deep", partitioned, roll);
        config.compression = compression;
        Self { dir: tempfile::tempdir().unwrap(), config, format, clock }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("out/deep")
    }
}

#[async_trait]
impl Destination for LocalDestination {
    fn sink(&self, deployment: &str) -> Result<Arc<dyn Sink>, ConnectorError> {
        let context = context_of(deployment, self.dir.path().into(), self.clock.clone());
        sink(&self.config, self.format.clone(), &context)
    }

    async fn expire(&self, token: &Token) -> Result<(), ConnectorError> {
        std::fs::remove_file(self.root().join(token.0["from"].as_str().unwrap())).unwrap();
        Ok(())
    }

    fn impossible_group(&self) -> Option<String> {
        impossible_group(&self.config)
    }

    async fn visible(&self) -> Result<Vec<TestRow>, ConnectorError> {
        let root = self.root();
        let names = files_below(&root).into_iter().map(|path| path.strip_prefix(&root).unwrap().to_owned());
        let data = names.filter(|name| !name.starts_with("_logmill"));
        Ok(data
            .flat_map(|name| read_rows(name.to_str().unwrap(), std::fs::read(root.join(&name)).unwrap().into()))
            .collect())
    }

    async fn staged(&self) -> Result<Vec<String>, ConnectorError> {
        let folder = self.root().join("_logmill");
        Ok(if folder.exists() { vec![format!("{:?}", files_below(&folder))] } else { Vec::new() })
    }
}

struct MemoryDestination {
    store: Arc<InMemory>,
    config: Config,
}

/// Aborts the upload that a token names, as a rule of the bucket does.
async fn abort(store: &dyn Store, token: &Token) {
    let text = |key: &str| token.0[key].as_str().unwrap().to_owned();
    store.abort_multipart(&Path::parse(text("to")).unwrap(), &text("upload")).await.unwrap();
}

#[async_trait]
impl Destination for MemoryDestination {
    fn sink(&self, deployment: &str) -> Result<Arc<dyn Sink>, ConnectorError> {
        let context = context_of(deployment, PathBuf::new(), ticking());
        sink_on(self.store.clone(), "lake/v1", &self.config, FileFormat::Parquet, &context)
    }

    async fn expire(&self, token: &Token) -> Result<(), ConnectorError> {
        abort(&*self.store, token).await;
        Ok(())
    }

    fn impossible_group(&self) -> Option<String> {
        impossible_group(&self.config)
    }

    async fn visible(&self) -> Result<Vec<TestRow>, ConnectorError> {
        let objects: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        let mut rows = Vec::new();
        for object in objects {
            let name = object.location.to_string();
            if name.starts_with("lake/v1/_logmill/") {
                continue;
            }
            rows.extend(read_rows(&name, self.store.get(&object.location).await.unwrap().bytes().await.unwrap()));
        }
        Ok(rows)
    }

    async fn staged(&self) -> Result<Vec<String>, ConnectorError> {
        let objects: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        let names = objects.into_iter().map(|object| object.location.to_string());
        Ok(names.filter(|name| name.contains("_logmill")).collect())
    }
}

const LONG: Duration = Duration::from_secs(1 << 40);

async fn check_local(partitioned: bool, roll: Roll, format: FileFormat, compression: Option<Compression>) {
    let make = || {
        let destination = LocalDestination::new(partitioned, roll.clone(), format.clone(), compression, ticking());
        Ok(Box::new(destination) as Box<dyn Destination>)
    };
    if let Err(error) = check(make, 3).await {
        panic!("{error}");
    }
}

#[tokio::test]
async fn local_parquet_that_rolls_once_is_exactly_once() {
    check_local(true, roll(LONG, 1 << 40, None), FileFormat::Parquet, None).await;
}

#[tokio::test]
async fn local_parquet_that_rolls_within_an_epoch_is_exactly_once() {
    check_local(false, roll(LONG, 1 << 40, Some(9)), FileFormat::Parquet, Some(Compression::Snappy)).await;
    check_local(true, roll(LONG, 1, None), FileFormat::Parquet, Some(Compression::Gzip)).await;
}

#[tokio::test]
async fn local_parquet_that_rolls_by_age_is_exactly_once() {
    check_local(true, roll(Duration::from_secs(11), 1 << 40, None), FileFormat::Parquet, None).await;
}

#[tokio::test]
async fn local_ndjson_is_exactly_once() {
    check_local(true, roll(LONG, 1 << 40, Some(25)), ndjson(), None).await;
    check_local(false, roll(LONG, 1 << 40, Some(60)), ndjson(), Some(Compression::Gzip)).await;
    check_local(false, roll(LONG, 1 << 40, Some(60)), ndjson(), Some(Compression::Zstd)).await;
}

#[tokio::test]
async fn uploads_are_exactly_once() {
    for rows in [9, 25, 60, 1 << 40] {
        let make = || {
            let config = config("s3://unused", true, roll(LONG, 1 << 40, Some(rows)));
            Ok(Box::new(MemoryDestination { store: Arc::new(InMemory::new()), config }) as Box<dyn Destination>)
        };
        if let Err(error) = check(make, 3).await {
            panic!("rolling at {rows} rows: {error}");
        }
    }
}

fn batch(rows: &[(i64, &str)]) -> RowBatch {
    let rows: Vec<TestRow> = rows.iter().map(|(id, group)| (*id, Some((*group).to_owned()))).collect();
    RowBatch::inserts(crate::conformance::sink::batch(&rows).unwrap())
}

fn open(attempt: &str) -> OpenWriter {
    OpenWriter { shard: 0, attempt: Attempt(attempt.into()), epoch: CheckpointEpoch(1), carried: Vec::new() }
}

#[tokio::test]
async fn a_commit_is_idempotent_and_tells_what_is_lost() {
    let destination = LocalDestination::new(false, roll(LONG, 1 << 40, None), FileFormat::Parquet, None, ticking());
    let sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    writer.write(batch(&[(1, "x")])).await.unwrap();
    let prepared = writer.prepare(CheckpointEpoch(1), true).await.unwrap();
    assert!(destination.visible().await.unwrap().is_empty());
    for _ in 0..2 {
        assert!(matches!(sink.commit(&prepared.tokens[0]).await.unwrap(), Committed::Done));
        assert_eq!(destination.visible().await.unwrap(), [(1, Some("x".into()))]);
    }
    for file in files_below(&destination.root()) {
        std::fs::remove_file(file).unwrap();
    }
    let Committed::Lost(message) = sink.commit(&prepared.tokens[0]).await.unwrap() else { panic!("not lost") };
    assert!(message.starts_with("neither ") && message.contains(".parquet.staged"), "{message}");
}

#[tokio::test]
async fn sweeping_spares_other_sinks_live_tokens_and_open_writers() {
    let destination = LocalDestination::new(false, roll(LONG, 1 << 40, None), FileFormat::Parquet, None, ticking());
    let mut other = context(destination.dir.path().into(), ticking());
    other.sink = "other".into();
    let other = sink(&destination.config, FileFormat::Parquet, &other).unwrap();
    let mut other_writer = other.open(open("a")).await.unwrap();
    other_writer.write(batch(&[(2, "y")])).await.unwrap();
    let others = other_writer.prepare(CheckpointEpoch(1), true).await.unwrap().tokens;

    let first = destination.sink("d").unwrap();
    let mut writer = first.open(open("a")).await.unwrap();
    writer.write(batch(&[(1, "x")])).await.unwrap();
    let live = writer.prepare(CheckpointEpoch(1), true).await.unwrap().tokens;
    writer.write(batch(&[(3, "z")])).await.unwrap();
    let dead = writer.prepare(CheckpointEpoch(2), true).await.unwrap().tokens;

    let second = destination.sink("d").unwrap();
    let mut writer = second.open(open("b")).await.unwrap();
    writer.write(batch(&[(4, "z")])).await.unwrap();
    second.collect(&live, &Attempt("b".into())).await.unwrap();
    assert!(matches!(second.commit(&live[0]).await.unwrap(), Committed::Done));
    assert!(matches!(second.commit(&dead[0]).await.unwrap(), Committed::Lost(_)));
    assert!(matches!(other.commit(&others[0]).await.unwrap(), Committed::Done));
    let tokens = writer.prepare(CheckpointEpoch(2), true).await.unwrap().tokens;
    assert!(matches!(second.commit(&tokens[0]).await.unwrap(), Committed::Done));
    let mut ids: Vec<_> = destination.visible().await.unwrap().into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 4]);
}

#[tokio::test]
async fn uploads_larger_than_a_part_arrive_whole() {
    let store = Arc::new(InMemory::new());
    let config = config("s3://unused", false, roll(LONG, 1 << 40, None));
    let mut config = config;
    config.compression = Some(Compression::None);
    let sink = sink_on(store.clone(), "", &config, FileFormat::Parquet, &context(PathBuf::new(), ticking())).unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut expected = Vec::new();
    for _ in 0..60 {
        let rows: Vec<TestRow> =
            (0..8192).map(|_| (rng.i64(..), Some((0..40).map(|_| rng.alphanumeric()).collect()))).collect();
        writer.write(RowBatch::inserts(crate::conformance::sink::batch(&rows).unwrap())).await.unwrap();
        expected.extend(rows);
    }
    let prepared = writer.prepare(CheckpointEpoch(1), true).await.unwrap();
    assert_eq!(prepared.tokens.len(), 1);
    assert!(prepared.tokens[0].0["parts"].as_array().unwrap().len() > 2, "{:?}", prepared.tokens);
    assert!(matches!(sink.commit(&prepared.tokens[0]).await.unwrap(), Committed::Done));
    assert!(matches!(sink.commit(&prepared.tokens[0]).await.unwrap(), Committed::Done));
    assert_eq!(MemoryDestination { store, config }.visible().await.unwrap(), expected);
}

#[tokio::test]
async fn many_deltas_are_joined_so_that_state_stays_short() {
    let destination = LocalDestination::new(false, roll(LONG, 1 << 40, None), FileFormat::Parquet, None, ticking());
    let mut sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    let mut carried = Vec::new();
    for epoch in 1..=200 {
        writer.write(batch(&[(epoch, "x")])).await.unwrap();
        let prepared = writer.prepare(CheckpointEpoch(epoch as u64), false).await.unwrap();
        assert!(prepared.tokens.is_empty());
        if prepared.reset {
            carried.clear();
        }
        carried.extend(prepared.carried);
        assert!(carried.len() <= 65, "{} deltas in epoch {epoch}", carried.len());
        if epoch == 100 {
            sink = destination.sink("d").unwrap();
            let open = OpenWriter { carried: carried.clone(), epoch: CheckpointEpoch(101), ..open("b") };
            writer = sink.open(open).await.unwrap();
        }
    }
    let prepared = writer.prepare(CheckpointEpoch(201), true).await.unwrap();
    assert!(prepared.reset && prepared.carried.is_none());
    sink.commit(&prepared.tokens[0]).await.unwrap();
    let ids: Vec<_> = destination.visible().await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_column_of_many_values_keeps_few_files_open() {
    let destination = LocalDestination::new(true, roll(LONG, 1 << 40, None), FileFormat::Parquet, None, ticking());
    let sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let rows: Vec<(i64, &str)> = (0..1000).zip(names.iter().map(String::as_str)).collect();
    writer.write(batch(&rows)).await.unwrap();
    let prepared = writer.prepare(CheckpointEpoch(1), false).await.unwrap();
    assert_eq!(prepared.tokens.len(), 1000, "a roll finishes the files of the whole chunk");
    assert!(prepared.reset && prepared.carried.is_none());
    for token in &prepared.tokens {
        sink.commit(token).await.unwrap();
    }
    assert_eq!(destination.visible().await.unwrap().len(), 1000);
}

#[tokio::test]
async fn files_roll_with_age_even_if_no_more_rows_come() {
    let now = Arc::new(AtomicU64::new(100));
    let clock: Clock = {
        let now = now.clone();
        Arc::new(move || Duration::from_secs(now.load(Ordering::Relaxed)))
    };
    let every = Duration::from_secs(60);
    let destination = LocalDestination::new(false, roll(every, 1 << 40, None), FileFormat::Parquet, None, clock);
    let sink = destination.sink("d").unwrap();
    let mut writer = sink.open(open("a")).await.unwrap();
    writer.write(batch(&[(1, "x")])).await.unwrap();
    for (epoch, seconds, files) in [(1, 159, 0), (2, 160, 1), (3, 300, 0)] {
        now.store(seconds, Ordering::Relaxed);
        let prepared = writer.prepare(CheckpointEpoch(epoch), false).await.unwrap();
        assert_eq!(prepared.tokens.len(), files, "after {seconds} s");
    }
}

#[test]
fn folders_are_escaped_as_hive_does() {
    for (value, expected) in
        [("AA", "AA"), ("a/b", "a%2Fb"), ("50%", "50%25"), ("a=b", "a%3Db"), ("ü x", "ü x"), ("\n", "%0A")]
    {
        let mut escaped = String::new();
        escape(value, &mut escaped);
        assert_eq!(escaped, expected);
        assert_eq!(unescape(&escaped), value);
    }
}

#[test]
fn rows_are_cut_by_several_columns_in_order() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("day", DataType::Date32, true),
        Field::new("n", DataType::Int64, false),
        Field::new("late", DataType::Boolean, true),
    ]));
    let rows = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(arrow::array::Date32Array::from(vec![Some(0), None, Some(0), Some(1), None])),
            Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
            Arc::new(arrow::array::BooleanArray::from(vec![true, false, true, false, false])),
        ],
    )
    .unwrap();
    let mut partitioner = Partitioner::new(&schema, &["late".into(), "day".into()], Box::new(|_| Ok(()))).unwrap();
    let parts = partitioner.cut(&rows).unwrap().parts;
    let seen: HashMap<String, Vec<i64>> = parts
        .iter()
        .map(|part| {
            let n = part.rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
            assert_eq!(part.rows.num_columns(), 1);
            (partitioner.folder(part.partition).to_owned(), n)
        })
        .collect();
    let expected = HashMap::from([
        ("late=true/day=1970-01-01/".to_owned(), vec![1, 3]),
        ("late=false/day=__HIVE_DEFAULT_PARTITION__/".to_owned(), vec![2, 5]),
        ("late=false/day=1970-01-02/".to_owned(), vec![4]),
    ]);
    assert_eq!(seen, expected);
}

#[test]
fn nanoseconds_become_microseconds() {
    let zone = |unit| DataType::Timestamp(unit, Some("UTC".into()));
    let schema = Schema::new(vec![Field::new("t", zone(TimeUnit::Nanosecond), true)]);
    let coerced = super::files::coerce_schema(&schema);
    assert_eq!(coerced.field(0).data_type(), &zone(TimeUnit::Microsecond));
}

#[test]
fn urls_are_read_without_io() {
    let base = FilePath::new("/pipe");
    let local = |path: &str| Ok(Location::Local(path.into()));
    let s3 = |bucket: &str, prefix: &str| Ok(Location::S3 { bucket: bucket.into(), prefix: prefix.into() });
    for (url, expected) in [
        ("./out/x", local("/pipe/out/x")),
        ("file://./out/x", local("/pipe/out/x")),
        ("file:///data/x", local("/data/x")),
        ("/data/x", local("/data/x")),
        ("s3://bucket", s3("bucket", "")),
        ("s3://bucket/a/b/", s3("bucket", "a/b")),
        ("gs://bucket/a", Err("`gs://` is not available yet; use s3:// or a local folder".to_owned())),
        ("ftp://host", Err("`ftp://` is not a store; use s3://bucket/prefix, file:// or a path".to_owned())),
        ("s3:///x", Err("the URL names no bucket; write s3://bucket/prefix".to_owned())),
    ] {
        assert_eq!(Location::parse(url, base), expected, "{url}");
    }
}

#[test]
fn every_mistake_of_a_configuration_is_told() {
    let mut config = config("gs://x", false, roll(Duration::ZERO, 0, Some(0)));
    config.partition_by = vec!["grup".into(), "id".into(), "id".into()];
    config.compression = Some(Compression::Snappy);
    let told: Vec<_> = config.check("ndjson", Some(&schema())).into_iter().map(|problem| problem.key).collect();
    let expected = ["url", "roll.every", "roll.bytes", "roll.rows", "compression", "partition_by.2", "partition_by.0"];
    assert_eq!(told, expected);
}

#[test]
fn settings_that_s3_does_not_have_are_told() {
    let mut config = config("s3://lake", false, Roll::default());
    config.options.insert("acces_key".into(), OptionValue::Bool(true));
    let told = config.check("parquet", Some(&schema()));
    assert_eq!(told.len(), 1);
    assert!(told[0].message.starts_with("`options.acces_key` is not a setting of S3; the usual ones are"), "{told:?}");
}

#[test]
fn a_configuration_reads_as_documented() {
    let yaml = "{ url: ./out, partition_by: [carrier], roll: { every: 5s, bytes: 1MiB }, compression: snappy, \
                options: { allow_http: true, region: eu-west-1, timeout: 5 } }";
    let config: Config = serde_yaml::from_str(yaml).unwrap();
    assert_eq!(config.roll, roll(Duration::from_secs(5), 1 << 20, None));
    assert_eq!(config.options["allow_http"].to_string(), "true");
    assert!(!format!("{config:?}").contains("eu-west-1"), "settings may be secret");
    let error = serde_yaml::from_str::<Config>("{ url: ./out, rol: {} }").unwrap_err().to_string();
    assert!(error.contains("unknown field `rol`"), "{error}");
}
