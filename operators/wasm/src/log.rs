//! Lines that guests log, at a rate that cannot hurt the log they go to.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Of use while a guest is written.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something went wrong.
    Error,
}

/// Where the lines of a guest go. Called from within calls into the guest; must not block.
pub trait GuestLog: Send + Sync {
    /// Takes a line, without its line break and at most 8 KiB long.
    fn line(&self, level: Level, message: &str);
}

/// Lines that an instance may log at once; as many are given back a second.
const BURST_LINES: f64 = 100.0;
/// The longest line; the rest is cut off.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// How much of a line, and how many lines, of a guest's last words go into the error that follows them.
const MAX_LAST_WORDS_BYTES: usize = 300;
const MAX_LAST_WORDS: usize = 3;

/// An instance's way to its log: counts, cuts, and remembers the last words of a guest that is about to fail.
pub(crate) struct LogGate {
    log: Arc<dyn GuestLog>,
    tokens: f64,
    filled: Instant,
    left_out: u64,
    /// Incomplete lines of stdout and of stderr.
    partial: [Vec<u8>; 2],
    last_words: Vec<String>,
}

/// The two streams that a guest's runtime may write to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl LogGate {
    pub(crate) fn new(log: Arc<dyn GuestLog>) -> LogGate {
        let partial = [Vec::new(), Vec::new()];
        LogGate { log, tokens: BURST_LINES, filled: Instant::now(), left_out: 0, partial, last_words: Vec::new() }
    }

    /// A new call begins: what was said before explains nothing of it.
    pub(crate) fn begin_call(&mut self) {
        self.last_words.clear();
    }

    /// A call has ended: incomplete lines are lines now, and what was left out is said once there is room.
    pub(crate) fn end_call(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.stream_line(stream, &rest);
            }
        }
        if self.left_out > 0 && self.take_token() {
            self.say_left_out();
        }
    }

    /// What the guest logs: each line of it is one.
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        message.lines().filter(|line| !line.trim().is_empty()).for_each(|line| self.line(level, line));
    }

    fn line(&mut self, level: Level, message: &str) {
        let message = &printable(cut(message.trim_end(), MAX_LINE_BYTES));
        if level == Level::Error {
            self.remember(message);
        }
        if !self.take_token() {
            self.left_out += 1;
            return;
        }
        if self.left_out > 0 {
            self.say_left_out();
        }
        self.log.line(level, message);
    }

    /// Bytes that the guest's runtime wrote to a stream: each line of them is a line of the log.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let partial = &mut self.partial[stream as usize];
            let room = MAX_LINE_BYTES.saturating_sub(partial.len());
            partial.extend_from_slice(text.get(..room).unwrap_or(text));
            if ended {
                let mut line = std::mem::take(&mut self.partial[stream as usize]);
                self.stream_line(stream, &line);
                line.clear();
                self.partial[stream as usize] = line;
            }
        }
    }

    /// What the guest said last as an error or on stderr during this call.
    pub(crate) fn last_words(&self) -> Option<String> {
        (!self.last_words.is_empty()).then(|| self.last_words.join(" "))
    }

    fn remember(&mut self, line: &str) {
        let line = line.trim();
        // What Rust's panics end with, which tells nobody anything here.
        if line.is_empty() || line.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        if self.last_words.len() == MAX_LAST_WORDS {
            self.last_words.remove(0);
        }
        self.last_words.push(cut(line, MAX_LAST_WORDS_BYTES).to_owned());
    }

    fn stream_line(&mut self, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            return;
        }
        if stream == Stream::Stderr {
            self.line(Level::Warn, &line);
            self.remember(&line);
        } else {
            self.line(Level::Info, &line);
        }
    }

    fn say_left_out(&mut self) {
        let lines = if self.left_out == 1 { "line" } else { "lines" };
        self.log.line(Level::Warn, &format!("{} {lines} of the guest left out", self.left_out));
        self.left_out = 0;
    }

    fn take_token(&mut self) -> bool {
        if self.tokens < 1.0 {
            let now = Instant::now();
            let earned = now.saturating_duration_since(self.filled).as_secs_f64() * BURST_LINES;
            self.tokens = (self.tokens + earned).min(BURST_LINES);
            self.filled = now;
        }
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

impl Drop for LogGate {
    fn drop(&mut self) {
        if self.left_out > 0 {
            self.say_left_out();
        }
    }
}

/// A text without what could move a terminal's cursor, or pretend to be another line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |symbol: char| symbol.is_control() && symbol != '\t';
    match text.contains(harmful) {
        true => Cow::Owned(text.replace(harmful, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// At most `max_bytes` of a text, cut between characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes { text } else { &text[..text.floor_char_boundary(max_bytes)] }
}
