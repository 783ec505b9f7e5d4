//! Sources and sinks: the traits that every connector implements, the formats, and one folder a connector.
//!
//! A connector knows nothing of operators or of the engine. It reaches the log through the [`log::Log`] trait only.

pub mod decode;
pub mod error;
pub mod log;
pub mod sink;
pub mod source;
pub mod transaction;
