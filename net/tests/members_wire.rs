//! Members of groups on the wire: round trips, golden bytes, and bodies that are none.

use proptest::prelude::*;
use ringraft_net::frame::FrameHeader;
use ringraft_net::members_wire::{
    self, ChangeAsk, Member, MemberChange, Members, MembersReply, PEERS_MAX, Peer, Refusal,
    SENTENCE_BYTES_MAX,
};
use ringraft_net::{Frame, Identity, Kind, Outbox, WireError};
use ringraft_types::limits::{FRAME_HEADER_BYTES, LEARNERS_MAX, NODES_MAX};
use ringraft_types::{Configuration, GroupId, Incarnation, Index, NodeId, Phase, Status};

fn body_of(write: impl FnOnce(&mut Outbox)) -> Vec<u8> {
    let mut outbox = Outbox::new(1 << 20);
    write(&mut outbox);
    outbox.take_for_send().expect("a frame")[FRAME_HEADER_BYTES..].to_vec()
}

fn frame_in(group: u64, kind: Kind, body: &[u8]) -> Frame<'_> {
    let (group, sender) = (GroupId(group), Identity::default());
    let body_bytes = body.len() as u32;
    Frame { header: FrameHeader { kind, group, sender, body_bytes, body_checksum: 0 }, body }
}

fn nodes(ids: impl IntoIterator<Item = u32>) -> Vec<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

fn member(node: u32, incarnation: u64) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        peer: format!("p{node}:1"),
        client: format!("c{node}:2"),
    }
}

/// Nodes 1 and 2 vote, 3 listens.
fn target() -> Members {
    let configuration = Configuration::first(nodes([2, 1]), nodes([3])).expect("sound");
    Members { configuration, members: vec![member(1, 17), member(2, 0), member(3, 9)] }
}

fn change(change: MemberChange) -> ChangeAsk {
    ChangeAsk { call: 7, expected: Index(5), change }
}

fn to(is_held: bool, allow_majority: bool, allow_unready: bool) -> ChangeAsk {
    change(MemberChange::To { target: target(), is_held, allow_majority, allow_unready })
}

fn encoded(ask: &ChangeAsk) -> Vec<u8> {
    let mut body = Vec::new();
    ask.encode(&mut body).expect("short addresses");
    body
}

fn read_change(body: &[u8]) -> Result<ChangeAsk, WireError> {
    ChangeAsk::read(&frame_in(1, Kind::Change, body))
}

fn reply(members: &[u8]) -> MembersReply<'_> {
    let peer = |node, is_heard| Peer {
        node: NodeId(node),
        is_heard,
        matched: Index(10),
        commit: Index(9),
        incarnation: Incarnation(77),
    };
    MembersReply {
        call: 7,
        status: Status::Refused,
        refusal: Some(Refusal::Behind),
        is_committed: true,
        is_leader: true,
        leader: NodeId(2),
        index: Index(5),
        commit: Index(11),
        peers: vec![peer(1, true), peer(3, false)],
        members,
        sentence: "née",
    }
}

fn written(reply: &MembersReply<'_>) -> Vec<u8> {
    body_of(|outbox| reply.write(outbox, GroupId(1), Identity::default()))
}

/// Goal: changes, questions and answers come out as they went in.
#[test]
fn round_trips() {
    let asks = [
        to(false, false, false),
        to(true, false, false),
        to(false, true, false),
        to(false, false, true),
        change(MemberChange::Commit),
        change(MemberChange::Abort),
    ];
    for ask in asks {
        let body = encoded(&ask);
        let sent = body_of(|outbox| {
            members_wire::write_change(outbox, GroupId(1), Identity::default(), &body);
        });
        assert_eq!(read_change(&sent), Ok(ask));
    }
    let body = body_of(|out| members_wire::write_members(out, GroupId(1), Identity::default(), 99));
    assert_eq!(members_wire::members(&frame_in(1, Kind::Members, &body)), Ok(99));

    let payload = target().encode().expect("short addresses");
    let full = reply(&payload);
    let plain = MembersReply { status: Status::Ok, refusal: None, sentence: "", ..full.clone() };
    let bare = MembersReply::refusal(8, Status::NotLeader, NodeId(3));
    for reply in [full, plain, bare] {
        let body = written(&reply);
        assert_eq!(MembersReply::read(&frame_in(1, Kind::MembersReply, &body)), Ok(reply));
    }
    let kind = Kind::MembersReply;
    assert_eq!(Members::decode(&payload, kind), Ok(target()));
    assert_eq!(Members::decode(&[], kind), Ok(Members::default()), "a node that is to join");
}

