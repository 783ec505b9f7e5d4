//! Sends a server what is valid in form and wicked in content: requests of every API and version whose ids, epochs, counts,
//! offsets, timeouts and names are extreme, and record batches that claim what they do not hold. A pipeline's transactions,
//! a group and an idempotent producer go on meanwhile, nobody else's records are lost, memory stays within bounds, and the
//! node starts again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../protocol/tests/common/fuzz.rs"]
mod fuzz;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, InitProducerIdRequest, ProduceRequest};
use kafka_protocol::protocol::StrBytes;
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{
    Broker, BrokerConfig, GroupConfig, Membership, OFFSETS_TOPIC, ProducerSession, TRANSACTIONS_TOPIC,
};
use logmill_protocol::wire::testing::{Values, described, made_frame, random_subscription};
use logmill_protocol::{
    BatchBuilder, BatchError, BatchOptions, BatchView, Compression, Offset, ProducerEpoch, ProducerId, ProducerStamp,
    Timestamp,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::client::{Client, PATIENCE, serve};
use support::groups::{alone, commit, error, fetch, group, topic_name};
use support::{batch, committed, topic, tp};

/// Most bytes that a conversation may make the server allocate in all, one after another.
const MOST_ALLOCATED: usize = 512 << 20;
/// Conversations after which the node is started anew.
const RESTART_EVERY: usize = 40;
/// The topic that a pipeline keeps its state in.
const MANIFEST: &str = "__logmill_manifest_p";
/// The group that it is in.
const GROUP: &str = "logmill-p";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Thinks up what the fields hold.
struct Wicked<'r> {
    random: &'r mut Rng,
    api: ApiKey,
    /// Producer ids worth stealing.
    producers: [i64; 2],
    members: [String; 2],
}

impl Wicked<'_> {
    /// A batch that is whole, with a right checksum, and header fields of the worst kind.
    fn batch(&mut self) -> Vec<u8> {
        let compression = *self.random.choice(&Compression::ALL).unwrap();
        let id = self.id();
        let stamp = ProducerStamp {
            id: ProducerId(id),
            epoch: ProducerEpoch(self.extreme(2) as i16),
            base_sequence: self.extreme(4) as i32,
        };
        let producer = (self.random.u8(..3) > 0).then_some(stamp);
        let transactional = producer.is_some() && self.random.u8(..4) == 0;
        let mut builder = BatchBuilder::new(BatchOptions { compression, producer, transactional, level: None });
        for _ in 0..self.random.usize(1..5) {
            let time = if self.random.bool() { 1_000 } else { self.extreme(8) as i64 };
            let value = vec![0; *self.random.choice(&[0, 1, 100, 100_000]).unwrap()];
            let _ = builder.append(Timestamp(time), None, Some(&value), &[]);
        }
        let mut bytes = builder.finish().map(|bytes| bytes.to_vec()).unwrap_or_default();
        if bytes.len() < 61 {
            return bytes;
        }
        if self.random.u8(..3) == 0 {
            // Counts of records that are not there, with or without a payload.
            let count = *self.random.choice(&[i32::MAX, i32::MAX - 1, 1 << 20, 10_000, 1, 0, -1, i32::MIN]).unwrap();
            bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            if self.random.bool() {
                bytes.truncate(61);
            }
        }
        for _ in 0..self.random.usize(..3).saturating_sub(1) {
            // Attributes, deltas, timestamps, producer, sequence, count.
            let at = self.random.usize(21..61);
            let extreme = self.extreme(8).to_be_bytes();
            let room = (61 - at).min(8);
            bytes[at..at + room].copy_from_slice(&extreme[16 - room..]);
        }
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        if let Ok((view, _)) = BatchView::parse(&bytes)
            && let Err(BatchError::Crc { computed, .. }) = view.verify_crc()
        {
            bytes[17..21].copy_from_slice(&computed.to_be_bytes());
        }
        bytes
    }

    fn id(&mut self) -> i64 {
        match self.random.u8(..4) {
            0 | 1 => *self.random.choice(&self.producers).unwrap(),
            // Handed out next, or soon.
            2 => self.producers[1] + self.random.i64(1..2_000),
            _ => self.extreme(8) as i64,
        }
    }

    /// A number of so many bytes at which arithmetic goes wrong.
    fn extreme(&mut self, len: usize) -> i128 {
        let max = i128::MAX >> (128 - 8 * len);
        match self.random.u8(..10) {
            0 => max,
            1 => -max - 1,
            2 => max - i128::from(self.random.u8(..3)),
            3 => -1,
            4 => -2,
            5 => 1_000.min(max),
            6 => i128::from(self.random.u8(..)).min(max),
            _ => i128::from(self.random.u8(..3)),
        }
    }
}

