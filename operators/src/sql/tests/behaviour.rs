//! What golden files don't show: columns wanted, changelogs, sharing, order of calls.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use logmill_pipelines::flow::{CheckpointEpoch, Op, Origin, RowBatch, SplitId};

use super::fixtures::{open_context, relations, rows, rows_with_meta};
use crate::conformance::{Case, Event, check, play};
use crate::operator::{OpenContext, Output, Port, Progress, StateBuffer, StaticTable};
use crate::sql::{Functions, SqlPlan, TableRef, plan, table_refs};

fn planned(sql: &str) -> SqlPlan {
    plan("op", sql, &relations(), &Functions::default()).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"))
}

#[test]
fn only_the_columns_that_a_query_reads_are_wanted() {
    let check = |sql: &str, inputs: &[(&str, &[&str])], tables: &[(&str, &[&str])]| {
        let plan = planned(sql);
        let as_pairs = |inputs: &[crate::sql::SqlInput]| -> Vec<(String, Vec<String>)> {
            inputs.iter().map(|input| (input.relation.to_string(), input.columns.clone())).collect()
        };
        let owned = |pairs: &[(&str, &[&str])]| -> Vec<(String, Vec<String>)> {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            pairs.iter().map(|(name, columns)| ((*name).to_owned(), own(columns))).collect()
        };
        assert_eq!(as_pairs(plan.inputs()), owned(inputs), "{sql}");
        assert_eq!(as_pairs(plan.tables()), owned(tables), "{sql}");
    };
    check("SELECT flight FROM flights WHERE delay > 15", &[("flights", &["flight", "delay"])], &[]);
    check("SELECT _key AS k, flight FROM flights", &[("flights", &["flight", "_key"])], &[]);
    check("SELECT 1 AS one FROM flights", &[("flights", &["carrier"])], &[]);
    check("SELECT flight FROM flights WHERE false", &[("flights", &["carrier"])], &[]);
    check(
        "SELECT name FROM airlines JOIN flights USING (carrier)",
        &[("flights", &["carrier"])],
        &[("airlines", &["carrier", "name"])],
    );
    check(
        "SELECT flight FROM arrivals UNION ALL SELECT flight FROM flights WHERE delay > 1 UNION ALL SELECT flight FROM flights",
        &[("flights", &["flight", "delay"]), ("arrivals", &["flight"])],
        &[],
    );
}

#[test]
fn relations_are_told_with_their_places_and_without_common_table_expressions() {
    let sql = "WITH late AS (SELECT * FROM late),\n  b AS (SELECT * FROM late)\nSELECT * FROM b JOIN Codes c ON c.id IN (SELECT x FROM \"Odd Name\")";
    let expected = [("late", 1, 29), ("codes", 3, 22), ("Odd Name", 3, 56)];
    let expected = expected.map(|(name, line, column)| TableRef { name: name.to_owned(), line, column });
    assert_eq!(table_refs(sql).unwrap(), expected);
    assert!(table_refs("SELECT a FRM b c").is_err());
}

#[test]
fn layout_and_unread_columns_do_not_change_the_fingerprint() {
    let one = planned("SELECT flight FROM flights WHERE delay > 15").fingerprint();
    let same = planned("select  Flight\nfrom flights -- late ones\nwhere (delay) > 15").fingerprint();
    let other = planned("SELECT flight FROM flights WHERE delay > 16").fingerprint();
    assert_eq!(one, same);
    assert_ne!(one, other);
    let mut wider = relations();
    let mut fields: Vec<_> = wider[0].schema.fields().iter().cloned().collect();
    fields.push(Arc::new(arrow::datatypes::Field::new("new", arrow::datatypes::DataType::Utf8, true)));
    wider[0].schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let wide =
        plan("op", "SELECT flight FROM flights WHERE delay > 15", &wider, &Functions::default()).unwrap().fingerprint();
    assert_eq!(one, wide);
}

#[test]
fn explain_tells_the_steps() {
    let text = planned(
        "SELECT f.flight, upper(a.name) AS name FROM flights f JOIN airlines a ON a.carrier = f.carrier WHERE f.delay > 15",
    )
    .explain();
    let expected = "\
read flights (carrier: string, flight: int32, delay: float64)
  filter flights.delay > 15
  join on f.carrier = a.carrier, in a hash table of
    read airlines (carrier: string, name: string)
  project f.flight, name = upper(a.name)
output flight: int32, name: string
";
    assert_eq!(text, expected);
}

fn changelog() -> RowBatch {
    let ops =
        [Op::Insert, Op::UpdateBefore, Op::UpdateAfter, Op::Delete, Op::Insert, Op::Delete, Op::Insert, Op::Delete];
    let ops = Int8Array::from_iter_values(ops.map(|op| op as i8));
    RowBatch { ops: Some(ops), ..RowBatch::inserts(rows_with_meta(&relations()[0])) }
}

