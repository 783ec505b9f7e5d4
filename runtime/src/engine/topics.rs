//! The topics of a pipeline: made before it starts, where they are missing.

use std::collections::BTreeMap;

use logmill_connectors::error::LogError;
use logmill_connectors::log::{Isolation, Log, NewTopic, OffsetAt, TopicPartition};
use logmill_connectors::topic;
use logmill_pipelines::flow::{Positions, SplitId};
use logmill_pipelines::{Compression, OnError, PipelineSpec, Retention, SourceSpec, TopicSpec};
use logmill_protocol::Offset;

use super::error::EngineError;
use super::manifest;

/// Makes what the pipeline declares, writes to or plays through, and the topic of its manifest.
pub(crate) async fn create(log: &dyn Log, spec: &PipelineSpec) -> Result<(), EngineError> {
    let undeclared = TopicSpec::default();
    let mut wanted: Vec<(&str, &TopicSpec)> = spec.topics.iter().map(|(name, topic)| (name.as_str(), topic)).collect();
    let through = spec.sources.values().filter_map(|source| source.through.as_ref()).map(|topic| topic.as_str());
    let sinks =
        spec.sinks.values().filter(|sink| sink.r#type == "topic").filter_map(|sink| sink.rest.get("topic")?.as_str());
    let letters = match &spec.on_error {
        OnError::DeadLetter(topic) => Some(topic.as_str()),
        OnError::Stop => None,
    };
    for name in through.chain(sinks).chain(letters) {
        if !wanted.iter().any(|(known, _)| *known == name) {
            wanted.push((name, &undeclared));
        }
    }
    for (name, topic) in wanted {
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        create_missing(log, NewTopic { name: name.to_owned(), partitions, configs: configs(topic) }).await?;
    }
    // Kept for ever, and trimmed by the coordinator's rewrites.
    let configs = vec![("retention.ms".to_owned(), "-1".to_owned())];
    create_missing(log, NewTopic { name: manifest::topic_of(&spec.pipeline), partitions: 1, configs }).await
}

/// The end offset, exclusive, of each partition of some topics.
pub(crate) type TopicEnds = BTreeMap<String, Vec<(i32, i64)>>;

/// Deletes all records of topics before the offsets. A topic that is gone has none.
pub(crate) async fn delete_records(log: &dyn Log, before: &TopicEnds) -> Result<(), EngineError> {
    for (topic, ends) in before {
        if log.topic(topic).await?.is_none() {
            continue;
        }
        for (partition, end) in ends {
            let place = TopicPartition { topic: topic.clone(), partition: *partition };
            log.delete_records(&place, Offset(*end)).await?;
        }
    }
    Ok(())
}

/// Where the partitions of a topic end.
pub(crate) async fn ends(log: &dyn Log, topic: &str) -> Result<Vec<(i32, i64)>, EngineError> {
    let info = log.topic(topic).await?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
    let mut ends = Vec::new();
    for partition in 0..info.partitions {
        let place = TopicPartition { topic: info.name.clone(), partition };
        ends.push((partition, log.offset(&place, OffsetAt::Latest(Isolation::ReadUncommitted)).await?.0));
    }
    Ok(ends)
}

/// Offsets of partitions as positions of splits.
pub(crate) fn positions(offsets: &[(i32, i64)]) -> Positions {
    let position =
        |(partition, offset): &(i32, i64)| (SplitId::new(partition.to_string()), topic::position(Offset(*offset)));
    offsets.iter().map(position).collect()
}

/// The topic a source reads without an intake, if it reads one.
pub(crate) fn topic_of_source(source: &SourceSpec) -> Option<String> {
    (source.r#type == "topic").then(|| source.rest.get("topic")?.as_str().map(str::to_owned)).flatten()
}

async fn create_missing(log: &dyn Log, topic: NewTopic) -> Result<(), EngineError> {
    if log.topic(&topic.name).await?.is_some() {
        return Ok(());
    }
    match log.create_topic(topic).await {
        Err(LogError::TopicExists(_)) => Ok(()),
        result => Ok(result?),
    }
}

fn configs(topic: &TopicSpec) -> Vec<(String, String)> {
    let mut configs = Vec::new();
    let mut set = |name: &str, value: Option<String>| configs.extend(value.map(|value| (name.to_owned(), value)));
    let retention = topic.retention.map(|retention| match retention {
        Retention::For(time) => time.as_millis().to_string(),
        Retention::Forever => "-1".to_owned(),
    });
    set("retention.ms", retention);
    set("retention.bytes", topic.retention_bytes.map(|size| size.0.to_string()));
    set("segment.bytes", topic.segment_bytes.map(|size| size.0.to_string()));
    set("segment.ms", topic.segment_age.map(|age| age.as_millis().to_string()));
    set("compression.type", topic.compression.map(compression));
    set("flush", topic.flush.map(|flush| format!("{flush:?}").to_lowercase()));
    configs
}

/// A codec as Kafka's `compression.type` names it.
fn compression(codec: Compression) -> String {
    match codec {
        Compression::None => "uncompressed".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
