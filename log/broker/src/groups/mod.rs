//! Groups: who is in them, in which generation, and which offsets they have committed.
//!
//! Kafka's classic group protocol, as Kafka 4.1 serves it. [`Groups`] is pure: an event comes in, [`Effects`] come out:
//! answers to calls that wait, and records for `__consumer_offsets`. What depends on a record happens once it is written;
//! replaying the topic applies the same records, so a restart ends where the broker stopped, and members go on in the
//! generation they are in. The engine's own members share groups and offsets, but join at once ([`LOCAL`]).
//!
//! ```text
//!  call ──▶ event ──▶ Groups ──▶ Effects ──▶ records ──▶ append ──▶ Groups::written ──▶ replies ──▶ flush ──▶ answer
//!  timer ──────────────▲
//! ```

mod config;
mod describe;
mod effects;
mod error;
mod group;
mod join;
mod leave;
mod local;
mod member;
mod members;
mod offsets;
mod records;
mod replay;
mod service;
mod service_offsets;
mod state;
mod subscription;
mod sync;
mod timers;

#[cfg(test)]
mod classic_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod simulation_tests;

pub use config::GroupConfig;
pub use describe::{GroupDescription, GroupListing, MemberDescription};
pub use effects::{Effects, JoinRefused, JoinReply, Joined, Peer, Reply, SyncReply, Synced, Waiter, Write};
pub use error::GroupError;
pub use group::{CONSUMER, GroupState, LOCAL};
pub use join::JoinRequest;
pub use leave::Leaver;
pub use local::LocalJoin;
pub use member::Protocol;
pub use offsets::{Commit, CommittedOffset, OffsetChanges, OffsetFound};
pub use records::{GroupKey, GroupMeta, GroupRecord, MemberMeta};
pub(crate) use service::GroupService;
pub(crate) use service_offsets::TransactionSequence;
pub use state::Groups;
pub use sync::SyncRequest;
