//! The group coordinator's state machine: no clock, no I/O, no randomness.
//!
//! A transaction's offsets are *pending* from the moment they are written until the transaction's marker. They are
//! fenced by generation when they are written (KIP-447); a reader who must not miss them waits until none is pending.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use logmill_protocol::{Offset, ProducerId, Timestamp};

use crate::groups::records::GroupRecord;
use crate::types::{GroupInfo, Membership, TopicPartition};

/// An offset that a group has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Where to read on.
    pub offset: Offset,
    /// When it was committed.
    pub committed_at: Timestamp,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its instance name, which at most one member of the group bears (KIP-345).
    pub instance: Option<String>,
    /// It is expelled when not heard of for this long; `None` lives as long as the broker.
    pub session_timeout_ms: Option<u64>,
    /// When it was last heard of.
    pub heard_at: Timestamp,
}

/// A group's generation and members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMeta {
    /// Counts the changes of membership.
    pub generation: i32,
    /// When it changed last.
    pub changed_at: Timestamp,
    /// The members by id.
    pub members: BTreeMap<String, Member>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    meta: GroupMeta,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// Offsets of open transactions.
    pending: HashMap<ProducerId, BTreeMap<TopicPartition, Option<CommittedOffset>>>,
}

/// Who wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest<'a> {
    /// The group.
    pub group: &'a str,
    /// The instance name: whoever bore it before is fenced.
    pub instance: Option<&'a str>,
    /// When to expel the member if it is not heard of.
    pub session_timeout_ms: Option<u64>,
    /// The id the member will have; the caller draws it.
    pub member: String,
}

/// What a join comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The new membership.
    pub membership: Membership,
    /// To be appended and applied.
    pub record: GroupRecord,
}

/// Why the coordinator refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The member is none, or not of the current generation.
    #[error("generation {generation} of group `{group}` is not the current one")]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The generation claimed.
        generation: i32,
    },
}

/// All groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    groups: HashMap<String, Group>,
    /// Which groups have offsets pending for a producer.
    pending_in: HashMap<ProducerId, BTreeSet<String>>,
}

impl Groups {
    /// Plans a join: a new generation that the earlier bearer of the instance name is no longer part of.
    #[must_use]
    pub fn plan_join(&self, request: JoinRequest<'_>, now: Timestamp) -> Joined {
        let mut meta = self.groups.get(request.group).map(|group| group.meta.clone()).unwrap_or_default();
        if request.instance.is_some() {
            meta.members.retain(|_, member| member.instance.as_deref() != request.instance);
        }
        let instance = request.instance.map(str::to_owned);
        let member = Member { instance, session_timeout_ms: request.session_timeout_ms, heard_at: now };
        meta.members.insert(request.member.clone(), member);
        let record = next_generation(request.group, meta, now);
        let generation = match &record {
            GroupRecord::Group { value: Some(meta), .. } => meta.generation,
            _ => 0,
        };
        let membership = Membership { group: request.group.to_owned(), member: request.member, generation };
        Joined { membership, record }
    }

    /// Plans a leave.
    ///
    /// # Errors
    /// If the member is none of the current generation.
    pub fn plan_leave(&self, membership: &Membership, now: Timestamp) -> Result<GroupRecord, GroupError> {
        let mut meta = self.check(membership)?.meta.clone();
        meta.members.remove(&membership.member);
        Ok(next_generation(&membership.group, meta, now))
    }

