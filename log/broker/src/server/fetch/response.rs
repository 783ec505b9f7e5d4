//! A fetch response's bytes around what is sent from files.
//!
//! ```text
//!  head | topic | partition head | records: from the file | partition tail | partition head | …
//!  ^ chunk in memory               ^ chunk of a file        ^ chunk in memory
//! ```
//! The layout is that of Kafka's `FetchResponse.json`, versions 4 to 18; it turns flexible (KIP-482) in version 12.

use bytes::{BufMut, BytesMut};
use kafka_protocol::ResponseError;
use logmill_protocol::LeaderEpoch;

use crate::server::fetch::reading::{Found, SMALL_BYTES, Slot};
use crate::server::fetch::session::TopicKey;
use crate::server::reply::{Chunk, FileChunk, Reply};

/// Versions in which fields came.
const SESSION_VERSION: i16 = 7;
const LOG_START_VERSION: i16 = 5;
const PREFERRED_REPLICA_VERSION: i16 = 11;
const FLEXIBLE_VERSION: i16 = 12;
const TOPIC_ID_VERSION: i16 = 13;
const LEADER_VERSION: i16 = 16;

/// Most bytes of records that are read into a response; the rest is sent from files, however small its parts.
const MAX_INLINE_BYTES: usize = 1 << 20;
/// The replica to read from is this one.
const NO_PREFERRED_REPLICA: i32 = -1;
/// Room for what surrounds the records of one partition.
const PARTITION_BYTES: usize = 64;

/// The response to a session that cannot go on.
pub(super) fn refusal(version: i16, error_code: i16) -> Reply {
    encode(version, error_code, 0, &[], None)
}

/// Where the leader of every partition is: told to those who believe otherwise (KIP-951).
#[derive(Clone, Copy, Debug)]
pub(super) struct Leader<'a> {
    pub(super) id: i32,
    pub(super) epoch: LeaderEpoch,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) rack: Option<&'a str>,
}

/// The response with these partitions, in this order; those of a topic that follow one another share its name.
pub(super) fn response(version: i16, session_id: i32, slots: &[&Slot], leader: Leader<'_>) -> Reply {
    encode(version, 0, session_id, slots, Some(leader))
}

fn encode(version: i16, error_code: i16, session_id: i32, slots: &[&Slot], leader: Option<Leader<'_>>) -> Reply {
    let inline: usize = slots.iter().map(|slot| inline_len(slot)).sum();
    let capacity = PARTITION_BYTES * (slots.len() + 1) + inline.min(MAX_INLINE_BYTES);
    let out = BytesMut::with_capacity(capacity);
    let leader = leader.filter(|_| version >= LEADER_VERSION);
    let mut writer = Writer { version, leader, out, chunks: Vec::new(), inlined: 0 };
    writer.out.put_i32(0);
    if version >= SESSION_VERSION {
        writer.out.put_i16(error_code);
        writer.out.put_i32(session_id);
    }
    let topics: Vec<_> = slots.chunk_by(|a, b| a.wanted.topic == b.wanted.topic).collect();
    writer.array_len(topics.len());
    for partitions in topics {
        writer.topic(partitions);
    }
    let misled = |slot: &&Slot| slot.found.as_ref().is_err_and(|code| has_other_leader(*code));
    match leader.filter(|_| slots.iter().any(misled)) {
        Some(leader) => writer.endpoint(leader),
        None => writer.no_tags(),
    }
    writer.flush();
    Reply { chunks: writer.chunks }
}

/// Whether the error means that the client takes another for the leader.
fn has_other_leader(code: i16) -> bool {
    code == ResponseError::NotLeaderOrFollower.code() || code == ResponseError::FencedLeaderEpoch.code()
}

/// Bytes of the slot's records that may be read into the response.
fn inline_len(slot: &Slot) -> usize {
    let found = slot.found.as_ref().ok().and_then(|found| found.slice.as_ref());
    found.map_or(0, |slice| slice.len()).min(SMALL_BYTES)
}

struct Writer<'a> {
    version: i16,
    /// Who leads, if the version can tell.
    leader: Option<Leader<'a>>,
    out: BytesMut,
    chunks: Vec<Chunk>,
    /// Bytes of records read into the response so far.
    inlined: usize,
}

