//! DescribeLogDirs: how much room topics take on the disk, and how much there is.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::node_configs::absolute;
use super::{text, topic_name};
use crate::server::context::RequestContext;
use crate::topics::OpenTopic;

/// The version from which on the response says how large the disk is.
const DISK_VERSION: i16 = 4;

/// Answers a DescribeLogDirs request.
pub(in crate::server) async fn describe_log_dirs(
    context: &RequestContext,
    version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let all = |topic: &OpenTopic| (0..).zip(&topic.partitions).map(|(index, _)| index).collect();
    let topics: Vec<_> = match request.topics {
        None => context.broker().open_topics().iter().map(|topic| describe(topic, &all(topic))).collect(),
        Some(asked) => {
            let mut indexes: BTreeMap<_, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked {
                indexes.entry(topic.topic).or_default().extend(topic.partitions);
            }
            // What is not here is not in the response, either.
            let open = |(name, indexes): (_, _)| Some(describe(&*context.broker().open_topic(name).ok()?, indexes));
            indexes.iter().filter_map(|(name, indexes)| open((name, indexes))).collect()
        }
    };
    let path = context.broker().data_dir();
    let mut result = DescribeLogDirsResult::default().with_log_dir(text(&absolute(path))).with_topics(topics);
    if version >= DISK_VERSION {
        match rustix::fs::statvfs(path) {
            Ok(disk) => {
                let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
                (result.total_bytes, result.usable_bytes) = (bytes(disk.f_blocks), bytes(disk.f_bavail));
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot ask for the size of the disk");
                result.error_code = ResponseError::KafkaStorageError.code();
            }
        }
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn describe(topic: &OpenTopic, indexes: &BTreeSet<i32>) -> DescribeLogDirsTopic {
    let partitions = indexes.iter().filter_map(|index| {
        let size = topic.partition(*index).ok()?.log().size_bytes();
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        Some(DescribeLogDirsPartition::default().with_partition_index(*index).with_partition_size(size))
    });
    DescribeLogDirsTopic::default().with_name(topic_name(&topic.name)).with_partitions(partitions.collect())
}
