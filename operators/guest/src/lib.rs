//! Write WebAssembly operators, transforms and functions for Logmill in Rust.
//!
//! | you write | of type | export it with |
//! |---|---|---|
//! | a function of a record, or a [`Transform`] | records in, records out, with serde | [`transform!`] |
//! | an [`Operator`](operator::Operator), perhaps with state and event time | Arrow batches | `operator!`, `stateful_operator!`, `windowed_operator!` |
//! | functions for SQL | rows or columns | `functions!` |
//!
//! Those of Arrow need the feature `arrow`. A guest is a crate of type `cdylib` that is built with
//! `cargo build --release --target wasm32-unknown-unknown`; Logmill takes the `.wasm` as it comes. Guests build for the
//! machine itself as well, without exports, so that `cargo test` can call what they are made of; [`testing`] helps.
//!
//! ```
//! logmill_guest::record! {
//!     struct Flight { flight: i32, delay_minutes: f64 }
//! }
//!
//! logmill_guest::transform!(|flight: Flight| -> Option<Flight> { (flight.delay_minutes > 15.0).then_some(flight) });
//! ```

// The generated code and the macros name the crate as guests do.
extern crate self as logmill_guest;

#[cfg(feature = "arrow")]
pub mod arrow;
#[cfg(feature = "arrow")]
pub mod function;
mod host;
#[cfg(feature = "arrow")]
mod ipc;
mod message;
#[cfg(feature = "arrow")]
pub mod operator;
pub mod record;
pub mod testing;
pub mod transform;
#[doc(hidden)]
pub mod wit;

#[doc(hidden)]
pub use host::report_panics;
pub use host::{Level, log, now_us};
pub use message::{Headers, Message};
pub use record::{Column, Record};
pub use transform::{Emit, Out, Outcome, Port, Transform};

#[doc(hidden)]
pub use serde;
