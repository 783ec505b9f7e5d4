//! Runs every query of `testdata/sql`.
//!
//! `name.sql` is a query. If its first line is `-- fails: line:column: message`, planning it gives exactly the errors
//! of its first lines. Otherwise `name.rows` holds the columns and the rows that come out, in their order, and after
//! `!` the rows that are rejected. Rows that come out are also compared with DataFusion's batch answer over the same
//! input, unless the query says `-- no oracle: why`.
//!
//! `cargo test -p logmill-operators -- --ignored bless` writes the expectations anew; read the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::fixtures::{events, open_context, relations, rows, rows_with_meta, testdata};
use crate::conformance::{Case, as_text, check, play};
use crate::sql::{Functions, SqlError, SqlPlan, plan, register_functions};

pub(super) fn queries() -> Vec<PathBuf> {
    let entries = fs::read_dir(testdata().join("sql")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "sql")).collect();
    paths.sort();
    assert!(paths.len() > 50, "the golden queries are not where they should be");
    paths
}

fn fails(sql: &str) -> bool {
    sql.starts_with("-- fails:")
}

/// The errors as the first lines of a query say them.
fn errors_as_text(errors: &[SqlError]) -> String {
    let line = |error: &SqlError| {
        let SqlError { message, line, column, length, .. } = error;
        let hint = error.hint.iter().map(|hint| format!("--  hint: {hint}\n")).collect::<String>();
        format!("-- fails: {line}:{column}+{length}: {message}\n{hint}")
    };
    errors.iter().map(line).collect()
}

fn split_header(sql: &str) -> (String, String) {
    let is_header = |line: &&str| line.starts_with("-- fails:") || line.starts_with("--  hint:");
    let header: String = sql.lines().take_while(is_header).map(|line| format!("{line}\n")).collect();
    let body = sql[header.len()..].to_owned();
    (header, body)
}

fn case<'a>(plan: &'a SqlPlan, sql: &str, make: &'a dyn Fn() -> Box<dyn crate::operator::Operator>) -> Case<'a> {
    // Streams are put one after the other batch by batch.
    Case { make, open: open_context(plan), events: events(plan), ordered: !sql.contains("UNION ALL") }
}

/// What a plan puts out, as `name.rows` holds it.
fn output_as_text(plan: &SqlPlan, sql: &str) -> String {
    let make = || plan.operator();
    let said = play(&case(plan, sql, &make)).unwrap();
    let explained = plan.explain();
    let columns = explained.lines().last().unwrap().strip_prefix("output ").unwrap();
    let rejected = said.rejected.iter().map(|row| format!("! {row}"));
    let lines = said.rows.into_iter().flatten().chain(rejected);
    lines.fold(format!("{columns}\n"), |text, line| format!("{text}{line}\n"))
}

#[test]
fn queries_give_the_expected_rows_or_errors() {
    for path in queries() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let sql = fs::read_to_string(&path).unwrap();
        match plan("golden", &sql, &relations(), &Functions::default()) {
            Err(errors) => assert_eq!(split_header(&sql).0, errors_as_text(&errors), "{name}"),
            Ok(plan) => {
                assert!(!fails(&sql), "{name} does not fail");
                let expected = fs::read_to_string(path.with_extension("rows")).unwrap();
                assert_eq!(output_as_text(&plan, &sql), expected, "{name}");
            }
        }
    }
}

#[test]
fn queries_hold_the_contract_of_operators() {
    for path in queries() {
        let sql = fs::read_to_string(&path).unwrap();
        if fails(&sql) {
            continue;
        }
        let plan = plan("golden", &sql, &relations(), &Functions::default()).unwrap();
        let make = || plan.operator();
        if let Err(broken) = check(&case(&plan, &sql, &make)) {
            panic!("{}: {broken}", path.display());
        }
    }
}

#[test]
fn queries_give_the_rows_that_batch_gives() {
    let mut compared = 0;
    for path in queries() {
        let sql = fs::read_to_string(&path).unwrap();
        if fails(&sql) || sql.starts_with("-- no oracle: ") {
            continue;
        }
        compared += 1;
        compare_with_batch(&path, &sql);
    }
    assert!(compared > 30, "only {compared} queries were compared");
}

fn compare_with_batch(path: &Path, sql: &str) {
    let plan = plan("golden", sql, &relations(), &Functions::default()).unwrap();
    let make = || plan.operator();
    let said = play(&case(&plan, sql, &make)).unwrap();
    assert_eq!(said.rejected, Vec::<String>::new(), "{}", path.display());
    let mut streamed: Vec<String> = said.rows.into_iter().flatten().collect();
    let mut batch: Vec<String> = batch_answer(&plan, sql).iter().flat_map(|rows| as_text(rows, None)).collect();
    streamed.sort_unstable();
    batch.sort_unstable();
    assert_eq!(streamed, batch, "{}", path.display());
}

/// DataFusion's own answer, in the types that flow.
fn batch_answer(plan: &SqlPlan, sql: &str) -> Vec<RecordBatch> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let context = SessionContext::new_with_config(config);
    register_functions(&context, &Functions::default());
    for relation in relations() {
        // In batch, `*` would show meta columns.
        let rows = if sql.contains('*') { rows(&relation.name) } else { rows_with_meta(&relation) };
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
        context.register_table(&*relation.name, Arc::new(table)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
    let flowing = |rows: RecordBatch| {
        let schema = plan.output_schema();
        let columns = rows.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
        RecordBatch::try_new(schema, columns).unwrap()
    };
    answer.into_iter().map(flowing).collect()
}

#[test]
#[ignore = "writes the expectations"]
fn bless() {
    for path in queries() {
        let sql = fs::read_to_string(&path).unwrap();
        match plan("golden", &sql, &relations(), &Functions::default()) {
            Ok(plan) => fs::write(path.with_extension("rows"), output_as_text(&plan, &sql)).unwrap(),
            Err(mut errors) => {
                let body = split_header(&sql).1;
                // The header moves the places that it tells.
                for _ in 0..3 {
                    let sql = errors_as_text(&errors) + &body;
                    fs::write(&path, &sql).unwrap();
                    errors = plan("golden", &sql, &relations(), &Functions::default()).unwrap_err();
                }
            }
        }
    }
}
