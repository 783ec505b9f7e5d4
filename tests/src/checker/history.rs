//! What clients did and saw: the evidence that the checker judges.
//!
//! A history is a list of processes, each with its events in the order in which the process made them. Times are those
//! of one clock, so that events of different processes compare: what ended before something else was called came first.

use std::fmt;
use std::sync::Arc;

/// Microseconds since the history began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub topic: Arc<str>,
    pub index: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// What a record says: who sent it, and which of the records that its sender sent it is. No two sends share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    pub producer: u32,
    pub sequence: u64,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.producer, self.sequence)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Acknowledged { at: Time },
    /// It took no effect, and never will.
    Failed { at: Time },
    /// It may have taken effect, or may yet.
    Unknown,
}

impl Outcome {
    /// When it was acknowledged.
    pub fn acknowledged(self) -> Option<Time> {
        match self {
            Self::Acknowledged { at } => Some(at),
            Self::Failed { .. } | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged { at } => write!(f, "acknowledged at {at}"),
            Self::Failed { at } => write!(f, "refused at {at}"),
            Self::Unknown => f.write_str("never answered"),
        }
    }
}

/// A record sent.
#[derive(Clone, Debug)]
pub struct Send {
    pub partition: Partition,
    pub value: Value,
    pub called: Time,
    pub outcome: Outcome,
    /// Where the acknowledgement says it lies, if it says so.
    pub offset: Option<i64>,
    /// The transaction of the process that it is part of.
    pub transaction: Option<u64>,
}

/// The end of a transaction of the process.
#[derive(Clone, Debug)]
pub struct EndTransaction {
    pub transaction: u64,
    pub commit: bool,
    pub called: Time,
    pub outcome: Outcome,
}

/// Records of one partition that came out of one poll, in their order.
#[derive(Clone, Debug)]
pub struct Poll {
    pub partition: Partition,
    pub at: Time,
    pub records: Vec<(i64, Value)>,
}

/// Where a process begins to read a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At an offset of its choice.
    Offset(i64),
    /// At what its group has committed.
    Committed,
}

/// The process reads a partition from now on, from a place that has nothing to do with what it read before.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub partition: Partition,
    pub at: Time,
    pub from: From,
}

/// The process has read a partition to its end, which was `end` (exclusive) at the time.
#[derive(Clone, Debug)]
pub struct Drained {
    pub partition: Partition,
    pub at: Time,
    pub end: i64,
}

/// The group of the process is to resume at `offset`.
#[derive(Clone, Debug)]
pub struct Commit {
    pub partition: Partition,
    pub offset: i64,
    pub called: Time,
    pub outcome: Outcome,
}

/// One thing that a process did or saw.
#[derive(Clone, Debug)]
pub enum Event {
    Send(Send),
    EndTransaction(EndTransaction),
    Assigned(Assigned),
    Poll(Poll),
    Drained(Drained),
    Commit(Commit),
}

/// One client: what it does, it does one after another.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub name: String,
    /// The group that it reads for, which begins at the start of each partition.
    pub group: Option<String>,
    /// Whether it reads only what is committed.
    pub read_committed: bool,
    pub events: Vec<Event>,
}

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub processes: Vec<Process>,
}

impl History {
    /// Each event with its process.
    pub fn events(&self) -> impl Iterator<Item = (&Process, &Event)> {
        self.processes.iter().flat_map(|process| process.events.iter().map(move |event| (process, event)))
    }

    /// How many sends were acknowledged.
    pub fn acknowledged(&self) -> usize {
        let acknowledged = |event: &Event| matches!(event, Event::Send(send) if send.outcome.acknowledged().is_some());
        self.events().filter(|(_, event)| acknowledged(event)).count()
    }
}
