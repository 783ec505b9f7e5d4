//! Relations with a dot in their names: the further outputs of operators.

use std::sync::Arc;

use logmill_pipelines::flow::RowBatch;

use super::fixtures::{open_context, relations, rows_with_meta};
use crate::conformance::{Case, Event, play};
use crate::sql::{Functions, Relation, TableRef, plan, table_refs};

/// The fixtures with `flights` and `arrivals` as further outputs of an operator.
fn outputs() -> Vec<Relation> {
    let mut relations = relations();
    relations[0].name = "scored.flights".into();
    relations[1].name = "scored.rejects".into();
    relations
}

#[test]
fn an_output_is_named_with_its_operator() {
    let check = |sql: &str, expected: &[(&str, u32, u32)]| {
        let expected = expected.iter().map(|(name, line, column)| TableRef {
            name: (*name).to_owned(),
            line: *line,
            column: *column,
        });
        assert_eq!(table_refs(sql).unwrap(), expected.collect::<Vec<_>>(), "{sql}");
    };
    check("SELECT * FROM Scored.Rejects", &[("scored.rejects", 1, 15)]);
    check("SELECT * FROM \"scored\".\"rejects\" AS r", &[("scored.rejects", 1, 15)]);
    check("SELECT * FROM \"scored.rejects\"", &[("scored.rejects", 1, 15)]);
    check(
        "WITH rejects AS (SELECT 1)\nSELECT * FROM rejects UNION ALL SELECT * FROM scored.rejects",
        &[("scored.rejects", 2, 47)],
    );
}

#[test]
fn columns_of_an_output_are_qualified_by_either_name() {
    let check = |sql: &str, expected: &[&str]| {
        let plan =
            plan("op", sql, &outputs(), &Functions::default()).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"));
        let wanted: Vec<&str> = plan.inputs().iter().map(|input| &*input.relation).collect();
        let [relation] = wanted.as_slice() else { panic!("{sql}: {wanted:?}") };
        let make = || plan.operator();
        let events = vec![Event::Batch(0, RowBatch::inserts(rows_with_meta(&relations()[0])))];
        let case = Case { make: &make, open: open_context(&plan), events, ordered: true };
        assert_eq!(play(&case).unwrap().rows[0][..expected.len()], *expected, "{sql}");
        assert_eq!(&*plan.operator().inputs()[0].name, *relation, "{sql}");
    };
    for sql in [
        "SELECT flight FROM scored.flights WHERE flight = 2",
        "SELECT flights.flight FROM scored.flights WHERE scored.flights.flight = 2",
        "SELECT f.flight FROM scored.flights f WHERE f.flight = 2",
        "SELECT \"scored\".\"flights\".flight FROM \"scored\".\"flights\" WHERE flight = 2",
        "SELECT flight FROM \"scored.flights\" WHERE flight = 2",
    ] {
        check(sql, &["2"]);
    }
    check(
        "SELECT flights.flight, name FROM scored.flights JOIN airlines ON airlines.carrier = flights.carrier WHERE flight = 1",
        &["1|American Airlines"],
    );
}

#[test]
fn a_wildcard_over_an_output_leaves_meta_columns_out() {
    for sql in [
        "SELECT * FROM scored.flights WHERE _offset > 1",
        "SELECT flights.* FROM scored.flights WHERE _offset > 1",
        "SELECT scored.flights.* FROM scored.flights WHERE _offset > 1",
    ] {
        let plan =
            plan("op", sql, &outputs(), &Functions::default()).unwrap_or_else(|errors| panic!("{sql}: {errors:?}"));
        assert_eq!(plan.output_schema().fields().len(), relations()[0].schema.fields().len(), "{sql}");
    }
}

#[test]
fn mistakes_about_outputs_have_places_and_hints() {
    let check = |sql: &str, column: u32, message: &str, hint: &str| {
        let errors = plan("op", sql, &outputs(), &Functions::default()).unwrap_err();
        let found: Vec<_> = errors.iter().map(|e| (e.column, e.message.as_str(), e.hint.as_deref().unwrap())).collect();
        assert_eq!(found, [(column, message, hint)], "{sql}");
    };
    check("SELECT flight FROM scored.rejcts", 20, "unknown relation `scored.rejcts`", "did you mean `scored.rejects`?");
    check("SELECT rejects.fligt FROM scored.rejects", 8, "unknown column `rejects.fligt`", "did you mean `flight`?");
    check(
        "SELECT other.flight FROM scored.rejects",
        8,
        "unknown column `other.flight`: nothing is called `other`",
        "FROM names `scored.rejects`",
    );
}

#[test]
fn explain_and_fingerprint_name_the_output() {
    let planned = |relations: &[Relation], sql: &str| plan("op", sql, relations, &Functions::default()).unwrap();
    let of_output = planned(&outputs(), "SELECT flight FROM scored.rejects");
    assert!(of_output.explain().starts_with("read scored.rejects (flight: int32)"), "{}", of_output.explain());
    let mut plain = outputs();
    plain[1].name = Arc::from("rejects");
    let of_source = planned(&plain, "SELECT flight FROM rejects");
    assert_ne!(of_output.fingerprint(), of_source.fingerprint());
}
