//! Runs that are stopped at any moment, sources that end while others go on, and pipelines that have nothing to do.

use super::*;
use crate::engine::restore;
use crate::engine::store::CheckpointStore;

/// How many files a stopped run reads, and the rows of each.
const FILES: usize = 60;
const ROWS_A_FILE: usize = 100;

impl Site {
    fn many_files(&self, folder: &str, numbers: std::ops::Range<usize>) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        for file in numbers {
            let row = |n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(100));
            let rows: String = (file * ROWS_A_FILE..(file + 1) * ROWS_A_FILE).map(row).collect();
            std::fs::write(self.path(&format!("{folder}/{file:03}.ndjson")), rows).unwrap();
        }
    }

    /// The tokens that the committed manifest names.
    async fn tokens(&self, text: &str) -> usize {
        let name = self.pipeline(text).spec.pipeline;
        let store = CheckpointStore::open(self.path("data").join("checkpoints").join(&name)).await.unwrap();
        let log: Arc<dyn Log> = self.log.clone();
        let manifest = restore::read_manifest(&log, &store, &name, false).await.unwrap();
        manifest.sinks.values().map(|sink| sink.tokens().count()).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_at_any_moment_a_pipeline_writes_what_an_undisturbed_one_does() {
    const TEXT: &str = "pipeline: p\n\
        topics:\n\
        \x20 played: { partitions: 3 }\n\
        sources:\n\
        \x20 a: { type: file, path: 'in/*.ndjson', format: json, schema: { n: int64, text: string }, through: played }\n\
        sinks:\n\
        \x20 lake: { type: object_store, input: a, url: ./lake, format: json, roll: { every: 5ms } }\n\
        \x20 out: { type: topic, input: a, topic: out, format: json, batch_bytes: 1KiB }\n\
        commit: { every: 10ms }\n";
    let _shared = ALONE.read().await;
    let mut random = fastrand::Rng::with_seed(1);
    let expected: Vec<_> = (0..FILES * ROWS_A_FILE).collect();
    for round in 0..3 {
        let site = Site::new();
        site.many_files("in", 0..FILES);
        let mut stops = 0;
        loop {
            let (run, _, tell) = site.prepared(TEXT, false);
            let mut running = Box::pin(run.execute());
            let moment = Duration::from_micros(random.u64(1_000..60_000));
            let outcome = match tokio::time::timeout(moment, &mut running).await {
                Ok(ended) => ended,
                Err(_) => {
                    tell.send_replace(true);
                    stops += 1;
                    running.await
                }
            };
            if outcome.unwrap().ending == Ending::Finished {
                break;
            }
        }
        assert_eq!(site.values("out").await, expected, "round {round}, {stops} stops");
        assert_eq!(site.lake(), expected, "round {round}, {stops} stops");
        assert_eq!(site.values("played").await, expected, "round {round}, {stops} stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ends_while_another_is_played_keeps_its_tail() {
    const TEXT: &str = "pipeline: p\n\
        sources:\n\
        \x20 a: { type: file, path: 'a/*.ndjson', format: json, schema: { n: int64, text: string }, through: a }\n\
        \x20 b: { type: file, path: 'b/*.ndjson', format: json, schema: { n: int64, text: string }, through: b }\n\
        operators:\n\
        \x20 all: { sql: SELECT n FROM a UNION ALL SELECT n FROM b }\n\
        sinks:\n\
        \x20 out: { type: topic, input: all, topic: out, format: json }\n\
        commit: { every: 1ms }\n";
    for round in 0..8 {
        let site = Site::new();
        let (few, more) = (2 + round, 12);
        site.many_files("a", 0..few);
        site.many_files("b", few..few + more);
        site.run(TEXT, false).await.unwrap();
        let expected: Vec<_> = (0..(few + more) * ROWS_A_FILE).collect();
        assert_eq!(site.values("out").await, expected, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pipeline_confirms_what_is_visible_and_then_writes_nothing() {
    let text = lake(", follow: true").replace("every: 1h", "every: 10ms");
    let site = Site::new();
    site.rows_file(None);
    {
        let _shared = ALONE.read().await;
        let (run, metrics, _tell) = site.prepared(&text, false);
        let mut running = std::pin::pin!(run.execute());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut commits = 0;
        while site.lake() != times(1) || site.tokens(&text).await > 0 || metrics.snapshot().commits != commits {
            assert!(tokio::time::Instant::now() < deadline, "{} tokens are left", site.tokens(&text).await);
            commits = metrics.snapshot().commits;
            tokio::select! {
                ended = &mut running => panic!("ended: {ended:?}"),
                // Several times the distance of commits: an idle pipeline would have made another.
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
        // Dropped here without a last commit, as by a kill.
    }
    // Whoever owns the files takes them away.
    std::fs::remove_dir_all(site.path("lake")).unwrap();
    site.run(&lake("").replace("every: 1h", "every: 10ms"), false).await.unwrap();
    assert_eq!(site.lake(), Vec::<usize>::new());
}
