//! The topic sink: encodes rows on threads that may block, appends the batches to the epoch's transaction.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::BytesMut;
use logmill_pipelines::flow::{CheckpointEpoch, RowBatch};
use logmill_pipelines::{Compression, ConnectorKind, Role};
use logmill_protocol::{Compression as Codec, Timestamp};

use super::batches::{Appender, Batches, FullBatch, now};
use super::config::SinkConfig;
use crate::blocking::blocking;
use crate::decode::Encoder;
use crate::error::{ConnectorError, LogError};
use crate::log::Log;
use crate::problem::{Problem, in_one_line};
use crate::sink::{Accepts, Attempt, Committed, OpenWriter, Prepared, Sink, Token, Writer, Written};
use crate::transaction::Transaction;

/// Rows are encoded this many at a time, to bound what waits to be appended.
const CHUNK_ROWS: usize = 8192;

/// Makes the encoder of a writer's rows.
pub type MakeEncoder = Arc<dyn Fn(&SchemaRef) -> Result<Box<dyn Encoder>, ConnectorError> + Send + Sync>;

/// The topic sink, as the catalog lists it.
pub fn sink_kind() -> ConnectorKind {
    ConnectorKind {
        name: "topic",
        role: Role::Sink,
        summary: "records of a topic of the log, in the epoch's transaction",
        schema: || schemars::schema_for!(SinkConfig),
        formats: &["json", "csv", "raw"],
        needs_through: false,
    }
}

/// What is wrong with a sink's configuration for rows of these columns. Does no I/O.
pub fn check_sink(config: &SinkConfig, schema: &Schema) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut column =
        |key: String, name: &str, wanted: &str, fits: fn(&DataType) -> bool| match schema.field_with_name(name) {
            Err(_) => problems.push(Problem::no_column(key, name, schema)),
            Ok(field) if !fits(field.data_type()) => {
                let message = format!("`{name}` is of type {}; it must be {wanted}", field.data_type());
                problems.push(Problem::new(key, message));
            }
            Ok(_) => {}
        };
    let scalar = "a string, binary, a number, a boolean, a date or a timestamp";
    if let Some(name) = &config.key {
        column("key".into(), name, scalar, |kind| !kind.is_nested());
    }
    if let Some(name) = &config.timestamp {
        column("timestamp".into(), name, "a timestamp", |kind| matches!(kind, DataType::Timestamp(..)));
    }
    for (header, name) in &config.headers {
        column(format!("headers.{header}"), name, scalar, |kind| !kind.is_nested());
    }
    if config.batch_bytes.bytes() == 0 {
        problems.push(Problem::new("batch_bytes", "must be more than nothing"));
    }
    problems
}

/// Makes the sink of a configuration, for rows of `schema`. Does no I/O.
///
/// # Errors
/// `Config` with everything that `check_sink` finds.
pub fn sink(
    log: Arc<dyn Log>,
    transaction: Arc<dyn Transaction>,
    config: SinkConfig,
    schema: SchemaRef,
    encoder: MakeEncoder,
) -> Result<Arc<dyn Sink>, ConnectorError> {
    let problems = check_sink(&config, &schema);
    if problems.is_empty() {
        return Ok(Arc::new(TopicSink { log, transaction, config, schema, encoder }));
    }
    Err(ConnectorError::Config(in_one_line(&problems)))
}

struct TopicSink {
    log: Arc<dyn Log>,
    transaction: Arc<dyn Transaction>,
    config: SinkConfig,
    schema: SchemaRef,
    encoder: MakeEncoder,
}

#[async_trait]
impl Sink for TopicSink {
    fn accepts(&self) -> Accepts {
        Accepts::Append
    }

    async fn open(&self, open: OpenWriter) -> Result<Box<dyn Writer>, ConnectorError> {
        let topic = self.config.topic.as_str();
        let info = self.log.topic(topic).await?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        let batch_bytes = usize::try_from(self.config.batch_bytes.bytes()).unwrap_or(usize::MAX);
        let rows = Rows {
            columns: Columns::new(&self.config, &self.schema)?,
            encoder: (self.encoder)(&self.schema)?,
            batches: Batches::new(info.partitions, codec(self.config.compression), batch_bytes),
            buffer: BytesMut::new(),
            values: Vec::new(),
            topic: topic.to_owned(),
        };
        let appender = Appender::new(self.transaction.clone(), topic, open.epoch);
        Ok(Box::new(TopicWriter { rows: Some(Box::new(rows)), appender, written: Written::default() }))
    }

    async fn commit(&self, _token: &Token) -> Result<Committed, ConnectorError> {
        // The log transaction was the commit: there are no tokens, unless an older plan's sink had them.
        Ok(Committed::Lost("a topic stages nothing, and yet something staged is to be committed".into()))
    }

    async fn collect(&self, _live: &[Token], _attempt: &Attempt) -> Result<(), ConnectorError> {
        Ok(())
    }
}

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    }
}

struct TopicWriter {
    /// `None` while a thread has it, and for good once a call failed or was dropped half-way.
    rows: Option<Box<Rows>>,
    appender: Appender,
    written: Written,
}

