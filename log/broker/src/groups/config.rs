//! The limits that the group coordinator keeps its clients to, under Kafka's names and with Kafka's defaults.

/// How the group coordinator is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The shortest session timeout a member may ask for (`group.min.session.timeout.ms`).
    pub min_session_timeout_ms: i32,
    /// The longest session timeout a member may ask for (`group.max.session.timeout.ms`).
    pub max_session_timeout_ms: i32,
    /// How long the first rebalance of an empty group waits for more members (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: i64,
    /// The most members a group may have (`group.max.size`).
    pub max_size: usize,
    /// The most member ids of a group that were given out to clients and not yet used to join.
    pub max_pending: usize,
    /// The most memory that the members of a group may take together: names, subscriptions and assignments. A generation
    /// with all of them is one record of the log.
    pub max_group_bytes: usize,
    /// The most groups that may exist. Groups of pipelines are never refused.
    pub max_groups: usize,
    /// The most memory that all groups may take, with their offsets. A request that needs no more than before is never
    /// refused, nor is the engine.
    pub max_bytes: usize,
    /// How long offsets are kept of a group that is empty (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// The longest text that may be committed beside an offset, in UTF-16 units as Kafka counts it
    /// (`offset.metadata.max.bytes`).
    pub offset_metadata_max_len: usize,
}

/// The longest name of a group that a client may create, in bytes. Kafka's only limit is that of its strings, but an answer
/// that lists the groups holds all of their names.
pub(crate) const MAX_GROUP_NAME_LEN: usize = 1024;

/// Old clients state how long their offsets are to be kept; they are kept for at most a year.
pub(crate) const MAX_OWN_RETENTION_MS: i64 = 365 * 24 * 3_600_000;

/// A new member that waits for its first generation is given up after this long: Kafka cannot tell whether its client
/// still is there, and neither can we (`group.new.member.join.timeout.ms`).
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 300_000;

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: 10_000,
            max_pending: 10_000,
            max_group_bytes: 8 << 20,
            max_groups: 100_000,
            max_bytes: 256 << 20,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offset_metadata_max_len: 4_096,
        }
    }
}
