//! The file source: lines, or rows, of files.
//!
//! ```text
//!   path, globs ─▶ files ─▶ split ─▶ opened at byte B of the (uncompressed) text, line L ─▶ chunks of whole lines
//! ```
//!
//! A path that is named outright is one split; each file that a glob finds is one. A position holds the byte and the line after
//! the last record, and what tells the file from others: its inode, and digests of its head and of what lies before the
//! position. So a file is read on, and not again, after it was renamed, copied and truncated, or compressed under a name that
//! rotation gives; and a file that was replaced by another is noticed and not read from its middle. Compressed files are
//! skipped into by decompressing.

mod config;
mod discover;
mod fit;
mod framing;
mod identity;
mod lines;
mod pace;
mod parquet;
mod parquet_guard;
mod parquet_pages;
mod pass;
#[cfg(test)]
mod rotation_tests;
mod siblings;
mod source;
mod splits;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wild_tests;

pub use config::{Compression, Config, OnGap, Paths, Rate};
pub use pass::MAX_LINE_BYTES;
pub use source::{FileSource, Files};

use logmill_pipelines::{ConnectorKind, Role};
use schemars::schema_for;

/// What may be done about a file that is not what it was, besides restoring it.
const FRESH_HINT: &str = "if the sources still hold all they ever held, --fresh reads them again";

const FORMATS: &[&str] = &["json", "ndjson", "csv", "raw", "lines", "parquet"];

/// The file source.
pub fn kind() -> ConnectorKind {
    ConnectorKind {
        name: "file",
        role: Role::Source,
        summary: "lines or rows of local files; globs, gzip and zstd, following",
        schema: || schema_for!(Config),
        formats: FORMATS,
        needs_through: false,
    }
}

/// A file as a static table.
pub fn table_kind() -> ConnectorKind {
    ConnectorKind {
        role: Role::Table,
        summary: "local files, loaded whole before the start",
        schema: || schema_for!(crate::table::Config),
        ..kind()
    }
}
