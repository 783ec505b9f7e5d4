//! Clients that do anything at any time: what must hold whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::group::Group;
use super::harness::*;
use super::*;

/// What one client knows, or has forgotten.
#[derive(Clone, Debug, Default)]
struct Client {
    instance: Option<String>,
    member: String,
    generation: i32,
    /// The members it is to assign partitions to, if it leads.
    peers: Vec<Peer>,
    waits: Option<Waiter>,
}

struct World {
    harness: Harness,
    clients: Vec<Client>,
    /// Every call that waits.
    open: BTreeSet<Waiter>,
    /// What the leader of each generation gave to whom.
    given: HashMap<(i32, String), String>,
    /// The last generation seen since the start of the process.
    generation: i32,
    protocols: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join {
        client: usize,
        news: bool,
    },
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    /// The client dies, and starts anew without its id.
    Forget {
        client: usize,
    },
    Pass {
        ms: i64,
    },
    /// Everyone does what is right for once.
    Cooperate,
    Restart,
    LogRefuses(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..4usize;
    prop_oneof![
        6 => (client(), prop::bool::weighted(0.2)).prop_map(|(client, news)| Step::Join { client, news }),
        6 => client().prop_map(|client| Step::Sync { client }),
        3 => client().prop_map(|client| Step::Heartbeat { client }),
        1 => client().prop_map(|client| Step::Leave { client }),
        1 => client().prop_map(|client| Step::Forget { client }),
        2 => prop_oneof![Just(1), Just(3_000), 0..12_000i64, Just(70_000)].prop_map(|ms| Step::Pass { ms }),
        2 => Just(Step::Cooperate),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::LogRefuses),
    ]
}

impl World {
    fn new(delay_ms: i64) -> Self {
        let config = GroupConfig { initial_rebalance_delay_ms: delay_ms, ..GroupConfig::default() };
        let client = |n: usize| Client { instance: (n < 2).then(|| format!("i{n}")), ..Client::default() };
        Self {
            harness: Harness::new(config),
            clients: (0..4).map(client).collect(),
            open: BTreeSet::new(),
            given: HashMap::new(),
            generation: 0,
            protocols: 0,
        }
    }