impl<'a> Writer<'a> {
    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_VERSION
    }

    fn topic(&mut self, partitions: &[&Slot]) {
        let Some(first) = partitions.first() else { return };
        match &first.wanted.topic {
            TopicKey::Id(id) if self.version >= TOPIC_ID_VERSION => self.out.put_slice(id.as_bytes()),
            TopicKey::Id(_) => self.string(""),
            TopicKey::Name(name) => self.string(name),
        }
        self.array_len(partitions.len());
        for slot in partitions {
            self.partition(slot);
        }
        self.no_tags();
    }

    fn partition(&mut self, slot: &Slot) {
        let index = slot.wanted.partition;
        match &slot.found {
            Ok(found) => self.found(index, found),
            Err(code) => self.error(index, *code),
        }
    }

    fn found(&mut self, index: i32, found: &Found) {
        let begin = self.out.len();
        self.marks(index, 0, found.high_watermark, found.last_stable_offset, found.log_start);
        match &found.aborted {
            None => self.null_array(),
            Some(aborted) => {
                self.array_len(aborted.len());
                for (producer_id, first_offset) in aborted {
                    self.out.put_i64(producer_id.0);
                    self.out.put_i64(first_offset.0);
                    self.no_tags();
                }
            }
        }
        self.preferred_replica();
        if let Some(slice) = &found.slice {
            let len = slice.len();
            self.bytes_len(len);
            if len <= SMALL_BYTES && self.inlined + len <= MAX_INLINE_BYTES {
                let at = self.out.len();
                self.out.put_bytes(0, len);
                let read = self.out.get_mut(at..).map_or(Ok(()), |room| slice.read_into(room));
                if let Err(error) = read {
                    tracing::error!(%error, "cannot read");
                    self.out.truncate(begin);
                    return self.error(index, ResponseError::KafkaStorageError.code());
                }
                self.inlined += len;
            } else {
                self.flush();
                self.chunks.push(Chunk::File(FileChunk::new(slice.clone())));
            }
        } else {
            self.bytes_len(0);
        }
        match found.diverging {
            Some((epoch, end)) if self.is_flexible() => {
                // One tag, 0, of 13 bytes: a structure without tags of its own.
                self.out.put_slice(&[1, 0, 13]);
                self.out.put_i32(epoch.0);
                self.out.put_i64(end.0);
                self.out.put_u8(0);
            }
            _ => self.no_tags(),
        }
    }

    fn error(&mut self, index: i32, code: i16) {
        self.marks(index, code, -1, -1, -1);
        self.null_array();
        self.preferred_replica();
        self.bytes_len(0);
        match self.leader.filter(|_| has_other_leader(code)) {
            Some(leader) => {
                // One tag, 1, of 9 bytes: a structure without tags of its own.
                self.out.put_slice(&[1, 1, 9]);
                self.out.put_i32(leader.id);
                self.out.put_i32(leader.epoch.0);
                self.out.put_u8(0);
            }
            None => self.no_tags(),
        }
    }

    /// The response's last tags: where the leader is.
    fn endpoint(&mut self, leader: Leader<'a>) {
        let before = std::mem::take(&mut self.out);
        self.array_len(1);
        self.out.put_i32(leader.id);
        self.string(leader.host);
        self.out.put_i32(leader.port.into());
        match leader.rack {
            Some(rack) => self.string(rack),
            None => self.out.put_u8(0),
        }
        self.no_tags();
        let endpoints = std::mem::replace(&mut self.out, before);
        // One tag, 0.
        self.out.put_slice(&[1, 0]);
        self.varint(endpoints.len());
        self.out.put_slice(&endpoints);
    }

    fn marks(&mut self, index: i32, code: i16, high_watermark: i64, last_stable_offset: i64, log_start: i64) {
        self.out.put_i32(index);
        self.out.put_i16(code);
        self.out.put_i64(high_watermark);
        self.out.put_i64(last_stable_offset);
        if self.version >= LOG_START_VERSION {
            self.out.put_i64(log_start);
        }
    }

    fn preferred_replica(&mut self) {
        if self.version >= PREFERRED_REPLICA_VERSION {
            self.out.put_i32(NO_PREFERRED_REPLICA);
        }
    }

    fn string(&mut self, text: &str) {
        if self.is_flexible() {
            self.varint(text.len() + 1);
            return self.out.put_slice(text.as_bytes());
        }
        // A session may have been begun in a version whose names have no bound. No topic has such a name.
        let text = text.get(..text.floor_char_boundary(i16::MAX as usize)).unwrap_or_default();
        self.out.put_i16(text.len() as i16);
        self.out.put_slice(text.as_bytes());
    }

    fn array_len(&mut self, len: usize) {
        self.bytes_len(len);
    }

    fn bytes_len(&mut self, len: usize) {
        match self.is_flexible() {
            true => self.varint(len + 1),
            false => self.out.put_i32(i32::try_from(len).unwrap_or(i32::MAX)),
        }
    }

    fn null_array(&mut self) {
        match self.is_flexible() {
            true => self.out.put_u8(0),
            false => self.out.put_i32(-1),
        }
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.out.put_u8(0);
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    /// Ends the chunk in memory.
    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.chunks.push(Chunk::Bytes(self.out.split().freeze()));
        }
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