/// Goal: the bytes of version 1 never change.
#[test]
fn golden_bytes() {
    let member = |node: u32, roles: u8, incarnation: u64| {
        let mut golden = [node.to_le_bytes(), [roles, 0, 0, 0], [4, 0, 4, 0], [0; 4]].concat();
        golden.extend(incarnation.to_le_bytes());
        golden.extend(format!("p{node}:1c{node}:2").bytes());
        golden
    };
    let mut members = [1u64, 0].map(u64::to_le_bytes).concat();
    members[4] = 3;
    members.extend([member(1, 1, 17), member(2, 1, 0), member(3, 4, 9)].concat());

    let head = |operation: u8, flags: u8| {
        let mut golden = [7u64, 5, 0].map(u64::to_le_bytes).concat();
        golden[16..18].copy_from_slice(&[operation, flags]);
        golden
    };
    assert_eq!(encoded(&to(true, false, false)), [head(1, 1), members.clone()].concat());
    assert_eq!(encoded(&to(false, true, true)), [head(1, 6), members.clone()].concat());
    assert_eq!(encoded(&change(MemberChange::Commit)), head(2, 0));
    assert_eq!(encoded(&change(MemberChange::Abort)), head(3, 0));
    let body = body_of(|out| members_wire::write_members(out, GroupId(1), Identity::default(), 7));
    assert_eq!(body, 7u64.to_le_bytes());

    let mut golden = 7u64.to_le_bytes().to_vec();
    golden.extend([17, 7, 3, 0, 2, 0, 0, 0]);
    golden.extend([5u64, 11].map(u64::to_le_bytes).concat());
    golden.extend([2, members.len() as u32].map(u32::to_le_bytes).concat());
    for (node, heard) in [(1u64, 1u64), (3, 0)] {
        golden.extend([node | heard << 32, 10, 9, 77].map(u64::to_le_bytes).concat());
    }
    let golden = [golden, members.clone(), "née".into()].concat();
    assert_eq!(written(&reply(&members)), golden);
    for number in 0..=u8::MAX {
        let refusal = Refusal::from_u8(number);
        assert_eq!(refusal.map_or(number, |refusal| refusal as u8), number);
        assert_eq!(refusal.is_some(), (1..=11).contains(&number), "{number}");
    }
}

