//! The topic source: one split a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use logmill_pipelines::flow::{Position, Positions, SplitId};
use logmill_pipelines::{ConnectorKind, Role};
use logmill_protocol::{Offset, Timestamp};
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
    })
}

struct TopicSource {
    log: Arc<dyn Log>,
    topic: String,
    from: From,
    end: EndSpec,
    on_gap: OnGap,
    isolation: Isolation,
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
    async fn partitions(&self) -> Result<i32, ConnectorError> {
        let info = self.log.topic(&self.topic).await?;
        Ok(info.ok_or_else(|| LogError::UnknownTopic(self.topic.clone()))?.partitions)
    }

    fn partition(&self, split: &SplitId) -> Result<TopicPartition, ConnectorError> {
        let partition = split.as_str().parse().map_err(|_| ConnectorError::Data {
            place: format!("split `{split}` of topic `{}`", self.topic),
            message: "is not a partition's number".into(),
        })?;
        Ok(TopicPartition { topic: self.topic.clone(), partition })
    }

    /// Where `from:` begins in a partition.
    async fn start(&self, partition: &TopicPartition) -> Result<Offset, ConnectorError> {
        let earliest = OffsetAt::Earliest;
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
        let splits = (0..self.partitions().await?).map(|partition| SplitId::new(partition.to_string()));
        let new: Vec<_> = splits.filter(|split| !known.contains(split)).collect();
        // A bounded read is of the partitions that were there at its start.
        Ok(Discovery { new, complete: !matches!(self.end, EndSpec::Never) })
    }

    /// Of every partition, also of one that is empty: what is appended to it later is read, and what is deleted before it
    /// is read is a gap.
    async fn start_positions(&self) -> Result<Positions, ConnectorError> {
        let mut positions = Positions::new();
        for partition in 0..self.partitions().await? {
            let place = TopicPartition { topic: self.topic.clone(), partition };
            positions.insert(SplitId::new(partition.to_string()), position(self.start(&place).await?));
        }
        Ok(positions)
    }

    /// A partition's beginning is its oldest record, whatever `from:` says.
    async fn open(&self, split: &SplitId, position: Option<&Position>) -> Result<Box<dyn Reader>, ConnectorError> {
        let partition = self.partition(split)?;
        let offset = match position {
            Some(position) => {
                let saved = SavedPosition::deserialize(&position.0).map_err(|error| ConnectorError::Data {
                    place: format!("position of {}-{}", partition.topic, partition.partition),
                    message: format!("{error}: {}", position.0),
                })?;
                Offset(saved.offset)
            }
            None => self.log.offset(&partition, OffsetAt::Earliest).await?,
        };
        let end = self.end(&partition).await?;
        Ok(Box::new(TopicReader::new(self.log.clone(), partition, offset, end, self.isolation, self.on_gap)))
    }

    async fn epoch_safe(&self, _positions: &Positions) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn size_hint(&self) -> Option<u64> {
        None
    }
}
