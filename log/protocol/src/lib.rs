//! Kafka's bytes without I/O: record batches (format v2), their codecs, the hashing that places a key, and the checks
//! that requests pass before they are decoded ([`wire`]).
//!
//! The log stores and serves record batches exactly as they travel, so everything here works on byte slices and
//! looks at as few of them as it can:
//!
//! ```text
//!  0        8            12           16    17      21                                      61
//! +--------+------------+------------+-----+-------+---------------------------------------+-----------
//! | base   | batch      | leader     |magic| crc32c| attributes, last offset delta, times, | records,
//! | offset | length     | epoch      |  2  |       | producer id/epoch/sequence, count     | maybe compressed
//! +--------+------------+------------+-----+-------+---------------------------------------+-----------
//!  \_ patched when appended: [`patch_assigned`] _/         \________ covered by the CRC ___________________
//! ```
//!
//! Appending needs the header and the CRC only ([`BatchView::validate`]); nothing is decompressed before a reader
//! asks for [`BatchView::records`]. Input may be any bytes: every function answers with an error, never a panic, and
//! bounds what it allocates before it allocates.
//!
//! ```
//! use logmill_protocol::{BatchBuilder, BatchLimits, BatchOptions, batches, patch_assigned};
//! use logmill_protocol::{LeaderEpoch, Offset, Timestamp};
//!
//! let mut builder = BatchBuilder::new(BatchOptions::default());
//! builder.append(Timestamp(1_357_016_400_000), Some(b"AA"), Some(b"{\"delay\":3}"), &[("source", Some(b"jfk"))])?;
//! let mut log = builder.finish().unwrap_or_default().to_vec();
//! patch_assigned(&mut log, Offset(1000), LeaderEpoch(1))?;
//!
//! let mut scratch = Vec::new();
//! for batch in batches(&log) {
//!     let batch = batch?;
//!     batch.validate(&BatchLimits::STORED)?;
//!     for record in batch.records(&mut scratch, &BatchLimits::STORED)? {
//!         assert_eq!(record?.offset, Offset(1000));
//!     }
//! }
//! # Ok::<(), logmill_protocol::BatchError>(())
//! ```
//!
//! Format: <https://kafka.apache.org/documentation/#recordbatch>, KIP-98.

mod builder;
mod compression;
mod control;
mod error;
mod header;
mod ids;
mod partition;
mod patch;
mod records;
pub mod varint;
mod view;
pub mod wire;

pub use builder::{BatchBuilder, BatchOptions, ProducerStamp};
pub use compression::{Compression, UnknownCompression};
pub use control::{ControlKind, ControlMarker, control_batch};
pub use error::BatchError;
pub use header::{BatchHeader, HEADER_LEN, TimestampType, advance_sequence};
pub use ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
pub use partition::{murmur2, partition_for_key};
pub use patch::{patch_assigned, patch_log_append_time, restamp_producer};
pub use records::{HeaderIter, HeaderView, RecordView, Records};
pub use view::{BatchLimits, BatchView, batches};
