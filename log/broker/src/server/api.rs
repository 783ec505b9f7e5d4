//! The table of APIs: which are served, in which versions, and by whom.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;

use bytes::BytesMut;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Request;
use logmill_protocol::wire;

use crate::server::admin::{
    alter_configs, cluster, create_partitions, create_topics, delete_topics, describe_configs, log_dirs, producers,
    topic_partitions,
};
use crate::server::context::RequestContext;
use crate::server::header::Header;
use crate::server::reply::{Reply, Unencodable};
use crate::server::{delete_records, fetch, groups, init_producer_id, leader_epochs, list_offsets, metadata, produce};

/// Defines [`SERVED`] and [`begin`] from one table: an API to a line, and who handles it.
macro_rules! serve {
    (
        raw { $($raw:ident => $begin:path,)* }
        decoded { $($api:ident => $handle:path,)* }
    ) => {
        /// The APIs that are served. Their versions are those of Kafka 4.1, the release whose messages we are built with.
        pub(super) const SERVED: &[ApiKey] = &[$(ApiKey::$raw,)* $(ApiKey::$api,)*];

        /// Lets a request take effect.
        pub(super) async fn begin(context: &RequestContext, header: &Header, body: BytesMut) -> Result<Begun, Refused> {
            let version = header.version;
            match header.api {
                $(ApiKey::$raw => $begin(context, version, body).await.map(Begun::from),)*
                $(ApiKey::$api => {
                    let request = decode(body, version)?;
                    // On the heap, so that idle connections do not reserve room for every handler.
                    let response = Box::pin($handle(context, version, request)).await;
                    Ok(Begun::Done(Reply::encode(header.api, version, &response)?))
                })*
                api => Err(Refused::UnsupportedVersion { api, version }),
            }
        }
    };
}

serve! {
    // async fn(&RequestContext, version: i16, body: BytesMut) -> Result<Begun or Reply, Refused>
    raw {
        Produce => produce::begin,
        Fetch => fetch::fetch,
        ApiVersions => api_versions,
    }
    // async fn(&RequestContext, version: i16, Request) -> Response
    decoded {
        Metadata => metadata::metadata,
        ListOffsets => list_offsets::list_offsets,
        OffsetForLeaderEpoch => leader_epochs::offset_for_leader_epoch,
        DeleteRecords => delete_records::delete_records,
        OffsetCommit => groups::offset_commit,
        OffsetFetch => groups::offset_fetch,
        FindCoordinator => groups::find_coordinator,
        JoinGroup => groups::join_group,
        Heartbeat => groups::heartbeat,
        LeaveGroup => groups::leave_group,
        SyncGroup => groups::sync_group,
        DescribeGroups => groups::describe_groups,
        ListGroups => groups::list_groups,
        DeleteGroups => groups::delete_groups,
        OffsetDelete => groups::offset_delete,
        CreateTopics => create_topics::create_topics,
        DeleteTopics => delete_topics::delete_topics,
        CreatePartitions => create_partitions::create_partitions,
        DescribeConfigs => describe_configs::describe_configs,
        AlterConfigs => alter_configs::alter_configs,
        IncrementalAlterConfigs => alter_configs::incremental_alter_configs,
        DescribeCluster => cluster::describe_cluster,
        DescribeTopicPartitions => topic_partitions::describe_topic_partitions,
        DescribeLogDirs => log_dirs::describe_log_dirs,
        DescribeProducers => producers::describe_producers,
        InitProducerId => init_producer_id::init_producer_id,
    }
}

/// A request that took effect.
pub(super) enum Begun {
    /// The reply is ready.
    Done(Reply),
    /// The reply has to wait; the next request need not.
    Later(Pin<Box<dyn Future<Output = Result<Reply, Unencodable>> + Send>>),
    /// The client wants no reply (`acks=0`).
    Unanswered,
}

impl From<Reply> for Begun {
    fn from(reply: Reply) -> Self {
        Self::Done(reply)
    }
}

/// Why a request cannot be answered at all: its connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("request of unknown kind {0}")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not served")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("malformed request: {0}")]
    Malformed(String),
    #[error("a request that wants no answer failed: {0}")]
    Unacknowledged(String),
    #[error("the server stops")]
    Stopping,
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
}

pub(super) fn malformed(error: impl std::fmt::Display) -> Refused {
    Refused::Malformed(error.to_string())
}

/// Checks a request's body and decodes it. The decoders trust what the body claims, so that comes second.
pub(super) fn decode<R: Request>(body: BytesMut, version: i16) -> Result<R, Refused> {
    let api = ApiKey::try_from(R::KEY).map_err(|()| Refused::UnknownApi(R::KEY))?;
    wire::check_request(api, version, &body)
        .map_err(|error| malformed(format_args!("{api:?} version {version}: {error}")))?;
    R::decode(&mut body.freeze(), version).map_err(malformed)
}

/// The versions of an API that are served.
pub(super) fn versions(api: ApiKey) -> Option<RangeInclusive<i16>> {
    SERVED.contains(&api).then(|| wire::request_versions(api)).flatten()
}

/// The versions of an API that clients are told.
pub(super) fn advertised_versions(api: ApiKey) -> Option<RangeInclusive<i16>> {
    // Old versions of librdkafka drop compression where Produce is not advertised from 0.
    versions(api).map(|served| if api == ApiKey::Produce { 0..=*served.end() } else { served })
}

fn advertised(api: ApiKey) -> Option<ApiVersion> {
    let versions = advertised_versions(api)?;
    let (min, max) = versions.into_inner();
    Some(ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max))
}

/// Tells the versions served. If the request's own version is not among them, that in version 0, as Kafka does, so that the
/// client can try again with another. There are no tagged fields in it: some clients cannot skip them here.
async fn api_versions(_: &RequestContext, version: i16, body: BytesMut) -> Result<Reply, Refused> {
    let api = ApiKey::ApiVersions;
    if !versions(api).is_some_and(|served| served.contains(&version)) {
        let response = ApiVersionsResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_api_keys(Vec::from_iter(advertised(api)));
        return Ok(Reply::encode(api, 0, &response)?);
    }
    let request: ApiVersionsRequest = decode(body, version)?;
    let is_valid = |text: &str| version < 3 || is_software_word(text);
    let response = match is_valid(&request.client_software_name) && is_valid(&request.client_software_version) {
        true => ApiVersionsResponse::default().with_api_keys(SERVED.iter().copied().filter_map(advertised).collect()),
        false => ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code()),
    };
    Ok(Reply::encode(api, version, &response)?)
}

/// KIP-511: letters, digits, dashes and dots, of which the latter two neither first nor last.
fn is_software_word(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric())) && text.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_that_is_served_can_be_checked_and_its_answer_encoded() {
        for api in SERVED {
            let (served, valid) = (versions(*api), api.valid_versions());
            assert!(served.is_some_and(|served| *served.start() == valid.min && *served.end() <= valid.max), "{api:?}");
        }
    }

    #[test]
    fn client_software_is_named_by_kafkas_rule() {
        let check = |text: &str, expected: bool| assert_eq!(is_software_word(text), expected, "{text:?}");
        check("apache-kafka-java", true);
        check("2.3.0", true);
        check("a", true);
        check("", false);
        check("-a", false);
        check("a.", false);
        check("a b", false);
        check("a_b", false);
    }
}