#[test]
fn changelog_ops_stay_with_their_rows() {
    let check = |sql: &str, expected: &[&str]| {
        let plan = planned(sql);
        let make = || plan.operator();
        let events = vec![Event::Batch(0, changelog())];
        let case = Case { make: &make, open: open_context(&plan), events, ordered: true };
        assert_eq!(play(&case).unwrap().rows[0], expected, "{sql}");
        crate::conformance::check(&case).unwrap();
    };
    check("SELECT flight FROM flights WHERE delay > 15", &["2:3", "3:4", "0:5", "3:8"]);
    check(
        "SELECT f.flight, a.founded FROM flights f JOIN airlines a ON a.carrier = f.carrier WHERE f.flight IN (2, 3)",
        &["1:2|1926", "2:3|1926", "2:3|2013"],
    );
    check(
        "SELECT flight, unnest(tags) AS tag FROM flights WHERE flight IN (4, 7)",
        &["3:4|late", "3:4|null", "3:4|cold", "0:7|full", "0:7|full"],
    );
    check("SELECT flight FROM flights WHERE carrier IN (SELECT carrier FROM planes) AND delay < 5", &["0:1", "1:2"]);
    check("SELECT 100 / seats AS n FROM flights WHERE flight < 4", &["0:0", "2:1"]);
}

/// An output that keeps what it is given.
#[derive(Default)]
struct Kept {
    emitted: Vec<RowBatch>,
    rejected: Vec<(RowBatch, String)>,
    full: bool,
}

impl Output for Kept {
    fn emit(&mut self, _: Port, batch: RowBatch) {
        self.emitted.push(batch);
    }

    fn reject(&mut self, batch: RowBatch, reason: &str) {
        self.rejected.push((batch, reason.to_owned()));
    }

    fn is_full(&self) -> bool {
        self.full
    }
}

fn origin(offset: i64) -> Origin {
    Origin { source: "flights".into(), split: SplitId::new("3"), offset }
}

#[test]
fn origins_are_kept_and_those_of_rejected_rows_are_exact_if_offsets_are_read() {
    let plan = planned("SELECT 1000 / seats AS n, _offset AS o FROM flights");
    let mut operator = plan.operator();
    operator.open(OpenContext::default()).unwrap();
    let mut out = Kept::default();
    let batch = RowBatch { origin: Some(origin(100)), ..RowBatch::inserts(rows_with_meta(&relations()[0])) };
    assert_eq!(operator.on_batch(0, batch, &mut out).unwrap(), Progress::Done);
    assert_eq!(out.emitted.len(), 1, "the rows around a bad one stay together");
    assert_eq!(out.emitted[0].origin, Some(origin(100)));
    assert_eq!(out.emitted[0].num_rows(), 7);
    let (rejected, reason) = &out.rejected[0];
    assert_eq!((rejected.num_rows(), rejected.origin.clone()), (1, Some(origin(101))));
    assert_eq!(reason, "divide by zero error");
}

#[test]
fn a_row_that_fails_in_a_branch_of_a_union_is_put_aside_once_and_as_a_whole() {
    // Flight 2 has no seats, and those of flight 5 are not known.
    let (fine, no_seats, fourth) = ("1000 / flight", "1000 / seats", "1000 / (flight - 4)");
    for (first, second, rejected) in [
        (fine, fine, vec![]),
        (fine, no_seats, vec![101]),
        (no_seats, fine, vec![101]),
        (no_seats, no_seats, vec![101]),
        (no_seats, fourth, vec![101, 103]),
        (fourth, no_seats, vec![101, 103]),
    ] {
        let union = format!("SELECT {first} AS n, _offset AS o FROM flights UNION ALL");
        let plan = planned(&format!("{union} SELECT {second} AS n, _offset AS o FROM flights"));
        let mut operator = plan.operator();
        operator.open(OpenContext::default()).unwrap();
        let mut out = Kept::default();
        let batch = RowBatch { origin: Some(origin(100)), ..RowBatch::inserts(rows_with_meta(&relations()[0])) };
        let good = batch.num_rows() - rejected.len();
        assert_eq!(operator.on_batch(0, batch, &mut out).unwrap(), Progress::Done);
        let emitted: Vec<usize> = out.emitted.iter().map(RowBatch::num_rows).collect();
        assert_eq!(emitted, [good, good], "{first}, {second}");
        let places = out.rejected.iter().map(|(batch, _)| batch.origin.as_ref().unwrap().offset);
        assert_eq!(places.collect::<Vec<_>>(), rejected, "{first}, {second}");
    }
}

