//! Frames off the socket: a size, and as many bytes, read into the buffer that they are appended from.
//!
//! ```text
//!   size │ frame          │ size │ frame …        one buffer, as large as the last frame was
//!        └─ split off: its bytes are not copied, and belong to whoever handles it
//! ```
//! A connection without a request holds no buffer.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::ReadHalf;

use crate::server::limits::{RequestMemory, Room, WaitForRoom};

/// The least that is read at a time, in bytes: the batch size that clients use by default, and its header.
const MIN_BUFFER_BYTES: usize = 17 << 10;
/// The most that is read ahead of a frame's size, in bytes.
const MAX_BUFFER_BYTES: usize = 1 << 20;

/// A request up to this size, in bytes, is not counted as long as its connection has no other.
const FREE_FRAME_BYTES: usize = 64 << 10;

/// A whole request, and its room in memory.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: BytesMut,
    pub(super) room: Option<Room>,
}

/// What a read came to.
#[derive(Debug)]
pub(super) enum Read {
    /// Bytes, or room, which may or may not make the next frame ready.
    Part,
    /// The client sends no more.
    End,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {bytes} bytes, the limit is 0 to {max}")]
    Size { bytes: i32, max: usize },
    #[error("the connection ended within a frame")]
    Truncated,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames.
pub(super) struct Frames {
    buffer: BytesMut,
    /// The size of the frame that is being read.
    size: Option<usize>,
    room: Option<Room>,
    waiting: Option<WaitForRoom>,
    last_size: usize,
    max_bytes: usize,
}

impl Frames {
    pub(super) fn new(max_bytes: usize) -> Self {
        let buffer = BytesMut::new();
        Self { buffer, size: None, room: None, waiting: None, last_size: 0, max_bytes }
    }

    /// Bytes of the frame that is being read, as far as they are known.
    pub(super) fn size(&self) -> usize {
        self.size.unwrap_or(0)
    }

    /// Whether part of a frame has arrived, and the client is the one to go on.
    pub(super) fn is_within_frame(&self) -> bool {
        (self.size.is_some() || !self.buffer.is_empty()) && self.waiting.is_none()
    }

    /// Takes the next frame if it has been read and there is room for it; does not wait. A small one needs no room if it
    /// `is_next` to be begun: so nobody's large requests, nor half ones, hold up those of others.
    ///
    /// # Errors
    /// If what follows is no frame.
    pub(super) fn take(&mut self, memory: &RequestMemory, is_next: bool) -> Result<Option<Frame>, FrameError> {
        if self.size.is_none() {
            self.size = self.take_size()?;
        }
        let Some(size) = self.size.filter(|size| self.buffer.len() >= *size) else { return Ok(None) };
        if is_next && size <= FREE_FRAME_BYTES {
            self.waiting = None;
            return Ok(Some(self.split(size)));
        }
        if self.room.is_none() && self.waiting.is_none() {
            match memory.room(size) {
                Ok(room) => self.room = Some(room),
                Err(waiting) => self.waiting = Some(waiting),
            }
        }
        Ok(self.room.is_some().then(|| self.split(size)))
    }

    /// Reads once, after waiting for room for the frame that has begun. Cancel-safe.
    pub(super) async fn read(&mut self, read: &mut ReadHalf<'_>, memory: &RequestMemory) -> Result<Read, FrameError> {
        if let Some(size) = self.size.filter(|size| *size > FREE_FRAME_BYTES || self.buffer.len() >= *size) {
            self.make_room(size, memory).await;
            if self.buffer.len() >= size {
                return Ok(Read::Part);
            }
        }
        // Memory only once there is something to put there.
        read.readable().await?;
        match self.size {
            Some(size) => self.buffer.reserve(size - self.buffer.len()),
            None => self.buffer.reserve((self.last_size + 4).clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)),
        }
        match read.read_buf(&mut self.buffer).await? {
            0 if self.size.is_none() && self.buffer.is_empty() => Ok(Read::End),
            0 => Err(FrameError::Truncated),
            _ => Ok(Read::Part),
        }
    }

    fn take_size(&mut self) -> Result<Option<usize>, FrameError> {
        let Some(size) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let bytes = i32::from_be_bytes(*size);
        self.buffer.advance(4);
        let size = usize::try_from(bytes).ok().filter(|size| *size <= self.max_bytes);
        size.map(Some).ok_or(FrameError::Size { bytes, max: self.max_bytes })
    }

    async fn make_room(&mut self, size: usize, memory: &RequestMemory) {
        if self.room.is_some() {
            return;
        }
        if self.waiting.is_none() {
            match memory.room(size) {
                Ok(room) => {
                    self.room = Some(room);
                    return;
                }
                Err(waiting) => self.waiting = Some(waiting),
            }
        }
        if let Some(waiting) = &mut self.waiting {
            self.room = Some(waiting.await);
            self.waiting = None;
        }
    }

    fn split(&mut self, size: usize) -> Frame {
        let bytes = self.buffer.split_to(size);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        self.size = None;
        self.last_size = size;
        Frame { bytes, room: self.room.take() }
    }
}
