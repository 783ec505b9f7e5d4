//! What every bounded source is held to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use logmill_pipelines::flow::{Position, SplitId};

use crate::source::{Chunk, ChunkData, Source};

/// All that a split holds from some place on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// The values of its records, with their offsets and, where lines are counted, the number of their lines.
    pub records: Vec<(i64, u64, Option<Vec<u8>>)>,
    /// Its rows.
    pub rows: Option<RecordBatch>,
}

impl Content {
    fn push(&mut self, chunk: &Chunk) {
        match &chunk.data {
            ChunkData::Records(records) => {
                assert!(!records.is_empty(), "a chunk of no records is worth nothing");
                assert_eq!(records.offsets.len(), records.len());
                for index in 0..records.len() {
                    let line = if records.first_line == 0 { 0 } else { records.first_line + index as u64 };
                    self.records.push((records.offsets[index], line, records.value(index).map(<[u8]>::to_vec)));
                }
            }
            ChunkData::Rows(batch, rejected) => {
                assert_eq!(rejected, &[], "all rows are sound");
                let rows = self.rows.take().map_or_else(
                    || batch.rows.clone(),
                    |rows| concat_batches(&rows.schema(), [&rows, &batch.rows]).unwrap(),
                );
                self.rows = Some(rows);
            }
        }
    }
}

/// Reads a split from a position to its end.
///
/// # Panics
/// If the source fails.
pub async fn read(source: &dyn Source, split: &SplitId, position: Option<&Position>) -> (Vec<Position>, Content) {
    let mut reader = source.open(split, position).await.expect("the split can be opened");
    let (mut positions, mut content) = (Vec::new(), Content::default());
    while let Some(chunk) = reader.next().await.expect("the split can be read") {
        content.push(&chunk);
        positions.push(chunk.position);
    }
    for _ in 0..2 {
        assert!(reader.next().await.expect("the end stays the end").is_none(), "the end is told again");
    }
    (positions, content)
}

/// Holds a source that ends to the contract. Returns what it read, split by split.
///
/// # Panics
/// Where the source breaks it.
pub async fn check_bounded(source: &dyn Source) -> Vec<(SplitId, Content)> {
    let found = source.discover(&BTreeSet::new()).await.expect("splits are found");
    assert!(found.complete, "a bounded source has all its splits at once");
    let known: BTreeSet<_> = found.new.iter().cloned().collect();
    assert_eq!(known.len(), found.new.len(), "each split is found once");
    assert!(source.discover(&known).await.unwrap().new.is_empty(), "what is known is not new");
    let starts = source.start_positions().await.expect("the source can tell where it begins");
    assert!(starts.keys().all(|split| known.contains(split)), "it begins in splits that are found: {starts:?}");
    let mut contents = Vec::new();
    for split in found.new {
        let (positions, whole) = read(source, &split, None).await;
        resumes_at_every_position(source, &split, &positions, &whole).await;
        a_call_that_is_dropped_takes_nothing(source, &split, &whole).await;
        contents.push((split, whole));
    }
    contents
}

async fn resumes_at_every_position(source: &dyn Source, split: &SplitId, positions: &[Position], whole: &Content) {
    for (chunks, position) in positions.iter().enumerate() {
        // What was read up to here, and what a new reader reads from here, is all of it.
        let mut content = Content::default();
        let mut reader = source.open(split, None).await.unwrap();
        for _ in 0..=chunks {
            content.push(&reader.next().await.unwrap().unwrap());
        }
        // A position comes back as text.
        let saved: Position = serde_json::from_str(&serde_json::to_string(position).unwrap()).unwrap();
        let mut reader = source.open(split, Some(&saved)).await.unwrap();
        while let Some(chunk) = reader.next().await.unwrap() {
            content.push(&chunk);
        }
        assert_eq!(&content, whole, "resumed at {position:?}");
    }
}

async fn a_call_that_is_dropped_takes_nothing(source: &dyn Source, split: &SplitId, whole: &Content) {
    let mut reader = source.open(split, None).await.unwrap();
    let mut content = Content::default();
    loop {
        // Polled once and dropped, as a `select!` does that goes another way.
        tokio::select! {
            biased;
            chunk = reader.next() => match chunk.unwrap() {
                Some(chunk) => content.push(&chunk),
                None => break,
            },
            () = tokio::time::sleep(Duration::ZERO) => {}
        }
    }
    assert_eq!(&content, whole);
}
