//! Internal topics: where a key's records go, how they are written, read back at start, and kept short.

use std::sync::Arc;

use bytes::BytesMut;
use logmill_protocol::{
    BatchBuilder, BatchLimits, BatchOptions, BatchView, ControlKind, Offset, ProducerId, Timestamp, batches,
};

use logmill_storage::StorageError;

use crate::batches::Stamp;
use crate::error::{BrokerError, Result};
use crate::offline::Slot;
use crate::partition::Partition;
use crate::types::{OfflinePartition, TopicPartition};

/// Bytes read at once during replay.
const READ_BYTES: usize = 1 << 20;
/// Records are written in batches of about this many bytes.
const BATCH_BYTES: usize = 256 << 10;
/// A log with fewer records than this is never rewritten.
const MIN_RECORDS_TO_REWRITE: i64 = 10_000;
/// A log is rewritten when it has this many times as many records as are alive.
const DEAD_PER_LIVE: i64 = 4;

/// The partition that holds the records of a group or transactional id, as Kafka chooses it:
/// `abs(String.hashCode()) % partitions`.
pub(crate) fn partition_of<'a>(id: &str, partitions: &'a [Slot]) -> Result<&'a Arc<Partition>> {
    let hash = id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's abs: that of the smallest number is 0.
    let hash = hash.checked_abs().unwrap_or(0) as usize;
    let index = hash.checked_rem(partitions.len()).unwrap_or(0);
    partitions.get(index).ok_or(BrokerError::Closed)?.get()
}

/// A record to be written: key, and value or tombstone.
pub(crate) type KeyValue = (Vec<u8>, Option<Vec<u8>>);

/// Appends records; in one batch, and as part of a transaction, if there is a stamp.
pub(crate) fn append(
    partition: &Partition,
    records: impl IntoIterator<Item = KeyValue>,
    stamp: Option<Stamp>,
    now: Timestamp,
) -> Result<()> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let fail = |error| BrokerError::batch(partition.name(), &error);
    for (key, value) in records {
        builder.append(now, Some(&key), value.as_deref(), &[]).map_err(fail)?;
        if stamp.is_none() && builder.size_bytes() >= BATCH_BYTES {
            append_batch(partition, &mut builder, None, now)?;
        }
    }
    append_batch(partition, &mut builder, stamp, now)
}

fn append_batch(partition: &Partition, builder: &mut BatchBuilder, stamp: Option<Stamp>, now: Timestamp) -> Result<()> {
    let Some(batch) = builder.finish() else { return Ok(()) };
    let mut batch = BytesMut::from(batch);
    if let Some(stamp) = stamp {
        crate::batches::stamp(&mut batch, stamp).map_err(|error| BrokerError::batch(partition.name(), &error))?;
    }
    partition.append(&mut batch, now).map(drop)
}

/// What replay meets.
pub(crate) enum Entry<'a> {
    /// A record, of a producer's transaction if it has one.
    Record { key: &'a [u8], value: Option<&'a [u8]>, producer: Option<ProducerId> },
    /// The end of a producer's transaction.
    Marker { producer: ProducerId, commit: bool },
}

/// Reads the partition from its start to its end, passing over what is lost. Every batch is verified first, so that
/// a record with a flipped bit is not applied.
fn replay<E>(partition: &Partition, mut apply: impl FnMut(Entry<'_>) -> Result<(), E>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let log = partition.log();
    partition.stored(log.find_damage())?;
    let mut scratch = Vec::new();
    let mut next = log.log_start();
    while next < log.log_end() {
        let read = match log.read(next, READ_BYTES, log.log_end()) {
            Err(StorageError::Lost { from, to, .. }) => {
                tracing::error!(partition = %partition.name(), %from, %to, "what these records said is lost, going on without");
                next = to;
                continue;
            }
            read => partition.stored(read)?,
        };
        for batch in batches(&read.bytes) {
            let batch = batch.map_err(|error| BrokerError::batch(partition.name(), &error))?;
            replay_batch(partition, &batch, next, &mut scratch, &mut apply)?;
        }
        if read.next_offset <= next {
            let context = format!("partition {} cannot be read to its end", partition.name());
            return Err(BrokerError::corrupt(context, format!("stuck at offset {next}")));
        }
        next = read.next_offset;
    }
    Ok(())
}

/// Replays the partitions that are open. One that cannot be read or understood is taken offline, and returned: half of what it
/// says is not what it says.
pub(crate) fn replay_all<E>(
    partitions: &mut [Slot],
    take_offline: impl Fn(&TopicPartition, &BrokerError) -> Option<Slot>,
    mut apply: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Vec<Arc<OfflinePartition>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut failed = Vec::new();
    for slot in partitions {
        let Slot::Online(partition) = slot else { continue };
        let Err(error) = replay(partition, &mut apply) else { continue };
        let Some(Slot::Offline(offline)) = take_offline(partition.name(), &error) else { continue };
        *slot = Slot::Offline(Arc::clone(&offline));
        failed.push(offline);
    }
    failed
}

fn replay_batch<E>(
    partition: &Partition,
    batch: &BatchView<'_>,
    from: Offset,
    scratch: &mut Vec<u8>,
    apply: &mut impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let fail = |error| BrokerError::batch(partition.name(), &error);
    let unreadable = |error: E| {
        let base = batch.header().base_offset;
        BrokerError::corrupt(format!("partition {}: the batch at offset {base} is not ours", partition.name()), error)
    };
    let producer = batch.header().producer_id;
    if batch.header().is_control() {
        let commit = batch.control_record().map_err(fail)?.kind == ControlKind::Commit;
        return apply(Entry::Marker { producer, commit }).map_err(unreadable);
    }
    let producer = batch.header().is_transactional().then_some(producer);
    for record in batch.records(scratch, &BatchLimits::STORED).map_err(fail)? {
        let record = record.map_err(fail)?;
        if record.offset >= from {
            let entry = Entry::Record { key: record.key.unwrap_or_default(), value: record.value, producer };
            apply(entry).map_err(unreadable)?;
        }
    }
    Ok(())
}

/// Whether the log has so many more records than are alive that it should be rewritten.
pub(crate) fn is_bloated(partition: &Partition, live_records: usize) -> bool {
    let records = partition.log().log_end().0 - partition.log().log_start().0;
    let live = i64::try_from(live_records).unwrap_or(i64::MAX);
    records >= MIN_RECORDS_TO_REWRITE && records / DEAD_PER_LIVE >= live
}