impl Values for Wicked<'_> {
    fn random(&mut self) -> &mut Rng {
        self.random
    }

    fn number(&mut self, field: &str, len: usize) -> i128 {
        let calm = self.random.u8(..4) > 0;
        match field {
            "producer_id" => self.id().into(),
            "acks" if calm => (*self.random.choice(&[-1, 0, 1]).unwrap()).into(),
            "partition" | "partition_index" | "partition_indexes" | "partitions" | "index" if calm => {
                self.random.u8(..2).into()
            }
            // What makes the server wait is bounded, or the test waits, too.
            "max_wait_ms" | "timeout_ms" if calm => self.random.u8(..20).into(),
            "min_bytes" if calm => 0,
            "session_timeout_ms" | "rebalance_timeout_ms" => (*self.random.choice(&[-1, 0, 1, 6_000]).unwrap()).into(),
            // More partitions than a test has time to make are made elsewhere.
            "num_partitions" | "count" => match self.extreme(4) {
                few @ ..=3 => few,
                many => many.max(20_000),
            },
            "replication_factor" if calm => 1,
            "resource_type" if calm => (*self.random.choice(&[2, 4]).unwrap()).into(),
            "config_operation" if calm => self.random.u8(..4).into(),
            "key_type" if calm => 0,
            _ => self.extreme(len),
        }
    }

    fn string(&mut self, field: &str) -> String {
        let destroys = matches!(
            self.api,
            ApiKey::DeleteTopics
                | ApiKey::DeleteRecords
                | ApiKey::AlterConfigs
                | ApiKey::IncrementalAlterConfigs
                | ApiKey::CreatePartitions
        );
        // What any client may destroy is the test's to lose: the pipeline's output is not among it.
        let topics: &[&str] = match destroys {
            true => &["evil", OFFSETS_TOPIC, TRANSACTIONS_TOPIC, MANIFEST],
            false if self.api != ApiKey::Produce => &["evil", "out", "g", OFFSETS_TOPIC, TRANSACTIONS_TOPIC, MANIFEST],
            // What it writes may be anything: the reader of this test wants to understand its own output.
            false => &["evil", "g", OFFSETS_TOPIC, TRANSACTIONS_TOPIC, MANIFEST],
        };
        let configs =
            ["segment.bytes", "segment.ms", "max.message.bytes", "retention.ms", "flush.ms", "index.interval.bytes"];
        let values = ["14", "1", "0", "-1", "9223372036854775807", "2147483647", "zstd"];
        let groups = ["evil", "wicked", GROUP, "", "g"];
        let text = match (field, self.random.u8(..8)) {
            (_, 0) => "",
            (_, 1) => *self.random.choice(&["größe", "a/b", "..", "__logmill_", "%s\n\u{1b}[31m"]).unwrap(),
            ("group_id" | "groups" | "groups_names" | "group" | "key" | "coordinator_keys", _) => {
                *self.random.choice(&groups).unwrap()
            }
            ("member_id", _) => return self.random.choice(&self.members).unwrap().clone(),
            ("protocol_type" | "protocol_name", _) => *self.random.choice(&["consumer", "logmill", "range"]).unwrap(),
            ("value", _) => *self.random.choice(&values).unwrap(),
            ("transactional_id", n) if n < 4 => "pipeline",
            ("name", _) if self.random.u8(..4) == 0 => *self.random.choice(&configs).unwrap(),
            _ => *self.random.choice(topics).unwrap(),
        };
        match self.random.u8(..30) {
            0 if !text.is_empty() => text.repeat(32_767 / text.len()),
            1 => format!("{text}{}", self.random.u32(..)),
            _ => text.to_owned(),
        }
    }

    fn bytes(&mut self, field: &str) -> Vec<u8> {
        match field {
            "records" => self.batch(),
            "metadata" if self.random.bool() => random_subscription(self.random),
            _ => vec![0xff; *self.random.choice(&[0, 1, 1_000, 200_000]).unwrap()],
        }
    }

    fn count(&mut self, _: &str) -> usize {
        match self.random.u8(..60) {
            0 => 2_000,
            1..=9 => 0,
            _ => self.random.usize(1..3),
        }
    }
}

