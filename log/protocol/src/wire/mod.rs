//! What keeps hostile bytes out: requests are checked where they lie before anything is built from them.
//!
//! ```text
//!  frame ──▶ RequestHead::parse ──▶ check_request ──▶ the generated decoder ──▶ handler
//!                          └──────▶ ProduceRequest::parse (no copy) ──────────▶ log
//! ```
//!
//! The generated decoders take memory for as many elements as a message claims, before they look for them, and keep
//! no order among tagged fields. So every length and count is held against the bytes that are there first: what a
//! client claims never decides how much memory is taken, only what it sends does.

mod check;
mod error;
mod messages;
mod produce;
mod reader;
mod shape;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use check::{RequestHead, check_assignment, check_request, check_subscription};
pub use error::WireError;
pub use messages::request_versions;
pub use produce::{ProducePartition, ProduceRequest, ProduceTopic, TopicRef};

/// Most elements of all arrays of a request together, tagged fields included. A request over 100,000 topics with a
/// handful of partitions or settings each stays below it; decoded, that many take 100 to 200 MB.
pub const MAX_ELEMENTS: usize = 1_000_000;