#[async_trait]
impl Writer for TopicWriter {
    async fn write(&mut self, batch: RowBatch) -> Result<(), ConnectorError> {
        let total = batch.num_rows();
        for start in (0..total).step_by(CHUNK_ROWS) {
            let chunk = batch.rows.slice(start, CHUNK_ROWS.min(total - start));
            let Some(mut rows) = self.rows.take() else {
                return Err(ConnectorError::Config("the writer failed before; open a new one".into()));
            };
            let (rows, full) = blocking(move || {
                let full = rows.encode(&chunk)?;
                Ok((rows, full))
            })
            .await?;
            self.rows = Some(rows);
            self.append(full).await?;
        }
        self.written.rows += total as u64;
        Ok(())
    }

    async fn prepare(&mut self, epoch: CheckpointEpoch, _last: bool) -> Result<Prepared, ConnectorError> {
        let Some(rows) = &mut self.rows else {
            return Err(ConnectorError::Config("the writer failed before; open a new one".into()));
        };
        let rest = rows.batches.drain();
        self.append(rest).await?;
        self.appender.end_epoch(epoch);
        Ok(Prepared::default())
    }

    fn written(&self) -> Written {
        self.written
    }
}

impl TopicWriter {
    async fn append(&mut self, full: Vec<FullBatch>) -> Result<(), ConnectorError> {
        for full in full {
            self.written.bytes += full.1.len() as u64;
            self.appender.append(full).await?;
        }
        Ok(())
    }
}

/// Turns rows into record batches.
struct Rows {
    columns: Columns,
    encoder: Box<dyn Encoder>,
    batches: Batches,
    buffer: BytesMut,
    values: Vec<Range<usize>>,
    topic: String,
}

impl Rows {
    /// Adds rows; returns the batches that became full, in order.
    fn encode(&mut self, rows: &RecordBatch) -> Result<Vec<FullBatch>, ConnectorError> {
        self.buffer.clear();
        self.values.clear();
        self.encoder.encode(rows, &mut self.buffer, &mut self.values)?;
        let failed = |error: ArrowError| ConnectorError::Permanent {
            context: format!("cannot take key, timestamp and headers for topic `{}` from the rows", self.topic),
            source: error.into(),
        };
        let keys = self.columns.key.map(|column| Text::new(rows, column)).transpose().map_err(failed)?;
        let timestamps = self.columns.timestamp.map(|column| milliseconds(rows, column)).transpose().map_err(failed)?;
        let headers = (self.columns.headers.iter())
            .map(|(name, column)| Ok((name.as_str(), Text::new(rows, *column)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let now = now();
        let mut full = Vec::new();
        let mut record_headers = Vec::with_capacity(headers.len());
        for (row, range) in self.values.iter().enumerate() {
            record_headers.clear();
            record_headers.extend(headers.iter().map(|(name, values)| (*name, values.get(row))));
            let timestamp = match &timestamps {
                Some(column) if column.is_valid(row) => Timestamp(column.as_primitive::<Int64Type>().value(row)),
                Some(_) => Timestamp::NONE,
                None => now,
            };
            let key = keys.as_ref().and_then(|keys| keys.get(row));
            let value = self.buffer.get(range.clone());
            let appended = self.batches.append(key, value, &record_headers, timestamp);
            full.extend(appended.map_err(|error| ConnectorError::Permanent {
                context: format!("cannot write a record to topic `{}`", self.topic),
                source: error.into(),
            })?);
        }
        Ok(full)
    }
}

/// Which columns become what else than the value.
struct Columns {
    key: Option<usize>,
    timestamp: Option<usize>,
    headers: Vec<(String, usize)>,
}

impl Columns {
    fn new(config: &SinkConfig, schema: &Schema) -> Result<Self, ConnectorError> {
        let find = |name: &String| schema.index_of(name).map_err(|error| ConnectorError::Config(error.to_string()));
        let headers =
            config.headers.iter().map(|(name, column)| Ok::<_, ConnectorError>((name.clone(), find(column)?)));
        let headers = headers.collect::<Result<_, _>>()?;
        Ok(Self {
            key: config.key.as_ref().map(find).transpose()?,
            timestamp: config.timestamp.as_ref().map(find).transpose()?,
            headers,
        })
    }
}

/// A column's values as the bytes of keys and headers: text as UTF-8, numbers in decimal, binary as it is.
enum Text {
    Utf8(StringArray),
    Binary(BinaryArray),
}

impl Text {
    fn new(rows: &RecordBatch, column: usize) -> Result<Self, ArrowError> {
        let column = rows.column(column);
        Ok(match column.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary(cast(column, &DataType::Binary)?.as_binary::<i32>().clone())
            }
            _ => Self::Utf8(cast(column, &DataType::Utf8)?.as_string::<i32>().clone()),
        })
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Utf8(values) => values.is_valid(row).then(|| values.value(row).as_bytes()),
            Self::Binary(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

fn milliseconds(rows: &RecordBatch, column: usize) -> Result<arrow::array::ArrayRef, ArrowError> {
    let column = rows.column(column);
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    cast(&cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone))?, &DataType::Int64)
}
