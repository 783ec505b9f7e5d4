//! What the manifest holds of a sink: tokens with the rows they were made from, and rows that are not staged yet.

use logmill_connectors::sink::Token;
use serde::{Deserialize, Serialize};

use super::manifest::StateRef;

/// The state of a sink's shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub(crate) struct SinkState {
    /// Staged, and not known to be visible yet; in the order of the epochs.
    pub(crate) staged: Vec<Staged>,
    /// Rows that are not staged yet, oldest first.
    pub(crate) carried: Vec<StateRef>,
}

/// What a sink staged in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Staged {
    /// The tokens that are not known to be visible yet.
    pub(crate) tokens: Vec<Token>,
    /// The rows that all of the epoch's tokens were made from, oldest first.
    #[serde(default)]
    pub(crate) rows: Vec<StateRef>,
}

impl SinkState {
    /// The tokens that are not known to be visible yet.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.staged.iter().flat_map(|staged| &staged.tokens)
    }

    /// The objects of the checkpoint store that it refers to.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &StateRef> {
        self.staged.iter().flat_map(|staged| &staged.rows).chain(&self.carried)
    }
}

/// The state as it lies in manifests, those of format 1 included: their tokens have no rows.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    tokens: Vec<Token>,
    #[serde(default)]
    staged: Vec<Staged>,
    carried: Vec<StateRef>,
}

impl From<Written> for SinkState {
    fn from(written: Written) -> Self {
        let Written { tokens, mut staged, carried } = written;
        if !tokens.is_empty() {
            staged.insert(0, Staged { tokens, rows: Vec::new() });
        }
        Self { staged, carried }
    }
}
