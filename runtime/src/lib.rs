//! The runtime: the engine that runs pipelines, the plan they run by, and the command line.

// What is printed may hold names of others: there are `stderr` and `cli::print`, which escape them.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
mod deployment;
pub mod embedded_log;
pub mod engine;
mod guest_log;
pub mod metrics;
pub mod modules;
pub mod node_config;
pub mod plan;
mod progress;
pub mod query;
pub mod remote_log;
mod stderr;
