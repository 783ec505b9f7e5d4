//! Columns out of text, for whoever takes rows from outside: connectors from records, operators from guests.
//!
//! ```text
//!   JSON objects ─▶ json.rs ─ cursor.rs ─┐
//!                                        ├─▶ column.rs ─ scalar.rs ─▶ Arrow columns
//!   fields of CSV ───────────────────────┘
//!   columns of others ─▶ range.rs: are all values such that text can show them?
//! ```
//!
//! A value means the same wherever it comes from, and is that of its column or an error: nothing is rounded, wrapped around or
//! made null.

mod column;
mod cursor;
mod json;
mod range;
pub mod scalar;

pub use column::{Column, Scratch, UnsupportedColumn};
pub use cursor::{Cursor, Problem, RawString, unescape};
pub use json::{BadObject, Decoded, JsonColumns, UNKNOWN_COLUMN};
pub use range::{BadValue, column_out_of_range, invalid_values, out_of_range};
