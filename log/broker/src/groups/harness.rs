//! Drives the coordinator in tests: a clock to turn, a log that may refuse, and a desk where answers are collected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use bytes::{BufMut, Bytes};
use logmill_protocol::Timestamp;

use crate::clock::Now;
use crate::groups::{
    Effects, GroupConfig, GroupError, GroupRecord, GroupState, Groups, JoinReply, JoinRequest, Joined, Leaver,
    Protocol, Reply, SyncReply, SyncRequest, Synced, Waiter,
};

pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 60_000;
/// How far the wall's clock is ahead of the steady one.
const WALL_AHEAD_MS: i64 = 1_700_000_000_000;

/// A coordinator under test.
pub(super) struct Harness {
    pub(super) groups: Groups,
    /// The steady clock. The wall's is far ahead, and nothing may go by it.
    pub(super) now: Timestamp,
    pub(super) log: Vec<GroupRecord>,
    pub(super) log_refuses: bool,
    pub(super) config: GroupConfig,
    answers: HashMap<Waiter, Reply>,
    waiters: u64,
}

/// A subscription as consumers encode it.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        crate::wire::put_string(&mut out, topic);
    }
    out.put_i32(-1);
    Bytes::from(out)
}

pub(super) fn protocol(name: &str, metadata: Bytes) -> Protocol {
    Protocol { name: name.to_owned(), metadata }
}

/// A join of group `g` by a client of today that consumes topic `t`.
pub(super) fn joining(member: &str) -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        member: member.into(),
        new_member: String::new(),
        instance: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", subscription(&["t"]))],
        knows_required_id: true,
        knows_skipped_assignment: true,
        waiter: Waiter(0),
    }
}

impl Harness {
    pub(super) fn new(config: GroupConfig) -> Self {
        let (answers, waiters, log, log_refuses) = (HashMap::new(), 0, Vec::new(), false);
        let now = Timestamp(1_000_000);
        Self { groups: Groups::new(config.clone()), now, log, log_refuses, config, answers, waiters }
    }

