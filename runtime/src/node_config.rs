//! How a node is set up: its YAML file, what stands over the file, and what that means for broker and server.
//!
//! ```text
//!   flags  ▶  environment  ▶  file  ▶  defaults          the first that says something counts
//! ```

use std::path::{Path, PathBuf};

use logmill_broker::BrokerConfig;
use logmill_broker::server::{Advertised, ServerConfig};
use logmill_pipelines::{ByteSize, Diagnostics, DurationSpec, Environment, read_document};
use schemars::JsonSchema;
use serde::Deserialize;

/// A node's YAML. Every key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeFile {
    /// Which node this is.
    pub node: NodeSpec,
    /// Addresses to listen on, such as `127.0.0.1:9092`; port 0 takes any free one.
    pub listen: Option<Vec<String>>,
    /// What clients are told to connect to, if it is not the first address listened on.
    pub advertise: Option<String>,
    /// The folder of the log. A relative path starts from the file's own folder.
    pub data_dir: Option<PathBuf>,
    /// Whether a topic that a client asks for is made, if the client allows it too.
    pub auto_create_topics: Option<bool>,
    /// Partitions of a topic whose creator does not say.
    #[schemars(range(min = 1, max = 10_000))]
    pub default_partitions: Option<i32>,
    /// Bounds that keep one client from harming the others.
    pub limits: LimitsSpec,
    /// The group coordinator.
    pub groups: GroupsSpec,
}

/// Which node this is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// Its id.
    #[schemars(range(min = 0))]
    pub id: Option<i32>,
    /// Where it stands, for clients that prefer what is near.
    pub rack: Option<String>,
}

/// Bounds that keep one client from harming the others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// Most connections at a time.
    #[schemars(range(min = 1))]
    pub max_connections: Option<usize>,
    /// Most connections from one address.
    #[schemars(range(min = 1))]
    pub max_connections_per_ip: Option<usize>,
    /// Largest request.
    pub max_frame_bytes: Option<ByteSize>,
    /// Most bytes of requests in memory, of all connections together.
    pub max_request_bytes: Option<ByteSize>,
    /// Most requests of one connection that are read and not answered.
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<usize>,
    /// A connection without a request for so long is closed.
    pub max_idle: Option<DurationSpec>,
    /// A request that has begun to arrive must have arrived after so long.
    pub frame_timeout: Option<DurationSpec>,
    /// A client that reads nothing of a waiting reply for so long is closed.
    pub write_timeout: Option<DurationSpec>,
    /// How long a shutdown waits for what was begun to be answered.
    pub drain_timeout: Option<DurationSpec>,
}

/// The group coordinator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupsSpec {
    /// The shortest session timeout a member may ask for.
    pub min_session_timeout: Option<DurationSpec>,
    /// The longest session timeout a member may ask for.
    pub max_session_timeout: Option<DurationSpec>,
    /// How long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay: Option<DurationSpec>,
    /// The most members a group may have.
    #[schemars(range(min = 1))]
    pub max_size: Option<usize>,
    /// How long offsets are kept of a group that is empty.
    pub offsets_retention: Option<DurationSpec>,
}

/// What flags and the environment say. They come before the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Addresses to listen on; empty if nothing is said.
    pub listen: Vec<String>,
    /// What clients are told to connect to.
    pub advertise: Option<String>,
    /// The folder of the log.
    pub data_dir: Option<PathBuf>,
}

/// A node's whole set-up.
#[derive(Clone)]
pub struct NodeConfig {
    /// Of the log.
    pub broker: BrokerConfig,
    /// Of the server.
    pub server: ServerConfig,
}

/// Why a node cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NodeConfigError {
    /// The file cannot be read.
    #[error("could not read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("the node's config has mistakes")]
    Mistakes(Diagnostics),
    /// An address is none.
    #[error("`{text}` is no address: {reason}, as in 127.0.0.1:9092")]
    BadAddress {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Clients cannot connect to the address they would be told.
    #[error("clients cannot connect to `{0}`; say which host name or address reaches this node, with --advertise")]
    Unreachable(String),
}

