//! Members and the client's core: who is asked, what is sent again, and what is known of a change
//! whose answer was lost.

#[allow(dead_code, reason = "shared with the tests of writes and reads")]
mod script;

use ringraft_net::client::Reason;
use ringraft_net::members_wire::{ChangeAsk, Member, MemberChange, Members, MembersReply, Refusal};
use ringraft_net::status::NodeStatus;
use ringraft_types::{Configuration, Incarnation, Index, NodeId, Status, Ticks};
use script::{Fate, GROUP, Script};

const TIMEOUT: Ticks = Ticks::from_millis(5_000);
/// The flag of an answer to a change of which an earlier attempt may have been made.
const WAS_IN_DOUBT: u8 = 1;

fn target() -> Members {
    let voters = (1..4).map(NodeId).collect();
    let configuration = Configuration::first(voters, vec![NodeId(4)]).expect("sound");
    let member = |node| Member {
        node,
        incarnation: Incarnation(0),
        peer: format!("p:{node}"),
        client: format!("c:{node}"),
    };
    Members { members: configuration.members().map(member).collect(), configuration }
}

fn ask(script: &mut Script) -> u64 {
    let deadline = script.now.after(TIMEOUT);
    script.core.submit_members(GROUP, deadline).expect("taken").0
}

fn change(script: &mut Script) -> u64 {
    let (is_held, allow_majority, allow_unready) = (false, false, true);
    let change = MemberChange::To { target: target(), is_held, allow_majority, allow_unready };
    let ask = ChangeAsk { call: 0, expected: Index(5), change };
    let deadline = script.now.after(TIMEOUT);
    script.core.submit_change(GROUP, &ask, deadline).expect("taken").0
}

fn done(call: u64) -> MembersReply<'static> {
    MembersReply { is_leader: true, ..MembersReply::refusal(call, Status::Ok, NodeId(1)) }
}

fn refused(call: u64) -> MembersReply<'static> {
    let (status, refusal) = (Status::Refused, Some(Refusal::Conflict));
    MembersReply { status, refusal, sentence: "no", ..done(call) }
}

