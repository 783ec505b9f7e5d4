//! The group coordinator's shell: the state machine, the topic that it is written to, and the calls that wait.
//!
//! One lock is held from an event to the answers that come of it, and while records are appended to the page cache, so
//! that the log and the state have the same order. Waiting for the disk, for other members or for time is done without.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_protocol::Timestamp;
use logmill_storage::Flusher;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::batches::Stamp;
use crate::clock::{Clock, Now};
use crate::error::{BrokerError, Refusal, Result};
use crate::groups::{
    Effects, GroupConfig, GroupError, GroupRecord, Groups, JoinRequest, Leaver, Reply, SyncRequest, Waiter,
};
use crate::internal::{self, Entry};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::types::{Membership, OfflinePartition, TopicPartition};

/// Groups, and where they are kept.
pub(crate) struct GroupService {
    partitions: Vec<Slot>,
    /// Held while a record is appended, so that the log and the state have the same order.
    pub(super) state: Mutex<State>,
    /// Told when pending offsets are pending no more.
    pub(super) settled: Notify,
    /// Told when a deadline comes before the one that the timer waits for.
    earlier: Arc<Notify>,
    pub(super) flusher: Arc<Flusher>,
}

pub(super) struct State {
    pub(super) groups: Groups,
    /// The calls that wait for others.
    waiting: HashMap<Waiter, oneshot::Sender<Reply>>,
    last_waiter: u64,
    /// What the timer waits for.
    armed: Option<Timestamp>,
    /// No call may wait any more.
    closed: bool,
}

impl GroupService {
    /// Replays the topic. A partition that cannot be understood is taken offline.
    pub(crate) fn open(
        mut partitions: Vec<Slot>,
        flusher: Arc<Flusher>,
        config: GroupConfig,
        now: Now,
        take_offline: impl Fn(&TopicPartition, &BrokerError) -> Option<Slot>,
    ) -> (Self, Vec<Arc<OfflinePartition>>) {
        let mut groups = Groups::new(config);
        let failed = internal::replay_all(&mut partitions, take_offline, |entry| {
            match entry {
                Entry::Record { key, value, producer } => {
                    if let Some(record) = GroupRecord::decode(key, value)? {
                        groups.apply(&record, producer);
                    }
                }
                Entry::Marker { producer, commit } => drop(groups.end_transaction(producer, commit)),
            }
            Ok::<_, crate::wire::WireError>(())
        });
        groups.start(now);
        let state = State { groups, waiting: HashMap::new(), last_waiter: 0, armed: None, closed: false };
        let (settled, earlier) = (Notify::new(), Arc::new(Notify::new()));
        (Self { partitions, state: Mutex::new(state), settled, earlier, flusher }, failed)
    }

    /// Starts the task that does what is due. It holds no handle: it ends with the broker.
    pub(crate) fn start_timer(self: &Arc<Self>, clock: Arc<dyn Clock>) {
        tokio::spawn(run_timer(Arc::downgrade(self), Arc::clone(&self.earlier), clock));
    }

    /// The partition of the topic that holds a group.
    pub(crate) fn partition(&self, group: &str) -> Result<&Arc<Partition>> {
        internal::partition_of(group, &self.partitions)
    }

    /// Whether the partition is of the topic.
    pub(crate) fn owns(&self, partition: &TopicPartition) -> bool {
        self.partitions.iter().any(|own| own.name() == partition)
    }

