//! Responses, byte for byte against the encoders that are generated from Kafka's schema.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use logmill_protocol::{BatchBuilder, BatchOptions, Offset, ProducerId, Timestamp};
use logmill_storage::{LogConfig, LogSlice, PartitionLog, SliceRequest, Sliced};
use uuid::Uuid;

use super::*;

/// A slice that holds one batch with a value of so many bytes.
fn slice(dir: &std::path::Path, len: usize) -> LogSlice {
    let (log, _) = PartitionLog::open(&dir.join(format!("t-1-{len}")).join("0"), LogConfig::default()).unwrap();
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(Timestamp(1), None, Some(&vec![7; len]), &[]).unwrap();
    log.append(&mut batch.finish().unwrap().to_vec(), LeaderEpoch(0), Timestamp(1)).unwrap();
    let request = SliceRequest { from: Offset(0), up_to: Offset(1), max_bytes: 1, first_whole: true, may_wait: true };
    match log.slice(request).unwrap() {
        Sliced::Slice(slice) => slice,
        other => panic!("{other:?}"),
    }
}

fn bytes(reply: &Reply) -> Vec<u8> {
    let chunk = |chunk: &Chunk| match chunk {
        Chunk::Bytes(bytes) => bytes.to_vec(),
        Chunk::File(file) => file.slice().read().unwrap().to_vec(),
    };
    reply.chunks.iter().flat_map(chunk).collect()
}

fn found(slice: Option<LogSlice>) -> Found {
    Found { high_watermark: 9, last_stable_offset: 8, log_start: 2, slice, ..Found::default() }
}

/// The partition as Kafka's own schema has it.
fn data(version: i16, slot: &Slot) -> PartitionData {
    let data = PartitionData::default().with_partition_index(slot.wanted.partition).with_records(Some(Bytes::new()));
    let found = match &slot.found {
        Ok(found) => found,
        Err(code) => {
            let data = data.with_error_code(*code).with_high_watermark(-1).with_aborted_transactions(None);
            return match version >= LEADER_VERSION && has_other_leader(*code) {
                true => data
                    .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(3)).with_leader_epoch(5)),
                false => data,
            };
        }
    };
    let aborted = found.aborted.as_ref().map(|aborted| {
        let one = |(id, first): &(ProducerId, Offset)| {
            let id = kafka_protocol::messages::ProducerId(id.0);
            AbortedTransaction::default().with_producer_id(id).with_first_offset(first.0)
        };
        aborted.iter().map(one).collect()
    });
    let data = data
        .with_high_watermark(found.high_watermark)
        .with_last_stable_offset(found.last_stable_offset)
        .with_log_start_offset(found.log_start)
        .with_aborted_transactions(aborted)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(found.slice.as_ref().map_or(Bytes::new(), |slice| slice.read().unwrap())));
    match found.diverging {
        Some((epoch, end)) if version >= 12 => {
            data.with_diverging_epoch(EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0))
        }
        _ => data,
    }
}

#[test]
fn responses_are_byte_for_byte_what_the_schema_says() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (slice(dir.path(), 100), slice(dir.path(), 100_000));
    let aborted = Some(vec![(ProducerId(5), Offset(1)), (ProducerId(1 << 40), Offset(3))]);
    let kinds: [(&str, Vec<Result<Found, i16>>); 4] = [
        ("first", vec![Ok(found(None)), Ok(found(Some(small.clone()))), Err(3), Err(74), Err(6)]),
        ("second", vec![Ok(found(Some(large.clone()))), Ok(found(Some(large))), Ok(found(None))]),
        (
            "third",
            vec![Ok(Found { aborted, ..found(Some(small)) }), Ok(Found { aborted: Some(Vec::new()), ..found(None) })],
        ),
        ("first", vec![Ok(Found { diverging: Some((LeaderEpoch(2), Offset(77))), ..found(None) })]),
    ];
    let racks = [None, Some("east")];
    for (version, rack) in (4..=18).flat_map(|version| racks.map(|rack| (version, rack))) {
        let leader = Leader { id: 3, epoch: LeaderEpoch(5), host: "host", port: 9092, rack };
        let key = |name: &str| match version >= TOPIC_ID_VERSION {
            true => TopicKey::Id(Uuid::from_u128(name.bytes().map(u128::from).sum())),
            false => TopicKey::Name(Arc::from(name)),
        };
        let mut slots = Vec::new();
        let mut topics = Vec::new();
        for (name, founds) in &kinds {
            let of_topic: Vec<Slot> = (0..).zip(founds).map(|(n, found)| Slot::of(key(name), n, copy(found))).collect();
            let topic = FetchableTopicResponse::default()
                .with_partitions(of_topic.iter().map(|slot| data(version, slot)).collect());
            topics.push(match key(name) {
                TopicKey::Id(id) => topic.with_topic_id(id),
                TopicKey::Name(_) => topic.with_topic(TopicName(StrBytes::from_string((*name).to_owned()))),
            });
            slots.extend(of_topic);
        }
        let session = if version >= SESSION_VERSION { 77 } else { 0 };
        let mut expected = FetchResponse::default().with_session_id(session).with_responses(topics);
        if version >= LEADER_VERSION {
            let endpoint = NodeEndpoint::default().with_node_id(BrokerId(3)).with_port(9092);
            let (host, rack) = (StrBytes::from_static_str("host"), leader.rack.map(StrBytes::from_static_str));
            expected.node_endpoints = vec![endpoint.with_host(host).with_rack(rack)];
        }
        let mut encoded = BytesMut::new();
        expected.encode(&mut encoded, version).unwrap();
        let reply = response(version, session, &slots.iter().collect::<Vec<_>>(), leader);
        assert!(bytes(&reply) == encoded, "version {version}");
        assert_eq!(reply.chunks.len(), 5, "two large slices stay in their files");
        assert!(bytes(&response(version, session, &[], leader)).len() < 20);
    }
}

fn copy(found: &Result<Found, i16>) -> Result<Found, i16> {
    found.as_ref().map_err(|code| *code).map(|found| Found {
        slice: found.slice.clone(),
        aborted: found.aborted.clone(),
        ..*found
    })
}

#[test]
fn a_refused_session_is_told_in_the_response_itself() {
    for version in SESSION_VERSION..=18 {
        let mut encoded = BytesMut::new();
        FetchResponse::default().with_error_code(70).encode(&mut encoded, version).unwrap();
        assert_eq!(bytes(&refusal(version, 70)), encoded, "version {version}");
    }
}
