//! The group coordinator: the state machine, and the topic that it is written to.

use std::sync::Arc;

use logmill_protocol::{ControlKind, Offset, ProducerEpoch, ProducerId, Timestamp};
use logmill_storage::Flusher;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::batches::Stamp;
use crate::error::{BrokerError, Result};
use crate::groups::{CommittedOffset, GroupError, GroupRecord, Groups, JoinRequest};
use crate::internal::{self, Entry};
use crate::partition::Partition;
use crate::types::{GroupInfo, Membership, TopicPartition};

/// Groups, and where they are kept.
pub(crate) struct GroupService {
    partitions: Vec<Arc<Partition>>,
    /// Held while a record is appended, so that the log and the state have the same order.
    state: Mutex<Groups>,
    /// Told when pending offsets are pending no more.
    settled: Notify,
    flusher: Arc<Flusher>,
}

impl GroupService {
    /// Replays the topic.
    pub(crate) fn open(partitions: Vec<Arc<Partition>>, flusher: Arc<Flusher>, now: Timestamp) -> Result<Self> {
        let mut groups = Groups::default();
        for partition in &partitions {
            internal::replay(partition, |entry| {
                match entry {
                    Entry::Record { key, value, producer } => {
                        if let Some(record) = GroupRecord::decode(key, value)? {
                            groups.apply(&record, producer);
                        }
                    }
                    Entry::Marker { producer, commit } => drop(groups.end_transaction(producer, commit)),
                }
                Ok::<_, crate::wire::WireError>(())
            })?;
        }
        groups.forget_local_members();
        groups.renew_sessions(now);
        Ok(Self { partitions, state: Mutex::new(groups), settled: Notify::new(), flusher })
    }

    /// The partition of the topic that holds a group.
    pub(crate) fn partition(&self, group: &str) -> Result<&Arc<Partition>> {
        internal::partition_of(group, &self.partitions)
    }

    pub(crate) async fn join(&self, request: JoinRequest<'_>, now: Timestamp) -> Result<Membership> {
        let partition = self.partition(request.group)?;
        let membership = {
            let mut state = self.state.lock();
            let joined = state.plan_join(request, now);
            write(partition, &mut state, &[joined.record], now)?;
            joined.membership
        };
        partition.flush(&self.flusher).await?;
        Ok(membership)
    }

    pub(crate) async fn leave(&self, membership: &Membership, now: Timestamp) -> Result<()> {
        let partition = self.partition(&membership.group)?;
        {
            let mut state = self.state.lock();
            let record = state.plan_leave(membership, now)?;
            write(partition, &mut state, &[record], now)?;
        }
        partition.flush(&self.flusher).await
    }

    pub(crate) fn heartbeat(&self, membership: &Membership, now: Timestamp) -> Result<()> {
        Ok(self.state.lock().heartbeat(membership, now)?)
    }

    /// Expels members that have been silent for too long.
    pub(crate) fn expire(&self, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        for record in state.plan_expiry(now) {
            tracing::info!(group = record.group(), "a member's session has expired");
            let partition = self.partition(record.group())?;
            write(partition, &mut state, &[record], now)?;
        }
        Ok(())
    }

    /// Commits offsets outside of a transaction; fenced by the member's generation if there is one.
    pub(crate) async fn commit(
        &self,
        group: &str,
        membership: Option<&Membership>,
        offsets: &[(TopicPartition, Offset)],
        now: Timestamp,
    ) -> Result<()> {
        let partition = self.partition(group)?;
        {
            let mut state = self.state.lock();
            if let Some(membership) = membership {
                state.check_member(membership)?;
            }
            write(partition, &mut state, &offset_records(group, offsets, now), now)?;
        }
        partition.flush(&self.flusher).await
    }

    /// Checks that the member may commit now.
    pub(crate) fn check_member(&self, membership: &Membership) -> Result<()> {
        Ok(self.state.lock().check_member(membership)?)
    }

