//! One connection of a reactor: an inbox, an outbox, and what of them belongs to the kernel (I-08).
//!
//! Buffers go to the kernel as raw places and stay where they are, unread, unwritten and unfreed,
//! until the completion is reported: every method that could move or show them asserts it. A
//! connection that is dropped with an operation in flight leaks that buffer, so that a late write
//! of the kernel never hits memory that became another's; owners cancel and await the completion
//! first.

use crate::error::FrameError;
use crate::frame::{Frame, Identity};
use crate::handshake::HANDSHAKE_BYTES;
use crate::inbox::Inbox;
use crate::outbox::Outbox;

/// A place that the kernel may fill until its receive completes.
///
/// Making and keeping one is safe; whoever hands it to the kernel (or dereferences it) relies on
/// this contract:
///
/// SAFETY: `pointer .. pointer + length` is initialised, unaliased memory of the connection that
/// gave it. It stays so until [`Connection::received`] is called for it, or for ever if the
/// connection is dropped before.
#[derive(Clone, Copy, Debug)]
pub struct ReceivePlace {
    /// Where.
    pub pointer: *mut u8,
    /// How many bytes; never zero.
    pub length: u32,
}

/// Bytes that the kernel may read until their send completes.
///
/// SAFETY: `pointer .. pointer + length` is initialised memory that nobody writes to. It stays so
/// until [`Connection::sent`] is called for it, or for ever if the connection is dropped before.
#[derive(Clone, Copy, Debug)]
pub struct SendPlace {
    /// Where.
    pub pointer: *const u8,
    /// How many bytes; never zero.
    pub length: u32,
}

/// The buffers of one connection and their owners.
#[derive(Debug)]
pub struct Connection {
    inbox: Inbox,
    outbox: Outbox,
    /// The kernel owns the inbox's space.
    receiving: bool,
    /// The kernel owns the outbox's flying bytes.
    sending: bool,
    /// Whom the handshake named; every frame must come from it.
    peer: Option<Identity>,
}

impl Connection {
    /// A fresh connection that expects a handshake; its outbox is full at `outbox_bytes_max`.
    pub fn new(outbox_bytes_max: usize) -> Self {
        Self {
            inbox: Inbox::new(),
            outbox: Outbox::new(outbox_bytes_max),
            receiving: false,
            sending: false,
            peer: None,
        }
    }

    /// Every frame from now on must name this sender.
    pub fn expect_sender(&mut self, peer: Identity) {
        self.peer = Some(peer);
    }

    /// Gives the inbox's space to the kernel; `None` if it has it already, or if the inbox is full
    /// of frames that nobody took: don't receive then, so that the sender feels it.
    pub fn begin_receive(&mut self) -> Option<ReceivePlace> {
        if self.receiving {
            return None;
        }
        let space = self.inbox.space();
        if space.is_empty() {
            return None;
        }
        let place = ReceivePlace { pointer: space.as_mut_ptr(), length: space.len() as u32 };
        self.receiving = true;
        Some(place)
    }

    /// The receive completed with `count` bytes; zero also stands for a failed or cancelled one.
    ///
    /// # Panics
    /// If none was in flight, or it claims more bytes than there was room for.
    pub fn received(&mut self, count: usize) {
        assert!(self.receiving, "no receive is in flight");
        self.receiving = false;
        self.inbox.filled(count);
    }

    /// The handshake, once all of it arrived.
    ///
    /// # Panics
    /// If it was taken before, or a receive is in flight.
    pub fn take_handshake(&mut self) -> Option<[u8; HANDSHAKE_BYTES]> {
        assert!(!self.receiving, "the inbox belongs to the kernel (I-08)");
        self.inbox.take_handshake()
    }

