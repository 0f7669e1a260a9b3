//! Peer messages: round trips, golden bytes, and bodies that are no archives.

use proptest::prelude::*;
use ringraft_net::frame::FrameHeader;
use ringraft_net::wire::{
    self, AppendHead, AppendReplyItem, Ballot, BallotKind, Health, InstallItem,
};
use ringraft_net::wire::{
    AnswerState, LeadWord, Life, LifeItem, ReadAnswerItem, ReadAnswers, ReadAskItem, ReadAsks,
    RepairAnswer, RepairAsk, RunItem, SaveAt, StandItem, StateWord,
};
use ringraft_net::wire::{AppendReplies, BeatItem, BeatReplies, BeatReplyItem, Beats};
use ringraft_net::{Frame, Identity, Inbox, Kind, Outbox, WireError};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term, Ticks};

const SENDER: Identity =
    Identity { cluster: ClusterId(0xc1), incarnation: Incarnation(0x1c), node: NodeId(3) };

const ASK: RepairAsk = RepairAsk { round: 7, last: Index(9) };
const RUNS: [RunItem; 2] =
    [RunItem { first: Index(3), term: Term(1) }, RunItem { first: Index(5), term: Term(2) }];

const LIFE: Life = Life { node: NodeId(4), life: Incarnation(0x384) };
const LIFE_ITEMS: [LifeItem; 2] = [
    LifeItem { group: GroupId(1), index: Index(7) },
    LifeItem { group: GroupId(2), index: Index(8) },
];

fn answer(state: AnswerState, count: u32) -> RepairAnswer {
    RepairAnswer { round: 7, first: Index(3), count, state }
}

/// Carries what waits into an inbox.
fn carry(outbox: &mut Outbox) -> Inbox {
    let mut inbox = Inbox::opened();
    while let Some(bytes) = outbox.take_for_send() {
        let space = inbox.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        inbox.filled(count);
        outbox.sent(count);
        if inbox.space().is_empty() {
            panic!("these tests send little");
        }
    }
    inbox
}

fn frame_of(kind: Kind, body: &[u8]) -> Frame<'_> {
    let body_bytes = body.len() as u32;
    let header =
        FrameHeader { kind, group: GroupId(1), sender: SENDER, body_bytes, body_checksum: 0 };
    Frame { header, body }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn beat(group: u64) -> BeatItem {
    BeatItem { group: GroupId(group), term: Term(2), commit: Index(3), round: 4, hibernate: true }
}

fn reply(group: u64) -> AppendReplyItem {
    AppendReplyItem {
        group: GroupId(group),
        term: Term(2),
        append_term: Term(3),
        accepted: true,
        matched_or_prev: Index(4),
        hint_term: Term(5),
        hint_index: Index(6),
        commit: Index(7),
    }
}

fn install() -> InstallItem {
    InstallItem {
        term: Term(5),
        base_term: Term(4),
        base_index: Index(3),
        commit: Index(6),
        address_bytes: 0,
    }
}

