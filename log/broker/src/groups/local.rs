//! The engine's own members: they join at once, each join or leave is a generation, and they live as long as the
//! process. Groups of theirs have a protocol type of their own, so that Kafka clients and the engine never share one.

use logmill_protocol::Timestamp;

use crate::groups::error::GroupError;
use crate::groups::group::{Group, GroupState, LOCAL};
use crate::groups::member::Member;
use crate::groups::records::{GroupMeta, GroupRecord, MemberMeta};
use crate::types::Membership;

/// What a join of the engine comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalJoin {
    /// The new membership.
    pub membership: Membership,
    /// To be appended and applied.
    pub record: GroupRecord,
}

impl Group {
    /// Whether the group's members are the engine's.
    pub(super) fn is_local(&self) -> bool {
        self.protocol_type.as_deref() == Some(LOCAL)
    }

    /// Plans a join: a new generation that the earlier bearer of the instance name is no longer part of.
    pub(super) fn plan_local_join(
        &self,
        instance: &str,
        member: String,
        now: Timestamp,
    ) -> Result<LocalJoin, GroupError> {
        if self.members.values().any(|member| !member.is_local()) {
            return Err(GroupError::InconsistentProtocol);
        }
        let mut meta = self.local_meta();
        meta.members.retain(|_, member| member.instance.as_deref() != Some(instance));
        meta.members.insert(member.clone(), MemberMeta::local(instance));
        let record = self.next_local_generation(meta, now);
        let generation = next(self.generation);
        let membership = Membership { group: self.name.clone(), member, generation };
        Ok(LocalJoin { membership, record })
    }

    /// Plans a leave of a member that [`Group::check_membership`] knows.
    pub(super) fn plan_local_leave(&self, member: &str, now: Timestamp) -> GroupRecord {
        let mut meta = self.local_meta();
        meta.members.remove(member);
        self.next_local_generation(meta, now)
    }

    fn local_meta(&self) -> GroupMeta {
        self.meta(|_, member| member.assignment.clone(), self.changed_at)
    }

    fn next_local_generation(&self, mut meta: GroupMeta, now: Timestamp) -> GroupRecord {
        meta.generation = next(self.generation);
        meta.changed_at = now;
        meta.protocol_type = Some(LOCAL.to_owned());
        meta.protocol = None;
        meta.leader = meta.members.keys().next().cloned();
        GroupRecord::Group { group: self.name.clone(), value: Some(meta) }
    }

    /// Checks that the engine's member is one of the current generation.
    pub(super) fn check_membership(&self, membership: &Membership) -> Result<(), GroupError> {
        let is_member = self.members.get(&membership.member).is_some_and(Member::is_local);
        match is_member && self.generation == membership.generation {
            true => Ok(()),
            false => Err(illegal(membership)),
        }
    }

    /// Drops the members that cannot have survived the process that wrote the log.
    pub(super) fn forget_local_members(&mut self) {
        let before = self.members.len();
        self.members.retain(|member| !member.is_local());
        if self.members.len() == before {
            return;
        }
        self.leader = None;
        // An earlier version wrote another protocol type.
        self.protocol_type = Some(LOCAL.to_owned());
        if self.members.is_empty() {
            self.state = GroupState::Empty;
        }
        self.subscribed = None;
    }
}

/// The refusal of a membership that is over.
pub(super) fn illegal(membership: &Membership) -> GroupError {
    GroupError::IllegalGeneration { group: membership.group.clone(), generation: membership.generation }
}

/// Kafka starts over at `i32::MAX` as well; -1 and 0 mean "none" on the wire.
fn next(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}
