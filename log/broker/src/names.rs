//! Kafka's rules for topic names, and what internal topics are called.

use crate::error::{BrokerError, Refusal, Result};
use crate::wire::MAX_STRING_LEN;

/// The topic of committed offsets and group generations.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic of transaction states.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Longest topic name: Kafka's bound, which leaves room for a partition in a file name.
const MAX_NAME_LEN: usize = 249;

/// Whether the topic is the broker's own.
#[must_use]
pub fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC || topic == TRANSACTIONS_TOPIC
}

/// What the names of topics begin with that the engine keeps its state in, such as the manifests of pipelines.
const ENGINE_PREFIX: &str = "__logmill_";

/// What the names of pipelines' groups begin with.
const ENGINE_GROUP_PREFIX: &str = "logmill-";

/// Whether the name is kept for groups of pipelines, which no client may join.
pub(crate) fn is_group_of_engine(group: &str) -> bool {
    group.starts_with(ENGINE_GROUP_PREFIX)
}

/// Whether the name is kept for topics of the engine's.
pub(crate) fn is_of_engine(topic: &str) -> bool {
    topic.starts_with(ENGINE_PREFIX)
}

/// Checks that the topic does not belong to the engine: no client may create, write, change or delete those.
///
/// # Errors
/// `Refused` if it is.
pub(crate) fn check_not_of_engine(topic: &str) -> Result<()> {
    if !is_of_engine(topic) {
        return Ok(());
    }
    let message = format!("topic `{topic}` holds the engine's state, clients may only read it");
    Err(BrokerError::Refused { kind: Refusal::InvalidTopic, message, record: None })
}

/// Checks a topic name by Kafka's rules, which also make it safe as a file name.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let invalid = |reason: &str| Err(BrokerError::Invalid(format!("topic name `{name}` {reason}")));
    if name.is_empty() {
        return invalid("is empty");
    }
    if name == "." || name == ".." {
        return invalid("is not allowed");
    }
    if name.len() > MAX_NAME_LEN {
        return invalid("is longer than 249 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return invalid("may only contain ASCII letters, digits, `.`, `_` and `-`");
    }
    Ok(())
}

/// Whether the names differ in `.` and `_` only, which are the same in names of metrics.
pub(crate) fn collide(a: &str, b: &str) -> bool {
    let same = |a: u8, b: u8| a == b || (matches!(a, b'.' | b'_') && matches!(b, b'.' | b'_'));
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| same(a, b))
}

/// Checks the name of a group or a transactional id.
pub(crate) fn check_id(what: &str, id: &str) -> Result<()> {
    match id.len() {
        0 => Err(BrokerError::Invalid(format!("the {what} is empty"))),
        len if len > MAX_STRING_LEN => Err(BrokerError::Invalid(format!("the {what} is longer than 32767 bytes"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_collide_where_their_metrics_would() {
        assert!(collide("a.b_c", "a_b.c") && collide("a", "a"));
        assert!(!collide("a.b", "a-b") && !collide("a.b", "a.bc"));
    }

    #[test]
    fn topic_names_follow_kafkas_rules() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(check_topic_name(name).err().map(|e| e.to_string()).as_deref(), expected);
        };
        check("flights", None);
        check("a.b_c-9", None);
        check(&"x".repeat(249), None);
        check("", Some("topic name `` is empty"));
        check("..", Some("topic name `..` is not allowed"));
        check("a/b", Some("topic name `a/b` may only contain ASCII letters, digits, `.`, `_` and `-`"));
        check("ü", Some("topic name `ü` may only contain ASCII letters, digits, `.`, `_` and `-`"));
        assert!(check_topic_name(&"x".repeat(250)).is_err());
    }
}
