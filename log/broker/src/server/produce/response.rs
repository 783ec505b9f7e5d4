//! What became of each partition's batches, and how that is told in each version.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, BrokerId, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use logmill_protocol::wire::TopicRef;
use uuid::Uuid;

use crate::broker::Acknowledged;
use crate::error::BrokerError;
use crate::server::context::Node;
use crate::server::errors;
use crate::server::reply::{Reply, Unencodable};

/// The first version that tells which node leads instead.
const LEADER_VERSION: i16 = 10;

/// What became of one topic's part of a request.
pub(super) struct TopicOutcome {
    /// As the request named it: by one of them.
    name: StrBytes,
    id: Uuid,
    pub(super) partitions: Vec<PartitionOutcome>,
}

/// What became of one partition's part.
pub(super) struct PartitionOutcome {
    pub(super) index: i32,
    pub(super) result: Result<Acknowledged, Failure>,
}

/// Why a partition's batches were not appended, or may not be durable.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    code: i16,
    message: Option<StrBytes>,
    record: Option<i32>,
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let code = errors::code(&error);
        match error {
            BrokerError::Refused { message, record, .. } => {
                Self { code, message: Some(errors::message(message)), record }
            }
            BrokerError::Storage { .. } | BrokerError::DiskFull(_) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, source, "cannot append");
                Self { code, message: None, record: None }
            }
            _ => Self { code, message: None, record: None },
        }
    }
}

impl Failure {
    /// In words.
    pub(super) fn reason(&self) -> String {
        let code = ResponseError::try_from_code(self.code).map(|code| code.to_string());
        match (&self.message, code) {
            (Some(message), _) => message.to_string(),
            (None, Some(code)) => code,
            (None, None) => format!("error {}", self.code),
        }
    }
}

impl TopicOutcome {
    /// `topic` is how the request, whose body it is, names the topic.
    pub(super) fn new(topic: &TopicRef, body: &[u8], partitions: Vec<PartitionOutcome>) -> Self {
        let (name, id) = match topic {
            TopicRef::Id(id) => (StrBytes::default(), *id),
            name => (StrBytes::from_string(name.name(body).unwrap_or_default().to_owned()), Uuid::nil()),
        };
        Self { name, id, partitions }
    }

    /// Whether a partition has not been acknowledged yet.
    pub(super) fn waits(&self) -> bool {
        self.partitions.iter().any(|partition| partition.result.as_ref().is_ok_and(Acknowledged::waits))
    }
}

/// The first thing that went wrong.
pub(super) fn first_failure(outcomes: &[TopicOutcome]) -> Option<&Failure> {
    outcomes.iter().flat_map(|topic| &topic.partitions).find_map(|partition| partition.result.as_ref().err())
}

/// The response.
pub(super) fn encode(node: &Node, version: i16, outcomes: Vec<TopicOutcome>) -> Result<Reply, Unencodable> {
    let elsewhere = ResponseError::NotLeaderOrFollower.code();
    let is_elsewhere = first_failure(&outcomes).is_some_and(|failure| failure.code == elsewhere);
    let topic = |topic: TopicOutcome| {
        let partitions = topic.partitions.into_iter().map(|one| partition(node, version, one)).collect();
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        if version >= 13 { response.with_topic_id(topic.id) } else { response.with_name(TopicName(topic.name)) }
    };
    let mut response = ProduceResponse::default().with_responses(outcomes.into_iter().map(topic).collect());
    if is_elsewhere && version >= LEADER_VERSION {
        let endpoint = NodeEndpoint::default()
            .with_node_id(BrokerId(node.config.node_id))
            .with_host(StrBytes::from_string(node.advertised.host.clone()))
            .with_port(node.advertised.port.into());
        response.node_endpoints.push(endpoint);
    }
    Reply::encode(ApiKey::Produce, version, &response)
}

fn partition(node: &Node, version: i16, outcome: PartitionOutcome) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(outcome.index);
    match outcome.result {
        Ok(Acknowledged { appended, log_start, .. }) => response
            .with_base_offset(appended.base_offset.0)
            .with_log_append_time_ms(appended.log_append_time.map_or(-1, |time| time.0))
            .with_log_start_offset(log_start.0),
        Err(Failure { code, message, record }) => {
            let response = response.with_error_code(code).with_base_offset(-1);
            let response = match (record, &message) {
                (Some(index), Some(message)) if version >= 8 => {
                    let error = BatchIndexAndErrorMessage::default()
                        .with_batch_index(index)
                        .with_batch_index_error_message(Some(message.clone()));
                    response.with_record_errors(vec![error])
                }
                _ => response,
            };
            let response = if version >= 8 { response.with_error_message(message) } else { response };
            if version < LEADER_VERSION || code != ResponseError::NotLeaderOrFollower.code() {
                return response;
            }
            let leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(node.config.node_id))
                .with_leader_epoch(node.broker.leader_epoch().0);
            response.with_current_leader(leader)
        }
    }
}