/// The node, and those who use it well.
struct World {
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    node: Option<(Broker, Server)>,
    pipeline: (Membership, ProducerSession),
    consumer: (StrBytes, i32),
    /// An idempotent producer: its id, and how many records it has sent.
    producer: (i64, i32),
    rounds: i64,
    conversations: usize,
}

fn config(dir: &std::path::Path) -> BrokerConfig {
    let groups = GroupConfig {
        initial_rebalance_delay_ms: 0,
        min_session_timeout_ms: 1,
        max_groups: 100,
        max_bytes: 4 << 20,
        max_group_bytes: 1 << 20,
        ..GroupConfig::default()
    };
    BrokerConfig { groups, timeout_check_interval_ms: 50, retention_check_interval_ms: 200, ..BrokerConfig::new(dir) }
}

async fn start(dir: &std::path::Path) -> (Broker, Server) {
    let (broker, _) = Broker::open(config(dir)).await.expect("the node starts");
    let limits = ServerConfig {
        max_frame_bytes: 8 << 20,
        max_connections_per_ip: 1000,
        drain_timeout_ms: 2_000,
        ..ServerConfig::default()
    };
    let server = serve(&broker, limits).await;
    (broker, server)
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (node, pipeline, consumer, id) = runtime.block_on(async {
            let (broker, server) = start(dir.path()).await;
            for (name, partitions) in [("out", 1), ("g", 2), ("evil", 2), (MANIFEST, 1)] {
                broker.create_topic(topic(name, partitions, &[])).await.unwrap();
            }
            let membership = broker.join_group(GROUP, "worker").await.unwrap();
            let session = broker.init_producer("pipeline", 60_000).await.unwrap();
            let mut client = Client::connect(&server).await;
            let consumer = alone(&mut client, "calm").await;
            let id = client.call(4, &InitProducerIdRequest::default().with_transactional_id(None)).await.producer_id;
            ((broker, server), (membership, session), consumer, *id)
        });
        Self { runtime, dir, node: Some(node), pipeline, consumer, producer: (id, 0), rounds: 0, conversations: 0 }
    }

    /// Begins an epoch, has the bytes sent, and ends it; everyone else's work goes on as well.
    fn converse(&mut self, bytes: &[u8]) {
        let (broker, server) = self.node.as_ref().unwrap();
        let (membership, session) = &mut self.pipeline;
        let (round, consumer, producer) = (self.rounds, &self.consumer, &mut self.producer);
        self.runtime.block_on(async {
            let value = round.to_string();
            broker.append(session, &tp("out", 0), batch(&[&value])).await.expect("the transaction is open");
            broker.append(session, &tp(MANIFEST, 0), batch(&[&value])).await.unwrap();
            talk(server, bytes).await;
            let others = async {
                let positions = [(tp("g", 0), Offset(round))];
                broker.commit_offsets_in_transaction(session, membership, &positions).await.expect("offsets");
                *session = broker.end_transaction(session, true).await.expect("the epoch ends");
                well_behaved(server, consumer, producer, round).await;
            };
            tokio::time::timeout(PATIENCE, others).await.expect("others go on");
        });
        self.rounds += 1;
        self.conversations += 1;
        if self.conversations.is_multiple_of(RESTART_EVERY) {
            self.restart();
        }
    }

    /// Starts the node anew and looks whether everything is there.
    fn restart(&mut self) {
        let (broker, server) = self.node.take().unwrap();
        let rounds = self.rounds;
        let (consumer, path) = (self.consumer.clone(), self.dir.path());
        let (node, pipeline) = self.runtime.block_on(async {
            server.shutdown().await;
            broker.close().await.unwrap();
            drop(broker);
            let (broker, server) = start(path).await;
            let all: Vec<String> = (0..rounds).map(|round| round.to_string()).collect();
            for name in ["out", MANIFEST] {
                let found = committed(&broker, &tp(name, 0)).await;
                let ours: Vec<_> = found.into_iter().filter(|value| value.parse::<i64>().is_ok()).collect();
                assert_eq!(ours, all, "{name}: every epoch is there, once");
            }
            let positions = broker.committed_offsets(GROUP, &[tp("g", 0)]).await.unwrap();
            assert_eq!(positions, [(tp("g", 0), Offset(rounds - 1))]);
            let membership = broker.join_group(GROUP, "worker").await.expect("the pipeline's group is its own");
            let session = broker.init_producer("pipeline", 60_000).await.expect("the pipeline starts");
            let mut client = Client::connect(&server).await;
            let heartbeat = HeartbeatRequest::default().with_group_id(group("calm")).with_member_id(consumer.0);
            let heartbeat = client.call(4, &heartbeat.with_generation_id(consumer.1)).await;
            assert_eq!(error(heartbeat.error_code), None, "the group's members go on");
            ((broker, server), (membership, session))
        });
        (self.node, self.pipeline) = (Some(node), pipeline);
    }
}

