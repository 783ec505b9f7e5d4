//! Changes of many topics in one call, and what describes them: what the server's administration works with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use logmill_protocol::LeaderEpoch;

use crate::broker::{Broker, BrokerConfig};
use crate::error::{BrokerError, Result};
use crate::topics::{Alteration, Topics};
use crate::types::NewTopic;

impl Broker {
    /// Makes each of the topics that can be made, or with `validate_only` says only which can. One result for each.
    pub(crate) async fn create_topics(&self, topics: Vec<NewTopic>, validate_only: bool) -> Vec<Result<()>> {
        let count = topics.len();
        let created = async {
            let _call = self.inner.enter()?;
            self.inner.change_topics(move |all, now| Ok(all.create_each(&topics, validate_only, now))).await
        };
        for_each(count, created.await)
    }

    /// Deletes each of the topics that can be deleted. One result for each.
    pub(crate) async fn delete_topics(&self, names: Vec<String>) -> Vec<Result<()>> {
        let (count, groups) = (names.len(), Arc::clone(&self.inner.groups));
        let deleted = async {
            let _call = self.inner.enter()?;
            let delete =
                move |topics: &Topics, now| Ok(topics.delete_each(&names, now, |gone| groups.forget_topics(gone, now)));
            self.inner.change_topics(delete).await
        };
        for_each(count, deleted.await)
    }

    /// As [`Broker::create_partitions`]; with `validate_only` says only whether it can be done.
    pub(crate) async fn grow_topic(&self, topic: &str, partitions: i32, validate_only: bool) -> Result<()> {
        let _call = self.inner.enter()?;
        let topic = topic.to_owned();
        let grow = move |topics: &Topics, now| topics.create_partitions(&topic, partitions, validate_only, now);
        self.inner.change_topics(grow).await
    }

    /// Changes configs of a topic: all of them, or none if one is refused or with `validate_only`.
    pub(crate) async fn alter_topic(&self, topic: &str, alteration: Alteration, validate_only: bool) -> Result<()> {
        let _call = self.inner.enter()?;
        let topic = topic.to_owned();
        let alter = move |topics: &Topics, now| topics.alter_configs(&topic, &alteration, validate_only, now);
        self.inner.change_topics(alter).await
    }

    /// The configs of a topic that differ from their defaults, as they were set.
    pub(crate) fn topic_configs(&self, name: &str) -> Result<BTreeMap<String, String>> {
        self.inner.topics.configs(name)
    }

    /// The epoch that this node leads every partition in.
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.inner.topics.leader_epoch()
    }

    /// How the broker was set up.
    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.inner.config
    }

    /// Where everything is kept.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.inner.config.data_dir
    }
}

/// A result for each of `count` things; if the whole call failed, that of the call.
fn for_each(count: usize, results: Result<Vec<Result<()>>>) -> Vec<Result<()>> {
    results.unwrap_or_else(|_| (0..count).map(|_| Err(BrokerError::Closed)).collect())
}
