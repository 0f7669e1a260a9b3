//! Each rule, broken once: by the smallest history that breaks it.

use ringraft_types::{ClientId, GroupId, Index, NodeId, Revision, Status, Ticks};

use super::world::GROUP;
use crate::checker::{Applied, By, Dump, Effort, Verdict, Violation, check};
use crate::history::{
    Answer, Ask, CallName, Consistency, Delete, History, KeySet, KeyValue, ListReply, Outcome, Put,
    PutReply, Range, Reason, Reply,
};

/// A call: when it began and ended, what it asked for, and what became of it.
type Told = (u64, u64, Ask, Outcome);

fn history(calls: &[Told]) -> History {
    let mut events = Vec::new();
    for (at, (began, ended, _, _)) in calls.iter().enumerate() {
        events.push((*began, at, false));
        events.push((*ended, at, true));
    }
    events.sort_unstable();
    let mut history = History::new();
    for (at, call, is_end) in events {
        let name = CallName { client: call as u64, number: 1 };
        let (_, _, ask, outcome) = calls[call].clone();
        let recorded = if is_end {
            history.end(Ticks(at), name, outcome)
        } else {
            history.invoke(Ticks(at), name, GROUP, ask)
        };
        recorded.expect("the test's history is one");
    }
    history
}

fn verdict(calls: &[Told]) -> Result<Verdict, Violation> {
    check(&history(calls), &[], Effort::All)
}

fn put(key: &str, value: &str) -> Ask {
    Ask::Put(Put { key: key.into(), value: value.into(), previous: false })
}

fn get(key: &str) -> Ask {
    Ask::Range(Range::current(KeySet::One(key.into())))
}

fn get_at(key: &str, revision: u64) -> Ask {
    Ask::Range(Range { revision, ..Range::current(KeySet::One(key.into())) })
}

fn delete(key: &str) -> Ask {
    Ask::Delete(Delete { keys: KeySet::One(key.into()), previous: false })
}

fn done(revision: u64, reply: Reply) -> Outcome {
    Outcome::Done(Answer { revision: Revision(revision), index: None, reply })
}

fn indexed(revision: u64, index: u64, reply: Reply) -> Outcome {
    Outcome::Done(Answer { revision: Revision(revision), index: Some(Index(index)), reply })
}

fn wrote(revision: u64) -> Outcome {
    done(revision, Reply::Put(PutReply::None))
}

fn list(keys: Vec<KeyValue>) -> ListReply {
    ListReply { count: keys.len() as u64, more: false, keys }
}

/// A key that was set once, at this revision.
fn once(key: &str, value: &str, revision: u64) -> KeyValue {
    let (key, value) = (key.into(), value.into());
    KeyValue { key, value, create: revision, modified: revision, version: 1 }
}

fn read(revision: u64, keys: Vec<KeyValue>) -> Outcome {
    done(revision, Reply::Range(list(keys)))
}

fn deleted(revision: u64, count: u64) -> Outcome {
    done(revision, Reply::Delete(ListReply { count, more: false, keys: Vec::new() }))
}

fn refused(status: Status) -> Outcome {
    Outcome::NotDone(Reason::Refused(status))
}

const UNKNOWN: Outcome = Outcome::Unknown(Reason::Deadline);

/// The violation that a history must have.
fn broken(calls: &[Told]) -> Violation {
    let violation = verdict(calls).expect_err("the history is broken");
    assert!(!matches!(violation, Violation::Disagree { .. }), "{violation}");
    violation
}

/// A history of every kind of call is right, and what became clear is counted.
#[test]
fn a_right_history_passes() {
    let found = verdict(&[
        (0, 10, put("a", "1"), wrote(1)),
        (5, 20, put("b", "2"), UNKNOWN),
        (11, 15, get("a"), read(1, vec![once("a", "1", 1)])),
        (21, 30, get("b"), read(2, vec![once("b", "2", 2)])),
        (31, 40, delete("a"), deleted(3, 1)),
        (41, 50, delete("a"), deleted(3, 0)),
        (41, 50, put("c", "3"), refused(Status::Busy)),
        (51, 60, get_at("a", 1), read(3, vec![once("a", "1", 1)])),
        (51, 60, get_at("a", 9), refused(Status::FutureRevision)),
        (61, 70, put("d", "4"), UNKNOWN),
    ]);
    let expected = Verdict {
        groups: 1,
        done: 6,
        not_done: 2,
        unknown: 2,
        placed: 1,
        revisions: 3,
        whole: 1,
        windows: 0,
    };
    assert_eq!(found, Ok(expected));
}

