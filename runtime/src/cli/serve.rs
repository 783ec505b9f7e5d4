//! `logmill serve`: the log of a data dir, served to Kafka clients until it is told to stop.

use std::path::PathBuf;

use logmill_broker::Broker;
use logmill_broker::server::{Server, ServerConfig};

use super::address::{DEFAULT_DATA_DIR, Said, with_broker};
use super::pipeline_file::ProcessEnvironment;
use super::signals::stop_on_signal;
use super::told;
use crate::node_config::{NodeConfig, NodeConfigError, NodeFile, Overrides};
use crate::stderr;

/// Serve topics and groups to Kafka clients, until ctrl-C or SIGTERM.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The node's YAML: node, listen, advertise, data_dir, auto_create_topics, default_partitions, limits, groups.
    #[arg(long, env = "LOGMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here, by default on 127.0.0.1:9092; may be given several times. Port 0 takes any free one.
    #[arg(long, env = "LOGMILL_LISTEN", value_name = "HOST:PORT", value_delimiter = ',')]
    listen: Vec<String>,
    /// Tell clients to connect to this, if it is not the first address listened on.
    #[arg(long, env = "LOGMILL_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
}

pub(super) async fn execute(arguments: Arguments, said: &Said) -> anyhow::Result<()> {
    let over =
        Overrides { listen: arguments.listen, advertise: arguments.advertise, data_dir: said.named_data_dir("serve")? };
    let node = configure(arguments.config, over)?;
    let mut stop = stop_on_signal()?;
    with_broker(node.broker.clone(), async |broker| {
        let server = listen(broker, &node).await?;
        // An error is a sender that has gone away, which never stops a node.
        let _ = stop.wait_for(|stop| *stop).await;
        stderr::print_line("logmill: finishing what was begun; once more to stop at once");
        server.shutdown().await;
        Ok(())
    })
    .await
}

/// The node's set-up from a file, if there is one, and what stands over it.
fn configure(path: Option<PathBuf>, over: Overrides) -> anyhow::Result<NodeConfig> {
    let file = match &path {
        None => NodeFile::default(),
        Some(path) => match NodeFile::read(path, &ProcessEnvironment::beside(path)) {
            Ok(file) => file,
            Err(NodeConfigError::Mistakes(found)) => return Err(told(&found)),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(file.resolve(over, DEFAULT_DATA_DIR)?)
}

/// Serves a broker that a pipeline writes to in the same process.
pub(super) async fn serve_beside(
    broker: Broker,
    listen_on: Vec<String>,
    advertise: Option<String>,
    data_dir: PathBuf,
) -> anyhow::Result<Server> {
    let over = Overrides { listen: listen_on, advertise, data_dir: Some(data_dir) };
    listen(broker, &configure(None, over)?).await
}

/// Starts the server, and says where it is.
async fn listen(broker: Broker, node: &NodeConfig) -> anyhow::Result<Server> {
    let server = Server::start(broker, node.server.clone()).await.map_err(|error| explain(error, &node.server))?;
    let addresses: Vec<String> = server.local_addrs().iter().map(ToString::to_string).collect();
    let (addresses, id) = (addresses.join(", "), node.server.node_id);
    stderr::print_line(&format!(
        "logmill: listening on {addresses} (node {id}, data dir {})",
        node.broker.data_dir.display()
    ));
    Ok(server)
}

/// Says what to do about an address that cannot be listened on.
fn explain(error: std::io::Error, server: &ServerConfig) -> anyhow::Error {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another process listens there; stop it, or choose another with --listen",
        std::io::ErrorKind::AddrNotAvailable => "this machine has no such address; choose another with --listen",
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need rights; choose another with --listen",
        _ => return anyhow::Error::from(error).context(format!("could not serve on {}", server.listen.join(", "))),
    };
    anyhow::Error::from(error).context(hint).context("could not serve")
}
