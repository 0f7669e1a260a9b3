//! The client's core against a scripted server, in virtual time: leaders that move, replies that
//! come twice or never, gaps, evicted sessions, deadlines.

#[allow(dead_code, reason = "shared with the randomized tests")]
mod script;

use ringraft_net::client::{Core, CoreOptions, Reason, SubmitError, Trouble};
use ringraft_net::client_wire::Reply;
use ringraft_net::{FrameError, RefusalCode};
use ringraft_types::{GroupId, Index, NodeId, Revision, Status, Ticks};
use script::{Fate, GROUP, Script};

fn ok<'a>(call: u64, body: &'a [u8]) -> Reply<'a> {
    let (revision, index) = (Revision(7), Index(9));
    Reply { call, status: Status::Ok, flags: 1, revision, index, hint: NodeId(0), body }
}

/// A write and a read find the leader through any endpoint, and are answered.
#[test]
fn finds_the_leader() {
    let mut script = Script::new(3, 2);
    let write = script.write("a");
    let read = script.read("b");
    script.run();
    assert_eq!(script.take_writes(), [(1, "a")]);
    assert_eq!(script.sent_to(write), 2, "node 2 leads");
    script.answer(&ok(write, b"A"));
    script.answer_read(&ok(read, b"B"));
    script.run();
    assert_eq!(script.fate(write), Some(Fate::Done("A".into())));
    assert_eq!(script.fate(read), Some(Fate::Done("B".into())));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// All that is submitted between two turns travels in one frame, numbered without gaps.
#[test]
fn batches_what_is_submitted_together() {
    let mut script = Script::new(1, 1);
    let calls: Vec<_> = (0..100).map(|at| script.write(&format!("{at}"))).collect();
    script.run();
    assert_eq!(script.frames, 1);
    let numbers: Vec<_> = script.take_writes().iter().map(|it| it.0).collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    for &call in &calls {
        script.answer(&ok(call, b""));
    }
    script.run();
    assert!(calls.iter().all(|&call| script.fate(call) == Some(Fate::Done("".into()))));
    script.write("next");
    script.run();
    assert_eq!(script.last_envelope().received, 100, "all before are received");
}

/// A refusal that names the leader sends the client there, in order, under the same numbers.
#[test]
fn follows_a_redirect() {
    let mut script = Script::new(3, 1);
    let calls = [script.write("a"), script.write("b")];
    script.run();
    assert_eq!(script.take_writes().len(), 2);
    script.leader = 3;
    for call in calls {
        script.answer(&Reply::refusal(call, Status::NotLeader, NodeId(3)));
    }
    script.run_for(Ticks::from_millis(100));
    assert_eq!(script.take_writes(), [(1, "a"), (2, "b")]);
    assert_eq!(script.sent_to(calls[0]), 3);
    for call in calls {
        script.answer(&ok(call, b""));
    }
    script.run();
    assert_eq!(script.fate(calls[1]), Some(Fate::Done("".into())));
}

/// The leader dies with writes in flight: all unanswered ones go to the next leader in order under
/// the same numbers, and those answered are not sent again.
#[test]
fn leader_change_in_mid_pipeline() {
    let mut script = Script::new(3, 1);
    let calls: Vec<_> = (0..10).map(|at| script.write(&format!("{at}"))).collect();
    script.run();
    script.take_writes();
    for &call in &calls[..4] {
        script.answer(&ok(call, b""));
    }
    script.run();
    let more = script.write("more");
    script.run();
    script.take_writes();
    script.kill(1);
    script.leader = 2;
    script.run_for(Ticks::from_millis(500));
    let writes = script.take_writes();
    assert_eq!(writes.iter().map(|it| it.0).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(script.last_envelope().received, 4);
    for &call in calls[4..].iter().chain([&more]) {
        script.answer(&ok(call, b""));
    }
    script.run();
    assert_eq!(script.fate(more), Some(Fate::Done("".into())));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A reply that comes twice, or for a call that nobody made, changes nothing.
#[test]
fn duplicate_replies_are_ignored() {
    let mut script = Script::new(1, 1);
    let first = script.write("a");
    script.run();
    script.answer(&ok(first, b"1"));
    script.answer_anywhere(&ok(first, b"2"));
    script.answer_anywhere(&ok(u64::MAX, b"3"));
    let second = script.write("b");
    assert_ne!(first, second, "a slot's next call has another name");
    script.run();
    script.answer_anywhere(&ok(first, b"4"));
    script.run();
    assert_eq!(script.fate(first), Some(Fate::Done("1".into())));
    assert_eq!(script.fate(second), None);
}

/// Busy, and the gaps that follow from it, are sent again in order, on the same connection.
#[test]
fn busy_and_gap_are_retried_in_order() {
    let mut script = Script::new(1, 1);
    let calls: Vec<_> = (0..5).map(|at| script.write(&format!("{at}"))).collect();
    script.run();
    script.take_writes();
    script.answer(&ok(calls[0], b""));
    script.answer(&Reply::refusal(calls[1], Status::Busy, NodeId(0)));
    for &call in &calls[2..4] {
        script.answer(&Reply::refusal(call, Status::Gap, NodeId(0)));
    }
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [], "not before all are answered");
    script.answer(&Reply::refusal(calls[4], Status::Gap, NodeId(0)));
    script.run_for(Ticks::from_millis(50));
    assert_eq!(script.take_writes(), [(2, "1"), (3, "2"), (4, "3"), (5, "4")]);
}

/// At most 1,024 writes of a session are unanswered; the others wait, and go when there is room.
#[test]
fn the_window_is_kept() {
    let mut script = Script::new(1, 1);
    let calls: Vec<_> = (0..1500).map(|_| script.write("x")).collect();
    script.run();
    assert_eq!(script.take_writes().len(), 1024);
    script.answer(&ok(calls[1], b""));
    script.run();
    assert_eq!(script.take_writes().len(), 0, "the first is still unanswered");
    script.answer(&ok(calls[0], b""));
    script.run();
    assert_eq!(script.take_writes().len(), 2);
}

/// Never sent: not done. Sent and unanswered: unknown, and sent again until it is answered, so
/// that its successors find no gap.
#[test]
fn deadlines_tell_unknown_from_not_done() {
    let mut script = Script::new(1, 1);
    script.kill(1);
    let never_sent = script.write("a");
    script.run_for(Ticks::from_millis(6_000));
    assert_eq!(script.fate(never_sent), Some(Fate::NotDone(Reason::Deadline)));
    assert!(matches!(script.core.trouble(), Some(Trouble::Closed { .. })));
    assert_eq!(script.core.calls_under_way(), 0);

    script.revive(1);
    let read = script.read("r");
    let sent = script.write("b");
    script.run_for(Ticks::from_millis(200));
    assert_eq!(script.take_writes(), [(1, "b")], "numbers are given when sending");
    script.run_for(Ticks::from_millis(5_500));
    assert_eq!(script.fate(sent), Some(Fate::Unknown(Reason::Deadline)));
    assert_eq!(script.fate(read), Some(Fate::NotDone(Reason::Deadline)));
    script.take_writes();
    let next = script.write("c");
    // The silent connection is given up and made again.
    let mut writes = Vec::new();
    for _ in 0..200 {
        script.run_for(Ticks::from_millis(10));
        writes = script.take_writes();
        if writes.len() == 2 {
            break;
        }
    }
    assert_eq!(writes, [(1, "b"), (2, "c")], "sent again in order");
    script.answer(&ok(sent, b""));
    script.answer(&ok(next, b""));
    script.run();
    assert_eq!(script.fate(next), Some(Fate::Done("".into())));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// Refused for certain, then out of time: not done, and its number is given to the next write.
#[test]
fn a_refused_write_that_expires_is_not_done() {
    let mut script = Script::new(1, 1);
    let call = script.write("a");
    script.run();
    script.take_writes();
    script.ready = false;
    script.answer(&Reply::refusal(call, Status::NotLeader, NodeId(0)));
    script.run_for(Ticks::from_millis(6_000));
    assert_eq!(script.fate(call), Some(Fate::NotDone(Reason::Deadline)));
    script.ready = true;
    script.write("b");
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "b")]);
}

