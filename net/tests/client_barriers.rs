//! Barriers and levels of writes in the client's core: who is asked how often, what a change of
//! leader costs, and what is said when the time is over.

#[allow(dead_code, reason = "shared with the tests of writes and reads")]
mod script;

use ringraft_net::barrier_wire::BarrierReply;
use ringraft_net::client::{Reason, Shortfall};
use ringraft_net::client_wire::Reply;
use ringraft_types::{Index, Level, NodeId, Revision, Status, Ticks};
use script::{Fate, GROUP, Script};

const TIMEOUT: Ticks = Ticks::from_millis(2_000);

fn barrier(script: &mut Script, index: Option<Index>) -> u64 {
    let deadline = script.now.after(TIMEOUT);
    script.core.submit_barrier(GROUP, Level::All, index, deadline).expect("taken").0
}

fn write(script: &mut Script) -> u64 {
    let deadline = script.now.after(TIMEOUT);
    let call = script.core.submit_write_at_level(GROUP, b"a", Level::AllCommitted, deadline);
    call.expect("taken").0
}

fn reached(call: u64, level: Level, index: u64) -> BarrierReply {
    let (leader, behind) = (NodeId(0), NodeId(0));
    let (index, reached) = (Index(index), Index(index));
    BarrierReply { call, status: Status::Ok, level, leader, index, reached, behind }
}

fn not_reached(call: u64, level: Level, index: u64, at: u64) -> BarrierReply {
    let (status, behind) = (Status::NotReached, NodeId(3));
    BarrierReply { status, reached: Index(at), behind, ..reached(call, level, index) }
}

fn refused(call: u64, level: Level, status: Status, leader: u32) -> BarrierReply {
    let (index, reached_to, leader) = (Index(0), Index(0), NodeId(leader));
    BarrierReply { status, index, reached: reached_to, leader, ..reached(call, level, 1) }
}

fn answer_write(script: &mut Script, call: u64) {
    let (status, revision, index) = (Status::Ok, Revision(7), Index(9));
    let hint = NodeId(0);
    script.answer(&Reply { call, status, flags: 0, revision, index, hint, body: b"A" });
    script.run();
}

/// Takes the one question that arrived.
fn taken(script: &mut Script) -> (u32, Option<Index>, u32) {
    let asks = std::mem::take(&mut script.barriers);
    assert_eq!(asks.len(), 1, "{asks:?}");
    (asks[0].0, asks[0].1.index, asks[0].1.wait_ms)
}

