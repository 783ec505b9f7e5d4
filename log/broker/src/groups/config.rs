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
    /// How long offsets are kept of a group that is empty (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// The longest text that may be committed beside an offset, in UTF-16 units as Kafka counts it
    /// (`offset.metadata.max.bytes`).
    pub offset_metadata_max_len: usize,
}

/// A new member that waits for its first generation is given up after this long: Kafka cannot tell whether its client
/// still is there, and neither can we (`group.new.member.join.timeout.ms`).
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 300_000;

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: usize::MAX,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offset_metadata_max_len: 4_096,
        }
    }
}
