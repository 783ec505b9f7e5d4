//! Whatever the rows, however they are cut, and whatever somebody types.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use logmill_pipelines::flow::RowBatch;
use proptest::prelude::*;

use super::fixtures::relations;
use super::golden::queries;
use crate::conformance::{Case, Event, as_text, play};
use crate::operator::{OpenContext, StaticTable};
use crate::sql::{Functions, Relation, RelationKind, plan};

const QUERIES: [&str; 9] = [
    "SELECT s.k, s.n, t.n AS m FROM s JOIN t ON t.k = s.k",
    "SELECT s.k, s.n, t.n AS m FROM s LEFT JOIN t ON t.k = s.k AND t.n > s.n",
    "SELECT s.n, t.n AS m FROM s JOIN t ON t.k = s.k AND t.n = s.n WHERE s.n <> 2",
    "SELECT s.n, t.k FROM s JOIN t ON t.n IS NOT DISTINCT FROM s.n",
    "SELECT n FROM s WHERE k IN (SELECT k FROM t WHERE n > 1)",
    "SELECT n FROM s WHERE k NOT IN (SELECT k FROM t WHERE n > 1)",
    "SELECT n FROM s WHERE n > 2 OR NOT EXISTS (SELECT 1 FROM t WHERE t.k = s.k)",
    "SELECT n, unnest(items) AS item FROM s WHERE n < 3",
    "SELECT k, n FROM s WHERE n > 1 UNION ALL SELECT s.k, t.n FROM s JOIN t ON t.k = s.k",
];

/// A key, a number and a list.
type Row = (Option<u8>, Option<i32>, Option<Vec<Option<i32>>>);

fn row() -> impl Strategy<Value = Row> {
    let key = prop::option::weighted(0.8, 0..4_u8);
    let number = prop::option::weighted(0.8, 0..4_i32);
    let list = prop::option::weighted(0.8, prop::collection::vec(prop::option::weighted(0.8, 0..9_i32), 0..4));
    (key, number, list)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let key: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|(k, ..)| k.map(|k| format!("key {k}")))));
    let number: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|(_, n, _)| *n)));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(|(_, _, list)| list.clone()));
    let items: ArrayRef = Arc::new(lists);
    RecordBatch::try_from_iter_with_nullable([("k", key, true), ("n", number, true), ("items", items, true)]).unwrap()
}

/// DataFusion's answer over the whole.
fn batch_answer(sql: &str, stream: &RecordBatch, table: &RecordBatch) -> Vec<String> {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    for (name, rows) in [("s", stream), ("t", table)] {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
    let mut rows: Vec<String> = answer.iter().flat_map(|rows| as_text(rows, None)).collect();
    rows.sort_unstable();
    rows
}

/// The operator's answer over pieces of `size` rows.
fn streamed_answer(sql: &str, stream: &RecordBatch, table: &RecordBatch, size: usize) -> Vec<String> {
    let relation = |name: &str, kind| Relation { name: name.into(), schema: stream.schema(), kind, has_meta: false };
    let plan = plan(
        "op",
        sql,
        &[relation("s", RelationKind::Stream), relation("t", RelationKind::Table)],
        &Functions::default(),
    )
    .unwrap();
    let halves =
        [table.slice(0, table.num_rows() / 2), table.slice(table.num_rows() / 2, table.num_rows().div_ceil(2))];
    let table = StaticTable { name: "t".into(), schema: table.schema(), batches: halves.to_vec() };
    let starts = (0..stream.num_rows()).step_by(size);
    let pieces = starts.map(|start| stream.slice(start, size.min(stream.num_rows() - start)));
    let make = || plan.operator();
    let events = pieces.map(|rows| Event::Batch(0, RowBatch::inserts(rows))).collect();
    let said = play(&Case {
        make: &make,
        open: OpenContext { tables: vec![table], ..OpenContext::default() },
        events,
        ordered: false,
    })
    .unwrap();
    assert!(said.rejected.is_empty());
    let mut rows: Vec<String> = said.rows.into_iter().flatten().collect();
    rows.sort_unstable();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_cut_anywhere_give_what_batch_gives(
        stream in prop::collection::vec(row(), 0..40),
        table in prop::collection::vec(row(), 0..12),
        size in 1..20_usize,
        query in 0..QUERIES.len(),
    ) {
        let sql = QUERIES[query];
        let (stream, table) = (batch(&stream), batch(&table));
        prop_assert_eq!(streamed_answer(sql, &stream, &table, size), batch_answer(sql, &stream, &table), "{}", sql);
    }

    #[test]
    fn whatever_is_typed_is_planned_or_refused_at_a_place_in_the_text(
        query in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 1..4),
    ) {
        let paths = queries();
        let sql = std::fs::read_to_string(query.get(&paths)).unwrap();
        let body: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--")).collect();
        let mut words: Vec<String> = body.join(" ").split_whitespace().map(str::to_owned).collect();
        for (at, edit) in edits {
            if words.is_empty() {
                break;
            }
            let at = at.index(words.len());
            match edit {
                0 => drop(words.remove(at)),
                1 => {
                    let again = words[at].clone();
                    words.insert(at, again);
                }
                2 => words.swap(at, 0),
                _ => words[at] = words[at].chars().take(1).collect(),
            }
        }
        let text = words.join("\n");
        for error in plan("op", &text, &relations(), &Functions::default()).err().unwrap_or_default() {
            let line = text.lines().nth(error.line as usize - 1).unwrap_or_default();
            prop_assert!(error.length >= 1 && !error.message.is_empty());
            prop_assert!(error.line as usize <= text.lines().count().max(1), "{error:?} in {text}");
            prop_assert!(error.column as usize <= line.chars().count() + 1, "{error:?} in {text}");
        }
    }
}
