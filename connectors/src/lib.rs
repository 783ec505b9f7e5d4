//! Sources and sinks: the traits that every connector implements, the formats, and one folder a connector.
//!
//! A connector knows nothing of operators or of the engine. It reaches the log through the [`log::Log`] trait only.

pub mod blackhole;
mod blocking;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod decode;
pub mod error;
pub mod file;
pub mod format;
pub mod generate;
pub mod lines;
pub mod log;
pub mod object_store;
pub mod problem;
pub mod registry;
pub mod sink;
pub mod source;
pub mod stdout;
pub mod table;
pub mod topic;
pub mod transaction;
