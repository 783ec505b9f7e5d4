//! Slices: whole batches where they lie, the same that reads return.

use logmill_protocol::{Offset, batches};
use proptest::prelude::*;

use super::{Partition, append, small};
use crate::conformance::batch;
use crate::{LogConfig, PartitionLog, SliceRequest, Sliced, StorageError};

fn request(from: i64, max_bytes: usize, up_to: Offset) -> SliceRequest {
    SliceRequest { from: Offset(from), up_to, max_bytes, first_whole: true, may_wait: true }
}

/// All slices from `from` on, each checked: whole batches, within its bounds.
fn slices(log: &PartitionLog, from: i64, max_bytes: usize, up_to: Offset) -> Vec<u8> {
    let (mut from, mut all) = (from, Vec::new());
    loop {
        let slice = match log.slice(request(from, max_bytes, up_to)).unwrap() {
            Sliced::Slice(slice) => slice,
            Sliced::Nothing => return all,
            Sliced::NotCached => panic!("it may wait"),
        };
        let bytes = slice.read().unwrap();
        let headers: Vec<_> = batches(&bytes).map(|b| *b.unwrap().header()).collect();
        assert!(bytes.len() <= max_bytes || headers.len() == 1, "{} bytes", bytes.len());
        assert_eq!(headers.last().unwrap().next_offset(), slice.next_offset());
        assert!(slice.next_offset() <= up_to);
        slice.load(0..slice.len()).unwrap();
        assert!(slice.is_cached(0..slice.len()));
        all.extend_from_slice(&bytes);
        from = slice.next_offset().0;
    }
}

fn read(log: &PartitionLog, from: i64, up_to: Offset) -> Vec<u8> {
    let (mut from, mut all) = (Offset(from), Vec::new());
    loop {
        let read = log.read(from, 1, up_to).unwrap();
        if read.bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&read.bytes);
        from = read.next_offset;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slices_hold_what_reads_return(
        sizes in prop::collection::vec(1..12usize, 1..60),
        from in 0..40i64,
        up_to in 0..400i64,
        max_bytes in 1..3000usize,
        index_interval_bytes in 0..1000u64,
        segment_bytes in 500..20_000u64,
    ) {
        let partition = Partition::new(LogConfig { index_interval_bytes, segment_bytes, ..small() });
        let (log, _) = partition.reopen();
        for size in sizes {
            append(&log, batch(0, size));
        }
        log.set_high_watermark(log.log_end());
        let (from, up_to) = (from.min(log.log_end().0), Offset(up_to).min(log.log_end()));
        let expected = read(&log, from, up_to);
        // From the indexes, then from where earlier reads ended, then from indexes that were released.
        prop_assert_eq!(&slices(&log, from, max_bytes, up_to), &expected);
        prop_assert_eq!(&slices(&log, from, max_bytes, up_to), &expected);
        log.close().unwrap();
        let (log, _) = partition.reopen();
        prop_assert_eq!(&slices(&log, from, max_bytes, up_to), &expected);
    }
}

#[test]
fn a_first_batch_that_is_too_large_is_left_out_if_others_came_before() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    append(&log, batch(0, 3));
    let end = log.log_end();
    let sliced = log.slice(SliceRequest { first_whole: false, ..request(0, 20, end) }).unwrap();
    assert!(matches!(sliced, Sliced::Nothing), "{sliced:?}");
    let sliced = log.slice(request(0, 20, end)).unwrap();
    assert!(matches!(&sliced, Sliced::Slice(slice) if slice.next_offset() == end), "{sliced:?}");
}

#[test]
fn what_is_outside_of_the_log_is_refused() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    append(&log, batch(0, 3));
    assert!(matches!(log.slice(request(3, 20, Offset(9))), Ok(Sliced::Nothing)));
    for from in [-1, 4] {
        let error = log.slice(request(from, 20, Offset(9))).unwrap_err();
        assert!(matches!(error, StorageError::OffsetOutOfRange { .. }), "{error}");
    }
}

#[test]
fn a_slice_outlives_its_segment() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    for _ in 0..40 {
        append(&log, batch(0, 5));
    }
    log.set_high_watermark(log.log_end());
    assert!(log.segment_count() > 2);
    let Sliced::Slice(slice) = log.slice(request(0, 300, log.log_end())).unwrap() else { panic!("no slice") };
    let before = slice.read().unwrap();
    log.delete_records_before(log.log_end()).unwrap();
    assert!(log.slice(request(0, 300, log.log_end())).is_err());
    assert_eq!(slice.read().unwrap(), before);
}

#[test]
fn what_was_just_written_is_cached() {
    let partition = Partition::new(small());
    let (log, _) = partition.reopen();
    append(&log, batch(0, 5));
    let sliced = log.slice(SliceRequest { may_wait: false, ..request(0, 300, log.log_end()) }).unwrap();
    assert!(matches!(sliced, Sliced::Slice(_)), "{sliced:?}");
}

#[test]
fn what_is_not_cached_is_left_to_those_who_may_wait() {
    let partition = Partition::new(LogConfig::default());
    let (log, _) = partition.reopen();
    for _ in 0..50 {
        append(&log, batch(0, 500));
    }
    log.sync().unwrap();
    let request = request(0, 1 << 20, log.log_end());
    let Sliced::Slice(whole) = log.slice(request).unwrap() else { panic!("no slice") };
    let expected = whole.read().unwrap();
    rustix::fs::fadvise(whole.file(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    // Some file systems keep it, or do not say.
    let is_cached = whole.is_cached(0..whole.len());
    let sliced = log.slice(SliceRequest { may_wait: false, ..request }).unwrap();
    assert_eq!(matches!(sliced, Sliced::NotCached), !is_cached, "{sliced:?}");
    let Sliced::Slice(slice) = log.slice(request).unwrap() else { panic!("no slice") };
    slice.load(0..slice.len()).unwrap();
    assert!(slice.is_cached(0..slice.len()));
    assert_eq!(slice.read().unwrap(), expected);
}
