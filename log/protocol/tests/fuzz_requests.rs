//! Fuzzes what reads requests: header, checks, the generated decoders of every API and version, and Produce in place.
//!
//! What the checks accept the decoders must take, to the same end, with memory in proportion to the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/fuzz.rs"]
mod fuzz;
#[path = "common/requests.rs"]
mod requests;

use bytes::Bytes;
use fastrand::Rng;
use kafka_protocol::messages::{ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::Decodable;
use logmill_protocol::wire::testing::{described, random_assignment, random_frame, random_subscription};
use logmill_protocol::wire::{
    ProduceRequest, RequestHead, TopicRef, WireError, check_assignment, check_request, check_subscription,
    request_versions,
};

/// Bytes that reading an input of `len` bytes may allocate: no element's structure is larger than that many times what
/// it takes on the wire, and errors have some text.
fn most_allocated(len: usize) -> usize {
    16 * 1024 + 200 * len
}

#[derive(Debug, Default)]
struct Seen {
    accepted: u64,
    refused: u64,
    unknown: u64,
    subscriptions: u64,
}

#[test]
fn mutated_requests_are_decoded_or_refused_within_bounds() {
    let all: Vec<(ApiKey, i16)> = described().collect();
    let mut seen = Seen::default();
    let mut turn = 0;
    let make = |random: &mut Rng| {
        turn = random.usize(..all.len());
        let (api, version) = all[turn];
        let mut frame = random_frame(api, version, random);
        let donor = random_frame(api, version, random);
        for _ in 0..random.usize(..5) {
            fuzz::mutate(random, &mut frame, &donor, 64);
        }
        if random.u8(..4) != 0 {
            // Back to its API, which the mutations often hit.
            let key = [(api as i16).to_be_bytes(), version.to_be_bytes()].concat();
            let len = frame.len().min(4);
            frame[..len].copy_from_slice(&key[..len]);
        }
        frame
    };
    fuzz::run("requests", 10_000, make, |frame, random| {
        read_frame(frame, &mut seen);
        read_blobs(frame, random, &mut seen)
    });
    assert!(seen.accepted > 0 && seen.refused > 0 && seen.unknown > 0 && seen.subscriptions > 0, "{seen:?}");
}

fn read_frame(frame: &[u8], seen: &mut Seen) {
    for header_version in -1..4 {
        if let Ok(head) = RequestHead::parse(frame, header_version) {
            assert!(head.body <= frame.len());
            head.client_id.map(|place| std::str::from_utf8(&frame[place]).unwrap().len());
        }
    }
    let Ok(head) = RequestHead::parse(frame, 0) else { return };
    let Ok(api) = ApiKey::try_from(head.api_key) else {
        seen.unknown += 1;
        return;
    };
    let Ok(head) = RequestHead::parse(frame, api.request_header_version(head.version)) else { return };
    let body = &frame[head.body..];
    let checked = check_request(api, head.version, body);
    if api == ApiKey::Produce {
        read_produce(head.version, body, &checked);
    }
    let is_described = request_versions(api).is_some_and(|versions| versions.contains(&head.version));
    assert_eq!(matches!(checked, Err(WireError::UnknownVersion { .. })), !is_described);
    if let Err(error) = checked {
        seen.refused += 1;
        assert!(!error.to_string().is_empty());
        return;
    }
    seen.accepted += 1;
    let mut rest = Bytes::copy_from_slice(body);
    requests::decode_request(api, head.version, &mut rest)
        .unwrap_or_else(|error| panic!("{api:?} version {} passes the check and is refused: {error}", head.version));
    // What is behind the request is nobody's, but both must agree where it ends.
    let end = body.len() - rest.len();
    assert_eq!(check_request(api, head.version, &body[..end]), Ok(()), "{api:?} version {}", head.version);
    let cut = end.checked_sub(1).map(|end| check_request(api, head.version, &body[..end]));
    assert!(cut.is_none_or(|cut| cut.is_err()), "{api:?} version {} ends before {end}", head.version);
}

fn read_produce(version: i16, body: &[u8], checked: &Result<(), WireError>) {
    let parsed = ProduceRequest::parse(version, body);
    assert_eq!(parsed.is_ok(), checked.is_ok(), "{parsed:?} {checked:?}");
    let Ok(request) = parsed else { return };
    let mut partitions = 0;
    for topic in &request.topics {
        assert_eq!(topic.topic.name(body).is_some(), matches!(topic.topic, TopicRef::Name(_)));
        for partition in request.partitions_of(topic) {
            partitions += 1;
            let records = partition.records.clone();
            assert!(records.is_none_or(|place| body.get(place).is_some()));
        }
    }
    assert_eq!(partitions, request.partitions().len());
    assert_eq!(request.transactional_id(body).is_some(), request.transactional_id.is_some());
}

/// What members of groups tell each other: made here, and the frame taken for it. Returns the bound for everything.
fn read_blobs(frame: &[u8], random: &mut Rng, seen: &mut Seen) -> usize {
    let mut blob = if random.bool() { random_subscription(random) } else { random_assignment(random) };
    for _ in 0..random.usize(..3) {
        fuzz::mutate(random, &mut blob, frame, 16);
    }
    for blob in [&blob[..], frame] {
        if let Ok(version) = check_subscription(blob) {
            seen.subscriptions += 1;
            ConsumerProtocolSubscription::decode(&mut Bytes::copy_from_slice(&blob[2..]), version).unwrap();
        }
        if let Ok(version) = check_assignment(blob) {
            ConsumerProtocolAssignment::decode(&mut Bytes::copy_from_slice(&blob[2..]), version).unwrap();
        }
    }
    most_allocated(frame.len() + blob.len())
}
