//! The types of our WIT packages: what crosses the boundary, and what callers get of it.

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::error::CallError;

/// What an operator reads and puts out.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Signature {
    /// The columns it needs, in the order in which it wants them; all that the input has, if absent.
    pub reads: Option<Vec<String>>,
    /// At least one, with names that differ.
    pub outputs: Vec<Port>,
}

/// An output of an operator and its columns.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Port {
    /// The first output goes by the operator's own name; the others by `operator.name`.
    pub name: String,
    /// An Arrow IPC stream that holds a schema and no rows, as the guest gave it: not yet looked at.
    pub schema: Vec<u8>,
}

/// An output of a transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformPort {
    /// The first output goes by the operator's own name; the others by `operator.name`.
    pub name: String,
    /// What the values are.
    pub content: Content,
}

/// What the values of a transform's output are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// JSON objects, which become these columns: name, and type as a pipeline's `schema:` writes it.
    Json(Vec<(String, String)>),
    /// Text, in one column `value` of type string.
    Text,
    /// Bytes, in one column `value` of type binary.
    Bytes,
}

/// A scalar function.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct FunctionSignature {
    /// What it is called; differs from the others of its module.
    pub name: String,
    /// An Arrow IPC stream without rows whose columns are the arguments, as the guest gave it: not yet looked at.
    pub arguments: Vec<u8>,
    /// An Arrow IPC stream without rows whose only column is the result, as the guest gave it: not yet looked at.
    pub returns: Vec<u8>,
    /// Whether the result depends on the arguments alone.
    pub deterministic: bool,
}

/// `failure` of operators and of functions.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Failure {
    message: String,
    row: Option<u32>,
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        CallError::Refused { message: failure.message, row: failure.row }
    }
}

/// `output` of operators.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct OutputRows {
    pub(crate) name: String,
    pub(crate) rows: Vec<u8>,
}

/// `port` of transforms.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct RecordPort {
    name: String,
    content: RecordContent,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum RecordContent {
    #[component(name = "json")]
    Json(Vec<Column>),
    #[component(name = "text")]
    Text,
    #[component(name = "bytes")]
    Bytes,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Column {
    name: String,
    #[component(name = "data-type")]
    data_type: String,
}

impl From<RecordPort> for TransformPort {
    fn from(port: RecordPort) -> TransformPort {
        let content = match port.content {
            RecordContent::Json(columns) => {
                Content::Json(columns.into_iter().map(|column| (column.name, column.data_type)).collect())
            }
            RecordContent::Text => Content::Text,
            RecordContent::Bytes => Content::Bytes,
        };
        TransformPort { name: port.name, content }
    }
}

/// A record on its way to a transform that takes one at a time.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct Message<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<Header<'a>>,
    pub(crate) timestamp: Option<i64>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct Header<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: Option<&'a [u8]>,
}

/// A record on its way from there.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Emitted {
    pub(crate) output: Option<String>,
    pub(crate) message: EmittedMessage,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct EmittedMessage {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<EmittedHeader>,
    pub(crate) timestamp: Option<i64>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct EmittedHeader {
    pub(crate) name: String,
    pub(crate) value: Option<Vec<u8>>,
}