/// Swapped answers: each says what the other did.
#[test]
fn swapped_answers_are_found() {
    let violation = broken(&[
        (0, 10, get("a"), read(2, vec![once("b", "2", 2)])),
        (0, 10, get("b"), read(2, vec![once("a", "1", 1)])),
        (0, 1, put("a", "1"), wrote(1)),
        (2, 3, put("b", "2"), wrote(2)),
    ]);
    assert!(matches!(violation, Violation::Answer { revision: 2, .. }), "{violation}");
}

/// An acknowledged write that is gone when somebody reads.
#[test]
fn a_lost_write_is_found() {
    let violation =
        broken(&[(0, 1, put("a", "1"), wrote(1)), (2, 3, get("a"), read(1, Vec::new()))]);
    assert!(matches!(violation, Violation::Answer { revision: 1, .. }), "{violation}");
}

/// An acknowledged write whose revision was given away again.
#[test]
fn a_write_overwritten_in_the_log_is_found() {
    let violation = broken(&[(0, 1, put("a", "1"), wrote(1)), (2, 3, put("b", "2"), wrote(1))]);
    assert!(matches!(violation, Violation::RevisionTwice { revision: 1, .. }), "{violation}");
}

/// A write that was applied twice makes a revision that is nobody's.
#[test]
fn a_write_applied_twice_is_found() {
    let twice = KeyValue { modified: 2, version: 2, ..once("a", "1", 1) };
    let violation =
        broken(&[(0, 1, put("a", "1"), wrote(1)), (2, 3, get("a"), read(2, vec![twice]))]);
    assert!(matches!(violation, Violation::Gap { revision: 2, unknown: 0 }), "{violation}");
}

/// A read that sees less than was there before it began; one that promises nothing may.
#[test]
fn a_stale_read_is_found() {
    let stale = |consistency| {
        let range = Range { consistency, ..Range::current(KeySet::One("a".into())) };
        [
            (0, 1, put("a", "1"), wrote(1)),
            (2, 3, put("b", "2"), wrote(2)),
            (4, 5, Ask::Range(range), read(1, vec![once("a", "1", 1)])),
        ]
    };
    let violation = broken(&stale(Consistency::Linearizable));
    assert!(matches!(violation, Violation::RealTime { by: By::Revision, .. }), "{violation}");
    assert!(verdict(&stale(Consistency::Stale)).is_ok());
}

/// Even a read that promises nothing can't see what nobody had asked for yet.
#[test]
fn a_read_of_the_future_is_found() {
    let range = Range::current(KeySet::One("a".into()));
    let range = Range { consistency: Consistency::Stale, ..range };
    let violation = broken(&[
        (0, 1, Ask::Range(range), read(1, vec![once("a", "1", 1)])),
        (2, 3, put("a", "1"), wrote(1)),
    ]);
    assert!(matches!(violation, Violation::RealTime { by: By::Revision, .. }), "{violation}");
}

/// An answer with another's revision.
#[test]
fn a_wrong_revision_is_found() {
    let violation = broken(&[
        (0, 1, put("a", "1"), wrote(2)),
        (2, 3, get("a"), read(2, vec![once("a", "1", 1)])),
    ]);
    assert!(matches!(violation, Violation::Gap { revision: 1, .. }), "{violation}");
    let violation = broken(&[(0, 1, delete("a"), deleted(1, 1))]);
    assert!(matches!(violation, Violation::Answer { revision: 0, .. }), "{violation}");
    let violation = broken(&[(0, 1, put("a", "1"), wrote(0))]);
    assert!(matches!(violation, Violation::Change { revision: 0, .. }), "{violation}");
}

