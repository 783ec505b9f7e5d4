//! What a group does by the clock: sessions, the joining phase, and members that never ask for their assignment.

use logmill_protocol::Timestamp;

use crate::clock::Now;
use crate::groups::config::GroupConfig;
use crate::groups::effects::Effects;
use crate::groups::group::{Group, GroupState};
use crate::groups::member::after;

/// When the joining phase ends at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The first rebalance of an empty group, extended while members keep coming and some of the rebalance timeout
    /// remains.
    First { at: Timestamp, delay_ms: i64, remaining_ms: i64 },
    /// Any other: those who were in the last generation are waited for.
    Rejoin { at: Timestamp },
}

impl JoinTimer {
    fn at(self) -> Timestamp {
        match self {
            Self::First { at, .. } | Self::Rejoin { at } => at,
        }
    }
}

impl Group {
    /// When the group must be looked at again, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let phases = [self.join_timer.map(JoinTimer::at), self.sync_deadline];
        let expiries = [self.members.next_expiry(), self.pending.next_expiry()];
        phases.into_iter().chain(expiries).flatten().min()
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, config: &GroupConfig, now: Now, effects: &mut Effects) {
        for member in self.pending.expired(now) {
            self.remove(&member, effects);
            if self.state == GroupState::PreparingRebalance && self.have_all_joined() {
                self.complete_join(now, effects);
            }
        }
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now.steady);
        for member in self.members.expired(now) {
            self.expire_session(&member, config, now, effects);
        }
        match self.join_timer {
            Some(JoinTimer::First { at, delay_ms, remaining_ms }) if at <= now.steady => {
                self.end_first_wait(delay_ms, remaining_ms, config, now, effects);
            }
            Some(JoinTimer::Rejoin { at }) if at <= now.steady => self.complete_join(now, effects),
            _ => {}
        }
        if is_due(self.sync_deadline) {
            self.expire_unsynced(config, now, effects);
        }
    }

    fn expire_session(&mut self, id: &str, config: &GroupConfig, now: Now, effects: &mut Effects) {
        // Looked at again: what another's expiry led to may have renewed it.
        let Some(member) = self.members.get(id).filter(|m| m.expires_at.is_some_and(|at| at <= now.steady)) else {
            return;
        };
        if member.may_be_silent() {
            self.members.update(id, |member| member.expires_at = None);
            return;
        }
        tracing::info!(group = self.name, member = id, "a member's session has expired");
        self.remove(id, effects);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(config, now, effects),
            GroupState::PreparingRebalance if self.have_all_joined() => self.complete_join(now, effects),
            GroupState::PreparingRebalance | GroupState::Empty => {}
        }
    }

    fn end_first_wait(
        &mut self,
        delay_ms: i64,
        remaining_ms: i64,
        config: &GroupConfig,
        now: Now,
        effects: &mut Effects,
    ) {
        if !self.has_new_member || remaining_ms == 0 {
            return self.complete_join(now, effects);
        }
        self.has_new_member = false;
        let next_ms = config.initial_rebalance_delay_ms.min(remaining_ms);
        let remaining_ms = (remaining_ms - delay_ms).max(0);
        self.join_timer = Some(JoinTimer::First { at: after(now.steady, next_ms), delay_ms: next_ms, remaining_ms });
    }

    /// Members that joined the generation and never asked for their assignment hold partitions that nobody consumes.
    fn expire_unsynced(&mut self, config: &GroupConfig, now: Now, effects: &mut Effects) {
        self.sync_deadline = None;
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced.is_empty() || !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        for member in unsynced {
            tracing::info!(group = self.name, member, "a member did not ask for its assignment in time");
            self.remove(&member, effects);
        }
        self.prepare_rebalance(config, now, effects);
    }
}