/// Everything that is written in one outbox comes out as it was; as long as it is little, appends
/// first, all else in order.
#[test]
fn round_trips() {
    let mut outbox = Outbox::new(1 << 20);
    let (mut beats, mut beat_replies) = (Beats::new(), BeatReplies::new());
    let mut append_replies = AppendReplies::new();
    let back = |group| BeatReplyItem {
        group: GroupId(group),
        term: Term(9),
        round: 8,
        commit: Index(7),
        hibernates: true,
    };
    for group in 1..=100 {
        beats.push(beat(group));
        beat_replies.push(back(group));
        append_replies.push(reply(group));
    }
    let head = AppendHead { term: Term(1), prev_index: Index(2), count: 2, ..Default::default() };
    head.write(&mut outbox, GroupId(5), SENDER, [&b"first"[..], b"second"]);
    beats.write(&mut outbox, SENDER, health(77));
    beat_replies.write(&mut outbox, SENDER, health(66));
    append_replies.write(&mut outbox, SENDER, health(55));
    let last = LogId::new(Term(3), Index(4));
    let vote = Ballot { kind: BallotKind::Vote, term: Term(5), last, granted: false };
    vote.write(&mut outbox, GroupId(6), SENDER);
    install().write(&mut outbox, GroupId(7), SENDER, b"a:1");
    ASK.write(&mut outbox, GroupId(8), SENDER, &RUNS);
    answer(AnswerState::Here, 2).write(&mut outbox, GroupId(8), SENDER, b"records");
    answer(AnswerState::Lacks, 0).write(&mut outbox, GroupId(8), SENDER, b"");
    LIFE.ask(&mut outbox, SENDER);
    LIFE.answer(&mut outbox, SENDER, &LIFE_ITEMS);

    let mut inbox = carry(&mut outbox);
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!(frame.header.group, GroupId(5));
    assert_eq!(wire::append(&frame), Ok((head, &b"firstsecond"[..])));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!(wire::repair_answer(&frame), Ok((answer(AnswerState::Here, 2), &b"records"[..])));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!(wire::repair_answer(&frame), Ok((answer(AnswerState::Lacks, 0), &b""[..])));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!(wire::life_answer(&frame), Ok((LIFE, LIFE_ITEMS.to_vec())));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    let view = wire::beats(&frame).expect("beats");
    assert_eq!(view.health(), health(77));
    assert!(view.items().eq((1..=100).map(beat)));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    let view = wire::beat_replies(&frame).expect("replies");
    assert_eq!(view.health(), health(66));
    assert!(view.items().eq((1..=100).map(back)));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    let view = wire::append_replies(&frame).expect("replies");
    assert_eq!(view.health(), health(55));
    assert!(view.items().eq((1..=100).map(reply)));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!((frame.header.group, wire::ballot(&frame)), (GroupId(6), Ok(vote)));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    let installs = wire::install(&frame);
    assert_eq!(
        (frame.header.group, installs),
        (GroupId(7), Ok((InstallItem { address_bytes: 3, ..install() }, &b"a:1"[..])))
    );
    let frame = inbox.next_frame().expect("intact").expect("whole");
    let asked = wire::repair_ask(&frame).expect("a question");
    assert_eq!((frame.header.group, asked), (GroupId(8), (ASK, RUNS.to_vec())));
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert_eq!(wire::life_ask(&frame), Ok(LIFE));
    assert_eq!(inbox.next_frame(), Ok(None));
}

fn health(wait: u64) -> Health {
    Health { disk_wait: Ticks(wait), is_memory_full: [66, 0xbb].contains(&wait) }
}

/// A frame of beats without a beat is a sign of life, and legal.
#[test]
fn no_items_round_trip() {
    let mut outbox = Outbox::new(1 << 20);
    Beats::new().write(&mut outbox, SENDER, health(1));
    let mut inbox = carry(&mut outbox);
    let frame = inbox.next_frame().expect("intact").expect("whole");
    assert!(wire::beats(&frame).expect("beats").is_empty());
}

