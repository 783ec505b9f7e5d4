//! Why the group coordinator refuses, one variant for each thing a client does about it.

use kafka_protocol::ResponseError;

use crate::error::BrokerError;

/// Why the coordinator refuses. The message of each says what a reader of a log needs; clients get [`GroupError::code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group's name is empty or too long.
    #[error("the group's name is empty or longer than 1024 bytes")]
    InvalidGroup,
    /// Nobody knows the group.
    #[error("group `{0}` does not exist")]
    GroupNotFound(String),
    /// The group has members.
    #[error("group `{0}` has members")]
    NonEmptyGroup(String),
    /// The instance's name, or that of a protocol, is longer than Kafka's strings may be.
    #[error("a text of the member's is longer than 32767 bytes")]
    TextTooLong,
    /// The group, or the node, has as many members as it may have, or they tell each other as much as they may.
    #[error("the group has as many members, or as much of what they tell each other, as it may have")]
    GroupMaxSize,
    /// The session timeout lies outside of what the broker allows.
    #[error("the session timeout is not within what the broker allows")]
    InvalidSessionTimeout,
    /// The member must join again, with the id it is given (KIP-394).
    #[error("the member must join again with the id it is given")]
    MemberIdRequired,
    /// The member is not, or no more, in the group.
    #[error("the group has no such member")]
    UnknownMember,
    /// The member is none, or not of the current generation.
    #[error("generation {generation} of group `{group}` is not the current one")]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The generation claimed.
        generation: i32,
    },
    /// Another member of the same instance name has taken over (KIP-345).
    #[error("another member of the same instance name has taken over")]
    FencedInstance,
    /// The group's members speak another protocol.
    #[error("the group's members speak another protocol")]
    InconsistentProtocol,
    /// The generation is ending: the member must join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The text beside an offset is too long.
    #[error("the text beside the offset is too long")]
    MetadataTooLarge,
    /// A live member consumes the topic.
    #[error("a member of the group is subscribed to the topic")]
    SubscribedToTopic,
    /// What there is to remember of the group is more than a record may hold.
    #[error("what the members tell each other is more than the group's log takes")]
    TooLarge,
    /// The offset would take more memory than all groups may have.
    #[error("the offsets of all groups take as much memory as they may")]
    OffsetsFull,
    /// The change could not be written down; it may be tried again.
    #[error("the group's log cannot be written to")]
    NotWritten,
}

impl GroupError {
    /// Kafka's code for it.
    #[must_use]
    pub fn code(&self) -> i16 {
        let error = match self {
            Self::InvalidGroup => ResponseError::InvalidGroupId,
            Self::GroupNotFound(_) => ResponseError::GroupIdNotFound,
            Self::NonEmptyGroup(_) => ResponseError::NonEmptyGroup,
            Self::GroupMaxSize => ResponseError::GroupMaxSizeReached,
            Self::TextTooLong => ResponseError::InvalidRequest,
            Self::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
            Self::MemberIdRequired => ResponseError::MemberIdRequired,
            Self::UnknownMember => ResponseError::UnknownMemberId,
            Self::IllegalGeneration { .. } => ResponseError::IllegalGeneration,
            Self::FencedInstance => ResponseError::FencedInstanceId,
            Self::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
            Self::RebalanceInProgress => ResponseError::RebalanceInProgress,
            Self::MetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
            Self::SubscribedToTopic => ResponseError::GroupSubscribedToTopic,
            Self::TooLarge => ResponseError::UnknownServerError,
            Self::OffsetsFull => ResponseError::InvalidCommitOffsetSize,
            Self::NotWritten => ResponseError::CoordinatorNotAvailable,
        };
        error.code()
    }
}

impl From<GroupError> for BrokerError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::IllegalGeneration { group, generation } => Self::IllegalGeneration { group, generation },
            other => Self::Invalid(other.to_string()),
        }
    }
}
