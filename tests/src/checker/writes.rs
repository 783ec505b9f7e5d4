//! What became of the values sent: lost, doubled, out of order, overwritten.

use std::collections::HashMap;

use super::history::{Event, History, Partition, Process, Send};
use super::known::{Effect, Known, PartitionLog, Sent};
use super::{Kind, Report};

pub(super) fn check(history: &History, known: &Known<'_>, report: &mut Report) {
    for (partition, log) in &known.partitions {
        offsets(partition, log, known, report);
    }
    let mut sent: Vec<_> = known.sent.values().collect();
    sent.sort_unstable_by_key(|sent| sent.send.value);
    for sent in sent {
        never_polled(sent, known, report);
    }
    for process in &history.processes {
        order(process, known, report);
    }
    forbidden(history, known, report);
    shortened(history, known, report);
}

/// inconsistent-offsets, duplicate, phantom.
fn offsets(partition: &Partition, log: &PartitionLog<'_>, known: &Known<'_>, report: &mut Report) {
    for (offset, seen) in &log.at {
        if seen.len() > 1 {
            let values: Vec<_> = seen.iter().map(|sighting| sighting.how()).collect();
            report.add(Kind::InconsistentOffsets, format!("{partition}@{offset} held {}", values.join(" and ")));
        }
        for sighting in seen {
            let sent = known.sent.get(&sighting.value);
            if sent.is_none_or(|sent| sent.send.partition != *partition) {
                let where_to =
                    sent.map_or("nobody sent it".to_owned(), |sent| format!("sent to {}", sent.send.partition));
                report.add(Kind::Phantom, format!("{partition}@{offset} held {}: {where_to}", sighting.how()));
            }
        }
    }
    let mut twice: Vec<_> = log.offsets.iter().filter(|(_, offsets)| offsets.len() > 1).collect();
    twice.sort_unstable_by_key(|(value, _)| **value);
    for (value, offsets) in twice {
        let sent = known.sent.get(value).map_or(String::new(), |sent| format!(", {}", describe(sent)));
        report.add(Kind::Duplicate, format!("{partition} holds {value} at {offsets:?}{sent}"));
    }
}

/// lost-write and unseen.
fn never_polled(sent: &Sent<'_>, known: &Known<'_>, report: &mut Report) {
    let send = sent.send;
    if sent.effect != Effect::Certain || known.polled.contains_key(&send.value) {
        return;
    }
    let log = known.partitions.get(&send.partition);
    let highest = log.and_then(|log| log.highest_polled);
    let passed = match (send.offset, highest) {
        (Some(offset), Some(highest)) => highest > offset,
        _ => false,
    };
    let read = highest.map_or("nothing was".to_owned(), |highest| format!("{highest} was"));
    let text = format!("{} of {} was never polled, but {read}: {}", send.value, send.partition, describe(sent));
    report.add(if passed { Kind::LostWrite } else { Kind::Unseen }, text);
}

fn describe(sent: &Sent<'_>) -> String {
    let Send { called, outcome, offset, .. } = sent.send;
    let offset = offset.map_or(String::new(), |offset| format!(" with offset {offset}"));
    format!("sent by {} at {called}, {outcome}{offset}", sent.process)
}

/// nonmonotonic-send and int-nonmonotonic-send. The place of a value is known from its acknowledgement or from a poll.
fn order(process: &Process, known: &Known<'_>, report: &mut Report) {
    let mut last: HashMap<&Partition, (&Send, i64)> = HashMap::new();
    for event in &process.events {
        let Event::Send(send) = event else { continue };
        let offsets = known.partitions.get(&send.partition).and_then(|log| log.offsets.get(&send.value));
        // The first, if there are duplicates: those are reported as such.
        let Some(&offset) = offsets.and_then(|offsets| offsets.first()) else { continue };
        if let Some((before, before_offset)) = last.insert(&send.partition, (send, offset))
            && before_offset > offset
        {
            let within = before.transaction.is_some() && before.transaction == send.transaction;
            let kind = if within { Kind::IntNonmonotonicSend } else { Kind::NonmonotonicSend };
            report.add(
                kind,
                format!(
                    "{} sent {} (at {}) and then {} (at {}) to {}, where they lie at {before_offset} and {offset}",
                    process.name, before.value, before.called, send.value, send.called, send.partition
                ),
            );
        }
    }
}

/// aborted-read.
fn forbidden(history: &History, known: &Known<'_>, report: &mut Report) {
    for (process, event) in history.events() {
        let Event::Poll(poll) = event else { continue };
        for (offset, value) in &poll.records {
            let Some(sent) = known.sent.get(value) else { continue };
            let what = match sent.effect {
                Effect::Refused => "was refused",
                Effect::Aborted if process.read_committed => "is of an aborted transaction",
                _ => continue,
            };
            report.add(
                Kind::AbortedRead,
                format!(
                    "{} polled {value} at {}@{offset} at {}, which {what}: {}",
                    process.name,
                    poll.partition,
                    poll.at,
                    describe(sent)
                ),
            );
        }
    }
}

/// unseen, of a log that once was longer than a reader of its end found it to be later.
fn shortened(history: &History, known: &Known<'_>, report: &mut Report) {
    for (process, event) in history.events() {
        let Event::Drained(drained) = event else { continue };
        let beyond = known.all_between(&drained.partition, drained.end, i64::MAX);
        for (offset, sighting) in beyond.filter(|(_, sighting)| sighting.at < drained.at) {
            report.add(
                Kind::Unseen,
                format!(
                    "{} ended at {} for {} at {}, but {} had been at {offset}",
                    drained.partition,
                    drained.end,
                    process.name,
                    drained.at,
                    sighting.how()
                ),
            );
        }
    }
}
