//! The generate source: rows made up from a seed, the same ones at every run.
//!
//! The value of a column in a row depends on the seed, the column and the row's number only, so that reading goes on at
//! any row without having made the ones before it.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use indexmap::IndexMap;
use logmill_columns::out_of_range;
use logmill_pipelines::flow::{Position, Positions, SplitId};
use logmill_pipelines::{ConnectorKind, Role};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::ConnectorError;
use crate::file::Rate;
use crate::source::{self, Chunk, ChunkData, Discovery, Reader, Source};

/// Rows a batch.
const BATCH_ROWS: u64 = 8192;
/// A rated source hands over this part of a second's rows at a time.
const RATE_STEPS: u64 = 20;

/// Rows made up from a seed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many rows; without end if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Make no more than this, such as `500/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Other seeds give other rows.
    #[serde(default)]
    pub seed: u64,
    /// What each column holds.
    pub columns: IndexMap<String, Column>,
}

/// What a column holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Column {
    /// The row's number, from the start given.
    Counter(i64),
    /// A whole number in a range, the upper end excluded.
    Integer(i64, i64),
    /// A number in a range, the upper end excluded.
    Float(f64, f64),
    /// One of these texts.
    OneOf(Vec<String>),
    /// Times that many milliseconds apart, from 2020 on.
    TimeEvery(NonZeroU64),
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            Self::Counter(_) | Self::Integer(..) => DataType::Int64,
            Self::Float(..) => DataType::Float64,
            Self::OneOf(_) => DataType::Utf8,
            Self::TimeEvery(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn check(&self, name: &str) -> Result<(), ConnectorError> {
        let fault = match self {
            Self::Integer(from, to) if from >= to => "the range is empty",
            Self::Float(from, to) if from.partial_cmp(to) != Some(std::cmp::Ordering::Less) => "the range is empty",
            Self::OneOf(texts) if texts.is_empty() => "the list is empty",
            _ => return Ok(()),
        };
        Err(ConnectorError::Config(format!("column `{name}`: {fault}")))
    }

    fn values(&self, number: usize, seed: u64, rows: std::ops::Range<u64>) -> ArrayRef {
        let random = |row: u64| xxh3_64_with_seed(&row.to_le_bytes(), seed.wrapping_add(number as u64));
        let unit = |row| (random(row) >> 11) as f64 / (1_u64 << 53) as f64;
        match self {
            Self::Counter(start) => {
                Arc::new(Int64Array::from_iter_values(rows.map(|row| start.wrapping_add(row as i64))))
            }
            Self::Integer(from, to) => {
                let width = to.abs_diff(*from).max(1);
                Arc::new(Int64Array::from_iter_values(rows.map(|row| from.wrapping_add((random(row) % width) as i64))))
            }
            Self::Float(from, to) => {
                Arc::new(Float64Array::from_iter_values(rows.map(|row| from + unit(row) * (to - from))))
            }
            Self::OneOf(texts) => {
                let pick = |row| texts.get((random(row) % texts.len().max(1) as u64) as usize).map(String::as_str);
                Arc::new(rows.map(pick).collect::<StringArray>())
            }
            Self::TimeEvery(milliseconds) => {
                const FROM_MICROS: i64 = 1_577_836_800_000_000;
                let step = i64::try_from(milliseconds.get()).unwrap_or(i64::MAX).saturating_mul(1000);
                let number = |row: u64| i64::try_from(row).unwrap_or(i64::MAX);
                let times = rows.map(|row| FROM_MICROS.saturating_add(number(row).saturating_mul(step)));
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
        }
    }
}

/// The generate source.
pub fn kind() -> ConnectorKind {
    ConnectorKind {
        name: "generate",
        role: Role::Source,
        summary: "rows made up from a seed, for trying things out and for benchmarks",
        schema: || schema_for!(Config),
        formats: &[],
        needs_through: false,
    }
}

/// The columns that a configuration makes.
pub fn schema(config: &Config) -> Result<SchemaRef, ConnectorError> {
    let field = |(name, column): (&String, &Column)| {
        column.check(name)?;
        Ok(Field::new(name, column.data_type(), true))
    };
    let fields: Result<Vec<_>, ConnectorError> = config.columns.iter().map(field).collect();
    match fields?.as_slice() {
        [] => Err(ConnectorError::Config("`columns` is empty".to_owned())),
        fields => Ok(Arc::new(Schema::new(fields.to_vec()))),
    }
}

/// The source of a configuration.
pub fn source(config: Config) -> Result<Arc<dyn Source>, ConnectorError> {
    let schema = schema(&config)?;
    Ok(Arc::new(Generate { config: Arc::new(config), schema }))
}

struct Generate {
    config: Arc<Config>,
    schema: SchemaRef,
}

#[async_trait]
impl Source for Generate {
    async fn discover(&self, known: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError> {
        let only = SplitId::new("0");
        Ok(Discovery { new: if known.contains(&only) { Vec::new() } else { vec![only] }, complete: true })
    }

    async fn start_positions(&self) -> Result<Positions, ConnectorError> {
        Ok(Positions::new())
    }

    async fn open(&self, _split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
        let row = position.and_then(|position| position.0.get("row")?.as_u64()).unwrap_or(0);
        let (config, schema) = (self.config.clone(), self.schema.clone());
        Ok(Box::new(Rows { config, schema, row, first: row, started: Instant::now() }))
    }

    async fn epoch_safe(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        // What is made up can be made up again.
        Ok(())
    }

    async fn size_hint(&self) -> Option<u64> {
        None
    }
}

struct Rows {
    config: Arc<Config>,
    schema: SchemaRef,
    row: u64,
    first: u64,
    started: Instant,
}

#[async_trait]
impl Reader for Rows {
    async fn next(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        let most = self.config.rate.map_or(BATCH_ROWS, |rate| (rate.0.get() / RATE_STEPS).clamp(1, BATCH_ROWS));
        let end = self.config.rows.unwrap_or(u64::MAX).min(self.row.saturating_add(most));
        if end <= self.row {
            return Ok(None);
        }
        if let Some(rate) = self.config.rate {
            let due = Duration::from_secs_f64((end - self.first) as f64 / rate.0.get() as f64);
            tokio::time::sleep_until(self.started + due).await;
        }
        let columns = self.config.columns.values().enumerate();
        let columns = columns.map(|(number, column)| column.values(number, self.config.seed, self.row..end)).collect();
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| ConnectorError::Permanent {
            context: "could not make rows".to_owned(),
            source: error.into(),
        })?;
        if let Some(bad) = out_of_range(&rows).first() {
            let place = format!("row {}", self.row.saturating_add(bad.row as u64));
            return Err(ConnectorError::Data { place, message: bad.message.clone() });
        }
        let first_row = std::mem::replace(&mut self.row, end);
        let bytes_read = rows.get_array_memory_size() as u64;
        let position = Position(serde_json::json!({ "row": end }));
        Ok(Some(Chunk { data: ChunkData::Rows(source::Rows { rows, first_row }, Vec::new()), position, bytes_read }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::conformance::source::{check_bounded, read};

    fn config(yaml: &str) -> Config {
        let value: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
        serde_json::from_value(value).unwrap()
    }

    const COLUMNS: &str = "{id: {counter: 7}, n: {integer: [-5, 5]}, x: {float: [0.5, 1.5]}, \
                           c: {one_of: [AA, UA]}, at: {time_every: 1000}}";

    #[tokio::test]
    async fn rows_are_the_same_wherever_reading_goes_on() {
        let source = source(config(&format!("{{rows: 20000, seed: 3, columns: {COLUMNS}}}"))).unwrap();
        let rows = check_bounded(source.as_ref()).await.remove(0).1.rows.unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns()), (20_000, 5));
    }

    #[tokio::test]
    async fn another_seed_or_rate_gives_other_rows_or_smaller_chunks() {
        let make = |head: &str| source(config(&format!("{{{head}, columns: {COLUMNS}}}"))).unwrap();
        let (one, other) = (make("rows: 100, seed: 1"), make("rows: 100, seed: 2"));
        let split = one.discover(&BTreeSet::new()).await.unwrap().new.remove(0);
        let (positions, first) = read(one.as_ref(), &split, None).await;
        assert_eq!(positions.len(), 1);
        assert_ne!(first, read(other.as_ref(), &split, None).await.1);
        let (positions, rated) = read(make("rows: 100, seed: 1, rate: 1000/s").as_ref(), &split, None).await;
        assert_eq!((positions.len(), rated), (2, first));
    }

    #[tokio::test]
    async fn times_end_with_the_calendar() {
        let config = config("{columns: {at: {time_every: 8000000000000000}}}");
        let source = source(config).unwrap();
        let split = source.discover(&BTreeSet::new()).await.unwrap().new.remove(0);
        let error = source.open(&split, None).await.unwrap().next().await.unwrap_err().to_string();
        assert!(error.starts_with("row 2: column `at`: the timestamp 9223372036854775807"), "{error}");
    }

    #[test]
    fn ranges_and_lists_must_hold_something() {
        for (columns, expected) in [
            ("{n: {integer: [5, 5]}}", "column `n`: the range is empty"),
            ("{x: {float: [1.5, 1.5]}}", "column `x`: the range is empty"),
            ("{c: {one_of: []}}", "column `c`: the list is empty"),
            ("{}", "`columns` is empty"),
        ] {
            let error = schema(&config(&format!("{{columns: {columns}}}"))).unwrap_err();
            assert_eq!(error.to_string(), expected, "{columns}");
        }
    }
}
