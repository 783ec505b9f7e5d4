//! Groups, as clients see them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use logmill_protocol::Offset;
use uuid::Uuid;

use crate::broker::{Broker, Call};
use crate::clock::Now;
use crate::error::{BrokerError, Result};
use crate::groups::{GroupService, Groups};
use crate::names::check_id;
use crate::types::{GroupInfo, Membership, TopicPartition};

/// The group coordinator, for the length of a call of a Kafka client's.
pub(crate) struct Coordinator<'a> {
    pub(crate) service: &'a Arc<GroupService>,
    pub(crate) now: Now,
    _call: Call<'a>,
}

impl Broker {
    /// The group coordinator, to which the server's handlers speak.
    pub(crate) fn coordinator(&self) -> Result<Coordinator<'_>> {
        let _call = self.inner.enter()?;
        Ok(Coordinator { service: &self.inner.groups, now: Now::of(&*self.inner.config.clock), _call })
    }

    /// Joins a group as its only member of this instance name and returns the new generation; an earlier member of the
    /// same instance is fenced by it. The membership lasts until it is left, fenced, or the process ends.
    ///
    /// # Errors
    /// `Invalid` for empty names, and for a group that Kafka clients are members of; `DiskFull`, `Storage`.
    pub async fn join_group(&self, group: &str, instance: &str) -> Result<Membership> {
        let _call = self.inner.enter()?;
        check_id("group", group)?;
        check_id("instance name", instance)?;
        // Kafka's member ids: what the client calls itself, and something nobody else has.
        let member = format!("{}-{}", short(instance), Uuid::new_v4());
        self.inner.groups.join_local(group, instance, member, self.inner.now()).await
    }

    /// Leaves the group, which begins a new generation.
    ///
    /// # Errors
    /// `IllegalGeneration` if it is no member of the current generation any more.
    pub async fn leave_group(&self, membership: &Membership) -> Result<()> {
        let _call = self.inner.enter()?;
        self.inner.groups.leave_local(membership, self.inner.now()).await
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
        self.durable_before(offsets).await.into_iter().collect::<Result<()>>()?;
        self.inner.groups.commit_local(group, None, offsets, self.inner.now()).await
    }

    /// Commits the offsets of a member's group outside of a transaction, fenced by its generation.
    ///
    /// # Errors
    /// `IllegalGeneration` if it is no member of the current generation; `UnknownTopic`, `UnknownPartition`, `DiskFull`,
    /// `Storage`.
    pub async fn commit_offsets_as(&self, membership: &Membership, offsets: &[(TopicPartition, Offset)]) -> Result<()> {
        let _call = self.inner.enter()?;
        self.durable_before(offsets).await.into_iter().collect::<Result<()>>()?;
        self.inner.groups.commit_local(&membership.group, Some(membership), offsets, self.inner.now()).await
    }

    /// Waits until the records before each offset are on disk, whatever the topic's `flush` says: if a power loss took a
    /// record whose offset is committed, the group would skip the record that gets this offset next. Returns for each
    /// offset whether its records are on disk, and whether the partition exists. Syncs only where records are not durable
    /// yet; a partition that is offline has no such records.
    pub(crate) async fn durable_before(&self, offsets: &[(TopicPartition, Offset)]) -> Vec<Result<()>> {
        let request = |(name, offset): &(TopicPartition, Offset)| {
            let partition = match self.inner.topics.partition(name) {
                Err(BrokerError::Offline(_)) => return Ok(None),
                found => found?,
            };
            let end = partition.log().log_end().min(*offset);
            let request = partition.request_durable(&self.inner.flusher, end);
            Ok(Some((partition, request)))
        };
        let requests: Vec<Result<_>> = offsets.iter().map(request).collect();
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            results.push(match request {
                Ok(Some((partition, request))) => partition.requested(request).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            });
        }
        results
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
        Ok(self.inner.groups.read(Groups::names))
    }

    /// What a group is; `None` if it has never been heard of.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn group(&self, group: &str) -> Result<Option<GroupInfo>> {
        let _call = self.inner.enter()?;
        Ok(self.inner.groups.read(|groups| groups.info(group)))
    }
}

/// So much of a name that an id can follow it within Kafka's bound on strings.
fn short(name: &str) -> &str {
    let end = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= 255).last().unwrap_or(0);
    if name.len() <= 255 { name } else { name.get(..end).unwrap_or_default() }
}
