//! The group coordinator's shell: the state machine, the topic that it is written to, and the calls that wait.
//!
//! Events that may lead to records take turns, from the event until what comes of it is appended and applied, so that the
//! log and the state have the same order. The state's own lock is held for the moment of an event only, and never while
//! anything is appended: heartbeats and reads wait for no disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_protocol::Timestamp;
use logmill_storage::Flusher;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use crate::batches::Stamp;
use crate::blocking;
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
    pub(super) partitions: Vec<Slot>,
    pub(super) state: Mutex<State>,
    /// Whose turn it is to change groups and append.
    pub(super) turns: Arc<tokio::sync::Mutex<()>>,
    /// Told when pending offsets are pending no more.
    pub(super) settled: Notify,
    /// Told when a deadline comes before the one that the timer waits for.
    earlier: Arc<Notify>,
    pub(super) flusher: Arc<Flusher>,
}

/// A call's turn to change groups and append, until it is dropped.
pub(super) struct Turn(#[allow(dead_code, reason = "held, not looked at")] OwnedMutexGuard<()>);

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
        let turns = Arc::default();
        (Self { partitions, state: Mutex::new(state), turns, settled, earlier, flusher }, failed)
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
    pub(crate) async fn join(self: &Arc<Self>, mut request: JoinRequest, now: Now) -> Result<Reply> {
        self.wait_for_reply(&request.group.clone(), now, move |groups, waiter| {
            request.waiter = waiter;
            groups.join(request, now)
        })
        .await
    }

    /// A client asks for its assignment; waits for the leader.
    pub(crate) async fn sync(self: &Arc<Self>, mut request: SyncRequest, now: Now) -> Result<Reply> {
        self.wait_for_reply(&request.group.clone(), now, move |groups, waiter| {
            request.waiter = waiter;
            groups.sync(request, now)
        })
        .await
    }

    /// Dropping the future leaves the member in its group, as a lost connection does in Kafka.
    async fn wait_for_reply(
        self: &Arc<Self>,
        group: &str,
        now: Now,
        event: impl FnOnce(&mut Groups, Waiter) -> Effects,
    ) -> Result<Reply> {
        let partition = self.partition(group)?;
        let turn = self.turn().await;
        let (effects, receive) = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(BrokerError::Closed);
            }
            let (send, receive) = oneshot::channel();
            state.last_waiter += 1;
            let waiter = Waiter(state.last_waiter);
            state.waiting.insert(waiter, send);
            (event(&mut state.groups, waiter), receive)
        };
        self.carry_out(turn, effects, now).await;
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
    pub(crate) async fn leave(
        self: &Arc<Self>,
        group: &str,
        leavers: &[Leaver],
        now: Now,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let turn = self.turn().await;
        let (results, effects) = self.state.lock().groups.leave(group, leavers, now)?;
        self.carry_out(turn, effects, now).await;
        Ok(results)
    }

    /// Does what is due: sessions, joining phases, assignments nobody asked for.
    pub(crate) async fn expire(self: &Arc<Self>, now: Now) {
        loop {
            // A turn for each group, so that others get theirs when many are due.
            let turn = self.turn().await;
            let Some(effects) = self.state.lock().groups.expire(now) else { return };
            self.carry_out(turn, effects, now).await;
        }
    }

    /// Waits until it is this call's turn to change groups. What it appends comes after all that those before it have.
    pub(super) async fn turn(&self) -> Turn {
        Turn(Arc::clone(&self.turns).lock_owned().await)
    }

    /// Runs work that appends, where it may wait for the disk, and to its end even if the caller goes away: what has been
    /// appended must be applied.
    pub(super) async fn append_in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        turn: Turn,
        bytes: usize,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = Arc::clone(self);
        let work = move || {
            let _turn = turn;
            work(&this)
        };
        blocking::joined(tokio::spawn(blocking::unless_small(bytes, work)).await)
    }

    /// Writes what must be written, then answers.
    async fn carry_out(self: &Arc<Self>, turn: Turn, effects: Effects, now: Now) {
        if effects.writes.is_empty() {
            return self.answer(&mut self.state.lock(), effects.replies);
        }
        let bytes = effects.writes.iter().map(|write| write.record.bytes()).sum();
        let written = self.append_in_turn(turn, bytes, move |this| {
            this.write_out(effects, now);
            Ok(())
        });
        // It fails only where the runtime stops.
        let _ = written.await;
    }

    /// Writes what must be written, one record after another, then answers. Waits for the disk.
    fn write_out(&self, effects: Effects, now: Now) {
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
            let more = self.state.lock().groups.written(write, appended, now);
            replies.extend(more.replies);
            writes.extend(more.writes);
        }
        self.answer(&mut self.state.lock(), replies);
    }

    fn answer(&self, state: &mut State, replies: Vec<(Waiter, Reply)>) {
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
        self: &Arc<Self>,
        group: &str,
        instance: &str,
        member: String,
        now: Timestamp,
    ) -> Result<Membership> {
        let turn = self.turn().await;
        let joined = self.state.lock().groups.plan_local_join(group, instance, member, now);
        let joined = joined.map_err(|error| match error {
            GroupError::InconsistentProtocol => {
                BrokerError::Invalid(format!("group `{group}` is in use by Kafka clients; name another"))
            }
            other => other.into(),
        })?;
        self.write(turn, vec![joined.record], now).await?;
        self.partition(group)?.flush(&self.flusher).await?;
        Ok(joined.membership)
    }

    /// Leaves a group as one of the engine's.
    pub(crate) async fn leave_local(self: &Arc<Self>, membership: &Membership, now: Timestamp) -> Result<()> {
        let turn = self.turn().await;
        let record = self.state.lock().groups.plan_local_leave(membership, now)?;
        self.write(turn, vec![record], now).await?;
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
    /// outnumber the live ones, and trims them. Waits for its turn, and for the disk.
    pub(crate) fn trim(&self, now: Timestamp) -> Result<()> {
        {
            let _turn = self.turns.blocking_lock();
            let expired = self.state.lock().groups.plan_expiry(now);
            self.write_now(&expired, now)?;
        }
        for partition in self.partitions.iter().filter_map(Slot::online) {
            let start = {
                let _turn = self.turns.blocking_lock();
                let records = {
                    let state = self.state.lock();
                    // What is pending lies below the rewritten records and must not be trimmed.
                    if state.groups.has_pending() || !internal::is_bloated(partition, state.groups.live_records()) {
                        continue;
                    }
                    let is_here = |group: &str| self.partition(group).is_ok_and(|p| Arc::ptr_eq(p, partition));
                    state.groups.snapshot(is_here)
                };
                let start = partition.log().log_end();
                internal::append(partition, records.iter().map(|r| (r.key(), r.value())), None, now)?;
                start
            };
            partition.stored(partition.log().sync())?;
            partition.stored(partition.log().delete_records_before(start))?;
        }
        Ok(())
    }

    /// Appends records and applies them.
    pub(super) async fn write(self: &Arc<Self>, turn: Turn, records: Vec<GroupRecord>, now: Timestamp) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let bytes = records.iter().map(GroupRecord::bytes).sum();
        self.append_in_turn(turn, bytes, move |this| this.write_now(&records, now)).await
    }

    /// Appends records and applies them, group by group. The caller has its turn, and may wait for the disk.
    pub(super) fn write_now(&self, records: &[GroupRecord], now: Timestamp) -> Result<()> {
        for records in records.chunk_by(|a, b| a.group() == b.group()) {
            self.append(records, None, now)?;
            let mut state = self.state.lock();
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
            service.expire(Now::of(&*clock)).await;
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
