//! Who leads, on the wire: round trips, golden bytes, and bodies that are none.

use proptest::prelude::*;
use ringraft_net::frame::FrameHeader;
use ringraft_net::lead_wire::{LeadAsk, LeadRefusal, LeadReply, Leading, SENTENCE_BYTES_MAX};
use ringraft_net::{Frame, Identity, Kind, Outbox};
use ringraft_types::limits::FRAME_HEADER_BYTES;
use ringraft_types::{GroupId, NodeId, Status, Term};

fn frame_in(group: u64, kind: Kind, body: &[u8]) -> Frame<'_> {
    let (group, sender) = (GroupId(group), Identity::default());
    let body_bytes = body.len() as u32;
    Frame { header: FrameHeader { kind, group, sender, body_bytes, body_checksum: 0 }, body }
}

fn body_of(reply: &LeadReply<'_>) -> Vec<u8> {
    let mut outbox = Outbox::new(1 << 20);
    reply.write(&mut outbox, GroupId(1), Identity::default());
    outbox.take_for_send().expect("a frame")[FRAME_HEADER_BYTES..].to_vec()
}

fn reply(sentence: &str) -> LeadReply<'_> {
    LeadReply {
        call: 7,
        status: Status::Refused,
        refusal: Some(LeadRefusal::TimedOut),
        leader: NodeId(2),
        term: Term(5),
        sentence,
    }
}

/// The bytes are those of the format, and come back as what was written.
#[test]
fn golden_bytes() {
    let asks = [
        (1, Leading::HandOver { to: Some(NodeId(3)) }, "01000000", "03000000"),
        (1, Leading::HandOver { to: None }, "01000000", "00000000"),
        (0, Leading::Pause, "02000000", "00000000"),
        (0, Leading::Resume, "03000000", "00000000"),
        (0, Leading::Priority(7), "04070000", "00000000"),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (group, leading, operation, to) in asks {
        let ask = LeadAsk { call: 7, leading };
        let body = ask.encode();
        assert_eq!(hex(&body), ["0700000000000000", operation, to].concat());
        assert_eq!(LeadAsk::read(&frame_in(group, Kind::Lead, &body)), Ok(ask));
        // A group has a leader, a shard has elections.
        assert!(LeadAsk::read(&frame_in(1 - group, Kind::Lead, &body)).is_err());
    }
    let body = body_of(&reply("no"));
    let golden = ["0700000000000000", "11080000", "02000000", "0500000000000000", "6e6f"].concat();
    assert_eq!(hex(&body), golden);
    assert_eq!(LeadReply::decode(&body), Ok(reply("no")));
    let long = "é".repeat(SENTENCE_BYTES_MAX);
    let cut = body_of(&reply(&long));
    assert_eq!(LeadReply::decode(&cut).expect("cut").sentence.len(), SENTENCE_BYTES_MAX);
}

/// Every length but the right one, and every field out of its range, is refused.
#[test]
fn wrong_bodies_are_refused() {
    let body = LeadAsk { call: 7, leading: Leading::Pause }.encode();
    for length in 0..body.len() {
        assert!(LeadAsk::read(&frame_in(0, Kind::Lead, &body[..length])).is_err());
    }
    for (at, value) in [(8, 0), (8, 5), (9, 1), (11, 1), (12, 1)] {
        let mut bad = body;
        bad[at] = value;
        assert!(LeadAsk::read(&frame_in(0, Kind::Lead, &bad)).is_err(), "byte {at}");
    }
    let body = body_of(&reply(""));
    for length in 0..body.len() {
        assert!(LeadReply::decode(&body[..length]).is_err());
    }
    for (at, value) in [(8, 0), (8, 200), (9, 0), (9, 10), (10, 1)] {
        let mut bad = body.clone();
        bad[at] = value;
        assert!(LeadReply::decode(&bad).is_err(), "byte {at}");
    }
    let bad = [body, vec![0xff]].concat();
    assert!(LeadReply::decode(&bad).is_err(), "no text");
}

proptest! {
    /// Random bodies never panic.
    #[test]
    fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = LeadAsk::read(&frame_in(1, Kind::Lead, &body));
        let _ = LeadReply::decode(&body);
    }
}
