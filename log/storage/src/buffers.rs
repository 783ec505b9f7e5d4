//! Read buffers that are used again: faulting in fresh memory for each read costs about as much as the read itself.

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller reads are not worth pooling.
const MIN_POOLED_BYTES: usize = 32 << 10;
/// Larger buffers go back to the system.
const MAX_POOLED_BYTES: usize = 4 << 20;
/// Bound on the memory that idle buffers hold, for the whole process.
const MAX_IDLE_BYTES: usize = 16 << 20;

static IDLE: Mutex<Idle> = Mutex::new(Idle { buffers: Vec::new(), bytes: 0 });

struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer of at least the length asked for, with unspecified content. Returns to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub(crate) fn take(len: usize) -> Self {
        // Sizes are rounded up so that buffers of similar reads are interchangeable.
        let size = if len < MIN_POOLED_BYTES { len } else { len.next_multiple_of(64 << 10) };
        let mut idle = IDLE.lock();
        let found = idle.buffers.iter().position(|b| b.len() >= size && b.len() <= 4 * size);
        if let Some(bytes) = found.map(|at| idle.buffers.swap_remove(at)) {
            idle.bytes -= bytes.len();
            return Self { bytes, len };
        }
        drop(idle);
        Self { bytes: vec![0; size], len }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// Hands the buffer out; it returns to the pool when the last slice of it is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !(MIN_POOLED_BYTES..=MAX_POOLED_BYTES).contains(&self.bytes.len()) {
            return;
        }
        let mut idle = IDLE.lock();
        if idle.bytes + self.bytes.len() <= MAX_IDLE_BYTES {
            idle.bytes += self.bytes.len();
            idle.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_the_length_asked_for_and_idle_memory_is_bounded() {
        for round in 0..3 {
            let taken: Vec<_> = [0, 1, 100, 64 << 10, (64 << 10) + 1, 1 << 20, 5 << 20]
                .into_iter()
                .flat_map(|len| (0..6).map(move |_| len))
                .map(|len| {
                    let mut buffer = Buffer::take(len);
                    buffer.as_mut().fill(round);
                    assert_eq!(buffer.as_ref().len(), len);
                    buffer.freeze()
                })
                .collect();
            assert!(taken.iter().all(|bytes| bytes.iter().all(|b| *b == round)), "no buffer is handed out twice");
            drop(taken);
            assert!(IDLE.lock().bytes <= MAX_IDLE_BYTES);
        }
    }
}
