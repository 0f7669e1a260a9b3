//! The client protocol: round trips, golden bytes, and bodies that are none.

use proptest::prelude::*;
use ringraft_net::client_wire::{
    self, BatchWriter, Consistency, ErrorFrame, ITEMS_MAX, Local, LocateReply, Member, Reply,
    Request,
};
use ringraft_net::frame::FrameHeader;
use ringraft_net::status::{GroupRole, GroupStatus, NodeStatus, SnapshotActivity};
use ringraft_net::{Frame, Identity, Kind, Outbox, WireError};
use ringraft_types::command::Envelope;
use ringraft_types::limits::FRAME_HEADER_BYTES;
use ringraft_types::{
    ClientId, GroupId, Index, MemoryLevel, NodeId, Revision, ShardId, Status, Term, Ticks,
};

const NOBODY: Identity = Identity {
    cluster: ringraft_types::ClusterId(0),
    incarnation: ringraft_types::Incarnation(0),
    node: NodeId(0),
};

fn body_of(write: impl FnOnce(&mut Outbox)) -> Vec<u8> {
    let mut outbox = Outbox::new(1 << 20);
    write(&mut outbox);
    outbox.take_for_send().map_or(Vec::new(), |bytes| bytes[FRAME_HEADER_BYTES..].to_vec())
}

fn frame_of(kind: Kind, body: &[u8]) -> Frame<'_> {
    let body_bytes = body.len() as u32;
    let header =
        FrameHeader { kind, group: GroupId(1), sender: NOBODY, body_bytes, body_checksum: 0 };
    Frame { header, body }
}

