//! One partition on one disk: segments of record batches in Kafka's own format, byte for byte as they are fetched.
//!
//! ```text
//!            log start                  LSO         HW         durable        LEO (exclusive, as HW and LSO)
//!  offsets      |------------------------|-----------|------------|------------|
//!  segments  [ 0.log         ][ 1000.log           ][ 2000.log  (active)       ]
//!               deleted by      closed: indexes        appended to by one
//!               retention       on disk                writer at a time
//! ```
//!
//! - [`PartitionLog`] appends, reads, recovers, truncates and deletes. It is synchronous and shared freely.
//! - [`Flusher`] lets many callers share one `fdatasync`.
//! - Nothing here decodes a record, except to find the first at or after a timestamp.
//!
//! What holds, whatever happens:
//! 1. An append is either wholly in the file and in memory, or in neither.
//! 2. Offsets below [`PartitionLog::durable`] survive power loss; recovery cuts only above the recovery point, keeps
//!    what it cuts, and reports damage below it instead of going on.
//! 3. Index files hold nothing that the batches do not: a lost one is rebuilt.

mod append;
mod buffers;
mod checkpoint;
mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod damage;
mod entry_file;
mod error;
mod files;
mod flusher;
mod index;
mod leader_epochs;
mod log;
mod log_dir;
mod names;
mod open_segments;
mod producers;
mod read;
mod recovery;
mod replay;
mod retention;
mod scan;
mod segment;
mod slice;
mod snapshot;
mod survey;
mod sync;
#[cfg(test)]
mod tests;
mod time_search;
mod transactions;
mod truncate;
mod txn_index;

pub use append::{Appended, EndTransaction};
pub use config::LogConfig;
pub use damage::Damage;
pub use error::{Result, StorageError};
pub use flusher::{Flusher, MAX_WAITERS};
pub use log::PartitionLog;
pub use names::damaged as damaged_file_name;
pub use open_segments::{limit_open_segments, open_segments};
pub use producers::{BATCHES_KEPT, BatchMeta, ProducerState};
pub use read::ReadBatches;
pub use recovery::{CutTail, Recovery};
pub use retention::{DeletedSegment, DeletionReason};
pub use slice::{LogSlice, SliceRequest, Sliced};
pub use transactions::OpenTxn;
pub use txn_index::AbortedTxn;
