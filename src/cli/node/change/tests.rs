//! What is told of plans and outcomes.

use super::*;
use crate::changes::plan::tests::{found, newcomer};
use ringraft_net::members_wire::Refusal;
use ringraft_types::Phase;

fn goal() -> Goal {
    Goal::Replace { old: NodeId(3), new: newcomer(4, true) }
}

fn work(group: u64, goal: &Goal, found: GroupMembers, expected: Option<u64>) -> Work {
    Work::planned(GroupId(group), found, goal, expected, Allow::default())
}

fn three() -> GroupMembers {
    found(Phase::Stable, &[1, 2, 3], &[], &[])
}

/// Goal: a person sees of each group what it is, what it would be, and by which steps; then what
/// came of it, with the reason and the cure of what went wrong.
#[test]
fn tables_tell_every_group() {
    let after = found(Phase::Stable, &[1, 2, 4], &[], &[]);
    let planned = work(1, &goal(), three(), None);
    let already = work(2, &goal(), after.clone(), None);
    let refused = work(3, &goal(), found(Phase::Stable, &[1, 2], &[], &[]), None);
    let done = |group| {
        let outcome = Outcome::Done(Box::new(after.clone()));
        Work { outcome, ..work(group, &goal(), three(), None) }
    };
    let works = [planned, already, refused, done(4), done(5), done(6)];
    let table = show::to_table(&works);
    let lines: Vec<String> =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "GROUPS FROM TO RESULT",
            "1 1, 2, 3 1, 2, 4 node 4 listens, then node 4 votes once it has caught up, node 3 \
             leaves",
            "2 1, 2, 4 1, 2, 4 node 4 votes, and node 3 is no member",
            "3 1, 2 - NOT AS WANTED",
            "4-6 1, 2, 3 1, 2, 4 done",
            "group 3: node 3 is no member, so that nobody can take its place",
            "cure: to have one more voter, use `ringraft node add` and `promote`",
        ],
        "{table}"
    );
    let json = show::to_json(&works);
    let results: Vec<_> = (0..4).map(|at| json["groups"][at]["result"].clone()).collect();
    assert_eq!(results, ["planned", "already", "failed", "done"]);
    assert_eq!(json["groups"][0]["to"]["voters"], serde_json::json!([1, 2, 4]));
    assert_eq!(json["groups"][0]["entry"], 9);
    assert_eq!(json["groups"][2]["failure"]["error"], "not_done");
    let held = found(Phase::Held, &[1, 2, 4], &[1, 2, 3], &[5]);
    assert_eq!(show::members(&held.members.configuration), "1, 2, 3 and 1, 2, 4 + 5");
}

/// Goal: a script learns the worst that came of any group; a plan alone changes nothing.
#[test]
fn the_worst_is_the_exit_code() {
    let outcome = |exit| Outcome::Failed(Failure::new(exit, "it failed"));
    let with = |outcome| Work { outcome, ..work(1, &goal(), three(), None) };
    let done = || with(Outcome::Already(String::new()));
    assert_eq!(exit_code(&[]), Exit::Ok);
    assert_eq!(exit_code(&[done()]), Exit::Ok);
    assert_eq!(exit_code(&[done(), with(Outcome::Planned)]), Exit::NotDone);
    let lost = || with(outcome(Exit::Unavailable));
    assert_eq!(exit_code(&[done(), lost()]), Exit::Unavailable);
    assert_eq!(exit_code(&[lost(), with(outcome(Exit::NotDone))]), Exit::NotDone);
    let unknown = with(outcome(Exit::Unknown));
    assert_eq!(exit_code(&[with(outcome(Exit::NotDone)), unknown]), Exit::Unknown);
}

/// Goal: a change that is meant for another configuration isn't even planned.
#[test]
fn what_is_expected_is_compared() {
    let expected = |entry| work(1, &goal(), three(), Some(entry)).outcome;
    assert!(matches!(expected(9), Outcome::Planned));
    let Outcome::Failed(failure) = expected(8) else { panic!("entry 9 is in force") };
    assert!(failure.message.contains("entry 9 is in force, and 8 was expected"));
}

/// Goal: a change that is under way is waited for, though it leads where it is wanted.
#[test]
fn what_is_under_way_is_waited_for() {
    let joint = found(Phase::Joint, &[1, 2, 4], &[1, 2, 3], &[]);
    let uncommitted =
        GroupMembers { is_committed: false, ..found(Phase::Stable, &[1, 2, 4], &[], &[]) };
    for found in [joint, uncommitted] {
        let work = work(1, &goal(), found, None);
        assert!(matches!(work.outcome, Outcome::Planned), "{work:?}");
        let table = show::to_table(&[work]);
        assert!(table.contains("1, 2, 4  the change under way goes through"), "{table}");
    }
}

/// Goal: where a newcomer is reached is known from any group that has it.
#[test]
fn addresses_are_shared() {
    let goal = Goal::Replace { old: NodeId(3), new: newcomer(4, false) };
    let with_four = found(Phase::Stable, &[1, 2, 3], &[], &[4]);
    let mut works = vec![work(1, &goal, three(), None), work(2, &goal, with_four, None)];
    assert!(matches!(works[0].outcome, Outcome::Failed(_)), "nobody said where it is");
    let goal = share_addresses(&mut works, &goal, None, Allow::default());
    assert_eq!(goal, self::goal(), "it is used from then on");
    assert!(works.iter().all(|work| matches!(work.outcome, Outcome::Planned)));
}

/// Goal: what a leader refuses comes with a cure that names the flag, if there is one.
#[test]
fn refusals_have_cures() {
    let refused = |refusal| {
        let sentence = "the leader says why".to_owned();
        told(ChangeError::Refused { refusal, sentence, found: Box::default() })
    };
    for (refusal, flag) in [
        (Refusal::AddsMajority, "--allow-majority"),
        (Refusal::Behind, "--allow-unready"),
        (Refusal::Unreachable, "--allow-unready"),
        (Refusal::NoReadyMajority, "--allow-unready"),
        (Refusal::Conflict, "read the members again"),
        (Refusal::Unfit, "repair it"),
        (Refusal::WhichLife, "--incarnation"),
    ] {
        let failure = refused(refusal);
        assert_eq!((failure.exit, &*failure.message), (Exit::NotDone, "the leader says why"));
        assert!(failure.cure.as_ref().is_some_and(|cure| cure.contains(flag)), "{failure:?}");
    }
    let found = Box::default();
    assert_eq!(told(ChangeError::NotSettled { found }).exit, Exit::Unknown);
    let behind = GroupMembers {
        commit: ringraft_types::Index(5_000),
        peers: vec![ringraft_net::members_wire::Peer {
            node: NodeId(4),
            is_heard: true,
            matched: ringraft_types::Index(766),
            ..Default::default()
        }],
        ..GroupMembers::default()
    };
    assert_eq!(lack(&behind, NodeId(4)), "node 4 catches up, 4,234 entries behind");
    assert_eq!(lack(&behind, NodeId(5)), "node 5 isn't heard of yet");
}
