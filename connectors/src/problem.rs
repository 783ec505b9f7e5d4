//! Something wrong with a connector's configuration, at one of its keys.

use arrow::datatypes::Schema;
use logmill_pipelines::nearest;

/// Something wrong with a configuration, found without I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key below the connector's, such as `roll.every` or `partition_by.0`; empty for the connector as a whole.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// What to write instead, if there is something near.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
    }

    /// A column is named that the rows don't have.
    pub(crate) fn no_column(key: impl Into<String>, name: &str, schema: &Schema) -> Self {
        let columns = || schema.fields().iter().map(|field| field.name().as_str());
        let message =
            format!("there is no column `{name}`; the input has {}", columns().collect::<Vec<_>>().join(", "));
        let hint = nearest(name, columns()).map(|near| format!("did you mean `{near}`?"));
        Self { key: key.into(), message, hint }
    }
}

/// All problems in one line.
pub(crate) fn in_one_line(problems: &[Problem]) -> String {
    let line = |problem: &Problem| match problem.key.as_str() {
        "" => problem.message.clone(),
        key => format!("{key}: {}", problem.message),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}
