//! Topics and their configs, over the wire.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::protocol::{Request, StrBytes};
use logmill_connectors::error::LogError;
use logmill_connectors::log::{ConfigChange, NewTopic, TopicInfo};

use super::RemoteLog;
use super::cluster::topic_name;
use super::error::of_topic;

/// How long a change of topics may take.
const CHANGE_TIMEOUT_MS: i32 = 30_000;
/// A resource of DescribeConfigs and IncrementalAlterConfigs that is a topic.
const TOPIC_RESOURCE: i8 = 2;
/// A config that was set on the topic itself.
const SOURCE_TOPIC: i8 = 1;
/// IncrementalAlterConfigs: set, and back to the default.
const SET: i8 = 0;
const DELETE: i8 = 1;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl RemoteLog {
    async fn change<R: Request>(&self, request: &R) -> Result<R::Response, LogError> {
        let controller = self.cluster.controller().await?;
        let wait = Duration::from_millis(CHANGE_TIMEOUT_MS.unsigned_abs().into());
        Ok(self.cluster.call(&controller, request, wait).await?)
    }

    pub(super) async fn make_topic(&self, topic: NewTopic) -> Result<(), LogError> {
        let config = |(name, value): &(String, String)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let wanted = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(-1)
            .with_configs(topic.configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(CHANGE_TIMEOUT_MS);
        let answer = self.change(&request).await?;
        let made = answer.topics.iter().find(|made| made.name.0.as_str() == topic.name);
        check(&topic.name, made.map(|made| (made.error_code, made.error_message.as_deref())))
    }

    pub(super) async fn add_partitions(&self, topic: &str, partitions: i32) -> Result<(), LogError> {
        let wanted = CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(partitions);
        let wanted = wanted.with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(CHANGE_TIMEOUT_MS);
        let answer = self.change(&request).await?;
        let done = answer.results.iter().find(|done| done.name.0.as_str() == topic);
        check(topic, done.map(|done| (done.error_code, done.error_message.as_deref())))
    }

    pub(super) async fn remove_topic(&self, topic: &str) -> Result<(), LogError> {
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name(topic)]).with_timeout_ms(CHANGE_TIMEOUT_MS);
        let answer = self.change(&request).await?;
        let done = answer.responses.iter().find(|done| done.name.as_ref().is_some_and(|name| name.0.as_str() == topic));
        check(topic, done.map(|done| (done.error_code, done.error_message.as_deref())))
    }

    pub(super) async fn change_configs(&self, topic: &str, changes: &[ConfigChange]) -> Result<(), LogError> {
        let config = |change: &ConfigChange| match change {
            ConfigChange::Set(name, value) => {
                let config = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
                config.with_config_operation(SET)
            }
            ConfigChange::Reset(name) => {
                AlterableConfig::default().with_name(text(name)).with_value(None).with_config_operation(DELETE)
            }
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(topic))
            .with_configs(changes.iter().map(config).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.change(&request).await?;
        let done = answer.responses.iter().find(|done| done.resource_name.as_str() == topic);
        check(topic, done.map(|done| (done.error_code, done.error_message.as_deref())))
    }

    pub(super) async fn find_topic(&self, name: &str) -> Result<Option<TopicInfo>, LogError> {
        let found = self.cluster.metadata(Some(&[name])).await?;
        let Some(topic) = found.topics.into_iter().next() else { return Ok(None) };
        match ResponseError::try_from_code(topic.error_code) {
            None => Ok(self.describe(vec![topic]).await?.pop()),
            Some(ResponseError::UnknownTopicOrPartition | ResponseError::InvalidTopicException) => Ok(None),
            Some(_) => Err(of_topic(topic.error_code, name, None)),
        }
    }

    pub(super) async fn all_topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        let found = self.cluster.metadata(None).await?;
        let mut topics = self.describe(found.topics).await?;
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// Topics with the configs that were set on them.
    async fn describe(&self, topics: Vec<MetadataResponseTopic>) -> Result<Vec<TopicInfo>, LogError> {
        let info = |topic: MetadataResponseTopic| TopicInfo {
            name: topic.name.map(|name| name.0.to_string()).unwrap_or_default(),
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            internal: topic.is_internal,
            configs: Vec::new(),
        };
        let mut topics: Vec<TopicInfo> = topics.into_iter().map(info).collect();
        if topics.is_empty() {
            return Ok(topics);
        }
        let resource = |topic: &TopicInfo| {
            let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
            resource.with_resource_name(text(&topic.name)).with_configuration_keys(None)
        };
        let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
        let answer = self.cluster.call_any(&request).await?;
        for result in answer.results {
            let Some(topic) = topics.iter_mut().find(|topic| topic.name == result.resource_name.as_str()) else {
                continue;
            };
            let set = result.configs.into_iter().filter(|config| config.config_source == SOURCE_TOPIC);
            topic.configs =
                set.map(|c| (c.name.to_string(), c.value.map(|v| v.to_string()).unwrap_or_default())).collect();
            topic.configs.sort();
        }
        Ok(topics)
    }
}

/// What an answer says of a topic: an error code and a message.
fn check(topic: &str, said: Option<(i16, Option<&str>)>) -> Result<(), LogError> {
    match said {
        Some((0, _)) => Ok(()),
        Some((code, message)) => Err(of_topic(code, topic, message)),
        None => Err(LogError::Invalid(format!("the server's answer says nothing of `{topic}`"))),
    }
}
