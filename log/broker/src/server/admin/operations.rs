//! What a client may do with a resource, as the bit field in which Kafka's responses say it (KIP-430): one bit for each
//! `AclOperation`. Listeners ask for no proof and there are no ACLs, so everybody may do everything.

use crate::server::security::Principal;

const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CLUSTER_ACTION: i32 = 1 << 9;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

const TOPIC: i32 = READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
const CLUSTER: i32 = CREATE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE | ALTER | DESCRIBE;

/// What the principal may do with a topic.
pub(in crate::server) fn on_topic(principal: Principal) -> i32 {
    match principal {
        Principal::Anonymous => TOPIC,
    }
}

/// What the principal may do with the cluster.
pub(in crate::server) fn on_cluster(principal: Principal) -> i32 {
    match principal {
        Principal::Anonymous => CLUSTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_that_kafka_sends() {
        let everybody = Principal::Anonymous;
        assert_eq!((on_topic(everybody), on_cluster(everybody)), (3576, 8096));
    }
}