/// A write refused for good leaves a hole; its successors, refused for the gap, close up.
#[test]
fn an_invalid_write_does_not_hold_up_its_successors() {
    for status in [Status::Invalid, Status::MemoryFull] {
        let mut script = Script::new(1, 1);
        let calls: Vec<_> = ["a", "bad", "c", "d"].iter().map(|it| script.write(it)).collect();
        script.run();
        script.take_writes();
        let session = script.last_envelope().client;
        script.answer(&ok(calls[0], b""));
        script.answer(&Reply::refusal(calls[1], status, NodeId(0)));
        script.answer(&Reply::refusal(calls[2], Status::Gap, NodeId(0)));
        script.answer(&Reply::refusal(calls[3], Status::Gap, NodeId(0)));
        script.run_for(Ticks::from_millis(50));
        assert_eq!(script.fate(calls[1]), Some(Fate::NotDone(Reason::Refused(status))));
        assert_eq!(script.take_writes(), [(2, "c"), (3, "d")]);
        assert_eq!(script.last_envelope().client, session);
    }
}

/// If an attempt of a hole's successor may still lie somewhere, its number is not used again: the
/// successors move to a new session once all before the hole are answered.
#[test]
fn a_hole_before_a_doubtful_write_begins_a_new_session() {
    let mut script = Script::new(2, 1);
    let calls: Vec<_> = ["a", "bad", "c"].iter().map(|it| script.write(it)).collect();
    script.run();
    let session = script.last_envelope().client;
    script.answer(&Reply::refusal(calls[1], Status::Invalid, NodeId(0)));
    script.run();
    script.kill(1);
    script.leader = 2;
    script.applied = 50;
    script.take_writes();
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "a")], "what stands before the hole goes first");
    script.answer(&ok(calls[0], b""));
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "c")]);
    assert_ne!(script.last_envelope().client, session);
    assert_eq!(script.last_envelope().opened, Index(50));
    script.answer(&ok(calls[2], b""));
    script.run();
    assert_eq!(script.fate(calls[2]), Some(Fate::Done("".into())));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A refusal that was logged uses its number up.
