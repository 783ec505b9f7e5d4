//! What can be wrong with the bytes of a request.

use crate::wire::MAX_ELEMENTS;

/// Why bytes are not the message that they claim to be. Positions count from the first byte looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// We have no description of this message in this version.
    #[error("api key {api_key} has no version {version} that we can read")]
    UnknownVersion {
        /// Kafka's number for the API; -1 for what is no request.
        api_key: i16,
        /// The version asked for.
        version: i16,
    },
    /// The bytes end within a field.
    #[error("`{field}` at byte {at} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The field, as Kafka's schema names it.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// Bytes it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Null where a value must be.
    #[error("`{field}` at byte {at} is null, which this version does not allow")]
    Null {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A structure that is neither there (1) nor null (-1).
    #[error("`{field}` at byte {at} does not begin with 1 or -1")]
    Presence {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A negative length other than that of null.
    #[error("`{field}` at byte {at} has a length of {length}")]
    NegativeLength {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// What it claims.
        length: i32,
    },
    /// An array that claims more elements than bytes follow it.
    #[error("`{field}` at byte {at} claims {count} elements, for which {left} bytes cannot suffice")]
    Count {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// Elements it claims.
        count: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// More elements in all arrays together than any honest request has.
    #[error("`{field}` at byte {at} brings the elements of all arrays to more than {MAX_ELEMENTS}")]
    TooManyElements {
        /// The array that passes the limit.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("`{field}` at byte {at} is not UTF-8")]
    Utf8 {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// A number of variable length that does not fit 32 bits.
    #[error("`{field}` at byte {at} begins with a varint of more than 32 bits")]
    Varint {
        /// The field.
        field: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// Tagged fields that are not in ascending order, or repeated (KIP-482).
    #[error("tagged field {tag} at byte {at} follows a tag that is not lower")]
    TagOrder {
        /// The tag.
        tag: u32,
        /// Where it begins.
        at: usize,
    },
    /// A tagged field of a later version.
    #[error("tagged field {tag} at byte {at} is not part of this version")]
    TagVersion {
        /// The tag.
        tag: u32,
        /// Where it begins.
        at: usize,
    },
    /// A tagged field whose value is shorter than its size says.
    #[error("tagged field {tag} at byte {at} holds {used} bytes, its size says {size}")]
    TagSize {
        /// The tag.
        tag: u32,
        /// Where it begins.
        at: usize,
        /// The size on the wire in bytes.
        size: usize,
        /// Bytes of the value.
        used: usize,
    },
}
