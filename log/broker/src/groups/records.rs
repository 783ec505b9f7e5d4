//! The records of `__consumer_offsets`, in Kafka's own schemas (OffsetCommitKey/Value, GroupMetadataKey/Value), so that
//! Kafka's tools can read them.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use logmill_protocol::{LeaderEpoch, Offset, Timestamp};

use crate::groups::offsets::CommittedOffset;
use crate::types::TopicPartition;
use crate::wire::{Fields, WireError, put_count, put_nullable_string, put_string};

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
/// What holds a time of expiry, which later versions do not.
const EXPIRING_OFFSET_VALUE_VERSION: i16 = 1;
const GROUP_VALUE_VERSION: i16 = 3;
/// The last version of either value that we read, and the first of the flexible ones (KIP-482).
const FLEXIBLE_VERSION: i16 = 4;

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

/// What the log keeps of a group's generation and members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMeta {
    /// What kind of group it is, such as `consumer`.
    pub protocol_type: Option<String>,
    /// Counts the generations.
    pub generation: i32,
    /// How partitions are assigned.
    pub protocol: Option<String>,
    /// Who assigns them.
    pub leader: Option<String>,
    /// When the group's state changed last.
    pub changed_at: Timestamp,
    /// The members by id.
    pub members: BTreeMap<String, MemberMeta>,
}

impl Default for GroupMeta {
    fn default() -> Self {
        let (protocol_type, protocol, leader, members) = (None, None, None, BTreeMap::new());
        Self { protocol_type, generation: 0, protocol, leader, changed_at: Timestamp::NONE, members }
    }
}

/// What the log keeps of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMeta {
    /// Its instance name.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// How long the others wait for it to rejoin.
    pub rebalance_timeout_ms: i32,
    /// It is expelled when not heard of for this long; `None` for those who live as long as the process.
    pub session_timeout_ms: Option<i32>,
    /// What it told the others under the generation's protocol.
    pub subscription: Bytes,
    /// What it is assigned.
    pub assignment: Bytes,
}

impl MemberMeta {
    /// A member of the engine's.
    pub(super) fn local(instance: &str) -> Self {
        Self {
            instance: Some(instance.to_owned()),
            client_id: instance.to_owned(),
            client_host: String::new(),
            rebalance_timeout_ms: -1,
            session_timeout_ms: None,
            subscription: Bytes::new(),
            assignment: Bytes::new(),
        }
    }
}

impl GroupRecord {
    /// The group it is about.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Offset { group, .. } | Self::Group { group, .. } => group,
        }
    }

    /// What it takes in the log, in about.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let value = match self {
            Self::Offset { value, .. } => value.as_ref().map_or(0, |value| value.metadata.len()),
            Self::Group { value, .. } => {
                let member = |member: &MemberMeta| 256 + member.subscription.len() + member.assignment.len();
                value.as_ref().map_or(0, |value| value.members.values().map(member).sum())
            }
        };
        128 + self.group().len() + value
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
            Self::Offset { value, .. } => put_offset(&mut out, value.as_ref()?),
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

fn put_offset(out: &mut Vec<u8>, value: &CommittedOffset) {
    let version = if value.expires_at.is_some() { EXPIRING_OFFSET_VALUE_VERSION } else { OFFSET_VALUE_VERSION };
    out.put_i16(version);
    out.put_i64(value.offset.0);
    if value.expires_at.is_none() {
        out.put_i32(value.leader_epoch.0);
    }
    put_string(out, &value.metadata);
    out.put_i64(value.committed_at.0);
    if let Some(expires_at) = value.expires_at {
        out.put_i64(expires_at.0);
    }
}

fn read_offset(value: &[u8]) -> Result<CommittedOffset, WireError> {
    let mut value = Fields(value);
    let version = value.i16("version")?;
    if !(0..=FLEXIBLE_VERSION).contains(&version) {
        return Err(WireError::Version(version));
    }
    let offset = Offset(value.i64("offset")?);
    let leader_epoch = if version >= 3 { LeaderEpoch(value.i32("leader epoch")?) } else { LeaderEpoch::NONE };
    let metadata = string(&mut value, version, "metadata")?;
    let committed_at = Timestamp(value.i64("commit timestamp")?);
    let expires_at = if version == 1 { Some(value.i64("expire timestamp")?) } else { None };
    // The tagged fields behind a flexible version add nothing that we need: the topic's id.
    let expires_at = expires_at.filter(|at| *at >= 0).map(Timestamp);
    Ok(CommittedOffset { offset, leader_epoch, metadata, committed_at, expires_at })
}

