//! Which transactions hold the last stable offset (LSO) back.
//!
//! ```text
//!   log start      first unstable                  HW            LEO
//!      |  stable        |  open, or its marker not  |  not yet     |
//!      |                |  below the HW yet         |  replicated  |
//!                      LSO = min(first unstable, HW)
//! ```

use std::collections::BTreeMap;

use logmill_protocol::{Offset, ProducerId};

use crate::producers::ProducerState;

/// A transaction that has records in the partition and no marker yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTxn {
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Its producer.
    pub producer_id: ProducerId,
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Open transactions by first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// Transactions with a marker at or above the high watermark: first offset -> offset of the marker.
    unreplicated: BTreeMap<Offset, Offset>,
}

impl Transactions {
    /// The open transactions of a table of producers.
    pub(crate) fn of(producers: &[ProducerState]) -> Self {
        let open = producers.iter().filter_map(|s| Some((s.txn_first_offset?, s.producer_id))).collect();
        Self { open, unreplicated: BTreeMap::new() }
    }

    pub(crate) fn begin(&mut self, first_offset: Offset, producer_id: ProducerId) {
        self.open.insert(first_offset, producer_id);
    }

    /// The last stable offset as it will be when the marker at `marker` is below the high watermark.
    pub(crate) fn stable_after(&self, first_offset: Offset, marker: Offset) -> Offset {
        self.open.keys().find(|o| **o != first_offset).copied().unwrap_or_else(|| marker.next())
    }

    pub(crate) fn end(&mut self, first_offset: Offset, marker: Offset) {
        self.open.remove(&first_offset);
        self.unreplicated.insert(first_offset, marker);
    }

    /// Forgets ended transactions whose marker is now below the high watermark.
    pub(crate) fn replicated(&mut self, high_watermark: Offset) {
        self.unreplicated.retain(|_, marker| *marker >= high_watermark);
    }

    /// First offset that may still turn out aborted.
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        self.open.keys().next().into_iter().chain(self.unreplicated.keys().next()).min().copied()
    }

    /// The open transactions, oldest first.
    pub(crate) fn open(&self) -> Vec<OpenTxn> {
        self.open
            .iter()
            .map(|(first_offset, producer_id)| OpenTxn { first_offset: *first_offset, producer_id: *producer_id })
            .collect()
    }
}
