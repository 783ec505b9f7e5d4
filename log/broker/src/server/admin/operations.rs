//! What a client may do with a resource, as the bit field in which Kafka's responses say it (KIP-430): one bit for each
//! `AclOperation`. Listeners ask for no proof and there are no ACLs, so everybody may do everything.

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

/// All operations on a topic.
pub(in crate::server) const TOPIC: i32 =
    READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
/// All operations on the cluster.
pub(in crate::server) const CLUSTER: i32 =
    CREATE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE | ALTER | DESCRIBE;

#[cfg(test)]
mod tests {
    #[test]
    fn the_bits_are_those_that_kafka_sends() {
        assert_eq!((super::TOPIC, super::CLUSTER), (3576, 8096));
    }
}
