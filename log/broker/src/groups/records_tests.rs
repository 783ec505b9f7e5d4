//! Records byte for byte: as Kafka writes them, of every version that there has been, and any that there has not.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn offset_record(value: CommittedOffset) -> GroupRecord {
    GroupRecord::Offset { group: "g".into(), partition: TopicPartition::new("t", 2), value: Some(value) }
}

#[test]
fn an_offset_is_written_as_kafka_writes_it() {
    let plain = CommittedOffset::new(Offset(7), Timestamp(9));
    let record = offset_record(plain.clone());
    assert_eq!(record.key(), b"\0\x01\0\x01g\0\x01t\0\0\0\x02");
    let value = b"\0\x03\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x09";
    assert_eq!(record.value().unwrap(), value);

    let full = CommittedOffset { leader_epoch: LeaderEpoch(5), metadata: "m".into(), ..plain.clone() };
    let value = b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x09";
    assert_eq!(offset_record(full).value().unwrap(), value);

    let expiring = CommittedOffset { expires_at: Some(Timestamp(11)), ..plain };
    let value = b"\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x0b";
    assert_eq!(offset_record(expiring).value().unwrap(), value);
}

#[test]
fn offsets_of_every_version_are_read() {
    let check = |value: &[u8], expected: CommittedOffset| {
        let key = b"\0\0\0\x01g\0\x01t\0\0\0\x02";
        assert_eq!(GroupRecord::decode(key, Some(value)).unwrap(), Some(offset_record(expected)));
    };
    let plain = CommittedOffset::new(Offset(7), Timestamp(9));
    check(b"\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\x09", plain.clone());
    let expiring = CommittedOffset { expires_at: Some(Timestamp(1)), ..plain.clone() };
    check(b"\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01", expiring);
    check(
        b"\0\x02\0\0\0\0\0\0\0\x07\0\x01m\0\0\0\0\0\0\0\x09",
        CommittedOffset { metadata: "m".into(), ..plain.clone() },
    );
    let epoch = CommittedOffset { leader_epoch: LeaderEpoch(3), metadata: "m".into(), ..plain };
    check(b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x03\0\x01m\0\0\0\0\0\0\0\x09", epoch.clone());
    // Version 4: compact text, and the topic's id as a tagged field.
    let flexible = b"\0\x04\0\0\0\0\0\0\0\x07\0\0\0\x03\x02m\0\0\0\0\0\0\0\x09\x01\0\x100123456789abcdef";
    check(flexible, epoch);
}

fn group_record(value: GroupMeta) -> GroupRecord {
    GroupRecord::Group { group: "g".into(), value: Some(value) }
}

fn consumer() -> GroupMeta {
    let member = MemberMeta {
        instance: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 300,
        session_timeout_ms: Some(10),
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"as"),
    };
    GroupMeta {
        protocol_type: Some("consumer".into()),
        generation: 4,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        changed_at: Timestamp(9),
        members: BTreeMap::from([("m".to_owned(), member)]),
    }
}

#[test]
fn a_group_is_written_as_kafka_writes_it() {
    let record = group_record(consumer());
    assert_eq!(record.key(), b"\0\x02\0\x01g");
    let value = b"\0\x03\0\x08consumer\0\0\0\x04\0\x05range\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\x01\
        \0\x01m\xff\xff\0\x01c\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as";
    assert_eq!(record.value().unwrap(), value);

    let empty = GroupMeta { protocol: None, leader: None, members: BTreeMap::new(), ..consumer() };
    let value = b"\0\x03\0\x08consumer\0\0\0\x04\xff\xff\xff\xff\0\0\0\0\0\0\0\x09\0\0\0\0";
    assert_eq!(group_record(empty).value().unwrap(), value);
}

