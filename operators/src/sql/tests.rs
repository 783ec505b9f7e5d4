//! Planning, from the text to the columns that are read and written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use arrow::datatypes::*;
use std::sync::Arc;

fn rels() -> Vec<Relation> {
    let f = Schema::new(vec![
        Field::new("carrier", DataType::Utf8, true),
        Field::new("flight", DataType::Int32, true),
        Field::new("scheduled", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("delay", DataType::Float64, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("body", DataType::Utf8, true),
    ]);
    let a = Schema::new(vec![Field::new("carrier", DataType::Utf8, true), Field::new("name", DataType::Utf8, true)]);
    vec![
        Relation { name: "flights".into(), schema: Arc::new(f), kind: RelationKind::Stream, has_meta: true },
        Relation { name: "airlines".into(), schema: Arc::new(a), kind: RelationKind::Table, has_meta: false },
    ]
}

#[test]
fn only_the_columns_that_a_query_reads_are_wanted() {
    let check = |sql: &str, inputs: &[&str], output: &[&str]| {
        let plan = plan("late", sql, &rels()).unwrap();
        assert_eq!(plan.inputs().first().unwrap().columns, inputs, "{sql}");
        let schema = plan.output_schema();
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, output, "{sql}");
    };
    check("SELECT flight FROM flights WHERE delay > 15", &["flight", "delay"], &["flight"]);
    check("SELECT f.flight, _key AS k FROM flights f", &["flight", "_key"], &["flight", "k"]);
    check("SELECT 1 AS one FROM flights", &["carrier"], &["one"]);
    check("SELECT name FROM flights JOIN airlines USING (carrier)", &["carrier"], &["name"]);
}
