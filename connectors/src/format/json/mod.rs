//! JSON: one object a record.

pub(crate) mod cursor;
mod decoder;
#[cfg(test)]
mod tests;

pub(crate) use decoder::{JsonDecoder, with_unknown};
