//! Frames of the connections that carry snapshots.

use proptest::prelude::*;
use ringraft_net::bulk_wire::{self, ChunkAsk, ChunkHead, SnapshotAsk, SnapshotOffer};
use ringraft_net::{Frame, FrameHeader, Identity, Inbox, Kind, Outbox, WireError};
use ringraft_types::{GroupId, Index, Term};

const GROUP: GroupId = GroupId(7);

fn frame_of(kind: Kind, body: &[u8]) -> Frame<'_> {
    let header = FrameHeader {
        kind,
        group: GROUP,
        sender: Identity::default(),
        body_bytes: body.len() as u32,
        body_checksum: crc32fast::hash(body),
    };
    Frame { header, body }
}

/// Shows the frame that was written, as it arrives.
fn travelled(write: impl FnOnce(&mut Outbox), read: impl FnOnce(&Frame<'_>)) {
    let mut outbox = Outbox::new(1 << 20);
    write(&mut outbox);
    let bytes = outbox.take_all();
    let mut inbox = Inbox::opened();
    let mut left = &bytes[..];
    loop {
        // A long frame makes its own room.
        let space = inbox.space();
        let count = space.len().min(left.len());
        space[..count].copy_from_slice(&left[..count]);
        inbox.filled(count);
        left = &left[count..];
        if let Some(frame) = inbox.next_frame().expect("a sound frame") {
            assert!(left.is_empty());
            return read(&frame);
        }
        assert!(!left.is_empty(), "the frame is whole");
    }
}

/// Goal: what is asked and offered arrives as it was written, in bytes that don't change.
#[test]
fn fixed_frames_arrive() {
    let sender = Identity::default();
    let ask = SnapshotAsk { base_term: Term(3), base_index: Index(9) };
    travelled(
        |out| ask.write(out, GROUP, sender),
        |frame| {
            assert_eq!(frame.header.group, GROUP);
            assert_eq!(bulk_wire::snapshot_ask(frame), Ok(ask));
            assert_eq!(frame.body, [&3u64.to_le_bytes()[..], &9u64.to_le_bytes()].concat());
        },
    );

    let offer = SnapshotOffer {
        number: 1,
        term: Term(2),
        index: Index(3),
        bytes: 4 << 20,
        chunks: 17,
        strands: [9, 0, 0, 0, 0, 0, 0, 7],
    };
    travelled(
        |out| offer.write(out, GROUP, sender),
        |frame| {
            assert_eq!(bulk_wire::snapshot_offer(frame), Ok(offer));
            assert_eq!((frame.body.len(), frame.body[36], frame.body[92]), (100, 9, 7));
        },
    );

    let ask = ChunkAsk { number: 1, chunk: 16 };
    travelled(
        |out| ask.write(out, GROUP, sender),
        |frame| {
            assert_eq!(bulk_wire::chunk_ask(frame), Ok(ask));
            assert_eq!(frame.body, [&1u64.to_le_bytes()[..], &16u32.to_le_bytes()].concat());
        },
    );
}

/// Goal: a chunk arrives with its bytes, however many, and one that isn't there has none.
#[test]
fn chunks_arrive() {
    for length in [0, 1, 4096, 262_080] {
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let head = ChunkHead { number: 5, chunk: 2, content: 0xC0DE, found: true };
        travelled(
            |out| head.write(out, GROUP, Identity::default(), &bytes),
            |frame| {
                let (found, read) = bulk_wire::chunk(frame).expect("a chunk");
                assert_eq!(found, head);
                assert!(read == bytes);
            },
        );
    }
    let mut body = vec![0; 18];
    let error = bulk_wire::chunk(&frame_of(Kind::Chunk, &body)).expect_err("nothing was found");
    assert!(matches!(error, WireError::Surplus { surplus: 1, .. }));
    body[16] = 2;
    let error = bulk_wire::chunk(&frame_of(Kind::Chunk, &body)).expect_err("no such answer");
    assert!(matches!(error, WireError::Field { field: "found", value: 2, .. }));
}

proptest! {
    /// Bodies of another length are refused, whatever they say.
    #[test]
    fn other_lengths_are_refused(body in proptest::collection::vec(any::<u8>(), 0..110)) {
        let length = body.len();
        prop_assert_eq!(
            bulk_wire::snapshot_ask(&frame_of(Kind::SnapshotAsk, &body)).is_ok(), length == 16
        );
        prop_assert_eq!(
            bulk_wire::snapshot_offer(&frame_of(Kind::SnapshotOffer, &body)).is_ok(), length == 100
        );
        prop_assert_eq!(bulk_wire::chunk_ask(&frame_of(Kind::ChunkAsk, &body)).is_ok(), length == 12);
        if let Ok((head, bytes)) = bulk_wire::chunk(&frame_of(Kind::Chunk, &body)) {
            prop_assert_eq!(bytes.len(), length - 17);
            prop_assert!(head.found || bytes.is_empty());
        }
    }
}
