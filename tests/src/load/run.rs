//! Producers, members and a recorder together: load on a topic while something happens to the node.

use std::fmt::Display;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::member::{MemberSpec, RunningMember};
use super::producer::{ProducerSpec, RunningProducer, config};
use super::reader::read_all;
use super::recorder::Recorder;
use crate::checker::history::History;
use crate::checker::{Report, check};

/// Who makes no progress for so long, makes none.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a topic.
#[track_caller]
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, "admin").create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in configs {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
    let created = wait_for(admin.create_topics([&topic], &options));
    match &created.unwrap()[..] {
        [Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))] => {}
        other => panic!("{name} is not made: {other:?}"),
    }
}

/// Waits for a future that another thread completes.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

/// Clients under load on one topic.
#[derive(Debug)]
pub struct Load {
    bootstrap: String,
    topic: String,
    partitions: i32,
    recorder: Recorder,
    producers: Vec<RunningProducer>,
    members: Vec<RunningMember>,
    /// What members polled that have left.
    polled_by_others: u64,
}

/// How far each client has come.
#[derive(Clone, Debug)]
pub struct Progress {
    acknowledged: Vec<u64>,
    polled: u64,
}

impl Load {
    pub fn start(bootstrap: &str, producers: Vec<ProducerSpec>, members: &[MemberSpec]) -> Self {
        let (topic, partitions) = (producers[0].topic.clone(), producers[0].partitions);
        let recorder = Recorder::default();
        let members = members.iter().map(|spec| RunningMember::start(bootstrap, &recorder, spec)).collect();
        let producers = producers.into_iter().map(|spec| RunningProducer::start(bootstrap, &recorder, spec)).collect();
        Self { bootstrap: bootstrap.to_owned(), topic, partitions, recorder, producers, members, polled_by_others: 0 }
    }

    /// A producer and a member on a topic of their own, whom nothing that befalls others may stop.
    #[track_caller]
    pub fn bystanders(bootstrap: &str) -> Self {
        create_topic(bootstrap, "bystanders", 2, &[]);
        let mut producer = ProducerSpec::new(1, "bystanders", 2).set("enable.idempotence", true);
        producer.rate = 200;
        Self::start(bootstrap, vec![producer], &[MemberSpec::new("member 1", "bystanders", "bystanders")])
    }

    pub fn progress(&self) -> Progress {
        Progress {
            acknowledged: self.producers.iter().map(RunningProducer::acknowledged).collect(),
            polled: self.polled_by_others + self.members.iter().map(RunningMember::polled).sum::<u64>(),
        }
    }

    /// The member that has been there longest commits and leaves, and another joins.
    pub fn replace_member(&mut self, spec: &MemberSpec) {
        let member = self.members.remove(0);
        self.members.push(RunningMember::start(&self.bootstrap, &self.recorder, spec));
        member.stop();
        self.polled_by_others += member.join();
    }

    /// Waits until each producer has had `each` more records acknowledged than at `before`, and the members as many together.
    #[track_caller]
    pub fn await_progress(&self, before: &Progress, each: u64, more: &impl Display) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = self.progress();
            let acknowledged = now.acknowledged.iter().zip(&before.acknowledged);
            let polled = self.members.is_empty() || now.polled >= before.polled + each;
            if polled && acknowledged.clone().all(|(now, before)| *now >= before + each) {
                return;
            }
            assert!(Instant::now() < deadline, "no progress from {before:?} to {now:?} within {LIMIT:?}\n{more}");
            self.assert_alive(more);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails unless everyone goes on, from now.
    #[track_caller]
    pub fn assert_goes_on(&self, more: &impl Display) {
        self.await_progress(&self.progress(), 20, more);
    }

    #[track_caller]
    fn assert_alive(&self, more: &impl Display) {
        let dead = self.producers.iter().find(|producer| producer.is_done()).map(|producer| &producer.name);
        let dead = dead.or_else(|| self.members.iter().find(|member| member.is_done()).map(|member| &member.name));
        assert!(dead.is_none(), "{dead:?} has given up\n{more}");
    }

    /// Waits until all that was sent has met its fate, the group has read and committed everything, and a reader has
    /// seen it all; returns what happened.
    #[track_caller]
    pub fn finish(self, more: &impl Display) -> History {
        self.producers.iter().for_each(RunningProducer::stop);
        let deadline = Instant::now() + LIMIT;
        while !self.producers.iter().all(RunningProducer::is_done) {
            assert!(Instant::now() < deadline, "records stay in doubt for {LIMIT:?}\n{more}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.producers.into_iter().for_each(RunningProducer::join);
        let ends = read_all(&self.bootstrap, &self.recorder, &self.topic, self.partitions, LIMIT);
        let total: i64 = ends.iter().sum();
        let deadline = Instant::now() + LIMIT;
        while !self.members.is_empty() && !caught_up(&self.recorder.history(), &ends) {
            assert!(
                Instant::now() < deadline,
                "the group does not commit all {total} within {LIMIT:?}: {ends:?}\n{more}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        self.members.iter().for_each(RunningMember::stop);
        for member in self.members {
            member.join();
        }
        self.recorder.history()
    }

    /// The same, and what the checker finds.
    #[track_caller]
    pub fn check(self, more: &impl Display) -> Report {
        check(&self.finish(more))
    }
}

/// Whether the ends of all partitions are committed.
fn caught_up(history: &History, ends: &[i64]) -> bool {
    use crate::checker::history::Event;
    let mut committed = vec![0; ends.len()];
    for (_, event) in history.events() {
        let Event::Commit(commit) = event else { continue };
        if commit.outcome.acknowledged().is_some() {
            let at = &mut committed[usize::try_from(commit.partition.index).unwrap()];
            *at = commit.offset.max(*at);
        }
    }
    committed == ends
}