    /// Plans the expulsion of all members that have not been heard of within their session timeout. One record for
    /// each group that loses some.
    #[must_use]
    pub fn plan_expiry(&self, now: Timestamp) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (name, group) in &self.groups {
            let mut meta = group.meta.clone();
            meta.members.retain(|_, member| !is_expired(member, now));
            if meta.members.len() < group.meta.members.len() {
                records.push(next_generation(name, meta, now));
            }
        }
        records
    }

    /// Notes that a member lives.
    ///
    /// # Errors
    /// If the member is none of the current generation: it must join again.
    pub fn heartbeat(&mut self, membership: &Membership, now: Timestamp) -> Result<(), GroupError> {
        self.check(membership)?;
        let group = self.groups.get_mut(&membership.group);
        if let Some(member) = group.and_then(|group| group.meta.members.get_mut(&membership.member)) {
            member.heard_at = member.heard_at.max(now);
        }
        Ok(())
    }

    /// Checks that the member may commit.
    ///
    /// # Errors
    /// If it is none of the current generation.
    pub fn check_member(&self, membership: &Membership) -> Result<(), GroupError> {
        self.check(membership).map(|_| ())
    }

    fn check(&self, membership: &Membership) -> Result<&Group, GroupError> {
        self.groups
            .get(&membership.group)
            .filter(|group| group.meta.generation == membership.generation)
            .filter(|group| group.meta.members.contains_key(&membership.member))
            .ok_or_else(|| GroupError::IllegalGeneration {
                group: membership.group.clone(),
                generation: membership.generation,
            })
    }

    /// Applies a record, which is part of `producer`'s open transaction if there is one.
    pub fn apply(&mut self, record: &GroupRecord, producer: Option<ProducerId>) {
        match record {
            GroupRecord::Group { group, value: Some(meta) } => {
                self.groups.entry(group.clone()).or_default().meta.clone_from(meta);
            }
            GroupRecord::Group { group, value: None } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.meta = GroupMeta::default();
                }
            }
            GroupRecord::Offset { group, partition, value } => {
                let state = self.groups.entry(group.clone()).or_default();
                match (producer, value) {
                    (Some(producer), value) => {
                        state.pending.entry(producer).or_default().insert(partition.clone(), *value);
                        self.pending_in.entry(producer).or_default().insert(group.clone());
                    }
                    (None, Some(value)) => {
                        state.offsets.insert(partition.clone(), *value);
                    }
                    (None, None) => {
                        state.offsets.remove(partition);
                    }
                }
            }
        }
    }

    /// Applies the marker that ends `producer`'s transaction. Returns whether any offset was pending.
    pub fn end_transaction(&mut self, producer: ProducerId, commit: bool) -> bool {
        let Some(groups) = self.pending_in.remove(&producer) else { return false };
        for name in groups {
            let Some(group) = self.groups.get_mut(&name) else { continue };
            let pending = group.pending.remove(&producer).unwrap_or_default();
            if !commit {
                continue;
            }
            for (partition, value) in pending {
                match value {
                    Some(value) => group.offsets.insert(partition, value),
                    None => group.offsets.remove(&partition),
                };
            }
        }
        true
    }

    /// The committed offsets of those partitions that have one, or `None` while an open transaction holds one of them.
    #[must_use]
    pub fn stable_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Option<Vec<(TopicPartition, Offset)>> {
        let Some(group) = self.groups.get(group) else { return Some(Vec::new()) };
        if group.pending.values().any(|pending| partitions.iter().any(|p| pending.contains_key(p))) {
            return None;
        }
        let committed = |p: &TopicPartition| Some((p.clone(), group.offsets.get(p)?.offset));
        Some(partitions.iter().filter_map(committed).collect())
    }

    /// Drops the members that cannot have survived this process: those without a session.
    pub fn forget_local_members(&mut self) {
        for group in self.groups.values_mut() {
            group.meta.members.retain(|_, member| member.session_timeout_ms.is_some());
        }
    }

    /// Gives every member a full session from `now` on: the broker was away, not they.
    pub fn renew_sessions(&mut self, now: Timestamp) {
        for member in self.groups.values_mut().flat_map(|group| group.meta.members.values_mut()) {
            member.heard_at = now;
        }
    }

    /// Whether offsets of any open transaction are pending.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending_in.is_empty()
    }

    /// Records for the removal of all offsets of topics that `exists` denies.
    #[must_use]
    pub fn plan_forget_topic(&self, topic: &str) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (name, group) in &self.groups {
            let of_topic = group.offsets.keys().filter(|partition| partition.topic == topic);
            records.extend(of_topic.map(|partition| GroupRecord::Offset {
                group: name.clone(),
                partition: partition.clone(),
                value: None,
            }));
        }
        records
    }

    /// Records that say all there is to say about the groups that `select` picks.
    #[must_use]
    pub fn snapshot(&self, select: impl Fn(&str) -> bool) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (name, group) in self.groups.iter().filter(|(name, _)| select(name)) {
            if group.meta != GroupMeta::default() {
                records.push(GroupRecord::Group { group: name.clone(), value: Some(group.meta.clone()) });
            }
            records.extend(group.offsets.iter().map(|(partition, value)| GroupRecord::Offset {
                group: name.clone(),
                partition: partition.clone(),
                value: Some(*value),
            }));
        }
        records
    }

    /// How many records [`Groups::snapshot`] of all groups holds.
    #[must_use]
    pub fn live_records(&self) -> usize {
        self.groups.values().map(|group| group.offsets.len() + 1).sum()
    }

    /// What a group is.
    #[must_use]
    pub fn describe(&self, name: &str) -> Option<GroupInfo> {
        let group = self.groups.get(name)?;
        Some(GroupInfo {
            group: name.to_owned(),
            generation: group.meta.generation,
            members: group.meta.members.keys().cloned().collect(),
            offsets: group.offsets.iter().map(|(partition, value)| (partition.clone(), value.offset)).collect(),
        })
    }

    /// The names of all groups, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.groups.keys().collect();
        names.into_iter().cloned().collect()
    }

    /// The topics that groups have offsets of.
    #[must_use]
    pub fn topics(&self) -> HashSet<&str> {
        self.groups.values().flat_map(|group| group.offsets.keys()).map(|p| p.topic.as_str()).collect()
    }
}

fn next_generation(group: &str, mut meta: GroupMeta, now: Timestamp) -> GroupRecord {
    // Kafka starts over at i32::MAX as well; -1 and 0 mean "none" on the wire.
    meta.generation = meta.generation.checked_add(1).unwrap_or(1);
    meta.changed_at = now;
    GroupRecord::Group { group: group.to_owned(), value: Some(meta) }
}

fn is_expired(member: &Member, now: Timestamp) -> bool {
    let silent_ms = u64::try_from(now.0.saturating_sub(member.heard_at.0)).unwrap_or(0);
    member.session_timeout_ms.is_some_and(|timeout| silent_ms > timeout)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
