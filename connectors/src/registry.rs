//! Every connector there is, in one explicit list: typed inside, erased outside.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use logmill_pipelines::{Catalog, Columns, SinkSpec, SourceSpec, TableSpec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::decode::Decoder;
use crate::error::ConnectorError;
use crate::file::{self, FileSource};
use crate::format::{self, Format};
use crate::lines::{TextFormat, TextLines};
use crate::log::{Isolation, Log, OffsetAt};
use crate::sink::Sink;
use crate::source::{Chunk, ChunkData, Source};
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
    /// The pipeline's name.
    pub pipeline: String,
}

/// A source that is open, and how its records become rows.
pub struct SourceHandle {
    /// Where the records come from.
    pub source: Arc<dyn Source>,
    /// All columns, without meta columns.
    pub schema: SchemaRef,
    /// Whether the columns were inferred from a sample.
    pub inferred: bool,
    decoding: Option<(Format, logmill_pipelines::UnknownFields)>,
}

impl SourceHandle {
    /// A decoder that makes the named columns, meta columns among them; `None` where the source delivers rows.
    pub fn decoder(&self, columns: &[String]) -> Result<Option<Box<dyn Decoder>>, ConnectorError> {
        let decoder = |(format, unknown): &(Format, _)| format.decoder(&self.schema, columns, *unknown);
        self.decoding.as_ref().map(decoder).transpose()
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
            _ => declared(spec.schema.as_ref()).or_else(|| fixed(spec.format.as_ref())),
        }
    }

    /// The columns of a table as far as the pipeline's file tells; does no I/O.
    pub fn declared_table_schema(&self, spec: &TableSpec) -> Option<SchemaRef> {
        declared(spec.schema.as_ref()).or_else(|| fixed(spec.format.as_ref()))
    }

    /// Whether queries may name meta columns of the source: those of records do, those of rows do not.
    pub fn has_meta(&self, spec: &SourceSpec) -> bool {
        spec.through.is_some()
            || (spec.r#type != "generate" && spec.format.as_ref().is_none_or(|f| f.r#type != "parquet"))
    }

    /// What is wrong with a source, as far as can be told without I/O.
    pub fn check_source(&self, spec: &SourceSpec) -> Result<(), ConnectorError> {
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        if let Format::Csv(options) = &format {
            options.check()?;
        }
        match spec.r#type.as_str() {
            "file" => config::<file::Config>(&spec.rest).map(drop),
            "topic" => config::<topic::SourceConfig>(&spec.rest).map(drop),
            "generate" => generate::schema(&config(&spec.rest)?).map(drop),
            other => Err(unknown("source", other)),
        }
    }

    /// What is wrong with a sink for rows of these columns, as far as can be told without I/O.
    pub fn check_sink(&self, spec: &SinkSpec, schema: Option<&SchemaRef>) -> Result<(), ConnectorError> {
        let format = Format::of(spec.format.as_ref(), &Format::Json)?;
        match (spec.r#type.as_str(), schema) {
            ("object_store", schema) => {
                let config: object_store::Config = config(&spec.rest)?;
                let name = spec.format.as_ref().map_or("parquet", |format| format.r#type.as_str());
                let problems = config.check(name, schema.map(AsRef::as_ref)).into_iter();
                all(problems.map(|problem| format!("{}: {}", problem.key, problem.message)))
            }
            (_, None) => Ok(()),
            ("topic", Some(schema)) => {
                format.encoder(schema)?;
                let problems = topic::check_sink(&config(&spec.rest)?, schema).into_iter();
                all(problems.map(|(key, problem)| format!("{key}: {problem}")))
            }
            ("stdout", Some(schema)) => format.encoder(schema).map(drop),
            ("blackhole", Some(_)) => Ok(()),
            (other, _) => Err(unknown("sink", other)),
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
        let decoding = (format.clone(), spec.unknown);
        match spec.r#type.as_str() {
            "file" => {
                let source = FileSource::new(config(&spec.rest)?, format.clone(), &context.base_dir);
                let schema = match known {
                    Some(schema) => schema,
                    None => source.sample().await?,
                };
                let decoding = (format != Format::Parquet).then_some(decoding);
                Ok(SourceHandle { source: Arc::new(source), schema, inferred, decoding })
            }
            "topic" => {
                let config: topic::SourceConfig = config(&spec.rest)?;
                let schema = match known {
                    Some(schema) => schema,
                    None => self.sample_topic(config.topic.as_str(), &format, &context.log).await?,
                };
                let source = topic::source(context.log.clone(), &config);
                Ok(SourceHandle { source, schema, inferred, decoding: Some(decoding) })
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
        if let Some(fixed) = format.fixed_schema() {
            return Ok(fixed);
        }
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
                return format::infer(format, &records, None);
            }
        }
        Err(ConnectorError::Data {
            place: format!("topic {topic}"),
            message: "there is no record yet to infer columns from; declare them with `schema:`".to_owned(),
        })
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
        let source = topic::bounded_source(context.log.clone(), topic, ends);
        Ok(SourceHandle { source, schema, inferred: false, decoding: Some((format, spec.unknown)) })
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
            "file" => table::load(config(&spec.rest)?, spec, declared(spec.schema.as_ref()), &context.base_dir).await,
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
            Format::Csv(options) if options.header => Some(options.header_line(schema)),
            _ => None,
        };
        Ok(TextLines { header, encoder: format.encoder(schema)? })
    })
}

fn declared(columns: Option<&Columns>) -> Option<SchemaRef> {
    let fields = columns?.iter().map(|(name, kind)| kind.to_field(name));
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

fn fixed(spec: Option<&logmill_pipelines::FormatSpec>) -> Option<SchemaRef> {
    Format::of(spec, &Format::Json).ok()?.fixed_schema()
}

/// The connector's own keys, which were validated against its schema before.
fn config<T: DeserializeOwned>(keys: &Map<String, Value>) -> Result<T, ConnectorError> {
    serde_json::from_value(Value::Object(keys.clone())).map_err(|error| ConnectorError::Config(error.to_string()))
}

fn unknown(role: &str, name: &str) -> ConnectorError {
    ConnectorError::Config(format!("there is no {role} type `{name}`"))
}
