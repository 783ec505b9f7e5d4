//! A producer that sends numbered values until it is told to stop, and writes down each and its fate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use super::recorder::{Recorder, Recording, partition};
use super::value;
use crate::checker::history::{Event, Outcome, Send, Value};

/// Records of one producer that are sent and not acknowledged, at most.
const MAX_UNACKNOWLEDGED: &str = "2000";
/// A node that is away is tried again at least this often, in milliseconds.
const RECONNECT_MS: &str = "200";

/// What a producer does.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    pub id: u32,
    pub topic: String,
    pub partitions: i32,
    /// Records per second.
    pub rate: u32,
    pub value_len: usize,
    /// More settings of librdkafka, which win over ours.
    pub settings: Vec<(&'static str, String)>,
}

impl ProducerSpec {
    pub fn new(id: u32, topic: &str, partitions: i32) -> Self {
        Self { id, topic: topic.to_owned(), partitions, rate: 500, value_len: 100, settings: Vec::new() }
    }

    #[must_use]
    pub fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.push((key, value.to_string()));
        self
    }
}

/// The settings that all clients share.
pub fn config(bootstrap: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", client_id)
        .set("broker.address.family", "v4")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", RECONNECT_MS)
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", RECONNECT_MS)
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Error);
    config
}

/// A producer in a thread.
#[derive(Debug)]
pub struct RunningProducer {
    pub name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

struct Context {
    recording: Arc<Recording>,
    acknowledged: Arc<AtomicU64>,
}

impl ClientContext for Context {
    fn error(&self, _: KafkaError, _: &str) {
        // That the node is away is what the tests are about; what matters is what becomes of the records.
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let at = self.recording.now();
        match result {
            Ok(message) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                self.recording.complete_send(number, Outcome::Acknowledged { at }, offset);
            }
            Err((error, _)) => {
                let refused = error.rdkafka_error_code().is_some_and(is_refusal);
                self.recording.complete_send(
                    number,
                    if refused { Outcome::Failed { at } } else { Outcome::Unknown },
                    None,
                );
            }
        }
    }
}

/// Whether the record is in no log and never will be.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{InvalidRecord, MessageSizeTooLarge, PolicyViolation, PurgeQueue};
    matches!(code, InvalidRecord | MessageSizeTooLarge | PolicyViolation | PurgeQueue)
}

impl RunningProducer {
    pub fn start(bootstrap: &str, recorder: &Recorder, spec: ProducerSpec) -> Self {
        let name = format!("producer {}", spec.id);
        let recording = recorder.process(&name, None);
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut config = config(bootstrap, &name.replace(' ', "-"));
        config
            .set("queue.buffering.max.messages", MAX_UNACKNOWLEDGED)
            // What is sent stays in doubt for longer than any test.
            .set("message.timeout.ms", "600000")
            .set("linger.ms", "2");
        for (key, value) in &spec.settings {
            config.set(*key, value);
        }
        let context = Context { recording: Arc::clone(&recording), acknowledged: Arc::clone(&acknowledged) };
        let producer: BaseProducer<Context> = config.create_with_context(context).unwrap();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || send(&producer, &recording, &spec, &stopped));
        Self { name, stop, acknowledged, thread }
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Sends no more; what was sent is still waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether everything sent has met its fate.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn join(self) {
        self.thread.join().unwrap_or_else(|_| panic!("{} failed", self.name));
    }
}

fn send(producer: &BaseProducer<Context>, recording: &Recording, spec: &ProducerSpec, stop: &AtomicBool) {
    let topic = Arc::from(spec.topic.as_str());
    let mut random = fastrand::Rng::with_seed(u64::from(spec.id));
    let start = Instant::now();
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_micros() * u128::from(spec.rate) / 1_000_000;
        if u128::from(sequence) >= due {
            producer.poll(Duration::from_millis(1));
            continue;
        }
        // As many keys as a small application has; each always goes to the same partition.
        let key = random.i32(0..64);
        let index = key % spec.partitions;
        let value = Value { producer: spec.id, sequence };
        let payload = value::encode(value, index, spec.value_len);
        let event = Send {
            partition: partition(&topic, index),
            value,
            called: recording.now(),
            outcome: Outcome::Unknown,
            offset: None,
            transaction: None,
        };
        let number = recording.push(Event::Send(event));
        let key = key.to_string();
        let record = BaseRecord::with_opaque_to(&spec.topic, number).partition(index).key(&key).payload(&payload);
        let mut record = Some(record);
        while let Some(again) = record.take() {
            match producer.send(again) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    producer.poll(Duration::from_millis(5));
                    if stop.load(Ordering::Relaxed) {
                        recording.complete_send(number, Outcome::Failed { at: recording.now() }, None);
                        break;
                    }
                    record = Some(refused);
                }
                Err((error, _)) => panic!("producer {}: {error}", spec.id),
            }
        }
        sequence += 1;
        producer.poll(Duration::ZERO);
    }
    // Until nothing is in doubt; who waits for it sets the limit.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(20));
    }
}