    fn group(&self) -> Option<&Group> {
        self.harness.groups.groups.get("g")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join { client, news } => self.join(client, news),
            Step::Sync { client } => self.sync(client),
            Step::Heartbeat { client } => {
                let Client { member, instance, generation, .. } = self.clients[client].clone();
                let _ = self.harness.heartbeat_as(&member, instance.as_deref(), generation);
            }
            Step::Leave { client } => {
                let Client { member, instance, .. } = self.clients[client].clone();
                let _ = self.harness.leave(&member, instance.as_deref());
            }
            Step::Forget { client } => {
                let instance = self.clients[client].instance.clone();
                self.clients[client] = Client { instance, ..Client::default() };
            }
            Step::Pass { ms } => self.harness.pass(ms),
            Step::Cooperate => self.cooperate(),
            Step::Restart => {
                self.harness.restart();
                // The connections are gone, and with them the calls.
                self.open.clear();
                self.clients.iter_mut().for_each(|client| client.waits = None);
                self.generation = 0;
                self.given.retain(|_, assignment| !assignment.is_empty());
            }
            Step::LogRefuses(refuses) => self.harness.log_refuses = refuses,
        }
        self.hear();
        self.check();
    }

    fn cooperate(&mut self) {
        // Once to get an id or to begin a rebalance, and once more to be in it.
        for client in (0..4).chain(0..4) {
            if self.clients[client].waits.is_none() {
                self.join(client, false);
                self.hear();
            }
        }
        self.harness.pass(3_000);
        self.hear();
        for client in 0..4 {
            if self.clients[client].waits.is_none() {
                self.sync(client);
            }
        }
    }

    fn join(&mut self, client: usize, news: bool) {
        let Client { member, instance, .. } = self.clients[client].clone();
        self.protocols += usize::from(news);
        let metadata = subscription(&["t", &self.protocols.to_string()]);
        let names: &[&str] = if client.is_multiple_of(2) { &["range", "sticky"] } else { &["sticky", "range"] };
        let protocols = names.iter().map(|name| protocol(name, metadata.clone())).collect();
        let waiter = self.harness.join(JoinRequest { instance, protocols, ..joining(&member) });
        self.clients[client].waits = Some(waiter);
        self.open.insert(waiter);
    }

    fn sync(&mut self, client: usize) {
        let Client { member, instance, generation, peers, .. } = self.clients[client].clone();
        if member.is_empty() {
            return;
        }
        let mut assignments = HashMap::new();
        for peer in &peers {
            let assignment = format!("{generation}/{}", peer.instance.as_ref().unwrap_or(&peer.member));
            assignments.insert(peer.member.clone(), bytes::Bytes::from(assignment));
        }
        let request = SyncRequest {
            group: "g".into(),
            member,
            instance,
            generation,
            protocol_type: Some("consumer".into()),
            protocol: None,
            assignments,
            waiter: Waiter(0),
        };
        let waiter = self.harness.sync_with(request);
        self.clients[client].waits = Some(waiter);
        self.open.insert(waiter);
    }

    /// Clients read their answers.
    fn hear(&mut self) {
        for waiter in self.open.clone() {
            let Some(reply) = self.harness.answer(waiter).cloned() else { continue };
            self.open.remove(&waiter);
            let client = self.clients.iter_mut().find(|client| client.waits == Some(waiter));
            let Some(client) = client else { continue };
            client.waits = None;
            match reply {
                Reply::Join(Ok(joined)) => {
                    assert!(joined.members.is_empty() || joined.leader == joined.member, "only the leader sees others");
                    client.peers = if joined.skip_assignment { Vec::new() } else { joined.members };
                    (client.member, client.generation) = (joined.member, joined.generation);
                }
                Reply::Join(Err(refused)) => match refused.error {
                    GroupError::MemberIdRequired => client.member = refused.member,
                    GroupError::UnknownMember | GroupError::FencedInstance => client.member.clear(),
                    GroupError::RebalanceInProgress | GroupError::NotWritten => {}
                    other => panic!("{other}"),
                },
                Reply::Sync(Ok(synced)) => {
                    let name = client.instance.as_ref().unwrap_or(&client.member);
                    let expected = format!("{}/{name}", client.generation);
                    assert_eq!(String::from_utf8(synced.assignment.to_vec()).unwrap(), expected);
                }
                Reply::Sync(Err(_)) => {}
            }
        }
    }

    fn check(&mut self) {
        let Some(group) = self.group() else {
            self.generation = 0;
            return;
        };
        let (state, generation) = (group.state, group.generation);
        assert_eq!(group.members.is_empty(), group.leader.is_none());
        assert!(group.leader.iter().all(|leader| group.members.contains_key(leader)), "the leader is a member");
        assert!(group.unsynced.iter().all(|member| group.members.contains_key(member)));
        assert!(group.pending.keys().all(|pending| !group.members.contains_key(pending)));
        let instances: Vec<_> = group.members.values().filter_map(|member| member.instance.as_ref()).collect();
        assert_eq!(instances.len(), instances.iter().collect::<BTreeSet<_>>().len(), "one member an instance");
        match state {
            GroupState::Empty => assert!(group.members.is_empty()),
            GroupState::PreparingRebalance => assert!(group.join_timer.is_some(), "it ends some time"),
            GroupState::CompletingRebalance => {
                assert!(group.sync_deadline.is_some(), "it ends some time");
                let leader = group.members.get(group.leader.as_ref().unwrap()).unwrap();
                assert!(leader.awaiting_sync.is_none(), "the leader's sync is never held up");
            }
            GroupState::Stable => {
                for (id, member) in group.members.iter() {
                    let expected = format!("{generation}/{}", member.instance.as_ref().unwrap_or(id));
                    assert_eq!(member.assignment, expected, "as the leader said");
                }
            }
        }
        let waits = |member: &member::Member| {
            let waits = [member.awaiting_join, member.awaiting_sync];
            waits.into_iter().flatten().collect::<Vec<_>>()
        };
        let held: BTreeSet<Waiter> = group.members.values().flat_map(waits).collect();
        assert_eq!(held, self.open, "whoever waits is waited for");
        let allowed =
            state != GroupState::PreparingRebalance || group.members.values().all(|m| m.awaiting_sync.is_none());
        assert!(allowed, "nobody waits for an assignment that does not come");
        assert!(generation >= self.generation, "generations only grow");
        self.generation = generation;
        self.check_replay();
    }

    fn check_replay(&self) {
        let mut replayed = Groups::new(self.harness.config.clone());
        self.harness.log.iter().for_each(|record| replayed.apply(record, None));
        assert_eq!(replayed.snapshot(|_| true), self.harness.groups.snapshot(|_| true));
        if self.harness.state() == Some(GroupState::Stable) {
            assert_eq!(replayed.describe("g"), self.harness.groups.describe("g"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_clients_do_the_group_holds_together(
        delay_ms in prop_oneof![Just(0), Just(3_000)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(delay_ms);
        for step in steps {
            world.take(step);
        }
        // All clients are gone: every call that waits is answered, and nothing is left to wait for.
        world.harness.log_refuses = false;
        world.harness.pass(10_000_000);
        world.hear();
        prop_assert!(world.open.is_empty(), "{:?} are never answered", world.open);
        prop_assert_eq!(world.harness.groups.next_deadline(), None);
        prop_assert!(matches!(world.harness.state(), None | Some(GroupState::Empty)));
    }
}
