//! The epoch's log transaction, as the topic sink sees it.

use async_trait::async_trait;
use bytes::Bytes;
use logmill_pipelines::flow::CheckpointEpoch;

use crate::error::ConnectorError;
use crate::log::TopicPartition;

/// The one transaction of each checkpoint epoch: topic output, dead letters and the manifest become visible together.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// Appends a record batch to the transaction of `epoch`; waits until those of earlier epochs have ended. The
    /// caller keeps order within a partition by awaiting one append before the next.
    async fn append(
        &self,
        epoch: CheckpointEpoch,
        partition: &TopicPartition,
        batch: Bytes,
    ) -> Result<(), ConnectorError>;
}
