//! Finds the characters of a scalar's value in the file: YAML strips indentation, folds lines and reads escapes, and a
//! mistake inside a value is to be shown where it was written.
//!
//! Every character that isn't blank stands in the file in the same order, so value and file are walked side by side:
//!
//! ```text
//!   file    |  sql: >\n····SELECT a\n····FROM t\n
//!   value   |              SELECT a     FROM t\n        runs of blanks match runs of blanks
//! ```

use crate::tree::{Place, Style};

/// One character that the file says, however it says it.
struct Written {
    character: char,
    at: usize,
    /// Written as an escape: a blank that isn't layout.
    escaped: bool,
}

impl Written {
    fn is_layout(&self) -> bool {
        self.character.is_whitespace() && !self.escaped
    }
}

/// For each character of a value, and for its end, the index of the character of the file that stands for it. `None` if
/// the two can't be matched.
pub(crate) fn align(chars: &[char], place: Place, style: Style, value: &str) -> Option<Vec<usize>> {
    let start = content_start(chars, place, style);
    let written = match style {
        Style::Single => single_quoted(chars, start, place.end),
        Style::Double => double_quoted(chars, start, place.end),
        Style::Plain | Style::Block => verbatim(chars, start, place.end),
    };
    let value: Vec<char> = value.chars().collect();
    let mut indices = Vec::with_capacity(value.len() + 1);
    let mut next = 0;
    while let Some(character) = value.get(indices.len()).copied() {
        if let Some(item) = written.get(next).filter(|item| item.escaped && item.character == character) {
            indices.push(item.at);
            next += 1;
            continue;
        }
        let layout = written.iter().skip(next).take_while(|item| item.is_layout()).count();
        if character.is_whitespace() {
            let blanks = blanks(value.get(indices.len()..)?, written.get(next + layout));
            if blanks == 0 {
                return None;
            }
            for nth in 0..blanks {
                let item = written.get(next + nth.min(layout.saturating_sub(1)));
                indices.push(item.map_or(place.end, |item| item.at));
            }
            next += layout;
        } else {
            next += layout;
            let item = written.get(next).filter(|item| item.character == character)?;
            indices.push(item.at);
            next += 1;
        }
    }
    let end = next.checked_sub(1).and_then(|last| written.get(last)).map_or(start, |item| item.at + 1);
    indices.push(written.get(next).map_or(end, |item| item.at));
    Some(indices)
}

/// How many of a value's characters are blanks that come before the next item of the file.
fn blanks(value: &[char], next: Option<&Written>) -> usize {
    let stop = next.filter(|item| item.escaped).map(|item| item.character);
    value.iter().take_while(|c| c.is_whitespace() && Some(**c) != stop).count()
}

/// Where the content begins: after an anchor, a tag, and the line of a block's indicator.
fn content_start(chars: &[char], place: Place, style: Style) -> usize {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\n');
    let mut start = place.start;
    while style != Style::Block && matches!(at(start), '&' | '!') || style == Style::Block && is_property(chars, start)
    {
        while start < place.end && !at(start).is_whitespace() {
            start += 1;
        }
        while start < place.end && at(start).is_whitespace() {
            start += 1;
        }
    }
    let after_property = start > place.start;
    if style == Style::Block && after_property && matches!(at(start), '|' | '>') {
        while start < place.end && at(start) != '\n' {
            start += 1;
        }
    }
    start
}

/// Whether an anchor or a tag of a block scalar stands here, and not its content: a block's content has a line of its own.
fn is_property(chars: &[char], start: usize) -> bool {
    let line = chars.iter().skip(start).take_while(|c| **c != '\n').collect::<String>();
    let before = chars.get(..start).unwrap_or_default().iter().rev().take_while(|c| **c != '\n');
    let own_line = before.clone().all(|c| c.is_whitespace());
    line.starts_with(['&', '!']) && !own_line
}

fn verbatim(chars: &[char], start: usize, end: usize) -> Vec<Written> {
    let part = chars.get(start..end).unwrap_or_default();
    part.iter().enumerate().map(|(i, c)| Written { character: *c, at: start + i, escaped: false }).collect()
}

fn single_quoted(chars: &[char], start: usize, end: usize) -> Vec<Written> {
    let mut items = verbatim(chars, start + 1, end.saturating_sub(1).max(start + 1));
    let mut after_quote = false;
    items.retain(|item| {
        after_quote = item.character == '\'' && !after_quote;
        !after_quote
    });
    items
}

fn double_quoted(chars: &[char], start: usize, end: usize) -> Vec<Written> {
    let mut items = Vec::new();
    let mut at = start + 1;
    let end = end.saturating_sub(1).min(chars.len());
    while at < end {
        let first = chars.get(at).copied().unwrap_or('"');
        if first != '\\' {
            items.push(Written { character: first, at, escaped: false });
            at += 1;
            continue;
        }
        let name = chars.get(at + 1).copied().unwrap_or('"');
        let digits = match name {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let hex: String = chars.iter().skip(at + 2).take(digits).collect();
        let character = match name {
            '\n' | '\r' => None,
            'x' | 'u' | 'U' => u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32),
            '0' => Some('\0'),
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            't' | '\t' => Some('\t'),
            'n' => Some('\n'),
            'v' => Some('\u{b}'),
            'f' => Some('\u{c}'),
            'r' => Some('\r'),
            'e' => Some('\u{1b}'),
            'N' => Some('\u{85}'),
            '_' => Some('\u{a0}'),
            'L' => Some('\u{2028}'),
            'P' => Some('\u{2029}'),
            other => Some(other),
        };
        if let Some(character) = character {
            items.push(Written { character, at, escaped: true });
        }
        at += 2 + digits;
    }
    items
}
