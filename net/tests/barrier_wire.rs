//! Barriers on the wire: golden bytes, round trips, and bodies that are none.

use proptest::prelude::*;
use ringraft_net::barrier_wire::{BarrierAsk, BarrierReply};
use ringraft_net::frame::FrameHeader;
use ringraft_net::{Frame, Identity, Kind, Outbox};
use ringraft_types::limits::FRAME_HEADER_BYTES;
use ringraft_types::{GroupId, Index, Level, NodeId, Status};

fn frame_in(group: u64, kind: Kind, body: &[u8]) -> Frame<'_> {
    let (group, sender) = (GroupId(group), Identity::default());
    let body_bytes = body.len() as u32;
    Frame { header: FrameHeader { kind, group, sender, body_bytes, body_checksum: 0 }, body }
}

fn body_of(write: impl FnOnce(&mut Outbox)) -> Vec<u8> {
    let mut outbox = Outbox::new(1 << 20);
    write(&mut outbox);
    outbox.take_for_send().expect("a frame")[FRAME_HEADER_BYTES..].to_vec()
}

fn ask() -> BarrierAsk {
    BarrierAsk { call: 7, level: Level::All, index: Some(Index(9)), wait_ms: 500 }
}

fn reply() -> BarrierReply {
    BarrierReply {
        call: 7,
        status: Status::NotReached,
        level: Level::AllCommitted,
        leader: NodeId(0),
        index: Index(9),
        reached: Index(5),
        behind: NodeId(3),
    }
}

/// The bytes are those of the format, and come back as what was written.
#[test]
fn golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let body = body_of(|out| ask().write(out, GroupId(1), Identity::default()));
    assert_eq!(
        hex(&body),
        ["0700000000000000", "02000000", "f4010000", "0900000000000000"].concat()
    );
    assert_eq!(BarrierAsk::read(&frame_in(1, Kind::Barrier, &body)), Ok(ask()));
    let newest = BarrierAsk { index: None, ..ask() };
    let body = body_of(|out| newest.write(out, GroupId(1), Identity::default()));
    assert_eq!(BarrierAsk::read(&frame_in(1, Kind::Barrier, &body)), Ok(newest));
    let body = body_of(|out| reply().write(out, GroupId(1), Identity::default()));
    let golden = [
        "0700000000000000",
        "15040000",
        "00000000",
        "0900000000000000",
        "0500000000000000",
        "0300000000000000",
    ];
    assert_eq!(hex(&body), golden.concat());
    assert_eq!(BarrierReply::read(&frame_in(1, Kind::BarrierReply, &body)), Ok(reply()));
}

/// Every length but the right one, every field out of its range, and an answer that contradicts
/// itself is refused.
#[test]
fn wrong_bodies_are_refused() {
    let body = body_of(|out| ask().write(out, GroupId(1), Identity::default()));
    for length in 0..body.len() {
        assert!(BarrierAsk::read(&frame_in(1, Kind::Barrier, &body[..length])).is_err());
    }
    for (at, value) in [(8, 0), (8, 5), (9, 1), (11, 1)] {
        let mut bad = body.clone();
        bad[at] = value;
        assert!(BarrierAsk::read(&frame_in(1, Kind::Barrier, &bad)).is_err(), "byte {at}");
    }
    assert!(BarrierAsk::read(&frame_in(0, Kind::Barrier, &body)).is_err(), "of no group");
    let body = reply().encode();
    for length in 0..body.len() {
        assert!(BarrierReply::decode(&body[..length]).is_err());
    }
    // Reached and not: by the status, and by the number.
    for (at, value) in [(8, 200), (8, 0), (9, 0), (10, 1), (24, 9), (36, 1)] {
        let mut bad = body;
        bad[at] = value;
        assert!(BarrierReply::decode(&bad).is_err(), "byte {at}");
    }
    let refused = BarrierReply { status: Status::NotLeader, ..reply() };
    assert!(BarrierReply::decode(&refused.encode()).is_err(), "who doesn't lead says nothing");
    let reached = BarrierReply { status: Status::Ok, reached: Index(9), ..reply() };
    assert_eq!(BarrierReply::decode(&reached.encode()), Ok(reached));
}

proptest! {
    /// Whatever the bytes: no panic.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = BarrierAsk::read(&frame_in(1, Kind::Barrier, &bytes));
        let _ = BarrierReply::decode(&bytes);
    }
}
