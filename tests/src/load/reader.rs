//! A reader of everything: each partition from its start to its end, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::producer::config;
use super::recorder::{Recorder, partition};
use super::value;
use crate::checker::history::{Assigned, Drained, Event, From, Poll};

/// Reads a topic from offset 0 of each partition to the ends, which it returns.
///
/// # Panics
/// If nothing comes for `limit`.
#[track_caller]
pub fn read_all(bootstrap: &str, recorder: &Recorder, topic: &str, partitions: i32, limit: Duration) -> Vec<i64> {
    let recording = recorder.process(format!("reader of {topic}"), None);
    let mut config = config(bootstrap, "reader");
    config.set("group.id", "not-a-member").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let name: Arc<str> = Arc::from(topic);
    let mut list = TopicPartitionList::new();
    for index in 0..partitions {
        list.add_partition_offset(topic, index, Offset::Offset(0)).unwrap();
        let assigned = Assigned { partition: partition(&name, index), at: recording.now(), from: From::Offset(0) };
        recording.push(Event::Assigned(assigned));
    }
    consumer.assign(&list).unwrap();
    let mut next: BTreeMap<i32, i64> = (0..partitions).map(|index| (index, 0)).collect();
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let mut deadline = Instant::now() + limit;
    let mut last_error = None;
    while ends.len() < next.len() {
        assert!(Instant::now() < deadline, "nothing comes from {topic} beyond {next:?}: {last_error:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                deadline = Instant::now() + limit;
                let value = value::decode(message.payload().unwrap_or_default())
                    .map_or_else(|| value::garbled(message.offset()), |(value, _)| value);
                let (at, index) = (recording.now(), message.partition());
                let records = vec![(message.offset(), value)];
                recording.push(Event::Poll(Poll { partition: partition(&name, index), at, records }));
                next.insert(index, message.offset() + 1);
                // The end has moved on.
                ends.remove(&index);
            }
            Some(Err(KafkaError::PartitionEOF(index))) => {
                ends.insert(index, next[&index]);
                let drained = Drained { partition: partition(&name, index), at: recording.now(), end: next[&index] };
                recording.push(Event::Drained(drained));
            }
            Some(Err(error)) => last_error = Some(error),
        }
    }
    ends.into_values().collect()
}
