//! What a pipeline's YAML says, as values: one struct a mapping.
//!
//! The JSON Schema of these structs drives the editor's completion and our own validation alike, so a key exists in
//! exactly one place. Keys that belong to a connector or a format are kept in `rest`; the catalog knows their schema.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::column::ColumnType;
use crate::names::TopicName;
use crate::units::{ByteSize, DurationSpec, Retention};

/// A pipeline: where records come from, what is made of them, where they go.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// The pipeline's name. Its state and its committed positions are kept under it.
    #[schemars(extend("pattern" = crate::names::PIPELINE_PATTERN, "errorMessage" = crate::names::PIPELINE_MESSAGE))]
    pub pipeline: String,
    /// What the pipeline is for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Topics to create if they are missing, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = topic_names()))]
    pub topics: IndexMap<String, TopicSpec>,
    /// Streams that come in, by name.
    #[schemars(extend("propertyNames" = edge_names(), "minProperties" = 1))]
    pub sources: IndexMap<String, SourceSpec>,
    /// Bounded relations that are loaded whole before the pipeline starts, for SQL to join with, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = edge_names()))]
    pub tables: IndexMap<String, TableSpec>,
    /// Functions that SQL may call, computed by WebAssembly components, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = edge_names()))]
    pub functions: IndexMap<String, FunctionSpec>,
    /// What is computed, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = edge_names()))]
    pub operators: IndexMap<String, OperatorSpec>,
    /// Where results go, by name.
    #[schemars(extend("propertyNames" = edge_names(), "minProperties" = 1))]
    pub sinks: IndexMap<String, SinkSpec>,
    /// When checkpoints are committed.
    #[serde(default)]
    pub commit: CommitSpec,
    /// What happens with a record that can't be decoded or on which an operator fails.
    #[serde(default)]
    pub on_error: OnError,
    /// Examples of input with the output they must give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestSpec>,
}

/// The schema of the keys of `sources`, `tables`, `functions`, `operators` and `sinks`.
fn edge_names() -> Value {
    serde_json::json!({ "pattern": crate::names::EDGE_PATTERN, "errorMessage": crate::names::EDGE_MESSAGE })
}

/// The schema of the keys of `topics`.
fn topic_names() -> Value {
    serde_json::json!({ "pattern": crate::names::TOPIC_PATTERN, "errorMessage": crate::names::TOPIC_MESSAGE })
}

/// The schema of the keys of `schema`: any name that isn't reserved.
fn column_names() -> Value {
    serde_json::json!({ "pattern": "^[^_]", "errorMessage": "a column's name isn't empty and doesn't begin with `_`" })
}

/// A topic that the pipeline creates if it is missing. An existing topic is left as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicSpec {
    /// How many partitions it has.
    #[schemars(range(min = 1, max = 10_000))]
    pub partitions: u32,
    /// How long records are kept: a duration, or `forever`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// How many bytes a partition keeps before its oldest segments are deleted. No limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<ByteSize>,
    /// How large a segment grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_bytes: Option<ByteSize>,
    /// How old a segment grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_age: Option<DurationSpec>,
    /// How the pipeline compresses what it writes to the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// When an append counts as durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush: Option<Flush>,
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention: None,
            retention_bytes: None,
            segment_bytes: None,
            segment_age: None,
            compression: None,
            flush: None,
        }
    }
}

/// A codec for record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not compressed.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// When an append counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// After the disk has it.
    Sync,
    /// After the operating system has it: faster, and lost if the machine fails.
    Os,
}

/// What to do with fields of a record that the schema doesn't name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// Leave them out.
    #[default]
    Ignore,
    /// Treat the record as one that can't be decoded.
    Error,
    /// Keep them, as JSON, in the column `_unknown`.
    Keep,
}

/// The columns of a source or table, in order.
pub type Columns = IndexMap<String, ColumnType>;

