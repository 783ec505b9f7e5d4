//! The coordinator's shell, for offsets: commits, alone or within transactions, deletions, and reads that wait until
//! nothing is pending.

use logmill_protocol::{ControlKind, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::batches::Stamp;
use crate::clock::Now;
use crate::error::{BrokerError, Result};
use crate::groups::service::GroupService;
use crate::groups::{Commit, CommittedOffset, GroupError, GroupRecord, Groups, OffsetChanges};
use crate::partition::Partition;
use crate::types::{Membership, TopicPartition};

/// What became of each offset of a request, or why none was looked at.
type Results = Result<Vec<Result<(), GroupError>>, GroupError>;

impl GroupService {
    /// The engine commits offsets outside of a transaction; fenced by its member's generation if there is one.
    pub(crate) async fn commit_local(
        &self,
        group: &str,
        membership: Option<&Membership>,
        offsets: &[(TopicPartition, Offset)],
        now: Timestamp,
    ) -> Result<()> {
        {
            let mut state = self.state.lock();
            if let Some(membership) = membership {
                state.groups.check_member(membership)?;
            }
            self.write(&mut state, &offset_records(group, offsets, now), now)?;
        }
        self.partition(group)?.flush(&self.flusher).await
    }

    /// A client commits offsets. Says of each whether it was taken.
    pub(crate) async fn commit(&self, commit: Commit, now: Now) -> Result<Results> {
        let group = commit.group.clone();
        self.change_offsets(&group, now.wall, |groups| groups.commit(commit, now)).await
    }

    /// Deletes committed offsets. Says of each whether it is gone.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        now: Timestamp,
    ) -> Result<Results> {
        self.change_offsets(group, now, |groups| groups.plan_delete_offsets(group, partitions)).await
    }

    /// Deletes a group that has no members, with its offsets.
    pub(crate) async fn delete(&self, group: &str, now: Timestamp) -> Result<Result<(), GroupError>> {
        let plan = |groups: &mut Groups| {
            groups.plan_delete(group).map(|records| OffsetChanges { records, results: Vec::new() })
        };
        Ok(self.change_offsets(group, now, plan).await?.map(drop))
    }

    async fn change_offsets(
        &self,
        group: &str,
        now: Timestamp,
        plan: impl FnOnce(&mut Groups) -> Result<OffsetChanges, GroupError>,
    ) -> Result<Results> {
        let changes = {
            let mut state = self.state.lock();
            let changes = match plan(&mut state.groups) {
                Ok(changes) => changes,
                Err(error) => return Ok(Err(error)),
            };
            self.write(&mut state, &changes.records, now)?;
            self.arm(&state);
            changes
        };
        if !changes.records.is_empty() {
            self.partition(group)?.flush(&self.flusher).await?;
        }
        Ok(Ok(changes.results))
    }

    /// Writes offsets as part of a transaction, fenced by the member's generation; pending until the marker.
    pub(crate) fn commit_in_transaction(
        &self,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
        stamp: Stamp,
        now: Timestamp,
    ) -> Result<()> {
        let mut state = self.state.lock();
        state.groups.check_member(membership)?;
        let records = offset_records(&membership.group, offsets, now);
        self.append(&records, Some(stamp), now)?;
        records.iter().for_each(|record| state.groups.apply(record, Some(stamp.id)));
        Ok(())
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
        if state.groups.end_transaction(id, kind == ControlKind::Commit) {
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
        // A partition that is offline must not pass for a group that never committed.
        self.partition(group)?;
        loop {
            let settled = self.settled.notified();
            if is_closed() {
                return Err(BrokerError::Closed);
            }
            if let Some(offsets) = self.read(|groups| groups.stable_offsets(group, partitions)) {
                return Ok(offsets);
            }
            settled.await;
        }
    }

    /// Removes a deleted topic's offsets.
    pub(crate) fn forget_topic(&self, topic: &str, now: Timestamp) -> Result<()> {
        let mut state = self.state.lock();
        let records = state.groups.plan_forget_topic(topic);
        self.write(&mut state, &records, now)
    }

    /// The topics that groups have offsets of.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.read(|groups| groups.topics().into_iter().map(str::to_owned).collect())
    }
}

fn offset_records(group: &str, offsets: &[(TopicPartition, Offset)], now: Timestamp) -> Vec<GroupRecord> {
    let record = |(partition, offset): &(TopicPartition, Offset)| GroupRecord::Offset {
        group: group.to_owned(),
        partition: partition.clone(),
        value: Some(CommittedOffset::new(*offset, now)),
    };
    offsets.iter().map(record).collect()
}
