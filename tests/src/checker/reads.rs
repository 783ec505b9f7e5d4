//! How each process went through the partitions: never back, and past nothing.

use std::collections::HashMap;

use super::history::{Event, From, History, Partition, Poll, Process};
use super::known::Known;
use super::{Kind, Report};

/// Where a process stands in a partition.
#[derive(Clone, Copy)]
struct Place {
    /// The offset to read next.
    next: i64,
    /// Nothing is read yet: the first record may come from below, where a batch begins.
    fresh: bool,
}

pub(super) fn check(history: &History, known: &Known<'_>, report: &mut Report) {
    for process in &history.processes {
        let mut places: HashMap<&Partition, Place> = HashMap::new();
        for event in &process.events {
            match event {
                Event::Assigned(assigned) => {
                    match assigned.from {
                        From::Offset(next) => places.insert(&assigned.partition, Place { next, fresh: true }),
                        // Where that is, is checked with the commits.
                        From::Committed => places.remove(&assigned.partition),
                    };
                }
                Event::Poll(poll) => go(process, poll, &mut places, known, report),
                Event::Drained(drained) => {
                    let next = places.get(&drained.partition).map_or(0, |place| place.next);
                    let step = Step { process, partition: &drained.partition, at: drained.at, within: false };
                    skipped(&step, next, drained.end, known, report);
                }
                Event::Send(_) | Event::EndTransaction(_) | Event::Commit(_) => {}
            }
        }
    }
}

/// One step of a process from record to record.
struct Step<'a> {
    process: &'a Process,
    partition: &'a Partition,
    at: super::history::Time,
    /// Both records came out of the same poll.
    within: bool,
}

fn go<'a>(
    process: &Process,
    poll: &'a Poll,
    places: &mut HashMap<&'a Partition, Place>,
    known: &Known<'_>,
    report: &mut Report,
) {
    let mut within = false;
    for (offset, value) in &poll.records {
        let step = Step { process, partition: &poll.partition, at: poll.at, within };
        if let Some(place) = places.get(&poll.partition) {
            if *offset < place.next {
                let kind = if within { Kind::IntNonmonotonicPoll } else { Kind::NonmonotonicPoll };
                let was = if place.fresh { "it was to begin at" } else { "the next was to be" };
                let text = format!(
                    "{} polled {value} at {}@{offset} at {}, but {was} {}",
                    process.name, poll.partition, poll.at, place.next
                );
                report.add(kind, text);
            } else {
                skipped(&step, place.next, *offset, known, report);
            }
        }
        places.insert(&poll.partition, Place { next: offset + 1, fresh: false });
        within = true;
    }
}

/// Reports a value between `from` and `to` that the process went past.
fn skipped(step: &Step<'_>, from: i64, to: i64, known: &Known<'_>, report: &mut Report) {
    let Some((offset, sighting)) = known.between(step.partition, from, to) else { return };
    let kind = if step.within { Kind::IntPollSkip } else { Kind::PollSkip };
    let Step { process, partition, at, .. } = step;
    let text =
        format!("{} went from {partition}@{from} to {to} at {at}, past {} at {offset}", process.name, sighting.how());
    report.add(kind, text);
}
