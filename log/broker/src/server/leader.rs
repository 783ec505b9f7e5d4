//! What a client believes of a partition's leader, held against what is true (KIP-320).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use logmill_protocol::LeaderEpoch;

use crate::partition::Partition;
use crate::server::context::RequestContext;
use crate::server::errors;

/// The epoch of a client that does not say what it knows.
const UNKNOWN_EPOCH: i32 = -1;

/// The partition, if the client's leader epoch is the current one or it names none; the error's code otherwise.
pub(super) fn partition(
    context: &RequestContext,
    topic: &str,
    index: i32,
    current_leader_epoch: i32,
) -> Result<Arc<Partition>, i16> {
    let topic = context.broker().open_topic(topic).map_err(|error| errors::code(&error))?;
    let partition = topic.partition(index).map_err(|error| errors::code(&error))?;
    check_epoch(current_leader_epoch, partition.leader_epoch()).map_err(|error| error.code())?;
    Ok(Arc::clone(partition))
}

/// Whether a client's leader epoch, if it names one, is the partition's.
pub(super) fn check_epoch(found: i32, current: LeaderEpoch) -> Result<(), ResponseError> {
    match found {
        UNKNOWN_EPOCH => Ok(()),
        epoch if epoch < current.0 => Err(ResponseError::FencedLeaderEpoch),
        epoch if epoch > current.0 => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_current_leader_epoch_passes() {
        let check = |epoch: i32, expected| assert_eq!(check_epoch(epoch, LeaderEpoch(3)), expected, "{epoch}");
        check(-1, Ok(()));
        check(3, Ok(()));
        check(4, Err(ResponseError::UnknownLeaderEpoch));
        check(2, Err(ResponseError::FencedLeaderEpoch));
        check(-2, Err(ResponseError::FencedLeaderEpoch));
    }
}
