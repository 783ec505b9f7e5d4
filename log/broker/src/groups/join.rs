//! Joining: who may, what it leads to, and how the joining phase ends.
//!
//! ```text
//!            first member                    all joined, or time is up            leader's assignment
//!   Empty ───────────────▶ PreparingRebalance ───────────────▶ CompletingRebalance ───────────────▶ Stable
//!     ▲                      │    ▲   ▲                              │                                │
//!     └──────────────────────┘    │   └──────────────────────────────┘                                │
//!        everyone is gone         └──────────────── join, leave, expiry, other metadata ──────────────┘
//! ```

use bytes::Bytes;

use crate::clock::Now;
use crate::groups::config::{GroupConfig, NEW_MEMBER_JOIN_TIMEOUT_MS};
use crate::groups::effects::{Effects, JoinRefused, JoinReply, Joined, Reply, Then, Waiter, Write};
use crate::groups::error::GroupError;
use crate::groups::group::{Group, GroupState};
use crate::groups::member::{Member, Protocol, after};
use crate::groups::members;
use crate::groups::records::GroupRecord;
use crate::groups::timers::JoinTimer;

/// A joining phase to which nobody came is not ended again before so many milliseconds, however short the members' own
/// rebalance timeouts are.
const MIN_WAIT_AGAIN_MS: i64 = 1_000;

/// Who wants to join.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// The member's id; empty if it has none yet.
    pub member: String,
    /// The id it gets if it has none; the caller draws it.
    pub new_member: String,
    /// The instance name, at most one member's (KIP-345).
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// It is expelled when not heard of for this long.
    pub session_timeout_ms: i32,
    /// How long the others wait for it to rejoin.
    pub rebalance_timeout_ms: i32,
    /// What kind of group it takes this for.
    pub protocol_type: String,
    /// How it can assign partitions, in the order of its preference.
    pub protocols: Vec<Protocol>,
    /// The client knows that it must join again with the id it is given (KIP-394).
    pub knows_required_id: bool,
    /// The client knows that a leader may be told to keep the assignment (KIP-814).
    pub knows_skipped_assignment: bool,
    /// Whom to answer.
    pub waiter: Waiter,
}

impl JoinRequest {
    /// What the member will take in memory, in about.
    pub(super) fn bytes(&self) -> usize {
        let id = if self.member.is_empty() { &self.new_member } else { &self.member };
        let instance = self.instance.as_deref().unwrap_or_default();
        members::texts_bytes([id, &self.client_id, &self.client_host, instance])
            + members::protocols_bytes(&self.protocols)
    }
}

impl Group {
    /// A member asks to join. The caller has checked the request's own limits.
    pub(super) fn join(&mut self, join: JoinRequest, config: &GroupConfig, now: Now, effects: &mut Effects) {
        let is_one_too_many = join.member.is_empty() && self.pending.len() >= config.max_pending;
        if is_one_too_many || !self.accepts(&join.member, config) {
            self.remove(&join.member, effects);
            return effects.refuse_join(join.waiter, "", GroupError::GroupMaxSize);
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return effects.refuse_join(join.waiter, &join.member, GroupError::InconsistentProtocol);
        }
        if join.member.is_empty() {
            return self.join_new(join, config, now, effects);
        }
        if self.pending.contains_key(&join.member) && join.instance.is_none() {
            let member = join.member.clone();
            return self.add(join, member, config, now, effects);
        }
        match self.check_member(&join.member, join.instance.as_deref()) {
            Ok(()) => self.rejoin(join, config, now, effects),
            Err(error) => effects.refuse_join(join.waiter, &join.member, error),
        }
    }

    /// Whether there is room for the member.
    fn accepts(&self, member: &str, config: &GroupConfig) -> bool {
        match self.state {
            GroupState::Empty => true,
            // Those who wait are counted: when the limit was lowered, the last to rejoin are the ones to go.
            GroupState::PreparingRebalance => {
                self.members.get(member).is_some_and(|member| member.awaiting_join.is_some())
                    || self.members.joining() < config.max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.members.contains_key(member) || self.members.len() < config.max_size
            }
        }
    }

    fn join_new(&mut self, join: JoinRequest, config: &GroupConfig, now: Now, effects: &mut Effects) {
        let member = join.new_member.clone();
        let bearer = join.instance.as_deref().and_then(|instance| self.bearer(instance)).map(str::to_owned);
        match (&join.instance, bearer) {
            (Some(_), Some(bearer)) => self.replace(&bearer, join, config, now, effects),
            (None, _) if join.knows_required_id => {
                self.pending.insert(member.clone(), after(now.steady, join.session_timeout_ms.into()));
                effects.refuse_join(join.waiter, &member, GroupError::MemberIdRequired);
            }
            _ => self.add(join, member, config, now, effects),
        }
    }

