//! What travels between the four threads, and the two ends of a connection.
//!
//! ```text
//!  0  u32  value bytes; zero in an acknowledgement
//!  4  u32  zero
//!  8  u64  sequence; in an acknowledgement, everything up to it is meant
//! 16  value
//! ```

use std::ops::Range;

use crate::error::BenchError;
use crate::ring::{BufferId, FileId, Ring};

/// Bytes before a value.
pub(super) const MESSAGE_HEADER_BYTES: usize = 16;

/// Writes a header.
pub(super) fn put_header(out: &mut [u8], value_bytes: usize, sequence: u64) {
    let length = u32::try_from(value_bytes).expect("values are limited");
    out[0..4].copy_from_slice(&length.to_le_bytes());
    out[4..8].fill(0);
    out[8..16].copy_from_slice(&sequence.to_le_bytes());
}

/// Reads a header: value bytes and sequence.
#[inline]
fn header(bytes: &[u8]) -> (usize, u64) {
    let length = u32::from_le_bytes(bytes[0..4].try_into().expect("four bytes"));
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    (length as usize, sequence)
}

/// Complete messages at the head of what was received.
pub(super) struct Messages {
    /// Where they are in the buffer.
    pub(super) range: Range<usize>,
    /// The sequence of the last one.
    pub(super) last: u64,
}

/// The receiving end: a buffer of its own, one receive in flight at its tail.
pub(super) struct Incoming {
    file: FileId,
    pub(super) buffer: BufferId,
    capacity: usize,
    tag: u32,
    head: usize,
    tail: usize,
    armed: bool,
}

impl Incoming {
    /// An end that can hold `pending_bytes` twice, so that there is always room at the tail.
    pub(super) fn new(ring: &mut Ring, file: FileId, pending_bytes: usize, tag: u32) -> Self {
        let capacity = (2 * pending_bytes).max(64 << 10);
        let buffer = ring.add_buffer(capacity, 64);
        let mut incoming = Self { file, buffer, capacity, tag, head: 0, tail: 0, armed: false };
        incoming.arm(ring);
        incoming
    }

    /// Keeps a receive in flight, if there is room for more. A full buffer is not received into:
    /// the sender's socket fills, and it waits.
    pub(super) fn arm(&mut self, ring: &mut Ring) {
        if self.armed {
            return;
        }
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        } else if self.tail > self.capacity / 2 {
            ring.bytes_mut(self.buffer, 0..self.tail).copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        if self.tail < self.capacity {
            ring.receive(self.file, self.buffer, self.tail..self.capacity, self.tag);
            self.armed = true;
        }
    }

    /// Accounts for a receive that ended; false when the other end has closed.
    pub(super) fn received(&mut self, bytes: usize) -> bool {
        self.armed = false;
        self.tail += bytes;
        bytes > 0
    }

    /// Takes the complete messages at the head, up to `bytes_max`.
    pub(super) fn take(&mut self, ring: &Ring, bytes_max: usize) -> Option<Messages> {
        let start = self.head;
        let held = ring.bytes(self.buffer, start..self.tail);
        let (mut at, mut last) = (0, 0);
        while held.len() - at >= MESSAGE_HEADER_BYTES {
            let (value_bytes, sequence) = header(&held[at..]);
            let end = at + MESSAGE_HEADER_BYTES + value_bytes;
            if end > held.len() || end > bytes_max {
                break;
            }
            (at, last) = (end, sequence);
        }
        if at == 0 {
            return None;
        }
        self.head += at;
        Some(Messages { range: start..start + at, last })
    }
}

/// The sending end of cumulative acknowledgements: one in flight, the newest one next.
pub(super) struct Acks {
    file: FileId,
    buffer: BufferId,
    tag: u32,
    busy: bool,
    sent: u64,
}

impl Acks {
    /// An end that has acknowledged nothing.
    pub(super) fn new(ring: &mut Ring, file: FileId, tag: u32) -> Self {
        let buffer = ring.add_buffer(MESSAGE_HEADER_BYTES, 64);
        Self { file, buffer, tag, busy: false, sent: 0 }
    }

    /// Acknowledges everything up to `sequence`, now or as soon as the last one has left.
    pub(super) fn offer(&mut self, ring: &mut Ring, sequence: u64) {
        if self.busy || sequence <= self.sent {
            return;
        }
        put_header(ring.bytes_mut(self.buffer, 0..MESSAGE_HEADER_BYTES), 0, sequence);
        ring.send(self.file, self.buffer, 0..MESSAGE_HEADER_BYTES, self.tag);
        (self.busy, self.sent) = (true, sequence);
    }

    /// Accounts for a send that ended.
    ///
    /// # Errors
    /// If it was cut short: the connection is gone.
    pub(super) fn left(&mut self, bytes: usize) -> Result<(), BenchError> {
        self.busy = false;
        if bytes == MESSAGE_HEADER_BYTES { Ok(()) } else { Err(BenchError::Closed) }
    }
}
