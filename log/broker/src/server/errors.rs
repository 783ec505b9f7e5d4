//! The broker's errors as Kafka's error codes.

use kafka_protocol::ResponseError;

use crate::error::BrokerError;

/// The code that tells a client what it can do about `error`.
pub(super) fn code(error: &BrokerError) -> i16 {
    response_error(error).code()
}

fn response_error(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::UnknownTopic(_) | BrokerError::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition,
        BrokerError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        BrokerError::TopicCollides(_) => ResponseError::InvalidTopicException,
        BrokerError::InvalidTimestamp(_) => ResponseError::InvalidTimestamp,
        BrokerError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        BrokerError::Invalid(_) => ResponseError::InvalidRequest,
        BrokerError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        BrokerError::Fenced(_) => ResponseError::InvalidProducerEpoch,
        BrokerError::IllegalGeneration { .. } => ResponseError::IllegalGeneration,
        BrokerError::DiskFull(_) | BrokerError::Storage { .. } => ResponseError::KafkaStorageError,
        BrokerError::Closed => ResponseError::NotLeaderOrFollower,
        BrokerError::DataDirLocked { .. } | BrokerError::NewerFormat { .. } => ResponseError::UnknownServerError,
    }
}
