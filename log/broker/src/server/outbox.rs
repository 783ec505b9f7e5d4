//! Replies on their way to the socket: header and body in one system call, as many replies as are ready.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Buf;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;

use crate::server::reply::{Chunk, Prefix, Reply};

/// Most parts written by one call.
const MAX_SLICES: usize = 16;

/// A part of a reply that is not yet sent.
enum Part {
    /// A reply's size and header, from a position on.
    Prefix(Prefix, usize),
    Chunk(Chunk),
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Prefix(prefix, sent) => prefix.as_ref().len() - sent,
            Self::Chunk(chunk) => chunk.len(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Prefix(prefix, sent) => prefix.as_ref().get(*sent..).unwrap_or_default(),
            Self::Chunk(Chunk::Bytes(bytes)) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Prefix(_, sent) => *sent += count,
            Self::Chunk(Chunk::Bytes(bytes)) => bytes.advance(count),
        }
    }
}

/// Replies that wait for the client to read.
#[derive(Default)]
pub(super) struct Outbox {
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Outbox {
    /// Bytes that are not yet sent.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Forgets everything: nobody will read it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn push(&mut self, correlation_id: i32, header_version: i16, reply: Reply) {
        let prefix = reply.prefix(correlation_id, header_version);
        let parts = std::iter::once(Part::Prefix(prefix, 0)).chain(reply.chunks.into_iter().map(Part::Chunk));
        for part in parts.filter(|part| part.len() > 0) {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Writes some of it, as much as the socket takes at once. Cancel-safe.
    pub(super) async fn write_some(&mut self, write: &mut WriteHalf<'_>) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part.bytes());
            count += 1;
        }
        let written = write.write_vectored(slices.get(..count).unwrap_or_default()).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent(written);
        Ok(())
    }

    fn sent(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(part) = self.parts.front_mut() {
            let len = part.len();
            if count < len {
                part.advance(count);
                return;
            }
            count -= len;
            self.parts.pop_front();
        }
    }
}