    /// The next frame, if all of it arrived.
    ///
    /// # Errors
    /// If the bytes are not a frame, or it names another sender than the handshake did. Close the
    /// connection then.
    ///
    /// # Panics
    /// If a receive is in flight, or before the handshake.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        assert!(!self.receiving, "the inbox belongs to the kernel (I-08)");
        let peer = self.peer;
        let Some(frame) = self.inbox.next_frame()? else { return Ok(None) };
        if let Some(peer) = peer
            && frame.header.sender != peer
        {
            let (kind, found) = (frame.header.kind, frame.header.sender.node);
            return Err(FrameError::Sender { kind, found, expected: peer.node });
        }
        Ok(Some(frame))
    }

    /// Where frames to send are written to; also while a send is in flight.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Gives what waits to the kernel; `None` if nothing waits or a send is in flight already.
    pub fn begin_send(&mut self) -> Option<SendPlace> {
        if self.sending {
            return None;
        }
        let bytes = self.outbox.take_for_send()?;
        let length = bytes.len().min(SEND_BYTES_MAX) as u32;
        let place = SendPlace { pointer: bytes.as_ptr(), length };
        self.sending = true;
        Some(place)
    }

    /// The send completed after `count` bytes; zero also stands for a failed one. Call
    /// [`begin_send`](Self::begin_send) again for the rest.
    ///
    /// # Panics
    /// If none was in flight, or it claims more bytes than it was given.
    pub fn sent(&mut self, count: usize) {
        assert!(self.sending, "no send is in flight");
        self.sending = false;
        self.outbox.sent(count);
    }

    /// Whether the kernel owns a part of it: the connection must be kept until it doesn't.
    pub fn is_in_flight(&self) -> bool {
        self.receiving || self.sending
    }

    /// Whether a receive is in flight.
    pub fn is_receiving(&self) -> bool {
        self.receiving
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self) -> bool {
        self.sending
    }
}

/// The most bytes given to one send.
const SEND_BYTES_MAX: usize = 1 << 30;

impl Drop for Connection {
    fn drop(&mut self) {
        // I-08: the kernel may still touch them.
        if self.receiving {
            self.inbox.leak();
        }
        if self.sending {
            self.outbox.leak_flying();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameWriter, Kind};
    use ringraft_types::{ClusterId, GroupId, Incarnation, NodeId};

    fn identity(node: u32) -> Identity {
        Identity { cluster: ClusterId(9), incarnation: Incarnation(8), node: NodeId(node) }
    }

    /// Copies what `from` sends into `to`, as a kernel would, at most `most` bytes at a time.
    fn carry(from: &mut Outbox, to: &mut Connection, most: usize) {
        while let Some(bytes) = from.take_for_send() {
            let place = to.begin_receive().expect("room");
            assert!(to.begin_receive().is_none(), "one receive at a time");
            let count = bytes.len().min(most).min(place.length as usize);
            let bytes = bytes[..count].to_vec();
            to.received(0);
            to.inbox.space()[..count].copy_from_slice(&bytes);
            to.inbox.filled(count);
            from.sent(count);
        }
    }

    /// A frame of another sender than the handshake named is refused.
    #[test]
    fn a_foreign_sender_is_refused() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(&[7; HANDSHAKE_BYTES]);
        let mut connection = Connection::new(1 << 20);
        carry(&mut outbox, &mut connection, 50);
        assert_eq!(connection.take_handshake(), Some([7; HANDSHAKE_BYTES]));
        connection.expect_sender(identity(2));
        for node in [2, 3] {
            FrameWriter::begin(&mut outbox, Kind::Locate, GroupId(1), identity(node)).finish();
        }
        carry(&mut outbox, &mut connection, 1000);
        assert!(connection.next_frame().expect("the right sender").is_some());
        let error = connection.next_frame().expect_err("another sender");
        assert!(matches!(error, FrameError::Sender { found: NodeId(3), .. }));
    }

    /// Places given to the kernel don't move while frames are added, and the inbox is not readable
    /// while a receive is in flight.
    #[test]
    fn what_flies_stays() {
        let mut connection = Connection::new(1 << 20);
        connection.outbox().push(b"abc");
        let place = connection.begin_send().expect("something waits");
        connection.outbox().push(&[0; 1 << 20]);
        assert!(connection.begin_send().is_none(), "one send at a time");
        assert!(connection.is_in_flight());
        connection.sent(1);
        let rest = connection.begin_send().expect("a short send leaves a rest");
        assert_eq!((rest.pointer, rest.length), (place.pointer.wrapping_add(1), 2));
    }
}
