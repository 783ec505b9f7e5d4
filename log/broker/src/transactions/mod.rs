//! Transactions across partitions (KIP-98), with a producer epoch of its own for each (KIP-890).
//!
//! ```text
//!  Empty ──append──▶ Ongoing ──end──▶ PrepareCommit ──markers──▶ CompleteCommit
//!    ▲                  │                                              │
//!    │                  └──end, timeout, new producer──▶ PrepareAbort ─┴─▶ CompleteAbort
//!    └── init_producer ────────────────────────────────────────────────────────┘
//!
//!  on disk, of a commit:   data synced → PrepareCommit synced → markers synced → CompleteCommit
//! ```
//!
//! `PrepareCommit` is the atomic point. It is durable only after everything it commits is, and a restart that finds it
//! writes the markers again; one that does not find it aborts. So a transaction ends one way, whenever power is lost.
//! Committed offsets count among what must be durable first: the records that they say have been read.

pub mod records;
mod recovery;
pub(crate) mod service;
pub mod state;

pub(crate) use service::TransactionService;
pub use state::{Ending, Step, Transaction, Transactions, TxnError, TxnStatus};
