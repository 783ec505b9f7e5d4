//! Kafka's index of aborted transactions (`.txnindex`): what a `read_committed` reader must skip.
//!
//! ```text
//! | version i16 = 0 | producer id i64 | first offset i64 | last offset i64 | last stable offset i64 |   34 bytes
//! ```
//! It stands beside the segment that holds the abort marker.

use logmill_protocol::{Offset, ProducerId};

use crate::entry_file::{Entry, take};

const VERSION: i16 = 0;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTxn {
    /// The producer whose records are to be skipped.
    pub producer_id: ProducerId,
    /// Offset of the transaction's first record.
    pub first_offset: Offset,
    /// Offset of the abort marker.
    pub last_offset: Offset,
    /// Last stable offset just after the abort: no later entry can concern readers below it.
    pub last_stable_offset: Offset,
}

impl Entry for AbortedTxn {
    const LEN: usize = 34;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [self.producer_id.0, self.first_offset.0, self.last_offset.0, self.last_stable_offset.0] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let version = i16::from_be_bytes(take(&mut bytes)?);
        let mut field = || take(&mut bytes).map(i64::from_be_bytes);
        let (id, first, last, stable) = (field()?, field()?, field()?, field()?);
        (version == VERSION && id >= 0 && first >= 0 && first <= last && stable >= 0).then_some(Self {
            producer_id: ProducerId(id),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        })
    }

    fn follows(&self, previous: &Self) -> bool {
        self.last_offset > previous.last_offset
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn entries_have_kafkas_bytes() {
        let aborted = AbortedTxn {
            producer_id: ProducerId(1),
            first_offset: Offset(2),
            last_offset: Offset(3),
            last_stable_offset: Offset(4),
        };
        let mut out = Vec::new();
        aborted.encode(&mut out);
        let mut expected = vec![0; 34];
        (expected[9], expected[17], expected[25], expected[33]) = (1, 2, 3, 4);
        assert_eq!(out, expected);
        assert_eq!(AbortedTxn::decode(&out), Some(aborted));
        expected[1] = 1;
        assert_eq!(AbortedTxn::decode(&expected), None, "a version we do not know");
    }
}
