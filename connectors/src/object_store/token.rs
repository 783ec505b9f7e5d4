//! What a staged file is remembered by.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::sink::Token;

/// A file that is whole and durable, and not visible yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "staged", rename_all = "snake_case")]
pub(super) enum StagedFile {
    /// A file to be renamed.
    Local {
        /// Where it lies, from the sink's folder.
        from: String,
        /// Where it goes, from the sink's folder.
        to: String,
        /// Its rows.
        rows: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The kept batches that its rows are among.
        #[serde(default)]
        batches: Range<u64>,
    },
    /// A multipart upload to be completed.
    Upload {
        /// Where it goes, from the bucket.
        to: String,
        /// The upload's id.
        upload: String,
        /// The parts' ids, in order.
        parts: Vec<String>,
        /// The object that remembers the upload until it is completed, from the bucket.
        journal: String,
        /// Its rows.
        rows: u64,
        /// Its size in bytes.
        bytes: u64,
        /// The kept batches that its rows are among.
        #[serde(default)]
        batches: Range<u64>,
    },
}

impl StagedFile {
    /// The token that names it.
    pub(super) fn token(&self) -> Result<Token, ConnectorError> {
        serde_json::to_value(self).map(Token).map_err(|error| ConnectorError::Permanent {
            context: "cannot write the token of a staged file".into(),
            source: error.into(),
        })
    }

    /// Where it goes.
    pub(super) fn to(&self) -> &str {
        let (Self::Local { to, .. } | Self::Upload { to, .. }) = self;
        to
    }

    /// Its rows.
    pub(super) fn rows(&self) -> u64 {
        let (Self::Local { rows, .. } | Self::Upload { rows, .. }) = self;
        *rows
    }

    /// Whether it holds rows of a folder (empty, or ending in a slash) from the kept batch of this number. `prefix` is
    /// what the folder is preceded by in `to`.
    pub(super) fn holds(&self, prefix: &str, folder: &str, batch: u64) -> bool {
        let (Self::Local { batches, .. } | Self::Upload { batches, .. }) = self;
        let name = self.to().strip_prefix(prefix).and_then(|name| name.strip_prefix(folder));
        batches.contains(&batch) && name.is_some_and(|name| !name.contains('/'))
    }

    /// Reads a token.
    pub(super) fn read(token: &Token) -> Result<Self, ConnectorError> {
        Self::deserialize(&token.0).map_err(|error| ConnectorError::Data {
            place: "token of a staged file".into(),
            message: format!("{error}: {}", token.0),
        })
    }
}
