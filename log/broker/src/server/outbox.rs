//! Replies on their way to the socket: header and body in one system call, as many replies as are ready.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Buf;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

use crate::server::reply::{Chunk, FileChunk, Prefix, Reply};

/// Most parts written by one call.
const MAX_SLICES: usize = 16;
/// Most bytes of a file sent by one call, so that others get their turn.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Flags of `sendmsg(2)` on Linux: more follows; a client that has gone is an error and no signal.
const MSG_MORE: i32 = 0x8000;
const MSG_NOSIGNAL: i32 = 0x4000;

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
            Self::Chunk(Chunk::File(_)) => &[],
        }
    }

    fn file(&self) -> Option<&FileChunk> {
        match self {
            Self::Chunk(Chunk::File(file)) => Some(file),
            _ => None,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Prefix(_, sent) => *sent += count,
            Self::Chunk(Chunk::Bytes(bytes)) => bytes.advance(count),
            Self::Chunk(Chunk::File(file)) => file.advance(count),
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
        let socket: &TcpStream = write.as_ref();
        let written = match self.parts.front().and_then(Part::file) {
            Some(file) => send_file(socket, file).await?,
            None => self.send_bytes(socket).await?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent(written);
        Ok(())
    }

    /// Sends parts that are in memory, up to the next that is in a file.
    async fn send_bytes(&self, socket: &TcpStream) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(self.parts.iter().take_while(|part| part.file().is_none())) {
            *slice = IoSlice::new(part.bytes());
            count += 1;
        }
        // The kernel sends them together with what follows from the file.
        let flags = if self.parts.get(count).is_some() { MSG_NOSIGNAL | MSG_MORE } else { MSG_NOSIGNAL };
        let slices = slices.get(..count).unwrap_or_default();
        socket.async_io(Interest::WRITABLE, || SockRef::from(socket).send_vectored_with_flags(slices, flags)).await
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

/// Sends the next part of a file from the page cache, without a copy through this process.
async fn send_file(socket: &TcpStream, file: &FileChunk) -> io::Result<usize> {
    let part = file.next(MAX_FILE_BYTES);
    if !file.slice().is_cached(part.clone()) {
        // Others share this thread: the disk is waited for elsewhere.
        let (slice, part) = (file.slice().clone(), part.clone());
        let loaded = tokio::task::spawn_blocking(move || slice.load(part)).await;
        loaded.map_err(io::Error::other)?.map_err(io::Error::other)?;
    }
    let slice = file.slice();
    socket
        .async_io(Interest::WRITABLE, || {
            let mut position = slice.position() + part.start as u64;
            Ok(rustix::fs::sendfile(socket, slice.file(), Some(&mut position), part.len())?)
        })
        .await
}
