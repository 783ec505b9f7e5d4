//! What a pipeline is: its YAML, its mistakes, its graph, its JSON Schema; and the vocabulary of what flows in it.
//!
//! ```text
//!   text ──saphyr──▶ tree with places ──${}──▶ ──JSON Schema──▶ ──serde──▶ PipelineSpec ──names──▶ Graph
//!                              every step adds its mistakes to one list: Diagnostics
//! ```
//!
//! Nothing here does I/O or reads the environment: what comes from outside is handed in ([`Environment`], [`Catalog`]).
//! [`parse`] is for running a pipeline, [`read`] for checking one, [`json_schema`] for editors.

mod align;
mod catalog;
mod checks;
mod column;
mod diagnostics;
mod document;
mod environment;
pub mod flow;
mod graph;
mod interpolate;
pub mod lineage;
mod names;
mod nearest;
mod pipeline;
mod read;
mod schema;
mod spans;
pub mod spec;
pub mod terminal;
#[cfg(test)]
mod tests;
mod tree;
mod units;
mod validate;
mod yaml;

pub use catalog::{Catalog, ConnectorKind, FormatKind, Role};
pub use checks::limit_problems;
pub use column::{ColumnType, ColumnTypeError};
pub use diagnostics::{Diagnostic, Diagnostics, Severity, SourceText, Span};
pub use document::read_document;
pub use environment::{Environment, MemoryEnvironment};
pub use graph::{Graph, GraphNode, NodeKind, TableRef};
pub use names::{EDGE_PATTERN, PIPELINE_PATTERN, TOPIC_PATTERN, TopicName, TopicNameError, relation_parts};
pub use nearest::nearest;
pub use pipeline::Pipeline;
pub use read::{Reading, parse, read};
pub use schema::json_schema;
pub use spans::Spans;
pub use spec::{
    Columns, CommitSpec, Compression, EventTimeSpec, Flush, FormatSpec, FunctionSpec, OnError, OperatorSpec,
    PipelineSpec, SinkSpec, SourceSpec, TableSpec, TestRow, TestSpec, TopicSpec, UnknownFields, WasmSpec,
};
pub use units::{ByteSize, DurationSpec, Retention, UnitError};
