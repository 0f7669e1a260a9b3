//! What waits to be sent on one connection: two buffers, of which one fills with new frames while
//! the other belongs to the kernel (I-08).
//!
//! Bounded by a limit in bytes; a full outbox makes its owner stop producing (it stops reading the
//! connection, or answers busy).

/// A buffer keeps this much memory while it is idle, bytes.
const IDLE_BYTES: usize = 64 << 10;

/// A bounded queue of bytes, double-buffered.
#[derive(Debug)]
pub struct Outbox {
    /// Takes new frames.
    filling: Vec<u8>,
    /// Handed to the kernel; not touched until all of it is sent.
    flying: Vec<u8>,
    /// How much of `flying` is sent.
    flown: usize,
    limit: usize,
}

impl Outbox {
    /// An empty outbox that is full at `limit` bytes. Allocates with the first frame.
    pub const fn new(limit: usize) -> Self {
        Self { filling: Vec::new(), flying: Vec::new(), flown: 0, limit }
    }

    /// The buffer that new bytes are appended to.
    pub(crate) fn filling(&mut self) -> &mut Vec<u8> {
        &mut self.filling
    }

    /// Appends bytes that are not a frame: a handshake.
    pub fn push(&mut self, bytes: &[u8]) {
        self.filling.extend_from_slice(bytes);
    }

    /// Bytes that wait, those in flight included.
    pub fn waiting(&self) -> usize {
        self.filling.len() + self.flying.len() - self.flown
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether the limit is reached: begin no further frame until some bytes are sent.
    pub fn is_full(&self) -> bool {
        self.waiting() >= self.limit
    }

    /// What to send next; `None` if nothing waits. The bytes stay where they are, unchanged, until
    /// [`sent`](Self::sent) has accounted for all of them; frames begun meanwhile go to the other
    /// buffer. Call again after a short send for the rest.
    pub fn take_for_send(&mut self) -> Option<&[u8]> {
        if self.flown == self.flying.len() {
            self.flying.clear();
            self.flown = 0;
            if self.flying.capacity() > IDLE_BYTES && self.filling.len() < IDLE_BYTES {
                self.flying.shrink_to(IDLE_BYTES);
            }
            std::mem::swap(&mut self.filling, &mut self.flying);
        }
        let rest = &self.flying[self.flown..];
        (!rest.is_empty()).then_some(rest)
    }

    /// The kernel took the first `count` bytes of what [`take_for_send`](Self::take_for_send) gave.
    ///
    /// # Panics
    /// If it claims more than it was given.
    pub fn sent(&mut self, count: usize) {
        assert!(count <= self.flying.len() - self.flown, "more bytes sent than given");
        self.flown += count;
    }

    /// Takes everything that waits, for who carries the bytes itself; nothing may be in flight.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = self.take_for_send() {
            bytes.extend_from_slice(part);
            let count = part.len();
            self.sent(count);
        }
        bytes
    }

    /// Drops everything that waits: the connection is gone. Not while a send is in flight.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short sends come out in order, and what is added in flight doesn't move what flies.
    #[test]
    fn short_sends_keep_order() {
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.take_for_send(), None);
        outbox.push(b"hello");
        assert_eq!(outbox.take_for_send(), Some(&b"hello"[..]));
        let place = outbox.take_for_send().expect("unsent").as_ptr();
        outbox.push(&[b'w'; 100_000]);
        assert!(outbox.is_full());
        assert_eq!(outbox.take_for_send().expect("unsent").as_ptr(), place);
        outbox.sent(2);
        assert_eq!(outbox.take_for_send(), Some(&b"llo"[..]));
        outbox.sent(3);
        assert_eq!(outbox.take_for_send().expect("unsent").len(), 100_000);
        assert_eq!(outbox.waiting(), 100_000);
        outbox.sent(100_000);
        assert_eq!(outbox.take_for_send(), None);
        assert!(outbox.is_empty() && !outbox.is_full());
    }

    /// What is left of a short send comes before what was added since.
    #[test]
    fn all_is_taken_in_order() {
        let mut outbox = Outbox::new(10);
        outbox.push(b"hello");
        outbox.take_for_send();
        outbox.sent(2);
        outbox.push(b" world");
        assert_eq!(outbox.take_all(), b"llo world");
        assert!(outbox.is_empty() && outbox.take_all().is_empty());
    }
}
