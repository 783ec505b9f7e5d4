//! The topic connector: partitions of the log as a source's splits, and rows as records of the epoch's transaction.
//!
//! ```text
//!   log ─ fetch ─▶ reader.rs ─ aborted and control batches left out ─▶ Records
//!   rows ─ sink.rs ─▶ batches.rs: a record batch a partition ─▶ Transaction::append(epoch, …) ─▶ log
//! ```
//!
//! The sink stages nothing and has no tokens: its records are part of the log transaction that commits the epoch.

mod batches;
mod config;
mod reader;
mod sink;
mod source;
mod text;

#[cfg(test)]
mod tests;

pub use batches::{BatchLimit, RecordWriter};
pub use config::{From, Headers, OnGap, ReadIsolation, SinkConfig, SourceConfig, Until};
pub use sink::{MakeEncoder, check_sink, meta_columns, sink, sink_kind, value_schema};
pub use source::{Ends, bounded_source, position, source, source_kind};
