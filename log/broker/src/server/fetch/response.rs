//! A fetch response's bytes around what is sent from files.
//!
//! ```text
//!  head | topic | partition head | records: from the file | partition tail | partition head | …
//!  ^ chunk in memory               ^ chunk of a file        ^ chunk in memory
//! ```
//! The layout is that of Kafka's `FetchResponse.json`, versions 4 to 18; it turns flexible (KIP-482) in version 12.

use bytes::{BufMut, BytesMut};

use crate::server::fetch::reading::{Found, SMALL_BYTES, Slot};
use crate::server::fetch::session::TopicKey;
use crate::server::reply::{Chunk, FileChunk, Reply};

/// Versions in which fields came.
const SESSION_VERSION: i16 = 7;
const LOG_START_VERSION: i16 = 5;
const PREFERRED_REPLICA_VERSION: i16 = 11;
const FLEXIBLE_VERSION: i16 = 12;
const TOPIC_ID_VERSION: i16 = 13;

/// Most bytes of records that are read into a response; the rest is sent from files, however small its parts.
const MAX_INLINE_BYTES: usize = 1 << 20;
const KAFKA_STORAGE_ERROR: i16 = 56;
/// The replica to read from is this one.
const NO_PREFERRED_REPLICA: i32 = -1;
/// Room for what surrounds the records of one partition.
const PARTITION_BYTES: usize = 64;

/// The response to a session that cannot go on.
pub(super) fn refusal(version: i16, error_code: i16) -> Reply {
    encode(version, error_code, 0, &[])
}

/// The response with these partitions, in this order; those of a topic that follow one another share its name.
pub(super) fn response(version: i16, session_id: i32, slots: &[&Slot]) -> Reply {
    encode(version, 0, session_id, slots)
}

fn encode(version: i16, error_code: i16, session_id: i32, slots: &[&Slot]) -> Reply {
    let inline: usize = slots.iter().map(|slot| inline_len(slot)).sum();
    let capacity = PARTITION_BYTES * (slots.len() + 1) + inline.min(MAX_INLINE_BYTES);
    let mut writer = Writer { version, out: BytesMut::with_capacity(capacity), chunks: Vec::new(), inlined: 0 };
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
    writer.no_tags();
    writer.flush();
    Reply { chunks: writer.chunks }
}

/// Bytes of the slot's records that may be read into the response.
fn inline_len(slot: &Slot) -> usize {
    let found = slot.found.as_ref().ok().and_then(|found| found.slice.as_ref());
    found.map_or(0, |slice| slice.len()).min(SMALL_BYTES)
}

struct Writer {
    version: i16,
    out: BytesMut,
    chunks: Vec<Chunk>,
    /// Bytes of records read into the response so far.
    inlined: usize,
}

impl Writer {
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
                    return self.error(index, KAFKA_STORAGE_ERROR);
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
        self.no_tags();
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
        match self.is_flexible() {
            true => self.varint(text.len() + 1),
            // Topic names are short.
            false => self.out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX)),
        }
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use bytes::Bytes;
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
    };
    use kafka_protocol::messages::{BrokerId, FetchResponse, TopicName};
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use logmill_protocol::{BatchBuilder, BatchOptions, LeaderEpoch, Offset, ProducerId, Timestamp};
    use logmill_storage::{LogConfig, LogSlice, PartitionLog, SliceRequest, Sliced};
    use uuid::Uuid;

    use super::*;

    /// A slice that holds one batch with a value of so many bytes.
    fn slice(dir: &std::path::Path, len: usize) -> LogSlice {
        let (log, _) = PartitionLog::open(&dir.join(format!("t-1-{len}")).join("0"), LogConfig::default()).unwrap();
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(Timestamp(1), None, Some(&vec![7; len]), &[]).unwrap();
        log.append(&mut batch.finish().unwrap().to_vec(), LeaderEpoch(0), Timestamp(1)).unwrap();
        let request =
            SliceRequest { from: Offset(0), up_to: Offset(1), max_bytes: 1, first_whole: true, may_wait: true };
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
        let data =
            PartitionData::default().with_partition_index(slot.wanted.partition).with_records(Some(Bytes::new()));
        let found = match &slot.found {
            Ok(found) => found,
            Err(code) => {
                return data.with_error_code(*code).with_high_watermark(-1).with_aborted_transactions(None);
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
            ("first", vec![Ok(found(None)), Ok(found(Some(small.clone()))), Err(3)]),
            ("second", vec![Ok(found(Some(large.clone()))), Ok(found(Some(large))), Ok(found(None))]),
            (
                "third",
                vec![
                    Ok(Found { aborted, ..found(Some(small)) }),
                    Ok(Found { aborted: Some(Vec::new()), ..found(None) }),
                ],
            ),
            ("first", vec![Ok(Found { diverging: Some((LeaderEpoch(2), Offset(77))), ..found(None) })]),
        ];
        for version in 4..=18 {
            let key = |name: &str| match version >= TOPIC_ID_VERSION {
                true => TopicKey::Id(Uuid::from_u128(name.bytes().map(u128::from).sum())),
                false => TopicKey::Name(Arc::from(name)),
            };
            let mut slots = Vec::new();
            let mut topics = Vec::new();
            for (name, founds) in &kinds {
                let of_topic: Vec<Slot> =
                    (0..).zip(founds).map(|(n, found)| Slot::of(key(name), n, copy(found))).collect();
                let topic = FetchableTopicResponse::default()
                    .with_partitions(of_topic.iter().map(|slot| data(version, slot)).collect());
                topics.push(match key(name) {
                    TopicKey::Id(id) => topic.with_topic_id(id),
                    TopicKey::Name(_) => topic.with_topic(TopicName(StrBytes::from_string((*name).to_owned()))),
                });
                slots.extend(of_topic);
            }
            let session = if version >= SESSION_VERSION { 77 } else { 0 };
            let expected = FetchResponse::default().with_session_id(session).with_responses(topics);
            let mut encoded = BytesMut::new();
            expected.encode(&mut encoded, version).unwrap();
            let reply = response(version, session, &slots.iter().collect::<Vec<_>>());
            assert!(bytes(&reply) == encoded, "version {version}");
            assert_eq!(reply.chunks.len(), 5, "two large slices stay in their files");
            assert!(bytes(&response(version, session, &[])).len() < 20);
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
}
