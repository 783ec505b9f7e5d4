//! Whole runs over a log in memory: what a pipeline takes over from its earlier runs, however those ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod beginning;
mod simulation;
mod stopping;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use logmill_connectors::conformance::memory_log::MemoryLog;
use logmill_connectors::log::{FetchRequest, Isolation, Log, NewTopic, OffsetAt, TopicPartition};
use logmill_connectors::registry::registry;
use logmill_pipelines::{MemoryEnvironment, Pipeline};
use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, BatchView, Offset, Timestamp};
use tokio::sync::watch;

use super::*;
use crate::metrics::Metrics;
use crate::modules::Modules;

/// How many rows the files of these tests have.
pub(super) const ROWS: usize = 40;

/// How a run is to end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Once it has taken everything over, before its first row.
    AtStart,
    /// At a failpoint.
    #[cfg(feature = "failpoints")]
    At(&'static str),
}

/// Failpoints are set for the whole process: a run that dies holds this alone, all other runs share it.
pub(crate) static ALONE: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

pub(super) struct Site {
    folder: tempfile::TempDir,
    log: Arc<MemoryLog>,
}

impl Site {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), log: Arc::new(MemoryLog::default()) }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of rows that count up from 0, with something else as its first line if that is given.
    pub(super) fn rows_file(&self, first: Option<&str>) {
        let lines = (0..ROWS).map(|n| format!("{{\"n\":{n}}}\n"));
        let mut text: Vec<String> = lines.collect();
        if let (Some(first), Some(line)) = (first, text.first_mut()) {
            *line = format!("{first}\n");
        }
        std::fs::write(self.path("in.ndjson"), text.concat()).unwrap();
    }

    async fn topic(&self, name: &str, values: std::ops::Range<usize>) {
        let topic = NewTopic { name: name.into(), partitions: 1, configs: Vec::new() };
        let _ = self.log.create_topic(topic).await;
        self.produce(name, 0, values).await;
    }

    async fn produce(&self, topic: &str, partition: i32, values: std::ops::Range<usize>) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for n in values {
            builder.append(Timestamp(5), None, Some(format!("{{\"n\":{n}}}").as_bytes()), &[]).unwrap();
        }
        let place = TopicPartition { topic: topic.into(), partition };
        self.log.produce(&place, builder.finish().unwrap()).await.unwrap();
    }

    fn pipeline(&self, text: &str) -> Pipeline {
        let read = logmill_pipelines::parse("p.yaml", text, &registry().catalog(), &MemoryEnvironment::default());
        read.unwrap_or_else(|found| panic!("{}", found.render(false)))
    }

    fn prepared(&self, text: &str, fresh: bool) -> (Run, Arc<Metrics>, watch::Sender<bool>) {
        let (tell, stop) = watch::channel(false);
        let metrics = Arc::new(Metrics::new());
        let run = Run {
            pipeline: self.pipeline(text),
            modules: Modules::default(),
            log: self.log.clone(),
            data_dir: self.path("data"),
            base_dir: self.folder.path().to_owned(),
            fresh: fresh.then(FreshStart::default),
            metrics: metrics.clone(),
            stop,
            on_start: Box::new(|_| {}),
        };
        (run, metrics, tell)
    }

    /// Runs to the end of the input; what went wrong, if something did.
    pub(super) async fn run(&self, text: &str, fresh: bool) -> Result<Outcome, String> {
        let _shared = ALONE.read().await;
        let (run, _, _keep) = self.prepared(text, fresh);
        run.execute().await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// Runs until all rows of the file are read, and stops then.
    async fn run_and_stop(&self, text: &str) {
        self.stop_when(text, async |metrics| metrics.rows_read() >= ROWS as u64).await;
    }

    /// Runs until something holds, and stops then.
    async fn stop_when(&self, text: &str, holds: impl AsyncFn(&Metrics) -> bool) {
        let _shared = ALONE.read().await;
        let (run, metrics, tell) = self.prepared(text, false);
        let mut running = std::pin::pin!(run.execute());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !holds(&metrics).await {
            assert!(tokio::time::Instant::now() < deadline, "what is waited for does not come");
            tokio::select! {
                ended = &mut running => panic!("ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        tell.send_replace(true);
        assert_eq!(running.await.unwrap().ending, Ending::Stopped);
    }

    /// Runs, and dies as a killed process does: nothing is tidied up.
    pub(super) async fn die(&self, text: &str, fresh: bool, death: Death) {
        self.die_beginning(text, fresh.then(FreshStart::default), death).await;
    }

    /// The same of a fresh start that is told to delete what was played.
    async fn die_deleting(&self, text: &str, death: Death) {
        self.die_beginning(text, Some(FreshStart { delete_through_records: true }), death).await;
    }

    async fn die_beginning(&self, text: &str, fresh: Option<FreshStart>, death: Death) {
        let _alone = ALONE.write().await;
        let (mut run, _, _keep) = self.prepared(text, fresh.is_some());
        run.fresh = fresh;
        match death {
            Death::AtStart => run.on_start = Box::new(|_| panic!("killed")),
            #[cfg(feature = "failpoints")]
            Death::At(point) => fail::cfg(point, "panic(killed)").unwrap(),
        }
        assert!(std::panic::AssertUnwindSafe(run.execute()).catch_unwind().await.is_err());
        #[cfg(feature = "failpoints")]
        if let Death::At(point) = death {
            fail::remove(point);
        }
    }

    /// Whether nothing was committed to the first partition of a topic.
    pub(super) async fn is_empty(&self, topic: &str) -> bool {
        let partition = TopicPartition { topic: topic.into(), partition: 0 };
        let end = self.log.offset(&partition, OffsetAt::Latest(Isolation::ReadCommitted)).await.unwrap();
        end == self.log.offset(&partition, OffsetAt::Earliest).await.unwrap()
    }

    /// The committed values of a topic, sorted.
    pub(super) async fn values(&self, topic: &str) -> Vec<usize> {
        let mut values = Vec::new();
        for partition in 0..self.log.topic(topic).await.unwrap().unwrap().partitions {
            let partition = TopicPartition { topic: topic.into(), partition };
            let end = self.log.offset(&partition, OffsetAt::Latest(Isolation::ReadCommitted)).await.unwrap();
            let mut offset = self.log.offset(&partition, OffsetAt::Earliest).await.unwrap();
            while offset < end {
                let isolation = Isolation::ReadCommitted;
                let request = FetchRequest { partition: partition.clone(), offset, max_bytes: 1 << 20, isolation };
                let fetched = self.log.fetch(&request).await.unwrap();
                values.extend(rows_of(&fetched.batches, offset, &fetched.aborted));
                offset = fetched.next_offset;
            }
        }
        values.sort_unstable();
        values
    }

    /// The rows in the files of the lake, sorted.
    pub(super) fn lake(&self) -> Vec<usize> {
        let mut rows = Vec::new();
        gather(&self.path("lake"), &mut rows);
        rows.sort_unstable();
        rows
    }
}

fn number(value: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(value).unwrap();
    value["n"].as_u64().unwrap() as usize
}

fn rows_of(batches: &[u8], from: Offset, aborted: &[(logmill_protocol::ProducerId, Offset)]) -> Vec<usize> {
    assert!(aborted.is_empty(), "these tests read topics without aborted records");
    let (mut rest, mut rows, mut scratch) = (batches, Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (batch, after) = BatchView::parse(rest).unwrap();
        if !batch.header().is_control() {
            for record in batch.records(&mut scratch, &BatchLimits::STORED).unwrap().map(Result::unwrap) {
                if record.offset >= from {
                    rows.push(number(record.value.unwrap()));
                }
            }
        }
        rest = after;
    }
    rows
}

pub(super) fn gather(folder: &Path, rows: &mut Vec<usize>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        // What is staged is hidden.
        if entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            continue;
        }
        if entry.path().is_dir() {
            gather(&entry.path(), rows);
        } else {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            rows.extend(text.lines().map(|line| number(line.as_bytes())));
        }
    }
}

/// A file into a lake whose files roll at the end only, and into a topic.
pub(super) fn lake(source: &str) -> String {
    format!(
        "pipeline: p\n\
         sources:\n\
        \x20 a: {{ type: file, path: in.ndjson, format: json, schema: {{ n: int64 }}{source} }}\n\
         sinks:\n\
        \x20 lake: {{ type: object_store, input: a, url: ./lake, format: json, roll: {{ every: 1h }} }}\n\
        \x20 out: {{ type: topic, input: a, topic: out, format: json }}\n\
         commit: {{ every: 20ms }}\n"
    )
}

pub(super) fn times(times: usize) -> Vec<usize> {
    (0..ROWS).flat_map(|n| std::iter::repeat_n(n, times)).collect()
}

/// Rows in the lake are carried and rows in the topic committed, then a fresh start dies.
async fn check_fresh(source: &str, death: Death, in_topic: usize) {
    let site = Site::new();
    site.rows_file(None);
    site.run_and_stop(&lake(&format!("{source}, follow: true"))).await;
    assert_eq!(site.values("out").await, times(1));
    site.die(&lake(source), true, death).await;
    let outcome = site.run(&lake(source), false).await.unwrap_or_else(|error| panic!("{death:?}{source}: {error}"));
    let rows_before = if in_topic == 1 { ROWS as u64 } else { 0 };
    assert_eq!(outcome.takeover.rows_before, rows_before, "{death:?}{source}");
    assert_eq!(site.values("out").await, times(in_topic), "{death:?}{source}");
    assert_eq!(site.lake(), times(1), "{death:?}{source}");
    if !source.is_empty() {
        assert_eq!(site.values("played").await, times(in_topic), "{death:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_that_dies_leaves_a_pipeline_that_runs() {
    for source in ["", ", through: played"] {
        check_fresh(source, Death::AtStart, 2).await;
        #[cfg(feature = "failpoints")]
        {
            check_fresh(source, Death::At("engine::before_new_incarnation"), 1).await;
            check_fresh(source, Death::At("engine::after_new_incarnation"), 2).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_that_stops_at_its_first_record_leaves_a_pipeline_that_runs() {
    let site = Site::new();
    site.rows_file(None);
    site.run_and_stop(&lake(", follow: true")).await;
    site.rows_file(Some("{\"n\":\"?\"}"));
    let error = site.run(&lake(""), true).await.unwrap_err();
    assert!(error.contains("in.ndjson:1"), "{error}");
    site.rows_file(None);
    site.run(&lake(""), false).await.unwrap();
    assert_eq!(site.lake(), times(1));
    assert_eq!(site.values("out").await, times(2));
}

/// A pipeline of these sources, all of whose rows go to `out`.
fn union(sources: &[(&str, &str)]) -> String {
    let mut text = "pipeline: p\nsources:\n".to_owned();
    for (name, keys) in sources {
        text.push_str(&format!("  {name}: {{ format: json, schema: {{ n: int64 }}, {keys} }}\n"));
    }
    let selects: Vec<_> = sources.iter().map(|(name, _)| format!("SELECT n FROM {name}")).collect();
    text.push_str(&format!("operators:\n  all: {{ sql: {} }}\n", selects.join(" UNION ALL ")));
    text.push_str("sinks:\n  out: { type: topic, input: all, topic: out, format: json }\n");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_added_again_is_read_from_its_beginning() {
    const OTHER: (&str, &str) = ("b", "type: topic, topic: z, until: end");
    // What else is read while the source is gone, if anything.
    for new_rows in [true, false] {
        let site = Site::new();
        site.topic("x", 0..5).await;
        site.topic("y", 10..13).await;
        site.topic("z", 20..21).await;
        site.run(&union(&[("a", "type: topic, topic: x, until: end"), OTHER]), false).await.unwrap();
        if new_rows {
            site.topic("z", 21..22).await;
        }
        let outcome = site.run(&union(&[OTHER]), false).await.unwrap();
        assert!(outcome.takeover.accepted_changes[0].contains("`a` is gone: its positions are forgotten"));
        let outcome = site.run(&union(&[("a", "type: topic, topic: y, until: end"), OTHER]), false).await.unwrap();
        assert!(outcome.takeover.accepted_changes[0].contains("`a` is new: read from its beginning"));
        let end = if new_rows { 22 } else { 21 };
        assert_eq!(site.values("out").await, [0..5, 10..13, 20..end].into_iter().flatten().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_played_again_does_not_meet_what_was_played_before() {
    const PLAYED: (&str, &str) = ("a", "type: file, path: in.ndjson, through: played");
    const OTHER: (&str, &str) = ("b", "type: topic, topic: z, until: end");
    let site = Site::new();
    site.rows_file(None);
    site.topic("z", 0..1).await;
    // Somebody else has written to the topic before.
    site.topic("played", 5..7).await;
    site.run(&union(&[PLAYED, OTHER]), false).await.unwrap();
    let mut expected = [times(1), vec![0]].concat();
    expected.sort_unstable();
    assert_eq!(site.values("out").await, expected);
    site.run(&union(&[OTHER]), false).await.unwrap();
    site.run(&union(&[PLAYED, OTHER]), false).await.unwrap();
    expected.extend(times(1));
    expected.sort_unstable();
    assert_eq!(site.values("out").await, expected);
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_visible_is_not_asked_for_again() {
    let site = Site::new();
    site.rows_file(None);
    site.die(&lake(""), false, Death::At("engine::before_tokens")).await;
    assert!(site.lake().is_empty());
    site.run(&lake(""), false).await.unwrap();
    assert_eq!(site.lake(), times(1));
    // Whoever owns the files takes them away.
    std::fs::remove_dir_all(site.path("lake")).unwrap();
    site.run(&lake(""), false).await.unwrap();
}
