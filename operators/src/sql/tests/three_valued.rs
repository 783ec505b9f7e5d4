//! `IN` with a subquery and joins by numbers, as PostgreSQL answers. DataFusion's batch engine is no oracle here: it
//! takes a mark of `IN` that is null for false, and a null in one group for a null in all groups of `NOT IN`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch};
use logmill_pipelines::flow::RowBatch;
use proptest::prelude::*;

use crate::conformance::{Case, Event, check, play};
use crate::operator::{OpenContext, StaticTable};
use crate::sql::{Functions, Relation, RelationKind, plan};

/// A number that identifies the row, a key, a group and a float.
type Row = (i32, Option<i32>, Option<i32>, Option<f64>);

fn row() -> impl Strategy<Value = (Option<i32>, Option<i32>, Option<f64>)> {
    let small = || prop::option::weighted(0.7, 0..3_i32);
    let floats = vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::from_bits(0x7ff8_0000_0000_0001), 1.5, f64::INFINITY];
    (small(), small(), prop::option::weighted(0.8, prop::sample::select(floats)))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
    let k: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.1)));
    let g: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.2)));
    let f: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.3)));
    let columns = [("id", id), ("k", k), ("g", g), ("f", f)].map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// `x IN (values)`.
fn is_in(x: Option<i32>, values: &[Option<i32>]) -> Option<bool> {
    if values.is_empty() {
        return Some(false);
    }
    let x = x?;
    if values.contains(&Some(x)) { Some(true) } else { (!values.contains(&None)).then_some(false) }
}

fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// Which rows of the table a row looks among, and what is asked of it.
type Among = fn(&Row, &Row) -> bool;
type Asked = fn(&Row, Option<bool>) -> Option<bool>;

fn same_group(s: &Row, t: &Row) -> bool {
    s.2.is_some() && s.2 == t.2
}

fn greater(s: &Row, t: &Row) -> bool {
    t.2.zip(s.2).is_some_and(|(t, s)| t > s)
}

const CASES: [(&str, Among, Asked); 13] = [
    ("k IN (SELECT k FROM t)", |_, _| true, |_, i| i),
    ("k NOT IN (SELECT k FROM t)", |_, _| true, |_, i| i.map(|i| !i)),
    ("k NOT IN (SELECT t.k FROM t WHERE t.g = s.g)", same_group, |_, i| i.map(|i| !i)),
    ("NOT (k IN (SELECT t.k FROM t WHERE t.g = s.g)) AND id >= 0", same_group, |_, i| i.map(|i| !i)),
    (
        "k NOT IN (SELECT t.k FROM t WHERE t.g = s.g AND t.k > 0)",
        |s, t| same_group(s, t) && t.1 > Some(0),
        |_, i| i.map(|i| !i),
    ),
    ("k NOT IN (SELECT t.k FROM t WHERE t.g > s.g)", greater, |_, i| i.map(|i| !i)),
    ("k NOT IN (SELECT k FROM t) OR g = 1", |_, _| true, |s, i| or(i.map(|i| !i), s.2.map(|g| g == 1))),
    ("(k IN (SELECT k FROM t)) IS NULL", |_, _| true, |_, i| Some(i.is_none())),
    ("(k IN (SELECT t.k FROM t WHERE t.g = s.g)) IS NULL", same_group, |_, i| Some(i.is_none())),
    ("(k NOT IN (SELECT t.k FROM t WHERE t.g > s.g)) IS NOT TRUE", greater, |_, i| Some(i != Some(false))),
    (
        "(k IN (SELECT k FROM t WHERE g = 2)) = (g = 1)",
        |_, t| t.2 == Some(2),
        |s, i| i.zip(s.2).map(|(i, g)| i == (g == 1)),
    ),
    (
        "k = 1 AND (k IN (SELECT k FROM t) OR g = 0)",
        |_, _| true,
        |s, i| {
            if s.1 == Some(1) { or(i, s.2.map(|g| g == 0)) } else { None }
        },
    ),
    ("k + 1 NOT IN (SELECT t.k + 1 FROM t WHERE t.g = s.g) OR k IS NULL", same_group, |s, i| {
        or(i.map(|i| !i), Some(s.1.is_none()))
    }),
];