fn put_group(out: &mut Vec<u8>, group: &GroupMeta) {
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(out, group.protocol_type.as_deref().unwrap_or_default());
    out.put_i32(group.generation);
    put_nullable_string(out, group.protocol.as_deref());
    put_nullable_string(out, group.leader.as_deref());
    out.put_i64(group.changed_at.0);
    put_count(out, group.members.len());
    for (id, member) in &group.members {
        put_string(out, id);
        put_nullable_string(out, member.instance.as_deref());
        put_string(out, &member.client_id);
        put_string(out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms.unwrap_or(-1));
        for bytes in [&member.subscription, &member.assignment] {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

fn read_group(value: &[u8]) -> Result<GroupMeta, WireError> {
    let mut value = Fields(value);
    let version = value.i16("version")?;
    if !(0..=FLEXIBLE_VERSION).contains(&version) {
        return Err(WireError::Version(version));
    }
    let protocol_type = string(&mut value, version, "protocol type")?;
    let generation = value.i32("generation")?;
    let protocol = nullable_string(&mut value, version, "protocol")?;
    let leader = nullable_string(&mut value, version, "leader")?;
    let changed_at = if version >= 2 { Timestamp(value.i64("state timestamp")?) } else { Timestamp::NONE };
    let protocol_type = Some(protocol_type).filter(|protocol_type| !protocol_type.is_empty());
    let mut members = BTreeMap::new();
    let count = match version >= FLEXIBLE_VERSION {
        true => compact_len(&mut value, "members")?.unwrap_or(0),
        false => value.count("members")?,
    };
    for _ in 0..count {
        let (id, member) = read_member(&mut value, version)?;
        members.insert(id, member);
    }
    Ok(GroupMeta { protocol_type, generation, protocol, leader, changed_at, members })
}

fn read_member(value: &mut Fields<'_>, version: i16) -> Result<(String, MemberMeta), WireError> {
    let id = string(value, version, "member id")?;
    let instance = if version >= 3 { nullable_string(value, version, "instance")? } else { None };
    let client_id = string(value, version, "client id")?;
    let client_host = string(value, version, "client host")?;
    let rebalance_timeout_ms = if version >= 1 { Some(value.i32("rebalance timeout")?) } else { None };
    let session_timeout_ms = value.i32("session timeout")?;
    let subscription = bytes(value, version, "subscription")?;
    let assignment = bytes(value, version, "assignment")?;
    if version >= FLEXIBLE_VERSION {
        skip_tagged_fields(value)?;
    }
    let member = MemberMeta {
        instance,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
        session_timeout_ms: Some(session_timeout_ms).filter(|ms| *ms >= 0),
        subscription,
        assignment,
    };
    Ok((id, member))
}

fn string(value: &mut Fields<'_>, version: i16, name: &'static str) -> Result<String, WireError> {
    nullable_string(value, version, name)?.ok_or(WireError::Value(name))
}

fn nullable_string(value: &mut Fields<'_>, version: i16, name: &'static str) -> Result<Option<String>, WireError> {
    if version < FLEXIBLE_VERSION {
        return value.nullable_string(name);
    }
    let Some(len) = compact_len(value, name)? else { return Ok(None) };
    let text = std::str::from_utf8(take(value, len, name)?).map_err(|_| WireError::Value(name))?;
    Ok(Some(text.to_owned()))
}

/// Bytes; null counts as none.
fn bytes(value: &mut Fields<'_>, version: i16, name: &'static str) -> Result<Bytes, WireError> {
    let len = match version < FLEXIBLE_VERSION {
        true => usize::try_from(value.i32(name)?).unwrap_or(0),
        false => compact_len(value, name)?.unwrap_or(0),
    };
    take(value, len, name).map(Bytes::copy_from_slice)
}

fn take<'a>(value: &mut Fields<'a>, len: usize, name: &'static str) -> Result<&'a [u8], WireError> {
    let (taken, rest) = value.0.split_at_checked(len).ok_or(WireError::Short(name))?;
    value.0 = rest;
    Ok(taken)
}

/// The length before a field of a flexible version, or null. What follows takes a byte for each at least.
fn compact_len(value: &mut Fields<'_>, name: &'static str) -> Result<Option<usize>, WireError> {
    let len = varint(value, name)?.checked_sub(1);
    match len.is_some_and(|len| len > value.0.len()) {
        true => Err(WireError::Short(name)),
        false => Ok(len),
    }
}

fn varint(value: &mut Fields<'_>, name: &'static str) -> Result<usize, WireError> {
    let mut result = 0usize;
    for shift in (0..32).step_by(7) {
        let byte = value.i8(name)? as u8;
        result |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(result);
        }
    }
    Err(WireError::Value(name))
}

fn skip_tagged_fields(value: &mut Fields<'_>) -> Result<(), WireError> {
    for _ in 0..varint(value, "tagged fields")? {
        varint(value, "tag")?;
        let len = varint(value, "tagged field")?;
        take(value, len, "tagged field")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