impl NodeFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or with every mistake in it.
    pub fn read(path: &Path, environment: &dyn Environment) -> Result<Self, NodeConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| NodeConfigError::Unreadable { path: path.to_owned(), source })?;
        let name = path.display().to_string();
        let mut file: Self =
            read_document("the node's config", &name, &text, environment).map_err(NodeConfigError::Mistakes)?;
        if let (Some(dir), Some(folder)) = (&mut file.data_dir, path.parent()) {
            *dir = folder.join(&dir);
        }
        Ok(file)
    }

    /// The node that the file describes, where nothing stands over it.
    ///
    /// # Errors
    /// If an address is none, or would not reach this node.
    pub fn resolve(self, over: Overrides, default_data_dir: &str) -> Result<NodeConfig, NodeConfigError> {
        let data_dir = over.data_dir.or(self.data_dir).unwrap_or_else(|| PathBuf::from(default_data_dir));
        let mut server = ServerConfig::default();
        if let Some(listen) = Some(over.listen).filter(|listen| !listen.is_empty()).or(self.listen) {
            server.listen = listen;
        }
        for address in &server.listen {
            let bare = address.split_once("://").map_or(address.as_str(), |(_, bare)| bare);
            host_and_port(bare)?;
        }
        server.advertise = over.advertise.or(self.advertise).as_deref().map(advertised).transpose()?;
        if let (None, Some(first)) = (&server.advertise, server.listen.first()) {
            let bare = first.split_once("://").map_or(first.as_str(), |(_, bare)| bare);
            reachable(bare)?;
        }
        set(&mut server.node_id, self.node.id);
        server.rack = self.node.rack;
        set(&mut server.auto_create_topics, self.auto_create_topics);
        set(&mut server.default_partitions, self.default_partitions);
        self.limits.apply(&mut server);
        let mut broker = BrokerConfig::new(data_dir);
        self.groups.apply(&mut broker);
        Ok(NodeConfig { broker, server })
    }
}

impl LimitsSpec {
    fn apply(self, server: &mut ServerConfig) {
        let bytes = |size: Option<ByteSize>| size.map(|size| usize::try_from(size.bytes()).unwrap_or(usize::MAX));
        let millis = |time: Option<DurationSpec>| time.map(DurationSpec::as_millis);
        set(&mut server.max_connections, self.max_connections);
        set(&mut server.max_connections_per_ip, self.max_connections_per_ip);
        set(&mut server.max_frame_bytes, bytes(self.max_frame_bytes));
        set(&mut server.max_request_bytes, bytes(self.max_request_bytes));
        set(&mut server.max_in_flight, self.max_in_flight);
        set(&mut server.max_idle_ms, millis(self.max_idle));
        set(&mut server.frame_timeout_ms, millis(self.frame_timeout));
        set(&mut server.write_timeout_ms, millis(self.write_timeout));
        set(&mut server.drain_timeout_ms, millis(self.drain_timeout));
    }
}

impl GroupsSpec {
    fn apply(self, broker: &mut BrokerConfig) {
        let short = |time: Option<DurationSpec>| time.map(|t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
        let long = |time: Option<DurationSpec>| time.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX));
        set(&mut broker.groups.min_session_timeout_ms, short(self.min_session_timeout));
        set(&mut broker.groups.max_session_timeout_ms, short(self.max_session_timeout));
        set(&mut broker.groups.initial_rebalance_delay_ms, long(self.initial_rebalance_delay));
        set(&mut broker.groups.max_size, self.max_size);
        set(&mut broker.groups.offsets_retention_ms, long(self.offsets_retention));
    }
}

fn set<T>(to: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *to = value;
    }
}

/// Splits `host:port`; an IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Result<(&str, u16), NodeConfigError> {
    let bad = |reason| NodeConfigError::BadAddress { text: text.to_owned(), reason };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("it has no port"))?;
    let port = port.parse().map_err(|_| bad("its port is no number up to 65535"))?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| bad("a bracket is missing"))?,
        None if host.contains(':') => return Err(bad("an IPv6 address needs brackets")),
        None => host,
    };
    if bare.is_empty() {
        return Err(bad("it has no host"));
    }
    Ok((bare, port))
}

fn advertised(text: &str) -> Result<Advertised, NodeConfigError> {
    let (host, port) = host_and_port(text)?;
    if port == 0 {
        let reason = "clients need the port itself, not 0";
        return Err(NodeConfigError::BadAddress { text: text.to_owned(), reason });
    }
    reachable(text)?;
    Ok(Advertised { host: host.to_owned(), port })
}

