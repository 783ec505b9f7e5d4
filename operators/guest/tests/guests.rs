//! The guests of the tests and of the examples, built for this machine: what their own tests say, and what lints say of them.

#![cfg(feature = "arrow")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unexpected_cfgs)]

#[path = "../../../tests/guests/copy/src/lib.rs"]
mod copy;
#[path = "../../../tests/guests/functions/src/lib.rs"]
mod functions;
#[path = "../../../examples/02-wasm-transform/guests/geo/src/lib.rs"]
mod geo;
#[allow(dead_code, reason = "it exports itself by hand, for WebAssembly alone")]
#[path = "../../../tests/guests/hostile/src/lib.rs"]
mod hostile;
#[path = "../../../tests/guests/identity/src/lib.rs"]
mod identity;
#[path = "../../../tests/guests/records/src/lib.rs"]
mod records;
#[path = "../../../examples/02-wasm-transform/guests/score/src/lib.rs"]
mod score;
#[path = "../../../tests/guests/splitter/src/lib.rs"]
mod splitter;
#[path = "../../../tests/guests/tally/src/lib.rs"]
mod tally;
