//! Checks of whole messages before they are decoded.

use std::ops::Range;

use kafka_protocol::messages::ApiKey;

use crate::wire::WireError;
use crate::wire::messages::{CONSUMER_PROTOCOL_ASSIGNMENT, CONSUMER_PROTOCOL_SUBSCRIPTION, request};
use crate::wire::reader::Reader;
use crate::wire::shape::Message;

/// Checks that `body`, which is the frame after the request header, begins with a whole request of this API and version,
/// so that decoding it allocates no more than a small multiple of its size.
///
/// Bytes after the request are not looked at, as in Kafka: librdkafka 2.16 leaves some behind a Metadata request for all
/// topics.
///
/// Every length lies within the body, strings are UTF-8, null is only where it may be, tagged fields ascend, and all
/// arrays together have at most [`MAX_ELEMENTS`](crate::wire::MAX_ELEMENTS) elements. Nothing is allocated.
///
/// # Errors
/// [`WireError::UnknownVersion`] if there is no description of it, otherwise the first thing that is malformed.
pub fn check_request(api: ApiKey, version: i16, body: &[u8]) -> Result<(), WireError> {
    let message = request(api, version).ok_or(WireError::UnknownVersion { api_key: api as i16, version })?;
    let mut reader = Reader::new(body);
    message.walk(version, &mut reader)
}

/// What precedes every request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Kafka's number for the API.
    pub api_key: i16,
    /// The request's version.
    pub version: i16,
    /// What the reply has to repeat.
    pub correlation_id: i32,
    /// Where the client's name for itself lies, as UTF-8; `None` is null.
    pub client_id: Option<Range<usize>>,
    /// Where the body begins.
    pub body: usize,
}

impl RequestHead {
    /// Reads the header at the start of a frame: version 2 has tagged fields, which are skipped, version 0 no client
    /// id. Which one it is follows from the first four bytes ([`ApiKey::request_header_version`]).
    ///
    /// # Errors
    /// [`WireError::UnknownVersion`] for other header versions, otherwise what is malformed.
    pub fn parse(frame: &[u8], header_version: i16) -> Result<Self, WireError> {
        if !(0..=2).contains(&header_version) {
            return Err(WireError::UnknownVersion { api_key: -1, version: header_version });
        }
        let mut reader = Reader::new(frame);
        let api_key = reader.i16("request_api_key")?;
        let version = reader.i16("request_api_version")?;
        let correlation_id = reader.i32("correlation_id")?;
        // Never compact, so that it can be read before versions are agreed.
        let client_id = if header_version >= 1 { reader.string("client_id", false)? } else { None };
        if header_version >= 2 {
            reader.skip_tags()?;
        }
        Ok(Self { api_key, version, correlation_id, client_id, body: reader.at() })
    }
}

/// Checks what a member of a group of consumers subscribes to (`ConsumerProtocolSubscription`, in the metadata of
/// JoinGroup), and returns the version to decode the bytes after the first two with.
///
/// As in Kafka, a version newer than the newest known is read as that one, and bytes may follow.
///
/// # Errors
/// [`WireError::UnknownVersion`] if the version is negative, otherwise what is malformed.
pub fn check_subscription(metadata: &[u8]) -> Result<i16, WireError> {
    check_versioned(&CONSUMER_PROTOCOL_SUBSCRIPTION, metadata)
}

/// Checks what a member of a group of consumers is assigned (`ConsumerProtocolAssignment`, in SyncGroup), like
/// [`check_subscription`].
///
/// # Errors
/// As [`check_subscription`].
pub fn check_assignment(assignment: &[u8]) -> Result<i16, WireError> {
    check_versioned(&CONSUMER_PROTOCOL_ASSIGNMENT, assignment)
}

fn check_versioned(message: &Message, bytes: &[u8]) -> Result<i16, WireError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16("version")?;
    if version < message.min {
        return Err(WireError::UnknownVersion { api_key: -1, version });
    }
    let version = version.min(message.max);
    message.walk(version, &mut reader)?;
    Ok(version)
}
