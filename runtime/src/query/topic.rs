//! A topic as a relation: from the log start to where it stably ended when the query began.
//!
//! One stream a partition, of about a megabyte at a time; only the columns that the query needs are decoded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::{self, TryStreamExt};
use logmill_connectors::decode::Decoder;
use logmill_connectors::error::ConnectorError;
use logmill_connectors::format::Format;
use logmill_connectors::log::{Isolation, Log, OffsetAt, TopicInfo, TopicPartition};
use logmill_connectors::registry::Registry;
use logmill_connectors::source::{Chunk, ChunkData, Reader, Records};
use logmill_connectors::topic::bounded_source;
use logmill_pipelines::UnknownFields;
use logmill_pipelines::flow::{Position, SplitId};
use tokio::sync::watch;

use super::error::QueryError;

/// The offsets of a partition that are to be read, the end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: i64,
    end: i64,
}

/// A topic as a relation.
pub(super) struct TopicTable {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    format: Format,
    /// The columns of the records' values.
    values: SchemaRef,
    /// Those, and the meta columns that the query names.
    schema: SchemaRef,
    ranges: BTreeMap<i32, Range>,
}

impl fmt::Debug for TopicTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicTable").field("topic", &self.topic).field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

impl TopicTable {
    /// Finds out what the topic holds now. Records that are no JSON objects have one column, `value`.
    pub(super) async fn open(
        log: Arc<dyn Log>,
        registry: Registry,
        topic: &TopicInfo,
        meta: &[&str],
    ) -> Result<Self, QueryError> {
        let mut ranges = BTreeMap::new();
        for partition in 0..topic.partitions {
            let place = TopicPartition { topic: topic.name.clone(), partition };
            let start = log.offset(&place, OffsetAt::Earliest).await?.0;
            let end = log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await?.0;
            if start < end {
                ranges.insert(partition, Range { start, end });
            }
        }
        let (format, values) = match registry.sample_topic(&topic.name, &Format::Json, &log).await {
            Ok(schema) => (Format::Json, schema),
            // Among the records are some that are no objects, or there are none.
            Err(ConnectorError::Data { .. }) => match objects(&log, &topic.name, &ranges).await? {
                Some(schema) => (Format::Json, schema),
                None => (Format::Raw, registry.sample_topic(&topic.name, &Format::Raw, &log).await?),
            },
            Err(error) => return Err(error.into()),
        };
        let columns: Vec<String> = values.fields().iter().map(|field| field.name().clone()).collect();
        let meta = meta.iter().map(|name| (*name).to_owned()).filter(|name| !columns.contains(name));
        let columns: Vec<String> = columns.iter().cloned().chain(meta).collect();
        let schema = format.decoder(&values, &columns, UnknownFields::Ignore)?.schema();
        Ok(Self { log, topic: topic.name.as_str().into(), format, values, schema, ranges })
    }

    /// Whether there is no record to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// The columns of those records at the beginning of the topic that are JSON objects; `None` if none of them is one.
async fn objects(
    log: &Arc<dyn Log>,
    topic: &str,
    ranges: &BTreeMap<i32, Range>,
) -> Result<Option<SchemaRef>, ConnectorError> {
    let ends = ranges.iter().map(|(partition, range)| (*partition, range.end)).collect();
    let source = bounded_source(log.clone(), topic, watch::channel(Some(ends)).1);
    for partition in ranges.keys() {
        let mut reader = source.open(&SplitId::new(partition.to_string()), None).await?;
        let Some(Chunk { data: ChunkData::Records(mut records), .. }) = reader.next().await? else { continue };
        let buffer = records.buffer.clone();
        records.values.retain(|range| {
            let value = range.as_ref().and_then(|range| buffer.get(range.start as usize..range.end as usize));
            value.is_some_and(|value| serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(value).is_ok())
        });
        // Nothing but values is looked at by what infers.
        let sample = Records { buffer, values: records.values, place: records.place, ..Records::default() };
        if !sample.is_empty() {
            return Ok(Format::Json.infer(&sample, None).ok().map(Arc::new));
        }
    }
    Ok(None)
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // They only narrow down what is read; DataFusion filters the rows again.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        let mut ranges = self.ranges.clone();
        for filter in filters {
            narrow(&mut ranges, filter);
        }
        let stream = |(partition, range): (i32, Range)| {
            Arc::new(PartitionScan {
                log: self.log.clone(),
                topic: self.topic.clone(),
                format: self.format.clone(),
                values: self.values.clone(),
                schema: schema.clone(),
                partition,
                range,
            }) as Arc<dyn PartitionStream>
        };
        let streams: Vec<_> = ranges.into_iter().map(stream).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), streams, None, Vec::new(), false, limit)?))
    }
}

