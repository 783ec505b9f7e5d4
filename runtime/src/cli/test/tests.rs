//! Tests that pass, and tests that say why they do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::trial::Stage;
use crate::cli::check::examine;

/// Runs the one test of a pipeline. The rest of the file comes before it.
async fn problems(pipeline: &str, test: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("names.csv"), "id,name\n1,one\n2,two\n").unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, format!("pipeline: p\n{pipeline}tests:\n  - name: t\n{test}")).unwrap();
    let (plan, found) = examine(&file, None).unwrap();
    let plan = plan.unwrap_or_else(|| panic!("{}", found.render(false)));
    let stage = Stage::load(&plan.pipeline, &plan.modules, dir.path().to_owned()).await.unwrap();
    stage.run(&plan.pipeline.spec.tests[0])
}

const ROWS: &str = "\
sources:
  rows:
    type: file
    path: rows.ndjson
    format: json
    schema: { id: int64, n: float64, at: timestamp, raw: binary, tags: list<string> }
operators:
  some: { sql: 'SELECT id, 10 / id AS share, n, at, raw, tags, _key AS k, _timestamp AS t FROM rows WHERE n > 1' }
sinks:
  out: { type: blackhole, input: some }
";

async fn check(test: &str, expected: &[&str]) {
    assert_eq!(problems(ROWS, test).await, expected, "{test}");
}

#[tokio::test]
async fn rows_are_held_to_what_they_mean_not_to_how_they_are_written() {
    let input = "    input: { rows: [{ id: 2, n: 1.5, at: '2013-01-01T05:00:00+01:00', raw: '0aff', tags: [a], \
                 _key: k, _timestamp: '2020-01-01T00:00:00Z' }, { id: 3, n: 1 }] }\n";
    for expect in [
        "{ some: [{ id: 2 }] }",
        "{ some: [{ id: 2, share: 5, n: 15e-1, at: '2013-01-01T04:00:00Z', raw: '0AFF', tags: [a] }] }",
        "{ some: [{ t: '2020-01-01T00:00:00Z' }], rows: [{ id: 2, _key: k }, { id: 3, at: null, _key: null }] }",
        "{}",
    ] {
        check(&format!("{input}    expect: {expect}\n"), &[]).await;
    }
}

#[tokio::test]
async fn what_differs_is_shown() {
    let input = "    input: { rows: [{ id: 2, n: 2 }, { id: 3, n: 3 }] }\n";
    check(
        &format!("{input}    expect: {{ some: [{{ id: 2 }}, {{ id: 4 }}] }}\n"),
        &["some:\n      {\"id\":2}\n    - {\"id\":4}\n    + {\"id\":3}"],
    )
    .await;
    check(
        &format!("{input}    expect: {{ some: [{{ idd: 2 }}, {{ id: x }}] }}\n"),
        &[
            "some: expected row 1: there is no column `idd`; did you mean `id`?",
            "some: expected row 2: column `id`: expected an integer, found \"x\"",
        ],
    )
    .await;
}

#[tokio::test]
async fn input_that_the_source_could_not_give_fails_the_test() {
    for (row, message) in [
        ("{ id: x }", "row 1: column `id`: expected an integer"),
        ("{ idd: 1 }", "row 1: field \"idd\" is not in the schema"),
        ("{ _offset: 1 }", "row 1: `_offset` is given by the test"),
        ("{ _timestamp: noon }", "row 1: `_timestamp` is a time"),
    ] {
        let found = problems(ROWS, &format!("    input: {{ rows: [{row}] }}\n    expect: {{}}\n")).await;
        assert!(found.len() == 1 && found[0].contains(message), "{row}: {found:?}");
    }
}

#[tokio::test]
async fn rows_that_fail_are_told_or_expected_as_dead_letters() {
    let input = "    input: { rows: [{ id: 0, n: 2 }, { id: 5, n: 2 }] }\n";
    let found = problems(ROWS, &format!("{input}    expect: {{ some: [{{ id: 5 }}] }}\n")).await;
    assert!(found.len() == 1 && found[0].starts_with("operator `some` failed on a row: divide by zero"), "{found:?}");
    let letters = format!("{ROWS}on_error: {{ dead_letter: bad-rows }}\n");
    let expect = "{ some: [{ id: 5 }], bad-rows: [{ id: 0, _operator: some, _error: divide by zero error }] }";
    assert!(problems(&letters, &format!("{input}    expect: {expect}\n")).await.is_empty());
    let found = problems(&letters, &format!("{input}    expect: {{ bad-rows: [] }}\n")).await;
    assert!(found.len() == 1 && found[0].starts_with("bad-rows:\n    + {\"id\":0"), "{found:?}");
}

#[tokio::test]
async fn columns_are_those_of_the_rows_where_none_are_declared_and_tables_are_loaded() {
    let pipeline = "\
sources:
  lines: { type: file, path: lines.txt, format: raw }
  rows: { type: file, path: rows.ndjson, format: json }
tables:
  names: { type: file, path: names.csv, format: csv }
operators:
  named: { sql: 'SELECT rows.id, name FROM rows JOIN names ON names.id = rows.id' }
  long: { sql: 'SELECT value FROM lines WHERE length(arrow_cast(value, ''Utf8'')) > 2' }
sinks:
  a: { type: blackhole, input: named }
  b: { type: blackhole, input: long }
";
    let test = "    input: { rows: [{ id: 2 }, { id: 3 }], lines: [{ value: ab }, { value: größer }] }\n    \
                expect: { named: [{ id: 2, name: two }], lines: [{}, {}] }\n";
    assert_eq!(problems(pipeline, test).await, Vec::<String>::new());
    let without = problems(pipeline, "    input: { lines: [] }\n    expect: { named: [] }\n").await;
    assert!(without.len() == 1 && without[0].contains("`rows` are not known"), "{without:?}");
}
