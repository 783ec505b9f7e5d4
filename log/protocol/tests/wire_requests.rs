//! The descriptions of requests against the decoders generated from Kafka's schemas, in every API and version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/requests.rs"]
mod requests;

use bytes::Bytes;
use fastrand::Rng;
use kafka_protocol::messages::{ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use logmill_protocol::wire::testing::{
    described, random_assignment, random_frame, random_request, random_subscription,
};
use logmill_protocol::wire::{
    MAX_ELEMENTS, ProduceRequest, RequestHead, WireError, check_assignment, check_request, check_subscription,
    request_versions,
};
use requests::{decode_and_encode, default_request};

const CASES: u64 = 15;

/// Random requests of every API and version.
fn each_request(mut check: impl FnMut(ApiKey, i16, Vec<u8>)) {
    for (api, version) in described() {
        for seed in 0..CASES {
            check(api, version, random_request(api, version, &mut Rng::with_seed(seed)));
        }
    }
}

#[test]
fn every_version_of_the_generated_messages_is_described() {
    for (api, version) in described() {
        let versions = requests::versions(api).unwrap();
        assert_eq!(request_versions(api), Some(versions.min..=versions.max), "{api:?}");
        assert!(request_versions(api).unwrap().contains(&version));
        for unknown in [versions.min - 1, versions.max + 1, i16::MIN, i16::MAX] {
            assert!(matches!(check_request(api, unknown, b""), Err(WireError::UnknownVersion { .. })));
        }
    }
    assert!(check_request(ApiKey::Vote, 0, b"").is_err(), "an API that is not described");
    assert_eq!(request_versions(ApiKey::Vote), None);
}

/// Had the description another field, order or width than the decoder, the bytes would not come out as they went in.
#[test]
fn what_the_descriptions_say_is_what_the_decoders_read() {
    each_request(|api, version, bytes| {
        let mut body = Bytes::from(bytes.clone());
        let again =
            decode_and_encode(api, version, &mut body).unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        assert!(body.is_empty(), "{api:?} {version} leaves {} bytes", body.len());
        assert_eq!(again, bytes, "{api:?} {version}");
    });
}

#[test]
fn whole_requests_are_accepted_and_cut_ones_are_not() {
    each_request(|api, version, mut body| {
        check_request(api, version, &body).unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        for end in 0..body.len() {
            assert!(check_request(api, version, &body[..end]).is_err(), "{api:?} {version} cut at {end} of {body:x?}");
        }
        // Clients have been seen to leave something behind a request.
        body.extend_from_slice(&[1, 0, 0]);
        assert_eq!(check_request(api, version, &body), Ok(()), "{api:?} {version}");
    });
}

#[test]
fn default_requests_are_accepted() {
    for (api, version) in described() {
        let Some(body) = default_request(api, version) else { continue };
        // Which null is allowed in which version is not known to the encoders, nor is it when they write defaults.
        check_request(api, version, &body).unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
    }
}

#[test]
fn both_readers_of_produce_accept_the_same() {
    for (api, version) in described().filter(|(api, _)| *api == ApiKey::Produce) {
        for seed in 0..CASES * 20 {
            let mut random = Rng::with_seed(seed);
            let mut body = random_request(api, version, &mut random);
            for _ in 0..random.usize(..3) {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            let checked = check_request(api, version, &body);
            assert_eq!(ProduceRequest::parse(version, &body).is_ok(), checked.is_ok(), "{version} {seed}: {checked:?}");
        }
    }
}

#[test]
fn headers_are_read_as_the_generated_decoder_does() {
    for (api, version) in described() {
        for seed in 0..CASES {
            let frame = random_frame(api, version, &mut Rng::with_seed(seed));
            let header_version = api.request_header_version(version);
            let head = RequestHead::parse(&frame, header_version).unwrap();
            let mut body = Bytes::from(frame.clone());
            let expected = RequestHeader::decode(&mut body, header_version).unwrap();
            assert_eq!((head.api_key, head.version), (expected.request_api_key, expected.request_api_version));
            assert_eq!(head.correlation_id, expected.correlation_id);
            let client_id = head.client_id.map(|place| std::str::from_utf8(&frame[place]).unwrap());
            assert_eq!(client_id, expected.client_id.as_deref());
            assert_eq!(frame[head.body..], body);
            for end in 0..head.body {
                assert!(RequestHead::parse(&frame[..end], header_version).is_err());
            }
        }
    }
}

#[test]
fn what_members_tell_each_other_is_checked() {
    for seed in 0..CASES * 10 {
        let random = &mut Rng::with_seed(seed);
        let subscription = random_subscription(random);
        let version = check_subscription(&subscription).unwrap();
        let mut rest = Bytes::copy_from_slice(&subscription[2..]);
        let decoded = ConsumerProtocolSubscription::decode(&mut rest, version).unwrap();
        let mut again = version.to_be_bytes().to_vec();
        decoded.encode(&mut again, version).unwrap();
        assert_eq!(again, subscription);
        assert!((0..subscription.len()).all(|end| check_subscription(&subscription[..end]).is_err()));

        let assignment = random_assignment(random);
        let version = check_assignment(&assignment).unwrap();
        ConsumerProtocolAssignment::decode(&mut Bytes::copy_from_slice(&assignment[2..]), version).unwrap();
        assert!((0..assignment.len()).all(|end| check_assignment(&assignment[..end]).is_err()));
    }
    // No topics, no data, no partitions, generation -1, no rack, and what a later version adds.
    let newer = b"\x00\x09\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xffmore";
    assert_eq!(check_subscription(newer), Ok(3));
    assert!(check_subscription(b"\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff").is_err(), "a negative version");
}

#[test]
fn each_kind_of_malformed_field_is_told() {
    #[track_caller]
    fn check(api: ApiKey, version: i16, body: &[u8], expected: &str) {
        assert_eq!(check_request(api, version, body).unwrap_err().to_string(), expected);
    }
    use ApiKey::{DescribeGroups, DescribeTopicPartitions, Fetch, Heartbeat, Metadata, OffsetFetch};
    // A count whose elements would fill 160 GB.
    let expected = "`topics` at byte 0 claims 2147483647 elements, for which 2 bytes cannot suffice";
    check(Metadata, 1, b"\x7f\xff\xff\xff\x00\x00", expected);
    check(
        Metadata,
        9,
        b"\xff\xff\xff\xff\x0f\0",
        "`topics` at byte 0 claims 4294967294 elements, for which 1 bytes cannot suffice",
    );
    check(Metadata, 0, b"\xff\xff\xff\xff", "`topics` at byte 0 is null, which this version does not allow");
    check(Metadata, 1, b"\xff\xff\xff\xfe", "`topics` at byte 0 has a length of -2");
    check(Metadata, 1, b"\0\0\0\x01\xff\xff", "`name` at byte 4 is null, which this version does not allow");
    check(Metadata, 1, b"\0\0\0\x01\0\x02\xc3\x28", "`name` at byte 4 is not UTF-8");
    check(Metadata, 1, b"\0\0\0\x01\0\x09ab", "`name` at byte 6 needs 9 bytes, 2 are left");
    check(Metadata, 9, b"\x80\x80\x80\x80\x10\0", "`topics` at byte 0 begins with a varint of more than 32 bits");
    check(OffsetFetch, 1, b"\0\0\xff\xff\xff\xff", "`topics` at byte 2 is null, which this version does not allow");
    check(DescribeGroups, 0, b"\0\0\0\x01\xff\xff", "`groups` at byte 4 is null, which this version does not allow");
    check(DescribeTopicPartitions, 0, b"\x01\0\0\0\0\0\0", "`cursor` at byte 5 does not begin with 1 or -1");
    let heartbeat = b"\x02g\0\0\0\x01\x02m\0".to_vec();
    let with_tags = |tags: &[u8]| [&heartbeat, tags].concat();
    check(
        Heartbeat,
        4,
        &with_tags(b"\x02\x05\x00\x05\x00"),
        "tagged field 5 at byte 12 follows a tag that is not lower",
    );
    check(
        Heartbeat,
        4,
        &with_tags(b"\x02\x05\x00\x04\x00"),
        "tagged field 4 at byte 12 follows a tag that is not lower",
    );
    check(Heartbeat, 4, &with_tags(b"\x01\x05\x09"), "`tagged fields` at byte 10 needs 9 bytes, 0 are left");
    check(
        Heartbeat,
        4,
        &with_tags(b"\x7f\x05"),
        "`tagged fields` at byte 9 claims 127 elements, for which 1 bytes cannot suffice",
    );
    let fetch = |tail: &[u8]| [&[0; 25], tail].concat();
    // Wait, sizes, isolation level, session; topics, forgotten ones and rack are empty.
    let empty = b"\x01\x01\x01";
    check(
        Fetch,
        14,
        &fetch(&[&empty[..], b"\x01\x01\x00"].concat()),
        "tagged field 1 at byte 29 is not part of this version",
    );
    check(
        Fetch,
        14,
        &fetch(&[&empty[..], b"\x01\x00\x04\x02a\x00\x00"].concat()),
        "tagged field 0 at byte 29 holds 2 bytes, its size says 4",
    );
}

#[test]
fn the_elements_of_all_arrays_together_are_bounded() {
    // Two arrays of half as many partitions each are fine, one partition more is not.
    let body = |partitions: usize| {
        let mut body = vec![0, 0, 0, 0, 0, 2];
        for count in [MAX_ELEMENTS / 2, partitions] {
            body.extend_from_slice(b"\0\x01t");
            body.extend_from_slice(&(count as i32).to_be_bytes());
            body.resize(body.len() + count * 4, 0);
        }
        body
    };
    assert_eq!(check_request(ApiKey::OffsetFetch, 1, &body(MAX_ELEMENTS / 2 - 2)), Ok(()));
    let refused = check_request(ApiKey::OffsetFetch, 1, &body(MAX_ELEMENTS / 2 - 1));
    assert!(matches!(refused, Err(WireError::TooManyElements { field: "partition_indexes", .. })), "{refused:?}");
}

#[test]
fn metadata_of_a_hundred_thousand_topics_is_within_bounds() {
    let mut body = 100_000_i32.to_be_bytes().to_vec();
    for topic in 0..100_000 {
        let name = format!("topic-{topic:06}");
        body.extend_from_slice(&(name.len() as i16).to_be_bytes());
        body.extend_from_slice(name.as_bytes());
    }
    assert_eq!(check_request(ApiKey::Metadata, 1, &body), Ok(()));
}
