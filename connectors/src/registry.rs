//! Every connector there is, in one explicit list: typed inside, erased outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use logmill_pipelines::{Catalog, Columns, FormatSpec, SinkSpec, SourceSpec, TableSpec, UnknownFields};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::decode::Decoder;
use crate::error::ConnectorError;
use crate::file::{self, FileSource, Files};
use crate::format::{self, Format};
use crate::lines::{TextFormat, TextLines};
use crate::log::{Isolation, Log, OffsetAt};
use crate::problem::Problem;
use crate::sink::Sink;
use crate::source::{Chunk, ChunkData, Records, Source};
use crate::table::{self, LoadedTable};
use crate::topic::{self, Ends};
use crate::transaction::Transaction;
use crate::{blackhole, generate, object_store, stdout};

/// What connectors of a pipeline are given.
#[derive(Clone)]
pub struct ConnectorContext {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The transactions of the run's epochs.
    pub transaction: Arc<dyn Transaction>,
    /// Where relative paths start: the folder of the pipeline's file.
    pub base_dir: PathBuf,
    /// The id of the data directory that runs the pipeline; part of the names that sinks stage under.
    pub deployment: String,
    /// The pipeline's name.
    pub pipeline: String,
}

/// A source that is open, and how its records become rows. Cheap to clone.
#[derive(Clone)]
pub struct SourceHandle {
    /// Where the records come from.
    pub source: Arc<dyn Source>,
    /// All columns, without meta columns.
    pub schema: SchemaRef,
    /// Whether the columns were inferred from a sample.
    pub inferred: bool,
    decoding: Option<Decoding>,
}

/// How records become rows.
#[derive(Clone)]
struct Decoding {
    format: Format,
    unknown: UnknownFields,
    /// The names of CSV's fields, where files tell them.
    header: Option<Arc<[String]>>,
}

impl SourceHandle {
    /// A decoder that makes the named columns, meta columns among them; `None` where the source delivers rows.
    pub fn decoder(&self, columns: &[String]) -> Result<Option<Box<dyn Decoder>>, ConnectorError> {
        let Some(Decoding { format, unknown, header }) = &self.decoding else { return Ok(None) };
        format.decoder_of_fields(&self.schema, columns, *unknown, header.as_deref()).map(Some)
    }

    /// Whether the source delivers rows, not records.
    pub fn reads_rows(&self) -> bool {
        self.decoding.is_none()
    }
}

/// All connectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registry;

/// All connectors.
pub fn registry() -> Registry {
    Registry
}

impl Registry {
    /// What a pipeline can name.
    pub fn catalog(&self) -> Catalog {
        let kinds = vec![
            file::kind(),
            topic::source_kind(),
            generate::kind(),
            file::table_kind(),
            topic::sink_kind(),
            object_store::kind(),
            stdout::kind(),
            blackhole::kind(),
        ];
        Catalog::new(kinds).with_formats(format::kinds())
    }

