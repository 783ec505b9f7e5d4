//! The records of `__consumer_offsets`, in Kafka's own schemas (OffsetCommitKey/Value, GroupMetadataKey/Value), so that
//! Kafka's tools can read them.

use bytes::BufMut;
use logmill_protocol::{Offset, Timestamp};

use crate::groups::state::{CommittedOffset, GroupMeta, Member};
use crate::types::TopicPartition;
use crate::wire::{Fields, WireError, put_count, put_nullable_string, put_string};

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;
/// What Kafka calls the protocol type of ordinary consumers.
const PROTOCOL_TYPE: &str = "consumer";

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupKey {
    /// A group's committed offset of a partition.
    Offset {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
    },
    /// A group's generation and members.
    Group(String),
}

/// A change of a group. `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The partition.
        partition: TopicPartition,
        /// The offset.
        value: Option<CommittedOffset>,
    },
    /// Generation and members.
    Group {
        /// The group.
        group: String,
        /// What it is now.
        value: Option<GroupMeta>,
    },
}

impl GroupRecord {
    /// The group it is about.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Offset { group, .. } | Self::Group { group, .. } => group,
        }
    }

    /// The record's key.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Offset { group, partition, .. } => {
                out.put_i16(OFFSET_KEY_VERSION);
                put_string(&mut out, group);
                put_string(&mut out, &partition.topic);
                out.put_i32(partition.partition);
            }
            Self::Group { group, .. } => {
                out.put_i16(GROUP_KEY_VERSION);
                put_string(&mut out, group);
            }
        }
        out
    }

    /// The record's value; `None` is a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Offset { value, .. } => {
                let value = value.as_ref()?;
                out.put_i16(OFFSET_VALUE_VERSION);
                out.put_i64(value.offset.0);
                out.put_i32(-1);
                put_string(&mut out, "");
                out.put_i64(value.committed_at.0);
            }
            Self::Group { value, .. } => put_group(&mut out, value.as_ref()?),
        }
        Some(out)
    }

    /// Reads a record of the topic; `None` for kinds of records that concern other versions only.
    pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, WireError> {
        let mut key = Fields(key);
        match key.i16("version")? {
            0 | OFFSET_KEY_VERSION => {
                let group = key.string("group")?;
                let partition = TopicPartition::new(key.string("topic")?, key.i32("partition")?);
                let value = value.map(read_offset).transpose()?;
                Ok(Some(Self::Offset { group, partition, value }))
            }
            GROUP_KEY_VERSION => {
                let group = key.string("group")?;
                let value = value.map(read_group).transpose()?;
                Ok(Some(Self::Group { group, value }))
            }
            _ => Ok(None),
        }
    }
}

fn read_offset(value: &[u8]) -> Result<CommittedOffset, WireError> {
    let mut value = Fields(value);
    let version = value.i16("version")?;
    if !(0..=OFFSET_VALUE_VERSION).contains(&version) {
        return Err(WireError::Version(version));
    }
    let offset = Offset(value.i64("offset")?);
    if version == 3 {
        value.i32("leader epoch")?;
    }
    value.string("metadata")?;
    Ok(CommittedOffset { offset, committed_at: Timestamp(value.i64("commit timestamp")?) })
}

fn put_group(out: &mut Vec<u8>, group: &GroupMeta) {
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(out, PROTOCOL_TYPE);
    out.put_i32(group.generation);
    put_nullable_string(out, None);
    put_nullable_string(out, group.members.keys().next().map(String::as_str));
    out.put_i64(group.changed_at.0);
    put_count(out, group.members.len());
    for (id, member) in &group.members {
        put_string(out, id);
        put_nullable_string(out, member.instance.as_deref());
        put_string(out, id);
        put_string(out, "");
        let session = member.session_timeout_ms.map_or(-1, |ms| i32::try_from(ms).unwrap_or(i32::MAX));
        out.put_i32(session);
        out.put_i32(session);
        out.put_i32(0);
        out.put_i32(0);
    }
}

fn read_group(value: &[u8]) -> Result<GroupMeta, WireError> {
    let mut value = Fields(value);
    let version = value.i16("version")?;
    if !(0..=GROUP_VALUE_VERSION).contains(&version) {
        return Err(WireError::Version(version));
    }
    value.string("protocol type")?;
    let generation = value.i32("generation")?;
    value.nullable_string("protocol")?;
    value.nullable_string("leader")?;
    let changed_at = if version >= 2 { Timestamp(value.i64("state timestamp")?) } else { Timestamp::NONE };
    let mut group = GroupMeta { generation, changed_at, ..GroupMeta::default() };
    for _ in 0..value.count("members")? {
        let id = value.string("member id")?;
        let instance = if version >= 3 { value.nullable_string("instance")? } else { None };
        value.string("client id")?;
        value.string("client host")?;
        if version >= 1 {
            value.i32("rebalance timeout")?;
        }
        let session_timeout_ms = u64::try_from(value.i32("session timeout")?).ok();
        value.skip_bytes("subscription")?;
        value.skip_bytes("assignment")?;
        group.members.insert(id, Member { instance, session_timeout_ms, heard_at: changed_at });
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_offset_is_written_as_kafka_writes_it() {
        let record = GroupRecord::Offset {
            group: "g".into(),
            partition: TopicPartition::new("t", 2),
            value: Some(CommittedOffset { offset: Offset(7), committed_at: Timestamp(9) }),
        };
        assert_eq!(record.key(), b"\0\x01\0\x01g\0\x01t\0\0\0\x02");
        let value = b"\0\x03\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x09";
        assert_eq!(record.value().unwrap(), value);
    }

    #[test]
    fn an_offset_of_an_older_version_is_read() {
        let key = b"\0\0\0\x01g\0\x01t\0\0\0\x02";
        let value = b"\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01";
        let Some(GroupRecord::Offset { value: Some(value), .. }) = GroupRecord::decode(key, Some(value)).unwrap()
        else {
            unreachable!()
        };
        assert_eq!(value, CommittedOffset { offset: Offset(7), committed_at: Timestamp(9) });
    }

    fn record() -> impl Strategy<Value = GroupRecord> {
        let offset = (any::<i64>(), any::<i64>())
            .prop_map(|(o, t)| CommittedOffset { offset: Offset(o), committed_at: Timestamp(t) });
        let member = (prop::option::of("[a-z]{0,4}"), prop::option::of(0..100_000u64));
        let members = prop::collection::btree_map("[a-z]{1,4}", member, 0..3);
        let group = (any::<i32>(), any::<i64>(), members).prop_map(|(generation, at, members)| {
            let changed_at = Timestamp(at);
            let members: BTreeMap<_, _> = members
                .into_iter()
                .map(|(id, (instance, session_timeout_ms))| {
                    (id, Member { instance, session_timeout_ms, heard_at: changed_at })
                })
                .collect();
            GroupMeta { generation, changed_at, members }
        });
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
        fn any_bytes_are_read_or_refused(key in any::<Vec<u8>>(), value in any::<Vec<u8>>(), kind in 0..3u8) {
            let key = [&[0, kind][..], &key].concat();
            let _ = GroupRecord::decode(&key, Some(&value));
        }
    }
}
