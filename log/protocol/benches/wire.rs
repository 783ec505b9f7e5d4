//! What checking a request costs before it is decoded, beside the generated decoder itself.
//!
//! `cargo bench -p logmill-protocol --bench wire` prints nanoseconds a request, the best of several passes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, GroupId, HeartbeatRequest, MetadataRequest, ProduceRequest, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use logmill_protocol::wire::{self, RequestHead};
use uuid::Uuid;

/// Requests a pass, and passes.
const MEASURED: (u32, u32) = (2_000, 200);

fn main() {
    // Without `--bench` this runs as a test of itself: once, on little.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let work = if measured { MEASURED } else { (10, 1) };
    println!("{:<34} {:>8} {:>10} {:>10}", "request", "bytes", "check ns", "decode ns");
    request(work, "Heartbeat", 4, &HeartbeatRequest::default().with_group_id(GroupId(text("late-flights"))));
    for partitions in [1, 10, 100] {
        request(work, &format!("Fetch, {partitions} partitions"), 17, &fetch(partitions));
    }
    for topics in [1, 100] {
        request(work, &format!("Metadata, {topics} topics"), 12, &metadata(topics));
    }
    for partitions in [1, 10] {
        let request = produce(partitions);
        let body = encode(&request, 12);
        let parse = time(work, || wire::ProduceRequest::parse(12, black_box(&body)).unwrap());
        let name = format!("Produce in place, {partitions} partitions");
        println!("{name:<34} {:>8} {parse:>10.0} {:>10}", body.len(), "-");
    }
    let header = RequestHeader::default().with_client_id(Some(text("consumer-late-flights-1")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, 2).unwrap();
    let parse = time(work, || RequestHead::parse(black_box(&frame), 2).unwrap());
    println!("{:<34} {:>8} {parse:>10.0} {:>10}", "header", frame.len(), "-");
}

fn request<R: Request + Encodable + Decodable>(work: (u32, u32), name: &str, version: i16, request: &R) {
    let api = ApiKey::try_from(R::KEY).unwrap();
    let body = Bytes::from(encode(request, version));
    let check = time(work, || wire::check_request(api, version, black_box(&body)).unwrap());
    let decode = time(work, || R::decode(&mut black_box(body.clone()), version).unwrap());
    println!("{name:<34} {:>8} {check:>10.0} {decode:>10.0}", body.len());
}

/// Nanoseconds a call.
fn time<T>((calls, passes): (u32, u32), mut work: impl FnMut() -> T) -> f64 {
    let pass = || {
        let begin = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    std::iter::repeat_with(pass).take(passes as usize).fold(f64::INFINITY, f64::min)
}

fn encode<R: Encodable>(request: &R, version: i16) -> Vec<u8> {
    let mut body = Vec::new();
    request.encode(&mut body, version).unwrap();
    body
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn fetch(partitions: i32) -> FetchRequest {
    let partition = |index| FetchPartition::default().with_partition(index).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic_id(Uuid::from_u128(7));
    let topic = topic.with_partitions((0..partitions).map(partition).collect());
    FetchRequest::default().with_max_wait_ms(500).with_topics(vec![topic])
}

fn metadata(topics: usize) -> MetadataRequest {
    let topic = |at: usize| MetadataRequestTopic::default().with_name(Some(TopicName(text(&format!("topic-{at:05}")))));
    MetadataRequest::default().with_topics(Some((0..topics).map(topic).collect()))
}

fn produce(partitions: i32) -> ProduceRequest {
    let records = Bytes::from(vec![0; 16 << 10]);
    let partition = |index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone()));
    let topic = TopicProduceData::default().with_name(TopicName(text("late-flights")));
    let topic = topic.with_partition_data((0..partitions).map(partition).collect());
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}
