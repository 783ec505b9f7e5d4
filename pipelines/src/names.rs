//! What may be a name: of a pipeline, of an edge between its parts, of a topic.
//!
//! Names of sources, tables and operators are relations in SQL, so they need no quotes there. Names that begin with `_`
//! are reserved for the system.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The pattern of the name of a source, table, operator or sink.
pub const EDGE_PATTERN: &str = "^[a-z][a-z0-9_]{0,127}$";
/// What to say about a name that doesn't match [`EDGE_PATTERN`].
pub(crate) const EDGE_MESSAGE: &str =
    "a name is lower-case letters, digits and `_`, begins with a letter, and has at most 128 characters";
/// The pattern of a pipeline's name.
pub const PIPELINE_PATTERN: &str = "^[a-z][a-z0-9_-]{0,127}$";
/// What to say about a name that doesn't match [`PIPELINE_PATTERN`].
pub(crate) const PIPELINE_MESSAGE: &str = "a pipeline's name is lower-case letters, digits, `_` and `-`, begins with a letter, and has at most 128 characters";
/// The pattern of a topic's name, as Kafka has it, less those that begin with `_`.
pub const TOPIC_PATTERN: &str =
    "^[a-zA-Z0-9-][a-zA-Z0-9._-]{0,248}$|^\\.[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,247}$|^\\.\\.[a-zA-Z0-9._-]{1,247}$";
/// What to say about a name that doesn't match [`TOPIC_PATTERN`].
pub(crate) const TOPIC_MESSAGE: &str = "a topic's name is letters, digits, `.`, `_` and `-`, at most 249 of them, and \
                                        doesn't begin with `_`, which is reserved";

/// A relation as readers name it: the part of the pipeline that it comes from, and which of its outputs, if it is one
/// that has a name: `scored.rejects`.
pub fn relation_parts(relation: &str) -> (&str, Option<&str>) {
    match relation.split_once('.') {
        Some((part, output)) => (part, Some(output)),
        None => (relation, None),
    }
}

/// Not a topic's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` can't be a topic: {TOPIC_MESSAGE}")]
pub struct TopicNameError(pub String);

/// The name of a topic that a pipeline reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TopicName(String);

impl TopicName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicNameError;

    fn try_from(name: String) -> Result<Self, TopicNameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let ok = !name.is_empty()
            && name.len() <= 249
            && name.chars().all(legal)
            && !name.starts_with('_')
            && !matches!(name.as_str(), "." | "..");
        if ok { Ok(Self(name)) } else { Err(TopicNameError(name)) }
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for TopicName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TopicName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": TOPIC_PATTERN, "errorMessage": TOPIC_MESSAGE })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topic_names_follow_kafka_and_leave_underscores_to_the_system() {
        for (name, ok) in [
            ("flights", true),
            ("Flights.v1-a_b", true),
            (".a", true),
            ("...", true),
            (".", false),
            ("..", false),
            ("", false),
            ("_x", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(TopicName::try_from(name.to_owned()).is_ok(), ok, "{name}");
        }
    }

    proptest! {
        #[test]
        fn the_pattern_says_what_the_code_does(name in "[._a-]{0,4}|[a-z.]{246,251}") {
            let pattern = regex_lite::Regex::new(TOPIC_PATTERN).unwrap();
            prop_assert_eq!(TopicName::try_from(name.clone()).is_ok(), pattern.is_match(&name));
        }
    }
}
