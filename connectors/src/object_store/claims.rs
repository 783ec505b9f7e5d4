//! Which staged names this process is at work on, so that sweeping leftovers leaves them alone.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The names that are staged, or being written, by this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Mutex<HashSet<String>>>);

/// A name in use. Given up when dropped, unless kept.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    name: String,
    kept: bool,
}

impl Claims {
    /// Claims a name.
    pub(super) fn claim(&self, name: String) -> Claim {
        self.0.lock().insert(name.clone());
        Claim { claims: self.clone(), name, kept: false }
    }

    /// Whether a name is in use.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.0.lock().contains(name)
    }

    /// A name is committed or gone.
    pub(super) fn release(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Claim {
    /// The name stays in use until it is released: a token names it now.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.claims.release(&self.name);
        }
    }
}
