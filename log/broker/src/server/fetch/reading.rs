//! What a fetch found: its partitions in order, each with the slice of its log that is to be sent.
//!
//! Reading a partition only finds where its bytes lie. A partition without anything new costs a few loads.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use logmill_protocol::{Compression, LeaderEpoch, Offset, ProducerId};
use logmill_storage::{LogSlice, SliceRequest, Sliced};

use crate::blocking;
use crate::error::BrokerError;
use crate::partition::Partition;
use crate::server::context::RequestContext;
use crate::server::fetch::session::{Summary, TopicKey, Wanted};
use crate::server::{errors, leader, leader_epochs};
use crate::types::Isolation;
use crate::waiters::{Place, Waiter};

/// The first version whose clients know Zstandard.
const ZSTD_VERSION: i16 = 10;
/// Slices up to this size, in bytes, are read and sent with what precedes them: one call is cheaper than two.
pub(super) const SMALL_BYTES: usize = 16 << 10;

/// What was found in a partition.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) log_start: i64,
    pub(super) slice: Option<LogSlice>,
    /// Under `read_committed`, the aborted transactions that overlap the slice.
    pub(super) aborted: Option<Vec<(ProducerId, Offset)>>,
    /// Where the client's log departs from this one: an epoch and its end.
    pub(super) diverging: Option<(LeaderEpoch, Offset)>,
    /// The end that the reader sees.
    pub(super) end: Offset,
}

impl Found {
    fn len(&self) -> usize {
        self.slice.as_ref().map_or(0, LogSlice::len)
    }
}

/// A partition of the fetch.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) wanted: Wanted,
    target: Result<Target, i16>,
    /// Where the fetch waits for the partition to grow.
    place: Option<Place>,
    /// What was found, or the code of an error.
    pub(super) found: Result<Found, i16>,
}

#[derive(Debug)]
struct Target {
    partition: Arc<Partition>,
    compression: Option<Compression>,
}

impl Slot {
    /// What sessions have to know of it.
    pub(super) fn summary(&self) -> Summary {
        match &self.found {
            Ok(found) => Summary {
                is_error: false,
                has_records: found.slice.is_some(),
                diverges: found.diverging.is_some(),
                high_watermark: found.high_watermark,
                log_start: found.log_start,
            },
            Err(_) => {
                Summary { is_error: true, has_records: false, diverges: false, high_watermark: -1, log_start: -1 }
            }
        }
    }
}

#[cfg(test)]
impl Slot {
    /// A slot of which this was found.
    pub(super) fn of(topic: TopicKey, partition: i32, found: Result<Found, i16>) -> Self {
        let asked = super::session::Asked { offset: 0, max_bytes: 1, current_leader_epoch: -1, last_fetched_epoch: -1 };
        Self { wanted: Wanted { topic, partition, asked }, target: Err(0), place: None, found }
    }
}

/// How a fetch reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) version: i16,
    pub(super) isolation: Isolation,
    pub(super) max_bytes: usize,
    pub(super) min_bytes: usize,
    /// Whether a broker asks: none is this one's follower.
    pub(super) is_replica: bool,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Reading {
    terms: Terms,
    slots: Vec<Slot>,
    /// Bytes found.
    bytes: usize,
    /// Waiting would be no use: there is an error to tell, or a segment ends.
    must_answer: bool,
    waiter: Option<Arc<Waiter>>,
}

/// What a partition turned out to need the disk.
struct NotCached;

impl Reading {
    pub(super) fn new(context: &RequestContext, terms: Terms, wanted: Vec<Wanted>) -> Self {
        let mut last: Option<(TopicKey, Result<Arc<crate::topics::OpenTopic>, i16>)> = None;
        let mut slots = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let topic = match last.take() {
                Some((key, topic)) if key == wanted.topic => topic,
                _ => open(context, &wanted.topic),
            };
            let target = topic.clone().and_then(|topic| {
                let partition = topic.partition(wanted.partition).map_err(|error| errors::code(&error))?;
                Ok(Target { partition: Arc::clone(partition), compression: topic.config.compression })
            });
            last = Some((wanted.topic.clone(), topic));
            slots.push(Slot { wanted, target, place: None, found: Ok(Found::default()) });
        }
        Self { terms, slots, bytes: 0, must_answer: false, waiter: None }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether there is enough to answer.
    pub(super) fn is_enough(&self) -> bool {
        let has_bytes = self.bytes >= self.terms.min_bytes && !self.is_refused();
        self.must_answer || self.slots.is_empty() || has_bytes
    }

