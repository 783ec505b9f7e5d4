//! The records of a batch, one after another, borrowed from its (decompressed) bytes.
//!
//! ```text
//! length  attributes  timestamp delta  offset delta  key        value      header count  headers
//! varint  1 byte      varlong          varint        len+bytes  len+bytes  varint        (key, value)*
//! ```

use std::borrow::Cow;

use crate::varint;
use crate::{BatchError, BatchHeader, Offset, Timestamp, TimestampType};

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its own time, or the batch's append time.
    pub timestamp: Timestamp,
    /// Its key; `None` is Kafka's null, not an empty key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is Kafka's null (a tombstone in a compacted topic).
    pub value: Option<&'a [u8]>,
    headers: HeaderIter<'a>,
}

impl<'a> RecordView<'a> {
    /// The record's headers, in order. A key may occur more than once. Nothing is decoded before it is asked for.
    #[must_use]
    pub fn headers(&self) -> HeaderIter<'a> {
        self.headers
    }
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Its key. Kafka means UTF-8 but no broker checks it.
    pub key: &'a [u8],
    /// Its value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

impl<'a> HeaderView<'a> {
    /// The key as text; bytes that are not UTF-8 become U+FFFD, as Kafka's own client does it.
    #[must_use]
    pub fn key_str(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }
}

/// Iterates over the headers of a record. Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
    left: i32,
}

impl HeaderIter<'_> {
    /// How many headers the record claims and this iterator has not yet returned.
    #[must_use]
    pub fn count_left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(0)
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Result<HeaderView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::RecordHeader("bytes follow the last header")));
        }
        self.left -= 1;
        let header = take_header(&mut self.rest);
        if header.is_err() {
            *self = Self { rest: &[], left: 0 };
        }
        Some(header.map_err(BatchError::RecordHeader))
    }
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Result<HeaderView<'a>, &'static str> {
    let key = take_bytes(rest, "its key runs past the record")?.ok_or("its key is null")?;
    let value = take_bytes(rest, "its value runs past the record")?;
    Ok(HeaderView { key, value })
}

/// Iterates over the records of a batch. Ends after the first error; bytes after the last record are one.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
    base_offset: Offset,
    last_offset_delta: i32,
    /// Offset delta of the record before, to see that they ascend.
    previous_delta: i32,
    base_timestamp: i64,
    append_time: Option<Timestamp>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(header: &BatchHeader, payload: &'a [u8]) -> Self {
        let append_time = match header.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Self {
            rest: payload,
            index: 0,
            count: header.record_count,
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            previous_delta: -1,
            base_timestamp: header.base_timestamp.0,
            append_time,
        }
    }

    /// The size in bytes of the records not yet returned, decompressed.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn take_record(&mut self) -> Result<RecordView<'a>, &'static str> {
        let len = varint::get_i32(&mut self.rest).map_err(|_| "its length is cut off or too long")?;
        let len = usize::try_from(len).map_err(|_| "its length is negative")?;
        let (mut body, rest) = self.rest.split_at_checked(len).ok_or("it runs past the batch")?;
        self.rest = rest;

        let (_attributes, after) = body.split_first().ok_or("it is empty")?;
        body = after;
        let timestamp_delta = varint::get_i64(&mut body).map_err(|_| "its timestamp is cut off or too long")?;
        let offset_delta = varint::get_i32(&mut body).map_err(|_| "its offset is cut off or too long")?;
        if offset_delta <= self.previous_delta {
            return Err("its offset does not ascend");
        }
        if offset_delta > self.last_offset_delta {
            return Err("its offset is beyond the batch's last");
        }
        self.previous_delta = offset_delta;

        let key = take_bytes(&mut body, "its key runs past it")?;
        let value = take_bytes(&mut body, "its value runs past it")?;
        let headers = varint::get_i32(&mut body).map_err(|_| "its header count is cut off or too long")?;
        match usize::try_from(headers) {
            Err(_) => return Err("its header count is negative"),
            // The smallest header takes two bytes: an empty key and a null value.
            Ok(count) if count > body.len() / 2 => return Err("it claims more headers than fit"),
            Ok(0) if !body.is_empty() => return Err("bytes follow its last field"),
            Ok(_) => {}
        }
        Ok(RecordView {
            offset: self.base_offset.plus(i64::from(offset_delta)),
            timestamp: self.append_time.unwrap_or(Timestamp(self.base_timestamp.wrapping_add(timestamp_delta))),
            key,
            value,
            headers: HeaderIter { rest: body, left: headers },
        })
    }

    fn stop(&mut self) {
        self.rest = &[];
        self.count = self.index;
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        if index >= self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.stop();
            return Some(Err(BatchError::Record { index, reason: "bytes follow the batch's last record" }));
        }
        self.index += 1;
        let record = self.take_record();
        if record.is_err() {
            self.stop();
        }
        Some(record.map_err(|reason| BatchError::Record { index, reason }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count.saturating_sub(self.index)).unwrap_or(0);
        // The smallest record takes 7 bytes: the header's count alone must not size an allocation. One more item
        // may report what is wrong at the end.
        (0, Some(left.min(self.rest.len() / MIN_RECORD_LEN).saturating_add(1)))
    }
}

/// Length, attributes, two deltas, null key, null value, header count: one byte each.
pub(crate) const MIN_RECORD_LEN: usize = 7;

/// Takes bytes prefixed with their length as a varint; `-1` is null.
#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8], too_long: &'static str) -> Result<Option<&'a [u8]>, &'static str> {
    let len = varint::get_i32(rest).map_err(|_| too_long)?;
    if len < 0 {
        // Kafka reads any negative length as null.
        return Ok(None);
    }
    let (bytes, after) = rest.split_at_checked(len as usize).ok_or(too_long)?;
    *rest = after;
    Ok(Some(bytes))
}