    /// The columns of a source as far as the pipeline's file tells; does no I/O.
    pub fn declared_schema(&self, spec: &SourceSpec) -> Option<SchemaRef> {
        match spec.r#type.as_str() {
            "generate" => generate::schema(&config(&spec.rest).ok()?).ok(),
            _ => declared(spec.format.as_ref(), spec.schema.as_ref(), spec.unknown),
        }
    }

    /// The columns of a table as far as the pipeline's file tells; does no I/O.
    pub fn declared_table_schema(&self, spec: &TableSpec) -> Option<SchemaRef> {
        declared(spec.format.as_ref(), spec.schema.as_ref(), spec.unknown)
    }

    /// Whether queries may name meta columns of the source: those of records do, those of rows do not.
    pub fn has_meta(&self, spec: &SourceSpec) -> bool {
        spec.through.is_some()
            || (spec.r#type != "generate" && spec.format.as_ref().is_none_or(|f| f.r#type != "parquet"))
    }

    /// What is wrong with a source, as far as can be told without I/O.
    pub fn check_source(&self, spec: &SourceSpec) -> Result<(), ConnectorError> {
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        let problems = match spec.r#type.as_str() {
            "file" => {
                let mut problems = Files::new(config(&spec.rest)?, format.clone(), Path::new("")).check();
                problems.extend(format.check(spec.schema.as_ref(), spec.unknown));
                problems
            }
            "topic" => {
                config::<topic::SourceConfig>(&spec.rest)?;
                format.check(spec.schema.as_ref(), spec.unknown)
            }
            "generate" => return generate::schema(&config(&spec.rest)?).map(drop),
            other => return Err(unknown("source", other)),
        };
        all(problems.into_iter().map(|(key, problem)| format!("{key}: {problem}")))
    }

    /// What is wrong with a table, as far as can be told without I/O.
    pub fn check_table(&self, spec: &TableSpec) -> Result<(), ConnectorError> {
        if spec.r#type != "file" {
            return Err(unknown("table", &spec.r#type));
        }
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        let mut problems =
            Files::new(config::<table::Config>(&spec.rest)?.into(), format.clone(), Path::new("")).check();
        problems.extend(format.check(spec.schema.as_ref(), spec.unknown));
        all(problems.into_iter().map(|(key, problem)| format!("{key}: {problem}")))
    }

    /// What is wrong with a sink for rows of these columns, as far as can be told without I/O.
    pub fn check_sink(&self, spec: &SinkSpec, schema: Option<&SchemaRef>) -> Vec<Problem> {
        let check = || {
            let format = Format::of(spec.format.as_ref(), &Format::Json)?;
            Ok(match (spec.r#type.as_str(), schema) {
                ("object_store", schema) => {
                    let config: object_store::Config = config(&spec.rest)?;
                    let name = spec.format.as_ref().map_or("parquet", |format| format.r#type.as_str());
                    config.check(name, schema.map(AsRef::as_ref))
                }
                (_, None) | ("blackhole", _) => Vec::new(),
                ("topic", Some(schema)) => {
                    let config = config(&spec.rest)?;
                    format.encoder(&topic::value_schema(&config, schema))?;
                    topic::check_sink(&config, schema)
                }
                ("stdout", Some(schema)) => format.encoder(schema).map(|_| Vec::new())?,
                (other, _) => return Err(unknown("sink", other)),
            })
        };
        check().unwrap_or_else(|error: ConnectorError| vec![Problem::new("", error.to_string())])
    }

    /// The meta columns that a sink's configuration names, of those that records have beside the columns of their values.
    pub fn meta_columns(&self, spec: &SinkSpec) -> Vec<String> {
        match spec.r#type.as_str() {
            "topic" => config(&spec.rest).map(|config| topic::meta_columns(&config)).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Opens a source. Its columns are those that are pinned, or declared, or else inferred from a sample.
    pub async fn open_source(
        &self,
        name: &str,
        spec: &SourceSpec,
        pinned: Option<SchemaRef>,
        context: &ConnectorContext,
    ) -> Result<SourceHandle, ConnectorError> {
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        let known = self.declared_schema(spec).or(pinned);
        let inferred = known.is_none();
        let decoding = |header| Decoding { format: format.clone(), unknown: spec.unknown, header };
        match spec.r#type.as_str() {
            "file" => {
                let files = Files::new(config(&spec.rest)?, format.clone(), &context.base_dir);
                let header = files.header().await?;
                let schema = match known {
                    Some(schema) => schema,
                    None => files.sample(header.as_ref()).await?,
                };
                let decoding = (format != Format::Parquet).then(|| decoding(header.clone()));
                let source = FileSource::new(files, schema.clone(), header)?;
                Ok(SourceHandle { source: Arc::new(source), schema, inferred, decoding })
            }
            "topic" => {
                let config: topic::SourceConfig = config(&spec.rest)?;
                let schema = match known {
                    Some(schema) => schema,
                    None => self.sample_topic(config.topic.as_str(), &format, &context.log).await?,
                };
                let source = topic::source(context.log.clone(), &config);
                Ok(SourceHandle { source, schema, inferred, decoding: Some(decoding(None)) })
            }
            "generate" => {
                let config = config(&spec.rest)?;
                let schema = generate::schema(&config)?;
                Ok(SourceHandle { source: generate::source(config)?, schema, inferred: false, decoding: None })
            }
            other => Err(unknown("source", &format!("{other}` of `{name}"))),
        }
    }

    /// The columns of a topic's records, inferred from its first ones.
    pub async fn sample_topic(
        &self,
        topic: &str,
        format: &Format,
        log: &Arc<dyn Log>,
    ) -> Result<SchemaRef, ConnectorError> {
        let mut ends = std::collections::BTreeMap::new();
        let partitions = log.topic(topic).await?.map_or(0, |info| info.partitions);
        for partition in 0..partitions {
            let place = crate::log::TopicPartition { topic: topic.to_owned(), partition };
            ends.insert(partition, log.offset(&place, OffsetAt::Latest(Isolation::ReadCommitted)).await?.0);
        }
        let source = topic::bounded_source(log.clone(), topic, tokio::sync::watch::channel(Some(ends)).1);
        for split in source.discover(&BTreeSet::new()).await?.new {
            if let Some(Chunk { data: ChunkData::Records(records), .. }) =
                source.open(&split, None).await?.next().await?
            {
                return Ok(Arc::new(format.infer(&records, None)?));
            }
        }
        let nothing = Records { place: format!("topic {topic}").into(), ..Records::default() };
        format.infer(&nothing, None).map(Arc::new)
    }

    /// Opens the topic that a source is played through. `ends` tells where to stop once all of the source is in it.
    pub async fn open_topic_source(
        &self,
        topic: &str,
        spec: &SourceSpec,
        schema: SchemaRef,
        ends: Ends,
        context: &ConnectorContext,
    ) -> Result<SourceHandle, ConnectorError> {
        let format = match Format::of(spec.format.as_ref(), &Format::Json)? {
            // Rows travel as JSON.
            Format::Parquet => Format::Json,
            format => format,
        };
        // Lines of CSV files travel as they are, so the files tell the order of their fields.
        let header = match (spec.r#type.as_str(), &format) {
            ("file", Format::Csv(_)) => {
                Files::new(config(&spec.rest)?, format.clone(), &context.base_dir).header().await?
            }
            _ => None,
        };
        let source = topic::bounded_source(context.log.clone(), topic, ends);
        let decoding = Some(Decoding { format, unknown: spec.unknown, header });
        Ok(SourceHandle { source, schema, inferred: false, decoding })
    }

    /// Opens a sink for rows of these columns.
    pub async fn open_sink(
        &self,
        name: &str,
        spec: &SinkSpec,
        schema: SchemaRef,
        context: &ConnectorContext,
    ) -> Result<Arc<dyn Sink>, ConnectorError> {
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        match spec.r#type.as_str() {
            "object_store" => {
                let context = object_store::SinkContext {
                    deployment: context.deployment.clone(),
                    pipeline: context.pipeline.clone(),
                    sink: name.to_owned(),
                    base_dir: context.base_dir.clone(),
                    schema,
                    clock: object_store::system_clock(),
                };
                object_store::sink(&config(&spec.rest)?, object_store_format(spec)?, &context)
            }
            "topic" => {
                let encoder: topic::MakeEncoder = Arc::new(move |schema: &SchemaRef| format.encoder(schema));
                topic::sink(context.log.clone(), context.transaction.clone(), config(&spec.rest)?, schema, encoder)
            }
            "stdout" => Ok(stdout::sink(&config(&spec.rest)?, text(format), schema)),
            "blackhole" => config::<blackhole::Config>(&spec.rest).map(|_| blackhole::sink()),
            other => Err(unknown("sink", other)),
        }
    }

    /// Loads a static table.
    pub async fn load_table(
        &self,
        spec: &TableSpec,
        context: &ConnectorContext,
    ) -> Result<LoadedTable, ConnectorError> {
        match spec.r#type.as_str() {
            "file" => table::load(config(&spec.rest)?, spec, self.declared_table_schema(spec), &context.base_dir).await,
            other => Err(unknown("table", other)),
        }
    }
}

