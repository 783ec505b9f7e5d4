//! Groups: who is in them, in which generation, and which offsets they have committed.
//!
//! [`state`] is pure: an event is first planned into records, the records are appended to `__consumer_offsets`, and then
//! applied. Replaying the topic applies the same records, so a restart ends where the broker stopped.

pub mod records;
pub(crate) mod service;
pub mod state;

pub use records::{GroupKey, GroupRecord};
pub(crate) use service::GroupService;
pub use state::{CommittedOffset, GroupError, Groups, JoinRequest, Joined};