/// Leaves out partitions and offsets that a filter rules out for sure.
fn narrow(ranges: &mut BTreeMap<i32, Range>, filter: &Expr) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow(ranges, left);
            narrow(ranges, right);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (name, op, value) = match (column(left), number(right), column(right), number(left)) {
                (Some(name), Some(value), ..) => (name, Some(*op), value),
                (_, _, Some(name), Some(value)) => (name, op.swap(), value),
                _ => return,
            };
            match (name, op) {
                ("_partition", Some(Operator::Eq)) => ranges.retain(|partition, _| i64::from(*partition) == value),
                ("_offset", Some(op)) => ranges.values_mut().for_each(|range| range.narrow(op, value)),
                _ => {}
            }
        }
        Expr::InList(list) if !list.negated && column(&list.expr) == Some("_partition") => {
            if let Some(numbers) = list.list.iter().map(number).collect::<Option<Vec<_>>>() {
                ranges.retain(|partition, _| numbers.contains(&i64::from(*partition)));
            }
        }
        Expr::Between(between) if !between.negated && column(&between.expr) == Some("_offset") => {
            for (op, bound) in [(Operator::GtEq, number(&between.low)), (Operator::LtEq, number(&between.high))] {
                if let Some(bound) = bound {
                    ranges.values_mut().for_each(|range| range.narrow(op, bound));
                }
            }
        }
        _ => {}
    }
    ranges.retain(|_, range| range.start < range.end);
}

impl Range {
    fn narrow(&mut self, op: Operator, value: i64) {
        let after = value.saturating_add(1);
        let (start, end) = match op {
            Operator::Eq => (value, after),
            Operator::Gt => (after, i64::MAX),
            Operator::GtEq => (value, i64::MAX),
            Operator::Lt => (i64::MIN, value),
            Operator::LtEq => (i64::MIN, after),
            _ => return,
        };
        self.start = self.start.max(start);
        self.end = self.end.min(end);
    }
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name.as_str()),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(value)) if value_is_whole(expr) => value,
            _ => None,
        },
        _ => None,
    }
}

fn value_is_whole(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.data_type().is_integer())
}

/// One partition as a stream of rows.
struct PartitionScan {
    log: Arc<dyn Log>,
    topic: Arc<str>,
    format: Format,
    values: SchemaRef,
    schema: SchemaRef,
    partition: i32,
    range: Range,
}

impl fmt::Debug for PartitionScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {:?}", self.topic, self.partition, self.range)
    }
}

impl PartitionScan {
    async fn open(&self) -> Result<Scanning, ConnectorError> {
        let ends = BTreeMap::from([(self.partition, self.range.end)]);
        let source = bounded_source(self.log.clone(), &self.topic, watch::channel(Some(ends)).1);
        let position = Position(serde_json::json!({ "offset": self.range.start }));
        let reader = source.open(&SplitId::new(self.partition.to_string()), Some(&position)).await?;
        let columns: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let decoder = self.format.decoder(&self.values, &columns, UnknownFields::Ignore)?;
        Ok(Scanning { reader, decoder, schema: self.schema.clone(), left_out: 0 })
    }
}

impl PartitionStream for PartitionScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let scan = Self {
            log: self.log.clone(),
            topic: self.topic.clone(),
            format: self.format.clone(),
            values: self.values.clone(),
            schema: self.schema.clone(),
            partition: self.partition,
            range: self.range,
        };
        let rows = stream::once(async move { scan.open().await })
            .map_ok(|scanning| {
                stream::try_unfold(scanning, |mut scanning| async move {
                    Ok(scanning.next().await?.map(|rows| (rows, scanning)))
                })
            })
            .try_flatten()
            .map_err(|error: ConnectorError| DataFusionError::External(error.into()));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// A partition being read.
struct Scanning {
    reader: Box<dyn Reader>,
    decoder: Box<dyn Decoder>,
    schema: SchemaRef,
    left_out: u64,
}

impl Scanning {
    async fn next(&mut self) -> Result<Option<RecordBatch>, ConnectorError> {
        loop {
            let Some(chunk) = self.reader.next().await? else {
                if self.left_out > 0 {
                    tracing::warn!("{} records that do not fit the topic's columns were left out", self.left_out);
                }
                return Ok(None);
            };
            let ChunkData::Records(records) = chunk.data else { continue };
            if records.is_empty() {
                continue;
            }
            let decoded = self.decoder.decode(&records)?;
            if let (0, Some(error)) = (self.left_out, decoded.errors.first()) {
                let offset = records.offsets.get(error.index).copied().unwrap_or(-1);
                tracing::warn!("{} offset {offset} is left out: {}", records.place, error.message);
            }
            self.left_out += decoded.errors.len() as u64;
            return Ok(Some(self.fitted(decoded.rows)?));
        }
    }

    /// The rows under exactly the schema that was announced.
    fn fitted(&self, rows: RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), rows.columns().to_vec(), &options).map_err(|error| {
            ConnectorError::Permanent { context: "decoded rows are not as announced".into(), source: error.into() }
        })
    }
}

/// What a filter leaves of partitions' offsets: partition, start, end.
#[cfg(test)]
pub(super) fn narrowed(ranges: &BTreeMap<i32, (i64, i64)>, filter: &Expr) -> Vec<(i32, i64, i64)> {
    let mut ranges =
        ranges.iter().map(|(partition, (start, end))| (*partition, Range { start: *start, end: *end })).collect();
    narrow(&mut ranges, filter);
    ranges.into_iter().map(|(partition, Range { start, end })| (partition, start, end)).collect()
}