    /// A coordinator that begins a first generation at once.
    pub(super) fn prompt() -> Self {
        Self::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() })
    }

    pub(super) fn settle(&mut self, effects: Effects) {
        let mut all = vec![effects];
        while let Some(effects) = all.pop() {
            for (waiter, reply) in effects.replies {
                assert!(self.answers.insert(waiter, reply).is_none(), "{waiter:?} is answered twice");
            }
            for write in effects.writes {
                if !self.log_refuses {
                    self.log.push(write.record.clone());
                }
                let result = if self.log_refuses { Err(GroupError::NotWritten) } else { Ok(()) };
                all.push(self.groups.written(write, result, self.moment()));
            }
        }
    }

    pub(super) fn moment(&self) -> Now {
        Now { wall: self.wall(), steady: self.now }
    }

    pub(super) fn wall(&self) -> Timestamp {
        Timestamp(self.now.0 + WALL_AHEAD_MS)
    }

    pub(super) fn heartbeat_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let now = self.moment();
        self.groups.heartbeat("g", member, instance, generation, now)
    }

    fn waiter(&mut self) -> Waiter {
        self.waiters += 1;
        Waiter(self.waiters)
    }

    /// Begins a join.
    pub(super) fn join(&mut self, mut request: JoinRequest) -> Waiter {
        request.waiter = self.waiter();
        let waiter = request.waiter;
        if request.new_member.is_empty() {
            request.new_member = format!("{}-{}", request.instance.as_deref().unwrap_or("m"), waiter.0);
        }
        let effects = self.groups.join(request, self.moment());
        self.settle(effects);
        waiter
    }

    /// Begins a sync of group `g`.
    pub(super) fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> Waiter {
        let own = |(member, assignment): &(&str, &str)| ((*member).to_owned(), Bytes::from((*assignment).to_owned()));
        self.sync_with(SyncRequest {
            group: "g".into(),
            member: member.into(),
            instance: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(own).collect(),
            waiter: Waiter(0),
        })
    }

    pub(super) fn sync_with(&mut self, mut request: SyncRequest) -> Waiter {
        request.waiter = self.waiter();
        let waiter = request.waiter;
        let effects = self.groups.sync(request, self.moment());
        self.settle(effects);
        waiter
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        self.heartbeat_as(member, None, generation)
    }

    pub(super) fn leave(&mut self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        let leaver = Leaver { member: member.into(), instance: instance.map(str::to_owned) };
        let (mut results, effects) = self.groups.leave("g", &[leaver], self.moment()).unwrap();
        self.settle(effects);
        results.remove(0)
    }

    /// Turns the clock, and does what becomes due on the way, when it becomes due.
    pub(super) fn pass(&mut self, ms: i64) {
        let end = Timestamp(self.now.0 + ms);
        while let Some(next) = self.groups.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            let effects = self.groups.expire(self.moment()).unwrap();
            self.settle(effects);
        }
        self.now = end;
    }

    /// Another process replays the log.
    pub(super) fn restart(&mut self) {
        self.groups = Groups::new(self.config.clone());
        self.log.iter().for_each(|record| self.groups.apply(record, None));
        self.groups.start(self.moment());
    }

    pub(super) fn state(&self) -> Option<GroupState> {
        self.groups.state("g")
    }

    pub(super) fn answer(&self, waiter: Waiter) -> Option<&Reply> {
        self.answers.get(&waiter)
    }

    /// Takes the answer to a join, if it has come.
    pub(super) fn join_reply(&mut self, waiter: Waiter) -> Option<JoinReply> {
        match self.answers.remove(&waiter)? {
            Reply::Join(reply) => Some(reply),
            other => panic!("not a join's: {other:?}"),
        }
    }

    pub(super) fn joined(&mut self, waiter: Waiter) -> Joined {
        self.join_reply(waiter).expect("still waits").expect("refused")
    }

    pub(super) fn join_refused(&mut self, waiter: Waiter) -> (GroupError, String) {
        let refused = self.join_reply(waiter).expect("still waits").expect_err("joined");
        (refused.error, refused.member)
    }

    /// Takes the answer to a sync, if it has come.
    pub(super) fn sync_reply(&mut self, waiter: Waiter) -> Option<SyncReply> {
        match self.answers.remove(&waiter)? {
            Reply::Sync(reply) => Some(reply),
            other => panic!("not a sync's: {other:?}"),
        }
    }

    pub(super) fn synced(&mut self, waiter: Waiter) -> Synced {
        self.sync_reply(waiter).expect("still waits").expect("refused")
    }

    pub(super) fn assignment(&mut self, waiter: Waiter) -> String {
        String::from_utf8(self.synced(waiter).assignment.to_vec()).unwrap()
    }

    /// A new dynamic member's way in, up to where it waits: its id and its waiter.
    pub(super) fn enter(&mut self) -> (String, Waiter) {
        let first = self.join(joining(""));
        let (error, member) = self.join_refused(first);
        assert_eq!(error, GroupError::MemberIdRequired);
        let waiter = self.join(joining(&member));
        (member, waiter)
    }

    /// A stable group of so many dynamic members: their ids, the leader's first, and the generation. Each is assigned
    /// its number.
    pub(super) fn stable(&mut self, members: usize) -> (Vec<String>, i32) {
        let (leader, waiter) = self.enter();
        let mut generation = self.joined(waiter).generation;
        let mut ids = vec![leader.clone()];
        for _ in 1..members {
            let (member, joining_one) = self.enter();
            let others: Vec<Waiter> = ids.clone().iter().map(|id| self.join(joining(id))).collect();
            generation = self.joined(joining_one).generation;
            others.into_iter().for_each(|waiter| drop(self.joined(waiter)));
            ids.push(member);
        }
        let numbers: Vec<String> = (0..members).map(|n| n.to_string()).collect();
        let assignments: Vec<_> = ids.iter().zip(&numbers).map(|(id, n)| (id.as_str(), n.as_str())).collect();
        let leader = self.sync(&leader, generation, &assignments);
        assert_eq!(self.assignment(leader), "0");
        for (id, number) in &assignments[1..] {
            let waiter = self.sync(id, generation, &[]);
            assert_eq!(&self.assignment(waiter), number);
        }
        assert_eq!(self.state(), Some(GroupState::Stable));
        (ids, generation)
    }
}