    /// Whether the only answer is that partitions are offline or damaged. It will be the same next time, so the answer is
    /// delayed, lest clients ask again at once.
    pub(super) fn is_refused(&self) -> bool {
        self.bytes == 0 && self.slots.iter().any(|slot| slot.found.as_ref().is_err_and(|code| is_lasting(*code)))
    }

    /// Reads every partition, in order.
    pub(super) async fn read_all(self) -> Self {
        let all = (0..self.slots.len()).collect();
        self.read(all).await
    }

    /// Reads these partitions, in order; on a thread that may wait once one of them is not in the page cache.
    async fn read(mut self, slots: Vec<usize>) -> Self {
        let stopped = slots.iter().position(|slot| self.read_slot(*slot, false).is_err());
        let Some(stopped) = stopped else { return self };
        let terms = self.terms;
        let run = move || {
            for slot in slots.iter().skip(stopped) {
                let _ = self.read_slot(*slot, true);
            }
            Ok(self)
        };
        // It fails only where the runtime stops.
        let none = |_| Self { terms, slots: Vec::new(), bytes: 0, must_answer: true, waiter: None };
        blocking::run(run).await.unwrap_or_else(none)
    }

    /// Asks to be told of every partition that grows, if that was not done yet.
    pub(super) fn watch_all(&mut self) {
        if self.waiter.is_none() {
            self.waiter = Some(Arc::default());
            (0..self.slots.len()).for_each(|slot| self.watch(slot));
        }
    }

    /// Waits until partitions that are watched have more than was found, and returns which. Cancel-safe.
    pub(super) async fn ready(&self) -> Vec<usize> {
        match &self.waiter {
            Some(waiter) => waiter.ready().await.into_iter().map(|slot| slot as usize).collect(),
            None => std::future::pending().await,
        }
    }

    /// Reads these partitions again, and watches on if that is not enough.
    pub(super) async fn read_again(self, slots: Vec<usize>) -> Self {
        let mut this = self.read(slots.clone()).await;
        if !this.is_enough() {
            slots.into_iter().for_each(|slot| this.watch(slot));
        }
        this
    }

    /// Asks to be told when the partition has more than was found.
    fn watch(&mut self, index: usize) {
        let (Some(waiter), Some(Slot { target: Ok(target), place, found: Ok(found), wanted })) =
            (&self.waiter, self.slots.get_mut(index))
        else {
            return;
        };
        let beyond = found.end.max(Offset(wanted.asked.offset));
        if let Ok(index) = u32::try_from(index) {
            let before = place.replace(target.partition.watch(waiter, index, self.terms.isolation, beyond));
            if let Some(before) = before {
                target.partition.unwatch(before);
            }
        }
    }

    /// Reads a partition, again if it was read before.
    fn read_slot(&mut self, index: usize, may_wait: bool) -> Result<(), NotCached> {
        let Some(slot) = self.slots.get_mut(index) else { return Ok(()) };
        let before = slot.found.as_ref().map_or(0, Found::len);
        let others = self.bytes - before;
        let found = match &slot.target {
            Err(code) => Err(*code),
            Ok(_) if self.terms.is_replica => Err(ResponseError::NotLeaderOrFollower.code()),
            Ok(target) => {
                let room = self.terms.max_bytes.saturating_sub(others);
                read(target, &slot.wanted, &self.terms, room, others == 0, may_wait).transpose().ok_or(NotCached)?
            }
        };
        self.must_answer |= match &found {
            Err(code) => !is_lasting(*code),
            Ok(found) => {
                let is_last = |slice: &LogSlice| slice.ends_segment() && slice.next_offset() < found.end;
                found.diverging.is_some() || found.slice.as_ref().is_some_and(is_last)
            }
        };
        self.bytes = others + found.as_ref().map_or(0, Found::len);
        slot.found = found;
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        for slot in &self.slots {
            if let (Ok(target), Some(place)) = (&slot.target, slot.place) {
                target.partition.unwatch(place);
            }
        }
    }
}

