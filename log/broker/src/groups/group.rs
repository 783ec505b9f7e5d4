//! One group: its state, its members, and the questions that the events in [`join`](super::join), [`sync`](super::sync)
//! and [`leave`](super::leave) ask of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use logmill_protocol::{ProducerId, Timestamp};

use crate::clock::Now;
use crate::groups::effects::{Effects, JoinRefused, Peer};
use crate::groups::error::GroupError;
use crate::groups::member::{Member, Protocol};
use crate::groups::members::{Members, Pending};
use crate::groups::offsets::{CommittedOffset, Offsets};
use crate::groups::records::GroupMeta;
use crate::groups::{subscription, timers::JoinTimer};
use crate::types::TopicPartition;

/// What Kafka calls the protocol type of ordinary consumers.
pub const CONSUMER: &str = "consumer";
/// The protocol type of groups whose members are the engine's own: they join at once, without a rebalance.
pub const LOCAL: &str = "logmill";

/// Where a group is between two generations. Dead groups are no longer there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members.
    #[default]
    Empty,
    /// Members are asked to join the next generation.
    PreparingRebalance,
    /// The generation's members wait for the leader to assign partitions.
    CompletingRebalance,
    /// The members have their assignments.
    Stable,
}

impl GroupState {
    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) state: GroupState,
    /// Whether the rebalance under way is the first of an empty group, which waits for more members to come.
    pub(super) is_first_rebalance: bool,
    /// Whether someone came since that wait began or was extended.
    pub(super) has_new_member: bool,
    pub(super) changed_at: Timestamp,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: Members,
    pub(super) pending: Pending,
    /// Members of the generation that have not asked for their assignment.
    pub(super) unsynced: BTreeSet<String>,
    pub(super) join_timer: Option<JoinTimer>,
    pub(super) sync_deadline: Option<Timestamp>,
    /// The topics that the members consume, if the group is a consumer group and they can be read.
    pub(super) subscribed: Option<BTreeSet<String>>,
    /// What the log says of generation and members.
    pub(super) written: Option<GroupMeta>,
    pub(super) offsets: Offsets,
    /// Offsets of open transactions.
    pub(super) in_transactions: HashMap<ProducerId, BTreeMap<TopicPartition, Option<CommittedOffset>>>,
    /// What it counts for in the memory of all groups.
    pub(super) counted_bytes: usize,
}

/// What a group takes in memory beside its name, members and offsets, in about.
pub(super) const GROUP_BYTES: usize = 1024;

impl Group {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), changed_at: Timestamp::NONE, ..Self::default() }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_nothing(&self) -> bool {
        self.written.is_none()
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.in_transactions.is_empty()
    }

    /// What it takes in memory, in about. Not counted is what the engine's own transactions hold.
    pub(super) fn bytes(&self) -> usize {
        let offsets = self.offsets.bytes() + 4 * self.name.len();
        GROUP_BYTES + self.members.bytes() + self.pending.bytes() + offsets
    }

    /// Takes over generation and members from the log.
    pub(super) fn load(&mut self, meta: &GroupMeta) {
        self.generation = meta.generation;
        self.changed_at = meta.changed_at;
        self.protocol_type.clone_from(&meta.protocol_type);
        self.protocol.clone_from(&meta.protocol);
        self.leader.clone_from(&meta.leader);
        let member = |(id, member): (&String, _)| (id.clone(), Member::load(member, meta.protocol.as_deref()));
        self.members = meta.members.iter().map(member).collect();
        self.state = if self.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        self.is_first_rebalance = false;
        self.has_new_member = false;
        self.unsynced.clear();
        (self.join_timer, self.sync_deadline) = (None, None);
        self.subscribed = self.compute_subscribed();
        self.written = Some(meta.clone());
    }

    /// Forgets generation and members, as the log did.
    pub(super) fn unload(&mut self) {
        self.load(&GroupMeta::default());
        self.written = None;
    }

    /// What the log is told of generation and members, each with the assignment that `assignment` says.
    pub(super) fn meta(&self, assignment: impl Fn(&str, &Member) -> Bytes, now: Timestamp) -> GroupMeta {
        let protocol = self.protocol.as_deref();
        let member = |(id, member): (&String, &Member)| (id.clone(), member.meta(protocol, assignment(id, member)));
        GroupMeta {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            changed_at: now,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Goes over to the state.
    pub(super) fn enter(&mut self, state: GroupState, now: Now) {
        self.state = state;
        self.changed_at = now.wall;
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The id of the member that bears the instance name.
    pub(super) fn bearer(&self, instance: &str) -> Option<&str> {
        self.members.bearer(instance)
    }

    /// Checks that the member is in the group and has not been replaced by another of its instance name.
    pub(super) fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.bearer(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(bearer) if bearer != member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        match self.members.contains_key(member) {
            true => Ok(()),
            false => Err(GroupError::UnknownMember),
        }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        match generation == self.generation {
            true => Ok(()),
            false => Err(GroupError::IllegalGeneration { group: self.name.clone(), generation }),
        }
    }

    /// Whether a member with these protocols could be in a generation with the others.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if protocol_type == LOCAL {
            return false;
        }
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.members.all_support(&protocol.name))
    }

    /// The protocol of the next generation: each member votes for the first of its own that all support. Of two with as
    /// many votes, the first by name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let vote = |member: &Member| {
            let by_all = member.protocols.iter().find(|protocol| self.members.all_support(&protocol.name));
            by_all.map(|protocol| protocol.name.clone())
        };
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        self.members.values().filter_map(vote).for_each(|name| *votes.entry(name).or_default() += 1);
        votes.into_iter().min_by_key(|(_, votes)| std::cmp::Reverse(*votes)).map(|(name, _)| name)
    }

    /// How long the members are waited for.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        i64::from(self.members.rebalance_timeout_ms())
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.joining() == self.members.len()
    }

    /// All members, as the leader sees them.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let peer = |(id, member): (&String, &Member)| Peer {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(peer).collect()
    }

    /// Removes a member or an id given out; whoever it left waiting is told that it is no member.
    pub(super) fn remove(&mut self, member: &str, effects: &mut Effects) {
        if let Some(mut removed) = self.members.remove(member) {
            removed.answer_join(effects, || Err(unknown_member()));
            removed.answer_sync(effects, || Err(GroupError::UnknownMember));
        }
        self.pending.remove(member);
        self.unsynced.remove(member);
        if self.is_leader(member) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The topics the members consume; `None` where that is not known.
    pub(super) fn compute_subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            match subscription::topics(&member.metadata(protocol)) {
                Ok(subscribed) => topics.extend(subscribed),
                Err(error) => {
                    tracing::warn!(group = self.name, %error, "what the group's members consume cannot be read");
                    return None;
                }
            }
        }
        Some(topics)
    }

    /// Whether a member consumes the topic, or may: consumers whose subscriptions cannot be read may consume any.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(CONSUMER),
        }
    }
}

/// The answer to the join of a member that was removed: its client joins again with a new id.
pub(super) fn unknown_member() -> JoinRefused {
    JoinRefused { error: GroupError::UnknownMember, member: String::new() }
}
