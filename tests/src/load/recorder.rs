//! Writes down what clients do and see, on one clock.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::checker::history::{Event, History, Outcome, Partition, Process, Time};

/// Takes down a history.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    processes: Mutex<Vec<Arc<Recording>>>,
}

/// One process of it.
#[derive(Debug)]
pub struct Recording {
    start: Instant,
    process: Mutex<Process>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), processes: Mutex::default() }
    }
}

impl Recorder {
    /// A process that begins now.
    pub fn process(&self, name: impl Into<String>, group: Option<&str>) -> Arc<Recording> {
        let group = group.map(str::to_owned);
        let process = Process { name: name.into(), group, ..Process::default() };
        let recording = Arc::new(Recording { start: self.start, process: Mutex::new(process) });
        self.processes.lock().unwrap().push(Arc::clone(&recording));
        recording
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        let processes = self.processes.lock().unwrap();
        History { processes: processes.iter().map(|recording| recording.process.lock().unwrap().clone()).collect() }
    }
}

impl Recording {
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap())
    }

    /// Adds an event; its number serves to complete it.
    pub fn push(&self, event: Event) -> usize {
        let events = &mut self.process.lock().unwrap().events;
        events.push(event);
        events.len() - 1
    }

    /// How a send ended.
    pub fn complete_send(&self, number: usize, outcome: Outcome, offset: Option<i64>) {
        match &mut self.process.lock().unwrap().events[number] {
            Event::Send(send) => (send.outcome, send.offset) = (outcome, offset),
            event => panic!("event {number} is no send: {event:?}"),
        }
    }

    /// How a commit ended.
    pub fn complete_commit(&self, number: usize, outcome: Outcome) {
        match &mut self.process.lock().unwrap().events[number] {
            Event::Commit(commit) => commit.outcome = outcome,
            event => panic!("event {number} is no commit: {event:?}"),
        }
    }
}

/// A partition of a topic.
pub fn partition(topic: &Arc<str>, index: i32) -> Partition {
    Partition { topic: Arc::clone(topic), index }
}
