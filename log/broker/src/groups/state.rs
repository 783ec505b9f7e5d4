//! All groups: the events that reach them, and what the log says of them. No clock, no I/O, no randomness.

use std::collections::{BTreeSet, HashMap, HashSet};

use logmill_protocol::{Offset, ProducerId, Timestamp};

use crate::clock::Now;
use crate::groups::config::{GroupConfig, MAX_GROUP_NAME_LEN, MAX_OWN_RETENTION_MS};
use crate::groups::effects::{Effects, Then, Write};
use crate::groups::error::GroupError;
use crate::groups::group::{GROUP_BYTES, Group, GroupState};
use crate::groups::join::JoinRequest;
use crate::groups::leave::Leaver;
use crate::groups::local::{LocalJoin, illegal};
use crate::groups::members;
use crate::groups::offsets::{Commit, OffsetChanges, OffsetFound, Offsets};
use crate::groups::records::GroupRecord;
use crate::groups::sync::SyncRequest;
use crate::names::is_group_of_engine;
use crate::types::{Membership, TopicPartition};
use crate::wire::MAX_STRING_LEN;

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    config: GroupConfig,
    pub(super) groups: HashMap<String, Group>,
    /// Which groups have offsets pending for a producer.
    pub(super) pending_in: HashMap<ProducerId, BTreeSet<String>>,
    /// When groups must be looked at. No later than their deadlines, and as early only where members have been heard
    /// of since.
    deadlines: BTreeSet<(Timestamp, String)>,
    /// The entry of each group above.
    scheduled: HashMap<String, Timestamp>,
    /// What all groups take in memory, in about.
    bytes: usize,
}

