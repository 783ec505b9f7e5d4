//! One member of a group: what it told of itself, what it was assigned, and what it waits for.

use bytes::Bytes;
use logmill_protocol::Timestamp;

use crate::clock::Now;
use crate::groups::effects::{Effects, JoinReply, SyncReply, Waiter};
use crate::groups::records::MemberMeta;

/// A way to assign partitions that a member supports, and what the member tells the others about itself under it.
/// Nobody but the members reads the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The name, such as `range`.
    pub name: String,
    /// The subscription, in the clients' own encoding.
    pub metadata: Bytes,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    /// How long the others wait for it to rejoin.
    pub(super) rebalance_timeout_ms: i32,
    /// It is expelled when not heard of for this long. `None` for the engine's own, who live as long as the process.
    pub(super) session_timeout_ms: Option<i32>,
    /// What it supports, in the order of its preference.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    pub(super) awaiting_join: Option<Waiter>,
    pub(super) awaiting_sync: Option<Waiter>,
    /// Has not been in any generation: its client does not know its id and cannot send heartbeats.
    pub(super) is_new: bool,
    /// When its session ends. `None` for those who live as long as the process, and while the end of the session that
    /// came as it waited for the others is held against nobody.
    pub(super) expires_at: Option<Timestamp>,
}

impl Member {
    /// A member as the log says it was in the generation of `protocol`.
    pub(super) fn load(meta: &MemberMeta, protocol: Option<&str>) -> Self {
        let subscription = |name: &str| Protocol { name: name.to_owned(), metadata: meta.subscription.clone() };
        Self {
            instance: meta.instance.clone(),
            client_id: meta.client_id.clone(),
            client_host: meta.client_host.clone(),
            rebalance_timeout_ms: meta.rebalance_timeout_ms,
            session_timeout_ms: meta.session_timeout_ms,
            protocols: protocol.map(subscription).into_iter().collect(),
            assignment: meta.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            expires_at: None,
        }
    }

    /// What the log keeps of it in a generation of `protocol`.
    pub(super) fn meta(&self, protocol: Option<&str>, assignment: Bytes) -> MemberMeta {
        MemberMeta {
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            assignment,
        }
    }

    /// Whether it lives in this process.
    pub(super) fn is_local(&self) -> bool {
        self.session_timeout_ms.is_none()
    }

    /// What it tells the others under the protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|supported| supported.name == protocol);
        found.map(|supported| supported.metadata.clone()).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|supported| supported.name == protocol)
    }

    /// Restarts its session.
    pub(super) fn renew(&mut self, now: Now) {
        self.expires_at = self.session_timeout_ms.map(|timeout| after(now.steady, timeout.into()));
    }

    /// Whether it may be silent: it waits for others.
    pub(super) fn may_be_silent(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// Answers its join, if it waits for one.
    pub(super) fn answer_join(&mut self, effects: &mut Effects, reply: impl FnOnce() -> JoinReply) -> bool {
        let waiter = self.awaiting_join.take();
        if let Some(waiter) = waiter {
            effects.join(waiter, reply());
        }
        waiter.is_some()
    }

    /// Answers its sync, if it waits for one.
    pub(super) fn answer_sync(&mut self, effects: &mut Effects, reply: impl FnOnce() -> SyncReply) -> bool {
        let waiter = self.awaiting_sync.take();
        if let Some(waiter) = waiter {
            effects.sync(waiter, reply());
        }
        waiter.is_some()
    }
}

/// The time so many milliseconds later. At least one, so that what is due now is not due again.
pub(super) fn after(now: Timestamp, ms: i64) -> Timestamp {
    Timestamp(now.0.saturating_add(ms.max(1)))
}
