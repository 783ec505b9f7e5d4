//! The open files of one shard: rows in; finished files, parts to upload and carried rows out. Synchronous, no runtime.
//!
//! ```text
//!   write ─▶ pending rows ─▶ chunk ─┬▶ carried delta
//!                                   └▶ cut by partition ─▶ one encoder a partition ─▶ temporary file | parts
//!            any file full ─▶ roll: every open file is finished, nothing is carried any more
//! ```
//!
//! All the open files roll together. Carried state can only be voided as a whole, so that rolling one partition alone
//! would mean to hand over the rows of all the others again, each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use logmill_pipelines::flow::CheckpointEpoch;

use super::carried::{Carried, Delta};
use super::config::{Compression, Roll};
use super::encode::{FileEncoder, FileFormat};
use super::local::{LocalFile, LocalTarget};
use super::partition::Partitioner;
use crate::error::{BoxError, ConnectorError};
use crate::sink::{OpenWriter, Written};

/// The time since some fixed moment; monotonic. Injected, so that tests decide when files are old.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Rows are encoded this many at a time: small batches cut into partitions would leave the encoders little to work on.
const CHUNK_ROWS: usize = 64 << 10;

/// Rows waiting to be encoded take at most about this many bytes.
const PENDING_BYTES: usize = 8 << 20;

/// Unfinished row groups take at most about this many bytes together; beyond, the largest are ended early.
const ENCODER_BYTES: usize = 32 << 20;

/// Bytes that wait to become a part of an upload, together; beyond, the files are finished early.
const PART_BUFFER_BYTES: usize = 64 << 20;

/// The size of an upload's parts, in bytes; S3 wants 5 MiB at least.
pub(super) const PART_BYTES: usize = 5 << 20;

/// The most partitions open at once; beyond, the files are finished early.
const MAX_OPEN_FILES: usize = 256;

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
pub(super) enum Target {
    /// Temporary files.
    Local(LocalTarget),
    /// Parts, for the caller to upload.
    Parts,
}

/// A piece of an upload, in order for each file.
pub(super) struct Part {
    /// The file's number.
    pub(super) file: u64,
    /// The file's name, from the sink's folder.
    pub(super) name: String,
    /// The piece.
    pub(super) bytes: Bytes,
}

/// A whole file.
pub(super) struct Finished {
    /// The file's number.
    pub(super) file: u64,
    /// Its name, from the sink's folder.
    pub(super) name: String,
    /// Its rows.
    pub(super) rows: u64,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// The temporary file, if it was written to one.
    pub(super) local: Option<LocalFile>,
}

/// What the end of an epoch yields.
pub(super) struct EpochEnd {
    /// The files finished in it.
    pub(super) finished: Vec<Finished>,
    /// The rows to carry.
    pub(super) delta: Delta,
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
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    carried: Carried,
    first_row: Option<Duration>,
    full: bool,
    rolled: bool,
    finished: Vec<Finished>,
    parts: Vec<Part>,
    written: Written,
}

struct OpenFile {
    file: u64,
    name: String,
    encoder: FileEncoder,
    output: Output,
    rows: u64,
    bytes: u64,
}

enum Output {
    Local(LocalFile),
    Parts(Vec<u8>),
}

impl Files {
    /// Opens a shard and puts the carried rows into files again.
    pub(super) fn open(spec: Arc<FileSpec>, target: Target, open: &OpenWriter) -> Result<Self, ConnectorError> {
        let attempt: String = open.attempt.0.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let mut files = Self {
            names: (format!("part-{:05}", open.shard), format!("{}-{attempt}", spec.tag)),
            epoch: open.epoch,
            next_file: 0,
            partitioner: Partitioner::new(&spec.schema, &spec.partition_by).map_err(row_error)?,
            open: BTreeMap::new(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            carried: Carried::new(),
            first_row: None,
            full: false,
            rolled: false,
            finished: Vec::new(),
            parts: Vec::new(),
            written: Written::default(),
            spec,
            target,
        };
        // None of the files may roll before the last delta is back: a roll voids all of them.
        for delta in &open.carried {
            for rows in files.carried.restore(delta, &files.spec.schema)? {
                files.encode(&rows)?;
            }
        }
        if files.next_file > 0 {
            files.first_row = Some((files.spec.clock)());
        }
        if files.full {
            files.roll()?;
        }
        Ok(files)
    }

    /// Takes rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ConnectorError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = coerce(rows, &self.spec.schema)?;
        self.written.rows += rows.num_rows() as u64;
        self.first_row.get_or_insert_with(|| (self.spec.clock)());
        self.pending_rows += rows.num_rows();
        self.pending_bytes += rows.get_array_memory_size();
        self.pending.push(rows);
        let due = self.is_due();
        self.encode_pending(due)?;
        if due {
            self.roll()?;
        }
        Ok(())
    }

    /// Ends the epoch; `last` finishes every file.
    pub(super) fn prepare(&mut self, last: bool) -> Result<EpochEnd, ConnectorError> {
        self.encode_pending(true)?;
        if last || self.is_due() || self.carried.must_roll() {
            self.roll()?;
        }
        self.sync_finished()?;
        if let Target::Local(target) = &self.target
            && !self.finished.is_empty()
        {
            target.sync_staging()?;
        }
        let delta = self.carried.hand_over(self.rolled)?;
        self.rolled = false;
        self.epoch = self.epoch.next();
        Ok(EpochEnd { finished: std::mem::take(&mut self.finished), delta })
    }

