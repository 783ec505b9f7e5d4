//! Runs WebAssembly guests: compiles them, keeps them in their bounds, and calls them.
//!
//! ```text
//! bytes ──Host::load──> Guest ──instantiate──> Instance ──signature, on_batch, transform_packed, invoke ...──> bytes
//!          once            cheap to clone          one a worker or state shard; thrown away when a call fails
//! ```
//!
//! What guests and host say to each other is written in the WIT packages `logmill:operator`, `logmill:transform` and
//! `logmill:function`. Guests are components, core modules that carry their component types, or plain core modules with the
//! transform ABI; callers see no difference. A guest can reach nothing but its input: it has a memory of bounded size, a
//! deadline for each call, a log with a rate limit, and a clock and randomness that are given with the call, so that the same
//! call gives the same output again.
//!
//! This crate moves bytes; what they mean (Arrow IPC streams, packed records) is its callers' business, but for the loop over
//! records of guests that take them one at a time.

mod artifact;
mod bindings;
mod bounds;
mod cache;
mod compiler;
mod config;
mod core_calls;
mod error;
mod exports;
mod guest;
mod host;
mod imports;
mod instance;
mod log;
mod records;
mod sniff;
mod state;
mod ticker;
mod trap;
mod types;

pub use crate::bindings::{Content, FunctionSignature, Port, Signature, TransformPort};
pub use crate::compiler::{Compiler, compile_child};
pub use crate::error::{CallError, TransformError, WasmError};
pub use crate::guest::{Guest, Limits, Role};
pub use crate::host::{Host, MAX_MODULE_BYTES};
pub use crate::instance::{Instance, TakeRows};
pub use crate::log::{GuestLog, Level};
pub use crate::state::Moment;
pub use crate::trap::readable;
