//! The object_store sink: Parquet, NDJSON or CSV files in a local folder or on S3, each row in exactly one of them.
//!
//! ```text
//!   rows ─▶ writer.rs ─▶ files.rs ─┬ partition.rs   which folder
//!                                  ├ encode.rs      which bytes
//!                                  └ carried.rs     rows of unfinished files, as state
//!          staged by local.rs (rename at commit) or uploads.rs (multipart upload completed at commit)
//! ```
//!
//! File names end with a tag of the sink and the run's attempt, so that no two sinks or runs ever write the same name. A token names a staged file;
//! what no token names is never made visible. Files roll when one of them is old or large enough, not at every epoch:
//! until then their rows are carried as the engine's state.

mod carried;
mod claims;
mod config;
mod encode;
mod files;
mod local;
mod partition;
mod pending;
mod sink;
mod store;
mod token;
mod uploads;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::lines::{TextFormat, TextLines};
pub use config::{Compression, Config, Location, OptionValue, Roll};
pub use encode::FileFormat;
pub use files::Clock;
pub use sink::{SinkContext, kind, sink, sink_on, system_clock};
pub use uploads::Store;
