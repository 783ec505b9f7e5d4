//! The broker's errors as Kafka's error codes.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::error::{BrokerError, Refusal};

/// The longest text of an error that a client is sent, in bytes. It may repeat what the client sent, and strings of many
/// versions hold no more than 32,767.
const MAX_MESSAGE_LEN: usize = 4096;

/// The text of an error as a client is sent it: cut if it is very long.
pub(super) fn message(text: impl Into<String>) -> StrBytes {
    let mut text = text.into();
    if text.len() > MAX_MESSAGE_LEN {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_LEN));
        text.push('…');
    }
    StrBytes::from_string(text)
}

/// The code that tells a client what it can do about `error`.
pub(super) fn code(error: &BrokerError) -> i16 {
    response_error(error).code()
}

fn response_error(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::UnknownTopic(_) | BrokerError::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition,
        BrokerError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        BrokerError::TopicCollides(_) => ResponseError::InvalidTopicException,
        BrokerError::TooManySegments { .. } => ResponseError::PolicyViolation,
        BrokerError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        BrokerError::Invalid(_) => ResponseError::InvalidRequest,
        BrokerError::Refused { kind, .. } => refusal(*kind),
        BrokerError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        BrokerError::Fenced(_) => ResponseError::InvalidProducerEpoch,
        BrokerError::IllegalGeneration { .. } => ResponseError::IllegalGeneration,
        BrokerError::DiskFull(_) | BrokerError::Storage { .. } | BrokerError::Offline(_) => {
            ResponseError::KafkaStorageError
        }
        // Clients tell their users, and may seek beyond it.
        BrokerError::Lost { .. } => ResponseError::CorruptMessage,
        BrokerError::Closed => ResponseError::NotLeaderOrFollower,
        BrokerError::DataDirLocked { .. } | BrokerError::NewerFormat { .. } => ResponseError::UnknownServerError,
    }
}

fn refusal(kind: Refusal) -> ResponseError {
    match kind {
        Refusal::CorruptMessage => ResponseError::CorruptMessage,
        Refusal::MessageTooLarge => ResponseError::MessageTooLarge,
        Refusal::InvalidRecord => ResponseError::InvalidRecord,
        Refusal::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
        Refusal::InvalidTimestamp => ResponseError::InvalidTimestamp,
        Refusal::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
        Refusal::InvalidTransactionState => ResponseError::InvalidTxnState,
        Refusal::UnknownProducer => ResponseError::UnknownProducerId,
        Refusal::ForeignProducer => ResponseError::InvalidProducerIdMapping,
        Refusal::InvalidTopic => ResponseError::InvalidTopicException,
        Refusal::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        Refusal::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks,
        // The one code that Java and librdkafka both take for final, instead of trying again.
        Refusal::Transactions => ResponseError::TransactionalIdAuthorizationFailed,
        Refusal::TimedOut => ResponseError::RequestTimedOut,
    }
}