/// The leader is asked for a short while at a time; an answer that names the newest entry is kept,
/// and the last one is the call's when its time is over, before it is over.
#[test]
fn a_barrier_is_asked_again_until_its_time_is_over() {
    let mut script = Script::new(3, 2);
    let call = barrier(&mut script, None);
    script.run();
    assert_eq!(taken(&mut script), (2, None, 500));
    let began = script.now;
    let mut waits = Vec::new();
    script.run_for(Ticks::from_millis(500));
    script.answer_barrier(&not_reached(call, Level::All, 9, 5));
    script.run();
    while script.fate(call).is_none() {
        let (node, index, wait) = taken(&mut script);
        assert_eq!((node, index), (2, Some(Index(9))));
        waits.push(wait);
        script.run_for(Ticks::from_millis(u64::from(wait)));
        script.answer_barrier(&not_reached(call, Level::All, 9, 7));
        script.run();
    }
    let took = script.now.since(began);
    assert!(took <= TIMEOUT && took >= Ticks::from_millis(1_950), "{took}");
    assert!(waits.len() < 8, "{waits:?}");
    let reply = BarrierReply::decode(&script.bodies[&call].1).expect("sound");
    assert_eq!(
        (reply.status, reply.reached, reply.behind),
        (Status::NotReached, Index(7), NodeId(3))
    );
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A leader that leads no more, or is busy, or dies, costs another question to whoever leads then.
#[test]
fn a_barrier_follows_the_leader() {
    let mut script = Script::new(3, 1);
    let call = barrier(&mut script, Some(Index(4)));
    script.run();
    assert_eq!(taken(&mut script), (1, Some(Index(4)), 500));
    script.leader = 3;
    script.answer_barrier(&refused(call, Level::All, Status::LeadershipLost, 3));
    script.run_for(Ticks::from_millis(100));
    assert_eq!(taken(&mut script).0, 3);
    script.answer_barrier(&refused(call, Level::All, Status::Busy, 0));
    script.run_for(Ticks::from_millis(300));
    assert_eq!(taken(&mut script).0, 3);
    script.leader = 2;
    script.kill(3);
    script.run_for(Ticks::from_millis(500));
    assert_eq!(taken(&mut script).0, 2);
    script.answer_barrier(&reached(call, Level::All, 4));
    script.run();
    assert!(matches!(script.fate(call), Some(Fate::Done(_))));
    // An answer that comes twice finds nobody.
    script.answer_barrier(&reached(call, Level::All, 4));
    script.run();
}

/// Nobody leads: nothing is known of the level. A node that won't ever is believed.
#[test]
fn a_barrier_that_nobody_answers_is_not_done() {
    let mut script = Script::new(3, 1);
    let call = barrier(&mut script, Some(Index(4)));
    script.ready = false;
    script.run_for(Ticks(2 * TIMEOUT.0));
    assert_eq!(script.fate(call), Some(Fate::NotDone(Reason::Deadline)));
    script.ready = true;
    let call = barrier(&mut script, Some(Index(4)));
    script.run_for(Ticks::from_millis(500));
    script.answer_barrier(&refused(call, Level::All, Status::Damaged, 0));
    script.run();
    assert_eq!(script.fate(call), Some(Fate::NotDone(Reason::Refused(Status::Damaged))));
}

/// A write waits for its level when it is applied, at its own entry, also across a change of
/// leader; its answer is the write's. Its place in the session is free meanwhile.
#[test]
fn a_write_waits_for_its_level() {
    let mut script = Script::new(3, 1);
    let call = write(&mut script);
    script.run();
    assert!(script.barriers.is_empty(), "first it is done");
    answer_write(&mut script, call);
    assert_eq!(script.fate(call), None);
    assert_eq!(taken(&mut script), (1, Some(Index(9)), 500));
    let other = script.write("b");
    script.run();
    assert_eq!(script.last_envelope().received, 1);
    answer_write(&mut script, other);
    assert!(matches!(script.fate(other), Some(Fate::Done(_))), "a majority is enough for it");
    script.leader = 2;
    script.kill(1);
    script.run_for(Ticks::from_millis(500));
    assert_eq!(taken(&mut script).0, 2);
    script.answer_barrier(&reached(call, Level::AllCommitted, 9));
    script.run();
    assert_eq!(script.fate(call), Some(Fate::Done("A".into())));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A write whose level isn't reached in time was done all the same, and says so: also if nobody
/// answered the barrier, or nobody ever will.
#[test]
fn a_write_below_its_level_is_done() {
    let level = Level::AllCommitted;
    let (last, deadline) = (Some(Index(5)), Reason::Deadline);
    let nobody = Reason::Refused(Status::NoSuchGroup);
    for (reached, reason) in [(last, deadline), (None, deadline), (last, nobody)] {
        let mut script = Script::new(3, 1);
        let call = write(&mut script);
        script.run();
        answer_write(&mut script, call);
        if reached.is_some() {
            script.answer_barrier(&not_reached(call, level, 9, 5));
            script.run();
        }
        if reason == nobody {
            script.knows_group = false;
            script.kill(1);
        }
        script.run_for(Ticks(2 * TIMEOUT.0));
        let behind = reached.map(|_| NodeId(3));
        let lacks = Shortfall { level, reached, behind, reason };
        assert_eq!(script.fate(call), Some(Fate::Below("A".into(), lacks)));
        assert_eq!(script.core.calls_under_way(), 0);
    }
}

/// A write that isn't done is as before: its level is nobody's concern.
#[test]
fn a_write_that_is_refused_has_no_level() {
    let mut script = Script::new(1, 1);
    let call = write(&mut script);
    script.run();
    script.answer(&Reply::refusal(call, Status::Invalid, NodeId(0)));
    script.run();
    assert_eq!(script.fate(call), Some(Fate::NotDone(Reason::Refused(Status::Invalid))));
    let late = write(&mut script);
    script.run_for(Ticks(2 * TIMEOUT.0));
    assert_eq!(script.fate(late), Some(Fate::Unknown(Reason::Deadline)));
    // It is answered when nobody waits any more.
    if script.is_known(late) {
        answer_write(&mut script, late);
    }
    assert!(script.barriers.is_empty());
}
