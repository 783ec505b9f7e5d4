//! Committed offsets: who may commit, what is deleted, and what expires.
//!
//! A transaction's offsets are *pending* from the moment they are written until the transaction's marker. They are
//! fenced by generation when they are written (KIP-447); a reader who must not miss them waits until none is pending.

use std::collections::BTreeMap;
use std::ops::Deref;

use logmill_protocol::{LeaderEpoch, Offset, Timestamp};

use crate::groups::config::GroupConfig;
use crate::groups::error::GroupError;
use crate::groups::group::{CONSUMER, Group, GroupState};
use crate::groups::records::GroupRecord;
use crate::types::TopicPartition;

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Where to read on.
    pub offset: Offset,
    /// The leader epoch of the last record consumed, or none (KIP-320).
    pub leader_epoch: LeaderEpoch,
    /// What the client wrote beside it.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When it is forgotten, if the client asked for a time of its own, as old ones do.
    pub expires_at: Option<Timestamp>,
}

impl CommittedOffset {
    /// An offset with nothing beside it.
    #[must_use]
    pub fn new(offset: Offset, committed_at: Timestamp) -> Self {
        let (leader_epoch, metadata) = (LeaderEpoch::NONE, String::new());
        Self { offset, leader_epoch, metadata, committed_at, expires_at: None }
    }
}

/// What a committed offset takes in memory beside its texts, in about.
const OFFSET_BYTES: usize = 192;

/// The committed offsets of a group. Reads go to the map.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    by_partition: BTreeMap<TopicPartition, CommittedOffset>,
    bytes: usize,
}

impl Deref for Offsets {
    type Target = BTreeMap<TopicPartition, CommittedOffset>;

    fn deref(&self) -> &Self::Target {
        &self.by_partition
    }
}

impl Offsets {
    pub(super) fn insert(&mut self, partition: TopicPartition, offset: CommittedOffset) {
        self.remove(&partition);
        self.bytes += offset_bytes(&partition, &offset);
        self.by_partition.insert(partition, offset);
    }

    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        if let Some(offset) = self.by_partition.remove(partition) {
            self.bytes -= offset_bytes(partition, &offset);
        }
    }

    /// What the offsets take in memory, in about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much more memory the offset of the partition takes than the one that it replaces.
    pub(super) fn growth(&self, partition: &TopicPartition, offset: &CommittedOffset) -> usize {
        let before = self.by_partition.get(partition).map_or(0, |before| offset_bytes(partition, before));
        offset_bytes(partition, offset).saturating_sub(before)
    }
}

fn offset_bytes(partition: &TopicPartition, offset: &CommittedOffset) -> usize {
    OFFSET_BYTES + partition.topic.len() + offset.metadata.len()
}

/// A client commits offsets.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// The member's id; empty for those who use a group to keep offsets only.
    pub member: String,
    /// The member's instance name.
    pub instance: Option<String>,
    /// The member's generation; negative for those who use a group to keep offsets only.
    pub generation: i32,
    /// The client knows that a group may be unknown; others are told that their generation is over.
    pub knows_unknown_group: bool,
    /// The offsets.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// What a commit or a deletion comes to.
#[derive(Debug, Default)]
pub struct OffsetChanges {
    /// To be appended and applied.
    pub records: Vec<GroupRecord>,
    /// What became of each offset, in the order they were given.
    pub results: Vec<Result<(), GroupError>>,
}

/// What there is to say about a partition's offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetFound {
    /// Nothing is committed.
    None,
    /// An open transaction may be about to change it.
    Unstable,
    /// It is this.
    Committed(CommittedOffset),
}