#[test]
fn groups_of_every_version_are_read() {
    let check = |value: &[u8], expected: GroupMeta| {
        assert_eq!(GroupRecord::decode(b"\0\x02\0\x01g", Some(value)).unwrap(), Some(group_record(expected)));
    };
    let with = |changed_at: Timestamp, rebalance_timeout_ms: i32| {
        let mut group = GroupMeta { changed_at, ..consumer() };
        group.members.values_mut().for_each(|member| member.rebalance_timeout_ms = rebalance_timeout_ms);
        group
    };
    check(
        b"\0\0\0\x08consumer\0\0\0\x04\0\x05range\0\x01m\0\0\0\x01\
          \0\x01m\0\x01c\0\x02/h\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as",
        with(Timestamp::NONE, 10),
    );
    check(
        b"\0\x01\0\x08consumer\0\0\0\x04\0\x05range\0\x01m\0\0\0\x01\
          \0\x01m\0\x01c\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as",
        with(Timestamp::NONE, 300),
    );
    check(
        b"\0\x02\0\x08consumer\0\0\0\x04\0\x05range\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\x01\
          \0\x01m\0\x01c\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as",
        consumer(),
    );
    // Version 4: compact fields, and a tagged field that nobody knows.
    check(
        b"\0\x04\x09consumer\0\0\0\x04\x06range\x02m\0\0\0\0\0\0\0\x09\x02\
          \x02m\0\x02c\x03/h\0\0\x01\x2c\0\0\0\x0a\x04sub\x03as\x01\x07\x02xx\0",
        consumer(),
    );
}

#[test]
fn a_member_that_an_earlier_version_of_ours_wrote_is_the_engines() {
    let value = b"\0\x03\0\x08consumer\0\0\0\x02\xff\xff\0\x03w-1\0\0\0\0\0\0\0\x09\0\0\0\x01\
        \0\x03w-1\0\x01w\0\x03w-1\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
    let record = GroupRecord::decode(b"\0\x02\0\x01g", Some(value)).unwrap().unwrap();
    let GroupRecord::Group { value: Some(meta), .. } = record else { unreachable!() };
    assert_eq!(meta.members.get("w-1").unwrap().session_timeout_ms, None);
    assert_eq!(meta.members.get("w-1").unwrap().instance.as_deref(), Some("w"));
}

fn member() -> impl Strategy<Value = MemberMeta> {
    let text = || "[a-zé/]{0,4}";
    let bytes = || prop::collection::vec(any::<u8>(), 0..5).prop_map(Bytes::from);
    let session = prop::option::of(0..i32::MAX);
    (prop::option::of(text()), text(), text(), any::<i32>(), session, bytes(), bytes()).prop_map(
        |(instance, client_id, client_host, rebalance_timeout_ms, session_timeout_ms, subscription, assignment)| {
            MemberMeta {
                instance,
                client_id,
                client_host,
                rebalance_timeout_ms,
                session_timeout_ms,
                subscription,
                assignment,
            }
        },
    )
}

fn record() -> impl Strategy<Value = GroupRecord> {
    let expires_at = prop::option::of((0..i64::MAX).prop_map(Timestamp));
    let offset = (any::<i64>(), any::<i32>(), "[a-zé]{0,9}", any::<i64>(), expires_at).prop_map(
        |(offset, epoch, metadata, at, expires_at)| CommittedOffset {
            offset: Offset(offset),
            // What expires is written in a version that has no room for it.
            leader_epoch: if expires_at.is_some() { LeaderEpoch::NONE } else { LeaderEpoch(epoch) },
            metadata,
            committed_at: Timestamp(at),
            expires_at,
        },
    );
    let name = || prop::option::of("[a-zé]{1,9}");
    let members = prop::collection::btree_map("[a-z]{1,4}", member(), 0..3);
    let group = (any::<i32>(), any::<i64>(), name(), name(), name(), members).prop_map(
        |(generation, at, protocol_type, protocol, leader, members)| GroupMeta {
            protocol_type,
            generation,
            protocol,
            leader,
            changed_at: Timestamp(at),
            members,
        },
    );
    prop_oneof![
        ("[a-zé]{0,9}", "[a-z]{1,9}", any::<i32>(), prop::option::of(offset)).prop_map(|(group, t, p, value)| {
            GroupRecord::Offset { group, partition: TopicPartition::new(t, p), value }
        }),
        ("[a-z]{1,9}", prop::option::of(group)).prop_map(|(group, value)| GroupRecord::Group { group, value }),
    ]
}

proptest! {
    #[test]
    fn records_survive_the_round_trip(record in record()) {
        let value = record.value();
        prop_assert_eq!(GroupRecord::decode(&record.key(), value.as_deref()).unwrap(), Some(record));
    }

    #[test]
    fn any_bytes_are_read_or_refused(key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), kind in 0..3u8, version in 0..5u8) {
        let key = [&[0, kind][..], &key].concat();
        let value = [&[0, version][..], &value].concat();
        let _ = GroupRecord::decode(&key, Some(&value));
    }
}
