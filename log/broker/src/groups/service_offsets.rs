//! The coordinator's shell, for offsets: commits, alone or within transactions, deletions, and reads that wait until
//! nothing is pending.

use std::sync::Arc;

use logmill_protocol::{ControlKind, Offset, ProducerEpoch, ProducerId, Timestamp, advance_sequence};
use parking_lot::Mutex;
use tokio::sync::OwnedRwLockReadGuard;

use crate::batches::Stamp;
use crate::clock::Now;
use crate::error::{BrokerError, Result};
use crate::groups::service::GroupService;
use crate::groups::{Commit, CommittedOffset, GroupError, GroupRecord, Groups, OffsetChanges};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::types::{Membership, TopicPartition};

/// Where a transaction's next record in a partition of the topic stands in its sequence.
pub(crate) struct TransactionSequence {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// Counted on once records are appended.
    pub(crate) next: Arc<Mutex<i32>>,
    /// Keeps the transaction from being ended meanwhile.
    pub(crate) _gate: OwnedRwLockReadGuard<()>,
}

/// What became of each offset of a request, or why none was looked at.
type Results = Result<Vec<Result<(), GroupError>>, GroupError>;

impl GroupService {
    /// The engine commits offsets outside of a transaction; fenced by its member's generation if there is one.
    pub(crate) async fn commit_local(
        self: &Arc<Self>,
        group: &str,
        membership: Option<&Membership>,
        offsets: &[(TopicPartition, Offset)],
        now: Timestamp,
    ) -> Result<()> {
        let turn = self.turn().await;
        if let Some(membership) = membership {
            self.check_member(membership)?;
        }
        self.write(turn, offset_records(group, offsets, now), now).await?;
        self.partition(group)?.flush(&self.flusher).await
    }

    /// A client commits offsets. Says of each whether it was taken.
    pub(crate) async fn commit(self: &Arc<Self>, commit: Commit, now: Now) -> Result<Results> {
        let group = commit.group.clone();
        self.change_offsets(&group, now.wall, |groups| groups.commit(commit, now)).await
    }

    /// Deletes committed offsets. Says of each whether it is gone.
    pub(crate) async fn delete_offsets(
        self: &Arc<Self>,
        group: &str,
        partitions: &[TopicPartition],
        now: Timestamp,
    ) -> Result<Results> {
        self.change_offsets(group, now, |groups| groups.plan_delete_offsets(group, partitions)).await
    }

    /// Deletes a group that has no members, with its offsets.
    pub(crate) async fn delete(self: &Arc<Self>, group: &str, now: Timestamp) -> Result<Result<(), GroupError>> {
        let plan = |groups: &mut Groups| {
            groups.plan_delete(group).map(|records| OffsetChanges { records, results: Vec::new() })
        };
        Ok(self.change_offsets(group, now, plan).await?.map(drop))
    }

    async fn change_offsets(
        self: &Arc<Self>,
        group: &str,
        now: Timestamp,
        plan: impl FnOnce(&mut Groups) -> Result<OffsetChanges, GroupError>,
    ) -> Result<Results> {
        let turn = self.turn().await;
        let planned = {
            let mut state = self.state.lock();
            let planned = plan(&mut state.groups);
            self.arm(&state);
            planned
        };
        let OffsetChanges { records, results } = match planned {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        };
        if !records.is_empty() {
            self.write(turn, records, now).await?;
            self.partition(group)?.flush(&self.flusher).await?;
        }
        Ok(Ok(results))
    }

    /// Writes offsets as part of a transaction, fenced by the member's generation; pending until the marker.
    pub(crate) async fn commit_in_transaction(
        self: &Arc<Self>,
        membership: &Membership,
        offsets: &[(TopicPartition, Offset)],
        sequence: TransactionSequence,
        now: Timestamp,
    ) -> Result<()> {
        let turn = self.turn().await;
        self.check_member(membership)?;
        let records = offset_records(&membership.group, offsets, now);
        let bytes = records.iter().map(GroupRecord::bytes).sum();
        let append = move |this: &Self| {
            let mut next = sequence.next.lock();
            let stamp = Stamp { id: sequence.id, epoch: sequence.epoch, sequence: *next };
            this.append(&records, Some(stamp), now)?;
            *next = advance_sequence(*next, i32::try_from(records.len()).unwrap_or(i32::MAX));
            let mut state = this.state.lock();
            records.iter().for_each(|record| state.groups.apply(record, Some(stamp.id)));
            Ok(())
        };
        self.append_in_turn(turn, bytes, append).await
    }

    /// Appends a marker to a partition of the topic and settles what was pending.
    pub(crate) async fn append_marker(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        id: ProducerId,
        epoch: ProducerEpoch,
        kind: ControlKind,
        now: Timestamp,
    ) -> Result<()> {
        let (turn, partition) = (self.turn().await, Arc::clone(partition));
        let append = move |this: &Self| {
            partition.append_marker(id, epoch, kind, now)?;
            if this.state.lock().groups.end_transaction(id, kind == ControlKind::Commit) {
                this.settled.notify_waiters();
            }
            Ok(())
        };
        self.append_in_turn(turn, 0, append).await
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

    /// Removes deleted topics' offsets, durably: they must not come back for another topic of the name. Waits for its turn,
    /// and for the disk.
    pub(crate) fn forget_topics(&self, topics: &[String], now: Timestamp) -> Result<()> {
        let records = {
            let _turn = self.turns.blocking_lock();
            let records = self.state.lock().groups.plan_forget_topics(topics);
            self.write_now(&records, now)?;
            records
        };
        if records.is_empty() {
            return Ok(());
        }
        let mut online = self.partitions.iter().filter_map(Slot::online);
        online.try_for_each(|partition| partition.stored(partition.log().sync()).map(drop))
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
