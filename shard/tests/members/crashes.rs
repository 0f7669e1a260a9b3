//! Members that change while power fails, leaders are lost, and directories are put back.

use super::*;
use ringraft_types::Phase;

/// How a held change ends.
type Change = fn() -> MemberChange<'static>;

fn commit() -> MemberChange<'static> {
    MemberChange::Commit
}

fn abort() -> MemberChange<'static> {
    MemberChange::Abort
}

/// Asks until whoever leads has done it, or says that it is done.
fn end_soon(world: &mut World, expected: Index, change: Change) -> NodeId {
    for _ in 0..100 {
        let leader = world.elect();
        if end(world, leader, expected, change()).is_ok() {
            world.run_for(SECOND);
            return leader;
        }
        world.run_for(Ticks::from_millis(100));
    }
    panic!("it is refused for ten seconds");
}

/// What a node knows to be in force.
fn in_force(world: &mut World, node: NodeId) -> (Index, Phase, Vec<NodeId>, Vec<NodeId>) {
    let members = world.shard(node).members(GROUP).expect("the group is here");
    let known = &members.configuration;
    (members.index, known.phase(), known.voters().to_vec(), known.outgoing().to_vec())
}

/// No two of the nodes that run lead in one term.
fn assert_one_leader(world: &World, what: &str) {
    let mut led = BTreeSet::new();
    for node in world.running() {
        let group = world.group(node);
        let is_leader = group.role == GroupRole::Leader;
        assert!(!is_leader || led.insert(group.term), "{what}: two lead in term {}", group.term);
    }
}

/// Power fails at every moment of a change on a majority of the voters before and of those after, each
/// disk keeping another part of what no sync covered. While they are down nobody leads by what is
/// left; when they are back there is one configuration, which is the one or the other, and every write
/// that was acknowledged (M10).
#[test]
fn m10_power_fails_on_a_majority_while_members_change() {
    let mut ends = BTreeSet::new();
    for moment in 0..20u64 {
        for stays_down in [false, true] {
            let mut world = World::new(60 + moment % 2, 3, 1);
            world.elect();
            world.join(NodeId(4));
            world.join(NodeId(5));
            let leader = Ask::of(&[1, 2, 3], &[4, 5]).soon(&mut world);
            (1..=5).for_each(|sequence| write(&mut world, leader, sequence));
            // One stays, two leave, two come.
            let before: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != leader.0).collect();
            let after = [leader.0, 4, 5];
            let allow = Allow { majority: true, ..Allow::default() };
            let ask = Ask { allow, ..Ask::of(&after, &[]) };
            ask.at(&mut world, leader).expect("nothing is under way");
            world.send_put(leader, 1, 6, b"6", b"v6;");
            world.run_for(Ticks(moment * 90));
            let what = format!("moment {moment}, {stays_down}");
            let hit = [leader, NodeId(before[0]), NodeId(4)];
            for (at, &node) in hit.iter().enumerate() {
                let part = moment as usize + at;
                world.kill(node, |sector| !(sector + part).is_multiple_of(2 + at));
            }
            if stays_down {
                world.run_for(Ticks::from_millis(2_000));
                let leads = |node: &NodeId| world.leads(*node, GROUP);
                let led = world.running().iter().any(leads);
                assert!(!led, "{what}: a minority of both decides");
            }
            for node in hit {
                world.start(node);
            }
            let next = world.elect();
            assert_one_leader(&world, &what);
            write(&mut world, next, 6);
            world.run_for(Ticks::from_millis(3_000));
            assert_one_leader(&world, &what);
            let next = world.elect();
            let found = roles(&mut world, next);
            for node in world.nodes() {
                assert_eq!(roles(&mut world, node), found, "{what}: node {node}");
            }
            check_writes(&mut world, next, 6);
            // Of those who decide now, any majority holds all of it.
            let voters = found.0.clone();
            let gone = *voters.iter().find(|&&node| node == next).expect("who leads votes");
            world.kill(gone, |_| false);
            let next = world.elect();
            check_writes(&mut world, next, 6);
            ends.insert(voters.contains(&NodeId(5)));
        }
    }
    assert_eq!(ends.len(), 2, "it is carried through, or never was: {ends:?}");
}