/// A write that was definitely not done, and yet is there: by its value, or by its revision.
#[test]
fn a_refused_write_that_was_done_is_found() {
    let violation = broken(&[
        (0, 1, put("a", "1"), refused(Status::Busy)),
        (2, 3, get("a"), read(1, vec![once("a", "1", 1)])),
    ]);
    assert!(matches!(violation, Violation::NotDoneSeen { .. }), "{violation}");
    let violation =
        broken(&[(0, 1, put("a", "1"), refused(Status::Busy)), (2, 3, put("b", "2"), wrote(2))]);
    assert!(matches!(violation, Violation::Gap { revision: 1, .. }), "{violation}");
}

/// A value that nobody wrote.
#[test]
fn a_value_from_nowhere_is_found() {
    let violation = broken(&[
        (0, 1, put("a", "1"), UNKNOWN),
        (2, 3, get("a"), read(1, vec![once("a", "2", 1)])),
    ]);
    assert!(matches!(violation, Violation::FromNowhere { .. }), "{violation}");
}

/// Two writes, one after the other, with revisions the other way round.
#[test]
fn an_order_against_real_time_is_found() {
    let violation = broken(&[(0, 1, put("a", "1"), wrote(2)), (2, 3, put("b", "2"), wrote(1))]);
    assert!(matches!(violation, Violation::RealTime { by: By::Revision, .. }), "{violation}");
    let nothing = || Reply::Put(PutReply::None);
    let violation = broken(&[
        (0, 1, Ask::Nothing, indexed(0, 2, nothing())),
        (2, 3, Ask::Nothing, indexed(0, 1, nothing())),
    ]);
    assert!(matches!(violation, Violation::RealTime { by: By::Index, .. }), "{violation}");
}

/// A call of unknown fate can't have been done before it began.
#[test]
fn an_unknown_write_is_not_done_before_it_began() {
    let calls = |began| {
        [
            (0, 1, put("b", "2"), wrote(2)),
            (began, 9, put("a", "1"), UNKNOWN),
            (5, 6, get("a"), read(2, vec![once("a", "1", 1)])),
        ]
    };
    assert!(verdict(&calls(0)).is_ok());
    let violation = broken(&calls(2));
    assert!(matches!(violation, Violation::Gap { revision: 1, unknown: 1 }), "{violation}");
}

/// The log has a place for every write, and every write a place of its own.
#[test]
fn indexes_that_contradict_revisions_are_found() {
    let nothing = || Reply::Put(PutReply::None);
    let contradictions = [
        vec![(0, 9, put("a", "1"), indexed(1, 0, nothing()))],
        vec![
            (0, 9, put("a", "1"), indexed(1, 5, nothing())),
            (0, 9, put("b", "2"), indexed(2, 5, nothing())),
        ],
        vec![
            (0, 9, put("a", "1"), indexed(2, 5, nothing())),
            (0, 9, put("b", "2"), indexed(1, 6, nothing())),
        ],
        vec![
            (0, 9, put("a", "1"), indexed(1, 5, nothing())),
            (0, 9, put("u", "9"), UNKNOWN),
            (0, 9, put("b", "2"), indexed(3, 6, nothing())),
        ],
    ];
    for calls in contradictions {
        let violation = broken(&calls);
        assert!(matches!(violation, Violation::IndexAgainstRevision { .. }), "{violation}");
    }
}

/// An answer to another question.
#[test]
fn an_answer_of_another_kind_is_found() {
    let violation = broken(&[(0, 1, get("a"), wrote(0))]);
    assert!(matches!(violation, Violation::Shape { .. }), "{violation}");
}

