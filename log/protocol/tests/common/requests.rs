//! The generated decoders of all requests that the server knows, by API.
#![allow(dead_code, unreachable_pub)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::{Decodable, Encodable, Message, VersionRange};

/// Why a decoder refused.
pub type Refused = String;

fn round_trip<T: Decodable + Encodable>(body: &mut Bytes, version: i16) -> Result<BytesMut, Refused> {
    let message = T::decode(body, version).map_err(|error| error.to_string())?;
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map_err(|error| format!("what was decoded cannot be encoded: {error}"))?;
    Ok(out)
}

fn decode<T: Decodable>(body: &mut Bytes, version: i16) -> Result<(), Refused> {
    T::decode(body, version).map(drop).map_err(|error| error.to_string())
}

fn default<T: Default + Encodable>(version: i16) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    T::default().encode(&mut out, version).ok().map(|()| out)
}

macro_rules! apis {
    ($($api:ident $request:ident)*) => {
        /// What the generated decoder takes off `body`, encoded again.
        pub fn decode_and_encode(api: ApiKey, version: i16, body: &mut Bytes) -> Result<BytesMut, Refused> {
            match api {
                $(ApiKey::$api => round_trip::<messages::$request>(body, version),)*
                _ => Err("not listed".to_owned()),
            }
        }

        /// Has the generated decoder read `body`.
        pub fn decode_request(api: ApiKey, version: i16, body: &mut Bytes) -> Result<(), Refused> {
            match api {
                $(ApiKey::$api => decode::<messages::$request>(body, version),)*
                _ => Err("not listed".to_owned()),
            }
        }

        /// The versions that the generated request has.
        pub fn versions(api: ApiKey) -> Option<VersionRange> {
            match api {
                $(ApiKey::$api => Some(messages::$request::VERSIONS),)*
                _ => None,
            }
        }

        /// The default request, if this version can say it.
        pub fn default_request(api: ApiKey, version: i16) -> Option<BytesMut> {
            match api {
                $(ApiKey::$api => default::<messages::$request>(version),)*
                _ => None,
            }
        }
    };
}

apis! {
    Produce ProduceRequest
    Fetch FetchRequest
    ListOffsets ListOffsetsRequest
    Metadata MetadataRequest
    OffsetCommit OffsetCommitRequest
    OffsetFetch OffsetFetchRequest
    FindCoordinator FindCoordinatorRequest
    JoinGroup JoinGroupRequest
    Heartbeat HeartbeatRequest
    LeaveGroup LeaveGroupRequest
    SyncGroup SyncGroupRequest
    DescribeGroups DescribeGroupsRequest
    ListGroups ListGroupsRequest
    ApiVersions ApiVersionsRequest
    CreateTopics CreateTopicsRequest
    DeleteTopics DeleteTopicsRequest
    DeleteRecords DeleteRecordsRequest
    InitProducerId InitProducerIdRequest
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest
    DescribeConfigs DescribeConfigsRequest
    AlterConfigs AlterConfigsRequest
    DescribeLogDirs DescribeLogDirsRequest
    CreatePartitions CreatePartitionsRequest
    DeleteGroups DeleteGroupsRequest
    IncrementalAlterConfigs IncrementalAlterConfigsRequest
    OffsetDelete OffsetDeleteRequest
    DescribeCluster DescribeClusterRequest
    DescribeProducers DescribeProducersRequest
    DescribeTopicPartitions DescribeTopicPartitionsRequest
}
