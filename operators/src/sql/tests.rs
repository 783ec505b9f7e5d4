//! The `sql` operator, held to golden files, to DataFusion's own batch answers and to the operators' contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod behaviour;
mod fixtures;
mod functions;
mod golden;
mod names;
mod properties;
mod structs;
mod three_valued;
mod types;
