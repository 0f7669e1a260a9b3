//! Idle groups hibernate: they cost no messages, and are there again when they are needed.

use crate::world::{GROUP, World};
use ringraft_net::client_wire::{Consistency, Local};
use ringraft_net::status::GroupRole;
use ringraft_types::{GroupId, Index, NodeId, Status, Ticks};
use std::collections::BTreeMap;

const SECOND: Ticks = Ticks::from_millis(1_000);

/// Three nodes whose groups rest.
fn at_rest(seed: u64, groups: u64) -> World {
    let mut world = World::new(seed, 3, groups);
    world.hibernate(Ticks::from_millis(500));
    for node in world.nodes() {
        world.kill(node, |_| true);
        world.start(node);
    }
    world.elect();
    rest(&mut world, groups);
    world
}

fn rest(world: &mut World, groups: u64) {
    for _ in 0..10 {
        world.run_for(SECOND);
        let mut running = world.running();
        running.retain(|&node| world.shard(node).groups_hibernating() != groups);
        if running.is_empty() {
            return;
        }
    }
    panic!("they don't come to rest");
}

/// Who leads each group, and in which term.
fn leaders(world: &World) -> BTreeMap<GroupId, (NodeId, u64)> {
    let mut leaders = BTreeMap::new();
    for node in world.running() {
        for group in world.groups(node).iter().filter(|it| it.role == GroupRole::Leader) {
            let is_newer = |known: &&(NodeId, u64)| known.1 > group.term.0;
            if leaders.get(&group.group).filter(is_newer).is_none() {
                leaders.insert(group.group, (node, group.term.0));
            }
        }
    }
    leaders
}

/// Runs until all groups are led by some of the nodes, and says how long that took, milliseconds.
fn led_within(world: &mut World, groups: u64, among: &[NodeId]) -> u64 {
    for past in 0..1_000 {
        let led = leaders(world).values().filter(|it| among.contains(&it.0)).count();
        if led as u64 == groups {
            return past * 10;
        }
        world.run_for(Ticks::from_millis(10));
    }
    panic!("not all groups are led after ten seconds");
}

/// MG-04: what idle groups cost is one frame in a heartbeat interval for each pair of shards, however
/// many they are.
#[test]
fn idle_groups_cost_no_messages() {
    let cost = |groups: u64| {
        let mut world = at_rest(1, groups);
        let before: Vec<(u64, u64)> = counted(&mut world);
        world.run_for(Ticks::from_millis(4_000));
        let after = counted(&mut world);
        let frames =
            after.iter().map(|it| it.0).sum::<u64>() - before.iter().map(|it| it.0).sum::<u64>();
        let bytes =
            after.iter().map(|it| it.1).sum::<u64>() - before.iter().map(|it| it.1).sum::<u64>();
        (frames, bytes)
    };
    let (few, many) = (cost(3), cost(300));
    // Of six pairs, a frame every 50 ms.
    let expected = 6 * 4_000 / 50;
    for (frames, bytes) in [few, many] {
        assert!(frames >= expected / 2 && frames <= expected + 12, "{frames} of {expected}");
        assert!(bytes <= frames * 128, "{bytes} bytes in {frames} frames");
    }
}

fn counted(world: &mut World) -> Vec<(u64, u64)> {
    let nodes = world.nodes();
    let metrics = nodes.iter().map(|&node| {
        let metrics = world.shard(node).metrics();
        (metrics.peer_frames, metrics.peer_bytes)
    });
    metrics.collect()
}

/// What is asked of a group that hibernates is done as ever, by its leader and elsewhere, and nobody
/// takes over.
#[test]
fn a_group_that_is_used_wakes() {
    let mut world = at_rest(2, 2);
    let before = leaders(&world);
    let leader = before[&GROUP].0;
    let follower = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    assert_eq!(world.shard(leader).groups_hibernating(), 1, "the other one isn't needed");
    for of in [Consistency::Lease, Consistency::Linearizable] {
        for node in [leader, follower] {
            rest(&mut world, 2);
            let of = if node == leader { of } else { Consistency::Linearizable };
            let answer = world.get_of(node, b"a", of);
            assert_eq!(answer.status, Status::Ok, "{of:?} of {node}");
        }
    }
    // What a node heard of its leader is as new as what it heard of its shard.
    rest(&mut world, 2);
    world.run_for(Ticks::from_millis(5_000));
    let local =
        |age_ms_max| Consistency::Local(Local { at_least: Index::ZERO, wait_ms: 0, age_ms_max });
    for node in [leader, follower] {
        assert_eq!(world.get_of(node, b"a", local(200)).status, Status::Ok);
        assert_eq!(world.shard(node).groups_hibernating(), 2, "and wakes nobody");
    }
    for other in world.nodes() {
        if other != follower {
            world.cut(follower, other);
        }
    }
    world.run_for(Ticks::from_millis(250));
    assert_eq!(world.get_of(follower, b"a", local(200)).status, Status::TooStale);
    world.heal();
    world.run_for(SECOND);
    assert_eq!(leaders(&world), before, "nobody was deposed");
    world.assert_converged();
}

