//! A member of a group that reads, commits what it has read, and writes down both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::producer::config;
use super::recorder::{Recorder, Recording, partition};
use super::value;
use crate::checker::history::{Assigned, Commit, Event, From, Outcome, Poll, Value};

/// Records that one poll yields at most.
const MAX_POLL_RECORDS: usize = 500;
/// How often a member commits.
const COMMIT_EVERY: Duration = Duration::from_millis(150);

/// What a member reads, and for whom.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    pub name: String,
    pub group: String,
    pub topic: String,
    /// More settings of librdkafka, which win over ours.
    pub settings: Vec<(&'static str, String)>,
}

impl MemberSpec {
    pub fn new(name: &str, group: &str, topic: &str) -> Self {
        Self { name: name.to_owned(), group: group.to_owned(), topic: topic.to_owned(), settings: Vec::new() }
    }

    #[must_use]
    pub fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.push((key, value.to_string()));
        self
    }
}

/// A member in a thread.
#[derive(Debug)]
pub struct RunningMember {
    pub name: String,
    stop: Arc<AtomicBool>,
    polled: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

struct Context {
    topic: Arc<str>,
    recording: Arc<Recording>,
    /// Polled by the poll that goes on, by partition; written down before a rebalance that interrupts it.
    polled: Mutex<BTreeMap<i32, Vec<(i64, Value)>>>,
    /// The next offset of each assigned partition from which something was polled, and whether it is committed.
    positions: Mutex<BTreeMap<i32, (i64, bool)>>,
}

impl ClientContext for Context {
    fn error(&self, _: KafkaError, _: &str) {
        // As with producers, that the node is away is what the tests are about.
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.note_polled();
        match rebalance {
            Rebalance::Assign(partitions) => {
                for element in partitions.elements() {
                    let partition = partition(&self.topic, element.partition());
                    let assigned = Assigned { partition, at: self.recording.now(), from: From::Committed };
                    self.recording.push(Event::Assigned(assigned));
                }
            }
            Rebalance::Revoke(partitions) => {
                self.commit(consumer);
                let mut positions = self.positions.lock().unwrap();
                for element in partitions.elements() {
                    positions.remove(&element.partition());
                }
            }
            Rebalance::Error(_) => {}
        }
    }
}

impl Context {
    /// Commits each partition on its own, so that each has an answer of its own.
    fn commit(&self, consumer: &BaseConsumer<Self>) {
        let positions = self.positions.lock().unwrap().clone();
        for (index, (offset, _)) in positions.into_iter().filter(|(_, (_, committed))| !committed) {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.topic, index, Offset::Offset(offset)).unwrap();
            let (partition, called) = (partition(&self.topic, index), self.recording.now());
            let commit = Commit { partition, offset, called, outcome: Outcome::Unknown };
            let number = self.recording.push(Event::Commit(commit));
            if consumer.commit(&list, CommitMode::Sync).is_ok() {
                let at = self.recording.now();
                self.recording.complete_commit(number, Outcome::Acknowledged { at });
                if let Some(position) = self.positions.lock().unwrap().get_mut(&index) {
                    position.1 = true;
                }
            }
        }
    }

    fn note_polled(&self) {
        let polled = std::mem::take(&mut *self.polled.lock().unwrap());
        for (index, records) in polled {
            if let Some((last, _)) = records.last() {
                self.positions.lock().unwrap().insert(index, (last + 1, false));
            }
            let poll = Poll { partition: partition(&self.topic, index), at: self.recording.now(), records };
            self.recording.push(Event::Poll(poll));
        }
    }
}

impl RunningMember {
    pub fn start(bootstrap: &str, recorder: &Recorder, spec: &MemberSpec) -> Self {
        let recording = recorder.process(&spec.name, Some(&spec.group));
        let mut config = config(bootstrap, &spec.name.replace(' ', "-"));
        config
            .set("group.id", &spec.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50");
        for (key, value) in &spec.settings {
            config.set(*key, value);
        }
        let topic: Arc<str> = Arc::from(spec.topic.as_str());
        let context =
            Context { topic: Arc::clone(&topic), recording, polled: Mutex::default(), positions: Mutex::default() };
        let consumer: BaseConsumer<Context> = config.create_with_context(context).unwrap();
        consumer.subscribe(&[&topic]).unwrap();
        let (stop, polled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&polled));
        let thread = std::thread::spawn(move || read(&consumer, &stopped, &counter));
        Self { name: spec.name.clone(), stop, polled, thread }
    }

    /// Records polled so far.
    pub fn polled(&self) -> u64 {
        self.polled.load(Ordering::Relaxed)
    }

    /// Commits and leaves the group.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it has left, and returns how many records it polled.
    pub fn join(self) -> u64 {
        self.thread.join().unwrap_or_else(|_| panic!("{} failed", self.name));
        self.polled.load(Ordering::Relaxed)
    }
}

fn read(consumer: &BaseConsumer<Context>, stop: &AtomicBool, counter: &AtomicU64) {
    let context = consumer.context();
    let mut committed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut wait = Duration::from_millis(50);
        let mut count = 0;
        // Errors are of connections and of a group that rebalances: the client goes on by itself.
        while let Some(message) = consumer.poll(wait) {
            wait = Duration::ZERO;
            let Ok(message) = message else { continue };
            let value = value::decode(message.payload().unwrap_or_default())
                .map_or_else(|| value::garbled(message.offset()), |(value, _)| value);
            let mut polled = context.polled.lock().unwrap();
            polled.entry(message.partition()).or_default().push((message.offset(), value));
            count += 1;
            if count == MAX_POLL_RECORDS {
                break;
            }
        }
        context.note_polled();
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if committed.elapsed() >= COMMIT_EVERY {
            context.commit(consumer);
            committed = Instant::now();
        }
    }
    context.commit(consumer);
}