/// The bytes of version 1 never change, nor does the hash that stands for them.
#[test]
fn golden_bytes() {
    let mut outbox = Outbox::new(1 << 20);
    let head = AppendHead {
        term: Term(1),
        prev_term: Term(2),
        prev_index: Index(3),
        commit: Index(4),
        count: 5,
        pad: 0,
    };
    head.write(&mut outbox, GroupId(1), SENDER, [&b"r"[..]]);
    let mut beats = Beats::new();
    beats.push(beat(1));
    beats.write(&mut outbox, SENDER, health(0xaa));
    let mut replies = AppendReplies::new();
    replies.push(reply(1));
    replies.write(&mut outbox, SENDER, health(0xbb));
    let last = LogId::new(Term(3), Index(4));
    let ballot = Ballot { kind: BallotKind::PreVoteReply, term: Term(5), last, granted: true };
    ballot.write(&mut outbox, GroupId(1), SENDER);
    install().write(&mut outbox, GroupId(1), SENDER, b"");
    ASK.write(&mut outbox, GroupId(1), SENDER, &RUNS);
    answer(AnswerState::Here, 1).write(&mut outbox, GroupId(1), SENDER, b"r");
    LIFE.ask(&mut outbox, SENDER);
    LIFE.answer(&mut outbox, SENDER, &LIFE_ITEMS);
    SaveAt { index: Index(9) }.write(&mut outbox, GroupId(1), SENDER);
    StandItem { term: Term(5) }.write(&mut outbox, GroupId(1), SENDER);
    let word = LeadWord { priority: 6, led: 7, votes: 8, spreads: true, is_fit: false };
    word.write(&mut outbox, SENDER);
    let word = StateWord { term: Term(5), index: Index(1024), hash: 6, said: StateWord::NOTED };
    word.write(&mut outbox, GroupId(1), SENDER);
    let mut asks = ReadAsks::new();
    asks.push(ReadAskItem { group: GroupId(1), term: Term(2), question: 3 });
    asks.write(&mut outbox, SENDER, health(0xcc));
    let mut answers = ReadAnswers::new();
    answers.push(ReadAnswerItem { group: GroupId(1), term: Term(2), question: 3, index: Index(4) });
    answers.write(&mut outbox, SENDER, health(0xdd));
    let mut inbox = carry(&mut outbox);
    let mut next = || hex(inbox.next_frame().expect("intact").expect("whole").body);
    assert_eq!(
        next(),
        "01000000000000000200000000000000030000000000000004000000000000000500000000000000\
         72"
    );
    assert_eq!(next(), "07000000000000000300000000000000010000000100000072");
    let life = "040000008403000000000000";
    let groups = "0100000000000000070000000000000002000000000000000800000000000000";
    assert_eq!(next(), [life, groups].concat());
    assert_eq!(
        next(),
        "010000000000000002000000000000000300000000000000040000000000000001\
         aa0000000000000000d6ffffff01000000"
    );
    assert_eq!(
        next(),
        "01000000000000000200000000000000030000000000000001040000000000000005000000000000000600\
         0000000000000700000000000000\
         bb0000000000000001beffffff01000000"
    );
    assert_eq!(next(), "0200000001050000000000000003000000000000000400000000000000");
    assert_eq!(next(), "050000000000000004000000000000000300000000000000060000000000000000000000");
    assert_eq!(
        next(),
        "07000000000000000900000000000000\
         0300000000000000010000000000000005000000000000000200000000000000"
    );
    assert_eq!(next(), life);
    assert_eq!(next(), "0900000000000000");
    assert_eq!(next(), "0500000000000000");
    assert_eq!(next(), "0600000007000000080000000100");
    assert_eq!(next(), "05000000000000000004000000000000060000000000000001000000");
    assert_eq!(
        next(),
        "010000000000000002000000000000000300000000000000\
         cc0000000000000000dfffffff01000000"
    );
    assert_eq!(
        next(),
        "0100000000000000020000000000000003000000000000000400000000000000\
         dd0000000000000000d7ffffff01000000"
    );
    assert_eq!(wire::layout_hash(), 8_370_970_902_016_576_937);
}

/// A shard is full or it isn't: a byte that says something else is refused.
#[test]
fn a_health_that_is_none_is_refused() {
    let mut outbox = Outbox::new(1 << 20);
    let mut beats = Beats::new();
    beats.push(beat(1));
    beats.write(&mut outbox, SENDER, health(66));
    let mut inbox = carry(&mut outbox);
    let mut body = inbox.next_frame().expect("intact").expect("whole").body.to_vec();
    let view = wire::beats(&frame_of(Kind::Beats, &body)).expect("beats").health();
    assert_eq!(view, health(66));
    let place = body.len() - 9;
    assert_eq!(body[place], 1);
    for (byte, is_sound) in [(0, true), (2, false), (0xff, false)] {
        body[place] = byte;
        assert_eq!(wire::beats(&frame_of(Kind::Beats, &body)).is_ok(), is_sound, "{byte}");
    }
}

