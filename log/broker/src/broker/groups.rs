//! Groups, as clients see them.

use std::sync::atomic::Ordering;

use logmill_protocol::Offset;
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::Result;
use crate::groups::JoinRequest;
use crate::names::check_id;
use crate::types::{GroupInfo, Membership, TopicPartition};

impl Broker {
    /// Joins a group as its only member of this instance name and returns the new generation; an earlier member of the
    /// same instance is fenced by it. The membership lasts until it is left, fenced, or the process ends.
    ///
    /// # Errors
    /// `Invalid` for empty names; `DiskFull`, `Storage`.
    pub async fn join_group(&self, group: &str, instance: &str) -> Result<Membership> {
        self.join(group, Some(instance), None).await
    }

    /// Joins a group as a member that must call [`Broker::heartbeat`] within `session_timeout_ms`, or is expelled.
    ///
    /// # Errors
    /// As [`Broker::join_group`].
    pub async fn join_group_with_session(
        &self,
        group: &str,
        instance: Option<&str>,
        session_timeout_ms: u64,
    ) -> Result<Membership> {
        self.join(group, instance, Some(session_timeout_ms)).await
    }

    async fn join(&self, group: &str, instance: Option<&str>, session_timeout_ms: Option<u64>) -> Result<Membership> {
        let _call = self.inner.enter()?;
        check_id("group", group)?;
        if let Some(instance) = instance {
            check_id("instance name", instance)?;
        }
        // Kafka's member ids: what the client calls itself, and something nobody else has.
        let member = format!("{}-{}", short(instance.unwrap_or("member")), Uuid::new_v4());
        let request = JoinRequest { group, instance, session_timeout_ms, member };
        self.inner.groups.join(request, self.inner.now()).await
    }

    /// Notes that a member lives.
    ///
    /// # Errors
    /// `IllegalGeneration` if it is no member of the current generation any more.
    pub async fn heartbeat(&self, membership: &Membership) -> Result<()> {
        let _call = self.inner.enter()?;
        self.inner.groups.heartbeat(membership, self.inner.now())
    }

    /// Leaves the group, which begins a new generation.
    ///
    /// # Errors
    /// `IllegalGeneration` if it is no member of the current generation any more.
    pub async fn leave_group(&self, membership: &Membership) -> Result<()> {
        let _call = self.inner.enter()?;
        self.inner.groups.leave(membership, self.inner.now()).await
    }

    /// The offsets a group has committed; partitions without one are left out. Waits until no offset of an open
    /// transaction is pending on them. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn committed_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Offset)>> {
        let is_closed = || self.inner.closed.load(Ordering::Acquire);
        self.inner.groups.committed(group, partitions, is_closed).await
    }

    /// Commits a group's offsets outside of a transaction and of any membership; durable when it returns.
    ///
    /// # Errors
    /// `UnknownTopic`, `UnknownPartition`; `Invalid` for an empty group; `DiskFull`, `Storage`.
    pub async fn commit_offsets(&self, group: &str, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        let _call = self.inner.enter()?;
        check_id("group", group)?;
        self.check_partitions(offsets)?;
        self.inner.groups.commit(group, None, offsets, self.inner.now()).await
    }

    /// Commits the offsets of a member's group outside of a transaction, fenced by its generation.
    ///
    /// # Errors
    /// `IllegalGeneration` if it is no member of the current generation; `UnknownTopic`, `UnknownPartition`, `DiskFull`,
    /// `Storage`.
    pub async fn commit_offsets_as(&self, membership: &Membership, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        let _call = self.inner.enter()?;
        self.check_partitions(offsets)?;
        self.inner.groups.commit(&membership.group, Some(membership), offsets, self.inner.now()).await
    }

    /// Offsets are kept of what exists only, as in Kafka: a deleted topic takes its offsets along.
    pub(super) fn check_partitions(&self, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        offsets.iter().try_for_each(|(partition, _)| self.inner.topics.partition(partition).map(drop))
    }

    /// The names of all groups.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn groups(&self) -> Result<Vec<String>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.groups.names())
    }

    /// What a group is; `None` if it has never been heard of.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn group(&self, group: &str) -> Result<Option<GroupInfo>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.groups.describe(group))
    }
}

/// So much of a name that an id can follow it within Kafka's bound on strings.
fn short(name: &str) -> &str {
    let end = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 255).last().unwrap_or(0);
    if name.len() <= 255 { name } else { name.get(..end).unwrap_or_default() }
}
