//! End to end: the real binary on real data, in one test binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod budgets;
mod clients;
mod commands;
mod damaged_files;
mod dead_letters;
mod exactly_once;
mod example;
mod faults;
mod serve;
mod templates;
mod wasm;
