//! Which connectors and formats exist: the part of the schema that other crates own.
//!
//! The connectors' crate builds one from its registry. A connector that both reads and writes has one entry for each
//! role, since its keys differ.

use std::fmt;
use std::sync::OnceLock;

use schemars::Schema;
use serde_json::Value;

/// What a connector is in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Under `sources`.
    Source,
    /// Under `tables`: bounded, loaded whole before the pipeline starts.
    Table,
    /// Under `sinks`.
    Sink,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Source, Self::Table, Self::Sink];

    /// The word for one of them.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Table => "table",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One connector in one role.
#[derive(Clone)]
pub struct ConnectorKind {
    /// What `type:` says.
    pub name: &'static str,
    /// Where it can stand.
    pub role: Role,
    /// One line for people.
    pub summary: &'static str,
    /// The JSON Schema of its own keys, an object: `|| schemars::schema_for!(Config)`. Whether unknown keys are allowed
    /// in it doesn't matter, they never are.
    pub schema: fn() -> Schema,
    /// The formats it understands, the default one first. Empty if it deals in rows: then `format`, `schema` and
    /// `unknown` are no keys of it.
    pub formats: &'static [&'static str],
    /// A source that can't restart at a position, so that it must have `through:`.
    pub needs_through: bool,
}

/// One format.
#[derive(Clone)]
pub struct FormatKind {
    /// What `format:` says.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// The JSON Schema of its own keys, an object.
    pub schema: fn() -> Schema,
}

/// All connectors and formats that a pipeline can name.
#[derive(Default)]
pub struct Catalog {
    connectors: Vec<ConnectorKind>,
    formats: Vec<FormatKind>,
    schema: OnceLock<Value>,
}

impl Catalog {
    /// These connectors, and no format with options.
    pub fn new(connectors: Vec<ConnectorKind>) -> Self {
        Self { connectors, formats: Vec::new(), schema: OnceLock::new() }
    }

    /// The same connectors, and formats with options of their own. A format that a connector names and this list
    /// doesn't has no options.
    #[must_use]
    pub fn with_formats(self, formats: Vec<FormatKind>) -> Self {
        Self { connectors: self.connectors, formats, schema: OnceLock::new() }
    }

    /// The connectors of a role, in the order given.
    pub fn connectors(&self, role: Role) -> impl Iterator<Item = &ConnectorKind> {
        self.connectors.iter().filter(move |kind| kind.role == role)
    }

    /// The connector of this name in this role.
    pub fn connector(&self, role: Role, name: &str) -> Option<&ConnectorKind> {
        self.connectors(role).find(|kind| kind.name == name)
    }

    /// The formats that have options.
    pub fn formats(&self) -> &[FormatKind] {
        &self.formats
    }

    /// What is wrong with the schemas of the connectors and formats: keywords that the validator doesn't follow, so that
    /// mistakes would be found late, and keys that hide those every connector has. For the tests of a registry.
    pub fn problems(&self) -> Vec<String> {
        crate::schema::problems(self)
    }

    /// The whole JSON Schema of a pipeline; built at the first call.
    pub(crate) fn schema(&self) -> &Value {
        self.schema.get_or_init(|| crate::schema::compose(self))
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.connectors.iter().map(|kind| (kind.name, kind.role));
        f.debug_list().entries(names).finish()
    }
}
