//! A broker and its server in a program of one's own: `cargo run -p logmill-broker --example node -- DIR HOST:PORT`.

use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: node DIR [HOST:PORT]")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let (broker, _report) = Broker::open(BrokerConfig::new(data_dir)).await?;
    let server =
        Server::start(broker.clone(), ServerConfig { listen: vec![listen], ..ServerConfig::default() }).await?;
    println!("listening on {:?}", server.local_addrs());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    terminated.recv().await;
    server.shutdown().await;
    broker.close().await?;
    Ok(())
}