/// Bodies that are no archives are refused with the kind, whatever their length.
#[test]
fn wrong_bodies_are_refused() {
    for length in 0..100 {
        let body = vec![0xff; length];
        assert!(wire::beats(&frame_of(Kind::Beats, &body)).is_err());
        assert!(wire::beat_replies(&frame_of(Kind::BeatReplies, &body)).is_err());
        assert!(wire::append_replies(&frame_of(Kind::AppendReplies, &body)).is_err());
        assert!(wire::read_asks(&frame_of(Kind::ReadAsks, &body)).is_err());
        assert!(wire::read_answers(&frame_of(Kind::ReadAnswers, &body)).is_err());
        assert!(wire::ballot(&frame_of(Kind::Ballot, &body)).is_err());
        assert!(wire::install(&frame_of(Kind::Install, &body)).is_err());
        assert_eq!(wire::repair_ask(&frame_of(Kind::RepairAsk, &body)).is_ok(), length == 32);
        assert!(wire::repair_answer(&frame_of(Kind::RepairAnswer, &body)).is_err());
        assert_eq!(wire::life_ask(&frame_of(Kind::LifeAsk, &body)).is_ok(), length == 12);
        assert_eq!(wire::save_at(&frame_of(Kind::SaveAt, &body)).is_ok(), length == 8);
        assert_eq!(wire::timeout_now(&frame_of(Kind::TimeoutNow, &body)).is_ok(), length == 8);
        assert!(wire::lead_word(&frame_of(Kind::LeadWord, &body)).is_err());
        assert!(wire::state_word(&frame_of(Kind::StateWord, &body)).is_err());
        let is_answer = length % 16 == 12;
        assert_eq!(wire::life_answer(&frame_of(Kind::LifeAnswer, &body)).is_ok(), is_answer);
        if length < 40 {
            let error = wire::append(&frame_of(Kind::Append, &body)).expect_err("too short");
            assert!(matches!(error, WireError::Short { kind: Kind::Append, .. }));
        }
    }
    let mut body = vec![0; 29];
    body[0] = 9;
    let error = wire::ballot(&frame_of(Kind::Ballot, &body)).expect_err("no such ballot");
    assert!(matches!(error, WireError::Field { field: "kind", value: 9, .. }));
    body[0] = 1;
    body[4] = 2;
    let error = wire::ballot(&frame_of(Kind::Ballot, &body)).expect_err("no such answer");
    assert!(matches!(error, WireError::Field { field: "granted", value: 2, .. }));
}

/// A question names runs that ascend, and an answer holds records or says why not.
#[test]
fn questions_and_answers_that_contradict_themselves_are_refused() {
    let run = |first| RunItem { first: Index(first), term: Term(1) };
    let many: Vec<RunItem> = (1..=65).map(run).collect();
    for (last, runs) in [(9, &[run(3), run(3)][..]), (2, &[run(3)]), (9, &[run(0)]), (99, &many)] {
        let mut body = [7u64.to_le_bytes(), u64::to_le_bytes(last)].concat();
        for run in runs {
            body.extend_from_slice(&run.first.0.to_le_bytes());
            body.extend_from_slice(&run.term.0.to_le_bytes());
        }
        let error = wire::repair_ask(&frame_of(Kind::RepairAsk, &body)).expect_err("no question");
        assert!(matches!(error, WireError::Field { .. }), "{error}");
        let cut = &body[..body.len() - 1];
        assert!(wire::repair_ask(&frame_of(Kind::RepairAsk, cut)).is_err());
    }
    for (count, state, records) in
        [(0, 1, &b""[..]), (1, 1, b""), (1, 2, b"r"), (0, 3, b"r"), (0, 4, b"")]
    {
        let mut body = [7u64.to_le_bytes(), 3u64.to_le_bytes()].concat();
        body.extend_from_slice(&u32::to_le_bytes(count));
        body.extend_from_slice(&u32::to_le_bytes(state));
        body.extend_from_slice(records);
        let answer = wire::repair_answer(&frame_of(Kind::RepairAnswer, &body));
        assert!(answer.is_err(), "{answer:?}");
    }
}