/// A question goes to the leader; what another node answers isn't enough, and its hint is followed.
#[test]
fn a_leader_is_asked() {
    let mut script = Script::new(3, 2);
    let call = ask(&mut script);
    script.run();
    assert_eq!(std::mem::take(&mut script.asks), [(2, call, None)]);
    script.leader = 3;
    let (is_leader, leader) = (false, NodeId(3));
    script.answer_members(&MembersReply { is_leader, leader, ..done(call) });
    script.run_for(Ticks::from_millis(100));
    assert_eq!(std::mem::take(&mut script.asks), [(3, call, None)]);
    script.answer_members(&done(call));
    script.run();
    assert!(matches!(script.fate(call), Some(Fate::Done(_))));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// A change is sent again after refusals that say that it wasn't made, as often as it takes; then
/// it isn't in doubt.
#[test]
fn a_change_follows_the_leader() {
    let mut script = Script::new(3, 1);
    let call = change(&mut script);
    script.run();
    let sent = std::mem::take(&mut script.asks);
    assert_eq!(sent.len(), 1);
    let asked = sent[0].2.clone().expect("a change");
    assert_eq!((sent[0].0, asked.call, asked.expected), (1, call, Index(5)));
    let MemberChange::To { target: sent, allow_unready: true, .. } = asked.change else {
        panic!("{asked:?}")
    };
    assert_eq!(sent, target());
    script.leader = 3;
    script.answer_members(&MembersReply::refusal(call, Status::NotLeader, NodeId(3)));
    for status in [Status::NotReady, Status::Busy, Status::NoSpace] {
        script.run_for(Ticks::from_millis(500));
        assert_eq!(std::mem::take(&mut script.asks)[0].0, 3, "{status:?} comes next");
        script.answer_members(&MembersReply::refusal(call, status, NodeId(0)));
    }
    script.run_for(Ticks::from_millis(500));
    script.answer_members(&done(call));
    script.run();
    assert_eq!(script.bodies[&call].0, 0, "no attempt was in doubt");
    let reply = MembersReply::decode(&script.bodies[&call].1).expect("sound");
    assert_eq!(reply, done(call));
}

/// The leader dies with a change in flight: it is sent to the next one, and its answer says that
/// the first attempt may have been made. A refusal is an answer.
#[test]
fn a_lost_answer_leaves_a_doubt() {
    let mut script = Script::new(3, 1);
    let call = change(&mut script);
    script.run();
    assert_eq!(std::mem::take(&mut script.asks)[0].0, 1);
    script.leader = 2;
    script.kill(1);
    script.run_for(Ticks::from_millis(1_000));
    assert_eq!(std::mem::take(&mut script.asks)[0].0, 2);
    script.answer_members(&refused(call));
    script.run();
    let (flags, body) = &script.bodies[&call];
    assert_eq!(*flags, WAS_IN_DOUBT);
    assert_eq!(MembersReply::decode(body), Ok(refused(call)));

    let other = change(&mut script);
    script.run();
    script.answer_members(&refused(other));
    script.run();
    assert_eq!(script.bodies[&other].0, 0, "a doubt is a call's own");
}

/// A change whose deadline passes is unknown if an attempt may have been made, else it is
/// definitely not done. A question has no such trouble.
#[test]
fn deadlines_tell_what_is_known() {
    let mut script = Script::new(3, 1);
    let (unanswered, asked) = (change(&mut script), ask(&mut script));
    script.run();
    assert_eq!(script.asks.len(), 2);
    script.run_for(TIMEOUT);
    assert_eq!(script.fate(unanswered), Some(Fate::Unknown(Reason::Deadline)));
    assert_eq!(script.fate(asked), Some(Fate::NotDone(Reason::Deadline)));

    let mut script = Script::new(3, 1);
    let refused = change(&mut script);
    script.run();
    script.ready = false;
    script.answer_members(&MembersReply::refusal(refused, Status::NotReady, NodeId(0)));
    script.run();
    script.leader = 0;
    script.kill(1);
    script.run_for(TIMEOUT);
    assert_eq!(script.fate(refused), Some(Fate::NotDone(Reason::Deadline)));
    assert_eq!(script.core.calls_under_way(), 0);
}

/// Any node is asked by its address, whoever leads; how it is may be asked beside it, and a broken
/// connection costs a second question.
#[test]
fn one_node_is_asked() {
    let mut script = Script::new(3, 0);
    let deadline = script.now.after(TIMEOUT);
    let call = script.core.submit_members_at("node:3", GROUP, deadline).expect("taken").0;
    let status = script.core.submit_status("node:3", None, deadline).expect("taken").0;
    script.run();
    assert_eq!(std::mem::take(&mut script.asks), [(3, call, None)]);
    let body = &script.bodies[&status].1;
    assert_eq!(NodeStatus::decode(body).expect("a status").node, NodeId(3));
    script.cut(script.link_of(call));
    script.run_for(Ticks::from_millis(500));
    assert_eq!(std::mem::take(&mut script.asks), [(3, call, None)]);
    let (is_leader, leader) = (false, NodeId(0));
    let reply = MembersReply { is_leader, leader, ..done(call) };
    script.answer_members(&reply);
    script.answer_members(&reply);
    script.run();
    assert_eq!(MembersReply::decode(&script.bodies[&call].1), Ok(reply));
    assert_eq!(script.core.calls_under_way(), 0, "a doubled answer finds nobody");
}

/// A late answer, to a call that is over, is nobody else's.
#[test]
fn a_late_answer_finds_nobody() {
    let mut script = Script::new(3, 1);
    let over = change(&mut script);
    // Reads keep the connection from being given up as silent.
    script.run();
    for _ in 0..50 {
        let read = script.read("r");
        script.run_for(Ticks::from_millis(100));
        let (revision, index) = (ringraft_types::Revision(1), Index(1));
        let (status, hint) = (Status::Ok, NodeId(0));
        let reply = ringraft_net::client_wire::Reply {
            call: read,
            status,
            flags: 0,
            revision,
            index,
            hint,
            body: b"",
        };
        script.answer_read(&reply);
    }
    script.run_for(Ticks::from_millis(100));
    assert_eq!(script.fate(over), Some(Fate::Unknown(Reason::Deadline)));
    let next = change(&mut script);
    script.run();
    script.answer_members(&refused(over));
    script.run();
    assert_eq!(script.fate(next), None, "that was another's answer");
    script.answer_members(&done(next));
    script.run();
    assert!(matches!(script.fate(next), Some(Fate::Done(_))));
}

/// A group that no node knows has no members.
#[test]
fn a_group_that_nobody_knows() {
    let mut script = Script::new(3, 1);
    script.knows_group = false;
    let calls = [ask(&mut script), change(&mut script)];
    script.run_for(Ticks::from_millis(2_000));
    for call in calls {
        let fate = script.fate(call);
        assert_eq!(fate, Some(Fate::NotDone(Reason::Refused(Status::NoSuchGroup))));
    }
}