    /// Writes offsets as part of a transaction, fenced by the member's generation; pending until the marker.
    pub(crate) fn commit_in_transaction(
        &self,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<()> {
        let partition = self.partition(&membership.group)?;
        let mut state = self.state.lock();
        state.check_member(membership)?;
        let records = offset_records(&membership.group, offsets, now);
        internal::append(partition, records.iter().map(|r| (r.key(), r.value())), Some(stamp), now)?;
        records.iter().for_each(|record| state.apply(record, Some(stamp.id)));
        Ok(())
    }

    /// Whether the partition is of the topic.
    pub(crate) fn owns(&self, partition: &TopicPartition) -> bool {
        self.partitions.iter().any(|own| own.name() == partition)
    }

    /// Appends a marker to a partition of the topic and settles what was pending.
    pub(crate) fn append_marker(
        &self,
        partition: &Partition,
        id: ProducerId,
        epoch: ProducerEpoch,
        kind: ControlKind,
        now: Timestamp,
    ) -> Result<()> {
        let mut state = self.state.lock();
        partition.append_marker(id, epoch, kind, now)?;
        if state.end_transaction(id, kind == ControlKind::Commit) {
            self.settled.notify_waiters();
        }
        Ok(())
    }

    /// The committed offsets, once none of them is pending.
    pub(crate) async fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        is_closed: impl Fn() -> bool,
    ) -> Result<Vec<(TopicPartition, Offset)>> {
        loop {
            let settled = self.settled.notified();
            if is_closed() {
                return Err(BrokerError::Closed);
            }
            if let Some(offsets) = self.state.lock().stable_offsets(group, partitions) {
                return Ok(offsets);
            }
            settled.await;
        }
    }

    /// Removes a deleted topic's offsets.
    pub(crate) fn forget_topic(&self, topic: &str, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        for record in state.plan_forget_topic(topic) {
            let partition = self.partition(record.group())?;
            write(partition, &mut state, &[record], now)?;
        }
        Ok(())
    }

    /// The topics that groups have offsets of.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.state.lock().topics().into_iter().map(str::to_owned).collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.state.lock().names()
    }

    pub(crate) fn describe(&self, group: &str) -> Option<GroupInfo> {
        self.state.lock().describe(group)
    }

    /// Wakes everyone who waits, to look again.
    pub(crate) fn wake(&self) {
        self.settled.notify_waiters();
    }

    /// Rewrites partitions whose dead records far outnumber the live ones, and trims them. Waits for the disk.
    pub(crate) fn trim(&self, now: Timestamp) -> Result<()> {
        for partition in &self.partitions {
            let start = {
                let state = self.state.lock();
                // What is pending lies below the rewritten records and must not be trimmed.
                if state.has_pending() || !internal::is_bloated(partition, state.live_records()) {
                    continue;
                }
                let start = partition.log().log_end();
                let is_here = |group: &str| self.partition(group).is_ok_and(|p| Arc::ptr_eq(p, partition));
                let records = state.snapshot(is_here);
                internal::append(partition, records.iter().map(|r| (r.key(), r.value())), None, now)?;
                start
            };
            partition.stored(partition.log().sync())?;
            partition.stored(partition.log().delete_records_before(start))?;
        }
        Ok(())
    }
}

/// Appends records and applies them.
fn write(partition: &Partition, state: &mut Groups, records: &[GroupRecord], now: Timestamp) -> Result<()> {
    internal::append(partition, records.iter().map(|r| (r.key(), r.value())), None, now)?;
    records.iter().for_each(|record| state.apply(record, None));
    Ok(())
}

fn offset_records(group: &str, offsets: &[(TopicPartition, Offset)], now: Timestamp) -> Vec<GroupRecord> {
    let record = |(partition, offset): &(TopicPartition, Offset)| GroupRecord::Offset {
        group: group.to_owned(),
        partition: partition.clone(),
        value: Some(CommittedOffset { offset: *offset, committed_at: now }),
    };
    offsets.iter().map(record).collect()
}

impl From<GroupError> for BrokerError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::IllegalGeneration { group, generation } => Self::IllegalGeneration { group, generation },
        }
    }
}