impl Groups {
    /// No groups, within the limits of the configuration.
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// A member asks to join. Its waiter is answered with these effects or later ones.
    pub fn join(&mut self, join: JoinRequest, now: Now) -> Effects {
        let mut effects = Effects::default();
        if let Err(error) = self.check_join(&join) {
            effects.refuse_join(join.waiter, &join.member, error);
            return effects;
        }
        let name = join.group.clone();
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(&name));
        group.join(join, &self.config, now, &mut effects);
        self.settle_unless_writing(&name, &effects);
        effects
    }

    fn check_join(&self, join: &JoinRequest) -> Result<(), GroupError> {
        if join.group.is_empty() || join.group.len() > MAX_GROUP_NAME_LEN {
            return Err(GroupError::InvalidGroup);
        }
        // A stopped pipeline finds its group as it left it.
        if is_group_of_engine(&join.group) {
            return Err(GroupError::InconsistentProtocol);
        }
        let protocols = join.protocols.iter().map(|protocol| protocol.name.as_str());
        let texts = [join.instance.as_deref().unwrap_or_default(), &join.client_id, &join.protocol_type];
        if protocols.chain(texts).any(|text| text.len() > MAX_STRING_LEN) {
            return Err(GroupError::TextTooLong);
        }
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !allowed.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        match join.member.is_empty() || self.groups.contains_key(&join.group) {
            true => self.check_room(join),
            false => Err(GroupError::UnknownMember),
        }
    }

    /// Checks that the memory limits have room for a member's texts and metadata. One that needs no more than before is let in.
    fn check_room(&self, join: &JoinRequest) -> Result<(), GroupError> {
        let GroupConfig { max_groups, max_group_bytes, max_bytes, .. } = self.config;
        let group = self.groups.get(&join.group);
        let bearer = || group.and_then(|group| group.bearer(join.instance.as_deref()?));
        let member = if join.member.is_empty() { bearer() } else { Some(join.member.as_str()) };
        let known = member.and_then(|member| group?.members.get_key_value(member));
        let before = known.map_or(0, |(id, member)| members::bytes_of(id, member));
        let after = join.bytes();
        let growth = after.saturating_sub(before);
        if growth == 0 {
            return Ok(());
        }
        let members = group.map_or(0, |group| group.members.bytes());
        let new_group = if group.is_none() { GROUP_BYTES + 4 * join.group.len() } else { 0 };
        let is_full = members - before + after > max_group_bytes
            || self.bytes + growth + new_group > max_bytes
            || (group.is_none() && self.groups.len() >= max_groups);
        if is_full { Err(GroupError::GroupMaxSize) } else { Ok(()) }
    }

    /// A member asks for its assignment. Its waiter is answered with these effects or later ones.
    pub fn sync(&mut self, sync: SyncRequest, now: Now) -> Effects {
        let mut effects = Effects::default();
        if sync.group.is_empty() {
            effects.sync(sync.waiter, Err(GroupError::InvalidGroup));
            return effects;
        }
        let name = sync.group.clone();
        match self.groups.get_mut(&name) {
            Some(group) => group.sync(sync, now, &mut effects),
            None => effects.sync(sync.waiter, Err(GroupError::UnknownMember)),
        }
        self.settle_unless_writing(&name, &effects);
        effects
    }

    /// Goes on after a record of [`Effects::writes`] was written, or could not be for the reason given.
    pub fn written(&mut self, write: Write, result: Result<(), GroupError>, now: Now) -> Effects {
        let mut effects = Effects::default();
        let (name, meta) = match write.record {
            GroupRecord::Group { group, value } => (group, value),
            GroupRecord::Offset { .. } => return effects,
        };
        let Some(group) = self.groups.get_mut(&name) else { return effects };
        match (write.then, &result) {
            (Then::Nothing, _) => {}
            (Then::Assign(assignments), Ok(())) => group.assigned(assignments, now, &mut effects),
            (Then::Assign(_), Err(error)) => group.not_assigned(error, &self.config, now, &mut effects),
            (Then::Replace { group: next, waiter, reply, fenced }, Ok(())) => {
                group.replaced(*next, (waiter, *reply), fenced, &mut effects);
            }
            (Then::Replace { waiter, .. }, Err(error)) => effects.refuse_join(waiter, "", error.clone()),
        }
        if result.is_ok() {
            group.written = meta;
        }
        self.settle_unless_writing(&name, &effects);
        effects
    }

    /// A member lives.
    ///
    /// # Errors
    /// If it is none of the current generation, or must rejoin.
    pub fn heartbeat(
        &mut self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroup);
        }
        let found = self.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        let result = found.heartbeat(member, instance, generation, now);
        self.heard_of(group, member);
        result
    }

    /// A session that begins anew ends later, and whoever finds nothing due at its earlier end looks for the next one.
    /// So nothing is noted here, unless the earlier end has been passed over.
    fn heard_of(&mut self, group: &str, member: &str) {
        let found = self.groups.get(group).and_then(|group| group.members.get(member));
        let expires_at = found.and_then(|member| member.expires_at);
        let scheduled = self.scheduled.get(group);
        if expires_at.is_some_and(|at| scheduled.is_none_or(|scheduled| *scheduled > at)) {
            self.settle(group);
        }
    }

    /// Members leave. Says of each whether it was one.
    ///
    /// # Errors
    /// If the group's name is empty.
    pub fn leave(
        &mut self,
        group: &str,
        leavers: &[Leaver],
        now: Now,
    ) -> Result<(Vec<Result<(), GroupError>>, Effects), GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroup);
        }
        let mut effects = Effects::default();
        let Some(found) = self.groups.get_mut(group) else {
            return Ok((leavers.iter().map(|_| Err(GroupError::UnknownMember)).collect(), effects));
        };
        let results = found.leave(leavers, &self.config, now, &mut effects);
        self.settle_unless_writing(group, &effects);
        Ok((results, effects))
    }

    /// When [`Groups::expire`] has something to do, at the earliest, on the steady clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due in the group whose deadline is the earliest; `None` if none is due.
    pub fn expire(&mut self, now: Now) -> Option<Effects> {
        let (_, name) = self.deadlines.first().filter(|(at, _)| *at <= now.steady)?.clone();
        let mut effects = Effects::default();
        if let Some(group) = self.groups.get_mut(&name) {
            group.expire(&self.config, now, &mut effects);
        }
        self.settle_unless_writing(&name, &effects);
        Some(effects)
    }

    /// After an event: forgets a group of which nothing is left, and notes when it must be looked at again.
    pub(super) fn settle(&mut self, name: &str) {
        if self.groups.get(name).is_some_and(Group::is_nothing)
            && let Some(group) = self.groups.remove(name)
        {
            self.bytes -= group.counted_bytes;
        }
        self.schedule(name);
    }

    /// The same, but a group with something to be written is not forgotten yet.
    fn settle_unless_writing(&mut self, name: &str, effects: &Effects) {
        match effects.writes.is_empty() {
            true => self.settle(name),
            false => self.schedule(name),
        }
    }

    /// Notes when a group must be looked at again, and what it takes in memory.
    fn schedule(&mut self, name: &str) {
        if let Some(group) = self.groups.get_mut(name) {
            let bytes = group.bytes();
            self.bytes = self.bytes - group.counted_bytes + bytes;
            group.counted_bytes = bytes;
        }
        let deadline = self.groups.get(name).and_then(Group::deadline);
        if self.scheduled.get(name).copied() == deadline {
            return;
        }
        if let Some(at) = self.scheduled.remove(name) {
            self.deadlines.remove(&(at, name.to_owned()));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, name.to_owned()));
            self.scheduled.insert(name.to_owned(), at);
        }
    }

    /// Plans a join of the engine's.
    ///
    /// # Errors
    /// If the group's members are others.
    pub fn plan_local_join(
        &self,
        group: &str,
        instance: &str,
        member: String,
        now: Timestamp,
    ) -> Result<LocalJoin, GroupError> {
        match self.groups.get(group) {
            Some(group) => group.plan_local_join(instance, member, now),
            None => Group::new(group).plan_local_join(instance, member, now),
        }
    }

    /// Plans a leave of the engine's.
    ///
    /// # Errors
    /// If the member is none of the current generation.
    pub fn plan_local_leave(&self, membership: &Membership, now: Timestamp) -> Result<GroupRecord, GroupError> {
        let group = self.groups.get(&membership.group).ok_or_else(|| illegal(membership))?;
        group.check_membership(membership)?;
        Ok(group.plan_local_leave(&membership.member, now))
    }

    /// Checks that a member of the engine's may commit.
    ///
    /// # Errors
    /// If it is none of the current generation.
    pub fn check_member(&self, membership: &Membership) -> Result<(), GroupError> {
        self.groups.get(&membership.group).ok_or_else(|| illegal(membership))?.check_membership(membership)
    }

    /// Plans a commit of a client's, and takes it for a sign of life.
    ///
    /// # Errors
    /// If such a member may not commit.
    pub fn commit(&mut self, commit: Commit, now: Now) -> Result<OffsetChanges, GroupError> {
        match self.groups.get_mut(&commit.group) {
            _ if commit.group.len() > MAX_GROUP_NAME_LEN => return Err(GroupError::InvalidGroup),
            Some(group) => {
                group.check_commit(&commit.member, commit.instance.as_deref(), commit.generation)?;
                group.renew(&commit.member, now);
                self.heard_of(&commit.group, &commit.member);
            }
            // Offsets are kept for those who use no membership.
            None if commit.generation < 0 => {}
            None if commit.knows_unknown_group => return Err(GroupError::GroupNotFound(commit.group)),
            None => {
                return Err(GroupError::IllegalGeneration { group: commit.group, generation: commit.generation });
            }
        }
        let group = self.groups.get(&commit.group);
        let new_group = if group.is_none() { GROUP_BYTES + 4 * commit.group.len() } else { 0 };
        let is_one_too_many = group.is_none() && self.groups.len() >= self.config.max_groups;
        let mut bytes = self.bytes + new_group;
        let mut changes = OffsetChanges::default();
        for (partition, mut value) in commit.offsets {
            let growth = match group {
                Some(group) => group.offsets.growth(&partition, &value),
                None => Offsets::default().growth(&partition, &value),
            };
            if is_one_too_many || (growth > 0 && bytes + growth > self.config.max_bytes) {
                changes.results.push(Err(GroupError::OffsetsFull));
                continue;
            }
            if value.metadata.encode_utf16().count() > self.config.offset_metadata_max_len {
                changes.results.push(Err(GroupError::MetadataTooLarge));
                continue;
            }
            bytes += growth;
            let latest = Timestamp(value.committed_at.0.saturating_add(MAX_OWN_RETENTION_MS));
            value.expires_at = value.expires_at.map(|at| at.min(latest));
            changes.results.push(Ok(()));
            let group = commit.group.clone();
            changes.records.push(GroupRecord::Offset { group, partition, value: Some(value) });
        }
        Ok(changes)
    }

    /// Plans the deletion of offsets.
    ///
    /// # Errors
    /// If the group does not exist, or is in use by others than consumers.
    pub fn plan_delete_offsets(&self, name: &str, partitions: &[TopicPartition]) -> Result<OffsetChanges, GroupError> {
        if name.is_empty() {
            return Err(GroupError::InvalidGroup);
        }
        self.found(name)?.plan_delete_offsets(partitions)
    }

    /// Plans the deletion of a group.
    ///
    /// # Errors
    /// If it does not exist or has members.
    pub fn plan_delete(&self, name: &str) -> Result<Vec<GroupRecord>, GroupError> {
        self.found(name)?.plan_delete()
    }

    fn found(&self, name: &str) -> Result<&Group, GroupError> {
        self.groups.get(name).ok_or_else(|| GroupError::GroupNotFound(name.to_owned()))
    }

    /// Plans the removal of offsets that nobody has used for too long, and of groups of which nothing is left.
    #[must_use]
    pub fn plan_expiry(&self, now: Timestamp) -> Vec<GroupRecord> {
        self.groups.values().flat_map(|group| group.plan_expiry(&self.config, now)).collect()
    }

    /// Records for the removal of all offsets of topics.
    #[must_use]
    pub fn plan_forget_topics(&self, topics: &[String]) -> Vec<GroupRecord> {
        if let [topic] = topics {
            return self.groups.values().flat_map(|group| group.plan_forget_topic(topic)).collect();
        }
        let topics: HashSet<&str> = topics.iter().map(String::as_str).collect();
        let is_gone = |partition: &TopicPartition| topics.contains(partition.topic.as_str());
        self.groups.values().flat_map(|group| group.plan_forget(is_gone)).collect()
    }

    /// The committed offsets of those partitions that have one, or `None` while an open transaction holds one of them.
    #[must_use]
    pub fn stable_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Option<Vec<(TopicPartition, Offset)>> {
        let Some(group) = self.groups.get(group) else { return Some(Vec::new()) };
        if partitions.iter().any(|partition| group.is_unstable(partition)) {
            return None;
        }
        let committed = |p: &TopicPartition| Some((p.clone(), group.offsets.get(p)?.offset));
        Some(partitions.iter().filter_map(committed).collect())
    }

    /// The furthest offset that any group has committed of a partition; 0 if none has.
    #[must_use]
    pub fn furthest(&self, partition: &TopicPartition) -> Offset {
        let committed = self.groups.values().filter_map(|group| group.offsets.get(partition));
        committed.map(|committed| committed.offset).max().unwrap_or_default()
    }

    /// What is committed of a partition.
    #[must_use]
    pub fn offset(&self, group: &str, partition: &TopicPartition, must_be_stable: bool) -> OffsetFound {
        self.groups.get(group).map_or(OffsetFound::None, |group| group.offset(partition, must_be_stable))
    }

    /// What is committed of the partitions, in their order.
    #[cfg(test)]
    #[must_use]
    pub fn offsets(&self, group: &str, partitions: &[TopicPartition], must_be_stable: bool) -> Vec<OffsetFound> {
        partitions.iter().map(|partition| self.offset(group, partition, must_be_stable)).collect()
    }

    /// The partitions that the group has committed an offset of, sorted.
    #[must_use]
    pub fn committed_partitions(&self, group: &str) -> Vec<TopicPartition> {
        self.groups.get(group).map(|group| group.offsets.keys().cloned().collect()).unwrap_or_default()
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

    /// The state a group is in, if there is one.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<GroupState> {
        self.groups.get(name).map(|group| group.state)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