/// Sends the bytes and nothing more, until the server closes.
async fn talk(server: &Server, bytes: &[u8]) {
    let conversation = async {
        let mut stream = TcpStream::connect(server.local_addrs()[0]).await.unwrap();
        let (mut read, mut write) = stream.split();
        let send = async {
            // It may have closed already.
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        let mut received = Vec::new();
        let _ = tokio::join!(send, read.read_to_end(&mut received));
    };
    tokio::time::timeout(PATIENCE, conversation).await.expect("the connection ends");
}

/// A consumer of its own group, and an idempotent producer.
async fn well_behaved(server: &Server, (member, generation): &(StrBytes, i32), producer: &mut (i64, i32), round: i64) {
    let mut client = Client::connect(server).await;
    let heartbeat = HeartbeatRequest::default().with_group_id(group("calm")).with_member_id(member.clone());
    let heartbeat = client.call(4, &heartbeat.with_generation_id(*generation)).await;
    assert_eq!(error(heartbeat.error_code), None, "heartbeat");
    let request = commit("calm", &[("g", 1, round)])
        .with_member_id(member.clone())
        .with_generation_id_or_member_epoch(*generation);
    let committed = client.call(8, &request).await;
    assert_eq!(error(committed.topics[0].partitions[0].error_code), None, "commit");
    let found = fetch(&mut client, 8, "calm", Some(&[("g", &[1])]), false).await;
    assert_eq!(found, [("g".to_owned(), 1, round, None)]);

    let stamp = ProducerStamp { id: ProducerId(producer.0), epoch: ProducerEpoch(0), base_sequence: producer.1 };
    let mut builder = BatchBuilder::new(BatchOptions { producer: Some(stamp), ..BatchOptions::default() });
    builder.append(Timestamp(1_000), None, Some(b"calm"), &[]).unwrap();
    let data = PartitionProduceData::default().with_index(0).with_records(Some(builder.finish().unwrap()));
    let data = TopicProduceData::default().with_name(topic_name("g")).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let answer = client.call(12, &request).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    // Whoever guesses the id may fence such a producer, as in Kafka; its client then gets another one.
    match error(code) {
        None => producer.1 += 1,
        Some(_) => {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            *producer = (*client.call(4, &request).await.producer_id, 0);
        }
    }
}

#[test]
fn a_client_that_may_send_anything_harms_nobody_else() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(panic);
    }));
    let all: Vec<_> = described().collect();
    let world = std::cell::RefCell::new(World::new());
    let make = |random: &mut Rng| {
        let (session, own) = {
            let world = world.borrow();
            (world.pipeline.1.id.0, world.producer.0)
        };
        let member = world.borrow().consumer.0.to_string();
        let mut sent = Vec::new();
        for _ in 0..random.usize(1..20) {
            // Producing is where most can be broken.
            let (api, version) = match random.u8(..4) {
                0 => (ApiKey::Produce, random.i16(3..=13)),
                _ => *random.choice(&all).unwrap(),
            };
            let producers = [session.min(own), session.max(own)];
            let members = [member.clone(), "nobody".to_owned()];
            let frame = made_frame(api, version, &mut Wicked { random, api, producers, members });
            sent.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            sent.extend(frame);
        }
        sent
    };
    fuzz::run("wicked requests", 60, make, |bytes, _| {
        world.borrow_mut().converse(bytes);
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "the server panicked");
        MOST_ALLOCATED + 16 * bytes.len()
    });
    let mut world = world.into_inner();
    world.restart();
    let (broker, server) = world.node.take().unwrap();
    world.runtime.block_on(async {
        server.shutdown().await;
        broker.close().await.unwrap();
    });
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}
