//! The topic sink: encodes rows on threads that may block, appends the batches to the epoch's transaction.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::BytesMut;
use logmill_pipelines::flow::{CheckpointEpoch, RESERVED_PREFIX, RowBatch};
use logmill_pipelines::{Compression, ConnectorKind, Role};
use logmill_protocol::{Compression as Codec, Timestamp};

use super::batches::{Appender, BatchLimit, Batches, FullBatch, Record, now};
use super::config::{Headers, SinkConfig};
use super::text::{HeaderColumns, Text, holds_headers};
use crate::blocking::blocking;
use crate::decode::Encoder;
use crate::error::{ConnectorError, LogError};
use crate::lines::encode_or_refuse;
use crate::log::Log;
use crate::problem::{Problem, in_one_line};
use crate::sink::{
    Accepts, Attempt, Committed, OpenWriter, Prepared, RefusedRows, Restage, Sink, Taken, Token, Writer, Written,
    stages_nothing,
};
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
    match &config.headers {
        Headers::All(name) => {
            let wanted = "a list of structs of `key` and `value`, as `_headers` is";
            column("headers".into(), name, wanted, holds_headers);
        }
        Headers::Each(headers) => {
            for (header, name) in headers {
                column(format!("headers.{header}"), name, scalar, |kind| !kind.is_nested());
            }
        }
    }
    if config.batch_bytes.bytes() == 0 {
        problems.push(Problem::new("batch_bytes", "must be more than nothing"));
    }
    problems
}

/// The columns that a sink's configuration names and that begin with `_`: where the input has no such column of its own, they
/// can be those of the records it came from.
pub fn meta_columns(config: &SinkConfig) -> Vec<String> {
    let named = config.key.iter().chain(&config.timestamp).chain(config.headers.columns());
    named.filter(|name| name.starts_with(RESERVED_PREFIX)).cloned().collect()
}

/// The columns that make up the records' values: all but those that begin with `_` and are written as keys, timestamps or
/// headers already.
pub fn value_schema(config: &SinkConfig, schema: &SchemaRef) -> SchemaRef {
    let elsewhere = meta_columns(config);
    let fields = schema.fields().iter().filter(|field| !elsewhere.contains(field.name()));
    match schema.fields().iter().any(|field| elsewhere.contains(field.name())) {
        true => Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())),
        false => schema.clone(),
    }
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
        let values = value_schema(&self.config, &self.schema);
        let index = |field: &arrow::datatypes::FieldRef| self.schema.index_of(field.name());
        let indices = values.fields().iter().map(index).collect::<Result<Vec<_>, _>>();
        let rows = Rows {
            columns: Columns::new(&self.config, &self.schema)?,
            encoder: (self.encoder)(&values)?,
            value_columns: indices.map_err(|error| ConnectorError::Config(error.to_string()))?,
            batches: Batches::new(info.partitions, codec(self.config.compression), batch_bytes, BatchLimit::of(&info)),
            buffer: BytesMut::new(),
            values: Vec::new(),
            topic: topic.to_owned(),
        };
        let appender = Appender::new(self.transaction.clone(), topic, open.epoch);
        Ok(Box::new(TopicWriter { rows: Some(Box::new(rows)), appender, visible: Written::default() }))
    }

    /// The log transaction was the commit: there are no tokens.
    async fn commit(&self, _token: &Token) -> Result<Committed, ConnectorError> {
        Err(stages_nothing("a topic"))
    }

    fn commits_at_once(&self) -> usize {
        1
    }

    async fn restage(&self, _restage: Restage) -> Result<Vec<Token>, ConnectorError> {
        Err(stages_nothing("a topic"))
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
    /// What was appended since the last barrier, and becomes visible with the transaction.
    visible: Written,
}

#[async_trait]
impl Writer for TopicWriter {
    async fn write(&mut self, batch: RowBatch) -> Result<Taken, ConnectorError> {
        let total = batch.num_rows();
        let mut taken = Taken::default();
        for start in (0..total).step_by(CHUNK_ROWS) {
            let chunk = batch.rows.slice(start, CHUNK_ROWS.min(total - start));
            self.visible.rows += chunk.num_rows() as u64;
            let Some(mut rows) = self.rows.take() else {
                return Err(ConnectorError::Config("the writer failed before; open a new one".into()));
            };
            let (rows, full, refused) = blocking(move || {
                let mut full = Vec::new();
                let refused = rows.encode_or_refuse(&chunk, &mut full)?;
                Ok((rows, full, refused))
            })
            .await?;
            self.rows = Some(rows);
            self.append(full).await?;
            self.visible.rows -= refused.len() as u64;
            taken.refused.extend(refused.into_iter().map(|(row, reason)| {
                let rows = RowBatch::inserts(batch.rows.slice(start + row, 1));
                RefusedRows { rows: RowBatch { origin: batch.origin.clone(), ..rows }, reason }
            }));
        }
        Ok(taken)
    }

