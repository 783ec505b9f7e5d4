//! Reads one partition: fetches record batches and hands out their records as byte ranges.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use logmill_protocol::{BatchError, BatchLimits, BatchView, Compression, ControlKind, Offset, ProducerId, RecordView};

use super::config::OnGap;
use super::source::{Ends, position};
use crate::error::{ConnectorError, LogError};
use crate::log::{FetchRequest, Fetched, Isolation, Log, TopicPartition};
use crate::source::{CHUNK_BYTES, Chunk, ChunkData, Reader, Records};

/// Room is made for this many headers of a record before they are seen; a record may claim any number.
const MAX_HEADERS: usize = 64;

/// Where a reader ends.
pub(super) enum End {
    /// It follows the partition.
    Never,
    /// Before this offset.
    At(Offset),
    /// Where it will be told.
    Told(Ends),
}

/// Reads one partition.
pub(super) struct TopicReader {
    log: Arc<dyn Log>,
    partition: TopicPartition,
    place: Arc<str>,
    /// The next offset to hand out.
    offset: Offset,
    end: End,
    isolation: Isolation,
    on_gap: OnGap,
    in_hand: Option<InHand>,
    scratch: Vec<u8>,
}

/// What was fetched and not handed out yet.
struct InHand {
    batches: Bytes,
    /// Where to read on after them.
    next_offset: Offset,
    /// Aborted transactions that have not begun yet, by first offset, and the producers of those that have.
    aborted: std::collections::VecDeque<(ProducerId, Offset)>,
    aborting: HashSet<ProducerId>,
}

impl TopicReader {
    /// Reads from `offset`.
    pub(super) fn new(
        log: Arc<dyn Log>,
        partition: TopicPartition,
        offset: Offset,
        end: End,
        isolation: Isolation,
        on_gap: OnGap,
    ) -> Self {
        let place = format!("{}-{}", partition.topic, partition.partition).into();
        Self { log, partition, place, offset, end, isolation, on_gap, in_hand: None, scratch: Vec::new() }
    }

    /// The end, exclusive, as far as it is known.
    fn end_offset(&self) -> Option<Offset> {
        match &self.end {
            End::Never => None,
            End::At(offset) => Some(*offset),
            End::Told(ends) => {
                let ends = ends.borrow();
                // A partition that is not named has nothing to read.
                ends.as_ref().map(|ends| Offset(ends.get(&self.partition.partition).copied().unwrap_or(0)))
            }
        }
    }

    /// Waits until there is more to read, or the end is told.
    async fn wait(&mut self) -> Result<(), ConnectorError> {
        let more = self.log.wait(&self.partition, self.offset, self.isolation);
        if let End::Told(ends) = &mut self.end {
            let told = async {
                // Nobody left to tell: then there is no end.
                if ends.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                more = more => more?,
                () = told => {}
            }
        } else {
            more.await?;
        }
        Ok(())
    }

