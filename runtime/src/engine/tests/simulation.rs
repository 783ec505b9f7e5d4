//! A model of whole runs around the coordinator's real decisions: seeded steps of readers, workers, intakes, writers and
//! commits in any order, with a stop or a crash at any of them, until the input is done.
//!
//! What is modelled is what the tasks promise each other: queues, barriers beside the queue of an input and within those of
//! writers, appends that wait for the transaction of the epoch before. Each commit is held to the one invariant: what is
//! committed is what the committed positions cover.

use std::collections::{BTreeMap, VecDeque};

use logmill_connectors::sink::{Prepared, Token};
use logmill_pipelines::flow::{CheckpointEpoch, Position, SplitId};
use serde_json::json;

use crate::engine::event::{Barrier, Event, FeedId, WriterId};
use crate::engine::rounds::{Occasion, Round, Rounds};
use crate::engine::sinks::HandedOver;

const WORKERS: usize = 2;
/// The first writer appends to the transaction, the second stages.
const WRITERS: usize = 2;
/// So many chunks wait in a queue at most.
const QUEUE: usize = 3;

/// A source: the rows of each of its splits, and whether it is played through a topic.
struct Source {
    splits: Vec<Vec<u32>>,
    through: bool,
}

/// What survives a crash.
#[derive(Default)]
struct Durable {
    /// The topic of each source that is played through one.
    topics: BTreeMap<usize, Vec<u32>>,
    /// By feed and split, how many rows of it were read.
    positions: BTreeMap<(usize, usize), usize>,
    epoch: u64,
    out: Vec<u32>,
    /// Staged and named by the manifest.
    tokens: BTreeMap<u64, Vec<u32>>,
    /// Staged and visible.
    lake: BTreeMap<u64, Vec<u32>>,
}

enum Item {
    Rows(Vec<u32>),
    Chunk { feed: usize, split: usize, rows: Vec<u32>, after: usize },
    SplitEnd(usize),
    Barrier(Barrier),
}

struct Reader {
    feed: usize,
    split: usize,
    at: usize,
    has_ended: bool,
}

/// A worker, or the intake of a source.
struct Processor {
    intake_of: Option<usize>,
    input: VecDeque<Item>,
    barriers: VecDeque<Barrier>,
    reached: BTreeMap<(usize, usize), usize>,
    epoch: u64,
    halted: bool,
}

struct Writer {
    inputs: Vec<VecDeque<Item>>,
    aligned: Vec<bool>,
    rows: Vec<u32>,
    epoch: u64,
    halted: bool,
}

enum Phase {
    Waiting,
    Gathering,
    Committing(Round),
    Publishing(Round),
    Confirming(Barrier),
    Done(Barrier),
}

/// One run, from its start to its end, its stop or its death.
struct Run<'a> {
    sources: &'a [Source],
    durable: &'a mut Durable,
    random: &'a mut fastrand::Rng,
    rounds: Rounds,
    readers: Vec<Reader>,
    announced: Vec<bool>,
    processors: Vec<Processor>,
    writers: Vec<Writer>,
    /// The open transaction: its epoch, output, and records of the topics.
    open: (u64, Vec<u32>, BTreeMap<usize, Vec<u32>>),
    ends: BTreeMap<usize, usize>,
    events: VecDeque<Event>,
    phase: Phase,
    stopping: bool,
    visible: bool,
}