    async fn prepare(&mut self, epoch: CheckpointEpoch, _last: bool) -> Result<Prepared, ConnectorError> {
        let Some(rows) = &mut self.rows else {
            return Err(ConnectorError::Config("the writer failed before; open a new one".into()));
        };
        let rest = rows.batches.drain();
        self.append(rest).await?;
        self.appender.end_epoch(epoch);
        Ok(Prepared { visible: std::mem::take(&mut self.visible), ..Prepared::default() })
    }
}

impl TopicWriter {
    async fn append(&mut self, full: Vec<FullBatch>) -> Result<(), ConnectorError> {
        for full in full {
            self.visible.bytes += full.1.len() as u64;
            self.appender.append(full).await?;
        }
        Ok(())
    }
}

/// Turns rows into record batches.
struct Rows {
    columns: Columns,
    encoder: Box<dyn Encoder>,
    /// The columns of the values, by their places in the rows.
    value_columns: Vec<usize>,
    batches: Batches,
    buffer: BytesMut,
    values: Vec<Range<usize>>,
    topic: String,
}

/// A row that the topic cannot take: its number, and why.
type Refused = (usize, String);

impl Rows {
    /// Adds rows, and to `full` the batches that became full, in order. Returns the rows that cannot be written.
    fn encode_or_refuse(
        &mut self,
        rows: &RecordBatch,
        full: &mut Vec<FullBatch>,
    ) -> Result<Vec<Refused>, ConnectorError> {
        encode_or_refuse(rows.num_rows(), |range| {
            let refused = self.encode(&rows.slice(range.start, range.len()), full)?;
            Ok(refused.into_iter().map(|(row, reason)| (range.start + row, reason)).collect())
        })
    }

    /// Adds rows. Where it fails, none is added.
    fn encode(&mut self, rows: &RecordBatch, full: &mut Vec<FullBatch>) -> Result<Vec<Refused>, ConnectorError> {
        self.buffer.clear();
        self.values.clear();
        let failed = |error: ArrowError| ConnectorError::Permanent {
            context: format!("cannot take key, timestamp and headers for topic `{}` from the rows", self.topic),
            source: error.into(),
        };
        let values = rows.project(&self.value_columns).map_err(failed)?;
        self.encoder.encode(&values, &mut self.buffer, &mut self.values)?;
        let keys = self.columns.key.map(|column| Text::new(rows, column)).transpose().map_err(failed)?;
        let timestamps = self.columns.timestamp.map(|column| milliseconds(rows, column)).transpose().map_err(failed)?;
        let headers = self.columns.headers.read(rows).map_err(failed)?;
        let now = now();
        let mut refused = Vec::new();
        let mut record_headers = Vec::new();
        for (row, range) in self.values.iter().enumerate() {
            record_headers.clear();
            headers.of_row(row, &mut record_headers);
            let timestamp = match &timestamps {
                Some(column) if column.is_valid(row) => Timestamp(column.as_primitive::<Int64Type>().value(row)),
                Some(_) => Timestamp::NONE,
                None => now,
            };
            let key = keys.as_ref().and_then(|keys| keys.get(row));
            let value = self.buffer.get(range.clone());
            let record = Record { key, value, headers: &record_headers, timestamp };
            refused.extend(self.batches.append(record, full).map(|reason| (row, reason)));
        }
        Ok(refused)
    }
}

/// Which columns become what else than the value.
struct Columns {
    key: Option<usize>,
    timestamp: Option<usize>,
    headers: HeaderColumns,
}

impl Columns {
    fn new(config: &SinkConfig, schema: &Schema) -> Result<Self, ConnectorError> {
        let find = |name: &String| schema.index_of(name).map_err(|error| ConnectorError::Config(error.to_string()));
        let headers = match &config.headers {
            Headers::All(column) => HeaderColumns::All(find(column)?),
            Headers::Each(headers) => {
                let headers = headers.iter().map(|(name, column)| Ok((name.clone(), find(column)?)));
                HeaderColumns::Each(headers.collect::<Result<_, ConnectorError>>()?)
            }
        };
        Ok(Self {
            key: config.key.as_ref().map(find).transpose()?,
            timestamp: config.timestamp.as_ref().map(find).transpose()?,
            headers,
        })
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
