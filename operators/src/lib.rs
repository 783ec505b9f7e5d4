//! Operators: what a pipeline computes between its sources and its sinks.

pub mod conformance;
pub mod error;
pub mod operator;
pub mod panics;
pub mod sql;
pub mod wasm;
