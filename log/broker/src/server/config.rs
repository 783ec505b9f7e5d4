//! How the server listens, what it tells clients about itself, and its bounds.

/// Where clients find this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// A host name or address that clients can resolve.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Options of a [`Server`](crate::server::Server). The defaults suit one node on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Addresses to listen on (`listeners`): `host:port` or `PLAINTEXT://host:port`; port 0 takes any free one. Other
    /// security protocols are refused.
    pub listen: Vec<String>,
    /// What clients are told to connect to (`advertised.listeners`); the first address listened on if it is not set.
    pub advertise: Option<Advertised>,
    /// This node's id (`node.id`).
    pub node_id: i32,
    /// Where this node stands (`broker.rack`), for clients that prefer what is near.
    pub rack: Option<String>,
    /// Whether a topic that a client asks for is made (`auto.create.topics.enable`), if the client allows it too.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator does not say (`num.partitions`).
    pub default_partitions: i32,
    /// Most connections at a time, fewer if the limit of open files leaves no room for so many; more are closed at once
    /// (`max.connections`).
    pub max_connections: usize,
    /// Most connections from one address; more are closed at once (`max.connections.per.ip`).
    pub max_connections_per_ip: usize,
    /// Largest request in bytes (`socket.request.max.bytes`).
    pub max_frame_bytes: usize,
    /// Most bytes of requests in memory, of all connections together (`queued.max.request.bytes`). Not counted is one
    /// request of up to 64 KiB for each connection, and a quarter is kept for those of up to 1 MiB, so that large
    /// ones never hold them up. A request that is larger than its share waits until it is the only one.
    pub max_request_bytes: usize,
    /// Most requests of one connection that are read and not answered.
    pub max_in_flight: usize,
    /// A connection without a request for so long is closed, in milliseconds (`connections.max.idle.ms`).
    pub max_idle_ms: u64,
    /// A request that has begun to arrive must have arrived after so long, in milliseconds, and what its bytes take at
    /// 64 KB/s, or its connection is closed.
    pub frame_timeout_ms: u64,
    /// A client that reads nothing of a waiting reply for so long is closed, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long a shutdown waits for what was begun to be answered, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:9092".to_owned()],
            advertise: None,
            node_id: 1,
            rack: None,
            auto_create_topics: true,
            default_partitions: 1,
            max_connections: 10_000,
            max_connections_per_ip: 10_000,
            max_frame_bytes: 100 << 20,
            max_request_bytes: 256 << 20,
            max_in_flight: 32,
            max_idle_ms: 600_000,
            frame_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            drain_timeout_ms: 10_000,
        }
    }
}
