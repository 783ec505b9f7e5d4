//! The integers of the log that must never be mixed up, each in its own type.

use std::fmt;

macro_rules! integer_newtype {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                Self(value)
            }
        }
    };
}

integer_newtype! {
    /// The place of a record in its partition, counted from 0.
    Offset(i64)
}

integer_newtype! {
    /// Counts the leaders a partition has had; `-1` when unknown (KIP-101).
    LeaderEpoch(i32)
}

integer_newtype! {
    /// The identity of an idempotent or transactional producer; `-1` when the batch has none (KIP-98).
    ProducerId(i64)
}

integer_newtype! {
    /// Fences earlier incarnations of a producer id; `-1` when the batch has none (KIP-98).
    ProducerEpoch(i16)
}

integer_newtype! {
    /// Milliseconds since the Unix epoch; `-1` when a record has no timestamp.
    Timestamp(i64)
}

impl Offset {
    /// The offset after this one. Saturates at `i64::MAX`.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The offset `count` records later (earlier if negative). Saturates.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl LeaderEpoch {
    /// No leader epoch: what a producer writes, before the leader patches in its own.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// No producer id: the batch is neither idempotent nor transactional.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// No producer epoch.
    pub const NONE: Self = Self(-1);
}

impl Timestamp {
    /// No timestamp.
    pub const NONE: Self = Self(-1);
}
