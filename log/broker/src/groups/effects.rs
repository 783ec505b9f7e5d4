//! What an event of a group comes to: answers to calls that wait, and what must be written down.
//!
//! The coordinator's events carry a [`Waiter`], a number that stands for a call; the answer comes with the effects of the
//! same event or of a later one. Every waiter is answered exactly once.

use std::collections::HashMap;

use bytes::Bytes;

use crate::groups::error::GroupError;
use crate::groups::group::Group;
use crate::groups::records::GroupRecord;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// Another member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub member: String,
    /// Its instance name.
    pub instance: Option<String>,
    /// What it tells the others under the generation's protocol.
    pub metadata: Bytes,
}

/// The generation that a member has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member: String,
    /// The generation.
    pub generation: i32,
    /// What kind of group it is, such as `consumer`.
    pub protocol_type: Option<String>,
    /// How partitions are assigned.
    pub protocol: Option<String>,
    /// The member who assigns them; empty to those who are not told.
    pub leader: String,
    /// The leader keeps the assignment as it is (KIP-814).
    pub skip_assignment: bool,
    /// All members, to the leader only.
    pub members: Vec<Peer>,
}

/// Why a join is refused, and the id that the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The member id to answer with.
    pub member: String,
}

/// What a member is to do in its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// What kind of group it is.
    pub protocol_type: Option<String>,
    /// How partitions are assigned.
    pub protocol: Option<String>,
    /// What the leader assigned to the member.
    pub assignment: Bytes,
}

/// The answer to a join.
pub type JoinReply = Result<Joined, JoinRefused>;
/// The answer to a sync.
pub type SyncReply = Result<Synced, GroupError>;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a join.
    Join(JoinReply),
    /// To a sync.
    Sync(SyncReply),
}

/// What to do once a record is written, or could not be: to be passed to
/// [`Groups::written`](crate::groups::Groups::written).
#[derive(Debug)]
pub struct Write {
    /// The record.
    pub record: GroupRecord,
    pub(super) then: Then,
}

/// What depends on the record.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing. The group is empty, and after a crash nobody is harmed by its last generation coming back.
    Nothing,
    /// The leader's assignment takes effect.
    Assign(HashMap<String, Bytes>),
    /// A static member gets its new id: the group as it then is, and the answers.
    Replace { group: Box<Group>, waiter: Waiter, reply: Box<JoinReply>, fenced: Vec<(Waiter, Reply)> },
}

/// What an event comes to.
#[derive(Debug, Default)]
pub struct Effects {
    /// Answers.
    pub replies: Vec<(Waiter, Reply)>,
    /// What must be written, in this order, before anything else happens.
    pub writes: Vec<Write>,
}

impl Effects {
    pub(super) fn join(&mut self, waiter: Waiter, reply: JoinReply) {
        self.replies.push((waiter, Reply::Join(reply)));
    }

    pub(super) fn refuse_join(&mut self, waiter: Waiter, member: &str, error: GroupError) {
        self.join(waiter, Err(JoinRefused { error, member: member.to_owned() }));
    }

    pub(super) fn sync(&mut self, waiter: Waiter, reply: SyncReply) {
        self.replies.push((waiter, Reply::Sync(reply)));
    }
}
