//! The node's configs by Kafka's names, besides those that topics take their defaults from.

use std::path::Path;

use crate::broker::BrokerConfig;
use crate::server::config::ServerConfig;
use crate::topic_config::ConfigType;

/// A config of the node.
pub(super) struct NodeConfig {
    pub(super) name: &'static str,
    pub(super) kind: ConfigType,
    pub(super) doc: &'static str,
    pub(super) value: fn(&ServerConfig, &BrokerConfig) -> Option<String>,
}

/// A path as it stands whatever the folder that the node was started in.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The node's configs, by name.
pub(super) static NODE_CONFIGS: &[NodeConfig] = &[
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
        name: "group.initial.rebalance.delay.ms",
        kind: ConfigType::Int,
        doc: "How long the first rebalance of an empty group waits for more members.",
        value: |_, broker| Some(broker.groups.initial_rebalance_delay_ms.to_string()),
    },
    NodeConfig {
        name: "group.max.session.timeout.ms",
        kind: ConfigType::Int,
        doc: "The longest session timeout that a member may ask for.",
        value: |_, broker| Some(broker.groups.max_session_timeout_ms.to_string()),
    },
    NodeConfig {
        name: "group.max.size",
        kind: ConfigType::Int,
        doc: "The most members that a group may have.",
        value: |_, broker| Some(broker.groups.max_size.min(i32::MAX as usize).to_string()),
    },
    NodeConfig {
        name: "group.min.session.timeout.ms",
        kind: ConfigType::Int,
        doc: "The shortest session timeout that a member may ask for.",
        value: |_, broker| Some(broker.groups.min_session_timeout_ms.to_string()),
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
        value: |_, broker| Some(absolute(&broker.data_dir)),
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
        name: "max.connections.per.ip",
        kind: ConfigType::Int,
        doc: "Most connections from one address; more are closed at once.",
        value: |server, _| Some(server.max_connections_per_ip.to_string()),
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
        name: "offset.metadata.max.bytes",
        kind: ConfigType::Int,
        doc: "The longest text that may be committed beside an offset.",
        value: |_, broker| Some(broker.groups.offset_metadata_max_len.to_string()),
    },
    NodeConfig {
        name: "offsets.retention.minutes",
        kind: ConfigType::Int,
        doc: "How long offsets are kept of a group that is empty.",
        value: |_, broker| Some((broker.groups.offsets_retention_ms / 60_000).to_string()),
    },
    NodeConfig {
        name: "offsets.topic.num.partitions",
        kind: ConfigType::Int,
        doc: "Partitions of the topic of committed offsets, when it is made.",
        value: |_, broker| Some(broker.internal_partitions.to_string()),
    },
    NodeConfig {
        name: "queued.max.request.bytes",
        kind: ConfigType::Long,
        doc: "Most bytes of requests in memory, of all connections together.",
        value: |server, _| Some(server.max_request_bytes.to_string()),
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
