//! The engine: runs one pipeline in this process, exactly once.
//!
//! ```text
//!   Feed ──chunks──▶ Worker (decode, operators) ──rows──▶ WriterTask (sink)
//!     │  tokio          threads │                    tokio │
//!     └▶ Intake ─▶ topic        └─ positions ─┐  ┌─ tokens ┘      Coordinator ─▶ EpochTransaction ─▶ log
//! ```
//!
//! All queues are bounded in bytes. Readers and writers are async; decoding and operators are not, and run on threads of
//! their own. The [`coordinator`] sends barriers and commits what they bring back; what a run consists of, and how it
//! goes on from the last commit, is put together in [`start`].

mod begin;
mod coordinator;
mod dead_letter;
mod decoding;
mod error;
mod event;
mod feed;
mod graph;
mod in_flight;
mod incarnation;
mod intake;
mod journal;
mod manifest;
mod picker;
mod queue;
mod refused;
mod restore;
mod retry;
mod rounds;
mod sink_state;
mod sinks;
mod start;
mod state;
mod store;
mod topics;
mod transaction;
mod wire;
mod worker;
mod writer;

#[cfg(test)]
mod sink_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use coordinator::Ending;
pub use error::EngineError;
pub(crate) use event::{FeedId, WriterId};
pub(crate) use graph::{Exit, Rejected};
pub use start::has_state;
pub use start::{FreshStart, Outcome, Run, RunError, Takeover};
pub(crate) use wire::{GraphStart, graph as open_graph};