/// The leader is lost at each moment of going on from a held change, or back from it: the next one is
/// asked again, as often as one likes, and it is done once (A26).
#[test]
fn a26_the_end_of_a_held_change_survives_its_leader() {
    for (is_aborted, change) in [(false, commit as Change), (true, abort)] {
        for moment in 0..14u64 {
            let mut world = World::new(61, 3, 1);
            world.elect();
            world.join(NodeId(4));
            Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
            let first = Ask { is_held: true, ..Ask::of(&[1, 2, 3, 4], &[]) }.soon(&mut world);
            write(&mut world, first, 1);
            let held = world.shard(first).members(GROUP).expect("it is here").index;
            end(&mut world, first, held, change()).expect("it is held");
            world.run_for(Ticks(moment * 90));
            world.kill(first, |sector| sector % 2 == 0);
            let what = format!("aborted: {is_aborted}, moment {moment}");
            // A learner that was to vote may lead meanwhile.
            end_soon(&mut world, held, change);
            let next = world.elect();
            let done = world.shard(next).members(GROUP).expect("it is here").index;
            assert!(done > held, "{what}");
            let again = end(&mut world, next, held, change());
            assert_eq!(again, Ok(done), "{what}: it is done");
            world.start(first);
            world.run_for(Ticks::from_millis(2_000));
            let expected = if is_aborted { (3, ids(&[4])) } else { (4, Vec::new()) };
            for node in world.nodes() {
                let (voters, learners) = roles(&mut world, node);
                assert_eq!((voters.len(), learners), expected, "{what}: node {node}");
            }
            let next = world.elect();
            write(&mut world, next, 2);
            check_writes(&mut world, next, 2);
        }
    }
}

/// The promotion of a learner falls into snapshots while it isn't done, and its leader dies. Who was
/// away learns of it by a snapshot only; all know the same voters, also after every node lost power,
/// and there is a leader by the learner's vote alone (A31).
#[test]
fn a31_a_promotion_in_a_snapshot_outlives_its_leader() {
    let rules = SnapshotRules { lag_bytes: 0, log_bytes: 0, ..SnapshotRules::default() };
    let mut world = World::with_rules(62, 3, 1, rules);
    let leader = world.elect();
    write(&mut world, leader, 1);
    world.join(NodeId(4));
    let leader = Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    let away = *world.nodes().iter().find(|&&it| it != leader && it != NodeId(4)).expect("three");
    world.kill(away, |_| true);
    let held = Ask { is_held: true, ..Ask::of(&[1, 2, 3, 4], &[]) };
    let leader = held.soon(&mut world);
    (2..=20).for_each(|sequence| write(&mut world, leader, sequence));
    for node in world.running() {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
    }
    world.run_for(Ticks::from_millis(5_000));
    let known = in_force(&mut world, leader);
    assert_eq!(known.1, Phase::Held);
    world.kill(leader, |sector| sector % 2 == 0);
    world.start(away);
    let next = world.elect();
    world.run_for(Ticks::from_millis(3_000));
    let installed = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { .. });
    assert!(world.events(away).iter().any(installed), "there was no other way");
    write(&mut world, next, 21);
    let running = world.running();
    for &node in &running {
        assert_eq!(in_force(&mut world, node), known, "node {node}");
        world.kill(node, |_| false);
    }
    for &node in &running {
        world.start(node);
        assert_eq!(in_force(&mut world, node), known, "node {node}, from its snapshot");
    }
    // Three of four voters are there: the learner that is to vote is one of them.
    assert!(running.contains(&NodeId(4)) && running.len() == 3);
    let next = world.elect();
    check_writes(&mut world, next, 21);
    end_soon(&mut world, known.0, commit);
    world.start(leader);
    world.run_for(Ticks::from_millis(3_000));
    for node in world.nodes() {
        assert_eq!(roles(&mut world, node), (ids(&[1, 2, 3, 4]), ids(&[])), "node {node}");
    }
    world.assert_converged();
}

/// A node whose directory was put back from an older copy is barred: neither its votes nor its
/// acknowledgements count. It comes back as any other that forgot: formatted anew, as a learner first
/// (S36).
#[test]
fn s36_who_was_put_back_rejoins_as_a_learner() {
    let mut world = World::new(63, 3, 1);
    world.redials();
    let leader = world.elect();
    (1..=5).for_each(|sequence| write(&mut world, leader, sequence));
    let node = *world.nodes().iter().rfind(|&&node| node != leader).expect("there are three");
    let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&id| id != node.0).collect();
    world.kill(node, |_| true);
    let copy = world.copy(node);
    world.start(node);
    world.run_for(SECOND);
    (6..=9).for_each(|sequence| write(&mut world, leader, sequence));
    world.kill(node, |_| true);
    world.put_back(node, copy);
    world.start(node);
    world.run_for(SECOND);
    assert_ne!(world.take_refused(), [], "they met it since");
    let other = NodeId(*rest.iter().find(|&&id| id != leader.0).expect("there are two"));
    // With the copy there would be a majority.
    world.kill(other, |_| true);
    world.run_for(Ticks::from_millis(2_000));
    assert!(!world.leads(leader, GROUP) && !world.leads(node, GROUP), "the copy counts");
    world.start(other);
    Ask::of(&rest, &[]).soon(&mut world);
    world.kill(node, |_| true);
    world.wipe(node, 900);
    Ask { life: 900, ..Ask::of(&rest, &[node.0]) }.soon(&mut world);
    world.start(node);
    world.run_for(SECOND);
    assert_eq!(roles(&mut world, node), (ids(&rest), vec![node]), "it listens");
    Ask::of(&[1, 2, 3], &[]).soon(&mut world);
    world.run_for(SECOND);
    world.assert_converged();
    let leader = world.elect();
    write(&mut world, leader, 10);
    check_writes(&mut world, leader, 10);
}
