//! What a staged file is remembered by.

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

    /// Reads a token.
    pub(super) fn read(token: &Token) -> Result<Self, ConnectorError> {
        Self::deserialize(&token.0).map_err(|error| ConnectorError::Data {
            place: "token of a staged file".into(),
            message: format!("{error}: {}", token.0),
        })
    }
}