fn batch(kind: Kind, write: impl FnOnce(&mut BatchWriter<'_>)) -> Vec<u8> {
    body_of(|outbox| {
        let mut batch = BatchWriter::begin(outbox, kind, GroupId(1), NOBODY);
        write(&mut batch);
        batch.finish();
    })
}

fn locate_reply() -> LocateReply {
    let member = |node: u32| Member {
        node: NodeId(node),
        shard: ShardId(node as u16 * 2),
        address: format!("[::1]:{node}"),
    };
    LocateReply {
        status: Status::Ok,
        leader: NodeId(2),
        ready: true,
        term: Term(3),
        applied: Index(4),
        members: vec![member(1), member(2), member(3)],
    }
}

fn node_status() -> NodeStatus {
    let group = GroupStatus {
        group: GroupId(1),
        role: GroupRole::Leader,
        term: Term(2),
        leader: NodeId(3),
        commit: Index(4),
        applied: Index(5),
        last: Index(6),
        revision: Revision(7),
        state_hash: 8,
        lag_entries: 9,
        damaged: true,
        snapshot: Index(3),
        activity: SnapshotActivity::Taking,
        data_bytes: 11,
    };
    NodeStatus {
        node: NodeId(3),
        shard: ShardId(1),
        name: "knot".into(),
        uptime: Ticks(99),
        sync_p50_us: 100,
        sync_p99_us: 200,
        durable: true,
        is_paused: false,
        priority: 0,
        spreads: false,
        data_bytes: 1 << 20,
        data_bytes_max: 2 << 20,
        memory: MemoryLevel::Warning,
        groups: vec![group, GroupStatus { damaged: false, role: GroupRole::Learner, ..group }],
    }
}

/// Writes, reads and replies come out as they went in.
#[test]
fn batches_round_trip() {
    let envelope =
        Envelope { client: ClientId(1 << 99), sequence: 4, received: 3, opened: Index(4) };
    let writes = batch(Kind::Writes, |batch| {
        batch.request(7, [&envelope.to_bytes(), b"put"]);
        batch.request(8, [&envelope.to_bytes(), b""]);
    });
    let frame = frame_of(Kind::Writes, &writes);
    let items: Vec<_> = client_wire::writes(&frame).expect("writes").iter().collect();
    assert_eq!(items.iter().map(|item| item.call).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(Envelope::decode(items[0].payload), Ok((envelope, &b"put"[..])));
    assert!(Envelope::decode(&items[1].payload[1..]).is_err());

    let reads = batch(Kind::Reads, |batch| batch.request(9, [b"ge", b"t"]));
    for (consistency, head) in [
        (Consistency::Lease, "0100000001000000"),
        (
            Consistency::Local(Local { at_least: Index(7), age_ms_max: 500, wait_ms: 20 }),
            "01000000030000000700000000000000f401000014000000",
        ),
    ] {
        let mut outbox = Outbox::new(1 << 20);
        let mut batch = BatchWriter::begin_reads(&mut outbox, consistency, GroupId(1), NOBODY);
        batch.request(9, [b"get", b""]);
        batch.finish();
        let bytes = outbox.take_all();
        let body = &bytes[bytes.len() - head.len() / 2 - 19..];
        let shown: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, format!("{head}03000000000000000900000000000000676574"));
        let requests = client_wire::reads(&frame_of(Kind::Reads, body)).expect("it is one");
        assert_eq!(requests.consistency(), consistency);
        assert_eq!(requests.iter().map(|it| it.payload).collect::<Vec<_>>(), [b"get"]);
    }
    let frame = frame_of(Kind::Reads, &reads);
    let items: Vec<_> = client_wire::reads(&frame).expect("reads").iter().collect();
    assert_eq!(items, [Request { call: 9, payload: b"get" }]);

    let (revision, index) = (Revision(5), Index(6));
    let done = Reply {
        call: 7,
        status: Status::Ok,
        flags: 3,
        revision,
        index,
        hint: NodeId(0),
        body: b"r",
    };
    let refused = Reply::refusal(8, Status::NotLeader, NodeId(2));
    let replies = batch(Kind::Replies, |batch| {
        batch.reply(&done);
        batch.reply(&refused);
    });
    let frame = frame_of(Kind::Replies, &replies);
    let items: Vec<_> = client_wire::replies(&frame).expect("replies").iter().collect();
    assert_eq!(items, [done, refused]);
    assert!(batch(Kind::Writes, |_| ()).is_empty(), "no frame without an item");
}

/// The bytes of version 1 never change.
#[test]
fn golden_bytes() {
    let writes = batch(Kind::Writes, |batch| batch.request(7, [&[0xee; 40], b"put"]));
    let mut golden = vec![1, 0, 0, 0, 0, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    golden.extend([0xee; 40]);
    golden.extend(b"put");
    assert_eq!(writes, golden);
    let replies = batch(Kind::Replies, |batch| {
        batch.reply(&Reply {
            call: 1,
            status: Status::Gap,
            flags: 2,
            revision: Revision(3),
            index: Index(4),
            hint: NodeId(5),
            body: b"x",
        });
    });
    let golden =
        [[1u64, 1, 6 | 2 << 8 | 1 << 32, 3, 4, 5].map(u64::to_le_bytes).concat(), b"x".to_vec()]
            .concat();
    assert_eq!(replies, golden);
    let envelope = Envelope { client: ClientId(1), sequence: 4, received: 3, opened: Index(4) };
    assert_eq!(envelope.to_bytes()[..], [1u64, 0, 4, 3, 4].map(u64::to_le_bytes).concat());
    let status = NodeStatus { durable: true, ..node_status() };
    let unsynced = NodeStatus { durable: false, groups: Vec::new(), ..node_status() };
    let head = |groups: u32, durable: u8| {
        let mut golden = [3u32.to_le_bytes(), [1, 0, 4, 0]].concat();
        golden.extend(99u64.to_le_bytes());
        golden.extend([100u32, 200, groups].map(u32::to_le_bytes).concat());
        golden.extend([durable, 0, 1, 0]);
        golden.extend([1u64 << 20, 2 << 20].map(u64::to_le_bytes).concat());
        golden.extend(b"knot");
        golden
    };
    let group = |role: u8, damaged: u8| {
        let mut golden = [1u64, 2, 4, 5, 6, 7, 8, 9].map(u64::to_le_bytes).concat();
        golden.extend([3, 0, 0, 0, role, damaged, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend(11u64.to_le_bytes());
        golden
    };
    let body = body_of(|outbox| status.write(outbox, NOBODY));
    assert_eq!(body, [head(2, 1), group(3, 1), group(4, 0)].concat());
    assert_eq!(body_of(|outbox| unsynced.write(outbox, NOBODY)), head(0, 0));
}

/// Where a group is, how a shard is, and why a connection ends come out as they went in.
#[test]
fn answers_round_trip() {
    let body = body_of(|outbox| locate_reply().write(outbox, GroupId(1), NOBODY));
    let frame = frame_of(Kind::LocateReply, &body);
    assert_eq!(LocateReply::read(&frame), Ok(locate_reply()));

    let body = body_of(|outbox| node_status().write(outbox, NOBODY));
    assert_eq!(NodeStatus::decode(&body), Ok(node_status()));

    let long = "é".repeat(1000);
    let body = body_of(|outbox| ErrorFrame { code: 4, sentence: &long }.write(outbox, NOBODY));
    let frame = frame_of(Kind::Error, &body);
    let error = ErrorFrame::read(&frame).expect("an error frame");
    assert_eq!((error.code, error.sentence), (4, &long[..1020]));
}

/// Bodies cut at any byte, or with a byte too many, are refused.
#[test]
fn cut_and_surplus_are_refused() {
    let envelope = Envelope::default().to_bytes();
    let writes = batch(Kind::Writes, |batch| {
        batch.request(7, [&envelope, b"put"]);
        batch.request(8, [&envelope, b"put"]);
    });
    let replies = batch(Kind::Replies, |batch| {
        batch.reply(&Reply::refusal(8, Status::Busy, NodeId(2)));
    });
    let located = body_of(|outbox| locate_reply().write(outbox, GroupId(1), NOBODY));
    let status = body_of(|outbox| node_status().write(outbox, NOBODY));
    let check = |whole: &[u8], open: &dyn Fn(&[u8]) -> Result<(), WireError>| {
        assert_eq!(open(whole), Ok(()));
        for cut in 0..whole.len() {
            assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let error = open(&[whole, &[0]].concat()).expect_err("a byte too many");
        assert!(matches!(error, WireError::Surplus { surplus: 1, .. }));
    };
    check(&writes, &|it| client_wire::writes(&frame_of(Kind::Writes, it)).map(drop));
    check(&replies, &|it| client_wire::replies(&frame_of(Kind::Replies, it)).map(drop));
    check(&located, &|it| LocateReply::read(&frame_of(Kind::LocateReply, it)).map(drop));
    check(&status, &|it| NodeStatus::decode(it).map(drop));
}

/// Lengths and counts over their limits are refused by name.
#[test]
fn limits_are_kept() {
    let writes = |change: fn(&mut Vec<u8>)| {
        let mut body = batch(Kind::Writes, |batch| batch.request(7, [&[0; 40], b""]));
        change(&mut body);
        client_wire::writes(&frame_of(Kind::Writes, &body)).map(drop).expect_err("refused")
    };
    assert!(matches!(writes(|it| it[8] = 39), WireError::Length { least: 40, .. }));
    assert!(matches!(writes(|it| it[11] = 1), WireError::Length { .. }));
    assert!(matches!(writes(|it| it[1] = 9), WireError::Count { limit: ITEMS_MAX, .. }));
    assert!(matches!(writes(|it| it[4] = 1), WireError::Field { field: "reserved", .. }));
    let mut reads = batch(Kind::Reads, |batch| batch.request(9, [b"get", b""]));
    reads[4] = 2;
    let refused = client_wire::reads(&frame_of(Kind::Reads, &reads)).map(drop);
    assert!(matches!(refused, Err(WireError::Field { field: "consistency", value: 2, .. })));
    assert!(matches!(writes(|it| it[12] = 1), WireError::Field { field: "reserved", .. }));
    let mut outbox = Outbox::new(1 << 20);
    let mut batch = BatchWriter::begin(&mut outbox, Kind::Reads, GroupId(1), NOBODY);
    while batch.fits(0) {
        batch.request(1, [b"", b""]);
    }
    assert_eq!(batch.len(), ITEMS_MAX);
}

proptest! {
    /// Random bodies never panic, and what passes is readable to its end.
    #[test]
    fn random_bodies_never_panic(
        count in 0u8..4,
        mut body in proptest::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 8..300),
    ) {
        body[..8].copy_from_slice(&[count, 0, 0, 0, 0, 0, 0, 0]);
        if let Ok(writes) = client_wire::writes(&frame_of(Kind::Writes, &body)) {
            prop_assert_eq!(writes.iter().count(), writes.len());
        }
        if let Ok(reads) = client_wire::reads(&frame_of(Kind::Reads, &body)) {
            prop_assert_eq!(reads.iter().count(), reads.len());
        }
        if let Ok(replies) = client_wire::replies(&frame_of(Kind::Replies, &body)) {
            prop_assert_eq!(replies.iter().count(), replies.len());
        }
        let _ = LocateReply::read(&frame_of(Kind::LocateReply, &body));
        let _ = NodeStatus::decode(&body);
        let _ = ErrorFrame::read(&frame_of(Kind::Error, &body));
    }
}