    async fn fetch(&mut self) -> Result<bool, ConnectorError> {
        let request = FetchRequest {
            partition: self.partition.clone(),
            offset: self.offset,
            max_bytes: CHUNK_BYTES,
            isolation: self.isolation,
        };
        match self.log.fetch(&request).await {
            Ok(Fetched { batches, next_offset, aborted, .. }) => {
                if batches.is_empty() {
                    return Ok(false);
                }
                let aborted = aborted.into();
                self.in_hand = Some(InHand { batches, next_offset, aborted, aborting: HashSet::new() });
                Ok(true)
            }
            Err(LogError::OffsetOutOfRange { offset, log_start, .. }) if offset < log_start => match self.on_gap {
                OnGap::Skip => {
                    tracing::warn!(partition = %self.place, offset, log_start, "records were deleted before they were read");
                    self.offset = Offset(log_start);
                    Ok(true)
                }
                OnGap::Stop => Err(ConnectorError::Data {
                    place: self.place.to_string(),
                    message: format!(
                        "the records from offset {offset} to {log_start} were deleted before they were read; keep them \
                         for longer, or accept the gap with `on_gap: skip`"
                    ),
                }),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Turns what is in hand into a chunk of about `CHUNK_BYTES`, at least one batch.
    fn cut(&mut self, end: Option<Offset>) -> Result<Option<Chunk>, ConnectorError> {
        let Some(mut in_hand) = self.in_hand.take() else { return Ok(None) };
        let (place, offset) = (self.place.clone(), self.offset);
        let damaged = move |error: BatchError| ConnectorError::Data {
            place: format!("{place} after offset {offset}"),
            message: format!("a record batch is damaged: {error}"),
        };
        let mut gathered: Option<Gathered> = None;
        let mut bytes_read = 0;
        while !in_hand.batches.is_empty() {
            let bytes = in_hand.batches.clone();
            let (batch, rest) = BatchView::parse(&bytes).map_err(&damaged)?;
            let compressed = batch.header().compression().map_err(&damaged)? != Compression::None;
            let gathered = match &mut gathered {
                // A chunk has one buffer: what was fetched, or what was decompressed.
                Some(gathered) if gathered.bytes >= CHUNK_BYTES || (compressed && gathered.fetched.is_some()) => break,
                Some(gathered) => gathered,
                none => none.insert(Gathered::new((!compressed).then(|| bytes.clone()))),
            };
            batch.verify_crc().map_err(&damaged)?;
            let (length, next) = (bytes.len() - rest.len(), batch.header().next_offset());
            if in_hand.is_visible(&batch).map_err(&damaged)? {
                let from = self.offset;
                let wanted = |offset: Offset| offset >= from && end.is_none_or(|end| offset < end);
                gathered.add(&batch, &mut self.scratch, wanted).map_err(&damaged)?;
            }
            bytes_read += length as u64;
            in_hand.batches.advance(length);
            self.offset = self.offset.max(next);
        }
        if in_hand.batches.is_empty() {
            self.offset = self.offset.max(in_hand.next_offset);
        } else {
            self.in_hand = Some(in_hand);
        }
        if let Some(end) = end.filter(|end| self.offset >= *end) {
            self.offset = end;
            self.in_hand = None;
        }
        let gathered = gathered.unwrap_or_else(|| Gathered::new(None));
        let records = gathered.into_records(self.partition.partition, self.place.clone());
        Ok(Some(Chunk { data: ChunkData::Records(records), position: position(self.offset), bytes_read }))
    }
}

impl InHand {
    /// Whether a reader sees the batch's records: as Kafka's consumer decides it, by the list of aborted transactions
    /// and the markers on the way.
    fn is_visible(&mut self, batch: &BatchView<'_>) -> Result<bool, BatchError> {
        let header = batch.header();
        while let Some((producer, _)) = self.aborted.pop_front_if(|(_, first)| *first <= header.last_offset()) {
            self.aborting.insert(producer);
        }
        if header.is_control() {
            if batch.control_record().is_ok_and(|marker| marker.kind == ControlKind::Abort) {
                self.aborting.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(!(header.is_transactional() && self.aborting.contains(&header.producer_id)))
    }
}

#[async_trait]
impl Reader for TopicReader {
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        loop {
            let end = self.end_offset();
            if end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            if let Some(chunk) = self.cut(end)? {
                return Ok(Some(chunk));
            }
            if !self.fetch().await? {
                self.wait().await?;
            }
        }
    }
}

/// Records being gathered for a chunk. Those of uncompressed batches stay where they were fetched to.
struct Gathered {
    /// What was fetched, which ranges point into; `None` if the batches are compressed.
    fetched: Option<Bytes>,
    /// What ranges point into otherwise.
    copied: Vec<u8>,
    records: Records,
    bytes: usize,
}

impl Gathered {
    fn new(fetched: Option<Bytes>) -> Self {
        Self { fetched, copied: Vec::new(), records: Records::default(), bytes: 0 }
    }

    fn add(
        &mut self,
        batch: &BatchView<'_>,
        scratch: &mut Vec<u8>,
        wanted: impl Fn(Offset) -> bool,
    ) -> Result<(), BatchError> {
        for record in batch.records(scratch, &BatchLimits::STORED)? {
            let record = record?;
            if wanted(record.offset) {
                self.push(&record)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, record: &RecordView<'_>) -> Result<(), BatchError> {
        let index = self.records.values.len();
        let value = record.value.map(|value| self.range(value));
        self.records.values.push(value);
        self.records.offsets.push(record.offset.0);
        self.records.timestamps.push(record.timestamp.0);
        // Columns that stay empty until a record has one: most topics have no headers, many no keys.
        if let Some(key) = record.key {
            let key = self.range(key);
            self.records.keys.resize(index, None);
            self.records.keys.push(Some(key));
        }
        if record.headers().count_left() > 0 {
            let mut headers = Vec::with_capacity(record.headers().count_left().min(MAX_HEADERS));
            for header in record.headers() {
                let header = header?;
                headers.push((self.range(header.key), header.value.map(|value| self.range(value))));
            }
            self.records.headers.resize(index, Vec::new());
            self.records.headers.push(headers);
        }
        Ok(())
    }

    fn range(&mut self, bytes: &[u8]) -> Range<u32> {
        self.bytes += bytes.len();
        let start = match &self.fetched {
            // A slice of the fetched bytes: its place in them is the distance of the addresses.
            Some(fetched) => (bytes.as_ptr() as usize).saturating_sub(fetched.as_ptr() as usize),
            None => {
                self.copied.extend_from_slice(bytes);
                self.copied.len() - bytes.len()
            }
        };
        // A fetch is one batch of at most 2 GiB, or about `CHUNK_BYTES`.
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        at(start)..at(start + bytes.len())
    }

    fn into_records(self, partition: i32, place: Arc<str>) -> Records {
        let Self { fetched, copied, mut records, .. } = self;
        if !records.keys.is_empty() {
            records.keys.resize(records.values.len(), None);
        }
        if !records.headers.is_empty() {
            records.headers.resize(records.values.len(), Vec::new());
        }
        records.buffer = fetched.unwrap_or_else(|| copied.into());
        Records { partition, place, ..records }
    }
}
