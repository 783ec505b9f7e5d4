//! Narrowing and replaying with guests that are no WebAssembly, and then with real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fake;
mod functions;
mod guests;
mod hostile;
mod narrowing;
mod rehearsal;
mod state;
mod transforms;