/// What comes out, of pieces of `size` rows.
fn answer(sql: &str, stream: &RecordBatch, table: &RecordBatch, size: usize) -> Vec<String> {
    let relation = |name: &str, kind| Relation { name: name.into(), schema: stream.schema(), kind, has_meta: false };
    let relations = [relation("s", RelationKind::Stream), relation("t", RelationKind::Table)];
    let plan = plan("op", sql, &relations, &Functions::default()).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"));
    let table = StaticTable { name: "t".into(), schema: table.schema(), batches: vec![table.clone()] };
    let starts = (0..stream.num_rows()).step_by(size);
    let pieces = starts.map(|start| stream.slice(start, size.min(stream.num_rows() - start)));
    let events = pieces.map(|rows| Event::Batch(0, RowBatch::inserts(rows))).collect();
    let make = || plan.operator();
    let open = OpenContext { tables: vec![table], ..OpenContext::default() };
    let case = Case { make: &make, open, events, ordered: true };
    check(&case).unwrap();
    let said = play(&case).unwrap();
    assert!(said.rejected.is_empty(), "{sql}: {:?}", said.rejected);
    said.rows.into_iter().flatten().collect()
}

fn numbered(rows: Vec<(Option<i32>, Option<i32>, Option<f64>)>) -> Vec<Row> {
    rows.into_iter().enumerate().map(|(id, (k, g, f))| (id as i32, k, g, f)).collect()
}

/// Equality of floats as PostgreSQL has it: NaN is NaN, and 0.0 is -0.0.
fn same_float(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a == b || a.is_nan() && b.is_nan())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_with_a_subquery_is_true_false_or_null(
        stream in prop::collection::vec(row(), 0..12),
        table in prop::collection::vec(row(), 0..6),
        size in 1..12_usize,
        case in 0..CASES.len(),
    ) {
        let (condition, among, asked) = CASES[case];
        let (stream, table) = (numbered(stream), numbered(table));
        let value = |s: &Row| {
            let values: Vec<_> = table.iter().filter(|t| among(s, t)).map(|t| t.1).collect();
            asked(s, is_in(s.1, &values))
        };
        let passing = stream.iter().filter(|s| value(s) == Some(true)).map(|s| s.0.to_string());
        let sql = format!("SELECT id FROM s WHERE {condition}");
        prop_assert_eq!(answer(&sql, &batch(&stream), &batch(&table), size), passing.collect::<Vec<_>>(), "{}", sql);
    }

    #[test]
    fn equal_numbers_join(
        stream in prop::collection::vec(row(), 0..12),
        table in prop::collection::vec(row(), 0..6),
        size in 1..12_usize,
    ) {
        let (stream, table) = (numbered(stream), numbered(table));
        let pairs = stream.iter().flat_map(|s| table.iter().filter(|t| same_float(s.3, t.3)).map(move |t| (s, t)));
        let pairs: Vec<String> = pairs.map(|(s, t)| format!("{}|{}", s.0, t.0)).collect();
        let sql = "SELECT s.id, t.id AS other FROM s JOIN t ON t.f = s.f";
        prop_assert_eq!(answer(sql, &batch(&stream), &batch(&table), size), pairs);
    }
}

#[test]
fn a_constant_before_in_and_a_subquery_is_refused_at_its_place() {
    let schema = batch(&[]).schema();
    let relation = |name: &str, kind| Relation { name: name.into(), schema: schema.clone(), kind, has_meta: false };
    let relations = [relation("s", RelationKind::Stream), relation("t", RelationKind::Table)];
    let errors = plan("op", "SELECT id FROM s\nWHERE 5 NOT IN (SELECT k FROM t)", &relations, &Functions::default());
    let errors = errors.unwrap_err();
    assert_eq!((errors.len(), errors[0].line), (1, 2), "{errors:?}");
    assert!(errors[0].message.contains("constant") && errors[0].message.contains("EXISTS"), "{errors:?}");
}
