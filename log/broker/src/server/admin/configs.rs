//! Configs as clients see them: those of topics, and those of this node.

use std::collections::BTreeMap;

use super::node_configs::NODE_CONFIGS;
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