    /// Adds a member, which begins a rebalance, or takes part in the one under way.
    fn add(&mut self, join: JoinRequest, id: String, config: &GroupConfig, now: Now, effects: &mut Effects) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        self.has_new_member |= self.state == GroupState::PreparingRebalance && self.is_first_rebalance;
        self.pending.remove(&id);
        self.leader.get_or_insert_with(|| id.clone());
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: Some(join.session_timeout_ms),
            protocols: join.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(join.waiter),
            awaiting_sync: None,
            is_new: true,
            expires_at: Some(after(now.steady, NEW_MEMBER_JOIN_TIMEOUT_MS)),
        };
        self.members.insert(id, member);
        self.rebalance_or_complete(config, now, effects);
    }

    /// A member of the group asks to join again.
    fn rejoin(&mut self, join: JoinRequest, config: &GroupConfig, now: Now, effects: &mut Effects) {
        let is_same = self.members.get(&join.member).is_some_and(|member| member.protocols == join.protocols);
        let begins_rebalance = match self.state {
            GroupState::PreparingRebalance => true,
            // The answer to the same request may have been lost: the generation stands.
            GroupState::CompletingRebalance => !is_same,
            // A leader rejoins when what it assigns has changed, without a change of what it tells of itself.
            GroupState::Stable => !is_same || self.is_leader(&join.member),
            GroupState::Empty => return effects.refuse_join(join.waiter, &join.member, GroupError::UnknownMember),
        };
        if begins_rebalance {
            self.update(join, effects);
            return self.rebalance_or_complete(config, now, effects);
        }
        let reply = self.joined(&join.member, self.state == GroupState::CompletingRebalance);
        effects.join(join.waiter, Ok(reply));
    }

    /// Takes over what a member tells of itself, and lets it wait.
    fn update(&mut self, join: JoinRequest, effects: &mut Effects) {
        let id = join.member.clone();
        self.members.update(&id, |member| {
            member.protocols = join.protocols;
            member.session_timeout_ms = Some(join.session_timeout_ms);
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            // A client that asks again does not read the answer to its first request.
            let refused = JoinRefused { error: GroupError::RebalanceInProgress, member: join.member };
            member.answer_join(effects, || Err(refused));
            member.awaiting_join = Some(join.waiter);
        });
    }

    /// A static member is back, without its id: it gets a new one, and the old one is fenced (KIP-345).
    fn replace(&mut self, old: &str, mut join: JoinRequest, config: &GroupConfig, now: Now, effects: &mut Effects) {
        let (waiter, new) = (join.waiter, join.new_member.clone());
        let old_leader = self.leader.clone().unwrap_or_default();
        let knows_skipped_assignment = join.knows_skipped_assignment;
        let mut next = self.clone();
        let mut fenced = Effects::default();
        next.rename(old, &new, &mut fenced);
        join.member.clone_from(&new);
        next.update(join, &mut fenced);
        next.members.update(&new, |member| {
            member.renew(now);
            member.is_new = false;
        });
        let keeps_generation = self.state == GroupState::Stable && next.select_protocol() == self.protocol;
        if !keeps_generation {
            *self = next;
            effects.replies.append(&mut fenced.replies);
            return match self.state {
                // The leader may be assigning to the old id.
                GroupState::CompletingRebalance | GroupState::Stable => self.prepare_rebalance(config, now, effects),
                GroupState::PreparingRebalance | GroupState::Empty => self.maybe_complete_join(now, effects),
            };
        }
        // Nobody needs to notice, but the new id must outlive us.
        next.members.update(&new, |member| member.awaiting_join = None);
        let mut reply = next.joined(&new, false);
        if !knows_skipped_assignment {
            // Told the old leader's id, a leader that does not know better does not assign anew.
            (reply.leader, reply.members) = (old_leader, Vec::new());
        } else if next.is_leader(&new) {
            (reply.skip_assignment, reply.members) = (true, next.peers());
        }
        let meta = next.meta(|_, member| member.assignment.clone(), self.changed_at);
        let record = GroupRecord::Group { group: self.name.clone(), value: Some(meta) };
        let then = Then::Replace { group: Box::new(next), waiter, reply: Box::new(Ok(reply)), fenced: fenced.replies };
        effects.writes.push(Write { record, then });
    }

    /// Gives a member another id.
    fn rename(&mut self, old: &str, new: &str, effects: &mut Effects) {
        let Some(mut member) = self.members.remove(old) else { return };
        let refused = JoinRefused { error: GroupError::FencedInstance, member: old.to_owned() };
        member.answer_join(effects, || Err(refused));
        member.answer_sync(effects, || Err(GroupError::FencedInstance));
        self.members.insert(new.to_owned(), member);
        if self.unsynced.remove(old) {
            self.unsynced.insert(new.to_owned());
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
    }

    /// Begins a rebalance if none is under way, or sees whether the one under way is over.
    pub(super) fn rebalance_or_complete(&mut self, config: &GroupConfig, now: Now, effects: &mut Effects) {
        match self.state {
            GroupState::PreparingRebalance => self.maybe_complete_join(now, effects),
            _ => self.prepare_rebalance(config, now, effects),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, config: &GroupConfig, now: Now, effects: &mut Effects) {
        if self.state == GroupState::CompletingRebalance {
            self.cancel_sync(&GroupError::RebalanceInProgress, now, effects);
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        self.is_first_rebalance = self.state == GroupState::Empty;
        self.has_new_member = false;
        self.enter(GroupState::PreparingRebalance, now);
        if self.is_first_rebalance && config.initial_rebalance_delay_ms > 0 {
            let delay_ms = config.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.join_timer = Some(JoinTimer::First { at: after(now.steady, delay_ms), delay_ms, remaining_ms });
        } else if self.is_first_rebalance || self.have_all_joined() {
            self.complete_join(now, effects);
        } else {
            self.join_timer = Some(JoinTimer::Rejoin { at: after(now.steady, self.rebalance_timeout_ms()) });
        }
    }

    /// Ends the joining phase if everyone is there; the first of an empty group ends by time only.
    pub(super) fn maybe_complete_join(&mut self, now: Now, effects: &mut Effects) {
        if self.state == GroupState::PreparingRebalance && !self.is_first_rebalance && self.have_all_joined() {
            self.complete_join(now, effects);
        }
    }

    /// Ends the joining phase: those who did not rejoin are out, unless they are static, and a generation begins.
    pub(super) fn complete_join(&mut self, now: Now, effects: &mut Effects) {
        self.join_timer = None;
        let is_missing = |member: &Member| member.awaiting_join.is_none() && member.instance.is_none();
        let missing: Vec<String> =
            self.members.iter().filter(|(_, member)| is_missing(member)).map(|(id, _)| id.clone()).collect();
        for member in missing {
            tracing::info!(group = self.name, member, "a member did not rejoin in time");
            self.remove(&member, effects);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Static members only, and none has rejoined: their sessions end, or they come.
            let wait_ms = self.rebalance_timeout_ms().max(MIN_WAIT_AGAIN_MS);
            self.join_timer = Some(JoinTimer::Rejoin { at: after(now.steady, wait_ms) });
            return;
        }
        // -1 and 0 mean "none" on the wire.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.unsynced.clear();
        self.protocol = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        if self.members.is_empty() {
            self.enter(GroupState::Empty, now);
            let meta = self.meta(|_, _| Bytes::new(), now.wall);
            let record = GroupRecord::Group { group: self.name.clone(), value: Some(meta) };
            effects.writes.push(Write { record, then: Then::Nothing });
            return;
        }
        self.enter(GroupState::CompletingRebalance, now);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let reply = self.joined(&id, true);
            self.members.update(&id, |member| {
                member.answer_join(effects, || Ok(reply));
                member.renew(now);
                member.is_new = false;
            });
            self.unsynced.insert(id);
        }
        self.sync_deadline = Some(after(now.steady, self.rebalance_timeout_ms()));
    }

    /// Makes sure that the leader is one who has joined. Whether there is one.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.awaiting_join.is_some();
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(has_joined) {
            return true;
        }
        match self.members.iter().find(|(_, member)| has_joined(member)) {
            Some((id, _)) => self.leader = Some(id.clone()),
            None => return false,
        }
        true
    }

    /// The generation as a member is told of it; the leader is told of the others if it is to assign.
    fn joined(&self, member: &str, assigns: bool) -> Joined {
        Joined {
            member: member.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: if assigns && self.is_leader(member) { self.peers() } else { Vec::new() },
        }
    }

    /// The static member's new id is written.
    pub(super) fn replaced(
        &mut self,
        next: Group,
        answer: (Waiter, JoinReply),
        fenced: Vec<(Waiter, Reply)>,
        effects: &mut Effects,
    ) {
        *self = next;
        effects.replies.extend(fenced);
        effects.join(answer.0, answer.1);
    }
}
