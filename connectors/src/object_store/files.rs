//! The open files of one shard: rows in; finished files, parts to upload and carried rows out. Synchronous, no runtime.
//!
//! ```text
//!   write ─▶ waiting rows ─▶ chunk ─▶ cut by partition ─▶ one encoder a partition ─▶ temporary file | parts
//!                              │       └▶ refused rows ◀──┘
//!                              └▶ what is left of it: carried delta
//!            any file full ─▶ roll: every open file is finished, nothing is carried any more
//! ```
//!
//! All the open files roll together. Carried state can only be voided as a whole, so that rolling one partition alone
//! would mean to hand over the rows of all the others again, each time.
//!
//! Chunks are numbered from 0 since the last roll that was handed over. A finished file knows the chunks that its rows
//! are among, so it can be made again from the rows that the engine keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};

use super::carried::{Carried, Delta, decode};
use super::config::{Compression, Roll};
use super::encode::FileFormat;
use super::limits;
use super::local::{LocalFile, LocalTarget};
use super::open_file::{Finished, OpenFile, Output, Part};
use super::partition::{CheckFolder, Partitioner};
use super::waiting::{Chunk, Waiting};
use crate::error::{BoxError, ConnectorError};
use crate::sink::{Attempt, OpenWriter, RefusedRows, Taken};

/// The time since some fixed moment; monotonic. Injected, so that tests decide when files are old.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Rows are encoded this many at a time: small batches cut into partitions would leave the encoders little to work on.
const CHUNK_ROWS: usize = 64 << 10;

/// Rows waiting to be encoded take at most about this many bytes.
const WAITING_BYTES: usize = 8 << 20;

/// Unfinished row groups take at most about this many bytes together; beyond, the largest are ended early.
const ENCODER_BYTES: usize = 32 << 20;

/// Bytes that wait to become a part of an upload, together; beyond, the files are finished early.
const PART_BUFFER_BYTES: usize = 64 << 20;

/// The most partitions open at once; beyond, the files are finished early.
const MAX_OPEN_FILES: usize = 256;

/// The most partitions remembered between two rolls, those among them whose rows are refused; beyond, the files are
/// finished early.
const MAX_PARTITIONS: usize = 16 << 10;

/// Threads that sync finished files side by side: the file system then shares one journal commit among them.
const SYNC_THREADS: usize = 8;

/// What the files of a sink are like.
pub(super) struct FileSpec {
    pub(super) format: FileFormat,
    pub(super) compression: Option<Compression>,
    pub(super) roll: Roll,
    pub(super) partition_by: Vec<String>,
    /// The columns, after `coerce_schema`.
    pub(super) schema: SchemaRef,
    pub(super) clock: Clock,
    /// Part of every name, so that two sinks of one run can share a folder.
    pub(super) tag: String,
}

/// Where files are written while they are not visible.
#[derive(Clone)]
pub(super) enum Target {
    /// Temporary files.
    Local(LocalTarget),
    /// Parts, for the caller to upload.
    Parts {
        /// The sink's folder in the bucket: empty, or ending in a slash.
        prefix: String,
    },
}

impl Target {
    fn check_folder(&self) -> CheckFolder {
        match self.clone() {
            Self::Local(target) => Box::new(move |folder| limits::check_local(target.root(), folder)),
            Self::Parts { prefix } => Box::new(move |folder| limits::check_key(&prefix, folder)),
        }
    }
}

/// What the end of an epoch yields.
pub(super) struct EpochEnd {
    /// The files finished in it.
    pub(super) finished: Vec<Finished>,
    /// The rows to carry, and to keep.
    pub(super) delta: Delta,
    /// The rows refused since the last `write`.
    pub(super) refused: Vec<RefusedRows>,
    /// How many rows are carried.
    pub(super) carried_rows: u64,
}

