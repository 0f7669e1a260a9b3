//! Frames: what is written comes out, in whatever pieces it arrives; what isn't a frame is refused.

use proptest::prelude::*;
use ringraft_net::{Frame, FrameError, FrameWriter, Identity, Inbox, Kind, Outbox};
use ringraft_types::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};
use ringraft_types::{ClusterId, GroupId, Incarnation, NodeId};

const SENDER: Identity =
    Identity { cluster: ClusterId(0xc1), incarnation: Incarnation(0x1c), node: NodeId(3) };

fn frame_bytes(kind: Kind, group: u64, body: &[u8]) -> Vec<u8> {
    let mut outbox = Outbox::new(1 << 20);
    let mut writer = FrameWriter::begin(&mut outbox, kind, GroupId(group), SENDER);
    writer.extend(body);
    let length = writer.finish();
    let bytes = outbox.take_for_send().expect("a frame waits").to_vec();
    assert_eq!(bytes.len(), length);
    bytes
}

/// Feeds at most `most` bytes at a time; returns the frames until the bytes end, or the error.
fn feed(inbox: &mut Inbox, mut bytes: &[u8], most: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let space = inbox.space();
        let count = space.len().min(bytes.len()).min(most);
        assert!(count > 0, "space is never empty once all frames are taken");
        space[..count].copy_from_slice(&bytes[..count]);
        inbox.filled(count);
        bytes = &bytes[count..];
        while let Some(Frame { header, body }) = inbox.next_frame()? {
            assert_eq!(header.sender, SENDER);
            frames.push(body.to_vec());
        }
    }
    Ok(frames)
}

fn refusal(bytes: &[u8]) -> FrameError {
    feed(&mut Inbox::opened(), bytes, usize::MAX).expect_err("not a frame")
}

/// Changes the header, and makes its checksum right again.
fn forged(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = frame_bytes(Kind::Writes, 1, b"body");
    change(&mut bytes[..60]);
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The layout of version 1 never changes.
#[test]
fn golden_frame() {
    let hex: String = frame_bytes(Kind::Ballot, 0x0102, b"xyz")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        concat!(
            "52524652010500000300000067ba8eeb0201000000000000c100000000000000",
            "00000000000000001c0000000000000003000000000000000000000090b91eb9",
            "78797a",
        )
    );
}

/// One byte at a time, or all at once: the same frames, and memory follows the longest of them.
#[test]
fn any_pieces_give_the_same_frames() {
    let bodies = [vec![], vec![1; 10], vec![2; 200_000], vec![3; 70_000], vec![4; 1]];
    let bytes: Vec<u8> =
        bodies.iter().flat_map(|body| frame_bytes(Kind::Append, 1, body)).collect();
    for most in [1, 63, 64, 65, 4096, usize::MAX] {
        let frames = feed(&mut Inbox::opened(), &bytes, most).expect("frames");
        assert_eq!(frames, bodies, "in pieces of {most}");
    }
}

/// After a long frame the buffer shrinks back to its idle size.
#[test]
fn memory_shrinks_back() {
    let mut inbox = Inbox::opened();
    let long = frame_bytes(Kind::Append, 1, &vec![7; FRAME_BODY_BYTES_MAX]);
    feed(&mut inbox, &long, usize::MAX).expect("a frame");
    assert!(inbox.space().len() > 1 << 20);
    for _ in 0..100 {
        feed(&mut inbox, &frame_bytes(Kind::Locate, 1, b""), usize::MAX).expect("a frame");
    }
    assert_eq!(inbox.space().len(), 64 << 10);
}

/// A frame cut at any byte is no frame yet, and no error.
#[test]
fn truncation_at_every_byte_waits() {
    let bytes = frame_bytes(Kind::Writes, 1, b"some body");
    for cut in 0..bytes.len() {
        let frames = feed(&mut Inbox::opened(), &bytes[..cut], usize::MAX).expect("no error");
        assert!(frames.is_empty(), "cut at {cut}");
    }
}

