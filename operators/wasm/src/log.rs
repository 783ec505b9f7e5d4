//! Lines that guests log, at a rate that cannot hurt the log they go to.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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

/// Where the lines of a guest go. Called from within calls into the guest; must not block. All instances that are made with the
/// same log share one rate, however often they are replaced.
pub trait GuestLog: Send + Sync {
    /// Takes a line, without its line break, without control characters but for tabs, and at most 8 KiB long.
    fn line(&self, level: Level, message: &str);
}

/// Lines that the instances with one log may log at once; as many are given back a second.
const BURST_LINES: f64 = 100.0;
/// The longest line; the rest is cut off.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// How much of a line, and how many lines, of a guest's last words go into the error that follows them.
const MAX_LAST_WORDS_BYTES: usize = 300;
const MAX_LAST_WORDS: usize = 3;

/// An instance's way to its log: counts, cuts, and remembers the last words of a guest that is about to fail.
pub(crate) struct LogGate {
    rated: Arc<Rated>,
    log: Arc<dyn GuestLog>,
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
    fn new(rated: Arc<Rated>, log: Arc<dyn GuestLog>) -> LogGate {
        rated.lock().gates += 1;
        LogGate { rated, log, partial: [Vec::new(), Vec::new()], last_words: Vec::new() }
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
        let left_out = self.rated.lock().take_left_out(1.0);
        self.say_left_out(left_out);
    }

    /// What the guest logs: each line of it is one.
    pub(crate) fn log(&mut self, level: Level, message: &str) {
        message.lines().filter(|line| !line.trim().is_empty()).for_each(|line| self.line(level, line));
    }

    fn line(&mut self, level: Level, message: &str) {
        // Cut before it is read, and again as what stands for a control character is longer than it.
        let message = printable(cut(message.trim_end(), MAX_LINE_BYTES));
        let message = cut(&message, MAX_LINE_BYTES);
        if level == Level::Error {
            self.remember(message);
        }
        let Some(left_out) = self.rated.lock().take_line() else { return };
        self.say_left_out(left_out);
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

    fn say_left_out(&self, left_out: u64) {
        if left_out > 0 {
            let lines = if left_out == 1 { "line" } else { "lines" };
            self.log.line(Level::Warn, &format!("{left_out} {lines} of the guest left out"));
        }
    }
}

impl Drop for LogGate {
    fn drop(&mut self) {
        let left_out = {
            let mut rate = self.rated.lock();
            rate.gates = rate.gates.saturating_sub(1);
            // Nobody may come after the last one, so it says it on credit: once, until there is room again.
            if rate.gates == 0 { rate.take_left_out(0.0) } else { 0 }
        };
        self.say_left_out(left_out);
    }
}

/// The logs that instances were given, each with its rate, which outlives the instances: a guest that fails on every row is
/// replaced by new ones as often.
#[derive(Default)]
pub(crate) struct Logs(Mutex<Vec<Known>>);

struct Known {
    log: Weak<dyn GuestLog>,
    rated: Arc<Rated>,
}

impl Logs {
    /// A new instance's way to a log.
    pub(crate) fn gate(&self, log: Arc<dyn GuestLog>) -> LogGate {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.log.strong_count() > 0);
        // Nothing else can be at the address of a log that is held, even if weakly.
        let same = known.iter().find(|known| std::ptr::addr_eq(known.log.as_ptr(), Arc::as_ptr(&log)));
        let rated = match same {
            Some(same) => Arc::clone(&same.rated),
            None => {
                let rated = Arc::<Rated>::default();
                known.push(Known { log: Arc::downgrade(&log), rated: Arc::clone(&rated) });
                rated
            }
        };
        drop(known);
        LogGate::new(rated, log)
    }
}

/// The rate of a log.
#[derive(Default)]
struct Rated(Mutex<Rate>);

impl Rated {
    fn lock(&self) -> MutexGuard<'_, Rate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Rate {
    tokens: f64,
    filled: Instant,
    left_out: u64,
    /// Instances that are alive.
    gates: usize,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate { tokens: BURST_LINES, filled: Instant::now(), left_out: 0, gates: 0 }
    }
}

impl Rate {
    /// Whether a line may be logged, and if so how many were left out before it. If not, it is one of them.
    fn take_line(&mut self) -> Option<u64> {
        if !self.take_token(1.0) {
            self.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }

    /// How many lines were left out, if that may be said now.
    fn take_left_out(&mut self, least_tokens: f64) -> u64 {
        if self.left_out == 0 || !self.take_token(least_tokens) {
            return 0;
        }
        std::mem::take(&mut self.left_out)
    }

    fn take_token(&mut self, least_tokens: f64) -> bool {
        if self.tokens < 1.0 {
            let now = Instant::now();
            let earned = now.saturating_duration_since(self.filled).as_secs_f64() * BURST_LINES;
            self.tokens = (self.tokens + earned).min(BURST_LINES);
            self.filled = now;
        }
        if self.tokens < least_tokens {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// A text without what could move a terminal's cursor, turn the text around it, or pretend to be another line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |symbol: char| {
        let is_control = symbol.is_control() && symbol != '\t';
        // Marks of direction, and separators of lines.
        is_control
            || matches!(
                symbol,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
            )
    };
    match text.contains(harmful) {
        true => Cow::Owned(text.replace(harmful, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A text as one line, and without what could move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return printable(text);
    }
    let line = text.replace("\r\n", " ").replace(['\n', '\r'], " ");
    Cow::Owned(printable(&line).into_owned())
}

/// At most `max_bytes` of a text, cut between characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes { text } else { &text[..text.floor_char_boundary(max_bytes)] }
}
