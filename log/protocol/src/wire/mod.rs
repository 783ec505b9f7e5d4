//! What keeps hostile bytes out: requests are checked where they lie before anything is built from them.
//!
//! Every length and count is held against the bytes that are there, so that no claim of a client decides how much
//! memory is taken.

mod error;
mod produce;
mod reader;

pub use error::WireError;
pub use produce::{ProducePartition, ProduceRequest, ProduceTopic, TopicRef};

/// Most elements of all arrays of a request together, tagged fields included. A request over 100,000 topics with a
/// handful of partitions or settings each stays below it; decoded, that many take 100 to 200 MB.
pub const MAX_ELEMENTS: usize = 1_000_000;
