//! Small benchmarks run to their end, and a report says what was measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use clap::Parser;

use super::report::Report;
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

/// Runs a small benchmark; returns the names of its figures with the rows of each.
async fn check(line: &str) -> Vec<(String, u64)> {
    let scratch = tempfile::tempdir().unwrap();
    let line = Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace())).unwrap();
    let report = match line.arguments.what {
        What::Produce(it) => produce::measure(&it.shape, 2, scratch.path()).await,
        What::Consume(it) => consume::measure(&it.shape, 2, scratch.path()).await,
        What::Pipeline(it) => pipeline::measure(&it.shape, 2, scratch.path()).await,
        What::Kafka(_) => panic!("that measures a server"),
    };
    let report = report.unwrap().json();
    let figures = report["figures"].as_array().unwrap();
    for figure in figures {
        // Measured at all: what never ran would have taken for ever.
        let seconds = figure["best_seconds"].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds < 1e6, "{figure}");
    }
    figures.iter().map(|row| (row["name"].as_str().unwrap().to_owned(), row["rows"].as_u64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_appends_every_record_asked_for() {
    let figures = check("produce --records 1000 --partitions 3 --batch-bytes 4096").await;
    assert_eq!(figures.len(), 2);
    assert!(figures.iter().all(|(_, rows)| *rows == 1000), "{figures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_reads_every_record_of_every_partition() {
    for compression in ["none", "lz4"] {
        let line = format!("consume --records 1000 --partitions 3 --batch-bytes 4096 --compression {compression}");
        let figures = check(&line).await;
        assert_eq!(figures.len(), 3);
        assert!(figures.iter().all(|(_, rows)| *rows == 1000), "{figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_writes_what_the_batch_query_writes() {
    let _shared = crate::engine::tests::ALONE.read().await;
    let figures = check("pipeline --rows 20000").await;
    let last = figures.last().unwrap();
    assert_eq!(last, &("file to filter to Parquet, logmill run".to_owned(), 20_000));
}

#[test]
fn the_best_round_counts_and_is_compared_with_its_limit() {
    let mut report = Report::new("title".into());
    let limit = report.figure("limit", 1_000_000, 10, None);
    let ours = report.figure("ours", 1_000_000, 10, Some(limit));
    for (figure, seconds) in [(limit, 1), (limit, 2), (ours, 4), (ours, 2)] {
        report.took(figure, Duration::from_secs(seconds));
    }
    report.note("said", "first".into());
    report.note("said", "last".into());
    let expected = "title\n\n\
                    \x20           MB/s        rows/s  of limit\n\
                    limit        1.0            10     limit\n\
                    ours         0.5             5      50 %\n\
                    \nsaid: last\n";
    assert_eq!(report.table(), expected);
    assert_eq!(report.json()["figures"][1]["of_limit"], 0.5);
}