/// An address of all interfaces is nothing that a client could connect to.
fn reachable(text: &str) -> Result<(), NodeConfigError> {
    match host_and_port(text)?.0 {
        "0.0.0.0" | "::" => Err(NodeConfigError::Unreachable(text.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use logmill_pipelines::MemoryEnvironment;

    use super::*;

    fn read(text: &str) -> Result<NodeFile, String> {
        let read = read_document("the node's config", "node.yaml", text, &MemoryEnvironment::default());
        read.map_err(|found| found.render(false))
    }

    #[test]
    fn nothing_said_is_the_default() {
        let node = read("").unwrap().resolve(Overrides::default(), "data").unwrap();
        assert_eq!(node.server, ServerConfig::default());
        assert_eq!(node.broker.data_dir, PathBuf::from("data"));
    }

    #[test]
    fn every_key_has_its_effect() {
        let text = "node: { id: 7, rack: west }\nlisten: ['0.0.0.0:9', '[::1]:10']\nadvertise: mill.example:9092\n\
                    data_dir: d\nauto_create_topics: false\ndefault_partitions: 3\n\
                    limits: { max_connections: 1, max_connections_per_ip: 2, max_frame_bytes: 3KiB,\n  \
                    max_request_bytes: 4MiB, max_in_flight: 5, max_idle: 6s, frame_timeout: 7ms,\n  \
                    write_timeout: 8ms, drain_timeout: 9ms }\n\
                    groups: { min_session_timeout: 1s, max_session_timeout: 2s, initial_rebalance_delay: 0s,\n  \
                    max_size: 4, offsets_retention: 1d }\n";
        let node = read(text).unwrap().resolve(Overrides::default(), "data").unwrap();
        let expected = ServerConfig {
            listen: vec!["0.0.0.0:9".into(), "[::1]:10".into()],
            advertise: Some(Advertised { host: "mill.example".into(), port: 9092 }),
            node_id: 7,
            rack: Some("west".into()),
            auto_create_topics: false,
            default_partitions: 3,
            max_connections: 1,
            max_connections_per_ip: 2,
            max_frame_bytes: 3 << 10,
            max_request_bytes: 4 << 20,
            max_in_flight: 5,
            max_idle_ms: 6_000,
            frame_timeout_ms: 7,
            write_timeout_ms: 8,
            drain_timeout_ms: 9,
        };
        assert_eq!(node.server, expected);
        assert_eq!(node.broker.data_dir, PathBuf::from("d"));
        let groups = node.broker.groups;
        assert_eq!((groups.min_session_timeout_ms, groups.max_session_timeout_ms), (1_000, 2_000));
        assert_eq!((groups.initial_rebalance_delay_ms, groups.max_size), (0, 4));
        assert_eq!(groups.offsets_retention_ms, 86_400_000);
    }

    #[test]
    fn what_is_said_over_the_file_counts() {
        let over = Overrides {
            listen: vec!["localhost:1".into()],
            advertise: Some("[::1]:2".into()),
            data_dir: Some("over".into()),
        };
        let text = "listen: ['127.0.0.1:9']\nadvertise: x:1\ndata_dir: d\n";
        let node = read(text).unwrap().resolve(over, "data").unwrap();
        assert_eq!(node.server.listen, ["localhost:1"]);
        assert_eq!(node.server.advertise, Some(Advertised { host: "::1".into(), port: 2 }));
        assert_eq!(node.broker.data_dir, PathBuf::from("over"));
    }

    #[test]
    fn mistakes_are_told_where_they_stand() {
        let found = read("lsten: []\nlimits: { max_conections: 1 }\ndefault_partitions: 0\n").unwrap_err();
        for text in ["node.yaml:1:1", "`listen`", "`max_connections`", "at least 1"] {
            assert!(found.contains(text), "no `{text}` in:\n{found}");
        }
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        let check = |listen: &str, advertise: Option<&str>, expected: &str| {
            let over =
                Overrides { listen: vec![listen.to_owned()], advertise: advertise.map(str::to_owned), data_dir: None };
            let error = NodeFile::default().resolve(over, "d").err().expect("it should be refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("127.0.0.1", None, "`127.0.0.1` is no address: it has no port");
        check("127.0.0.1:99999", None, "up to 65535");
        check(":9092", None, "no host");
        check("::1:9092", None, "brackets");
        check("0.0.0.0:9092", None, "--advertise");
        check("127.0.0.1:1", Some("0.0.0.0:1"), "--advertise");
        check("127.0.0.1:1", Some("x:0"), "not 0");
    }
}