impl<'a> Run<'a> {
    fn start(sources: &'a [Source], durable: &'a mut Durable, random: &'a mut fastrand::Rng) -> Self {
        durable.lake.append(&mut durable.tokens.clone());
        let intakes: Vec<usize> = (0..sources.len()).filter(|source| sources[*source].through).collect();
        let epoch = durable.epoch + 1;
        let mut rounds = Rounds::new(CheckpointEpoch(epoch), WORKERS + intakes.len(), WRITERS);
        let mut readers = Vec::new();
        let mut add = |feed: usize, splits: usize| {
            readers.extend((0..splits).map(|split| {
                let at = durable.positions.get(&(feed, split)).copied().unwrap_or(0);
                Reader { feed, split, at, has_ended: false }
            }));
        };
        for (number, source) in sources.iter().enumerate() {
            rounds.add_feed(false);
            add(number, if source.through { 1 } else { source.splits.len() });
        }
        for (number, source) in intakes.iter().enumerate() {
            rounds.add_feed(true);
            add(sources.len() + number, sources[*source].splits.len());
        }
        let processors =
            (0..WORKERS).map(|_| None).chain(intakes.iter().copied().map(Some)).map(|intake_of| Processor {
                intake_of,
                input: VecDeque::new(),
                barriers: VecDeque::new(),
                reached: BTreeMap::new(),
                epoch,
                halted: false,
            });
        let writer = || Writer {
            inputs: (0..WORKERS).map(|_| VecDeque::new()).collect(),
            aligned: vec![false; WORKERS],
            rows: Vec::new(),
            epoch,
            halted: false,
        };
        let announced = vec![false; sources.len() + intakes.len()];
        Self {
            sources,
            rounds,
            readers,
            announced,
            processors: processors.collect(),
            writers: (0..WRITERS).map(|_| writer()).collect(),
            open: (epoch, Vec::new(), BTreeMap::new()),
            ends: BTreeMap::new(),
            events: VecDeque::new(),
            phase: Phase::Waiting,
            stopping: false,
            visible: !durable.tokens.is_empty(),
            durable,
            random,
        }
    }

    /// The source that an intake's feed reads; `None` for the feeds of operators.
    fn intake_of(&self, feed: usize) -> Option<usize> {
        let mut intakes = (0..self.sources.len()).filter(|source| self.sources[*source].through);
        intakes.nth(feed.checked_sub(self.sources.len())?)
    }

    /// Rows that a split's reader can see, and where the split ends, if that is known.
    fn content(&self, feed: usize, split: usize) -> (&[u32], Option<usize>) {
        match self.intake_of(feed) {
            None if self.sources[feed].through => {
                (self.durable.topics.get(&feed).map_or(&[], Vec::as_slice), self.ends.get(&feed).copied())
            }
            source => {
                let rows = &self.sources[source.unwrap_or(feed)].splits[split];
                (rows, Some(rows.len()))
            }
        }
    }

    /// One step of whoever's turn it is by chance; whether anything happened.
    fn step(&mut self) -> bool {
        let readers = self.readers.len();
        let turns = readers + self.processors.len() + WRITERS + self.announced.len() + 3;
        match self.random.usize(0..turns) {
            turn if turn < readers => self.read(turn),
            turn if turn < readers + self.processors.len() => self.process(turn - readers),
            turn if turn < readers + self.processors.len() + WRITERS => {
                self.write(turn - readers - self.processors.len())
            }
            turn if turn < turns - 3 => self.announce(turn - readers - self.processors.len() - WRITERS),
            _ => self.coordinate(),
        }
    }

    fn read(&mut self, number: usize) -> bool {
        let Reader { feed, split, at, has_ended } = self.readers[number];
        let queue = match self.intake_of(feed) {
            Some(source) => self.processors.iter().position(|task| task.intake_of == Some(source)).unwrap(),
            None => (feed + split) % WORKERS,
        };
        if has_ended || self.processors[queue].input.len() >= QUEUE {
            return false;
        }
        let (content, end) = self.content(feed, split);
        let rows: Vec<u32> = content[at..end.unwrap_or(content.len())].iter().copied().take(3).collect();
        if rows.is_empty() && end.is_none() {
            return false;
        }
        self.readers[number].at += rows.len();
        self.readers[number].has_ended = rows.is_empty();
        let item = match rows.is_empty() {
            true => Item::SplitEnd(feed),
            false => Item::Chunk { feed, split, after: at + rows.len(), rows },
        };
        self.processors[queue].input.push_back(item);
        true
    }

    fn announce(&mut self, feed: usize) -> bool {
        let mut of_feed = self.readers.iter().filter(|reader| reader.feed == feed);
        if self.announced[feed] || !of_feed.clone().all(|reader| reader.has_ended) {
            return false;
        }
        self.announced[feed] = true;
        let splits = of_feed.by_ref().count();
        self.events.push_back(Event::FeedComplete { feed: FeedId(feed), splits });
        true
    }