    /// Parts that are ready to be uploaded.
    pub(super) fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// Rows taken and bytes encoded.
    pub(super) fn written(&self) -> Written {
        self.written
    }

    fn is_due(&self) -> bool {
        self.first_row.is_some_and(|first| (self.spec.clock)().saturating_sub(first) >= self.spec.roll.every.0)
    }

    fn encode_pending(&mut self, all: bool) -> Result<(), ConnectorError> {
        while self.pending_rows > 0 {
            let chunk_rows = self.chunk_rows();
            if !all && self.pending_rows < chunk_rows && self.pending_bytes < PENDING_BYTES {
                break;
            }
            let chunk = self.take_pending(chunk_rows)?;
            self.carried.push(&chunk)?;
            self.encode(&chunk)?;
            if self.full {
                self.roll()?;
            }
        }
        if self.pending_rows > 0 {
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

    fn take_pending(&mut self, rows: usize) -> Result<RecordBatch, ConnectorError> {
        let mut taken = Vec::new();
        let mut left = rows;
        let mut rest = Vec::new();
        for batch in self.pending.drain(..) {
            let take = left.min(batch.num_rows());
            if take > 0 {
                taken.push(batch.slice(0, take));
            }
            if take < batch.num_rows() {
                rest.push(batch.slice(take, batch.num_rows() - take));
            }
            left -= take;
        }
        self.pending = rest;
        self.pending_rows = self.pending.iter().map(RecordBatch::num_rows).sum();
        self.pending_bytes = self.pending.iter().map(RecordBatch::get_array_memory_size).sum();
        match taken.as_slice() {
            [only] => Ok(only.clone()),
            many => concat_batches(&self.spec.schema, many).map_err(row_error),
        }
    }

    fn encode(&mut self, chunk: &RecordBatch) -> Result<(), ConnectorError> {
        for part in self.partitioner.cut(chunk).map_err(row_error)? {
            if self.open.len() >= MAX_OPEN_FILES && !self.open.contains_key(&part.partition) {
                // What is carried stays valid until the chunk is through: only then the roll is complete.
                self.finish_open()?;
                self.full = true;
            }
            let mut open = match self.open.remove(&part.partition) {
                Some(open) => open,
                None => self.create(part.partition)?,
            };
            open.encoder.write(&part.rows)?;
            open.rows += part.rows.num_rows() as u64;
            self.written.bytes += open.drain(&mut self.parts)?;
            let size = open.bytes + open.encoder.unfinished_bytes() as u64;
            let roll = &self.spec.roll;
            self.full |= size >= roll.bytes.0 || roll.rows.is_some_and(|rows| open.rows >= rows);
            self.open.insert(part.partition, open);
        }
        self.bound_memory()
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
            Target::Parts => Output::Parts(Vec::new()),
        };
        let name = format!("{}{name}", self.partitioner.folder(partition));
        Ok(OpenFile { file, name, encoder, output, rows: 0, bytes: 0 })
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
                open.encoder.flush()?;
                self.written.bytes += open.drain(&mut self.parts)?;
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
        self.carried.clear();
        self.partitioner.forget();
        self.first_row = None;
        self.full = false;
        self.rolled = true;
        Ok(())
    }

    fn finish_open(&mut self) -> Result<(), ConnectorError> {
        for open in std::mem::take(&mut self.open).into_values() {
            let before = open.bytes;
            let finished = open.finish(&mut self.parts)?;
            self.written.bytes += finished.bytes - before;
            self.finished.push(finished);
        }
        // Bounds the files that are open and not synced yet.
        if self.finished.len() >= MAX_OPEN_FILES { self.sync_finished() } else { Ok(()) }
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

impl OpenFile {
    /// Moves the bytes that are final out of the encoder; returns how many.
    fn drain(&mut self, parts: &mut Vec<Part>) -> Result<u64, ConnectorError> {
        let bytes = self.encoder.take()?;
        self.push(&bytes, parts)?;
        Ok(bytes.len() as u64)
    }

    fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), ConnectorError> {
        self.bytes += bytes.len() as u64;
        match &mut self.output {
            Output::Local(file) => file.write(bytes)?,
            Output::Parts(buffer) => {
                buffer.extend_from_slice(bytes);
                // All parts but the last are of one size: some stores insist.
                while buffer.len() > PART_BYTES {
                    let rest = buffer.split_off(PART_BYTES);
                    let part = std::mem::replace(buffer, rest);
                    parts.push(Part { file: self.file, name: self.name.clone(), bytes: part.into() });
                }
            }
        }
        Ok(())
    }

    fn buffered(&self) -> usize {
        match &self.output {
            Output::Local(_) => 0,
            Output::Parts(buffer) => buffer.len(),
        }
    }

    fn finish(mut self, parts: &mut Vec<Part>) -> Result<Finished, ConnectorError> {
        let rest = self.encoder.finish()?;
        self.push(&rest, parts)?;
        let Self { file, name, output, rows, bytes, .. } = self;
        let local = match output {
            Output::Local(local) => Some(local),
            Output::Parts(buffer) => {
                parts.push(Part { file, name: name.clone(), bytes: buffer.into() });
                None
            }
        };
        Ok(Finished { file, name, rows, bytes, local })
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
