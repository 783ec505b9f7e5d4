//! Between two rebalances: the leader's assignment, handing it out, and signs of life.

use std::collections::HashMap;

use bytes::Bytes;

use crate::clock::Now;
use crate::groups::config::GroupConfig;
use crate::groups::effects::{Effects, Synced, Then, Waiter, Write};
use crate::groups::error::GroupError;
use crate::groups::group::{Group, GroupState};
use crate::groups::records::GroupRecord;

/// A member asks for its assignment; the leader brings everyone's.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// Its instance name.
    pub instance: Option<String>,
    /// The generation it is in.
    pub generation: i32,
    /// What kind of group it takes this for, if it says so (KIP-559).
    pub protocol_type: Option<String>,
    /// What protocol it takes the generation's to be, if it says so.
    pub protocol: Option<String>,
    /// Who gets what: the leader's only.
    pub assignments: HashMap<String, Bytes>,
    /// Whom to answer.
    pub waiter: Waiter,
}

impl Group {
    pub(super) fn sync(&mut self, sync: SyncRequest, now: Now, effects: &mut Effects) {
        if let Err(error) = self.check_sync(&sync) {
            return effects.sync(sync.waiter, Err(error));
        }
        self.unsynced.remove(&sync.member);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
        if self.state == GroupState::Stable {
            let assignment = self.members.get(&sync.member).map(|member| member.assignment.clone());
            return effects.sync(sync.waiter, Ok(self.synced(assignment.unwrap_or_default())));
        }
        self.members.update(&sync.member, |member| {
            // A client that asks again does not read the answer to its first request.
            member.answer_sync(effects, || Err(GroupError::RebalanceInProgress));
            member.awaiting_sync = Some(sync.waiter);
        });
        if self.is_leader(&sync.member) {
            let assignments = sync.assignments;
            let meta = self.meta(|id, _| assignments.get(id).cloned().unwrap_or_default(), now.wall);
            let record = GroupRecord::Group { group: self.name.clone(), value: Some(meta) };
            effects.writes.push(Write { record, then: Then::Assign(assignments) });
        }
    }

    fn check_sync(&self, sync: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&sync.member, sync.instance.as_deref())?;
        self.check_generation(sync.generation)?;
        let differs = |claimed: &Option<String>, actual: &Option<String>| claimed.is_some() && claimed != actual;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty => Err(GroupError::UnknownMember),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    /// The leader's assignment could not be written.
    pub(super) fn not_assigned(&mut self, error: &GroupError, config: &GroupConfig, now: Now, effects: &mut Effects) {
        self.cancel_sync(error, now, effects);
        self.prepare_rebalance(config, now, effects);
    }

    /// The leader's assignment is written.
    pub(super) fn assigned(&mut self, mut assignments: HashMap<String, Bytes>, now: Now, effects: &mut Effects) {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        self.members.update_all(|id, member| {
            member.assignment = assignments.remove(id).unwrap_or_default();
            let (protocol_type, protocol) = (protocol_type.clone(), protocol.clone());
            let synced = Synced { protocol_type, protocol, assignment: member.assignment.clone() };
            // The end of a session that came while its member waited is made good.
            if member.answer_sync(effects, || Ok(synced)) {
                member.renew(now);
            }
        });
        self.enter(GroupState::Stable, now);
    }

    /// Tells everyone who waits for an assignment that none comes.
    pub(super) fn cancel_sync(&mut self, error: &GroupError, now: Now, effects: &mut Effects) {
        self.members.update_all(|_, member| {
            member.assignment = Bytes::new();
            if member.answer_sync(effects, || Err(error.clone())) {
                member.renew(now);
            }
        });
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// A member lives.
    pub(super) fn heartbeat(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), GroupError> {
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        self.renew(member, now);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Restarts a member's session.
    pub(super) fn renew(&mut self, member: &str, now: Now) {
        self.members.renew(member, now);
    }
}
