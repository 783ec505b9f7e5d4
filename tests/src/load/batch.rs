//! Record batches and Produce requests byte by byte, for those that no client library would make.

use super::raw::{frame, string};

const PRODUCE: i16 = 0;

/// A batch of one record, between 1,000 and 2,000 ms in time.
pub fn batch(codec: i16, records: &[u8]) -> Vec<u8> {
    let mut checked = Vec::new();
    checked.extend(codec.to_be_bytes());
    // Last offset delta, first and last timestamp, no producer, one record.
    checked.extend(0_i32.to_be_bytes());
    checked.extend(1000_i64.to_be_bytes());
    checked.extend(2000_i64.to_be_bytes());
    checked.extend([0xff; 14]);
    checked.extend(1_i32.to_be_bytes());
    checked.extend(records);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend(i32::try_from(checked.len() + 9).unwrap().to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// A Produce request of one batch for partition 0.
pub fn produce_frame(topic: &str, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut body = [&[0xff, 0xff][..], &acks.to_be_bytes(), &[0, 1, 0, 0, 0, 0, 0, 1], &string(topic)].concat();
    body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend(i32::try_from(batch.len()).unwrap().to_be_bytes());
    body.extend(batch);
    frame(PRODUCE, 7, &body)
}

/// The error code of the answer to it, which names one topic and one partition before it.
pub fn produced(answer: &[u8], topic: &str) -> i16 {
    code_at(answer, topic)
}

/// The error code of an answer that names one topic and one partition before it.
pub fn code_at(answer: &[u8], topic: &str) -> i16 {
    let at = 4 + 2 + topic.len() + 4 + 4;
    i16::from_be_bytes(answer[at..at + 2].try_into().unwrap())
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}
