//! The relations that the tests' queries read, with a few rows each.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use logmill_pipelines::flow::RowBatch;

use crate::conformance::Event;
use crate::operator::{OpenContext, StaticTable};
use crate::sql::{Relation, RelationKind, SqlPlan};

pub(super) fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn fields(fields: &[(&str, DataType)]) -> Fields {
    fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect()
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn schema_of(relation: &str) -> SchemaRef {
    use DataType::{Boolean, Date32, Decimal128, Float64, Int32, Int64, Struct, Timestamp, Utf8};
    let leg = Struct(fields(&[("to", Utf8), ("minutes", Int32)]));
    Arc::new(Schema::new(match relation {
        "flights" => fields(&[
            ("carrier", Utf8),
            ("flight", Int32),
            ("scheduled", Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            ("local", Timestamp(TimeUnit::Microsecond, None)),
            ("delay", Float64),
            ("seats", Int64),
            ("price", Decimal128(10, 2)),
            ("day", Date32),
            ("cancelled", Boolean),
            ("tags", list(Utf8)),
            ("legs", list(leg)),
            ("plane", Struct(fields(&[("tail", Utf8), ("year", Int32)]))),
            ("body", Utf8),
        ]),
        "arrivals" => fields(&[("carrier", Utf8), ("flight", Int32), ("delay", Float64)]),
        "airlines" => fields(&[("carrier", Utf8), ("name", Utf8), ("founded", Int32)]),
        _ => fields(&[("tail", Utf8), ("engines", Int32), ("carrier", Utf8)]),
    }))
}

/// What queries may name: two streams and two static tables.
pub(super) fn relations() -> Vec<Relation> {
    let relation = |name: &str, kind, has_meta| Relation { name: name.into(), schema: schema_of(name), kind, has_meta };
    vec![
        relation("flights", RelationKind::Stream, true),
        relation("arrivals", RelationKind::Stream, false),
        relation("airlines", RelationKind::Table, false),
        relation("planes", RelationKind::Table, false),
    ]
}

/// The rows of a relation, without meta columns.
pub(super) fn rows(relation: &str) -> RecordBatch {
    let path = testdata().join("relations").join(format!("{relation}.ndjson"));
    let schema = schema_of(relation);
    let file = BufReader::new(File::open(path).unwrap());
    let reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema)).build(file).unwrap();
    concat_batches(&schema, &reader.map(Result::unwrap).collect::<Vec<_>>()).unwrap()
}

/// The rows of a relation, with meta columns if it has them.
pub(super) fn rows_with_meta(relation: &Relation) -> RecordBatch {
    let rows = rows(&relation.name);
    if !relation.has_meta {
        return rows;
    }
    let count = rows.num_rows();
    let schema = relation.full_schema();
    let keys: Vec<Vec<u8>> = (0..count).map(|row| format!("k{row}").into_bytes()).collect();
    let written = TimestampMicrosecondArray::from_iter_values((0..count as i64).map(|row| row * 1_000_000));
    let headers: ArrayRef = new_null_array(schema.field_with_name("_headers").unwrap().data_type(), count);
    assert!(headers.as_any().is::<ListArray>());
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(BinaryArray::from_iter_values(keys)));
    columns.push(Arc::new(written.with_timezone("UTC")));
    columns.push(Arc::new(Int32Array::from(vec![3; count])));
    columns.push(Arc::new(Int64Array::from_iter_values(100..100 + count as i64)));
    columns.push(headers);
    RecordBatch::try_new(schema, columns).unwrap()
}

/// The static tables that a plan wants.
pub(super) fn open_context(plan: &SqlPlan) -> OpenContext {
    let table = |input: &crate::sql::SqlInput| StaticTable {
        name: Arc::clone(&input.relation),
        schema: schema_of(&input.relation),
        batches: vec![rows(&input.relation)],
    };
    OpenContext { tables: plan.tables().iter().map(table).collect(), ..OpenContext::default() }
}

/// The rows of the streams that a plan reads, one batch a port.
pub(super) fn events(plan: &SqlPlan) -> Vec<Event> {
    let relations = relations();
    let batch = |(port, input): (usize, &crate::sql::SqlInput)| {
        let relation = relations.iter().find(|relation| relation.name == input.relation).unwrap();
        Event::Batch(port, RowBatch::inserts(rows_with_meta(relation)))
    };
    plan.inputs().iter().enumerate().map(batch).collect()
}
