//! What is next, where a group may stand.

use super::*;

pub(crate) fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// A group with these members, at entry 9.
pub(crate) fn found(
    phase: Phase,
    voters: &[u32],
    outgoing: &[u32],
    learners: &[u32],
) -> GroupMembers {
    let (voters, outgoing, learners) = (nodes(voters), nodes(outgoing), nodes(learners));
    let configuration = Configuration::new(phase, voters, outgoing, learners, Index(4));
    let configuration = configuration.expect("sound");
    let member = |node: NodeId| Member {
        node,
        incarnation: Incarnation(u64::from(node.get())),
        peer: format!("h:{node}1"),
        client: format!("h:{node}0"),
    };
    let members = configuration.members().map(member).collect();
    GroupMembers {
        index: Index(9),
        is_committed: true,
        members: Members { configuration, members },
        leader: Some(NodeId(1)),
        is_from_leader: true,
        ..GroupMembers::default()
    }
}

fn stable(voters: &[u32], learners: &[u32]) -> GroupMembers {
    found(Phase::Stable, voters, &[], learners)
}

pub(crate) fn newcomer(node: u32, is_placed: bool) -> Newcomer {
    let address = |port| format!("h:{node}{port}").parse().expect("an address");
    let addresses = is_placed.then(|| (address(1), address(0)));
    Newcomer { node: NodeId(node), incarnation: Incarnation(0), addresses }
}

fn replace(old: u32, new: u32) -> Goal {
    Goal::Replace { old: NodeId(old), new: newcomer(new, true) }
}

fn ends(goal: &Goal, found: &GroupMembers) -> (usize, Vec<NodeId>, Vec<NodeId>) {
    let Plan { titles, end, stop } = plan(goal, found, Allow::default());
    assert!(matches!(stop, Next::Nothing(_)), "{stop:?}");
    (titles.len(), end.voters().to_vec(), end.learners().to_vec())
}

fn refused(goal: &Goal, found: &GroupMembers) -> String {
    match plan(goal, found, Allow::default()).stop {
        Next::Refuse { sentence, .. } => sentence,
        other => panic!("{other:?}"),
    }
}

/// Goal: each command comes to its end in as many changes as it takes, and in none where it is done.
#[test]
fn commands_come_to_their_end() {
    let three = stable(&[1, 2, 3], &[]);
    let four = stable(&[1, 2, 3], &[4]);
    let add = Goal::Add(newcomer(4, true));
    assert_eq!(ends(&add, &three), (1, nodes(&[1, 2, 3]), nodes(&[4])));
    assert_eq!(ends(&add, &four), (0, nodes(&[1, 2, 3]), nodes(&[4])));
    let promote = Goal::Promote(NodeId(4));
    assert_eq!(ends(&promote, &four), (1, nodes(&[1, 2, 3, 4]), vec![]));
    assert_eq!(ends(&promote, &stable(&[1, 4], &[])), (0, nodes(&[1, 4]), vec![]));
    let demote = Goal::Demote(NodeId(2));
    assert_eq!(ends(&demote, &four), (1, nodes(&[1, 3]), nodes(&[2, 4])));
    assert_eq!(ends(&demote, &stable(&[1], &[2])), (0, nodes(&[1]), nodes(&[2])));
    let remove = Goal::Remove(NodeId(4));
    assert_eq!(ends(&remove, &four), (1, nodes(&[1, 2, 3]), vec![]));
    assert_eq!(ends(&remove, &three), (0, nodes(&[1, 2, 3]), vec![]));
}

/// Goal: a replacement goes on from wherever it was interrupted, and waits only where its node is
/// to vote.
#[test]
fn a_replacement_goes_on() {
    let goal = replace(3, 4);
    let end = (nodes(&[1, 2, 4]), vec![]);
    for (at, steps) in [
        (stable(&[1, 2, 3], &[]), 2),
        (stable(&[1, 2, 3], &[4]), 1),
        (found(Phase::Joint, &[1, 2, 4], &[1, 2, 3], &[]), 0),
        (stable(&[1, 2, 3, 4], &[]), 1),
        (stable(&[1, 2, 4], &[3]), 1),
        (stable(&[1, 2, 4], &[]), 0),
    ] {
        let (taken, voters, learners) = ends(&goal, &at);
        assert_eq!((taken, (voters, learners)), (steps, end.clone()), "{at:?}");
    }
    let awaits = |at: &GroupMembers| match next(&goal, at, Allow::default()) {
        Next::Change(step) => step.awaits,
        other => panic!("{other:?}"),
    };
    assert_eq!(awaits(&stable(&[1, 2, 3], &[])), Awaits::Nothing);
    assert_eq!(awaits(&stable(&[1, 2, 3], &[4])), Awaits::There(NodeId(4)));
    let unplaced = Goal::Replace { old: NodeId(3), new: newcomer(4, false) };
    assert_eq!(ends(&unplaced, &stable(&[1, 2, 3], &[4])).0, 1, "it is known where it is");
    assert!(refused(&unplaced, &stable(&[1, 2, 3], &[])).contains("wasn't said where"));
}