#[test]
fn a_full_output_is_not_given_more() {
    let plan = planned("SELECT flight FROM flights");
    let mut operator = plan.operator();
    operator.open(OpenContext::default()).unwrap();
    let mut out = Kept { full: true, ..Kept::default() };
    let batch = || RowBatch::inserts(rows("flights"));
    assert_eq!(operator.on_batch(0, batch(), &mut out).unwrap(), Progress::More);
    assert!(out.emitted.is_empty());
    assert!(operator.snapshot(CheckpointEpoch(1)).is_err());
    assert!(operator.on_batch(0, batch(), &mut out).is_err());
    out.full = false;
    assert_eq!(operator.resume(&mut out).unwrap(), Progress::Done);
    assert_eq!(out.emitted.len(), 1);
    assert!(operator.snapshot(CheckpointEpoch(1)).unwrap().is_empty());
}

#[test]
fn calls_against_the_contract_are_errors() {
    let plan = planned("SELECT f.flight FROM flights f JOIN airlines a ON a.carrier = f.carrier");
    let mut out = Kept::default();
    let mut closed = plan.operator();
    let error = closed.on_batch(0, RowBatch::inserts(rows("flights")), &mut out).unwrap_err();
    assert_eq!(error.to_string(), "operator `op`: it is not open");
    let error = plan.operator().open(OpenContext::default()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("the static table `airlines` was not loaded"), "{source}");
    let state = StateBuffer { table: "groups".into(), shard: 0, data: bytes::Bytes::new() };
    assert!(plan.operator().restore(vec![state]).unwrap_err().to_string().contains("undo the edit"));
    let mut open = plan.operator();
    open.open(open_context(&plan)).unwrap();
    assert!(open.on_batch(0, RowBatch::inserts(rows("planes")), &mut out).is_err(), "columns are missing");
}

#[test]
fn columns_may_come_in_another_order_and_type() {
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, Field, Schema};
    let plan = planned("SELECT flight, delay FROM arrivals WHERE delay > 0");
    let rows = rows("arrivals");
    let flight = cast(rows.column(1), &DataType::Int64).unwrap();
    let schema =
        Schema::new(vec![Field::new("delay", DataType::Float64, true), Field::new("flight", DataType::Int64, true)]);
    let swapped = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(rows.column(2)), flight]).unwrap();
    let make = || plan.operator();
    let events = vec![Event::Batch(0, RowBatch::inserts(rows)), Event::Batch(0, RowBatch::inserts(swapped))];
    let case = Case { make: &make, open: OpenContext::default(), events, ordered: true };
    assert_eq!(play(&case).unwrap().rows[0], ["101|7.0", "101|7.0"]);
    check(&case).unwrap();
}

#[test]
fn workers_share_one_hash_table_and_other_rows_get_their_own() {
    let plan =
        planned("SELECT f.flight, a.name FROM flights f JOIN airlines a ON a.carrier = f.carrier WHERE f.flight = 2");
    let names = |context: &OpenContext| {
        let make = || plan.operator();
        let events = vec![Event::Batch(0, RowBatch::inserts(rows("flights")))];
        play(&Case { make: &make, open: context.clone(), events, ordered: true }).unwrap().rows
    };
    let all = open_context(&plan);
    let mut fewer = all.clone();
    fewer.tables = vec![StaticTable { batches: vec![rows("airlines").slice(0, 1)], ..all.tables[0].clone() }];
    let mut worker = plan.operator();
    worker.open(all.clone()).unwrap();
    assert_eq!(names(&all)[0], ["2|United Air Lines"]);
    assert!(names(&fewer)[0].is_empty());
    assert_eq!(names(&all)[0], ["2|United Air Lines"]);
}

#[test]
fn a_join_of_many_matches_comes_in_chunks() {
    let plan = planned(
        "SELECT f.flight, a.name FROM flights f JOIN airlines a ON a.carrier = f.carrier WHERE f.carrier = 'AA'",
    );
    let airline = rows("airlines").slice(0, 1);
    let many = arrow::compute::concat_batches(&airline.schema(), std::iter::repeat_n(&airline, 30_000)).unwrap();
    let context = OpenContext {
        tables: vec![StaticTable { name: "airlines".into(), schema: many.schema(), batches: vec![many] }],
        ..OpenContext::default()
    };
    let mut operator = plan.operator();
    operator.open(context).unwrap();
    let mut out = Kept::default();
    operator.on_batch(0, RowBatch::inserts(rows("flights")), &mut out).unwrap();
    let sizes: Vec<usize> = out.emitted.iter().map(RowBatch::num_rows).collect();
    assert_eq!(sizes, [32_768, 32_768, 24_464]);
}
