//! What every implementation of a connector's trait is held to, and doubles of what connectors stand on.

pub mod decoder;
pub mod log;
pub mod memory_log;
pub mod sink;
pub mod source;
