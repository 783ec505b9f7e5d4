//! What a history proves about each partition: which value lies where, who sent it and who saw it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::history::{Event, History, Outcome, Partition, Process, Send, Time, Value};

/// How a value is known to lie at an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting<'a> {
    pub(super) value: Value,
    pub(super) process: &'a str,
    pub(super) at: Time,
    pub(super) polled: bool,
}

impl Sighting<'_> {
    pub(super) fn how(&self) -> String {
        let how = if self.polled { "polled by" } else { "acknowledged to" };
        format!("{} ({how} {} at {})", self.value, self.process, self.at)
    }
}

/// A send, its sender, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'a> {
    pub(super) send: &'a Send,
    pub(super) process: &'a str,
    /// That of the send; of its transaction, if that did not commit.
    pub(super) effect: Effect,
}

/// Whether readers may and must see a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is in the log for ever, for all to see.
    Certain,
    /// It may be there.
    Possible,
    /// Nobody may see it.
    Refused,
    /// It may be in the log, but readers of committed records must not see it.
    Aborted,
}

/// One partition.
#[derive(Debug, Default)]
pub(super) struct PartitionLog<'a> {
    /// The first sighting of each value at each offset.
    pub(super) at: BTreeMap<i64, Vec<Sighting<'a>>>,
    /// Where each value was seen.
    pub(super) offsets: HashMap<Value, BTreeSet<i64>>,
    /// The highest offset that was polled.
    pub(super) highest_polled: Option<i64>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) partitions: BTreeMap<&'a Partition, PartitionLog<'a>>,
    pub(super) sent: HashMap<Value, Sent<'a>>,
    /// The first poll that returned each value.
    pub(super) polled: HashMap<Value, Time>,
}

impl<'a> Known<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut known = Self::default();
        for process in &history.processes {
            known.take_sends(process);
        }
        for (process, event) in history.events() {
            let Event::Poll(poll) = event else { continue };
            let log = known.partitions.entry(&poll.partition).or_default();
            for (offset, value) in &poll.records {
                log.see(*offset, Sighting { value: *value, process: &process.name, at: poll.at, polled: true });
                let first = known.polled.entry(*value).or_insert(poll.at);
                *first = poll.at.min(*first);
            }
        }
        known
    }

    fn take_sends(&mut self, process: &'a Process) {
        let ends: HashMap<u64, (bool, Outcome)> = process
            .events
            .iter()
            .filter_map(|event| match event {
                Event::EndTransaction(end) => Some((end.transaction, (end.commit, end.outcome))),
                _ => None,
            })
            .collect();
        for event in &process.events {
            let Event::Send(send) = event else { continue };
            let end = send.transaction.map(|transaction| ends.get(&transaction).copied());
            let sent = Sent { send, process: &process.name, effect: effect(send.outcome, end) };
            self.sent.insert(send.value, sent);
            let log = self.partitions.entry(&send.partition).or_default();
            if let (Some(offset), Some(at)) = (send.offset, send.outcome.acknowledged()) {
                log.see(offset, Sighting { value: send.value, process: &process.name, at, polled: false });
            }
        }
    }

    /// The first value between two offsets (the end exclusive) that every reader must see.
    pub(super) fn between(&self, partition: &Partition, from: i64, to: i64) -> Option<(i64, Sighting<'a>)> {
        self.all_between(partition, from, to).next()
    }

    /// All values between two offsets (the end exclusive) that every reader must see.
    pub(super) fn all_between(
        &self,
        partition: &Partition,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, Sighting<'a>)> {
        let log = self.partitions.get(partition).filter(|_| from < to);
        let offsets = log.into_iter().flat_map(move |log| log.at.range(from..to));
        offsets.flat_map(|(offset, values)| values.iter().map(|seen| (*offset, *seen))).filter(|(_, seen)| {
            // That a value was polled proves that it lies there, unless its transaction may be open or aborted.
            self.sent.get(&seen.value).is_some_and(|sent| match sent.effect {
                Effect::Certain => true,
                Effect::Possible => sent.send.transaction.is_none(),
                Effect::Refused | Effect::Aborted => false,
            })
        })
    }
}

fn effect(send: Outcome, transaction: Option<Option<(bool, Outcome)>>) -> Effect {
    match (send, transaction) {
        (Outcome::Failed { .. }, _) => Effect::Refused,
        (Outcome::Unknown, None) => Effect::Possible,
        (Outcome::Acknowledged { .. }, None) => Effect::Certain,
        (_, Some(Some((false, Outcome::Acknowledged { .. })))) => Effect::Aborted,
        (_, Some(Some((true, Outcome::Failed { .. })))) => Effect::Aborted,
        (Outcome::Acknowledged { .. }, Some(Some((true, Outcome::Acknowledged { .. })))) => Effect::Certain,
        (_, Some(_)) => Effect::Possible,
    }
}

impl<'a> PartitionLog<'a> {
    fn see(&mut self, offset: i64, sighting: Sighting<'a>) {
        let seen = self.at.entry(offset).or_default();
        match seen.iter_mut().find(|known| known.value == sighting.value) {
            Some(known) if sighting.at < known.at => *known = sighting,
            Some(_) => {}
            None => seen.push(sighting),
        }
        self.offsets.entry(sighting.value).or_default().insert(offset);
        if sighting.polled {
            self.highest_polled = self.highest_polled.max(Some(offset));
        }
    }
}