fn open(context: &RequestContext, topic: &TopicKey) -> Result<Arc<crate::topics::OpenTopic>, i16> {
    let found = match topic {
        TopicKey::Name(name) => context.broker().open_topic(name),
        TopicKey::Id(id) => context.broker().open_topic_by_id(*id),
    };
    found.map_err(|error| errors::code(&error))
}

/// Reads one partition: `None` if that needs the disk and may not wait.
fn read(
    target: &Target,
    wanted: &Wanted,
    terms: &Terms,
    room: usize,
    is_first: bool,
    may_wait: bool,
) -> Result<Option<Found>, i16> {
    let code = |error: BrokerError| errors::code(&error);
    let partition = &*target.partition;
    let by_id = matches!(wanted.topic, TopicKey::Id(_));
    let unknown = if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
    partition.check_exists().map_err(|_| unknown.code())?;
    leader::check_epoch(wanted.asked.current_leader_epoch, partition.leader_epoch()).map_err(|error| error.code())?;
    if terms.version < ZSTD_VERSION && target.compression == Some(Compression::Zstd) {
        return Err(ResponseError::UnsupportedCompressionType.code());
    }
    let log = partition.log();
    let from = Offset(wanted.asked.offset);
    // The end first: an abort that it covers is in the index before the end moves past it.
    let end = partition.visible_end(terms.isolation);
    let mut found = Found {
        high_watermark: log.high_watermark().0,
        last_stable_offset: log.last_stable_offset().0,
        log_start: log.log_start().0,
        aborted: (terms.isolation == Isolation::ReadCommitted).then(Vec::new),
        end,
        ..Found::default()
    };
    if wanted.asked.last_fetched_epoch >= 0 {
        // Whoever appends has the epochs, for as long as the disk takes.
        if !may_wait {
            return Ok(None);
        }
        found.diverging = diverging(partition, wanted)?;
    }
    let max_bytes = usize::try_from(wanted.asked.max_bytes).unwrap_or(0).min(room);
    let is_in_range = from >= log.log_start() && from <= log.log_end();
    if found.diverging.is_some() || (is_in_range && (from >= end || (max_bytes == 0 && !is_first))) {
        return Ok(Some(found));
    }
    let request = SliceRequest { from, up_to: end, max_bytes, first_whole: is_first, may_wait };
    match partition.stored(log.slice(request)).map_err(|error| failed(partition, error))? {
        Sliced::NotCached => return Ok(None),
        Sliced::Nothing => {}
        Sliced::Slice(slice) => {
            if may_wait {
                let small = 0..slice.len().min(SMALL_BYTES);
                partition.stored(slice.load(small)).map_err(|error| failed(partition, error))?;
            }
            if terms.isolation == Isolation::ReadCommitted {
                let overlapping =
                    partition.stored(log.aborted_transactions(from, slice.next_offset())).map_err(code)?;
                let mut aborted: Vec<_> =
                    overlapping.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect();
                aborted.sort_unstable_by_key(|(id, first)| (*first, *id));
                found.aborted = Some(aborted);
            }
            found.slice = Some(slice);
        }
    }
    Ok(Some(found))
}

/// The code of a failed read; damage is told to the node's owner, too.
fn failed(partition: &Partition, error: BrokerError) -> i16 {
    if let (BrokerError::Storage { .. } | BrokerError::Lost { .. }, true) = (&error, partition.may_tell()) {
        tracing::error!(partition = %partition.name(), error = %chain(&error), "cannot read");
    }
    errors::code(&error)
}

/// Whether an error stays until someone repairs the partition.
fn is_lasting(code: i16) -> bool {
    [ResponseError::KafkaStorageError.code(), ResponseError::CorruptMessage.code()].contains(&code)
}

/// An error with its causes.
fn chain(error: &BrokerError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Where the client's log departs from this one, going by the epoch of the last batch it has (KIP-595).
fn diverging(partition: &Partition, wanted: &Wanted) -> Result<Option<(LeaderEpoch, Offset)>, i16> {
    let last = LeaderEpoch(wanted.asked.last_fetched_epoch);
    let (epoch, end) = leader_epochs::end(partition, last);
    if epoch == LeaderEpoch::NONE || Offset(wanted.asked.offset) < partition.log().log_start() {
        return Err(ResponseError::OffsetOutOfRange.code());
    }
    Ok((epoch < last || end < Offset(wanted.asked.offset)).then_some((epoch, end)))
}