    /// Looks at the groups as they are.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Groups) -> T) -> T {
        read(&self.state.lock().groups)
    }

    /// A client joins; waits for the others.
    pub(crate) async fn join(&self, mut request: JoinRequest, now: Now) -> Result<Reply> {
        self.wait_for_reply(&request.group.clone(), now, move |groups, waiter| {
            request.waiter = waiter;
            groups.join(request, now)
        })
        .await
    }

    /// A client asks for its assignment; waits for the leader.
    pub(crate) async fn sync(&self, mut request: SyncRequest, now: Now) -> Result<Reply> {
        self.wait_for_reply(&request.group.clone(), now, move |groups, waiter| {
            request.waiter = waiter;
            groups.sync(request, now)
        })
        .await
    }

    /// Dropping the future leaves the member in its group, as a lost connection does in Kafka.
    async fn wait_for_reply(
        &self,
        group: &str,
        now: Now,
        event: impl FnOnce(&mut Groups, Waiter) -> Effects,
    ) -> Result<Reply> {
        let partition = self.partition(group)?;
        let receive = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(BrokerError::Closed);
            }
            let (send, receive) = oneshot::channel();
            state.last_waiter += 1;
            let waiter = Waiter(state.last_waiter);
            state.waiting.insert(waiter, send);
            let effects = event(&mut state.groups, waiter);
            self.carry_out(&mut state, effects, now);
            receive
        };
        let reply = receive.await.map_err(|_| BrokerError::Closed)?;
        // What a member is told of its generation must not be forgotten. Joins lead to no record, but for static
        // members' new ids.
        if !matches!(&reply, Reply::Join(Err(_)) | Reply::Sync(Err(_))) {
            partition.flush(&self.flusher).await?;
        }
        Ok(reply)
    }

    /// A client lives.
    pub(crate) fn heartbeat(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Now,
    ) -> Result<(), GroupError> {
        let mut state = self.state.lock();
        let result = state.groups.heartbeat(group, member, instance, generation, now);
        self.arm(&state);
        result
    }

    /// Clients leave. Says of each whether it was a member.
    pub(crate) fn leave(
        &self,
        group: &str,
        leavers: &[Leaver],
        now: Now,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let mut state = self.state.lock();
        let (results, effects) = state.groups.leave(group, leavers, now)?;
        self.carry_out(&mut state, effects, now);
        Ok(results)
    }

    /// Does what is due: sessions, joining phases, assignments nobody asked for.
    pub(crate) fn expire(&self, now: Now) {
        loop {
            // Not one long hold of the lock when many groups are due.
            let mut state = self.state.lock();
            let Some(effects) = state.groups.expire(now) else { return };
            self.carry_out(&mut state, effects, now);
        }
    }

    /// Writes what must be written, and answers.
    fn carry_out(&self, state: &mut State, effects: Effects, now: Now) {
        let mut replies = effects.replies;
        let mut writes = VecDeque::from(effects.writes);
        while let Some(write) = writes.pop_front() {
            let appended = self.append(std::slice::from_ref(&write.record), None, now.wall).map_err(|error| {
                tracing::warn!(group = write.record.group(), %error, "cannot write down a group's generation");
                match error {
                    BrokerError::Refused { kind: Refusal::MessageTooLarge, .. } => GroupError::TooLarge,
                    _ => GroupError::NotWritten,
                }
            });
            let more = state.groups.written(write, appended, now);
            replies.extend(more.replies);
            writes.extend(more.writes);
        }
        for (waiter, reply) in replies {
            if let Some(send) = state.waiting.remove(&waiter) {
                // Whoever does not listen any more has lost its connection.
                drop(send.send(reply));
            }
        }
        self.arm(state);
    }

    pub(super) fn arm(&self, state: &State) {
        let next = state.groups.next_deadline();
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            self.earlier.notify_one();
        }
    }

    /// Joins a group as one of the engine's, at once.
    pub(crate) async fn join_local(
        &self,
        group: &str,
        instance: &str,
        member: String,
        now: Timestamp,
    ) -> Result<Membership> {
        let membership = {
            let mut state = self.state.lock();
            let joined = state.groups.plan_local_join(group, instance, member, now).map_err(|error| match error {
                GroupError::InconsistentProtocol => {
                    BrokerError::Invalid(format!("group `{group}` is in use by Kafka clients; name another"))
                }
                other => other.into(),
            })?;
            self.write(&mut state, &[joined.record], now)?;
            joined.membership
        };
        self.partition(group)?.flush(&self.flusher).await?;
        Ok(membership)
    }

    /// Leaves a group as one of the engine's.
    pub(crate) async fn leave_local(&self, membership: &Membership, now: Timestamp) -> Result<()> {
        {
            let mut state = self.state.lock();
            let record = state.groups.plan_local_leave(membership, now)?;
            self.write(&mut state, &[record], now)?;
        }
        self.partition(&membership.group)?.flush(&self.flusher).await
    }

    /// Checks that the engine's member may commit now.
    pub(crate) fn check_member(&self, membership: &Membership) -> Result<()> {
        Ok(self.state.lock().groups.check_member(membership)?)
    }

    /// Wakes everyone who waits, as the broker closes: nobody may wait for other members any more.
    pub(crate) fn wake(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.settled.notify_waiters();
    }

    /// Forgets offsets and groups that nobody has used for too long, then rewrites partitions whose dead records far
    /// outnumber the live ones, and trims them. Waits for the disk.
    pub(crate) fn trim(&self, now: Timestamp) -> Result<()> {
        {
            let mut state = self.state.lock();
            let expired = state.groups.plan_expiry(now);
            self.write(&mut state, &expired, now)?;
        }
        for partition in self.partitions.iter().filter_map(Slot::online) {
            let start = {
                let state = self.state.lock();
                // What is pending lies below the rewritten records and must not be trimmed.
                if state.groups.has_pending() || !internal::is_bloated(partition, state.groups.live_records()) {
                    continue;
                }
                let start = partition.log().log_end();
                let is_here = |group: &str| self.partition(group).is_ok_and(|p| Arc::ptr_eq(p, partition));
                let records = state.groups.snapshot(is_here);
                internal::append(partition, records.iter().map(|r| (r.key(), r.value())), None, now)?;
                start
            };
            partition.stored(partition.log().sync())?;
            partition.stored(partition.log().delete_records_before(start))?;
        }
        Ok(())
    }

    /// Appends records and applies them, group by group.
    pub(super) fn write(&self, state: &mut State, records: &[GroupRecord], now: Timestamp) -> Result<()> {
        for records in records.chunk_by(|a, b| a.group() == b.group()) {
            self.append(records, None, now)?;
            records.iter().for_each(|record| state.groups.apply(record, None));
        }
        Ok(())
    }

    /// Appends records of one group.
    pub(super) fn append(&self, records: &[GroupRecord], stamp: Option<Stamp>, now: Timestamp) -> Result<()> {
        let Some(first) = records.first() else { return Ok(()) };
        let partition = self.partition(first.group())?;
        internal::append(partition, records.iter().map(|r| (r.key(), r.value())), stamp, now)
    }
}

impl Drop for GroupService {
    fn drop(&mut self) {
        // The timer looks up, and finds nobody.
        self.earlier.notify_one();
    }
}

/// Waits for each deadline in turn. There is none while nobody is in a group.
async fn run_timer(service: Weak<GroupService>, earlier: Arc<Notify>, clock: Arc<dyn Clock>) {
    loop {
        let next = {
            let Some(service) = service.upgrade() else { return };
            service.expire(Now::of(&*clock));
            let mut state = service.state.lock();
            if state.closed {
                return;
            }
            state.armed = state.groups.next_deadline();
            state.armed
        };
        // A notice since the lock was let go of is kept.
        match next {
            Some(next) => {
                let wait_ms = u64::try_from(next.0.saturating_sub(clock.steady().0)).unwrap_or(0);
                let _ = tokio::time::timeout(Duration::from_millis(wait_ms.max(1)), earlier.notified()).await;
            }
            None => earlier.notified().await,
        }
    }
}
