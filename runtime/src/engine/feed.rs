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
use logmill_connectors::source::{Chunk, ChunkData, Source};
use logmill_pipelines::flow::{Positions, SplitId, state_shard};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::EngineError;
use super::event::{Event, FeedId};
use super::queue::Sender;
use super::retry;

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
            let mut reader = retry::transient(|| source.open(&split, position.as_ref())).await?;
            while let Some(chunk) = reader.next().await? {
                let bytes = chunk_bytes(&chunk);
                if outlet
                    .send(Input::Chunk { feed, split: split.clone(), chunk: Box::new(chunk) }, bytes)
                    .await
                    .is_err()
                {
                    return Ok(());
                }
            }
            let _ = outlet.send_weightless(Input::SplitEnd { feed });
            Ok(())
        }
    }
}

/// What a chunk counts for in a queue.
fn chunk_bytes(chunk: &Chunk) -> usize {
    match &chunk.data {
        ChunkData::Records(records) => records.buffer.len() + records.len() * size_of::<(usize, usize)>(),
        ChunkData::Rows(batch) => batch.size_bytes(),
    }
}
