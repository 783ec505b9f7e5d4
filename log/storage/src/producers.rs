//! What the log remembers of each producer, to refuse lost, repeated and fenced batches (KIP-98, KIP-360).
//!
//! Checks are made on copies: an append changes the table only after its bytes are in the file.

use std::collections::HashMap;

use logmill_protocol::{BatchHeader, Offset, ProducerEpoch, ProducerId, Timestamp, advance_sequence};

use crate::error::{Result, StorageError};

/// How many of a producer's last batches are recognised when they are sent again (Kafka's bound on requests in flight).
pub const BATCHES_KEPT: usize = 5;

/// The most producers that a partition remembers, but for transactional ones, which are as many as there are transactional
/// ids. Beyond it the quarter that has been silent the longest is forgotten, as it is after `producer.id.expiration.ms`.
pub(crate) const MAX_PRODUCERS: usize = 16 << 10;

/// The sequence number of a producer that has appended nothing in its epoch.
pub(crate) const NO_SEQUENCE: i32 = -1;

/// One batch of a producer, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchMeta {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset minus base offset.
    pub offset_delta: i32,
    /// Its maximum timestamp.
    pub timestamp: Timestamp,
}

impl BatchMeta {
    /// Offset of its first record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

/// What is known of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its latest epoch.
    pub epoch: ProducerEpoch,
    /// Epoch of the transaction coordinator whose marker came last, `-1` if none did.
    pub coordinator_epoch: i32,
    /// Timestamp of its last batch or marker.
    pub last_timestamp: Timestamp,
    /// First offset of its open transaction.
    pub txn_first_offset: Option<Offset>,
    /// Its last batches, oldest first, in `batches[..count]`.
    batches: [BatchMeta; BATCHES_KEPT],
    count: usize,
}

impl ProducerState {
    pub(crate) fn new(producer_id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self {
            producer_id,
            epoch,
            coordinator_epoch: -1,
            last_timestamp: Timestamp::NONE,
            txn_first_offset: None,
            batches: [BatchMeta::default(); BATCHES_KEPT],
            count: 0,
        }
    }

    /// Its last batches of the current epoch, oldest first; at most [`BATCHES_KEPT`].
    #[must_use]
    pub fn batches(&self) -> &[BatchMeta] {
        self.batches.get(..self.count).unwrap_or_default()
    }

    /// Sequence number of its last record in the current epoch, `-1` if there is none.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(NO_SEQUENCE, |b| b.last_sequence)
    }

    /// The remembered batch that `header` repeats.
    pub(crate) fn duplicate_of(&self, header: &BatchHeader) -> Option<BatchMeta> {
        let same =
            |b: &&BatchMeta| b.last_sequence == header.last_sequence() && b.offset_delta == header.last_offset_delta;
        (self.epoch == header.producer_epoch).then(|| self.batches().iter().rev().find(same).copied()).flatten()
    }

    /// Checks that `header` may come next.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<()> {
        let producer_id = self.producer_id;
        if header.producer_epoch < self.epoch {
            return Err(StorageError::ProducerFenced {
                producer_id,
                found: header.producer_epoch,
                current: self.epoch,
            });
        }
        // A new epoch begins after the marker that ended the last one's transaction.
        let is_part = header.is_transactional() && header.producer_epoch == self.epoch;
        if self.txn_first_offset.is_some() && !is_part {
            return Err(StorageError::InvalidTransactionState { producer_id });
        }
        let found = header.base_sequence;
        let expected = if self.epoch == ProducerEpoch::NONE {
            // Unknown, or forgotten because its records were deleted: it may start anywhere (KIP-360).
            found
        } else if header.producer_epoch > self.epoch {
            0
        } else {
            advance_sequence(self.last_sequence(), 1)
        };
        if found != expected {
            return Err(StorageError::OutOfOrderSequence { producer_id, expected, found });
        }
        Ok(())
    }

    /// Records an appended batch, whose offsets are assigned.
    pub(crate) fn record(&mut self, header: &BatchHeader) {
        self.set_epoch(header.producer_epoch);
        let batch = BatchMeta {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        };
        self.push(batch);
        if header.is_transactional() && self.txn_first_offset.is_none() {
            self.txn_first_offset = Some(header.base_offset);
        }
    }

    /// Remembers `batch`, forgetting the oldest beyond [`BATCHES_KEPT`].
    pub(crate) fn push(&mut self, batch: BatchMeta) {
        if self.count == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        if let Some(slot) = self.batches.get_mut(self.count) {
            *slot = batch;
            self.count += 1;
        }
        self.last_timestamp = batch.timestamp;
    }

    /// Checks that the marker of a coordinator may end this producer's transaction.
    pub(crate) fn check_marker(&self, epoch: ProducerEpoch, coordinator_epoch: i32) -> Result<()> {
        if epoch < self.epoch {
            let producer_id = self.producer_id;
            return Err(StorageError::ProducerFenced { producer_id, found: epoch, current: self.epoch });
        }
        if coordinator_epoch < self.coordinator_epoch {
            let current = self.coordinator_epoch;
            return Err(StorageError::CoordinatorFenced { found: coordinator_epoch, current });
        }
        Ok(())
    }

    /// Records a marker. Returns the first offset of the transaction it ended, if one was open.
    pub(crate) fn record_marker(&mut self, header: &BatchHeader, coordinator_epoch: i32) -> Option<Offset> {
        self.set_epoch(header.producer_epoch);
        self.coordinator_epoch = coordinator_epoch;
        self.last_timestamp = header.max_timestamp;
        self.txn_first_offset.take()
    }

    /// A new epoch begins its sequence numbers anew.
    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }
}

