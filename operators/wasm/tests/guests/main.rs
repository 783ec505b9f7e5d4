//! Guests, good and bad, against the host that runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod build;
mod core_abi;
mod hostile;
mod loading;
mod mutants;
mod operators;
mod transforms;
mod wasi;
