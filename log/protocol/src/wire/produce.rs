//! Reads a Produce request where it lies, so that its batches can be patched and appended without a copy.

use std::ops::Range;

use uuid::Uuid;

use crate::wire::WireError;
use crate::wire::reader::Reader;

/// A Produce request of version 3 to 13, as places within its body.
///
/// Nothing is borrowed, so the caller may patch the batches in the frame while it holds this:
///
/// ```
/// use logmill_protocol::wire::{ProduceRequest, TopicRef};
///
/// # let body = b"\xff\xff\x00\x01\x00\x00\x03\xe8\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\
/// #     \x00\x00\x00\x07\x00\x00\x00\x02hi".to_vec();
/// let mut body: Vec<u8> = body; // the frame after its header
/// let request = ProduceRequest::parse(3, &body)?;
/// for topic in &request.topics {
///     assert_eq!(topic.topic.name(&body), Some("t"));
///     for partition in request.partitions_of(topic) {
///         assert_eq!(partition.index, 7);
///         let Some(records) = partition.records.clone() else { continue };
///         let batches: &mut [u8] = &mut body[records]; // validate, patch, append
///         assert_eq!(batches, b"hi");
///     }
/// }
/// # Ok::<(), logmill_protocol::wire::WireError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Where the transactional id lies; `None` is null.
    pub transactional_id: Option<Range<usize>>,
    /// How many replicas have to have it before it is answered: 0 (no answer), 1 or -1 (all in sync). Unchecked.
    pub acks: i16,
    /// How long to wait for them, in milliseconds. Unchecked.
    pub timeout_ms: i32,
    /// The topics, in the order of the request.
    pub topics: Vec<ProduceTopic>,
    /// The partitions of all topics, one topic after another.
    partitions: Vec<ProducePartition>,
}

/// The part of a [`ProduceRequest`] for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceTopic {
    /// Which topic.
    pub topic: TopicRef,
    partitions: Range<usize>,
}

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRef {
    /// By name, which lies here in the body, as UTF-8 (up to version 12).
    Name(Range<usize>),
    /// By id (from version 13, KIP-516).
    Id(Uuid),
}

/// The part of a [`ProduceRequest`] for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// Number of the partition. Unchecked.
    pub index: i32,
    /// Where the record batches lie in the body, unchecked; `None` is null.
    pub records: Option<Range<usize>>,
}

impl TopicRef {
    /// The name, if the topic is named so. `body` is what was parsed.
    #[must_use]
    pub fn name<'a>(&self, body: &'a [u8]) -> Option<&'a str> {
        match self {
            Self::Name(place) => text(body, place),
            Self::Id(_) => None,
        }
    }
}

fn text<'a>(body: &'a [u8], place: &Range<usize>) -> Option<&'a str> {
    std::str::from_utf8(body.get(place.clone())?).ok()
}

impl ProduceRequest {
    /// Finds the parts of a Produce request in its body, which is the frame after the request header. Looks at no
    /// record.
    ///
    /// # Errors
    /// [`WireError::UnknownVersion`] outside 3 to 13, otherwise what is malformed.
    pub fn parse(version: i16, body: &[u8]) -> Result<Self, WireError> {
        if !(3..=13).contains(&version) {
            return Err(WireError::UnknownVersion { api_key: 0, version });
        }
        let flexible = version >= 9;
        let mut reader = Reader::new(body);
        let mut request = Self {
            transactional_id: reader.string("transactional_id", flexible)?,
            acks: reader.i16("acks")?,
            timeout_ms: reader.i32("timeout_ms")?,
            topics: Vec::new(),
            partitions: Vec::new(),
        };
        // A topic takes a name's length or an id, a count, and from version 9 its tags.
        let min_bytes = if version >= 13 {
            18
        } else if flexible {
            3
        } else {
            6
        };
        let count = array(&mut reader, "topic_data", flexible, min_bytes)?;
        request.topics.reserve_exact(count);
        for _ in 0..count {
            request.topic(&mut reader, version)?;
        }
        if flexible {
            reader.skip_tags()?;
        }
        Ok(request)
    }

    fn topic(&mut self, reader: &mut Reader<'_>, version: i16) -> Result<(), WireError> {
        let flexible = version >= 9;
        let topic = if version >= 13 {
            TopicRef::Id(reader.uuid("topic_id")?)
        } else {
            let at = reader.at();
            TopicRef::Name(reader.string("name", flexible)?.ok_or(WireError::Null { field: "name", at })?)
        };
        // A partition takes its index, a length, and from version 9 its tags.
        let count = array(reader, "partition_data", flexible, if flexible { 6 } else { 8 })?;
        let begin = self.partitions.len();
        self.partitions.reserve(count);
        for _ in 0..count {
            let index = reader.i32("index")?;
            let records = reader.bytes("records", flexible)?;
            if flexible {
                reader.skip_tags()?;
            }
            self.partitions.push(ProducePartition { index, records });
        }
        if flexible {
            reader.skip_tags()?;
        }
        self.topics.push(ProduceTopic { topic, partitions: begin..self.partitions.len() });
        Ok(())
    }

