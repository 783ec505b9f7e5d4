//! What exists: topics, their partitions and configs, and which producer ids are taken.
//!
//! ```text
//!   proposer ──▶ command ──▶ durable command log ──▶ Metadata::apply ──▶ Metadata
//!                                     │                                      │
//!                                     └── trimmed up to ◀── snapshot ◀───────┘
//! ```
//!
//! [`state`] is a deterministic state machine without clock, randomness or I/O, so that the log that feeds it may be
//! this node's alone or that of a quorum. `log` is this node's.

pub(crate) mod log;
mod snapshot;
pub mod state;

pub(crate) use log::MetadataLog;
pub use state::{Applied, Command, Metadata, Rejected, Topic, TopicId};
