//! The `wasm` operator and the scalar functions of guests: Arrow on this side, WebAssembly modules on the other.
//!
//! ```text
//!   Operator ─▶ select ─▶ narrow ─▶ Stateless | Shard ─▶ Live ─┬─ batches: Arrow IPC ────────────▶ Instance
//!               columns   halves     replaces guests           └─ transform: messages, values ──▶ Instance
//!                                    that broke                              packed records
//!   ScalarUDF ─▶ function: a pool of instances, Arrow IPC ───────────────────────────────────────▶ Instance
//! ```
//!
//! `logmill-wasm` runs guests and knows nothing of rows; here is what their bytes mean. A guest is not trusted: whatever it
//! gives is checked before it flows on, and a row that it fails on costs that row and no more.

mod batches;
mod coerce;
mod columns;
mod error;
mod function;
mod ipc;
mod live;
mod messages;
mod narrow;
mod operator;
mod packed;
mod patience;
mod plan;
mod pool;
mod rehearsal;
mod sample;
mod select;
mod shard;
mod state;
mod stateless;
mod transform;
mod values;

pub use error::{PlanError, is_about_config};
pub use function::{WasmFunction, functions};
pub use plan::{WasmPlan, WasmRequest, plan};
pub use rehearsal::{Rehearsal, rehearse};

#[cfg(test)]
mod tests;
