//! The broker, in process: topics, groups and transactions over the partitions' logs.
//!
//! ```text
//!                            Broker  (calls, errors, waiting)
//!        ┌───────────────┬──────┴────────┬──────────────────────┐
//!     topics          groups       transactions            maintenance
//!        │            state │         │ state                   (by the clock)
//!   metadata::state   ──────┴────┬────┴──────       pure state machines: event in, effects out
//!        │                       │
//!   metadata log     __consumer_offsets, __transaction_state     replayed at start
//!        └───────────────┬───────┘
//!                    partition  ── logmill-storage
//! ```
//!
//! What holds:
//! 1. What decides (metadata, groups, transactions) knows no clock, no randomness and no I/O. A record is appended
//!    before it is applied, and replay applies the same records.
//! 2. `acks=all` is acknowledged after `fdatasync`, shared by all who wait; a transaction's commit likewise, whatever
//!    its topics say.
//! 3. A transaction ends one way, in all its partitions, whatever instant the process or the machine dies at.
//! 4. No lock is held across an await, and no call waits for the disk on the runtime's own threads, beyond a write of
//!    1 MiB into the page cache.
//!
//! ```
//! use logmill_broker::{Broker, BrokerConfig, Isolation, NewTopic, OffsetAt, TopicPartition};
//! use logmill_protocol::{BatchBuilder, BatchOptions, Offset, Timestamp};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let (broker, _report) = Broker::open(BrokerConfig::new(dir.path())).await?;
//! broker.create_topic(NewTopic { name: "flights".to_owned(), partitions: 1, configs: vec![] }).await?;
//! let flights = TopicPartition::new("flights", 0);
//!
//! let mut batch = BatchBuilder::new(BatchOptions::default());
//! batch.append(Timestamp(0), Some(b"AA"), Some(b"on time"), &[])?;
//! let session = broker.init_producer("example", 60_000).await?;
//! broker.append(&session, &flights, batch.finish().unwrap_or_default()).await?;
//! let stable = OffsetAt::Latest(Isolation::ReadCommitted);
//! assert_eq!(broker.offset(&flights, stable).await?, Offset(0));
//!
//! broker.end_transaction(&session, true).await?;
//! assert_eq!(broker.offset(&flights, stable).await?, Offset(2), "the record, and the marker behind it");
//! broker.close().await?;
//! # Ok(())
//! # }
//! ```

mod batches;
mod blocking;
mod broker;
mod clock;
mod data_dir;
mod error;
pub mod groups;
mod in_place;
mod internal;
pub mod metadata;
mod names;
mod node_epoch;
mod offline;
mod open_files;
mod partition;
mod producer_ids;
pub mod server;
mod topic_config;
mod topics;
pub mod transactions;
mod types;
mod waiters;
mod wire;

pub use broker::{Broker, BrokerConfig, StartReport};
pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use error::{BoxError, BrokerError, Refusal, Result};
pub use groups::GroupConfig;
pub use logmill_storage::Damage;
pub use names::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC, is_internal};
pub use topic_config::{Flush, TopicConfig, topic_config_table};
pub use topics::Repair;
pub use types::{
    ConfigChange, DamagedPartition, FetchRequest, Fetched, GroupInfo, Isolation, Membership, NewTopic,
    OfflinePartition, OffsetAt, ProducerSession, TopicInfo, TopicPartition,
};