/// Goal: a change of voters is held, ended or given up; nothing else is done meanwhile.
#[test]
fn a_change_is_held() {
    let prepare = Goal::Prepare { voters: nodes(&[4, 1, 2]), learners: None };
    let at = stable(&[1, 2, 3], &[4, 5]);
    let Next::Change(step) = next(&prepare, &at, Allow::default()) else { panic!() };
    assert!(matches!(step.change, MemberChange::To { is_held: true, .. }));
    assert_eq!(ends(&prepare, &at), (1, nodes(&[1, 2, 4]), nodes(&[5])));
    let held = found(Phase::Held, &[1, 2, 4], &[1, 2, 3], &[5]);
    assert_eq!(ends(&prepare, &held).0, 0);
    assert_eq!(ends(&Goal::Commit, &held), (1, nodes(&[1, 2, 4]), nodes(&[5])));
    assert_eq!(ends(&Goal::Abort, &held), (1, nodes(&[1, 2, 3]), nodes(&[4, 5])));
    assert_eq!(ends(&Goal::Commit, &at).0, 0);
    for goal in [replace(3, 6), Goal::Remove(NodeId(2)), Goal::Promote(NodeId(5))] {
        assert!(refused(&goal, &held).contains("a change is held at entry 9"));
    }
    let other = Goal::Prepare { voters: nodes(&[1, 2]), learners: None };
    assert!(refused(&other, &held).contains("is held"));
    assert!(
        refused(&Goal::Prepare { voters: nodes(&[3, 2, 1]), learners: None }, &at)
            .contains("1, 2, 3 vote already")
    );
    assert!(
        refused(&Goal::Prepare { voters: nodes(&[7]), learners: None }, &at)
            .contains("node 7 is no member")
    );
}

/// Goal: what can't be had is refused with a sentence that names the node.
#[test]
fn what_cannot_be_had_is_refused() {
    let three = stable(&[1, 2, 3], &[4]);
    let elsewhere = Newcomer {
        addresses: Some(("x:1".parse().expect("sound"), "x:2".parse().expect("sound"))),
        ..newcomer(4, true)
    };
    let other_life = Newcomer { incarnation: Incarnation(99), ..newcomer(4, true) };
    for (goal, at, sentence) in [
        (Goal::Promote(NodeId(5)), &three, "node 5 is no member"),
        (Goal::Demote(NodeId(5)), &three, "node 5 is no member"),
        (
            Goal::Add(elsewhere.clone()),
            &three,
            "node 4 listens already, as 0000000000000004 at h:41",
        ),
        (Goal::Add(other_life), &three, "node 4 listens already"),
        (Goal::Replace { old: NodeId(3), new: elsewhere }, &three, "node 4 listens already"),
        (replace(5, 6), &three, "node 5 is no member"),
        (replace(4, 6), &three, "node 4 only listens"),
        (Goal::Remove(NodeId(1)), &stable(&[1], &[2]), "a group needs a voter"),
        (Goal::Demote(NodeId(1)), &stable(&[1], &[2]), "a group needs a voter"),
        (replace(1, 2), &GroupMembers::default(), "the group has no members yet"),
    ] {
        let said = refused(&goal, at);
        assert!(said.contains(sentence), "{said}");
    }
}

/// Goal: what an operator allows by name travels with the change.
#[test]
fn what_is_allowed_travels() {
    let allow = Allow { majority: true, unready: true };
    let Next::Change(step) = next(&Goal::Promote(NodeId(4)), &stable(&[1], &[4]), allow) else {
        panic!()
    };
    let MemberChange::To { target, is_held: false, allow_majority: true, allow_unready: true } =
        step.change
    else {
        panic!("{step:?}")
    };
    assert_eq!(target.members.len(), 2, "with what is known of each");
    assert!(target.encode().is_ok());
}