/// The open files of one shard.
pub(super) struct Files {
    spec: Arc<FileSpec>,
    target: Target,
    /// `part-<shard>`, and the sink's tag with the attempt: every name begins and ends with them.
    names: (String, String),
    epoch: CheckpointEpoch,
    next_file: u64,
    partitioner: Partitioner,
    /// By the partition's number.
    open: BTreeMap<usize, OpenFile>,
    waiting: Waiting,
    carried: Carried,
    /// The number of the next chunk.
    next_chunk: u64,
    /// The number that it had at the last roll: the chunks before are in finished files.
    rolled_chunks: u64,
    first_row: Option<Duration>,
    full: bool,
    rolled: bool,
    finished: Vec<Finished>,
    parts: Vec<Part>,
    refused: Vec<RefusedRows>,
}

impl Files {
    /// No files yet: names are made of the shard, the attempt and, at first, the epoch.
    pub(super) fn new(
        spec: Arc<FileSpec>,
        target: Target,
        shard: u32,
        attempt: &Attempt,
        epoch: CheckpointEpoch,
    ) -> Result<Self, ConnectorError> {
        let attempt: String = attempt.0.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let check = target.check_folder();
        Ok(Self {
            names: (format!("part-{shard:05}"), format!("{}-{attempt}", spec.tag)),
            epoch,
            next_file: 0,
            partitioner: Partitioner::new(&spec.schema, &spec.partition_by, check).map_err(row_error)?,
            open: BTreeMap::new(),
            waiting: Waiting::default(),
            carried: Carried::new(),
            next_chunk: 0,
            rolled_chunks: 0,
            first_row: None,
            full: false,
            rolled: false,
            finished: Vec::new(),
            parts: Vec::new(),
            refused: Vec::new(),
            spec,
            target,
        })
    }

    /// Opens a shard and puts the carried rows into files again.
    pub(super) fn open(spec: Arc<FileSpec>, target: Target, open: &OpenWriter) -> Result<Self, ConnectorError> {
        let mut files = Self::new(spec, target, open.shard, &open.attempt, open.epoch)?;
        // None of the files may roll before the last delta is back: a roll voids all of them.
        for delta in &open.carried {
            for rows in files.carried.restore(delta, &files.spec.schema)? {
                files.encode(&Chunk::of_kept(rows))?;
                files.next_chunk += 1;
            }
        }
        if files.next_file > 0 {
            files.first_row = Some((files.spec.clock)());
        }
        // Rows that the destination took when they were carried and refuses now are in the state: it is to end.
        if files.full || !files.refused.is_empty() {
            files.roll()?;
        }
        Ok(files)
    }

    /// Takes rows.
    pub(super) fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError> {
        if batch.num_rows() > 0 {
            let rows = coerce(&batch.rows, &self.spec.schema)?;
            self.first_row.get_or_insert_with(|| (self.spec.clock)());
            self.waiting.push(rows, batch.origin);
            let due = self.is_due();
            self.encode_waiting(due)?;
            if due {
                self.roll()?;
            }
        }
        Ok(Taken { refused: std::mem::take(&mut self.refused), kept: self.carried.take_kept() })
    }

    /// Ends the epoch; `last` finishes every file.
    pub(super) fn prepare(&mut self, last: bool) -> Result<EpochEnd, ConnectorError> {
        self.encode_waiting(true)?;
        if last || self.is_due() || self.carried.must_roll() {
            self.roll()?;
        }
        self.sync()?;
        let delta = self.carried.hand_over(self.rolled)?;
        if std::mem::take(&mut self.rolled) {
            let before = std::mem::take(&mut self.rolled_chunks);
            self.next_chunk -= before;
            self.open.values_mut().for_each(|open| open.renumber(before));
        }
        self.epoch = self.epoch.next();
        Ok(EpochEnd {
            finished: std::mem::take(&mut self.finished),
            delta,
            refused: std::mem::take(&mut self.refused),
            carried_rows: self.open.values().map(|file| file.rows).sum(),
        })
    }