/// A body is exactly its archive: with a byte more at either end, or less, it is none.
#[test]
fn bodies_are_exactly_their_archives() {
    type Open = fn(&Frame<'_>) -> bool;
    let opens: [(Kind, Open); 7] = [
        (Kind::Beats, |frame| wire::beats(frame).is_ok()),
        (Kind::BeatReplies, |frame| wire::beat_replies(frame).is_ok()),
        (Kind::AppendReplies, |frame| wire::append_replies(frame).is_ok()),
        (Kind::ReadAsks, |frame| wire::read_asks(frame).is_ok()),
        (Kind::ReadAnswers, |frame| wire::read_answers(frame).is_ok()),
        (Kind::Ballot, |frame| wire::ballot(frame).is_ok()),
        (Kind::Install, |frame| wire::install(frame).is_ok()),
    ];
    for items in 0..3 {
        let mut outbox = Outbox::new(1 << 20);
        let (mut beats, mut beat_replies) = (Beats::new(), BeatReplies::new());
        let mut append_replies = AppendReplies::new();
        let (mut asks, mut answers) = (ReadAsks::new(), ReadAnswers::new());
        for group in 1..=items {
            beats.push(beat(group));
            beat_replies.push(BeatReplyItem { group: GroupId(group), ..Default::default() });
            append_replies.push(reply(group));
            asks.push(ReadAskItem { group: GroupId(group), ..Default::default() });
            answers.push(ReadAnswerItem { group: GroupId(group), ..Default::default() });
        }
        beats.write(&mut outbox, SENDER, health(1));
        beat_replies.write(&mut outbox, SENDER, health(2));
        append_replies.write(&mut outbox, SENDER, health(3));
        asks.write(&mut outbox, SENDER, health(4));
        answers.write(&mut outbox, SENDER, health(5));
        let last = LogId::new(Term(3), Index(4));
        let vote = Ballot { kind: BallotKind::Vote, term: Term(5), last, granted: false };
        vote.write(&mut outbox, GroupId(6), SENDER);
        install().write(&mut outbox, GroupId(7), SENDER, b"a:1");
        let mut inbox = carry(&mut outbox);
        for (kind, open) in opens {
            let body = inbox.next_frame().expect("intact").expect("whole").body.to_vec();
            assert!(open(&frame_of(kind, &body)), "{kind:?} of {items}");
            for count in 1..100 {
                let junk = vec![count as u8; count];
                let before = [&junk[..], &body].concat();
                let behind = [&body[..], &junk].concat();
                assert!(!open(&frame_of(kind, &before)), "{kind:?}: {count} bytes before it");
                assert!(!open(&frame_of(kind, &behind)), "{kind:?}: {count} bytes behind it");
                if let Some(less) = body.get(count..) {
                    assert!(!open(&frame_of(kind, less)), "{kind:?}: {count} bytes too few");
                }
            }
        }
    }
}

proptest! {
    /// Random bodies never panic, and what passes is readable to its end.
    #[test]
    fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(view) = wire::beats(&frame_of(Kind::Beats, &body)) {
            prop_assert_eq!(view.items().count(), view.len());
        }
        if let Ok(view) = wire::append_replies(&frame_of(Kind::AppendReplies, &body)) {
            prop_assert_eq!(view.items().count(), view.len());
        }
        if let Ok(view) = wire::read_answers(&frame_of(Kind::ReadAnswers, &body)) {
            prop_assert_eq!(view.items().count(), view.len());
        }
        let _ = wire::read_asks(&frame_of(Kind::ReadAsks, &body));
        let _ = wire::ballot(&frame_of(Kind::Ballot, &body));
        let _ = wire::install(&frame_of(Kind::Install, &body));
        let _ = wire::repair_ask(&frame_of(Kind::RepairAsk, &body));
        let _ = wire::repair_answer(&frame_of(Kind::RepairAnswer, &body));
        let _ = wire::life_ask(&frame_of(Kind::LifeAsk, &body));
        let _ = wire::life_answer(&frame_of(Kind::LifeAnswer, &body));
        let _ = wire::save_at(&frame_of(Kind::SaveAt, &body));
        let _ = wire::timeout_now(&frame_of(Kind::TimeoutNow, &body));
        let _ = wire::lead_word(&frame_of(Kind::LeadWord, &body));
        let _ = wire::state_word(&frame_of(Kind::StateWord, &body));
        let _ = wire::append(&frame_of(Kind::Append, &body));
    }
}
