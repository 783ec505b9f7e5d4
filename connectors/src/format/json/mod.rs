//! JSON: one object a record.

mod decoder;
#[cfg(test)]
mod tests;

pub(crate) use decoder::{JsonDecoder, with_unknown};