impl Group {
    /// Whether such a member may commit.
    pub(super) fn check_commit(&self, member: &str, instance: Option<&str>, generation: i32) -> Result<(), GroupError> {
        if generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if generation < 0 && member.is_empty() && instance.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        match self.state {
            // It has joined, and does not know yet what it is assigned.
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(super) fn is_unstable(&self, partition: &TopicPartition) -> bool {
        self.in_transactions.values().any(|pending| pending.contains_key(partition))
    }

    /// What is committed of the partition.
    pub(super) fn offset(&self, partition: &TopicPartition, must_be_stable: bool) -> OffsetFound {
        if must_be_stable && self.is_unstable(partition) {
            return OffsetFound::Unstable;
        }
        self.offsets.get(partition).map_or(OffsetFound::None, |offset| OffsetFound::Committed(offset.clone()))
    }

    /// The partitions that offsets are committed of or pending on.
    fn known_partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let pending = self.in_transactions.values().flat_map(|pending| pending.keys());
        self.offsets.keys().chain(pending.filter(|partition| !self.offsets.contains_key(partition)))
    }

    /// Records that forget what is committed of the topic.
    pub(super) fn plan_forget_topic(&self, topic: &str) -> Vec<GroupRecord> {
        let first = TopicPartition::new(topic, i32::MIN);
        let committed = self.offsets.range(&first..).map(|(partition, _)| partition);
        let committed = committed.take_while(|partition| partition.topic == topic);
        let pending = self.in_transactions.values().flat_map(|pending| pending.keys());
        let pending = pending.filter(|p| p.topic == topic && !self.offsets.contains_key(p));
        committed.chain(pending).map(|partition| self.tombstone(partition)).collect()
    }

    /// Records that forget what is committed of the partitions that `select` picks.
    pub(super) fn plan_forget(&self, select: impl Fn(&TopicPartition) -> bool) -> Vec<GroupRecord> {
        self.known_partitions().filter(|partition| select(partition)).map(|p| self.tombstone(p)).collect()
    }

    fn tombstone(&self, partition: &TopicPartition) -> GroupRecord {
        GroupRecord::Offset { group: self.name.clone(), partition: partition.clone(), value: None }
    }

    pub(super) fn plan_delete_offsets(&self, partitions: &[TopicPartition]) -> Result<OffsetChanges, GroupError> {
        if self.state != GroupState::Empty && self.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(GroupError::NonEmptyGroup(self.name.clone()));
        }
        let mut changes = OffsetChanges::default();
        for partition in partitions {
            if self.is_subscribed(&partition.topic) {
                changes.results.push(Err(GroupError::SubscribedToTopic));
                continue;
            }
            changes.results.push(Ok(()));
            if self.offsets.contains_key(partition) || self.is_unstable(partition) {
                changes.records.push(self.tombstone(partition));
            }
        }
        Ok(changes)
    }

    /// Records that remove the group with all it has committed.
    pub(super) fn plan_delete(&self) -> Result<Vec<GroupRecord>, GroupError> {
        if self.state != GroupState::Empty {
            return Err(GroupError::NonEmptyGroup(self.name.clone()));
        }
        let mut records = self.plan_forget(|_| true);
        records.push(GroupRecord::Group { group: self.name.clone(), value: None });
        Ok(records)
    }

    /// Records that forget offsets that nobody has used for too long, and the group if nothing is left of it.
    ///
    /// Kafka's conditions (KIP-211): of an empty group all offsets, once it has been empty for the retention time; of
    /// a stable consumer group those of topics that nobody consumes any more; of a group that only keeps offsets each
    /// by its own age. The engine's groups keep theirs: a pipeline may be stopped for as long as one likes.
    pub(super) fn plan_expiry(&self, config: &GroupConfig, now: Timestamp) -> Vec<GroupRecord> {
        if self.is_local() {
            return Vec::new();
        }
        let is_expired = |partition: &TopicPartition, offset: &CommittedOffset| {
            let Some(since) = self.unused_since(partition, offset) else { return false };
            let retained_until = Timestamp(since.0.saturating_add(config.offsets_retention_ms));
            offset.expires_at.unwrap_or(retained_until) <= now && !self.is_unstable(partition)
        };
        let expired = self.offsets.iter().filter(|(partition, offset)| is_expired(partition, offset));
        let mut records: Vec<_> = expired.map(|(partition, _)| self.tombstone(partition)).collect();
        let is_over = self.state == GroupState::Empty && self.pending.is_empty() && self.in_transactions.is_empty();
        if is_over && records.len() == self.offsets.len() && self.written.is_some() {
            records.push(GroupRecord::Group { group: self.name.clone(), value: None });
        }
        records
    }

    fn unused_since(&self, partition: &TopicPartition, offset: &CommittedOffset) -> Option<Timestamp> {
        match (&self.protocol_type, self.state) {
            (None, _) => Some(offset.committed_at),
            (Some(_), GroupState::Empty) if self.changed_at == Timestamp::NONE => Some(offset.committed_at),
            (Some(_), GroupState::Empty) => Some(self.changed_at),
            (Some(_), GroupState::Stable) => match &self.subscribed {
                Some(topics) if !topics.contains(&partition.topic) => Some(offset.committed_at),
                _ => None,
            },
            _ => None,
        }
    }
}