#[test]
fn a_logged_refusal_uses_its_number_up() {
    let mut script = Script::new(1, 1);
    let bad = script.write("bad");
    script.run();
    script.take_writes();
    let refusal = Reply::refusal(bad, Status::Compacted, NodeId(0));
    script.answer(&Reply { index: Index(5), ..refusal });
    script.run();
    script.write("b");
    script.run();
    assert_eq!(script.take_writes(), [(2, "b")]);
    assert_eq!(script.fate(bad), Some(Fate::NotDone(Reason::Refused(Status::Compacted))));
}

/// An evicted session: what was sent before is unknown, what was not goes on in a new session
/// that begins at the leader's present.
#[test]
fn an_expired_session_never_applies_twice() {
    let mut script = Script::new(2, 1);
    let doubtful = script.write("a");
    script.run();
    script.take_writes();
    let session = script.last_envelope().client;
    script.kill(1);
    script.leader = 2;
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "a")]);
    let clean = script.write("b");
    script.run();
    assert_eq!(script.take_writes(), [(2, "b")]);
    script.applied = 77;
    script.answer(&Reply::refusal(doubtful, Status::SessionExpired, NodeId(0)));
    script.answer(&Reply::refusal(clean, Status::SessionExpired, NodeId(0)));
    script.run_for(Ticks::from_millis(500));
    let expired = Reason::Refused(Status::SessionExpired);
    assert_eq!(script.fate(doubtful), Some(Fate::Unknown(expired)));
    assert_eq!(script.take_writes(), [(1, "b")]);
    let envelope = script.last_envelope();
    assert_ne!(envelope.client, session);
    assert_eq!((envelope.opened, envelope.received), (Index(77), 0));
}

/// A leader that finds a gap where there is none has lost the session: a new one begins.
#[test]
fn a_lost_session_is_given_up() {
    let mut script = Script::new(1, 1);
    let first = script.write("a");
    script.run();
    script.answer(&ok(first, b""));
    let second = script.write("b");
    script.run();
    script.take_writes();
    let session = script.last_envelope().client;
    for attempt in 1..=8 {
        script.answer(&Reply::refusal(second, Status::Gap, NodeId(0)));
        script.run_for(Ticks::from_millis(250));
        let number = if attempt < 8 { 2 } else { 1 };
        assert_eq!(script.take_writes(), [(number, "b")], "attempt {attempt}");
    }
    assert_ne!(script.last_envelope().client, session);
}

/// A write that is refused for what it is doesn't slow down the next.
#[test]
fn a_final_refusal_makes_no_pause() {
    let mut script = Script::new(1, 1);
    for at in 0..10 {
        let call = script.write("bad");
        script.run();
        assert_eq!(script.take_writes(), [(1, "bad")], "write {at}");
        script.answer(&Reply::refusal(call, Status::Invalid, NodeId(0)));
        script.run();
    }
}

/// "Unknown" from the server makes the write doubtful: it goes on under its number, and a later
/// refusal can't make it "not done".
#[test]
fn a_doubtful_write_is_never_called_not_done() {
    let mut script = Script::new(2, 1);
    let call = script.write("a");
    script.run();
    script.leader = 2;
    script.answer(&Reply::refusal(call, Status::Unknown, NodeId(2)));
    script.take_writes();
    script.run_for(Ticks::from_millis(300));
    assert_eq!(script.take_writes(), [(1, "a")]);
    script.answer(&Reply::refusal(call, Status::Damaged, NodeId(0)));
    script.run_for(Ticks::from_millis(6_000));
    assert_eq!(script.fate(call), Some(Fate::Unknown(Reason::Deadline)));
}

