//! What groups committed, and where their members resumed.

use std::collections::{BTreeMap, HashMap};

use super::history::{Commit, Event, From, History, Partition, Poll, Process, Time};
use super::known::Known;
use super::{Kind, Report};

/// What the members of a group did to one partition.
#[derive(Default)]
struct Shared<'a> {
    /// In the order in which they were called.
    commits: Vec<(&'a Process, &'a Commit)>,
    /// When a member first polled each offset.
    polled: HashMap<i64, Time>,
    /// When a member was to resume at the committed offset, and its first poll after that.
    resumed: Vec<(&'a Process, Time, &'a Poll)>,
}

pub(super) fn check(history: &History, known: &Known<'_>, report: &mut Report) {
    let mut groups: BTreeMap<(&str, &Partition), Shared<'_>> = BTreeMap::new();
    for process in &history.processes {
        let Some(group) = &process.group else { continue };
        let mut assigned: HashMap<&Partition, Time> = HashMap::new();
        for event in &process.events {
            match event {
                Event::Assigned(event) if event.from == From::Committed => {
                    assigned.insert(&event.partition, event.at);
                }
                Event::Assigned(event) => {
                    assigned.remove(&event.partition);
                }
                Event::Poll(poll) => {
                    let shared = groups.entry((group, &poll.partition)).or_default();
                    for (offset, _) in &poll.records {
                        let first = shared.polled.entry(*offset).or_insert(poll.at);
                        *first = poll.at.min(*first);
                    }
                    if let Some(at) = assigned.remove(&poll.partition) {
                        shared.resumed.push((process, at, poll));
                    }
                }
                Event::Commit(commit) => {
                    groups.entry((group, &commit.partition)).or_default().commits.push((process, commit));
                }
                Event::Send(_) | Event::EndTransaction(_) | Event::Drained(_) => {}
            }
        }
    }
    for ((group, partition), shared) in &mut groups {
        shared.commits.sort_by_key(|(_, commit)| commit.called);
        let place = format!("group {group} of {partition}");
        went_back(&place, shared, report);
        skipped(&place, partition, shared, known, report);
        resumed(&place, partition, shared, known, report);
    }
}

/// nonmonotonic-commit.
fn went_back(place: &str, shared: &Shared<'_>, report: &mut Report) {
    let acknowledged =
        shared.commits.iter().filter_map(|(by, commit)| Some((commit.outcome.acknowledged()?, by, commit)));
    let mut ended: Vec<_> = acknowledged.collect();
    ended.sort_by_key(|(at, ..)| *at);
    let mut ended = ended.into_iter().peekable();
    let mut highest: Option<(Time, &Process, &Commit)> = None;
    for (process, commit) in &shared.commits {
        while let Some((at, by, before)) = ended.next_if(|(at, ..)| *at < commit.called) {
            if highest.is_none_or(|(_, _, highest)| highest.offset < before.offset) {
                highest = Some((at, by, before));
            }
        }
        if let (Some((at, by, before)), Some(now)) = (highest, commit.outcome.acknowledged())
            && before.offset > commit.offset
        {
            report.add(
                Kind::NonmonotonicCommit,
                format!(
                    "{place}: {} committed {} from {} to {now}, after {} had committed {} at {at}",
                    process.name, commit.offset, commit.called, by.name, before.offset
                ),
            );
        }
    }
}

/// commit-skip: what lies below the first commit above it must have been polled before that was called.
fn skipped(place: &str, partition: &Partition, shared: &Shared<'_>, known: &Known<'_>, report: &mut Report) {
    let mut checked = 0;
    for (process, commit) in &shared.commits {
        if commit.outcome.acknowledged().is_none() || commit.offset <= checked {
            continue;
        }
        for (offset, sighting) in known.all_between(partition, checked, commit.offset) {
            if shared.polled.get(&offset).is_none_or(|at| *at > commit.called) {
                report.add(
                    Kind::CommitSkip,
                    format!(
                        "{place}: {} committed {} at {}, but no member had polled {} at {offset}",
                        process.name,
                        commit.offset,
                        commit.called,
                        sighting.how()
                    ),
                );
            }
        }
        checked = commit.offset;
    }
}

/// lost-commit, and poll-skip of a member that resumed above everything that may have been committed.
fn resumed(place: &str, partition: &Partition, shared: &Shared<'_>, known: &Known<'_>, report: &mut Report) {
    for (process, assigned, poll) in &shared.resumed {
        let Some((first, _)) = poll.records.first() else { continue };
        let committed = |commit: &Commit| commit.outcome.acknowledged().is_some_and(|at| at < *assigned);
        let commits = || shared.commits.iter().map(|(_, commit)| *commit);
        let certain = commits().filter(|commit| committed(commit)).max_by_key(|commit| commit.offset);
        if let Some(commit) = certain.filter(|commit| *first < commit.offset) {
            report.add(
                Kind::LostCommit,
                format!(
                    "{place}: {} was assigned at {assigned} and resumed at {first} at {}, below {}, {}",
                    process.name, poll.at, commit.offset, commit.outcome
                ),
            );
        }
        let possible = commits().filter(|commit| commit.called < poll.at).map(|commit| commit.offset).max();
        let possible = possible.unwrap_or(0);
        if let Some((offset, sighting)) = known.between(partition, possible, *first) {
            report.add(
                Kind::PollSkip,
                format!(
                    "{place}: {} resumed at {first} at {}, but no more than {possible} was ever committed: past {} at \
                     {offset}",
                    process.name,
                    poll.at,
                    sighting.how()
                ),
            );
        }
    }
}
