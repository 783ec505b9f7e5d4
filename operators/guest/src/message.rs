//! Records as a transform sees them: read where they lie, in the packed form of `transform/PACKED.md`.
//!
//! ```text
//! bytes    u32 length (0xffff_ffff: null), bytes
//! message  i64 timestamp (smallest: none), bytes key, bytes value, u32 headers, (bytes name, bytes value) each
//! input    u32 messages, message each
//! ```

use serde::Deserialize;

pub(crate) const NULL: u32 = u32::MAX;
pub(crate) const NO_TIMESTAMP: i64 = i64::MIN;

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    timestamp: i64,
    pub(crate) header_count: u32,
    pub(crate) headers: &'a [u8],
}

impl<'a> Message<'a> {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The record's value: the text or bytes of an input of one such column, else a JSON object of the row.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Microseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn timestamp_us(&self) -> Option<i64> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    /// The headers in their order; a name may occur more than once.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers { left: self.header_count, rest: self.headers }
    }

    /// The last header of this name, as consumers of Kafka understand it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().filter(|(found, _)| *found == name).last().and_then(|(_, value)| value)
    }

    /// The value as JSON. Text in it can be borrowed: as a `Cow` with `#[serde(borrow)]`, or as a `&'a str`, which fails on a
    /// text with escapes in it. No value is read as `null`.
    ///
    /// # Errors
    /// What does not fit, and where.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, String> {
        let value = self.value.unwrap_or(b"null");
        // One check of the whole is faster than one of every text in it.
        let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The value as text; no value is the empty text.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, String> {
        std::str::from_utf8(self.value.unwrap_or_default()).map_err(|error| error.to_string())
    }
}

/// The headers of a message.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // They were measured when the message was read; what cannot be read now ends the list.
        let name = take_bytes(&mut self.rest).ok()??;
        let value = take_bytes(&mut self.rest).ok()?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// Reads the packed messages one after the other.
#[derive(Debug)]
pub(crate) struct Messages<'a> {
    pub(crate) count: u32,
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn new(mut packed: &'a [u8]) -> Result<Self, String> {
        let count = take_u32(&mut packed)?;
        Ok(Messages { count, rest: packed })
    }

    pub(crate) fn next(&mut self) -> Result<Message<'a>, String> {
        let rest = &mut self.rest;
        let timestamp = i64::from_le_bytes(take(rest)?);
        let key = take_bytes(rest)?;
        let value = take_bytes(rest)?;
        let header_count = take_u32(rest)?;
        let start = *rest;
        for _ in 0..header_count {
            take_bytes(rest)?;
            take_bytes(rest)?;
        }
        let headers = &start[..start.len() - rest.len()];
        Ok(Message { key, value, timestamp, header_count, headers })
    }

    /// Of a result: the message an entry comes from and the output that a message follows for; none: a text follows.
    pub(crate) fn entry(&mut self) -> Result<(u32, Option<u16>), String> {
        let index = take_u32(&mut self.rest)?;
        match take::<1>(&mut self.rest)? {
            [0] => Ok((index, Some(u16::from_le_bytes(take(&mut self.rest)?)))),
            _ => Ok((index, None)),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8], String> {
        Ok(take_bytes(&mut self.rest)?.unwrap_or_default())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, left) = rest.split_first_chunk().ok_or("the packed messages end early")?;
    *rest = left;
    Ok(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, String> {
    Ok(u32::from_le_bytes(take(rest)?))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
    let length = take_u32(rest)?;
    if length == NULL {
        return Ok(None);
    }
    let (taken, left) = rest.split_at_checked(length as usize).ok_or("the packed messages end early")?;
    *rest = left;
    Ok(Some(taken))
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.extend_from_slice(&NULL.to_le_bytes()),
        Some(bytes) => {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}