/// A leader that goes silent with requests unanswered is left as soon as another says that it leads,
/// though nothing else is heard of it: not even its address answers.
#[test]
fn a_silent_leader_is_left() {
    let mut script = Script::new(3, 1);
    let (write, read) = (script.write("a"), script.read("b"));
    script.run();
    script.freeze(1);
    script.take_writes();
    script.run_for(Ticks::from_millis(300));
    assert_eq!(script.take_writes(), [], "until somebody else leads it is waited for");
    script.leader = 3;
    script.run_for(Ticks::from_millis(200));
    assert_eq!(script.take_writes(), [(1, "a")]);
    assert_eq!((script.sent_to(write), script.sent_to(read)), (3, 3));
    assert!(matches!(script.core.trouble(), Some(Trouble::Silent { .. })));
    script.answer(&ok(write, b""));
    script.answer_read(&ok(read, b"B"));
    script.run();
    assert_eq!(script.fate(write), Some(Fate::Done("".into())));
    assert_eq!(script.fate(read), Some(Fate::Done("B".into())));
}

/// A leader that was silent for a while and still leads is heard where it was, and goes on to be sent
/// to meanwhile.
#[test]
fn a_slow_leader_is_kept() {
    let mut script = Script::new(3, 1);
    let first = script.write("a");
    script.run();
    script.run_for(Ticks::from_millis(300));
    let second = script.write("b");
    script.run();
    assert_eq!(script.take_writes(), [(1, "a"), (2, "b")]);
    script.answer(&ok(first, b""));
    script.answer(&ok(second, b""));
    script.run();
    let third = script.write("c");
    script.run();
    assert_eq!(script.take_writes(), [(3, "c")]);
    assert_eq!((script.sent_to(second), script.sent_to(third)), (1, 1));
    assert_eq!(script.core.trouble(), None);
}

/// Nobody waits long for a node that takes connections and says nothing.
#[test]
fn a_silent_endpoint_is_passed_over() {
    let mut script = Script::new(3, 3);
    script.freeze(1);
    script.freeze(2);
    script.write("a");
    script.run_for(Ticks::from_millis(300));
    assert_eq!(script.take_writes(), [(1, "a")]);
}

/// A read is asked again elsewhere, and is refused for good when the answer can't change.
#[test]
fn reads_are_retried() {
    let mut script = Script::new(2, 1);
    let calls = [script.read("a"), script.read("b")];
    script.run();
    script.leader = 2;
    script.answer_read(&Reply::refusal(calls[0], Status::NotLeader, NodeId(2)));
    script.answer_read(&Reply::refusal(calls[1], Status::Compacted, NodeId(0)));
    script.run_for(Ticks::from_millis(300));
    assert_eq!(script.fate(calls[1]), Some(Fate::NotDone(Reason::Refused(Status::Compacted))));
    script.answer_read(&ok(calls[0], b"A"));
    script.run();
    assert_eq!(script.fate(calls[0]), Some(Fate::Done("A".into())));
}

/// A group that no node knows is an answer, not a deadline.
#[test]
fn an_unknown_group_is_refused() {
    let mut script = Script::new(3, 1);
    script.knows_group = false;
    let call = script.write("a");
    script.run_for(Ticks::from_millis(1_000));
    let refused = Reason::Refused(Status::NoSuchGroup);
    assert_eq!(script.fate(call), Some(Fate::NotDone(refused)));
}

/// A node that gave a group up says that it doesn't know it: that is no answer, as long as others do.
#[test]
fn what_a_node_gave_up_is_asked_of_the_others() {
    let mut script = Script::new(3, 1);
    let calls = [script.write("a"), script.write("b"), script.read("c")];
    script.run();
    assert_eq!(script.take_writes().len(), 2);
    script.leader = 3;
    for call in &calls[..2] {
        script.answer(&Reply::refusal(*call, Status::NoSuchGroup, NodeId::ZERO));
    }
    script.answer_read(&Reply::refusal(calls[2], Status::NoSuchGroup, NodeId::ZERO));
    script.run_for(Ticks::from_millis(1_000));
    assert_eq!(script.take_writes(), [(1, "a"), (2, "b")]);
    assert_eq!((script.sent_to(calls[0]), script.sent_to(calls[2])), (3, 3));
    script.answer(&ok(calls[0], b""));
    script.answer(&ok(calls[1], b""));
    script.answer_read(&ok(calls[2], b"x"));
    script.run();
    assert_eq!(script.fate(calls[1]), Some(Fate::Done("".into())));
    assert_eq!(script.fate(calls[2]), Some(Fate::Done("x".into())));
}