    /// Puts those kept rows into files again whose folder and chunk are wanted. Kept rows come in their order.
    pub(super) fn remake(&mut self, kept: &[u8], wanted: &dyn Fn(&str, u64) -> bool) -> Result<(), ConnectorError> {
        for rows in decode(kept, &self.spec.schema)? {
            self.encode_wanted(&Chunk::of_kept(rows), wanted)?;
            self.next_chunk += 1;
        }
        // Rows that are refused now were refused when they came.
        self.refused.clear();
        Ok(())
    }

    /// Finishes the files that were made again.
    pub(super) fn finish_remade(&mut self) -> Result<Vec<Finished>, ConnectorError> {
        self.finish_open()?;
        self.sync()?;
        Ok(std::mem::take(&mut self.finished))
    }

    /// Parts that are ready to be uploaded.
    pub(super) fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    fn is_due(&self) -> bool {
        self.first_row.is_some_and(|first| (self.spec.clock)().saturating_sub(first) >= self.spec.roll.every.0)
    }

    fn encode_waiting(&mut self, all: bool) -> Result<(), ConnectorError> {
        while self.waiting.rows() > 0 {
            let chunk_rows = self.chunk_rows();
            if !all && self.waiting.rows() < chunk_rows && self.waiting.bytes() < WAITING_BYTES {
                break;
            }
            let chunk = self.waiting.take(chunk_rows, &self.spec.schema).map_err(row_error)?;
            let refused = self.encode(&chunk)?;
            let good = chunk.without(&refused).map_err(row_error)?;
            if good.num_rows() > 0 {
                self.carried.push(&good)?;
                self.next_chunk += 1;
            }
            if self.full {
                self.roll()?;
            }
        }
        if self.waiting.rows() > 0 {
            self.first_row.get_or_insert_with(|| (self.spec.clock)());
        }
        Ok(())
    }

    /// How many rows to encode at once, so that files don't grow far beyond a limit on rows.
    fn chunk_rows(&self) -> usize {
        let Some(limit) = self.spec.roll.rows else { return CHUNK_ROWS };
        let filled = if self.partitioner.is_single() { self.open.values().map(|file| file.rows).sum() } else { 0 };
        usize::try_from(limit.saturating_sub(filled)).unwrap_or(CHUNK_ROWS).clamp(1, CHUNK_ROWS)
    }

    fn encode(&mut self, chunk: &Chunk) -> Result<Vec<u32>, ConnectorError> {
        self.encode_wanted(chunk, &|_, _| true)
    }

