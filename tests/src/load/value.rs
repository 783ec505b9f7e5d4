//! Values that say who sent them, where to, and as which of its records; and that show any damage.

use crate::checker::history::Value;

/// `<producer> <sequence> <partition> ` and letters up to `len` bytes that follow from the sequence.
pub fn encode(value: Value, partition: i32, len: usize) -> Vec<u8> {
    let mut bytes = format!("{} {} {partition} ", value.producer, value.sequence).into_bytes();
    let filler = len.saturating_sub(bytes.len());
    bytes.extend((0..filler as u64).map(|at| letter(value.sequence, at)));
    bytes
}

/// The value and the partition it was sent to, if every byte is as it was sent.
pub fn decode(bytes: &[u8]) -> Option<(Value, i32)> {
    let mut parts = bytes.splitn(4, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok();
    let value = Value { producer: number()?.parse().ok()?, sequence: number()?.parse().ok()? };
    let partition = number()?.parse().ok()?;
    let filler = parts.next()?;
    let intact = (0..).zip(filler).all(|(at, byte)| *byte == letter(value.sequence, at));
    intact.then_some((value, partition))
}

/// A value that stands for bytes that no producer sent: the checker calls it a phantom.
pub fn garbled(offset: i64) -> Value {
    Value { producer: u32::MAX, sequence: offset.unsigned_abs() }
}

fn letter(sequence: u64, at: u64) -> u8 {
    b'a' + u8::try_from((sequence + at * at) % 26).unwrap()
}

#[test]
fn values_come_back_and_damage_shows() {
    let value = Value { producer: 3, sequence: 12345 };
    let bytes = encode(value, 7, 100);
    assert_eq!(bytes.len(), 100);
    assert_eq!(decode(&bytes), Some((value, 7)));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_ne!(decode(&damaged), Some((value, 7)), "byte {at}");
    }
}