/// A group that is deleted under its writers: what was refused isn't done, what was out when the
/// connection broke may be, and both are said as soon as no node knows the group.
#[test]
fn what_no_node_has_any_more_is_over() {
    for is_doubtful in [false, true] {
        let mut script = Script::new(3, 1);
        let calls = [script.write("a"), script.write("b")];
        script.run();
        assert_eq!(script.take_writes().len(), 2);
        script.knows_group = false;
        if is_doubtful {
            let link = script.link_of(calls[0]);
            script.cut(link);
        } else {
            for call in calls {
                script.answer(&Reply::refusal(call, Status::NoSuchGroup, NodeId::ZERO));
            }
        }
        script.run_for(Ticks::from_millis(3_000));
        let reason = Reason::Refused(Status::NoSuchGroup);
        let fate = if is_doubtful { Fate::Unknown(reason) } else { Fate::NotDone(reason) };
        for call in calls {
            assert_eq!(script.fate(call), Some(fate.clone()));
        }
        // A later one of the same client goes its way, when there is a group again.
        script.knows_group = true;
        let call = script.write("c");
        script.run_for(Ticks::from_millis(3_000));
        assert!(script.take_writes().iter().any(|it| it.1 == "c"), "it is sent");
        script.answer(&ok(call, b""));
        script.run();
        assert_eq!(script.fate(call), Some(Fate::Done("".into())));
    }
}

/// A connection to the group's own shard is made when another shard answered first.
#[test]
fn connects_to_the_shard_that_owns_the_group() {
    let mut script = Script::new(1, 1);
    script.shard_of_group = 3;
    let call = script.write("a");
    script.run();
    assert_eq!(script.shard_of(call), 3);
}

/// Refused handshakes and bytes that are no frames are told, and don't stop the client.
#[test]
fn trouble_is_told() {
    let mut script = Script::new(1, 1);
    script.refuse = Some(RefusalCode::Busy);
    script.write("a");
    script.run_for(Ticks::from_millis(50));
    assert!(matches!(
        script.core.trouble(),
        Some(Trouble::Refused { code: RefusalCode::Busy, .. })
    ));
    script.refuse = None;
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "a")]);
    script.garble();
    script.run_for(Ticks::from_millis(5));
    let trouble = script.core.trouble().expect("a frame was garbled");
    assert!(matches!(trouble, Trouble::Frame { error: FrameError::Magic { .. }, .. }));
    script.run_for(Ticks::from_millis(500));
    assert_eq!(script.take_writes(), [(1, "a")]);
}

/// Over the limit of calls, and over the limit of a command, nothing is taken.
#[test]
fn limits_are_kept() {
    let mut script = Script::new(1, 1);
    script.kill(1);
    for _ in 0..script::CALLS_MAX {
        script.write("x");
    }
    let deadline = Ticks::from_millis(5_000);
    let busy = script.core.submit_read(GROUP, b"", deadline);
    assert_eq!(busy, Err(SubmitError::Busy { limit: script::CALLS_MAX }));
    let long = vec![0; ringraft_types::limits::COMMAND_BYTES_MAX + 1];
    let refused = script.core.submit_write(GROUP, &long, deadline);
    assert!(matches!(refused, Err(SubmitError::TooLong { .. })));
    script.run_for(Ticks::from_millis(6_000));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A group that was never found is looked for at the nodes that other groups named: the only
/// endpoint may be down.
#[test]
fn other_groups_nodes_are_asked() {
    let mut script = Script::new(3, 2);
    script.core = Core::new(CoreOptions {
        endpoints: vec![String::from("node:1")],
        cluster: None,
        calls_max: 8,
        outbox_bytes_max: 1 << 20,
        seed: 42,
    });
    let first = script.write("a");
    script.run();
    assert_eq!(script.sent_to(first), 2, "node 2 leads, as node 1 says");
    script.answer(&ok(first, b""));
    script.run();
    script.kill(1);
    let deadline = script.now.after(Ticks::from_millis(5_000));
    let second = script.core.submit_write(GroupId(6), b"b", deadline).expect("taken").0;
    script.run_for(Ticks::from_millis(2_000));
    assert_eq!(script.sent_to(second), 2, "node 2 is known from the first group");
}