    /// Puts the rows of a chunk into files, those of folders that are wanted; returns the numbers of the rows that are
    /// refused.
    fn encode_wanted(&mut self, chunk: &Chunk, wanted: &dyn Fn(&str, u64) -> bool) -> Result<Vec<u32>, ConnectorError> {
        let cut = self.partitioner.cut(&chunk.rows).map_err(row_error)?;
        let mut numbers = Vec::new();
        for (mut of_folder, reason) in cut.refused.iter().cloned() {
            self.refused.extend(chunk.refuse(&of_folder, &reason).map_err(row_error)?);
            numbers.append(&mut of_folder);
        }
        for part in &cut.parts {
            if !wanted(self.partitioner.folder(part.partition), self.next_chunk) {
                continue;
            }
            if self.open.len() >= MAX_OPEN_FILES && !self.open.contains_key(&part.partition) {
                // What is carried stays valid until the chunk is through: only then the roll is complete.
                self.finish_open()?;
                self.full = true;
            }
            let mut open = match self.open.remove(&part.partition) {
                Some(open) => open,
                None => self.create(part.partition)?,
            };
            for (row, reason) in open.write(&part.rows, self.next_chunk, &mut self.parts)? {
                let number = cut.row_number(part, row);
                self.refused.extend(chunk.refuse(&[number], &reason).map_err(row_error)?);
                numbers.push(number);
            }
            let roll = &self.spec.roll;
            self.full |= open.size_bytes() >= roll.bytes.0 || roll.rows.is_some_and(|rows| open.rows >= rows);
            // A file without rows is none, unless it had some before.
            if open.rows > 0 {
                self.open.insert(part.partition, open);
            }
        }
        self.full |= self.partitioner.seen() > MAX_PARTITIONS;
        self.bound_memory()?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn create(&mut self, partition: usize) -> Result<OpenFile, ConnectorError> {
        let file = self.next_file;
        self.next_file += 1;
        let (begin, end) = &self.names;
        let extension = self.spec.format.extension(self.spec.compression);
        let name = format!("{begin}-{:010}-{file:06}-{end}.{extension}", self.epoch.0);
        let encoder = self.spec.format.encoder(self.spec.compression, self.partitioner.file_schema())?;
        let output = match &self.target {
            Target::Local(target) => Output::Local(target.create(&name)?),
            Target::Parts { .. } => Output::Parts(Vec::new()),
        };
        let name = format!("{}{name}", self.partitioner.folder(partition));
        let batches = self.next_chunk..self.next_chunk;
        Ok(OpenFile { file, name, encoder, output, rows: 0, bytes: 0, batches })
    }

    /// Ends the largest row groups, and rolls where parts pile up.
    fn bound_memory(&mut self) -> Result<(), ConnectorError> {
        let mut sizes: Vec<(usize, usize)> =
            self.open.iter().map(|(partition, open)| (open.encoder.memory(), *partition)).collect();
        let mut total: usize = sizes.iter().map(|(size, _)| size).sum();
        sizes.sort_unstable();
        while total > ENCODER_BYTES
            && let Some((size, partition)) = sizes.pop()
        {
            if let Some(open) = self.open.get_mut(&partition) {
                open.flush(&mut self.parts)?;
            }
            total -= size;
        }
        let buffered: usize = self.open.values().map(OpenFile::buffered).sum();
        self.full |= buffered > PART_BUFFER_BYTES;
        Ok(())
    }

    /// Finishes every open file; nothing is carried any more.
    fn roll(&mut self) -> Result<(), ConnectorError> {
        self.finish_open()?;
        self.carried.finish()?;
        self.partitioner.forget();
        self.first_row = None;
        self.full = false;
        self.rolled = true;
        self.rolled_chunks = self.next_chunk;
        Ok(())
    }

    fn finish_open(&mut self) -> Result<(), ConnectorError> {
        for open in std::mem::take(&mut self.open).into_values() {
            self.finished.push(open.finish(&mut self.parts)?);
        }
        // Bounds the files that are open and not synced yet.
        if self.finished.len() >= MAX_OPEN_FILES { self.sync_finished() } else { Ok(()) }
    }

    /// Makes finished files and their names durable.
    fn sync(&mut self) -> Result<(), ConnectorError> {
        self.sync_finished()?;
        match &self.target {
            Target::Local(target) if !self.finished.is_empty() => target.sync_staging(),
            _ => Ok(()),
        }
    }

    fn sync_finished(&mut self) -> Result<(), ConnectorError> {
        let mut unsynced: Vec<&mut LocalFile> =
            self.finished.iter_mut().filter_map(|finished| finished.local.as_mut()).collect();
        if let [only] = unsynced.as_mut_slice() {
            return only.sync();
        }
        let share = unsynced.len().div_ceil(SYNC_THREADS).max(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = unsynced
                .chunks_mut(share)
                .map(|files| scope.spawn(move || files.iter_mut().try_for_each(|file| file.sync())))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(ConnectorError::io(
                        "cannot sync files",
                        std::io::Error::other("a thread that synced them died"),
                    ))
                })
            })
        })
    }
}

/// The columns as files hold them: nanoseconds, which SQL's functions yield, become microseconds.
pub(super) fn coerce_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let coerced = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            Arc::new(Field::new(field.name(), coerced, field.is_nullable()))
        }
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn coerce(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ConnectorError> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>().map_err(row_error)?).map_err(row_error)
}

fn row_error(error: impl Into<BoxError>) -> ConnectorError {
    ConnectorError::Permanent { context: "rows do not fit the sink's columns".into(), source: error.into() }
}
