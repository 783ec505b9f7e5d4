//! A feed: all splits of one source, read by tasks of their own into the queues of those who process them.
//!
//! ```text
//!   discover ─▶ split ─▶ reader task ──chunk──▶ queue of worker (split number mod workers)
//! ```
//!
//! Where operators have state, a split goes to the worker that has its shard of the state: shard mod workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logmill_connectors::error::ConnectorError;
use logmill_connectors::source::{Chunk, ChunkData, Reader, Source};
use logmill_pipelines::flow::{Position, Positions, SplitId, size_bytes, state_shard};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::EngineError;
use super::event::{Event, FeedId};
use super::queue::Sender;
use super::retry::{self, Backoff};

/// How many splits of a bounded source are read at a time.
const OPEN_SPLITS: usize = 64;
/// How often a source that may grow is asked for new splits.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// What a feed puts in the queues.
pub(crate) enum Input {
    /// A piece of a split.
    Chunk {
        /// Whose split it is.
        feed: FeedId,
        /// The split.
        split: SplitId,
        /// The piece.
        chunk: Box<Chunk>,
    },
    /// The split has ended.
    SplitEnd {
        /// Whose split it was.
        feed: FeedId,
    },
}

/// All splits of one source.
pub(crate) struct Feed {
    /// Its number among the feeds of the run.
    pub(crate) id: FeedId,
    /// The source's name.
    pub(crate) name: String,
    /// Where its splits come from.
    pub(crate) source: Arc<dyn Source>,
    /// Where the splits go on.
    pub(crate) positions: Positions,
    /// The queues to fill.
    pub(crate) outlets: Vec<Sender<Input>>,
    /// Whether a split goes where the state of its shard is.
    pub(crate) by_shard: bool,
}

impl Feed {
    /// Reads until all splits have ended; tells the coordinator how many there were, or what went wrong.
    pub(crate) async fn run(self, events: mpsc::UnboundedSender<Event>) {
        let (id, name) = (self.id, self.name.clone());
        let event = match self.read_all().await {
            Ok(splits) => Event::FeedComplete { feed: id, splits },
            Err(error) => Event::Failed(EngineError::source(&name, error)),
        };
        // Nobody listens any more once the run has ended.
        let _ = events.send(event);
    }

    async fn read_all(self) -> Result<usize, ConnectorError> {
        self.source.resume(&self.positions)?;
        let mut known = BTreeSet::new();
        let mut waiting = std::collections::VecDeque::new();
        let mut readers = JoinSet::new();
        let mut complete = false;
        loop {
            if !complete {
                let found = retry::transient(|| self.source.discover(&known)).await?;
                complete = found.complete;
                for split in found.new {
                    if known.insert(split.clone()) {
                        waiting.push_back((known.len(), split));
                    }
                }
            }
            while !waiting.is_empty() && (!complete || readers.len() < OPEN_SPLITS) {
                if let Some((number, split)) = waiting.pop_front() {
                    readers.spawn(self.split_reader(number, split));
                }
            }
            if complete && readers.is_empty() {
                return Ok(known.len());
            }
            tokio::select! {
                Some(ended) = readers.join_next() => match ended {
                    Ok(result) => result?,
                    Err(panic) => return Err(ConnectorError::Permanent {
                        context: "a reader stopped unexpectedly".to_owned(),
                        source: Box::new(panic),
                    }),
                },
                () = tokio::time::sleep(DISCOVERY_INTERVAL), if !complete => {}
            }
        }
    }

    fn split_reader(&self, number: usize, split: SplitId) -> impl Future<Output = Result<(), ConnectorError>> + use<> {
        let (feed, source) = (self.id, self.source.clone());
        let position = self.positions.get(&split).cloned();
        let number = if self.by_shard { state_shard(&split) as usize } else { number };
        let outlet = self.outlets.get(number % self.outlets.len().max(1)).cloned();
        async move {
            let Some(outlet) = outlet else { return Ok(()) };
            let mut reader = SplitReader { source, split, position, reader: None, backoff: Backoff::default() };
            while let Some(chunk) = reader.next().await? {
                let bytes = chunk_bytes(&chunk);
                let chunk = Input::Chunk { feed, split: reader.split.clone(), chunk: Box::new(chunk) };
                if outlet.send(chunk, bytes).await.is_err() {
                    return Ok(());
                }
            }
            let _ = outlet.send_weightless(Input::SplitEnd { feed });
            Ok(())
        }
    }
}

/// Reads a split; after a transient error it opens the split again at the position that it has reached. How often in a row
/// is bounded, and each chunk begins a new row.
struct SplitReader {
    source: Arc<dyn Source>,
    split: SplitId,
    /// Where the next chunk begins; the split's beginning if absent.
    position: Option<Position>,
    reader: Option<Box<dyn Reader>>,
    backoff: Backoff,
}

