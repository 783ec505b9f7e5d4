//! The broker's front door: Kafka's protocol over TCP.
//!
//! ```text
//!  listener ──accept──▶ connection ──frame──▶ api (decode, dispatch) ──▶ handlers ──▶ Broker
//!                           │  reads ahead                                  │
//!                           └◀── replies, in the order of the requests ◀────┘
//! ```
//!
//! What holds:
//! 1. A connection's requests take effect in the order they were sent, and are answered in that order. A Produce is done
//!    with once its batches are appended: the next request starts while its acknowledgement waits for the disk.
//! 2. What one client sends, or does not read, costs the others nothing: frames, requests in flight and memory a
//!    connection are bounded.
//! 3. A malformed request ends its connection, never the server.

mod admin;
mod api;
mod api_table;
mod config;
mod connection;
mod context;
mod delete_records;
mod errors;
mod fetch;
mod frames;
mod groups;
mod header;
mod init_producer_id;
mod leader;
mod leader_epochs;
mod limits;
mod list_offsets;
mod listener;
mod metadata;
mod outbox;
mod produce;
mod reply;
mod security;

pub use api_table::api_table;
pub use config::{Advertised, ServerConfig};
pub use listener::Server;