/// Every single-bit flip is noticed: an error, or a frame that waits for bytes, never a frame.
#[test]
fn every_bit_flip_is_noticed() {
    let mut bytes = frame_bytes(Kind::Writes, 1, b"some body");
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = refusal(&bytes);
        assert!(!error.to_string().is_empty());
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Each way in which a header can be wrong has its own error, judged before a body is awaited.
#[test]
fn wrong_headers_are_named() {
    assert!(matches!(refusal(&[b'G'; 64]), FrameError::Magic { .. }));
    let mut damaged = frame_bytes(Kind::Writes, 1, b"");
    damaged[20] ^= 1;
    assert!(matches!(refusal(&damaged), FrameError::HeaderChecksum { .. }));
    assert!(matches!(refusal(&forged(|it| it[4] = 2)), FrameError::Version { found: 2 }));
    assert!(matches!(refusal(&forged(|it| it[4] = 0)), FrameError::Version { found: 0 }));
    assert!(matches!(refusal(&forged(|it| it[5] = 99)), FrameError::Kind { found: 99 }));
    assert!(matches!(refusal(&forged(|it| it[6] = 1)), FrameError::Reserved { .. }));
    assert!(matches!(refusal(&forged(|it| it[59] = 1)), FrameError::Reserved { .. }));
    assert!(matches!(refusal(&forged(|it| it[12] ^= 1)), FrameError::BodyChecksum { .. }));
    let over = (FRAME_BODY_BYTES_MAX as u32 + 1).to_le_bytes();
    let error = refusal(&forged(|it| it[8..12].copy_from_slice(&over))[..FRAME_HEADER_BYTES]);
    assert!(matches!(error, FrameError::TooLong { kind: Kind::Writes, .. }));
    let error = refusal(&forged(|it| it[5] = Kind::Locate as u8));
    assert!(matches!(error, FrameError::TooLong { kind: Kind::Locate, limit: 0, .. }));
}

/// A length over the limit reserves nothing.
#[test]
fn length_is_checked_before_memory_is_reserved() {
    let mut inbox = Inbox::opened();
    let bytes = forged(|it| it[8..12].copy_from_slice(&u32::MAX.to_le_bytes()));
    assert!(feed(&mut inbox, &bytes[..FRAME_HEADER_BYTES], usize::MAX).is_err());
    assert!(inbox.space().len() <= 64 << 10);
}

/// A writer that is dropped unfinished leaves no trace.
#[test]
fn an_unfinished_frame_leaves_nothing() {
    let mut outbox = Outbox::new(1 << 20);
    FrameWriter::begin(&mut outbox, Kind::Locate, GroupId(1), SENDER).finish();
    let before = outbox.waiting();
    let mut writer = FrameWriter::begin(&mut outbox, Kind::Writes, GroupId(1), SENDER);
    writer.extend(b"half");
    drop(writer);
    assert_eq!(outbox.waiting(), before);
}

proptest! {
    /// Random streams give errors or nothing, never a panic, and never more memory than a frame.
    #[test]
    fn random_streams_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
        most in 1usize..200,
    ) {
        let mut inbox = Inbox::opened();
        let _ = feed(&mut inbox, &bytes, most);
        prop_assert!(inbox.space().len() <= FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
    }

    /// Damage anywhere in a stream of frames never yields a frame that was not sent.
    #[test]
    fn damaged_streams_yield_only_what_was_sent(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        most in 1usize..300,
    ) {
        let mut bytes: Vec<u8> =
            bodies.iter().flat_map(|body| frame_bytes(Kind::Writes, 1, body)).collect();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut inbox = Inbox::opened();
        if let Ok(frames) = feed(&mut inbox, &bytes, most) {
            prop_assert!(frames.len() < bodies.len());
        }
    }
}
