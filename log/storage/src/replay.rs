//! Rebuilds from the batches what the log otherwise only remembers: producers, aborted transactions, leader epochs.

use std::path::Path;
use std::sync::Arc;

use logmill_protocol::{BatchHeader, BatchView, ControlKind, Offset};

use crate::error::Result;
use crate::leader_epochs::LeaderEpochs;
use crate::producers::Producers;
use crate::scan::Step;
use crate::segment::Segment;
use crate::snapshot;
use crate::transactions::Transactions;
use crate::txn_index::AbortedTxn;

/// What to rebuild, and from where.
pub(crate) struct Replay {
    /// The producers as of `producers_from`; updated by every batch from there on.
    pub(crate) producers: Producers,
    pub(crate) producers_from: Offset,
    /// The snapshot that they come from, if any.
    pub(crate) snapshot_at: Option<Offset>,
    /// Updated by every batch read.
    pub(crate) epochs: LeaderEpochs,
    /// First offset to read.
    pub(crate) from: Offset,
}

impl Replay {
    /// Starts from the newest producer snapshot at or below `log_end`; from the beginning with `whole_log`.
    pub(crate) fn prepare(dir: &Path, log_end: Offset, epochs: Option<LeaderEpochs>, whole_log: bool) -> Result<Self> {
        let snapshot = match whole_log {
            true => None,
            false => snapshot::load_newest(dir, Offset(0), log_end)?,
        };
        let snapshot_at = snapshot.as_ref().map(|(at, _)| *at);
        let (producers_from, producers) = snapshot.unwrap_or_default();
        let from = if epochs.is_some() { producers_from } else { Offset(0) };
        Ok(Self { producers, producers_from, snapshot_at, epochs: epochs.unwrap_or_default(), from })
    }

    /// Reads the batches' headers. Returns the transactions that are open at the end.
    pub(crate) fn run(&mut self, segments: &[Arc<Segment>]) -> Result<Transactions> {
        let mut txns = Transactions::of(&self.producers.sorted());
        let from = self.from;
        for segment in segments.iter().filter(|s| s.next_offset() > from) {
            let position = match from > segment.base {
                true => segment.indexes.lock().floor(from)?.position,
                false => 0,
            };
            let mut scan = segment.scan(position);
            loop {
                match scan.next_header()? {
                    Step::Batch { header, position } => {
                        self.epochs.assign(header.leader_epoch, header.base_offset);
                        if !header.has_producer_id() || header.base_offset < self.producers_from {
                            continue;
                        }
                        match header.is_control() {
                            true => self.marker(segment, &header, scan.batch_bytes(&header, position)?, &mut txns),
                            false => self.batch(&header, &mut txns),
                        }
                    }
                    Step::End => break,
                    Step::Bad { position, reason } => return Err(segment.corrupt(position, reason)),
                }
            }
        }
        Ok(txns)
    }

    fn batch(&mut self, header: &BatchHeader, txns: &mut Transactions) {
        let mut state = self.producers.get_or_new(header.producer_id);
        let was_open = state.txn_first_offset.is_some();
        state.record(header);
        if let (false, Some(first_offset)) = (was_open, state.txn_first_offset) {
            txns.begin(first_offset, state.producer_id);
        }
        self.producers.insert(state);
    }

    fn marker(&mut self, segment: &Segment, header: &BatchHeader, bytes: &[u8], txns: &mut Transactions) {
        // Control batches of other kinds end no transaction.
        let Ok(marker) = BatchView::parse(bytes).and_then(|(batch, _)| batch.control_record()) else { return };
        let mut state = self.producers.get_or_new(header.producer_id);
        let first_offset = state.record_marker(header, marker.coordinator_epoch);
        self.producers.insert(state);
        let Some(first_offset) = first_offset else { return };
        let last_offset = header.last_offset();
        if marker.kind == ControlKind::Abort {
            let mut indexes = segment.indexes.lock();
            if indexes.txns.entries().last().is_none_or(|t| t.last_offset < last_offset) {
                let last_stable_offset = txns.stable_after(first_offset, last_offset);
                let producer_id = header.producer_id;
                indexes.txns.push(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset });
            }
        }
        txns.end(first_offset, last_offset);
    }
}
