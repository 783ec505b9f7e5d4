//! The topic source: one split a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use logmill_pipelines::flow::{Position, Positions, SplitId};
use logmill_pipelines::{ConnectorKind, Role};
use logmill_protocol::{Offset, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::config::{From, OnGap, ReadIsolation, SourceConfig, Until};
use super::reader::{End, TopicReader};
use crate::error::{ConnectorError, LogError};
use crate::log::{Isolation, Log, OffsetAt, TopicPartition};
use crate::source::{Discovery, Reader, Source};

/// The topic source, as the catalog lists it.
pub fn source_kind() -> ConnectorKind {
    ConnectorKind {
        name: "topic",
        role: Role::Source,
        summary: "records of a topic of the log",
        schema: || schemars::schema_for!(SourceConfig),
        formats: &["json", "csv", "raw"],
        needs_through: false,
    }
}

/// The end offsets of partitions, exclusive, once they are known.
pub type Ends = watch::Receiver<Option<BTreeMap<i32, i64>>>;

/// A source of a topic's records. Does no I/O.
pub fn source(log: Arc<dyn Log>, config: &SourceConfig) -> Arc<dyn Source> {
    let end = match &config.until {
        None => EndSpec::Never,
        Some(Until::End) => EndSpec::Latest,
        Some(Until::Time(time)) => EndSpec::Time(Timestamp(time.timestamp_millis())),
    };
    let isolation = match config.isolation {
        ReadIsolation::ReadCommitted => Isolation::ReadCommitted,
        ReadIsolation::ReadUncommitted => Isolation::ReadUncommitted,
    };
    Arc::new(TopicSource {
        log,
        topic: config.topic.to_string(),
        from: config.from.clone(),
        end,
        on_gap: config.on_gap,
        isolation,
        later: Mutex::default(),
    })
}

/// A source of a topic's committed records from the oldest one, which ends at `ends` as soon as those are told; a
/// partition that they don't name has ended then.
pub fn bounded_source(log: Arc<dyn Log>, topic: &str, ends: Ends) -> Arc<dyn Source> {
    Arc::new(TopicSource {
        log,
        topic: topic.to_owned(),
        from: From::Earliest,
        end: EndSpec::Told(ends),
        on_gap: OnGap::Stop,
        isolation: Isolation::ReadCommitted,
        later: Mutex::default(),
    })
}

struct TopicSource {
    log: Arc<dyn Log>,
    topic: String,
    from: From,
    end: EndSpec,
    on_gap: OnGap,
    isolation: Isolation,
    /// Partitions that were added while we read: they are read from their beginning.
    later: Mutex<BTreeSet<SplitId>>,
}

enum EndSpec {
    Never,
    Latest,
    Time(Timestamp),
    Told(Ends),
}

/// A partition's position as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedPosition {
    offset: i64,
}

/// The position of a partition from which this offset is read next.
pub fn position(offset: Offset) -> Position {
    Position(serde_json::json!({ "offset": offset.0 }))
}

impl TopicSource {
    fn partition(&self, split: &SplitId) -> Result<TopicPartition, ConnectorError> {
        let partition = split.as_str().parse().map_err(|_| ConnectorError::Data {
            place: format!("split `{split}` of topic `{}`", self.topic),
            message: "is not a partition's number".into(),
        })?;
        Ok(TopicPartition { topic: self.topic.clone(), partition })
    }

    async fn start(&self, split: &SplitId, partition: &TopicPartition) -> Result<Offset, ConnectorError> {
        let earliest = OffsetAt::Earliest;
        if self.later.lock().contains(split) {
            return Ok(self.log.offset(partition, earliest).await?);
        }
        Ok(match &self.from {
            From::Earliest => self.log.offset(partition, earliest).await?,
            From::Latest => self.log.offset(partition, OffsetAt::Latest(self.isolation)).await?,
            From::Time(time) => self.log.offset(partition, OffsetAt::Time(Timestamp(time.timestamp_millis()))).await?,
            From::Offset(offset) => Offset(i64::try_from(*offset).unwrap_or(i64::MAX)),
            From::Group(group) => {
                let committed = self.log.committed_offsets(group, std::slice::from_ref(partition)).await?;
                match committed.first() {
                    Some((_, offset)) => *offset,
                    None => self.log.offset(partition, earliest).await?,
                }
            }
        })
    }

    async fn end(&self, partition: &TopicPartition) -> Result<End, ConnectorError> {
        Ok(match &self.end {
            EndSpec::Never => End::Never,
            EndSpec::Latest => End::At(self.log.offset(partition, OffsetAt::Latest(self.isolation)).await?),
            EndSpec::Time(time) => End::At(self.log.offset(partition, OffsetAt::Time(*time)).await?),
            EndSpec::Told(ends) => End::Told(ends.clone()),
        })
    }
}

#[async_trait]
impl Source for TopicSource {
    async fn discover(&self, known: &BTreeSet<SplitId>) -> Result<Discovery, ConnectorError> {
        let info = self.log.topic(&self.topic).await?.ok_or_else(|| LogError::UnknownTopic(self.topic.clone()))?;
        let splits = (0..info.partitions).map(|partition| SplitId::new(partition.to_string()));
        let new: Vec<_> = splits.filter(|split| !known.contains(split)).collect();
        if !known.is_empty() {
            self.later.lock().extend(new.iter().cloned());
        }
        // A bounded read is of the partitions that were there at its start.
        Ok(Discovery { new, complete: !matches!(self.end, EndSpec::Never) })
    }

    async fn open(&self, split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
        let partition = self.partition(split)?;
        let (offset, tell_start) = match position {
            Some(position) => {
                let saved = SavedPosition::deserialize(&position.0).map_err(|error| ConnectorError::Data {
                    place: format!("position of {}-{}", partition.topic, partition.partition),
                    message: format!("{error}: {}", position.0),
                })?;
                (Offset(saved.offset), false)
            }
            // Where it is not the same at every start, the beginning is itself a position worth saving.
            None => (self.start(split, &partition).await?, self.from != From::Earliest),
        };
        let end = self.end(&partition).await?;
        let reader = TopicReader::new(self.log.clone(), partition, offset, end, self.isolation, self.on_gap);
        Ok(Box::new(if tell_start { reader.telling_its_start() } else { reader }))
    }

    async fn epoch_safe(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn size_hint(&self) -> Option<u64> {
        None
    }
}
