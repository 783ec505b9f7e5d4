//! Kafka's plain (non-flexible) field encoding, as the records of internal topics use it.

use bytes::BufMut;

/// Why bytes are not what the schema says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// The bytes end within a field.
    #[error("the record ends within `{0}`")]
    Short(&'static str),
    /// A field holds what it cannot.
    #[error("field `{0}` has an impossible value")]
    Value(&'static str),
    /// A schema version this version does not read.
    #[error("the record has schema version {0}, which this version does not read")]
    Version(i16),
}

/// Takes fields off the front of a record.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self, name: &'static str) -> Result<[u8; N], WireError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short(name))?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn i8(&mut self, name: &'static str) -> Result<i8, WireError> {
        self.take::<1>(name).map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, name: &'static str) -> Result<i16, WireError> {
        self.take::<2>(name).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, name: &'static str) -> Result<i32, WireError> {
        self.take::<4>(name).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, name: &'static str) -> Result<i64, WireError> {
        self.take::<8>(name).map(i64::from_be_bytes)
    }

    /// A string, or null where its length is -1.
    pub(crate) fn nullable_string(&mut self, name: &'static str) -> Result<Option<String>, WireError> {
        let len = self.i16(name)?;
        if len < 0 {
            return Ok(None);
        }
        let (text, rest) = self.0.split_at_checked(len as usize).ok_or(WireError::Short(name))?;
        self.0 = rest;
        std::str::from_utf8(text).map(|text| Some(text.to_owned())).map_err(|_| WireError::Value(name))
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Result<String, WireError> {
        self.nullable_string(name)?.ok_or(WireError::Value(name))
    }

    /// The count of an array; null counts as empty.
    pub(crate) fn count(&mut self, name: &'static str) -> Result<usize, WireError> {
        let count = usize::try_from(self.i32(name)?).unwrap_or(0);
        // Each element takes a byte at least: what the record claims must not size an allocation.
        if count > self.0.len() { Err(WireError::Short(name)) } else { Ok(count) }
    }
}

/// The longest string that Kafka's format can hold, in bytes.
pub(crate) const MAX_STRING_LEN: usize = i16::MAX as usize;

/// Writes a string. Longer ones than Kafka's format can hold are refused before they get here; they would be cut.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    let text = text.get(..text.floor_char_boundary(MAX_STRING_LEN)).unwrap_or_default();
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

/// Writes a string or null.
pub(crate) fn put_nullable_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

/// Writes the count of an array.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}