    fn process(&mut self, number: usize) -> bool {
        let open = self.open.0;
        let task = &mut self.processors[number];
        if task.halted {
            return false;
        }
        if let Some(barrier) = task.barriers.pop_front() {
            task.epoch = barrier.epoch.0 + 1;
            task.halted = barrier.halts();
            let reached = std::mem::take(&mut task.reached)
                .into_iter()
                .map(|((feed, split), at)| (FeedId(feed), SplitId::new(split.to_string()), Position(json!(at))));
            let reached = reached.collect();
            if task.intake_of.is_none() {
                self.writers.iter_mut().for_each(|writer| writer.inputs[number].push_back(Item::Barrier(barrier)));
            }
            self.events.push_back(Event::Passed { epoch: barrier.epoch, reached, rows_read: 0, states: vec![] });
            return true;
        }
        let waits = task.intake_of.is_some() && task.epoch > open;
        match task.input.pop_front_if(|item| !waits || matches!(item, Item::SplitEnd(_))) {
            Some(Item::SplitEnd(feed)) => self.events.push_back(Event::SplitProcessed { feed: FeedId(feed) }),
            Some(Item::Chunk { feed, split, rows, after }) => {
                task.reached.insert((feed, split), after);
                match task.intake_of {
                    Some(source) => self.open.2.entry(source).or_default().extend(rows),
                    None => {
                        let writers = self.writers.iter_mut();
                        writers.for_each(|writer| writer.inputs[number].push_back(Item::Rows(rows.clone())));
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn write(&mut self, number: usize) -> bool {
        let (appends, open) = (number == 0, self.open.0);
        let writer = &mut self.writers[number];
        let input = self.random.usize(0..WORKERS);
        let waits = appends && writer.epoch > open;
        if writer.halted || writer.aligned[input] {
            return false;
        }
        match writer.inputs[input].pop_front_if(|item| !waits || matches!(item, Item::Barrier(_))) {
            Some(Item::Rows(rows)) if appends => self.open.1.extend(rows),
            Some(Item::Rows(rows)) => writer.rows.extend(rows),
            Some(Item::Barrier(barrier)) => {
                writer.aligned[input] = true;
                if writer.aligned.iter().all(|aligned| *aligned) {
                    writer.aligned.fill(false);
                    writer.epoch += 1;
                    writer.halted = barrier.halts();
                    let rows = std::mem::take(&mut writer.rows);
                    let tokens = if rows.is_empty() { vec![] } else { vec![Token(json!(rows))] };
                    let prepared = Prepared { tokens, ..Prepared::default() };
                    let handed = HandedOver { prepared, kept: Vec::new() };
                    self.events.push_back(Event::Prepared { epoch: barrier.epoch, writer: WriterId(number), handed });
                }
            }
            _ => return false,
        }
        true
    }

    fn coordinate(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Waiting => {
                let occasion = match self.events.pop_front() {
                    _ if self.stopping => Occasion::Stop,
                    Some(event) => {
                        self.rounds.note(event).unwrap();
                        Occasion::Progress
                    }
                    None if self.random.u8(0..10) == 0 => Occasion::Tick,
                    None => return false,
                };
                if let Some(barrier) = self.rounds.begin(occasion) {
                    self.processors.iter_mut().for_each(|task| task.barriers.push_back(barrier));
                    self.phase = Phase::Gathering;
                }
            }
            Phase::Gathering => {
                let event = self.events.pop_front();
                let noted = event.is_some();
                event.into_iter().for_each(|event| self.rounds.note(event).unwrap());
                self.phase = self.rounds.complete().map_or(Phase::Gathering, Phase::Committing);
                return noted;
            }
            Phase::Committing(round) => {
                self.commit(&round);
                self.phase = Phase::Publishing(round);
            }
            Phase::Publishing(round) => {
                self.durable.lake.append(&mut self.durable.tokens.clone());
                self.visible = true;
                for feed in &round.ended {
                    let source = self.intake_of(feed.0).unwrap();
                    self.ends.insert(source, self.durable.topics.get(&source).map_or(0, Vec::len));
                }
                if round.barrier.halts() {
                    self.phase = Phase::Confirming(round.barrier);
                }
            }
            Phase::Confirming(barrier) => {
                self.durable.tokens.clear();
                self.end_transaction();
                self.phase = Phase::Done(barrier);
            }
            done @ Phase::Done(_) => {
                self.phase = done;
                return false;
            }
        }
        true
    }

    fn commit(&mut self, round: &Round) {
        if std::mem::take(&mut self.visible) {
            self.durable.tokens.clear();
        }
        for (feed, split, position) in &round.reached {
            let (split, at) = (split.as_str().parse().unwrap(), position.0.as_u64().unwrap() as usize);
            self.durable.positions.insert((feed.0, split), at);
        }
        for token in round.prepared.values().flat_map(|handed| &handed.prepared.tokens) {
            let rows = serde_json::from_value(token.0.clone()).unwrap();
            self.durable.tokens.insert(round.barrier.epoch.0, rows);
        }
        self.end_transaction();
    }

    /// Commits the open transaction, and holds what is committed by then to what the positions cover.
    fn end_transaction(&mut self) {
        let (epoch, out, topics) = std::mem::take(&mut self.open);
        self.open.0 = epoch + 1;
        self.durable.epoch = epoch;
        self.durable.out.extend(out);
        topics.into_iter().for_each(|(source, rows)| self.durable.topics.entry(source).or_default().extend(rows));
        let (mut read, mut played) = (Vec::new(), BTreeMap::<usize, Vec<u32>>::new());
        for ((feed, split), at) in &self.durable.positions {
            let rows = self.content(*feed, *split).0[..*at].iter();
            match self.intake_of(*feed) {
                Some(source) => played.entry(source).or_default().extend(rows),
                None => read.extend(rows),
            }
        }
        let mut staged = self.durable.lake.clone();
        staged.append(&mut self.durable.tokens.clone());
        assert_eq!(sorted(&self.durable.out), sorted(&read), "the topic and the positions");
        assert_eq!(
            sorted(&staged.into_values().flatten().collect::<Vec<_>>()),
            sorted(&read),
            "the lake and the positions"
        );
        for (source, rows) in &self.durable.topics {
            let played = played.get(source).map_or(&[][..], Vec::as_slice);
            assert_eq!(sorted(rows), sorted(played), "the topic of source {source} and the positions");
        }
    }
}

fn sorted(rows: &[u32]) -> Vec<u32> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    rows
}

/// Runs a random pipeline to its end through stops and crashes; returns how many there were of each.
fn simulate(seed: u64) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = 0..;
    let sources: Vec<Source> = (0..random.usize(1..4))
        .map(|_| {
            let splits = (0..random.usize(1..4)).map(|_| next.by_ref().take(random.usize(0..12)).collect());
            let splits = splits.collect();
            Source { splits, through: random.bool() }
        })
        .collect();
    let mut durable = Durable::default();
    let (mut stops, mut crashes, mut idle) = (0, 0, 0);
    loop {
        let (stop_at, crash_at) = (random.usize(0..150), random.usize(0..300));
        let mut run = Run::start(&sources, &mut durable, &mut random);
        let mut steps = 0;
        let end = loop {
            if let Phase::Done(barrier) = &run.phase {
                break Some(*barrier);
            }
            if steps == crash_at {
                break None;
            }
            run.stopping |= steps == stop_at;
            match run.step() {
                true => (steps, idle) = (steps + 1, 0),
                false => idle += 1,
            }
            assert!(idle < 10_000, "seed {seed}: nobody can do anything");
        };
        match end {
            None => crashes += 1,
            Some(barrier) if !barrier.ends_input() => stops += 1,
            Some(_) => break,
        }
    }
    let all = sorted(&sources.iter().flat_map(|source| source.splits.iter().flatten().copied()).collect::<Vec<_>>());
    assert_eq!(sorted(&durable.out), all, "seed {seed}");
    assert_eq!(sorted(&durable.lake.into_values().flatten().collect::<Vec<_>>()), all, "seed {seed}");
    assert!(durable.tokens.is_empty(), "seed {seed}");
    (stops, crashes)
}

#[test]
fn what_is_committed_is_what_the_positions_cover_whatever_happens() {
    let seeds = if std::env::var_os("LOGMILL_TEST_LONG").is_some() { 20_000 } else { 400 };
    let (mut stops, mut crashes) = (0, 0);
    for seed in 0..seeds {
        let (stopped, crashed) = simulate(seed);
        stops += stopped;
        crashes += crashed;
    }
    assert!(stops > seeds as usize / 4 && crashes > seeds as usize / 4, "{stops} stops, {crashes} crashes");
}