/// Goal: bodies cut at any byte are refused, or are a shorter sentence; a byte too many is refused.
#[test]
fn cut_and_surplus_are_refused() {
    for ask in [to(true, true, true), change(MemberChange::Commit)] {
        let whole = encoded(&ask);
        for cut in 0..whole.len() {
            assert!(read_change(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read_change(&[&whole[..], &[0]].concat()).is_err());
    }
    for length in [0, 7, 9] {
        let body = vec![0; length];
        let opened = members_wire::members(&frame_in(1, Kind::Members, &body));
        assert!(matches!(opened, Err(WireError::Short { .. })), "{length}");
    }
    let payload = target().encode().expect("short addresses");
    let whole = written(&MembersReply { sentence: "", ..reply(&payload) });
    for cut in 0..whole.len() {
        assert!(MembersReply::decode(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

/// Goal: whatever means nothing is refused by the name of its field.
#[test]
fn nonsense_is_refused() {
    let changed = |at: usize, byte: u8| {
        let mut body = encoded(&to(false, false, false));
        body[at] = byte;
        read_change(&body).expect_err("refused")
    };
    assert!(matches!(changed(16, 0), WireError::Field { field: "operation", value: 0, .. }));
    assert!(matches!(changed(16, 4), WireError::Field { field: "operation", value: 4, .. }));
    assert!(matches!(changed(16, 2), WireError::Surplus { .. }), "a commit with members");
    assert!(matches!(changed(17, 8), WireError::Field { field: "flags", value: 8, .. }));
    for at in 18..24 {
        assert!(matches!(changed(at, 1), WireError::Field { field: "reserved", .. }), "{at}");
    }
    assert!(matches!(changed(26, 1), WireError::Field { field: "phase", value: 1, .. }));
    assert!(matches!(changed(32, 9), WireError::Field { field: "replaces", value: 9, .. }));
    assert!(matches!(changed(24, 9), WireError::Members { .. }), "a version to come");
    assert!(matches!(changed(44, 0), WireError::Members { .. }), "a member without a role");
    assert!(matches!(changed(64, 0xff), WireError::Field { field: "address", .. }));
    let mut commit = encoded(&change(MemberChange::Commit));
    commit[17] = 1;
    assert!(matches!(read_change(&commit), Err(WireError::Field { field: "flags", .. })));
    let nobody = ChangeAsk::read(&frame_in(0, Kind::Change, &commit));
    assert!(matches!(nobody, Err(WireError::Group { .. })));
    let nobody = members_wire::members(&frame_in(0, Kind::Members, &[0; 8]));
    assert!(matches!(nobody, Err(WireError::Group { .. })));

    let payload = target().encode().expect("short addresses");
    let changed = |at: usize, byte: u8| {
        let mut body = written(&reply(&payload));
        body[at] = byte;
        MembersReply::decode(&body).expect_err("refused")
    };
    assert!(matches!(changed(8, 99), WireError::Field { field: "status", .. }));
    assert!(matches!(changed(8, 0), WireError::Field { field: "refusal", .. }), "done, refused");
    assert!(matches!(changed(9, 0), WireError::Field { field: "refusal", .. }), "without a why");
    assert!(matches!(changed(9, 99), WireError::Field { field: "refusal", value: 99, .. }));
    assert!(matches!(changed(10, 4), WireError::Field { field: "flags", .. }));
    assert!(matches!(changed(11, 1), WireError::Field { field: "reserved", .. }));
    assert!(matches!(changed(34, 9), WireError::Count { limit: PEERS_MAX, .. }));
    assert!(matches!(changed(44, 2), WireError::Field { field: "peer flags", .. }));
    assert!(matches!(changed(39, 9), WireError::Short { .. }));
    let last = written(&reply(&payload)).len() - 1;
    assert!(matches!(changed(last, 0xff), WireError::Field { field: "sentence", .. }));
}

/// Goal: the longest answer fits its frame, and what is too long for it is cut.
#[test]
fn the_longest_answer_fits() {
    let voters = nodes(1..=15);
    let outgoing = nodes(16..=30);
    // An abort would make learners of all new voters.
    let learners = nodes(31..=30 + (LEARNERS_MAX - NODES_MAX) as u32);
    let configuration =
        Configuration::new(Phase::Joint, voters, outgoing, learners, Index(3)).expect("sound");
    let long = "é".repeat(256);
    let member = |node| Member {
        node,
        incarnation: Incarnation(u64::MAX),
        peer: long.clone(),
        client: long.clone(),
    };
    let members = configuration.members().map(member).collect();
    let payload = Members { configuration, members }.encode().expect("at the limit");
    let peers = vec![Peer::default(); PEERS_MAX + 1];
    let sentence = "é".repeat(SENTENCE_BYTES_MAX);
    let sent = MembersReply { peers, sentence: &sentence, ..reply(&payload) };
    let body = written(&sent);
    let read = MembersReply::decode(&body).expect("sound");
    assert_eq!(read.peers.len(), PEERS_MAX);
    assert_eq!(read.sentence.len(), SENTENCE_BYTES_MAX);
    assert_eq!(read.members, payload);
}

proptest! {
    /// Goal: random bodies never panic, and a change that passes is written the same again.
    #[test]
    fn random_bodies_never_panic(
        places in proptest::collection::vec((0usize..160, any::<u8>()), 0..6),
        cut in 0usize..400,
    ) {
        let payload = target().encode().expect("short addresses");
        let mut bodies = [encoded(&to(true, false, true)), written(&reply(&payload))];
        for body in &mut bodies {
            for &(at, byte) in &places {
                if let Some(place) = body.get_mut(at) {
                    *place = byte;
                }
            }
            body.truncate(cut);
            if let Ok(ask) = read_change(body) {
                prop_assert_eq!(&encoded(&ask), &*body);
            }
            if let Ok(reply) = MembersReply::decode(body) {
                prop_assert_eq!(&written(&reply), &*body);
            }
        }
    }
}
