//! What has arrived on one connection: one contiguous buffer that is received into at its tail and
//! taken apart into frames at its head.
//!
//! ```text
//!  0         head            tail              buffer.len()
//!  | taken    | not yet taken | space           |
//! ```
//! The buffer is small while nothing but a handshake is expected, 64 KiB afterwards, and grows
//! only for a frame whose checked header says that it needs more, and then no faster than its
//! bytes arrive: a header alone reserves nothing. It shrinks back when idle.

use ringraft_types::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};

use crate::error::FrameError;
use crate::frame::{Frame, FrameHeader};
use crate::handshake::HANDSHAKE_BYTES;

/// The buffer of an open connection, bytes.
pub const INBOX_BYTES: usize = 64 << 10;

/// After so many receives in a row without a long frame the buffer shrinks back.
const CALM_RECEIVES: u32 = 64;

// The longest frame is the most that an inbox ever reserves.
const INBOX_BYTES_MAX: usize = FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX;
const _: () = assert!(INBOX_BYTES_MAX > INBOX_BYTES);

/// Received bytes on their way to become frames.
#[derive(Debug, Default)]
pub struct Inbox {
    /// All of it is initialised; its length is its capacity in use.
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    /// The header at `head`, once it was checked.
    pending: Option<FrameHeader>,
    /// Whether the handshake is over and frames are expected.
    open: bool,
    /// Receives in a row that would have done with less memory.
    calm: u32,
}

impl Inbox {
    /// An inbox that expects a handshake: it has room for nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// An inbox that expects frames.
    pub fn opened() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// The room to receive into. Never empty once [`next_frame`](Self::next_frame) has said that no
    /// whole frame is left; before that it may be, and then frames must be taken out first. May
    /// move what is held, so: not while a receive is in flight.
    pub fn space(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.tail..]
    }

    /// The first `count` bytes of [`space`](Self::space) are filled.
    ///
    /// # Panics
    /// If there was less space than that.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.tail, "more bytes received than there is room");
        self.tail += count;
    }

    /// Bytes that arrived and are not taken yet.
    pub fn waiting(&self) -> usize {
        self.tail - self.head
    }

    /// The handshake, once all of it is there; the inbox expects frames from then on.
    pub fn take_handshake(&mut self) -> Option<[u8; HANDSHAKE_BYTES]> {
        assert!(!self.open, "the handshake is over");
        let bytes = self.buffer[self.head..self.tail].first_chunk().copied()?;
        self.head += HANDSHAKE_BYTES;
        self.open = true;
        Some(bytes)
    }

    /// The next frame, if all of it has arrived; its header and body are intact.
    ///
    /// # Errors
    /// If the bytes are not a frame. The stream is then out of step for good: close it.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        assert!(self.open, "frames follow the handshake");
        let held = &self.buffer[self.head..self.tail];
        let header = match self.pending {
            Some(header) => header,
            None => {
                let Some(bytes) = held.first_chunk() else { return Ok(None) };
                let header = FrameHeader::decode(bytes)?;
                self.pending = Some(header);
                header
            }
        };
        let Some(frame) = held.get(..header.frame_bytes()) else { return Ok(None) };
        let body = &frame[FRAME_HEADER_BYTES..];
        let computed = crc32fast::hash(body);
        if computed != header.body_checksum {
            let (kind, found) = (header.kind, header.body_checksum);
            return Err(FrameError::BodyChecksum { kind, found, computed });
        }
        self.pending = None;
        self.head += header.frame_bytes();
        Ok(Some(Frame { header, body }))
    }

    /// Moves what is held to the front and makes the buffer as long as the frame there needs.
    fn make_room(&mut self) {
        let held = self.waiting();
        if self.head > 0 {
            self.buffer.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, held);
        }
        let whole = match (self.open, self.pending) {
            (false, _) => HANDSHAKE_BYTES,
            (true, None) => INBOX_BYTES,
            (true, Some(header)) => header.frame_bytes().max(INBOX_BYTES),
        };
        assert!(whole <= INBOX_BYTES_MAX, "the header's length was checked");
        let need = whole.min((2 * held).max(INBOX_BYTES));
        if self.buffer.len() < need {
            self.buffer.reserve_exact(need - self.buffer.len());
            self.buffer.resize(need, 0);
            self.calm = 0;
        } else if self.buffer.len() > whole && held < whole {
            self.calm += 1;
            if self.calm == CALM_RECEIVES {
                self.buffer.truncate(whole);
                self.buffer.shrink_to_fit();
                self.calm = 0;
            }
        }
    }
}
