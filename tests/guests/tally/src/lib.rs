//! Counts and sums by key, with state. Each batch gives the new total of every key in it, and event time that has passed an
//! hour gives `hourly` the totals of that hour, which are then forgotten.
//!
//! ```text
//! config:  { key: carrier, value: distance, time: time_hour }     value, time: optional
//! tally:   key: string, rows: int64, total: int64                  in order of the keys
//! hourly:  hour: timestamp, key: string, rows: int64, total: int64
//! ```
//!
//! Built three times: version 1; version 2 (feature `v2`), which writes its state in another form and takes over that of
//! version 1; and version 3 (feature `v3`), which refuses any that is not its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use logmill_guest::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use logmill_guest::arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use logmill_guest::operator::{self, Failure, Operator, Outputs, Signature, StatefulOperator, WindowedOperator};

const HOUR_US: i64 = 3_600_000_000;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    key: String,
    value: Option<String>,
    time: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Total {
    rows: i64,
    total: i64,
}

impl Total {
    fn add(&mut self, value: i64) {
        self.rows += 1;
        self.total += value;
    }
}

struct Tally {
    has_value: bool,
    has_time: bool,
    tally: SchemaRef,
    hourly: SchemaRef,
    by_key: BTreeMap<String, Total>,
    by_hour: BTreeMap<(i64, String), Total>,
}

/// A whole number; null counts as 0.
fn whole(column: &ArrayRef, row: usize) -> i64 {
    match column.data_type() {
        _ if column.is_null(row) => 0,
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        _ => column.as_primitive::<Int64Type>().value(row),
    }
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Operator for Tally {
    type Config = Config;

    fn new(input: &Schema, config: Config) -> Result<(Self, Signature), String> {
        let Config { key, value, time } = config;
        let check = |name: &String, fits: fn(&DataType) -> bool, wanted: &str| {
            let found = input.field_with_name(name).map_err(|_| format!("the input has no column `{name}`"))?;
            let data_type = found.data_type();
            if fits(data_type) { Ok(()) } else { Err(format!("`{name}` is of type {data_type}, not {wanted}")) }
        };
        check(&key, |of| *of == DataType::Utf8, "string")?;
        value
            .iter()
            .try_for_each(|name| check(name, |of| matches!(of, DataType::Int32 | DataType::Int64), "int32 or int64"))?;
        time.iter().try_for_each(|name| check(name, |of| *of == utc(), "timestamp"))?;
        let names: Vec<String> = [Some(key), value.clone(), time.clone()].into_iter().flatten().collect();
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        let key = Field::new("key", DataType::Utf8, false);
        let tally: SchemaRef = Schema::new(vec![key.clone(), number("rows"), number("total")]).into();
        let hour = Field::new("hour", utc(), false);
        let hourly: SchemaRef = Schema::new(vec![hour, key, number("rows"), number("total")]).into();
        let signature = Signature::new("tally", Arc::clone(&tally)).output("hourly", Arc::clone(&hourly)).reads(names);
        let (by_key, by_hour) = (BTreeMap::new(), BTreeMap::new());
        let guest = Tally { has_value: value.is_some(), has_time: time.is_some(), tally, hourly, by_key, by_hour };
        Ok((guest, signature))
    }

    fn on_batch(&mut self, batch: RecordBatch, out: &mut Outputs) -> Result<(), Failure> {
        let keys = batch.column(0).as_string::<i32>();
        let values = self.has_value.then(|| batch.column(1));
        let times =
            self.has_time.then(|| batch.column(batch.num_columns() - 1).as_primitive::<TimestampMicrosecondType>());

        let mut touched: BTreeMap<&str, Total> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            if keys.is_null(row) {
                return Err(Failure::at(row, "the key is null"));
            }
            let key = keys.value(row);
            let value = values.map_or(0, |values| whole(values, row));
            touched.entry(key).or_default().add(value);
            if let Some(times) = times.filter(|times| times.is_valid(row)) {
                let hour = times.value(row).div_euclid(HOUR_US) * HOUR_US;
                self.by_hour.entry((hour, key.to_owned())).or_default().add(value);
            }
        }
        let mut new: Vec<(&str, Total)> = Vec::with_capacity(touched.len());
        for (key, more) in touched {
            let total = self.by_key.entry(key.to_owned()).or_default();
            total.rows += more.rows;
            total.total += more.total;
            new.push((key, *total));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(new.iter().map(|(key, _)| key))),
            Arc::new(Int64Array::from_iter_values(new.iter().map(|(_, total)| total.rows))),
            Arc::new(Int64Array::from_iter_values(new.iter().map(|(_, total)| total.total))),
        ];
        out.push(operator::batch(&self.tally, columns)?);
        Ok(())
    }
}

impl WindowedOperator for Tally {
    fn on_watermark(&mut self, time_us: i64, out: &mut Outputs) -> Result<(), Failure> {
        // An hour has ended when the next has begun.
        let open = self.by_hour.split_off(&(time_us.saturating_sub(HOUR_US).saturating_add(1), String::new()));
        let ended = std::mem::replace(&mut self.by_hour, open);
        if ended.is_empty() {
            return Ok(());
        }
        let hours =
            TimestampMicrosecondArray::from_iter_values(ended.keys().map(|(hour, _)| *hour)).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(hours),
            Arc::new(StringArray::from_iter_values(ended.keys().map(|(_, key)| key))),
            Arc::new(Int64Array::from_iter_values(ended.values().map(|total| total.rows))),
            Arc::new(Int64Array::from_iter_values(ended.values().map(|total| total.total))),
        ];
        out.push_to("hourly", operator::batch(&self.hourly, columns)?);
        Ok(())
    }
}

/// The state as it is written: an hour, or none for the running total, a key, rows and their total.
type Line = (Option<i64>, String, i64, i64);

/// The state from version 2 on.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    totals: Vec<Line>,
}

impl StatefulOperator for Tally {
    const VERSION: u32 = if cfg!(feature = "v3") {
        3
    } else if cfg!(feature = "v2") {
        2
    } else {
        1
    };

    fn snapshot(&self) -> Result<Vec<u8>, String> {
        let keys = self.by_key.iter().map(|(key, total)| (None, key, total));
        let hours = self.by_hour.iter().map(|((hour, key), total)| (Some(*hour), key, total));
        let totals: Vec<Line> =
            keys.chain(hours).map(|(hour, key, of)| (hour, key.clone(), of.rows, of.total)).collect();
        let written =
            if Self::VERSION == 1 { serde_json::to_vec(&totals) } else { serde_json::to_vec(&State { totals }) };
        written.map_err(|error| error.to_string())
    }

    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), String> {
        let read = match (version, Self::VERSION) {
            (1, 1 | 2) => serde_json::from_slice(state),
            (2, 2) | (3, 3) => serde_json::from_slice(state).map(|State { totals }| totals),
            (_, own) => return Err(format!("version {own} of tally cannot take over state of version {version}")),
        };
        let totals: Vec<Line> = read.map_err(|error| format!("the state cannot be read: {error}"))?;
        for (hour, key, rows, total) in totals {
            let of = Total { rows, total };
            match hour {
                None => self.by_key.insert(key, of),
                Some(hour) => self.by_hour.insert((hour, key), of),
            };
        }
        Ok(())
    }
}

logmill_guest::windowed_operator!(Tally);