impl SplitReader {
    /// The next chunk; `None` at the end of the split.
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        loop {
            match self.try_next().await {
                Ok(Some(chunk)) => {
                    self.backoff.reset();
                    self.position = Some(chunk.position.clone());
                    return Ok(Some(chunk));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.reader = None;
                    self.backoff.wait_after(error).await?;
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(self.source.open(&self.split, self.position.as_ref()).await?),
        };
        reader.next().await
    }
}

/// What a chunk counts for in a queue.
fn chunk_bytes(chunk: &Chunk) -> usize {
    match &chunk.data {
        ChunkData::Records(records) => records.buffer.len() + records.len() * size_of::<(usize, usize)>(),
        ChunkData::Rows(batch, rejected) => {
            size_bytes(&batch.rows) + rejected.iter().map(|row| row.value.len() + size_of_val(row)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use async_trait::async_trait;
    use logmill_connectors::source::{Discovery, Records};
    use parking_lot::Mutex;
    use serde_json::json;

    /// What a reader does that is about to deliver a chunk: fail, or deliver it.
    type Script = Arc<Mutex<dyn FnMut(u64) -> Option<ConnectorError> + Send>>;

    /// A source of one split of `CHUNKS` chunks, whose readers follow a script.
    struct Flaky(Script);

    const CHUNKS: u64 = 8;

    struct FlakyReader {
        script: Script,
        next: u64,
    }

    #[async_trait]
    impl Source for Flaky {
        async fn discover(&self, _: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError> {
            Ok(Discovery { new: vec![SplitId::new("0")], complete: true })
        }

        async fn start_positions(&self) -> Result<Positions, ConnectorError> {
            Ok(Positions::new())
        }

        async fn open(&self, _: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
            let next = position.map_or(0, |position| position.0.as_u64().unwrap());
            Ok(Box::new(FlakyReader { script: self.0.clone(), next }))
        }

        async fn epoch_safe(&self, _: &Positions) -> Result<(), ConnectorError> {
            Ok(())
        }

        async fn size_hint(&self) -> Option<u64> {
            None
        }
    }

    #[async_trait]
    impl Reader for FlakyReader {
        async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
            if let Some(error) = (self.script.lock())(self.next) {
                // A reader that failed is of no use any more.
                self.next = u64::MAX;
                return Err(error);
            }
            if self.next >= CHUNKS {
                return Ok(None);
            }
            self.next += 1;
            let data = ChunkData::Records(Records::default());
            Ok(Some(Chunk { data, position: Position(json!(self.next)), bytes_read: 0 }))
        }
    }

    /// The positions that a feed hands over, and how it ends.
    async fn read(script: impl FnMut(u64) -> Option<ConnectorError> + Send + 'static) -> (Vec<u64>, bool) {
        let (outlet, mut queue) = super::super::queue::channel(1 << 20);
        let feed = Feed {
            id: FeedId(0),
            name: "s".into(),
            source: Arc::new(Flaky(Arc::new(Mutex::new(script)))),
            positions: Positions::new(),
            outlets: vec![outlet],
            by_shard: false,
        };
        let (events, mut told) = mpsc::unbounded_channel();
        feed.run(events).await;
        let mut positions = Vec::new();
        while let Some(lease) = queue.recv().await {
            if let Input::Chunk { chunk, .. } = lease.item {
                positions.push(chunk.position.0.as_u64().unwrap());
            }
        }
        (positions, matches!(told.recv().await, Some(Event::FeedComplete { splits: 1, .. })))
    }

    fn transient() -> ConnectorError {
        ConnectorError::Transient { context: "read".into(), source: "reset by peer".into() }
    }

    #[tokio::test]
    async fn a_split_is_read_on_after_transient_errors_and_each_chunk_begins_a_new_count() {
        let mut failures = 0;
        let (positions, complete) = read(move |at| {
            // Four errors before each chunk: more in all than are borne in a row.
            failures += 1;
            (failures % 5 != 0).then(transient).filter(|_| at < CHUNKS)
        })
        .await;
        assert_eq!((positions, complete), ((1..=CHUNKS).collect(), true));
    }

    #[tokio::test]
    async fn a_split_that_keeps_failing_or_fails_for_good_is_reported() {
        let (positions, complete) = read(|at| (at >= 3).then(transient)).await;
        assert_eq!((positions, complete), (vec![1, 2, 3], false));
        let mut calls = 0;
        let (positions, complete) = read(move |at| {
            calls += 1;
            assert!(calls <= 4, "tried again");
            (at == 3).then(|| ConnectorError::Config("no".into()))
        })
        .await;
        assert_eq!((positions, complete), (vec![1, 2, 3], false));
    }
}
