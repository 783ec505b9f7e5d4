//! A cursor over one JSON text: finds where values end, and checks that they are JSON, without building anything.

use std::fmt;

use crate::scalar::Number;

/// How deep lists and objects may nest in one record.
const MAX_DEPTH: usize = 128;

/// Why a value could not be taken.
#[derive(Debug)]
pub struct Problem(pub String);

impl Problem {
    /// Something else was expected.
    #[cold]
    pub fn expected(what: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self(format!("expected {what}, found {found}"))
    }
}

/// Where we are in a JSON text.
#[derive(Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    /// The index of the next byte.
    pub at: usize,
}

/// A string as it stands in the text, without its quotes.
#[derive(Clone, Copy, Debug)]
pub struct RawString<'a> {
    /// What stands between the quotes.
    pub bytes: &'a [u8],
    /// Whether there are escapes in it: [`unescape`] them.
    pub escaped: bool,
}

/// The lowest bit of each byte, and the highest.
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that is equal to `byte`; bytes after the first such may be marked wrongly.
#[inline]
fn marks(word: u64, byte: u8) -> u64 {
    let difference = word ^ (LOW * u64::from(byte));
    difference.wrapping_sub(LOW) & !difference & HIGH
}

impl<'a> Cursor<'a> {
    /// At the start of a text.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte, 0 at the end.
    #[inline]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// The text from here on.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The text from `start` to here.
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Skips white space.
    #[inline]
    pub fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes `text` if it comes next.
    #[inline]
    pub fn take(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Takes `byte`, with white space around it.
    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        self.space();
        if self.peek() != byte {
            return Err(Problem::expected(format_args!("`{}`", char::from(byte)), self.found()));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// What comes next, in words.
    #[cold]
    pub fn found(&self) -> String {
        match self.bytes.get(self.at) {
            None => "the end of the record".into(),
            Some(b'"') => "a string".into(),
            Some(b'{') => "an object".into(),
            Some(b'[') => "a list".into(),
            Some(b't' | b'f') => "a boolean".into(),
            Some(b'n') => "null".into(),
            Some(b'-' | b'0'..=b'9') => {
                let end =
                    self.rest().iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
                let text = self.rest().get(..end.unwrap_or(self.rest().len()).min(40)).unwrap_or_default();
                format!("the number {}", String::from_utf8_lossy(text))
            }
            Some(byte) => format!("`{}`", byte.escape_ascii()),
        }
    }

    /// Takes a string; the cursor stands on its opening quote.
    #[inline]
    pub fn string(&mut self) -> Result<RawString<'a>, Problem> {
        if self.peek() != b'"' {
            return Err(Problem::expected("a string", self.found()));
        }
        let start = self.at + 1;
        let (mut at, mut escaped) = (start, false);
        loop {
            // Eight bytes at a time, up to the first quote or backslash.
            while let Some(word) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
                let word = u64::from_le_bytes(*word);
                let found = marks(word, b'"') | marks(word, b'\\');
                if found != 0 {
                    at += (found.trailing_zeros() / 8) as usize;
                    break;
                }
                at += 8;
            }
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => return Err(Problem("the record ends inside of a string".into())),
            }
        }
        self.at = at + 1;
        Ok(RawString { bytes: self.bytes.get(start..at).unwrap_or_default(), escaped })
    }

    /// Takes a number.
    #[inline]
    pub fn number(&mut self, wanted: &'static str) -> Result<Number<'a>, Problem> {
        let number = Number::read(self.rest()).ok_or_else(|| Problem::expected(wanted, self.found()))?;
        self.at += number.text.len();
        Ok(number)
    }

    /// Takes `null` if it comes next.
    #[inline]
    pub fn null(&mut self) -> bool {
        self.peek() == b'n' && self.take(b"null")
    }

    /// Takes any value.
    #[inline]
    pub fn skip(&mut self) -> Result<(), Problem> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_nested(0),
            _ => self.skip_scalar(),
        }
    }

    #[inline]
    fn skip_scalar(&mut self) -> Result<(), Problem> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number("a value").map(drop),
            b'n' if self.take(b"null") => Ok(()),
            b't' if self.take(b"true") => Ok(()),
            b'f' if self.take(b"false") => Ok(()),
            _ => Err(Problem::expected("a value", self.found())),
        }
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), Problem> {
        if depth >= MAX_DEPTH {
            return Err(Problem(format!("nests more than {MAX_DEPTH} deep")));
        }
        let object = self.peek() == b'{';
        let close = if object { b'}' } else { b']' };
        self.at += 1;
        self.space();
        if self.peek() == close {
            self.at += 1;
            return Ok(());
        }
        loop {
            if object {
                self.string()?;
                self.expect(b':')?;
            }
            match self.peek() {
                b'{' | b'[' => self.skip_nested(depth + 1)?,
                b'"' => self.string().map(drop)?,
                _ => self.skip_scalar()?,
            }
            if !self.more(close)? {
                return Ok(());
            }
        }
    }

    /// After a member: takes a comma and says that more follow, or takes `close`.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool, Problem> {
        self.space();
        let next = self.peek();
        if next == b',' {
            self.at += 1;
            self.space();
            return Ok(true);
        }
        if next == close {
            self.at += 1;
            return Ok(false);
        }
        Err(Problem::expected(format_args!("`,` or `{}`", char::from(close)), self.found()))
    }
}

/// Holds the strings of a JSON text to the grammar, beyond what stepping over them does: escapes are known ones, and control
/// characters stand only between values. The text is known to be JSON otherwise.
pub(crate) fn check_strings(text: &[u8]) -> Result<(), Problem> {
    if !text.iter().any(|byte| *byte < 0x20 || *byte == b'\\') {
        return Ok(());
    }
    let (mut at, mut is_inside) = (0, false);
    while let Some(byte) = text.get(at) {
        at += match (byte, is_inside) {
            (b'"', _) => {
                is_inside = !is_inside;
                1
            }
            (b'\\', true) => match text.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                Some(b'u') if text.get(at + 2..at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => 6,
                _ => return Err(Problem("a string of the JSON text has an unknown escape".into())),
            },
            (0..0x20, true) => {
                return Err(Problem(format!(
                    "a string of the JSON text holds the control character `{}`, which must be escaped",
                    byte.escape_ascii()
                )));
            }
            _ => 1,
        };
    }
    Ok(())
}

/// Appends what a string with escapes stands for.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        let escape = rest.get(at + 1).copied().unwrap_or(0);
        rest = rest.get(at + 2..).unwrap_or_default();
        out.push(match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (symbol, after) = unicode(rest)?;
                rest = after;
                out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            other => return Err(Problem(format!("unknown escape `\\{}`", other.escape_ascii()))),
        });
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The character of four hexadecimal digits, or of a pair of surrogates, and what comes after.
fn unicode(text: &[u8]) -> Result<(char, &[u8]), Problem> {
    let unit = |text: &[u8]| {
        let digits = text.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let wrong = || Problem("a `\\u` escape is not a character".into());
    let first = unit(text).ok_or_else(wrong)?;
    let rest = text.get(4..).unwrap_or_default();
    if !(0xd800..0xdc00).contains(&first) {
        return Ok((char::from_u32(first).ok_or_else(wrong)?, rest));
    }
    let second = rest.strip_prefix(b"\\u").and_then(unit).filter(|unit| (0xdc00..0xe000).contains(unit));
    let second = second.ok_or_else(wrong)?;
    let symbol = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Ok((char::from_u32(symbol).ok_or_else(wrong)?, rest.get(6..).unwrap_or_default()))
}
