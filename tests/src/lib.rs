//! The bench that end-to-end tests stand on: the real binary in a folder of its own, real data, and what came out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod checker;
pub mod client;
pub mod data;
pub mod load;
pub mod node;
pub mod outcome;
pub mod port;
pub mod s3;
pub mod site;

/// Whether long runs are asked for, as `./tests/run --long` does: tests that repeat something then repeat it more often.
pub fn long() -> bool {
    std::env::var_os("LOGMILL_TEST_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}