/// All producers of a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    by_id: HashMap<ProducerId, ProducerState>,
}

impl Producers {
    pub(crate) fn get(&self, id: ProducerId) -> Option<&ProducerState> {
        self.by_id.get(&id)
    }

    pub(crate) fn insert(&mut self, state: ProducerState) {
        self.by_id.insert(state.producer_id, state);
        if self.by_id.len() > MAX_PRODUCERS {
            self.forget_silent();
        }
    }

    /// Forgets those who have appended nothing for the longest, a quarter of the most there may be.
    fn forget_silent(&mut self) {
        let is_plain = |state: &&ProducerState| state.txn_first_offset.is_none() && state.coordinator_epoch < 0;
        let last = |state: &ProducerState| (state.batches().last().map(|batch| batch.last_offset), state.producer_id);
        let mut silent: Vec<_> = self.by_id.values().filter(is_plain).map(last).collect();
        silent.sort_unstable();
        for (_, id) in silent.into_iter().take(MAX_PRODUCERS / 4) {
            self.by_id.remove(&id);
        }
    }

    /// The state as it is, or as that of a producer heard of for the first time.
    pub(crate) fn get_or_new(&self, id: ProducerId) -> ProducerState {
        self.get(id).copied().unwrap_or_else(|| ProducerState::new(id, ProducerEpoch::NONE))
    }

    /// All states, by producer id.
    pub(crate) fn sorted(&self) -> Vec<ProducerState> {
        let mut states: Vec<_> = self.by_id.values().copied().collect();
        states.sort_unstable_by_key(|s| s.producer_id);
        states
    }

    /// Forgets producers whose last append is `expiry_ms` ago, unless a transaction of theirs is open.
    pub(crate) fn expire(&mut self, now: Timestamp, expiry_ms: i64) {
        self.by_id.retain(|_, s| s.txn_first_offset.is_some() || now.0.saturating_sub(s.last_timestamp.0) < expiry_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_that_were_silent_the_longest_are_forgotten_first() {
        let mut producers = Producers::default();
        let state = |id: i64, offset: i64| {
            let mut state = ProducerState::new(ProducerId(id), ProducerEpoch(0));
            state.push(BatchMeta { last_offset: Offset(offset), ..BatchMeta::default() });
            state
        };
        let ended = ProducerState { coordinator_epoch: 0, ..state(i64::MAX, 0) };
        let open = ProducerState { txn_first_offset: Some(Offset(0)), ..state(i64::MAX - 1, 0) };
        producers.insert(ended);
        producers.insert(open);
        let count = 3 * MAX_PRODUCERS as i64;
        for n in 0..count {
            // Higher ids are the older ones.
            producers.insert(state(count - n, n));
            assert!(producers.by_id.len() <= MAX_PRODUCERS + 1);
        }
        assert!(producers.by_id.len() >= MAX_PRODUCERS / 2);
        assert!(producers.get(ended.producer_id).is_some() && producers.get(open.producer_id).is_some());
        assert!((1..=MAX_PRODUCERS as i64 / 2).all(|id| producers.get(ProducerId(id)).is_some()), "the last ones stay");
        assert!(producers.get(ProducerId(count)).is_none());
    }
}
