//! Opening the broker: lock, metadata, partitions, coordinators, and what a crash left to be done.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use logmill_storage::{CutTail, Flusher};
use tokio::sync::Notify;

use crate::blocking;
use crate::broker::{Broker, Inner, maintenance};
use crate::clock::{Clock, Now, SystemClock};
use crate::data_dir::{DataDir, this_process};
use crate::error::{BrokerError, Result};
use crate::groups::{GroupConfig, GroupService};
use crate::names::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::topics::{Opened, Topics};
use crate::transactions::TransactionService;
use crate::types::{DamagedPartition, NewTopic, OfflinePartition};

/// How a broker is set up.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Where everything is kept; made if it is missing.
    pub data_dir: PathBuf,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// How often timeouts are looked at, in milliseconds (`transaction.abort.timed.out.transaction.cleanup.interval.ms`).
    pub timeout_check_interval_ms: u64,
    /// How often retention is applied and internal topics are trimmed, in milliseconds
    /// (`log.retention.check.interval.ms`).
    pub retention_check_interval_ms: u64,
    /// The longest transaction timeout that a producer may ask for (`transaction.max.timeout.ms`).
    pub transaction_max_timeout_ms: u64,
    /// Partitions of each internal topic, when they are made. One is enough for one node: all transactions share its
    /// syncs.
    pub internal_partitions: i32,
    /// What Kafka clients may ask of their groups.
    pub groups: GroupConfig,
}

impl BrokerConfig {
    /// The defaults, which are Kafka's where Kafka has them.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            clock: Arc::new(SystemClock),
            timeout_check_interval_ms: 10_000,
            retention_check_interval_ms: 300_000,
            transaction_max_timeout_ms: 900_000,
            internal_partitions: 1,
            groups: GroupConfig::default(),
        }
    }
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartReport {
    /// How many topics there are, internal ones included.
    pub topics: usize,
    /// How many partitions they have.
    pub partitions: usize,
    /// Logs that had not been closed and were checked.
    pub unclean_logs: usize,
    /// Torn tails that were cut off. Nothing acknowledged as durable was in them.
    pub cut: Vec<CutTail>,
    /// Partitions with records that are lost, or with batches whose headers were damaged and are restored.
    pub damage: Vec<DamagedPartition>,
    /// Partitions that cannot be served.
    pub offline: Vec<Arc<OfflinePartition>>,
    /// Transactions that had been decided and were ended accordingly.
    pub transactions_completed: usize,
    /// Parts of transactions that the coordinator did not know any more and aborted.
    pub transactions_aborted: usize,
}

/// Small segments: internal topics are replayed at start and trimmed by rewriting. Large messages: a group is one record,
/// with what all its members tell each other, and a transaction's offsets are one batch.
const INTERNAL_CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("segment.bytes", "16777216"),
    ("max.message.bytes", "8388608"),
];

impl Broker {
    /// Opens the data dir, making it if it is missing, and recovers what a crash left. Must be called within a tokio
    /// runtime, whose timers do the maintenance from then on.
    ///
    /// Damage does not prevent the rest from being served; the report lists it.
    ///
    /// # Errors
    /// `DataDirLocked` while another process has it open, `NewerFormat` if a newer version wrote it; `DiskFull` and
    /// `Storage` if the metadata cannot be read or written.
    pub async fn open(config: BrokerConfig) -> Result<(Self, StartReport)> {
        let at = config.clone();
        let (topics, flusher, groups, transactions, opened) = blocking::run(move || open_all(&at)).await?;
        let recovered = transactions.recover().await;
        groups.start_timer(Arc::clone(&config.clock));
        let report = StartReport {
            topics: topics.list().len(),
            partitions: topics.partitions().len(),
            unclean_logs: opened.unclean,
            cut: opened.cut,
            damage: opened.damage,
            offline: opened.offline,
            transactions_completed: recovered.completed,
            transactions_aborted: recovered.orphans_aborted,
        };
        let inner = Arc::new(Inner {
            config,
            topics,
            groups,
            transactions,
            flusher,
            closed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            idle: Notify::new(),
        });
        maintenance::start(&inner);
        Ok((Self { inner }, report))
    }
}

type Parts = (Arc<Topics>, Arc<Flusher>, Arc<GroupService>, Arc<TransactionService>, Opened);

fn open_all(config: &BrokerConfig) -> Result<Parts> {
    crate::open_files::raise_limit();
    let now = config.clock.now();
    let started = chrono::DateTime::from_timestamp_millis(now.0).unwrap_or_default().to_rfc3339();
    let dir = Arc::new(DataDir::open(&config.data_dir, &this_process(&started))?);
    let flusher = Flusher::start().map_err(|error| BrokerError::corrupt("cannot start the log's flusher", error))?;
    let flusher = Arc::new(flusher);
    let (topics, mut opened) = Topics::open(dir, Arc::clone(&flusher), now)?;
    let configs = internal_configs();
    let missing: Vec<_> = [OFFSETS_TOPIC, TRANSACTIONS_TOPIC]
        .into_iter()
        .filter(|name| topics.describe(name).is_none())
        .map(|name| NewTopic {
            name: name.to_owned(),
            partitions: config.internal_partitions,
            configs: configs.clone(),
        })
        .collect();
    if !missing.is_empty() {
        topics.create(&missing, true, now)?;
    }
    let topics = Arc::new(topics);
    let (groups, failed) = GroupService::open(
        topics.topic(OFFSETS_TOPIC)?.partitions.clone(),
        Arc::clone(&flusher),
        config.groups.clone(),
        Now::of(&*config.clock),
        |partition, error| topics.take_offline(partition, error),
    );
    opened.offline.extend(failed);
    let groups = Arc::new(groups);
    // Deleted just before a crash.
    let gone: Vec<_> = groups.topics().into_iter().filter(|topic| topics.describe(topic).is_none()).collect();
    if let Err(error) = groups.forget_topics(&gone, now) {
        tracing::warn!(topics = gone.join(", "), %error, "cannot forget what groups committed of deleted topics");
    }
    let (transactions, failed) = TransactionService::open(
        Arc::clone(&topics),
        Arc::clone(&groups),
        topics.topic(TRANSACTIONS_TOPIC)?.partitions.clone(),
        Arc::clone(&flusher),
        Arc::clone(&config.clock),
    );
    opened.offline.extend(failed);
    if let Some(lost) = opened.commands_lost {
        topics.skip_producer_ids(lost, transactions.largest_producer_id(), now)?;
        transactions.producer_ids().begin_at(topics.next_producer_id());
    }
    Ok((topics, flusher, groups, Arc::new(transactions), opened))
}

/// The configs of the internal topics.
pub(crate) fn internal_configs() -> Vec<(String, String)> {
    INTERNAL_CONFIGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
