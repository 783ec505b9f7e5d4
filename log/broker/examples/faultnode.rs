//! Scratch.
use logmill_broker::server::{Server, ServerConfig};
use logmill_broker::{Broker, BrokerConfig};
struct Sub;
struct V(String);
impl tracing::field::Visit for V { fn record_debug(&mut self, f: &tracing::field::Field, v: &dyn std::fmt::Debug) { self.0.push_str(&format!(" {}={v:?}", f.name())); } }
impl tracing::Subscriber for Sub {
    fn enabled(&self, m: &tracing::Metadata<'_>) -> bool { *m.level() <= tracing::Level::INFO }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id { tracing::span::Id::from_u64(1) }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, e: &tracing::Event<'_>) { let mut v = V(String::new()); e.record(&mut v); eprintln!("{:?} {}{}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap(), e.metadata().level(), v.0); }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing::subscriber::set_global_default(Sub)?;
    let _s = fail::FailScenario::setup();
    let args: Vec<String> = std::env::args().collect();
    let get = |n: &str| args.iter().position(|a| a == n).and_then(|i| args.get(i + 1)).cloned();
    let mut config = ServerConfig { listen: vec![get("--listen").unwrap()], ..ServerConfig::default() };
    if let Some(file) = get("--config") {
        for line in std::fs::read_to_string(file)?.lines() {
            let Some((k, v)) = line.split_once(':') else { continue };
            let n = || v.trim().trim_end_matches("s").parse::<u64>().unwrap();
            match k.trim() {
                "max_connections" => config.max_connections = n() as usize,
                "max_connections_per_ip" => config.max_connections_per_ip = n() as usize,
                "frame_timeout" => config.frame_timeout_ms = n() * 1000,
                "write_timeout" => config.write_timeout_ms = n() * 1000,
                "max_idle" => config.max_idle_ms = n() * 1000,
                _ => {}
            }
        }
    }
    let mut bc = BrokerConfig::new(get("--data-dir").unwrap());
    bc.groups.initial_rebalance_delay_ms = 0;
    let (broker, _report) = Broker::open(bc).await?;
    let server = Server::start(broker.clone(), config).await?;
    eprintln!("listening on {:?}", server.local_addrs());
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    terminated.recv().await;
    server.shutdown().await;
    broker.close().await?;
    Ok(())
}