/// All the problems, as one.
fn all(problems: impl Iterator<Item = String>) -> Result<(), ConnectorError> {
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(ConnectorError::Config(problems.join("; "))) }
}

fn object_store_format(spec: &SinkSpec) -> Result<object_store::FileFormat, ConnectorError> {
    let format = Format::of(spec.format.as_ref(), &Format::Parquet)?;
    let extension = match &format {
        Format::Parquet => return Ok(object_store::FileFormat::Parquet),
        Format::Json => "ndjson",
        Format::Raw => "txt",
        Format::Csv(_) => "csv",
    };
    Ok(object_store::FileFormat::Text { extension, lines: text(format) })
}

/// Rows as lines of text.
fn text(format: Format) -> TextFormat {
    Arc::new(move |schema: &SchemaRef| {
        let header = match &format {
            Format::Csv(options) if options.header => Some(options.header_line(schema)?),
            _ => None,
        };
        Ok(TextLines { header, encoder: format.encoder(schema)? })
    })
}

fn declared(format: Option<&FormatSpec>, columns: Option<&Columns>, unknown: UnknownFields) -> Option<SchemaRef> {
    Format::of(format, &Format::Json).ok()?.declared_schema(columns, unknown).map(Arc::new)
}

/// The connector's own keys, which were validated against its schema before.
fn config<T: DeserializeOwned>(keys: &Map<String, Value>) -> Result<T, ConnectorError> {
    serde_json::from_value(Value::Object(keys.clone())).map_err(|error| ConnectorError::Config(error.to_string()))
}