    /// The transactional id. `body` is what was parsed.
    #[must_use]
    pub fn transactional_id<'a>(&self, body: &'a [u8]) -> Option<&'a str> {
        text(body, self.transactional_id.as_ref()?)
    }

    /// The partitions of one of this request's topics, in the order of the request.
    #[must_use]
    pub fn partitions_of(&self, topic: &ProduceTopic) -> &[ProducePartition] {
        self.partitions.get(topic.partitions.clone()).unwrap_or_default()
    }

    /// The partitions of all topics.
    #[must_use]
    pub fn partitions(&self) -> &[ProducePartition] {
        &self.partitions
    }
}

/// The count of an array that is never null.
fn array(reader: &mut Reader<'_>, field: &'static str, compact: bool, min_bytes: usize) -> Result<usize, WireError> {
    let at = reader.at();
    reader.count(field, compact, min_bytes)?.ok_or(WireError::Null { field, at })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{self, TopicName, TransactionalId};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    type Topic = (String, Uuid, Vec<(i32, Option<Bytes>)>);

    fn topics() -> Vec<Topic> {
        let records = |bytes: &'static str| Some(Bytes::from_static(bytes.as_bytes()));
        vec![
            ("flights".to_owned(), Uuid::from_u128(7), vec![(0, records("abc")), (-1, None), (7, records(""))]),
            (String::new(), Uuid::nil(), Vec::new()),
            ("größe".to_owned(), Uuid::from_u128(9), vec![(3, records("xyz"))]),
        ]
    }

    fn encode(version: i16, transactional_id: Option<&'static str>, topics: &[Topic]) -> Vec<u8> {
        let topic_data = topics.iter().map(|(name, id, partitions)| {
            let partition = |(index, records): &(i32, Option<Bytes>)| {
                PartitionProduceData::default().with_index(*index).with_records(records.clone())
            };
            let data = TopicProduceData::default().with_partition_data(partitions.iter().map(partition).collect());
            match version {
                ..13 => data.with_name(TopicName(StrBytes::from_string(name.clone()))),
                _ => data.with_topic_id(*id),
            }
        });
        let request = messages::ProduceRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(StrBytes::from_static_str(id))))
            .with_acks(-1)
            .with_timeout_ms(1500)
            .with_topic_data(topic_data.collect());
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        body.to_vec()
    }

    #[test]
    fn every_part_of_a_request_is_found_in_every_version() {
        for version in 3..=13 {
            for transactional_id in [None, Some("tx")] {
                let body = encode(version, transactional_id, &topics());
                let request = ProduceRequest::parse(version, &body).unwrap();
                assert_eq!((request.acks, request.timeout_ms), (-1, 1500));
                assert_eq!(request.transactional_id(&body), transactional_id);
                assert_eq!(request.topics.len(), topics().len());
                for (found, (name, id, partitions)) in request.topics.iter().zip(topics()) {
                    match &found.topic {
                        TopicRef::Id(found) => assert_eq!((version, *found), (13, id)),
                        named => assert_eq!(named.name(&body), Some(&*name)),
                    }
                    let found = request.partitions_of(found).iter().map(|partition| {
                        let records = partition.records.clone();
                        (partition.index, records.map(|place| Bytes::copy_from_slice(&body[place])))
                    });
                    assert_eq!(found.collect::<Vec<_>>(), partitions);
                }
            }
        }
    }

    #[test]
    fn a_request_that_is_cut_is_refused() {
        for version in 3..=13 {
            let body = encode(version, Some("tx"), &topics());
            for end in 0..body.len() {
                assert!(ProduceRequest::parse(version, &body[..end]).is_err(), "version {version} cut at {end}");
            }
        }
    }

    #[test]
    fn lengths_and_counts_beyond_the_request_are_refused_before_memory_is_taken() {
        // Null transactional id, acks, timeout, then a count of topics.
        let head = b"\xff\xff\x00\x01\x00\x00\x00\x00";
        let check = |tail: &[u8], expected: fn(&WireError) -> bool| {
            let error = ProduceRequest::parse(3, &[head, tail].concat()).unwrap_err();
            assert!(expected(&error), "{error}");
        };
        check(b"\x7f\xff\xff\xff", |error| matches!(error, WireError::Count { count: 0x7fff_ffff, left: 0, .. }));
        check(b"\xff\xff\xff\xff", |error| matches!(error, WireError::Null { field: "topic_data", .. }));
        check(b"\xff\xff\xff\xfe", |error| matches!(error, WireError::NegativeLength { length: -2, .. }));
        check(b"\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00", |error| {
            matches!(error, WireError::Null { field: "name", .. })
        });
        check(b"\x00\x00\x00\x01\x00\x01\xff\x00\x00\x00\x00", |error| matches!(error, WireError::Utf8 { .. }));
        let versions = [2, 14, -1, i16::MAX];
        assert!(versions.iter().all(|version| ProduceRequest::parse(*version, head).is_err()));
    }
}