/// Where calls of unknown fate fit only in one way, that way is found.
#[test]
fn the_places_of_unknown_writes_are_searched() {
    // Of the three, only "second" of key a and then the delete of b explain the last read.
    let last = vec![KeyValue { modified: 3, version: 2, ..once("a", "second", 1) }];
    let calls = [
        (0, 1, put("a", "first"), wrote(1)),
        (0, 1, put("b", "1"), wrote(2)),
        (0, 20, put("b", "never"), UNKNOWN),
        (0, 20, put("a", "second"), UNKNOWN),
        (0, 20, delete("b"), UNKNOWN),
        (0, 20, put("d", "5"), wrote(5)),
        (
            21,
            22,
            Ask::Range(Range::current(KeySet::Between("a".into(), "c".into()))),
            read(5, last),
        ),
    ];
    let found = verdict(&calls).expect("it fits");
    assert_eq!((found.placed, found.revisions), (2, 5));
    // And if the read says that b is there as it was, nothing explains revision 4.
    let mut calls = calls;
    let mut keys = vec![KeyValue { modified: 3, version: 2, ..once("a", "second", 1) }];
    keys.push(once("b", "1", 2));
    calls[6].3 = read(5, keys);
    let violation = broken(&calls);
    assert!(matches!(violation, Violation::Answer { .. } | Violation::Gap { .. }), "{violation}");
}

/// Refusals that name a revision must be true.
#[test]
fn wrong_refusals_are_found() {
    let violation = broken(&[
        (0, 1, put("a", "1"), wrote(1)),
        (2, 3, get_at("a", 1), refused(Status::FutureRevision)),
    ]);
    assert!(matches!(violation, Violation::Refusal { asked: 1, .. }), "{violation}");
    let violation = broken(&[
        (0, 1, put("a", "1"), wrote(1)),
        (2, 3, get_at("a", 1), refused(Status::Compacted)),
    ]);
    assert!(matches!(violation, Violation::Refusal { asked: 1, .. }), "{violation}");
    let short = [
        (0, 1, Ask::SetHistory(0), wrote(0)),
        (2, 3, put("a", "1"), wrote(1)),
        (4, 5, put("a", "2"), wrote(2)),
        (6, 7, get_at("a", 1), refused(Status::Compacted)),
    ];
    assert!(verdict(&short).is_ok());
}

/// Goal: after a compaction was done, what it forgot is neither served nor kept by another one; a
/// refusal of what it forgot is right once it may have been done.
#[test]
fn what_was_compacted_stays_so() {
    let puts = |third| {
        vec![
            (0, 1, put("a", "1"), wrote(1)),
            (2, 3, put("a", "2"), wrote(2)),
            (4, 5, Ask::Compact(2), wrote(2)),
            third,
        ]
    };
    let served = (6, 7, get_at("a", 1), read(2, vec![once("a", "1", 1)]));
    let violation = broken(&puts(served));
    assert!(matches!(violation, Violation::Forgotten { asked: 1, to: 2, .. }), "{violation}");
    let violation = broken(&puts((6, 7, Ask::Compact(1), wrote(2))));
    assert!(matches!(violation, Violation::Forgotten { asked: 1, to: 2, .. }), "{violation}");
    assert!(verdict(&puts((6, 7, get_at("a", 1), refused(Status::Compacted)))).is_ok());
    assert!(verdict(&puts((6, 7, Ask::Compact(0), refused(Status::Compacted)))).is_ok());
    assert!(verdict(&puts((6, 7, Ask::Compact(3), refused(Status::FutureRevision)))).is_ok());
    let violation = broken(&puts((6, 7, get_at("a", 2), refused(Status::Compacted))));
    assert!(matches!(violation, Violation::Refusal { asked: 2, .. }), "{violation}");
    let violation = broken(&puts((6, 7, Ask::Compact(2), refused(Status::FutureRevision))));
    assert!(matches!(violation, Violation::Refusal { asked: 2, .. }), "{violation}");
}

/// Numbers that no cluster gives are violations, not panics.
#[test]
fn absurd_numbers_are_violations() {
    let nothing = || Reply::Put(PutReply::None);
    broken(&[(0, 1, put("a", "1"), wrote(u64::MAX))]);
    broken(&[(0, 1, put("a", "1"), indexed(u64::MAX, u64::MAX, nothing()))]);
    broken(&[(0, 1, get_at("a", u64::MAX), read(u64::MAX, vec![once("a", "1", u64::MAX)]))]);
    broken(&[(0, 1, get("a"), indexed(u64::MAX - 1, 0, Reply::Range(list(Vec::new()))))]);
    let limit =
        Range { limit: u32::MAX, bytes_max: u32::MAX, ..Range::current(KeySet::One("a".into())) };
    assert!(verdict(&[(0, 1, Ask::Range(limit), read(0, Vec::new()))]).is_ok());
}

