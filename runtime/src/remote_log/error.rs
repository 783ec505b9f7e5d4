//! What a broker refused, in the words of the log's own errors.

use kafka_protocol::ResponseError;
use logmill_connectors::error::LogError;
use logmill_connectors::log::TopicPartition;

/// What kept a request from being answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The connection failed.
    #[error("no answer from {address}")]
    Io {
        /// The broker.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The broker serves no version of the API that this client knows.
    #[error("{address} does not serve {api} in a version that this client knows")]
    NotServed {
        /// The broker.
        address: String,
        /// The API.
        api: String,
    },
}

impl From<CallError> for LogError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Io { address, source } => {
                Self::Unreachable { context: format!("no answer from {address}"), source: source.into() }
            }
            CallError::NotServed { .. } => Self::Unsupported(error.to_string()),
        }
    }
}

/// Whether another broker leads the partition by now, or nobody knows yet who does: worth asking again.
pub(super) fn is_passing(code: i16) -> bool {
    use ResponseError as E;
    let passing = [
        E::LeaderNotAvailable,
        E::NotLeaderOrFollower,
        E::FencedLeaderEpoch,
        E::UnknownLeaderEpoch,
        E::OffsetNotAvailable,
        E::CoordinatorLoadInProgress,
        E::CoordinatorNotAvailable,
        E::NotCoordinator,
        E::NotController,
    ];
    passing.iter().any(|error| error.code() == code)
}

/// An error of a topic or of something as a whole; `said` is the broker's own message.
pub(super) fn of_topic(code: i16, topic: &str, said: Option<&str>) -> LogError {
    let known = ResponseError::try_from_code(code);
    match known {
        Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId) => {
            LogError::UnknownTopic(topic.to_owned())
        }
        Some(ResponseError::TopicAlreadyExists) => LogError::TopicExists(topic.to_owned()),
        Some(ResponseError::InvalidTopicException) if said.is_none() => {
            LogError::Invalid(format!("`{topic}` is no name of a topic"))
        }
        _ => LogError::Invalid(said.map_or_else(|| refusal(code, topic), str::to_owned)),
    }
}

/// An error of a partition.
pub(super) fn of_partition(code: i16, place: &TopicPartition, said: Option<&str>) -> LogError {
    let TopicPartition { topic, partition } = place.clone();
    match ResponseError::try_from_code(code) {
        Some(ResponseError::UnknownTopicOrPartition) => LogError::UnknownPartition { topic, partition },
        _ => of_topic(code, &format!("{topic}-{partition}"), said),
    }
}

/// An error of a group.
pub(super) fn of_group(code: i16, group: &str) -> LogError {
    let text = match ResponseError::try_from_code(code) {
        Some(ResponseError::UnknownMemberId | ResponseError::NonEmptyGroup | ResponseError::RebalanceInProgress) => {
            format!("group `{group}` has members; stop them first")
        }
        Some(ResponseError::GroupIdNotFound) => format!("group `{group}` does not exist"),
        Some(ResponseError::InvalidGroupId) => format!("`{group}` is no name of a group"),
        _ => refusal(code, &format!("group `{group}`")),
    };
    LogError::Invalid(text)
}

fn refusal(code: i16, what: &str) -> String {
    match ResponseError::try_from_code(code) {
        Some(error) => format!("{what}: {error}"),
        None => format!("{what}: the server refuses with error {code}"),
    }
}
