//! A place among a topic's partitions: an open one, or one that is offline and says why.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{BrokerError, Result};
use crate::partition::Partition;
use crate::types::{OfflinePartition, TopicPartition};

/// A partition, open or offline.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Online(Arc<Partition>),
    Offline(Arc<OfflinePartition>),
}

impl Slot {
    /// A partition that could not be opened.
    pub(crate) fn offline(partition: TopicPartition, path: PathBuf, error: &BrokerError) -> Self {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Self::Offline(Arc::new(OfflinePartition { partition, path, reason }))
    }

    /// The partition.
    ///
    /// # Errors
    /// `Offline`.
    pub(crate) fn get(&self) -> Result<&Arc<Partition>> {
        match self {
            Self::Online(partition) => Ok(partition),
            Self::Offline(offline) => Err(BrokerError::Offline(Arc::clone(offline))),
        }
    }

    /// The partition if it is open.
    pub(crate) fn online(&self) -> Option<&Arc<Partition>> {
        self.get().ok()
    }

    pub(crate) fn is_offline(&self) -> bool {
        matches!(self, Self::Offline(_))
    }

    pub(crate) fn name(&self) -> &TopicPartition {
        match self {
            Self::Online(partition) => partition.name(),
            Self::Offline(offline) => &offline.partition,
        }
    }
}
