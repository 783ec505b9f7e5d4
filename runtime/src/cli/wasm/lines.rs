//! Lines of stdin as records, in batches: as many as are at hand, so that a keyboard or a pipe is answered at once.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use logmill_connectors::source::Records;

/// How many lines a batch has at most.
const BATCH_LINES: usize = 4096;
/// How many bytes are read at once, and so how many a batch has, about.
const BATCH_BYTES: usize = 1 << 20;

/// Reads batches of lines. The offset of a record is its line's number, from 1.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    next_line: i64,
    place: Arc<str>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(BATCH_BYTES, input), next_line: 1, place: "stdin".into() }
    }

    /// The next lines; nothing at the end. Empty lines are counted and left out.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Records>> {
        let mut records = Records { place: self.place.clone(), partition: -1, ..Records::default() };
        let mut buffer = Vec::new();
        loop {
            let start = buffer.len();
            if self.input.read_until(b'\n', &mut buffer)? == 0 {
                break;
            }
            let number = self.next_line;
            self.next_line += 1;
            while matches!(buffer.last(), Some(b'\n' | b'\r')) && buffer.len() > start {
                buffer.pop();
            }
            if buffer.len() > start {
                let range = |n: usize| u32::try_from(n).map_err(std::io::Error::other);
                records.values.push(Some(range(start)?..range(buffer.len())?));
                records.offsets.push(number);
            }
            // What is not at hand may be long in coming.
            let at_hand = self.input.buffer().contains(&b'\n');
            if !records.is_empty() && (!at_hand || records.len() >= BATCH_LINES) {
                break;
            }
        }
        records.first_line = records.offsets.first().copied().unwrap_or(0).unsigned_abs();
        records.buffer = Bytes::from(buffer);
        Ok((!records.is_empty()).then_some(records))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// The batches of a text, each line with its number.
    fn batches(text: &str) -> Vec<Vec<(i64, String)>> {
        let mut lines = Lines::new(text.as_bytes());
        let mut batches = Vec::new();
        while let Some(records) = lines.next().unwrap() {
            let line = |index: usize| String::from_utf8(records.value(index).unwrap().to_vec()).unwrap();
            batches.push((0..records.len()).map(|index| (records.offsets[index], line(index))).collect());
        }
        batches
    }

    #[test]
    fn lines_keep_their_numbers_though_empty_ones_are_left_out() {
        let owned = |lines: &[(i64, &str)]| lines.iter().map(|(n, text)| (*n, (*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(batches("a\n\nb\r\n \n"), [owned(&[(1, "a"), (3, "b"), (4, " ")])]);
        assert_eq!(batches("a\nlast"), [owned(&[(1, "a")]), owned(&[(2, "last")])]);
        assert!(batches("\n\n").is_empty());
        let many = batches(&"x\n".repeat(BATCH_LINES + 1));
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_LINES, 1]);
        assert_eq!(many[1], owned(&[(BATCH_LINES as i64 + 1, "x")]));
    }
}
