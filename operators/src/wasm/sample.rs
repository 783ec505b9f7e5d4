//! Rows that are made up to try a guest with: a few of each kind of value, the same each time.

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use logmill_columns::{Decoded, JsonColumns};
use logmill_pipelines::{ColumnType, UnknownFields};
use serde_json::{Map, Value, json};

/// Texts that differ in length and script.
const TEXTS: [&str; 5] = ["ann", "bob", "", "größe 42", "{\"a\": 1}"];
/// How many rows it takes until a column is null again: differs between columns, so that few rows have two nulls.
const NULL_EVERY: [usize; 3] = [7, 11, 13];

/// Rows of these columns, as a source has them: `first` is the number of the first, and their offset where they have one. An
/// error for a column of which none can be made up.
pub(super) fn rows(schema: &Schema, first: usize, count: usize) -> Result<RecordBatch, String> {
    let kind = |field: &Field| ColumnType::from_field(field).map_err(|error| error.to_string());
    let columns = schema.fields().iter().map(|field| Ok((field.name().as_str(), kind(field)?)));
    let columns = columns.collect::<Result<Vec<_>, String>>()?;
    let texts = (first..first + count).map(|row| {
        let members = columns.iter().enumerate().map(|(index, (name, kind))| {
            let null_every = NULL_EVERY.get(index % NULL_EVERY.len()).copied().unwrap_or(7);
            let value = match *name {
                "_offset" => json!(row),
                "_partition" => json!(0),
                _ if (row + index) % null_every == null_every - 1 => Value::Null,
                _ => value(kind, row + 3 * index),
            };
            ((*name).to_owned(), value)
        });
        Value::Object(members.collect::<Map<_, _>>()).to_string()
    });
    let texts: Vec<String> = texts.collect();
    let schema = Schema::new(columns.iter().map(|(name, kind)| kind.to_field(name)).collect::<Vec<_>>());
    let mut decoder = JsonColumns::new(&schema, &schema, UnknownFields::Error).map_err(|error| error.to_string())?;
    let Decoded { columns, errors } =
        decoder.decode(texts.iter().map(|text| Some(text.as_bytes()))).map_err(|error| error.to_string())?;
    if let Some(error) = errors.first() {
        return Err(format!("{}: {}", error.column.as_deref().unwrap_or("a column"), error.problem));
    }
    RecordBatch::try_new(schema.into(), columns).map_err(|error| error.to_string())
}

/// One of a few values of a type.
fn value(kind: &ColumnType, n: usize) -> Value {
    match kind {
        ColumnType::Boolean => json!(n.is_multiple_of(3)),
        ColumnType::Int8 | ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64 => {
            json!(i64::try_from(n % 100).unwrap_or(0) - 20)
        }
        ColumnType::UInt8 | ColumnType::UInt16 | ColumnType::UInt32 | ColumnType::UInt64 => json!(n % 100),
        ColumnType::Float32 | ColumnType::Float64 => json!((n % 50) as f64 / 4.0 - 3.0),
        ColumnType::Decimal { precision, scale } if precision > scale => json!(n % 10),
        ColumnType::Decimal { .. } => json!(0),
        ColumnType::String => json!(TEXTS.get(n % TEXTS.len())),
        ColumnType::Binary => json!(format!("{:04x}", n % 1000)),
        ColumnType::Json => json!({ "n": n % 10 }),
        ColumnType::Date => json!(format!("2013-01-{:02}", 1 + n % 28)),
        ColumnType::Time => json!(format!("{:02}:30:00", n % 24)),
        ColumnType::Timestamp => json!(format!("2013-01-01T{:02}:{:02}:00Z", n / 60 % 24, n % 60)),
        ColumnType::TimestampLocal => json!(format!("2013-01-01T{:02}:{:02}:00", n / 60 % 24, n % 60)),
        ColumnType::List(item) => (0..n % 3).map(|more| value(item, n + more)).collect(),
        ColumnType::Struct(fields) => fields.iter().map(|(name, kind)| (name.clone(), value(kind, n))).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_type_has_values() {
        let types = "boolean int8 int64 uint8 uint64 float32 float64 decimal(10,2) decimal(2,2) string binary json date time \
                     timestamp timestamp_local list<int32> struct{a:string,b:list<float64>}";
        let kinds = types.split_whitespace().map(|text| text.parse::<ColumnType>().unwrap());
        let fields: Vec<Field> = kinds.enumerate().map(|(n, kind)| kind.to_field(&format!("c{n}"))).collect();
        let made = rows(&Schema::new(fields), 0, 40).unwrap();
        assert_eq!(made.num_rows(), 40);
        for column in made.columns() {
            assert!(column.null_count() > 0 && column.null_count() < 10, "{column:?}");
        }
    }
}
