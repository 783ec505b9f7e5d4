//! A response as the connection sends it: bytes first, so that what is large can follow from where it lies.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use logmill_storage::LogSlice;

/// A part of a response.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes of a file.
    File(FileChunk),
}

/// A part of a log's file, less what is sent of it.
#[derive(Debug)]
pub(super) struct FileChunk {
    slice: LogSlice,
    sent: usize,
}

impl FileChunk {
    pub(super) fn new(slice: LogSlice) -> Self {
        Self { slice, sent: 0 }
    }

    pub(super) fn slice(&self) -> &LogSlice {
        &self.slice
    }

    /// What is to be sent next, at most so many bytes, within the slice.
    pub(super) fn next(&self, max_bytes: usize) -> Range<usize> {
        self.sent..self.slice.len().min(self.sent + max_bytes)
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    pub(super) fn len(&self) -> usize {
        self.slice.len() - self.sent
    }
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(file) => file.len(),
        }
    }
}

/// A response after its header.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// One after another, the message's bytes.
    pub(super) chunks: Vec<Chunk>,
}

/// A response that could not be put into its version's bytes: a mistake of ours.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode the response to {api:?} version {version}: {reason}")]
pub(super) struct Unencodable {
    api: ApiKey,
    version: i16,
    reason: String,
}

impl Reply {
    /// A response in the encoding of `version`.
    pub(super) fn encode<R: Encodable + HeaderVersion>(
        api: ApiKey,
        version: i16,
        response: &R,
    ) -> Result<Self, Unencodable> {
        let fail = |error: anyhow::Error| Unencodable { api, version, reason: error.to_string() };
        let mut body = BytesMut::with_capacity(response.compute_size(version).map_err(fail)?);
        response.encode(&mut body, version).map_err(fail)?;
        Ok(Self { chunks: vec![Chunk::Bytes(body.freeze())] })
    }

    /// The size and the header that precede the response on the wire.
    pub(super) fn prefix(&self, correlation_id: i32, header_version: i16) -> Prefix {
        // Header version 1 adds tagged fields, of which there are none.
        let header_len = if header_version >= 1 { 5 } else { 4 };
        let body: usize = self.chunks.iter().map(Chunk::len).sum();
        let mut bytes = [0; 9];
        let size = u32::try_from(header_len + body).unwrap_or(u32::MAX);
        (&mut bytes[..]).put_u32(size);
        (&mut bytes[4..]).put_i32(correlation_id);
        Prefix { bytes, len: 4 + header_len }
    }
}

/// A response's size and header, as they stand on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    bytes: [u8; 9],
    len: usize,
}

impl AsRef<[u8]> for Prefix {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
