//! Configs as clients see them: those of topics, and those of this node.

use std::collections::BTreeMap;

use crate::broker::BrokerConfig;
use crate::server::config::ServerConfig;
use crate::server::context::Node;
use crate::topic_config::{ConfigDef, ConfigType, TOPIC_CONFIGS};

/// What a config may belong to, by Kafka's numbers.
pub(super) const TOPIC: i8 = 2;
pub(super) const NODE: i8 = 4;

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Topic = 1,
    Node = 4,
    Default = 5,
}

/// A config and its value.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) value: Option<String>,
    pub(super) kind: ConfigType,
    pub(super) doc: &'static str,
    pub(super) source: Source,
    /// Whether it stays as it is while the node runs.
    pub(super) read_only: bool,
    /// Every place that gives a value, from the one that counts on, with the config's name there.
    pub(super) synonyms: Vec<(&'static str, Option<String>, Source)>,
}

/// The configs of a topic, of which `set` were set.
pub(super) fn of_topic(set: &BTreeMap<String, String>) -> Vec<Described> {
    let describe = |config: &'static ConfigDef| {
        let default = Some(config.default.to_owned());
        let mut synonyms = vec![(config.node_name.unwrap_or(config.name), default.clone(), Source::Default)];
        let (value, source) = match set.get(config.name) {
            None => (default, Source::Default),
            Some(value) => {
                synonyms.insert(0, (config.name, Some(value.clone()), Source::Topic));
                (Some(value.clone()), Source::Topic)
            }
        };
        let (name, kind, doc) = (config.name, config.kind, config.doc);
        Described { name, value, kind, doc, source, read_only: false, synonyms }
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// A config of the node.
struct NodeConfig {
    name: &'static str,
    kind: ConfigType,
    doc: &'static str,
    value: fn(&ServerConfig, &BrokerConfig) -> Option<String>,
}

/// The node's configs by Kafka's names, besides those that topics take their defaults from.
static NODE_CONFIGS: &[NodeConfig] = &[
    NodeConfig {
        name: "advertised.listeners",
        kind: ConfigType::List,
        doc: "What clients are told to connect to; the first address listened on if it is not set.",
        value: |server, _| server.advertise.as_ref().map(|at| format!("PLAINTEXT://{}:{}", at.host, at.port)),
    },
    NodeConfig {
        name: "auto.create.topics.enable",
        kind: ConfigType::Boolean,
        doc: "Whether a topic that a client asks for is made, if the client allows it too.",
        value: |server, _| Some(server.auto_create_topics.to_string()),
    },
    NodeConfig {
        name: "broker.id",
        kind: ConfigType::Int,
        doc: "This node's id.",
        value: |server, _| Some(server.node_id.to_string()),
    },
    NodeConfig {
        name: "broker.rack",
        kind: ConfigType::String,
        doc: "Where this node stands, for clients that prefer what is near.",
        value: |server, _| server.rack.clone(),
    },
    NodeConfig {
        name: "connections.max.idle.ms",
        kind: ConfigType::Long,
        doc: "A connection without a request for so long is closed.",
        value: |server, _| Some(server.max_idle_ms.to_string()),
    },
    NodeConfig {
        name: "default.replication.factor",
        kind: ConfigType::Int,
        doc: "Replicas of a topic whose creator does not say.",
        value: |_, _| Some("1".to_owned()),
    },
    NodeConfig {
        name: "delete.topic.enable",
        kind: ConfigType::Boolean,
        doc: "Whether topics can be deleted.",
        value: |_, _| Some("true".to_owned()),
    },
    NodeConfig {
        name: "listeners",
        kind: ConfigType::List,
        doc: "The addresses listened on.",
        value: |server, _| {
            let urls: Vec<_> = server.listen.iter().map(|address| format!("PLAINTEXT://{address}")).collect();
            Some(urls.join(","))
        },
    },
    NodeConfig {
        name: "log.dirs",
        kind: ConfigType::List,
        doc: "Where everything is kept.",
        value: |_, broker| Some(broker.data_dir.to_string_lossy().into_owned()),
    },
    NodeConfig {
        name: "log.retention.check.interval.ms",
        kind: ConfigType::Long,
        doc: "How often retention is applied.",
        value: |_, broker| Some(broker.retention_check_interval_ms.to_string()),
    },
    NodeConfig {
        name: "max.connections",
        kind: ConfigType::Int,
        doc: "Most connections at a time; more are closed at once.",
        value: |server, _| Some(server.max_connections.to_string()),
    },
    NodeConfig {
        name: "node.id",
        kind: ConfigType::Int,
        doc: "This node's id.",
        value: |server, _| Some(server.node_id.to_string()),
    },
    NodeConfig {
        name: "num.partitions",
        kind: ConfigType::Int,
        doc: "Partitions of a topic whose creator does not say.",
        value: |server, _| Some(server.default_partitions.to_string()),
    },
    NodeConfig {
        name: "offsets.topic.num.partitions",
        kind: ConfigType::Int,
        doc: "Partitions of the topic of committed offsets, when it is made.",
        value: |_, broker| Some(broker.internal_partitions.to_string()),
    },
    NodeConfig {
        name: "socket.request.max.bytes",
        kind: ConfigType::Int,
        doc: "Largest request in bytes.",
        value: |server, _| Some(server.max_frame_bytes.to_string()),
    },
    NodeConfig {
        name: "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        kind: ConfigType::Int,
        doc: "How often transactions that are out of time are looked for.",
        value: |_, broker| Some(broker.timeout_check_interval_ms.to_string()),
    },
    NodeConfig {
        name: "transaction.max.timeout.ms",
        kind: ConfigType::Int,
        doc: "The longest transaction timeout that a producer may ask for.",
        value: |_, broker| Some(broker.transaction_max_timeout_ms.to_string()),
    },
    NodeConfig {
        name: "transaction.state.log.num.partitions",
        kind: ConfigType::Int,
        doc: "Partitions of the topic of transactions, when it is made.",
        value: |_, broker| Some(broker.internal_partitions.to_string()),
    },
];

/// The configs of this node. None can be changed while it runs.
pub(super) fn of_node(node: &Node) -> Vec<Described> {
    let (server, broker) = (ServerConfig::default(), BrokerConfig::new(""));
    let own = NODE_CONFIGS.iter().map(|config| {
        let value = (config.value)(&node.config, node.broker.config());
        let default = (config.value)(&server, &broker);
        let mut synonyms = vec![(config.name, default.clone(), Source::Default)];
        let is_set = value != default;
        if is_set {
            synonyms.insert(0, (config.name, value.clone(), Source::Node));
        }
        let source = if is_set { Source::Node } else { Source::Default };
        Described { name: config.name, value, kind: config.kind, doc: config.doc, source, read_only: true, synonyms }
    });
    let of_topics = TOPIC_CONFIGS.iter().filter_map(|config| {
        let (name, value) = (config.node_name?, Some(config.default.to_owned()));
        let synonyms = vec![(name, value.clone(), Source::Default)];
        let (kind, doc, source) = (config.kind, config.doc, Source::Default);
        Some(Described { name, value, kind, doc, source, read_only: true, synonyms })
    });
    let mut all: Vec<_> = own.chain(of_topics).collect();
    all.sort_unstable_by_key(|config| config.name);
    all
}

/// Whether the node has a config of this name.
pub(super) fn node_names() -> impl Iterator<Item = &'static str> {
    let of_topics = TOPIC_CONFIGS.iter().filter_map(|config| config.node_name);
    NODE_CONFIGS.iter().map(|config| config.name).chain(of_topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_come_once() {
        assert!(NODE_CONFIGS.is_sorted_by_key(|config| config.name));
        let mut names: Vec<_> = node_names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