fn applied(index: u64, revision: u64, number: u64, ask: Ask) -> Applied {
    let (index, revision) = (Index(index), Revision(revision));
    Applied { index, revision, session: ClientId(7), number, ask }
}

fn dump(node: u32, applied: Vec<Applied>) -> Dump {
    Dump { node: NodeId(node), group: GROUP, applied }
}

/// What the nodes applied is held against what was acknowledged.
#[test]
fn what_was_applied_is_checked() {
    let told = history(&[
        (0, 1, put("a", "1"), indexed(1, 3, Reply::Put(PutReply::None))),
        (0, 1, put("b", "2"), refused(Status::Busy)),
        (2, 3, put("c", "3"), UNKNOWN),
    ]);
    let a = || applied(3, 1, 1, put("a", "1"));
    let find = |dumps: &[Dump]| check(&told, dumps, Effort::All);
    assert!(find(&[dump(1, vec![a()]), dump(2, Vec::new())]).is_ok());
    assert!(find(&[dump(1, vec![a(), applied(4, 2, 2, put("c", "3"))])]).is_ok());
    let lost = find(&[dump(1, vec![applied(3, 1, 1, put("c", "3"))])]);
    assert!(matches!(lost, Err(Violation::Lost { .. })), "{lost:?}");
    let twice = find(&[dump(1, vec![a(), applied(4, 2, 1, put("a", "1"))])]);
    assert!(matches!(twice, Err(Violation::Session { number: 1, before: 1, .. })), "{twice:?}");
    let twice = find(&[dump(1, vec![a(), applied(4, 2, 2, put("a", "1"))])]);
    assert!(matches!(twice, Err(Violation::AppliedTimes { applied: 2, .. })), "{twice:?}");
    let not_done = find(&[dump(1, vec![a(), applied(4, 2, 2, put("b", "2"))])]);
    assert!(matches!(not_done, Err(Violation::AppliedTimes { done: 0, .. })), "{not_done:?}");
    let wrong = find(&[dump(1, vec![a(), applied(4, 1, 2, put("c", "3"))])]);
    assert!(matches!(wrong, Err(Violation::AppliedRevision { expected: 2, .. })), "{wrong:?}");
    let differ = [
        dump(1, vec![a(), applied(4, 2, 2, put("c", "3"))]),
        dump(2, vec![applied(2, 1, 1, put("c", "3"))]),
    ];
    let differ = find(&differ);
    assert!(matches!(differ, Err(Violation::NodesDiffer { place: 0, .. })), "{differ:?}");
}

/// What one group does says nothing about another.
#[test]
fn groups_are_checked_apart() {
    let mut history = history(&[(0, 1, put("a", "1"), wrote(1))]);
    let name = CallName { client: 9, number: 1 };
    history.invoke(Ticks(5), name, GroupId(2), put("a", "2")).expect("it fits");
    history.end(Ticks(6), name, wrote(1)).expect("it fits");
    let verdict = check(&history, &[], Effort::All).expect("both are right");
    assert_eq!((verdict.groups, verdict.revisions), (2, 2));
}

/// A violation names the rule, the calls and the numbers.
#[test]
fn a_violation_can_be_read() {
    let violation =
        broken(&[(0, 1, put("a", "1"), wrote(1)), (2, 3, get("a"), read(1, Vec::new()))]);
    let expected = "at revision 1 the answer must be {\"range\":{\"count\":1,\"more\":false,\
                    \"keys\":[{\"key\":\"a\",\"value\":\"1\",\"create\":1,\"modified\":1,\
                    \"version\":1}]}} (V9)\n  call 1/1 of group 1, 2..3 us: {\"range\":{\"keys\":\
                    {\"one\":\"a\"}}} -> done, revision 1: \
                    {\"range\":{\"count\":0,\"more\":false,\"keys\":[]}}";
    assert_eq!(violation.to_string(), expected);
}
