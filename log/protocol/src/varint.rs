//! Variable-length integers as Kafka writes them: base-128 groups, low group first, signed values zig-zagged.
//!
//! Records use the signed ones (`put_i32`, `put_i64`); flexible protocol messages use the unsigned one (`put_u32`).

use bytes::BufMut;

/// Most bytes a 32-bit value takes.
pub const MAX_LEN_32: usize = 5;
/// Most bytes a 64-bit value takes.
pub const MAX_LEN_64: usize = 10;

/// Why bytes are not a varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end before the varint does.
    #[error("variable-length integer is cut off")]
    Truncated,
    /// The varint does not fit its type.
    #[error("variable-length integer is too long for its type")]
    Overflow,
}

/// Bytes [`put_u64`] writes for `value`.
#[inline]
#[must_use]
pub const fn len_u64(value: u64) -> usize {
    // One byte for each started group of 7 significant bits; zero still takes one.
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

/// Bytes [`put_i64`] writes for `value`.
#[inline]
#[must_use]
pub const fn len_i64(value: i64) -> usize {
    len_u64(zigzag_64(value))
}

/// Bytes [`put_i32`] writes for `value`.
#[inline]
#[must_use]
pub const fn len_i32(value: i32) -> usize {
    len_u64(zigzag_32(value) as u64)
}

/// Writes an unsigned value.
#[inline]
pub fn put_u64(buf: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Writes an unsigned value (Kafka's "unsigned varint").
#[inline]
pub fn put_u32(buf: &mut impl BufMut, value: u32) {
    put_u64(buf, u64::from(value));
}

/// Writes a zig-zagged value (Kafka's "varint").
#[inline]
pub fn put_i32(buf: &mut impl BufMut, value: i32) {
    put_u64(buf, u64::from(zigzag_32(value)));
}

/// Writes a zig-zagged value (Kafka's "varlong").
#[inline]
pub fn put_i64(buf: &mut impl BufMut, value: i64) {
    put_u64(buf, zigzag_64(value));
}

/// Reads an unsigned 64-bit value and moves `bytes` past it; on an error `bytes` is unchanged.
#[inline]
pub fn get_u64(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    // One byte is by far the commonest length: deltas, short lengths, counts.
    if let Some((&first, rest)) = bytes.split_first()
        && first < 0x80
    {
        *bytes = rest;
        return Ok(u64::from(first));
    }
    get_long(bytes)
}

/// Reads an unsigned 32-bit value and moves `bytes` past it; on an error `bytes` is unchanged.
#[inline]
pub fn get_u32(bytes: &mut &[u8]) -> Result<u32, VarintError> {
    let mut rest = *bytes;
    let value = u32::try_from(get_u64(&mut rest)?).map_err(|_| VarintError::Overflow)?;
    *bytes = rest;
    Ok(value)
}

/// Reads a zig-zagged 32-bit value and moves `bytes` past it; on an error `bytes` is unchanged.
#[inline]
pub fn get_i32(bytes: &mut &[u8]) -> Result<i32, VarintError> {
    let raw = get_u32(bytes)?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a zig-zagged 64-bit value and moves `bytes` past it; on an error `bytes` is unchanged.
#[inline]
pub fn get_i64(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    let raw = get_u64(bytes)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn get_long(bytes: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(MAX_LEN_64).enumerate() {
        let group = u64::from(byte & 0x7f);
        let shift = 7 * at as u32;
        // The tenth byte has room for one bit only.
        if shift == 63 && group > 1 {
            return Err(VarintError::Overflow);
        }
        value |= group << shift;
        if byte < 0x80 {
            *bytes = bytes.get(at + 1..).unwrap_or_default();
            return Ok(value);
        }
    }
    Err(if bytes.len() >= MAX_LEN_64 { VarintError::Overflow } else { VarintError::Truncated })
}

/// A few varints in a row on the stack, to be copied in one go: cheaper than growing a buffer byte by byte.
pub(crate) struct Stack {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Stack {
    const CAPACITY: usize = 32;

    /// Takes up to 32 bytes; what is written beyond is lost, so callers add up the longest of each part.
    #[inline]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    #[inline]
    pub(crate) fn i32(&mut self, value: i32) {
        self.u64(u64::from(zigzag_32(value)));
    }

    #[inline]
    pub(crate) fn i64(&mut self, value: i64) {
        self.u64(zigzag_64(value));
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
}

const fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

const fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signed_values_encode_as_kafkas_own_tests_say() {
        let check = |value: i64, expected: &[u8]| {
            let mut bytes = Vec::new();
            put_i64(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
            assert_eq!(len_i64(value), expected.len(), "{value}");
            assert_eq!(get_i64(&mut &bytes[..]), Ok(value));
            if let Ok(small) = i32::try_from(value) {
                let mut bytes = Vec::new();
                put_i32(&mut bytes, small);
                assert_eq!(bytes, expected, "{value}");
                assert_eq!(len_i32(small), expected.len(), "{value}");
                assert_eq!(get_i32(&mut &bytes[..]), Ok(small));
            }
        };
        check(0, &[0x00]);
        check(-1, &[0x01]);
        check(1, &[0x02]);
        check(63, &[0x7e]);
        check(-64, &[0x7f]);
        check(64, &[0x80, 0x01]);
        check(-65, &[0x81, 0x01]);
        check(8191, &[0xfe, 0x7f]);
        check(-8192, &[0xff, 0x7f]);
        check(8192, &[0x80, 0x80, 0x01]);
        check(i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        check(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn cut_and_overlong_values_are_errors_and_leave_the_input_alone() {
        let check = |bytes: &[u8], expected| {
            let mut rest = bytes;
            assert_eq!(get_u64(&mut rest), Err(expected));
            assert_eq!(rest, bytes);
        };
        check(&[], VarintError::Truncated);
        check(&[0x80], VarintError::Truncated);
        check(&[0xff; 9], VarintError::Truncated);
        check(&[0xff; 10], VarintError::Overflow);
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], VarintError::Overflow);

        let six_bytes = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        let mut rest = &six_bytes[..];
        assert_eq!(get_u32(&mut rest), Err(VarintError::Overflow));
        assert_eq!(rest, six_bytes);
    }

    #[test]
    fn the_stack_writes_what_the_buffer_does() {
        for value in [0, -1, 1, 300, -70_000, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let mut stack = Stack::new();
            stack.byte(7);
            stack.i64(value);
            stack.i32(value as i32);
            let mut expected = vec![7];
            put_i64(&mut expected, value);
            put_i32(&mut expected, value as i32);
            assert_eq!(stack.as_slice(), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_value_reads_back_and_only_its_bytes_are_taken(value: u64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, value);
            prop_assert_eq!(bytes.len(), len_u64(value));
            bytes.extend_from_slice(&tail);
            let mut rest = &bytes[..];
            prop_assert_eq!(get_u64(&mut rest), Ok(value));
            prop_assert_eq!(rest, &tail[..]);
        }
    }
}