fn unknown(role: &str, name: &str) -> ConnectorError {
    ConnectorError::Config(format!("there is no {role} type `{name}`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::conformance::decoder::records;
    use crate::conformance::memory_log::{MemoryLog, MemoryTransaction};
    use arrow::util::pretty::pretty_format_batches;

    fn spec<T: DeserializeOwned>(yaml: &str) -> T {
        let value: Value = serde_yaml::from_str(yaml).unwrap();
        serde_json::from_value(value).unwrap()
    }

    async fn context(folder: &std::path::Path) -> ConnectorContext {
        let log = Arc::new(MemoryLog::default());
        let transaction = Arc::new(MemoryTransaction::begin(log.clone()).await.unwrap());
        ConnectorContext { log, transaction, base_dir: folder.to_owned(), deployment: "d".into(), pipeline: "p".into() }
    }

    #[test]
    fn the_catalog_makes_one_schema_of_all_connectors() {
        let schema = logmill_pipelines::json_schema(&registry().catalog());
        for name in ["source_file", "source_topic", "source_generate", "table_file", "sink_topic", "sink_object_store"]
        {
            assert!(schema["$defs"].get(name).is_some(), "no {name}");
        }
    }

    #[test]
    fn columns_are_declared_by_the_schema_or_the_format() {
        for (yaml, expected) in [
            ("{type: file, path: x, schema: {a: int32, b: string}}", Some("a,b")),
            ("{type: file, path: x, schema: {a: int32}, unknown: keep}", Some("a,_unknown")),
            ("{type: file, path: x, format: raw}", Some("value")),
            ("{type: generate, columns: {id: {counter: 0}}}", Some("id")),
            ("{type: file, path: x}", None),
        ] {
            let schema = registry().declared_schema(&spec(yaml));
            let names = schema
                .map(|schema| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(","));
            assert_eq!(names.as_deref(), expected, "{yaml}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_without_looking_at_files() {
        for (yaml, expected) in [
            (
                "{type: file, path: a.gz, follow: true}",
                "follow: compressed files cannot be followed, only read to their end",
            ),
            ("{type: file, path: x, unknown: error}", "unknown: needs a `schema` that says which fields are known"),
            (
                "{type: topic, topic: x, format: csv, schema: {a: string}, unknown: keep}",
                "unknown: `keep` is for json; csv takes ignore or error",
            ),
            (
                "{type: file, path: x, format: raw, schema: {a: int32}}",
                "schema: the format raw has one column, of type string or binary",
            ),
            ("{type: file, path: x, rate: fast}", "`fast` is not a rate such as 500/s"),
        ] {
            let error = registry().check_source(&spec(yaml)).unwrap_err();
            assert_eq!(error.to_string(), expected, "{yaml}");
        }
        let table = "{type: file, path: x, format: csv, unknown: keep}";
        assert!(registry().check_table(&spec(table)).unwrap_err().to_string().contains("`keep` is for json"));
    }

    #[tokio::test]
    async fn csv_means_the_same_from_its_file_and_through_a_topic() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.csv"), "n,name\n7,x\n").unwrap();
        let context = context(folder.path()).await;
        let source: SourceSpec = spec("{type: file, path: a.csv, format: csv, schema: {name: string, n: int32}}");
        let file = registry().open_source("a", &source, None, &context).await.unwrap();
        let ends = tokio::sync::watch::channel(None).1;
        let topic = registry().open_topic_source("t", &source, file.schema.clone(), ends, &context).await.unwrap();
        assert!(!file.inferred && !file.reads_rows());
        for handle in [file, topic] {
            let mut decoder = handle.decoder(&["name".into(), "n".into(), "_offset".into()]).unwrap().unwrap();
            let rows = decoder.decode(&records(&[Some(b"7,x")])).unwrap().rows;
            let expected = "\
+------+---+---------+
| name | n | _offset |
+------+---+---------+
| x    | 7 | 0       |
+------+---+---------+";
            assert_eq!(pretty_format_batches(&[rows]).unwrap().to_string(), expected);
        }
    }

    #[tokio::test]
    async fn columns_are_inferred_unless_they_are_pinned() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::write(folder.path().join("a.ndjson"), "{\"a\":1}\n").unwrap();
        let context = context(folder.path()).await;
        let source: SourceSpec = spec("{type: file, path: a.ndjson}");
        let first = registry().open_source("a", &source, None, &context).await.unwrap();
        assert!(first.inferred);
        // The file has more by now; the columns stay what they were.
        std::fs::write(folder.path().join("a.ndjson"), "{\"a\":1,\"b\":2}\n").unwrap();
        let second = registry().open_source("a", &source, Some(first.schema.clone()), &context).await.unwrap();
        assert_eq!((second.inferred, second.schema), (false, first.schema));
        let error = registry().open_source("t", &spec("{type: topic, topic: nothing}"), None, &context).await;
        assert!(error.err().unwrap().to_string().contains("topic `nothing` does not exist"));
    }
}