/// N15: the node that led hundreds of groups that hibernate is killed, or only silent: each has a leader
/// again soon, with about one election for each; and when the node is back it follows.
#[test]
fn n15_groups_that_hibernate_outlive_their_leaders_node() {
    const GROUPS: u64 = 300;
    for is_killed in [true, false] {
        let mut world = at_rest(3, GROUPS);
        let before = leaders(&world);
        let led_by = |node| before.values().filter(|it| it.0 == node).count() as u64;
        let node = world.nodes().into_iter().max_by_key(|&node| led_by(node)).expect("three");
        let lost = led_by(node);
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&it| it != node).collect();
        if is_killed {
            world.kill(node, |_| true);
        } else {
            world.freeze(node, true);
        }
        // Of those that run.
        let elections = world.elections();
        let took = led_within(&mut world, GROUPS, &others);
        assert!(took <= 1_500, "{lost} of {GROUPS} groups were led again after {took} ms");
        let held = world.elections() - elections;
        assert!(held <= lost * 3 / 2, "{held} elections for {lost} groups");
        // The others stayed where they were.
        let after = leaders(&world);
        let moved = before.iter().filter(|(group, led)| led.0 != node && after[group] != **led);
        assert_eq!(moved.count(), 0);
        // They rest again without it.
        rest_of(&mut world, &others, GROUPS);
        if is_killed {
            world.start(node);
        } else {
            world.freeze(node, false);
        }
        world.run_for(SECOND);
        rest(&mut world, GROUPS);
        assert_eq!(leaders(&world), after, "who comes back disturbs nobody");
        world.assert_converged();
    }
}

fn rest_of(world: &mut World, nodes: &[NodeId], groups: u64) {
    for _ in 0..10 {
        world.run_for(SECOND);
        if nodes.iter().all(|&node| world.shard(node).groups_hibernating() == groups) {
            return;
        }
    }
    let resting: Vec<u64> =
        nodes.iter().map(|&node| world.shard(node).groups_hibernating()).collect();
    panic!("{resting:?} of {groups} groups rest on {nodes:?}");
}

/// Where one node never hibernates the leader doesn't, and nobody is deposed for that.
#[test]
fn one_node_that_never_does_keeps_the_leader_awake() {
    let mut world = at_rest(5, 1);
    let before = leaders(&world);
    let leader = before[&GROUP].0;
    let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    world.hibernate(Ticks::ZERO);
    world.kill(node, |_| true);
    world.start(node);
    world.run_for(SECOND);
    for _ in 0..50 {
        world.run_for(Ticks::from_millis(100));
        assert_eq!(world.shard(leader).groups_hibernating(), 0);
        assert_eq!(world.shard(node).groups_hibernating(), 0);
    }
    assert_eq!(leaders(&world), before, "nobody was deposed");
}

/// A leader that rests loses its voters one after the other, leads no more, and what it had taken is
/// there in the end.
#[test]
fn a_leader_that_rests_loses_its_majority() {
    let mut world = at_rest(4, 1);
    let leader = leaders(&world)[&GROUP].0;
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != leader).collect();
    assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    rest(&mut world, 1);
    world.freeze(others[0], true);
    rest_of(&mut world, &[leader, others[1]], 1);
    world.freeze(others[1], true);
    world.run_for(SECOND);
    assert!(!world.leads(leader, GROUP), "it can't know whether another one leads");
    world.freeze(others[0], false);
    world.freeze(others[1], false);
    let leader = world.elect();
    assert!(world.get(leader, b"a").1.ends_with(b"1"));
    rest(&mut world, 1);
    world.assert_converged();
}
