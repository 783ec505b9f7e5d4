//! Queries over files and over a log in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use logmill_connectors::conformance::memory_log::{MemoryLog, MemoryTransaction};
use logmill_connectors::log::{Log, NewTopic, TopicPartition};
use logmill_connectors::registry::registry;
use logmill_connectors::transaction::Transaction;
use logmill_pipelines::flow::CheckpointEpoch;
use logmill_protocol::{BatchBuilder, BatchOptions, Timestamp};
use parquet::arrow::ArrowWriter;

use super::*;

/// The rows as JSON lines; nulls are left out of them.
async fn ask(log: Option<Arc<dyn Log>>, sql: &str) -> Result<String, QueryError> {
    let query = Query { log, registry: registry(), functions: Functions::default() };
    let rows = query.run(sql).await?.collect().await?;
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    rows.iter().for_each(|rows| writer.write(rows).unwrap());
    writer.finish().unwrap();
    Ok(String::from_utf8(writer.into_inner()).unwrap())
}

async fn check(log: &Arc<MemoryLog>, sql: &str, expected: &[&str]) {
    let rows = ask(Some(log.clone()), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(rows.lines().collect::<Vec<_>>(), expected, "{sql}");
}

async fn check_error(log: &Arc<MemoryLog>, sql: &str, expected: &str) {
    let error = ask(Some(log.clone()), sql).await.expect_err(sql);
    assert_eq!(error.to_string(), expected, "{sql}");
}

fn parquet_file(path: &Path, ids: &[i64], names: &[&str]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names.to_vec()))];
    let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn a_folder_of_parquet_has_its_folders_as_columns_and_no_hidden_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    parquet_file(&root.join("carrier=AA/1.parquet"), &[1, 2], &["a", "b"]);
    parquet_file(&root.join("carrier=B%2FB/2.parquet"), &[3], &["c"]);
    parquet_file(&root.join("carrier=__HIVE_DEFAULT_PARTITION__/3.parquet"), &[4], &["d"]);
    parquet_file(&root.join("_logmill/4.parquet"), &[5], &["e"]);
    parquet_file(&root.join(".staged/carrier=AA/5.parquet"), &[6], &["f"]);
    parquet_file(&root.join("carrier=AA/.6.parquet"), &[7], &["g"]);
    let path = root.display();
    let log = Arc::new(MemoryLog::default());
    check(
        &log,
        &format!("SELECT * FROM '{path}' ORDER BY id"),
        &[
            r#"{"id":1,"name":"a","carrier":"AA"}"#,
            r#"{"id":2,"name":"b","carrier":"AA"}"#,
            r#"{"id":3,"name":"c","carrier":"B/B"}"#,
            r#"{"id":4,"name":"d"}"#,
        ],
    )
    .await;
    check(&log, &format!("SELECT count(*) AS n FROM '{path}/' WHERE carrier IS NULL"), &[r#"{"n":1}"#]).await;
    check(&log, &format!("SELECT id FROM \"{path}/carrier=AA/*.parquet\" AS t WHERE t.id > 1"), &[r#"{"id":2}"#]).await;
    let answer = Query { log: None, registry: registry(), functions: Functions::default() }
        .run(&format!("SELECT name FROM '{path}'"))
        .await
        .unwrap();
    assert_eq!(answer.schema.field(0).data_type(), &DataType::Utf8);
}

#[tokio::test]
async fn text_files_have_the_columns_that_pipelines_infer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flights.ndjson");
    let lines =
        "{\"at\":\"2013-01-01T05:00:00Z\",\"carrier\":\"AA\",\"delay\":1.5}\n\n{\"at\":null,\"carrier\":\"UA\"}\n";
    std::fs::write(&path, lines).unwrap();
    let carriers = folder.path().join("carriers.csv");
    std::fs::write(&carriers, "carrier,name\nAA,\"American, of course\"\nUA,\n").unwrap();
    let log = Arc::new(MemoryLog::default());
    let sql = format!(
        "SELECT date_part('hour', at) AS hour, delay, name FROM '{}' f JOIN '{}' c ON f.carrier = c.carrier ORDER BY 1",
        path.display(),
        carriers.display()
    );
    check(&log, &sql, &[r#"{"hour":5,"delay":1.5,"name":"American, of course"}"#, "{}"]).await;
    assert!(!reads_topics(&sql).unwrap());
    assert!(reads_topics("SELECT * FROM flights").unwrap());
}

#[tokio::test]
async fn a_file_goes_by_its_name_without_folders_and_ending() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    parquet_file(&folder.path().join("a/carriers.parquet"), &[1], &["x"]);
    parquet_file(&folder.path().join("b/carriers.parquet"), &[2], &["y"]);
    let log = Arc::new(MemoryLog::default());
    for (sql, expected) in [
        (format!("SELECT carriers.id FROM '{path}/a/carriers.parquet'"), r#"{"id":1}"#),
        (format!("SELECT max(id) FROM '{path}/a/'"), r#"{"max(a.id)":1}"#),
        (format!("SELECT max(id) FROM '{path}/a/*.parquet'"), r#"{"max(a.id)":1}"#),
        // Two of one name keep their paths, and want aliases to be told apart.
        (
            format!("SELECT y.id FROM '{path}/a/carriers.parquet' x JOIN '{path}/b/carriers.parquet' y ON x.id < y.id"),
            r#"{"id":2}"#,
        ),
        (format!("SELECT count(*) AS n FROM '{path}/a/carriers.parquet', '{path}/b/carriers.parquet'"), r#"{"n":1}"#),
    ] {
        check(&log, &sql, &[expected]).await;
    }
}

#[tokio::test]
async fn json_arrows_bind_as_in_operators() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bodies.csv");
    std::fs::write(&path, "id,body\n1,\"{\"\"gate\"\":\"\"A1\"\"}\"\n2,{}\n").unwrap();
    let sql = format!("SELECT id FROM '{}' WHERE body->>'gate' = 'A1'", path.display());
    check(&Arc::new(MemoryLog::default()), &sql, &[r#"{"id":1}"#]).await;
}

#[tokio::test]
async fn files_without_rows_are_answered_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    parquet_file(&folder.path().join("none.parquet"), &[], &[]);
    std::fs::write(folder.path().join("none.ndjson"), "").unwrap();
    std::fs::write(folder.path().join("none.csv"), "a,b\n").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    let log = Arc::new(MemoryLog::default());
    check(&log, &format!("SELECT count(*) AS n FROM '{path}/none.parquet'"), &[r#"{"n":0}"#]).await;
    check(&log, &format!("SELECT count(*) AS n FROM '{path}/none.ndjson'"), &[r#"{"n":0}"#]).await;
    check(&log, &format!("SELECT count(a) AS n FROM '{path}/none.csv'"), &[r#"{"n":0}"#]).await;
    for (name, expected) in [
        ("missing.parquet", format!("line 1, column 15: there is no file `{path}/missing.parquet`")),
        (
            "notes.txt",
            format!(
                "line 1, column 15: `{}/notes.txt` cannot be read; files that can be end in parquet, ndjson, jsonl, \
                 json, csv",
                path.to_string().trim_start_matches('/')
            ),
        ),
    ] {
        check_error(&log, &format!("SELECT * FROM '{path}/{name}'"), &expected).await;
    }
}

fn batch(records: &[(Option<&str>, &str)]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (key, value) in records {
        builder.append(Timestamp(5), key.map(str::as_bytes), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

async fn flights() -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::default());
    for (name, partitions) in [("late-flights", 2), ("notes", 1), ("empty", 1)] {
        log.create_topic(NewTopic { name: name.into(), partitions, configs: Vec::new() }).await.unwrap();
    }
    let place = |partition| TopicPartition { topic: "late-flights".into(), partition };
    let first = batch(&[(Some("k"), r#"{"carrier":"AA","delay":1.5}"#), (None, r#"{"carrier":"UA","delay":3}"#)]);
    log.produce(&place(0), first).await.unwrap();
    for (value, commit) in [("lost", Some(false)), ("kept", Some(true)), ("open", None)] {
        let transaction = MemoryTransaction::begin(log.clone()).await.unwrap();
        let value = format!("{{\"carrier\":\"{value}\",\"delay\":9}}");
        transaction.append(CheckpointEpoch(1), &place(1), batch(&[(None, &value)])).await.unwrap();
        if let Some(commit) = commit {
            transaction.end(commit).await.unwrap();
        }
    }
    let notes = TopicPartition { topic: "notes".into(), partition: 0 };
    log.produce(&notes, batch(&[(None, "not JSON at all")])).await.unwrap();
    log
}

#[tokio::test]
async fn a_topic_shows_what_was_committed_and_nothing_else() {
    let log = flights().await;
    check(
        &log,
        "SELECT * FROM \"late-flights\" ORDER BY delay",
        &[r#"{"carrier":"AA","delay":1.5}"#, r#"{"carrier":"UA","delay":3.0}"#, r#"{"carrier":"kept","delay":9.0}"#],
    )
    .await;
    check(&log, "SELECT count(*) AS n FROM \"late-flights\"", &[r#"{"n":3}"#]).await;
    check(&log, "SELECT carrier FROM \"late-flights\" WHERE delay > 2 AND delay < 4", &[r#"{"carrier":"UA"}"#]).await;
    check(&log, "SELECT * FROM notes", &[r#"{"value":"not JSON at all"}"#]).await;
    check(&log, "SELECT * FROM empty", &[]).await;
    check(&log, "SELECT count(*) AS n FROM empty", &[r#"{"n":0}"#]).await;
}

#[tokio::test]
async fn meta_columns_are_there_when_they_are_named_and_not_in_a_star() {
    let log = flights().await;
    check(
        &log,
        "SELECT _partition AS p, _offset AS o, carrier FROM \"late-flights\" ORDER BY 1, 2",
        &[r#"{"p":0,"o":0,"carrier":"AA"}"#, r#"{"p":0,"o":1,"carrier":"UA"}"#, r#"{"p":1,"o":2,"carrier":"kept"}"#],
    )
    .await;
    for (condition, expected) in [
        ("_partition = 1", r#"{"carrier":"kept","delay":9.0}"#),
        ("_partition IN (0) AND _offset >= 1", r#"{"carrier":"UA","delay":3.0}"#),
        ("1 > _offset", r#"{"carrier":"AA","delay":1.5}"#),
        ("_offset BETWEEN 1 AND 1", r#"{"carrier":"UA","delay":3.0}"#),
        ("_key = arrow_cast('k', 'Binary')", r#"{"carrier":"AA","delay":1.5}"#),
    ] {
        check(&log, &format!("SELECT * FROM \"late-flights\" WHERE {condition}"), &[expected]).await;
        let aliased = format!("SELECT t.* FROM \"late-flights\" AS t WHERE {condition}");
        check(&log, &aliased, &[expected]).await;
    }
    check(
        &log,
        "WITH t AS (SELECT *, _offset AS at FROM \"late-flights\") SELECT * FROM t WHERE at = 1",
        &[r#"{"carrier":"UA","delay":3.0,"at":1}"#],
    )
    .await;
}

#[tokio::test]
async fn filters_on_place_narrow_what_is_read() {
    use datafusion::prelude::{col, lit};
    let all = std::collections::BTreeMap::from([(0, (0, 10)), (1, (5, 20))]);
    for (filter, expected) in [
        (col("_partition").eq(lit(1)), vec![(1, 5, 20)]),
        (col("_partition").in_list(vec![lit(0), lit(7)], false), vec![(0, 0, 10)]),
        (col("_partition").in_list(vec![lit(0)], true), vec![(0, 0, 10), (1, 5, 20)]),
        (col("_offset").gt(lit(8i64)), vec![(0, 9, 10), (1, 9, 20)]),
        (lit(6i64).gt_eq(col("_offset")), vec![(0, 0, 7), (1, 5, 7)]),
        (col("_offset").eq(lit(3u8)).and(col("other").eq(lit(1))), vec![(0, 3, 4)]),
        (col("_offset").lt(lit(2.5)), vec![(0, 0, 10), (1, 5, 20)]),
        (col("_offset").lt(lit(2)).or(col("_partition").eq(lit(1))), vec![(0, 0, 10), (1, 5, 20)]),
    ] {
        assert_eq!(topic::narrowed(&all, &filter), expected, "{filter}");
    }
}

#[tokio::test]
async fn records_that_do_not_fit_are_left_out() {
    let log = flights().await;
    let place = TopicPartition { topic: "late-flights".into(), partition: 0 };
    log.produce(&place, batch(&[(None, "oops"), (None, r#"{"carrier":"DL","delay":7}"#)])).await.unwrap();
    check(&log, "SELECT carrier FROM \"late-flights\" WHERE delay = 7", &[r#"{"carrier":"DL"}"#]).await;
}

#[tokio::test]
async fn mistakes_have_a_place_and_a_hint() {
    let log = flights().await;
    for (sql, expected) in [
        (
            "SELECT *\nFROM \"late-flihgts\"",
            "line 2, column 6: there is no topic or file `late-flihgts`; did you mean \"late-flights\"?",
        ),
        (
            "SELECT * FROM x",
            "line 1, column 15: there is no topic or file `x`; the topics are empty, late-flights, notes",
        ),
        (
            "SELECT carier FROM \"late-flights\"",
            "line 1, column 8: there is no column `carier`; did you mean `carrier`?",
        ),
        (
            "SELECT * FROM a.b",
            "line 1, column 17: there is no relation `a.b`; a name with a dot is written in double quotes: \"a.b\"",
        ),
        ("SELECT uper(carrier) FROM empty", "line 1, column 8: unknown function `uper`; did you mean `upper`?"),
        ("SELECT * FRM x", "line 1, column 10: syntax error: Expected: end of statement, found: FRM"),
        (
            "SELECT carrier FROM empty",
            "line 1, column 8: there is no column `carrier`; topic `empty` has no record yet to infer columns from",
        ),
        (" ;", "the query is empty; write `SELECT … FROM …`"),
        (
            "DROP TABLE notes",
            "only queries can be run here; write `SELECT …`; topics are made by `logmill topic`, and files are written \
             by pipelines",
        ),
    ] {
        check_error(&log, sql, expected).await;
    }
    let error = ask(None, "SELECT * FROM flights").await.unwrap_err();
    assert!(
        error.to_string().ends_with(
            "there is no topic or file `flights`; this log has no topics; a file is named as '…/flights.parquet'"
        ),
        "{error}"
    );
}
