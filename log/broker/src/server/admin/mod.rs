//! Administration: making, changing, describing and deleting topics, and describing the node.
//!
//! A request may name many topics; each is answered for itself, so that one that is refused does not keep the others
//! from being done. What one request changes is made durable together.

pub(super) mod alter_configs;
pub(super) mod cluster;
mod configs;
pub(super) mod create_partitions;
pub(super) mod create_topics;
pub(super) mod delete_topics;
pub(super) mod describe_configs;
pub(super) mod log_dirs;
mod node_configs;
pub(super) mod operations;
pub(super) mod producers;
pub(super) mod topic_partitions;

use std::collections::HashMap;
use std::hash::Hash;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::error::BrokerError;
use crate::metadata::state::MAX_PARTITIONS;
use crate::server::context::RequestContext;
use crate::server::errors;

/// Why something that was asked for is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: i16,
    message: String,
}

impl Refusal {
    fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { code: error.code(), message: message.into() }
    }

    /// The message, for responses that carry one.
    fn text(&self) -> Option<StrBytes> {
        Some(errors::message(self.message.clone()))
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { code: errors::code(&error), message }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// How often each key comes; what is asked for twice is ambiguous and is refused.
fn counts<K: Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}

/// Checks how many partitions a topic is to have.
fn check_partitions(partitions: i32) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::new(ResponseError::InvalidPartitions, message));
    match partitions {
        ..=0 => refuse("the number of partitions must be positive".to_owned()),
        1..=MAX_PARTITIONS => Ok(()),
        _ => refuse(format!("{partitions} partitions are more than a topic can have, {MAX_PARTITIONS}")),
    }
}

/// Checks the replicas that a partition is to have: this node, as there is no other.
fn check_replicas(node: i32, partition: i32, replicas: &[BrokerId]) -> Result<(), Refusal> {
    match replicas {
        [BrokerId(only)] if *only == node => Ok(()),
        _ => {
            let ids: Vec<_> = replicas.iter().map(|id| id.0.to_string()).collect();
            let ids = ids.join(", ");
            let message = format!("partition {partition} is to be on [{ids}], but the only node is {node}");
            Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message))
        }
    }
}

/// Checks that a resource name is this node's id.
fn check_node(context: &RequestContext, name: &str) -> Result<(), Refusal> {
    let node = context.node.config.node_id;
    match name.parse::<i32>() {
        Ok(id) if id == node => Ok(()),
        _ => {
            let message = format!("there is no node `{name}` here, this is node {node}");
            Err(Refusal::new(ResponseError::InvalidRequest, message))
        }
    }
}

/// Why configs of such a resource are neither told nor changed.
fn unsupported_resource(resource_type: i8) -> Refusal {
    let message = match resource_type {
        8 => "log levels of a running node are not supported yet, they are set when it starts".to_owned(),
        16 => "client metrics are not supported yet".to_owned(),
        32 => "configs of groups are not supported yet".to_owned(),
        _ => format!("there are no resources of type {resource_type}"),
    };
    Refusal::new(ResponseError::InvalidRequest, message)
}
