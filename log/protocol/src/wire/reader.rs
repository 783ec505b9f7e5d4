//! A cursor over a message's bytes that knows its end, and how much a message may claim.

use std::ops::Range;

use crate::wire::{MAX_ELEMENTS, WireError};

/// Reads Kafka's primitive types. Every read is within bounds or an error; nothing is allocated.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Elements and tagged fields that may still be claimed.
    elements_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, elements_left: MAX_ELEMENTS }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// Takes the next `needed` bytes.
    #[inline]
    pub(super) fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.saturating_add(needed);
        match self.bytes.get(self.at..end) {
            Some(taken) => {
                self.at = end;
                Ok(taken)
            }
            None => Err(self.truncated(field, needed)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => Err(self.truncated(field, N)),
        }
    }

    #[cold]
    fn truncated(&self, field: &'static str, needed: usize) -> WireError {
        WireError::Truncated { field, at: self.at, needed, left: self.left() }
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, WireError> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, WireError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<uuid::Uuid, WireError> {
        self.array(field).map(uuid::Uuid::from_bytes)
    }

    /// An unsigned number in base 128, at most 32 bits.
    #[inline]
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u32, WireError> {
        // Nearly all lengths and counts are below 127.
        if let Some(byte) = self.bytes.get(self.at).filter(|byte| **byte < 0x80) {
            self.at += 1;
            return Ok(u32::from(*byte));
        }
        let begin = self.at;
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(field)?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint { field, at: begin })
    }

    /// A length or count: `N + 1` as a varint where it is compact, else a number of 2 or 4 bytes; `None` is null.
    #[inline]
    fn length(&mut self, field: &'static str, encoding: Length) -> Result<Option<usize>, WireError> {
        let at = self.at;
        let length = match encoding {
            Length::Compact => return Ok(self.varint(field)?.checked_sub(1).map(|length| length as usize)),
            Length::Short => i32::from(self.i16(field)?),
            Length::Long => self.i32(field)?,
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(WireError::NegativeLength { field, at, length }),
        }
    }

    /// Skips a string and returns where it lies; `None` is null.
    #[inline]
    pub(super) fn string(&mut self, field: &'static str, compact: bool) -> Result<Option<Range<usize>>, WireError> {
        let at = self.at;
        let encoding = if compact { Length::Compact } else { Length::Short };
        let Some(length) = self.length(field, encoding)? else { return Ok(None) };
        let begin = self.at;
        let text = self.take(field, length)?;
        if std::str::from_utf8(text).is_err() {
            return Err(WireError::Utf8 { field, at });
        }
        Ok(Some(begin..self.at))
    }

    /// Skips bytes and returns where they lie; `None` is null.
    #[inline]
    pub(super) fn bytes(&mut self, field: &'static str, compact: bool) -> Result<Option<Range<usize>>, WireError> {
        let encoding = if compact { Length::Compact } else { Length::Long };
        let Some(length) = self.length(field, encoding)? else { return Ok(None) };
        let begin = self.at;
        self.take(field, length)?;
        Ok(Some(begin..self.at))
    }

    /// The number of an array's elements, of which each takes `min_bytes` or more; `None` is null.
    #[inline]
    pub(super) fn count(
        &mut self,
        field: &'static str,
        compact: bool,
        min_bytes: usize,
    ) -> Result<Option<usize>, WireError> {
        let at = self.at;
        let encoding = if compact { Length::Compact } else { Length::Long };
        let Some(count) = self.length(field, encoding)? else { return Ok(None) };
        self.claim(field, at, count, min_bytes)?;
        Ok(Some(count))
    }

    /// The number of tagged fields, of which each takes 2 bytes or more.
    #[inline]
    pub(super) fn tag_count(&mut self) -> Result<usize, WireError> {
        let at = self.at;
        let count = self.varint(TAGS)? as usize;
        if count > 0 {
            self.claim(TAGS, at, count, 2)?;
        }
        Ok(count)
    }

    fn claim(&mut self, field: &'static str, at: usize, count: usize, min_bytes: usize) -> Result<(), WireError> {
        if count.saturating_mul(min_bytes) > self.left() {
            return Err(WireError::Count { field, at, count, left: self.left() });
        }
        let left = self.elements_left.checked_sub(count);
        self.elements_left = left.ok_or(WireError::TooManyElements { field, at })?;
        Ok(())
    }

    /// The head of a tagged field, whose value is within bounds: its tag and size. `before` is the tag before it.
    #[inline]
    pub(super) fn tag(&mut self, before: &mut Option<u32>) -> Result<(u32, usize), WireError> {
        let at = self.at;
        let tag = self.varint(TAGS)?;
        if before.is_some_and(|before| before >= tag) {
            return Err(WireError::TagOrder { tag, at });
        }
        *before = Some(tag);
        let size = self.varint(TAGS)? as usize;
        if size > self.left() {
            return Err(WireError::Truncated { field: TAGS, at, needed: size, left: self.left() });
        }
        Ok((tag, size))
    }

    /// Skips tagged fields of which none is known.
    pub(super) fn skip_tags(&mut self) -> Result<(), WireError> {
        let mut before = None;
        for _ in 0..self.tag_count()? {
            let (_, size) = self.tag(&mut before)?;
            self.take(TAGS, size)?;
        }
        Ok(())
    }
}

/// What tagged fields are called in errors.
const TAGS: &str = "tagged fields";

/// How lengths are written.
#[derive(Clone, Copy)]
enum Length {
    /// A varint of `length + 1`, 0 for null.
    Compact,
    /// Two bytes, -1 for null.
    Short,
    /// Four bytes, -1 for null.
    Long,
}
