//! The object_store sink: Parquet, NDJSON or CSV files in a local folder or on S3, each row in exactly one of them.
//!
//! ```text
//!   rows ─▶ writer.rs ─▶ files.rs ─┬ partition.rs   which folder
//!                                  ├ encode.rs      which bytes
//!                                  └ carried.rs     rows of unfinished files, as state
//!          staged by local.rs (rename at commit) or uploads.rs (multipart upload completed at commit)
//! ```
//!
//! File names end with a tag of the deployment's sink and with the run's attempt, so that no two deployments, sinks or
//! runs ever write the same name. A token names a staged file; what no token names is never made visible. Files roll when
//! one of them is old or large enough, not at every epoch: until then their rows are carried as the engine's state. The
//! engine also keeps the rows of staged files until their tokens are confirmed, and `restage.rs` makes a file again from
//! them that has expired.
//!
//! What is staged lies in `_logmill/<deployment>/<pipeline>/<sink>/` below the sink's folder. A deployment is what one
//! data directory runs: it sweeps its own leftovers and touches nobody else's.

mod carried;
mod claims;
mod config;
mod encode;
mod files;
mod limits;
mod local;
mod open_file;
mod partition;
mod pending;
mod restage;
mod sink;
mod store;
mod token;
mod uploads;
mod waiting;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::lines::{TextFormat, TextLines};
pub use config::{Compression, Config, Location, OptionValue, Roll};
pub use encode::FileFormat;
pub use files::Clock;
pub use sink::{SinkContext, kind, sink, sink_on, system_clock};
pub use uploads::Store;