/// A stream that comes in. Keys of the chosen type stand beside these.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceSpec {
    /// The connector.
    pub r#type: String,
    /// Write what is read to this topic first, and read it from there: for sources that can't be read twice, and to
    /// keep what was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<TopicName>,
    /// How the bytes of a record become columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatSpec>,
    /// The columns and their types. If absent, they are inferred from a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("propertyNames" = column_names(), "minProperties" = 1))]
    pub schema: Option<Columns>,
    /// Which column says when a row happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTimeSpec>,
    /// What to do with fields that the schema doesn't name.
    #[serde(default)]
    pub unknown: UnknownFields,
    /// The connector's own keys.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// A bounded relation. Keys of the chosen type stand beside these.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TableSpec {
    /// The connector.
    pub r#type: String,
    /// How the bytes of a record become columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatSpec>,
    /// The columns and their types. If absent, they are inferred from a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("propertyNames" = column_names(), "minProperties" = 1))]
    pub schema: Option<Columns>,
    /// What to do with fields that the schema doesn't name.
    #[serde(default)]
    pub unknown: UnknownFields,
    /// The connector's own keys.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// A stream that goes out. Keys of the chosen type stand beside these.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkSpec {
    /// The connector.
    pub r#type: String,
    /// The source or operator whose rows are written; `operator.output` for an output that has a name.
    pub input: String,
    /// How rows become bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatSpec>,
    /// The connector's own keys.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// What is computed.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OperatorSpec {
    /// A SQL query over sources, tables and other operators.
    Sql(String),
    /// A WebAssembly component.
    Wasm(WasmSpec),
}

/// A scalar function that a WebAssembly component computes.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// The path of the component.
    pub wasm: String,
    /// What the component calls the function, if not by the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What the component is configured with, as it likes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// How much memory an instance may use; 128MiB by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// How long a call may take; 1s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DurationSpec>,
}

/// A WebAssembly operator.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WasmSpec {
    /// The path of the component.
    pub module: String,
    /// The source or operator whose rows it gets; `operator.output` for an output that has a name.
    pub input: String,
    /// What the module is configured with, as it likes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// How much memory an instance may use; 128MiB by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// How long a call may take; 1s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DurationSpec>,
}

/// Which column says when a row happened, and how long to wait for rows that come late.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventTimeSpec {
    /// A column of type timestamp.
    pub column: String,
    /// How much older than the newest row a row may be and still be in time.
    #[serde(default)]
    pub out_of_order: DurationSpec,
    /// After how long without rows a split no longer holds the others back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<DurationSpec>,
}

/// A format, by name alone or with options beside `type`.
#[derive(Clone, PartialEq, Serialize)]
pub struct FormatSpec {
    /// The format's name.
    pub r#type: String,
    /// The format's own keys.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl<'de> Deserialize<'de> for FormatSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(r#type) => Ok(Self { r#type, rest: Map::new() }),
            Value::Object(mut rest) => match rest.shift_remove("type") {
                Some(Value::String(r#type)) => Ok(Self { r#type, rest }),
                _ => Err(D::Error::missing_field("type")),
            },
            _ => Err(D::Error::custom("expected a format's name, or a mapping with `type`")),
        }
    }
}

impl JsonSchema for FormatSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Format".into()
    }

    /// The catalog replaces this by the formats that exist.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, { "type": "object", "required": ["type"] }] })
    }
}

/// When checkpoints are committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommitSpec {
    /// The time from one checkpoint to the next: results become visible this often.
    pub every: DurationSpec,
}

impl Default for CommitSpec {
    fn default() -> Self {
        Self { every: DurationSpec::from_secs(1) }
    }
}

/// What happens with a record that can't be processed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The pipeline stops with the record, its position and the reason.
    #[default]
    Stop,
    /// The record goes to this topic with its source, position and error, and the pipeline goes on.
    DeadLetter(TopicName),
}

/// Rows of a test, by column.
pub type TestRow = Map<String, Value>;

/// An example of input with the output it must give, for `logmill test`.
///
/// Rows are written as JSON writes them. Those of a source of records may have `_key`, `_timestamp` and `_headers`. Expected
/// rows must come in their order, and are held to the columns that they name. Rows that an operator fails on are expected
/// under the name of the pipeline's dead-letter topic, if it has one.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// What the example shows.
    pub name: String,
    /// Rows, by source.
    pub input: IndexMap<String, Vec<TestRow>>,
    /// Rows, by operator, or by `operator.output` for an output that has a name.
    pub expect: IndexMap<String, Vec<TestRow>>,
}

/// Keys that a connector or a format reads by itself.
macro_rules! own_keys {
    ($($spec:ty),*) => { $(
        impl $spec {
            /// The keys that belong to the connector or format, read as its configuration.
            ///
            /// # Errors
            /// Says what doesn't fit; never for a parsed pipeline, whose keys were held to the catalog's schema, unless
            /// the configuration demands more than its schema says.
            pub fn config<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
                T::deserialize(Value::Object(self.rest.clone()))
            }
        }
    )* };
}

own_keys!(SourceSpec, TableSpec, SinkSpec, FormatSpec);
