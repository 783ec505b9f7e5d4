//! Pipelines with mistakes, and what is said about them: `testdata/NAME.yaml` with `testdata/NAME.expected` beside it.
//!
//! `LOGMILL_BLESS=1 cargo test -p logmill-pipelines` writes the expected files anew; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::*;

/// A connector's configuration, as the connectors' crate has them.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
struct FileConfig {
    /// The files to read: a path or a glob.
    path: String,
    /// Keep reading what is appended.
    #[serde(default)]
    follow: bool,
    /// How many records a second to read at most.
    #[serde(default)]
    rate: Option<u32>,
    /// The first line and the last.
    #[serde(default)]
    lines: Option<(u32, u32)>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
struct TopicConfig {
    /// The topic.
    topic: TopicName,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
struct LakeConfig {
    /// Where the objects go.
    #[schemars(url)]
    url: String,
    /// The columns whose values name the folders.
    #[serde(default)]
    partition_by: Vec<String>,
    /// When a file is closed.
    #[serde(default)]
    roll: Roll,
}

#[derive(Default, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
#[serde(deny_unknown_fields)]
struct Roll {
    every: Option<DurationSpec>,
    bytes: Option<ByteSize>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
struct CsvOptions {
    /// Texts that mean null.
    #[serde(default)]
    null_values: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "of most, only the schema is used")]
struct Nothing {}

fn catalog() -> Catalog {
    let kind = |name, role, schema, formats: &'static [&'static str]| ConnectorKind {
        name,
        role,
        summary: "Of the tests.",
        schema,
        formats,
        needs_through: name == "http",
    };
    Catalog::new(vec![
        kind("file", Role::Source, || schemars::schema_for!(FileConfig), &["json", "csv", "parquet"]),
        kind("file", Role::Table, || schemars::schema_for!(FileConfig), &["json", "csv", "parquet"]),
        kind("topic", Role::Source, || schemars::schema_for!(TopicConfig), &["json"]),
        kind("http", Role::Source, || schemars::schema_for!(Nothing), &["json"]),
        kind("generate", Role::Source, || schemars::schema_for!(Nothing), &[]),
        kind("topic", Role::Sink, || schemars::schema_for!(TopicConfig), &["json"]),
        kind("object_store", Role::Sink, || schemars::schema_for!(LakeConfig), &["parquet", "json"]),
        kind("blackhole", Role::Sink, || schemars::schema_for!(Nothing), &[]),
    ])
    .with_formats(vec![FormatKind {
        name: "csv",
        summary: "Comma-separated values.",
        schema: || schemars::schema_for!(CsvOptions),
    }])
}

fn environment() -> MemoryEnvironment {
    MemoryEnvironment {
        vars: [("LAKE_URL", "s3://hunter2-bucket"), ("PARTITIONS", "4"), ("WORD", "hunter2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        files: [("secret.txt".to_owned(), "hunter2\n".to_owned())].into(),
    }
}

/// The relations after FROM and JOIN: as much SQL as these tests need.
fn refs(sql: &str) -> Vec<TableRef> {
    let mut found = Vec::new();
    for (line, text) in sql.lines().enumerate() {
        let words: Vec<(usize, &str)> = text
            .split(' ')
            .scan(0, |at, word| {
                let start = *at;
                *at += word.chars().count() + 1;
                Some((start, word))
            })
            .collect();
        for pair in words.windows(2) {
            if matches!(pair[0].1, "FROM" | "JOIN") {
                found.push(TableRef { name: pair[1].1.to_owned(), line: line + 1, column: pair[1].0 + 1 });
            }
        }
    }
    found
}

/// All that is said about a pipeline, its graph included.
fn report(name: &str, text: &str) -> String {
    let reading = read(name, text, &catalog(), &environment());
    let mut all = reading.diagnostics;
    let mut graph = String::new();
    if let Some(pipeline) = &reading.pipeline {
        let sql = |operator: &str| match pipeline.spec.operators.get(operator) {
            Some(OperatorSpec::Sql(sql)) => refs(sql),
            _ => Vec::new(),
        };
        let (built, found) = Graph::follow(pipeline, &sql);
        assert_eq!(Graph::build(pipeline, &sql).is_err(), found.has_errors());
        let names: Vec<&str> = built.nodes.keys().map(String::as_str).collect();
        graph = format!("order: {}\n", names.join(" "));
        if !built.incomplete.is_empty() {
            let names: Vec<&str> = built.incomplete.iter().map(String::as_str).collect();
            graph.push_str(&format!("incomplete: {}\n", names.join(" ")));
        }
        all.extend(found.items().iter().chain(&built.warnings).cloned());
    }
    format!("{graph}{all}\n")
}

#[test]
fn every_mistake_is_reported_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let bless = std::env::var_os("LOGMILL_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = report(name, &std::fs::read_to_string(&path).unwrap());
        assert!(!said.contains("hunter2"), "{name} prints a secret:\n{said}");
        let expected_path = path.with_extension("expected");
        if bless {
            std::fs::write(&expected_path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("--- {name} expected\n{expected}\n--- {name} said\n{said}"));
        }
    }
    assert!(count > 20, "testdata is missing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_schema_is_closed_and_understood() {
    let schema = json_schema(&catalog());
    assert_eq!(catalog().problems(), Vec::<String>::new());
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let file = &schema["$defs"]["source_file"];
    assert_eq!(file["additionalProperties"], false);
    assert_eq!(file["required"], serde_json::json!(["type", "path"]));
    assert_eq!(file["properties"]["path"]["description"], "The files to read: a path or a glob.");
    assert_eq!(file["properties"]["format"]["anyOf"][0]["enum"], serde_json::json!(["json", "csv", "parquet"]));
    assert_eq!(schema["$defs"]["source_http"]["required"], serde_json::json!(["type", "through"]));
    assert!(schema["$defs"]["sink_object_store_Roll"]["properties"]["every"].is_object());
}

#[test]
fn a_schema_that_can_not_be_followed_is_told() {
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is used")]
    struct Odd {
        input: String,
        #[schemars(extend("uniqueItems" = true))]
        list: Vec<String>,
    }
    let catalog = Catalog::new(vec![ConnectorKind {
        name: "odd",
        role: Role::Sink,
        summary: "Odd.",
        schema: || schemars::schema_for!(Odd),
        formats: &["json"],
        needs_through: false,
    }]);
    assert_eq!(
        catalog.problems(),
        ["the sink `odd` has a key `input` of its own, but every sink has one", "keyword `uniqueItems` is not checked"]
    );
}

#[test]
fn a_good_pipeline_gives_its_values_and_keeps_its_secrets() {
    let text = include_str!("../testdata/good.yaml");
    let pipeline = parse("good.yaml", text, &catalog(), &environment()).unwrap();
    let spec = &pipeline.spec;
    assert_eq!((spec.topics["flights"].partitions, spec.topics["keep"].partitions), (4, 1));
    assert_eq!(spec.topics["flights"].retention.unwrap().to_string(), "1w");
    assert_eq!(spec.topics["keep"].retention, Some(Retention::Forever));
    assert_eq!(spec.sources["flights"].schema.as_ref().unwrap()["flight"], ColumnType::Int32);
    assert_eq!(spec.sources["flights"].config::<FileConfig>().unwrap().path, "data/*.ndjson");
    let csv = spec.tables["airlines"].format.as_ref().unwrap();
    assert_eq!((csv.r#type.as_str(), csv.config::<CsvOptions>().unwrap().null_values), ("csv", vec!["NA".to_owned()]));
    let lake = spec.sinks["lake"].config::<LakeConfig>().unwrap();
    assert_eq!(lake.url, "s3://hunter2-bucket/late-flights");
    assert_eq!(lake.roll.bytes, Some(ByteSize::from_mib(128)));
    assert_eq!(spec.on_error, OnError::DeadLetter(TopicName::try_from("late-flights-dlq".to_owned()).unwrap()));
    assert_eq!(spec.commit.every, DurationSpec::from_secs(1));

    let printed = format!("{pipeline:?} {}", pipeline.redacted());
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(pipeline.redacted()["sinks"]["lake"]["url"], "${LAKE_URL:-file://./out}/late-flights");
    let error = pipeline.error_at(&["sinks", "lake", "url"], "no access to s3://hunter2-bucket/late-flights");
    assert_eq!(error.message, "no access to ***/late-flights");
    assert_eq!((error.span.line, error.span.column), (28, 10));
}

#[test]
fn unquoted_references_become_what_is_wanted_there() {
    let text = include_str!("../testdata/interpolated.yaml");
    let pipeline = parse("interpolated.yaml", text, &catalog(), &environment()).unwrap();
    assert_eq!(pipeline.spec.topics["t"].partitions, 4);
    assert_eq!(pipeline.spec.sources["flights"].rest["path"], "4");
}

#[test]
fn the_spec_survives_being_written_and_read() {
    let text = include_str!("../testdata/good.yaml");
    let pipeline = parse("good.yaml", text, &catalog(), &environment()).unwrap();
    let json = serde_json::to_string_pretty(&pipeline.spec).unwrap();
    let again = parse("good.json", &json, &catalog(), &environment()).unwrap();
    assert!(again.spec == pipeline.spec);
}

/// Pieces that make texts look like pipelines often enough to get past the parser.
fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = [
        "pipeline: p\n",
        "sources:\n",
        "sinks:\n",
        "operators:\n",
        "tables:\n",
        "topics:\n",
        "tests:\n",
        "  a: ",
        "  b: ",
        "{ type: file, path: f }\n",
        "{ type: blackhole, input: a }\n",
        "{ sql: ",
        "sql: |\n",
        "    SELECT 1\n",
        " }\n",
        "*x",
        "&x ",
        "<<: ",
        "${WORD}",
        "${",
        "}",
        "$$",
        "- ",
        "[",
        "]",
        "{",
        "\n",
        "\t",
        "'",
        "\"",
        "|2-\n",
        ">\n",
        "? ",
        ": ",
        "!!str ",
        "!t ",
        "---\n",
        "...\n",
        "# c\n",
        "ü",
        "\u{2028}",
        "\r\n",
        "\\x",
        "schema: ",
        "1e9",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_answered(text in prop_oneof![yaml_like(), any::<String>(), "\\PC{0,80}"]) {
        let said = report("any.yaml", &text);
        prop_assert!(!said.contains("hunter2") || text.contains("hunter2"), "{said}");
    }
}
