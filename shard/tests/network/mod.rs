//! Networks and disks that fail in part: who leads, who serves, and what is told to whom.

mod links;

use crate::world::{GROUP, World};
use ringraft_net::client_wire::Consistency;
use ringraft_shard::ShardError;
use ringraft_types::{NodeId, Status, Ticks};
use ringraft_wal::device::memory::{Effect, Fault, OperationKind};

/// What a disk answers that can't read or write.
const EIO: i32 = 5;
/// Of the worlds: see `World::start`.
const ELECTION_TIMEOUT: Ticks = Ticks::from_millis(300);

fn timeouts(count: u64) -> Ticks {
    Ticks(ELECTION_TIMEOUT.0 * count)
}

fn others(world: &World, node: NodeId) -> Vec<NodeId> {
    world.nodes().into_iter().filter(|&other| other != node).collect()
}

fn isolate(world: &mut World, node: NodeId) {
    for other in others(world, node) {
        world.cut(node, other);
    }
}

fn term(world: &World, node: NodeId) -> u64 {
    world.group(node).term.0
}

/// A05: a leader that is left in a minority, with writes on their way, commits none of them, leads no
/// more within two timeouts, and says of each that its end isn't known; what it voted it knows still.
#[test]
fn a05_a_leader_in_a_minority_commits_nothing() {
    for seed in 1..6 {
        let mut world = World::new(seed, 5, 1);
        let leader = world.elect();
        assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
        let with = others(&world, leader)[0];
        for apart in [leader, with] {
            for other in world.nodes() {
                if other != leader && other != with {
                    world.cut(apart, other);
                }
            }
        }
        let (commit, old) = (world.group(leader).commit, term(&world, leader));
        let calls: Vec<u64> =
            (2..12).map(|sequence| world.send_put(leader, 5, sequence, b"a", b"2")).collect();
        world.run_for(timeouts(2));
        assert!(!world.leads(leader, GROUP), "it may not be the only one");
        assert_eq!(world.group(leader).commit, commit);
        for call in calls {
            let (status, _) = world.take_reply(leader, call).expect("it is answered");
            assert_eq!(status, Status::Unknown);
        }
        let next = world.elect_among(|node| node != leader && node != with);
        assert!(term(&world, next) > old);
        assert_eq!(world.put(next, 6, 1, b"a", b"3").status, Status::Ok);
        // Alone it raises no term, started anew or not.
        world.kill(leader, |_| true);
        world.start(leader);
        world.run_for(timeouts(5));
        assert_eq!(term(&world, leader), old);
        world.heal();
        world.run_for(timeouts(5));
        assert!(world.leads(next, GROUP), "who comes back deposes nobody");
        assert!(world.get(next, b"a").1.ends_with(b"3"));
        world.assert_converged();
    }
}

/// N01: whoever is cut off, one after the other, the rest has a leader within five timeouts and serves;
/// with one link of three gone, as well.
#[test]
fn n01_whoever_is_cut_off_the_others_serve() {
    let mut world = World::new(1, 3, 1);
    world.elect();
    let mut sequence = 0;
    for round in 0..2 {
        for node in world.nodes() {
            isolate(&mut world, node);
            world.run_for(timeouts(5));
            let leader = others(&world, node).into_iter().find(|&it| world.leads(it, GROUP));
            let leader = leader.unwrap_or_else(|| panic!("nobody leads without {node}"));
            sequence += 1;
            assert_eq!(world.put(leader, 5, sequence, b"a", b"1").status, Status::Ok);
            assert_eq!(world.get(leader, b"a").0, Status::Ok);
            world.heal();
            world.run_for(timeouts(3));
            assert!(world.leads(leader, GROUP), "round {round}: {node} comes back");
        }
        for (a, b) in [(1, 2), (2, 3), (1, 3)].map(|(a, b)| (NodeId(a), NodeId(b))) {
            world.cut(a, b);
            world.run_for(timeouts(5));
            let leader = world.elect();
            sequence += 1;
            assert_eq!(world.put(leader, 5, sequence, b"a", b"1").status, Status::Ok);
            world.heal();
            world.run_for(timeouts(3));
        }
    }
    world.assert_converged();
}

/// N03: five nodes in a star, with a bridge between two halves, and with two of them half connected, as
/// in the outage of 2020: one of those who reach a majority leads within five timeouts, and goes on.
#[test]
fn n03_partial_partitions_settle() {
    // Which links are there.
    let star: &[(u32, u32)] = &[(1, 3), (2, 3), (4, 3), (5, 3)];
    let bridge: &[(u32, u32)] = &[(1, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 5)];
    let half: &[(u32, u32)] = &[(1, 2), (1, 3), (2, 3), (1, 4), (2, 5), (3, 4), (3, 5), (2, 4)];
    for (name, links) in [("star", star), ("bridge", bridge), ("half", half)] {
        for seed in 1..6 {
            let mut world = World::new(seed, 5, 1);
            let before = world.elect();
            for a in 1..=5 {
                for b in a + 1..=5 {
                    if !links.contains(&(a, b)) && !links.contains(&(b, a)) {
                        world.cut(NodeId(a), NodeId(b));
                    }
                }
            }
            let reached =
                |node: NodeId| links.iter().filter(move |it| it.0 == node.0 || it.1 == node.0);
            let is_central = |node: NodeId| reached(node).count() >= 2;
            world.run_for(timeouts(5));
            let leader = world.elect_among(is_central);
            let (led, elections) = (term(&world, leader), world.elections());
            assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
            world.run_for(timeouts(20));
            assert!(world.leads(leader, GROUP), "{name}, seed {seed}: {leader} after {before}");
            assert_eq!(term(&world, leader), led, "{name}, seed {seed}: nobody is disturbed");
            assert_eq!(world.elections(), elections, "{name}, seed {seed}");
            world.heal();
            world.run_for(timeouts(5));
            world.assert_converged();
        }
    }
}

/// N06: a link comes and goes every 50 to 500 ms: terms aren't raised by it, and the leader stays.
#[test]
fn n06_a_flapping_link_raises_no_term() {
    for seed in 1..4 {
        let mut world = World::new(seed, 3, 1);
        let leader = world.elect();
        let node = others(&world, leader)[0];
        let (led, mut sequence) = (term(&world, leader), 0);
        for flap in 0..40 {
            isolate(&mut world, node);
            world.run_for(Ticks::from_millis(50 + flap * 53 % 450));
            world.heal();
            world.run_for(Ticks::from_millis(50 + flap * 97 % 450));
            sequence += 1;
            assert_eq!(world.put(leader, 5, sequence, b"a", b"1").status, Status::Ok);
        }
        world.run_for(timeouts(3));
        assert!(world.leads(leader, GROUP) && term(&world, leader) == led, "seed {seed}");
        world.assert_converged();
    }
}

/// N14: a client that reaches followers only reads there what is committed, and is told of its writes who
/// leads, and that they aren't done.
#[test]
fn n14_who_reaches_followers_only_is_served_or_told() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
    for node in others(&world, leader) {
        let answer = world.get_of(node, b"a", Consistency::Linearizable);
        assert_eq!(answer.status, Status::Ok);
        let refused = world.put(node, 6, 1, b"a", b"2");
        assert_eq!(refused.status, Status::NotLeader);
    }
    assert!(world.get(leader, b"a").1.ends_with(b"1"), "it is as it was");
}

/// A14: the leader's disk fails a write, or a sync: its shard ends and acknowledges nothing of it, the
/// others go on, and all that was acknowledged is there when it starts again.
#[test]
fn a14_a_leader_whose_disk_fails_gives_way() {
    for on in [OperationKind::Write, OperationKind::Sync] {
        for seed in 1..4 {
            let mut world = World::new(seed, 3, 1);
            let leader = world.elect();
            assert_eq!(world.put(leader, 5, 1, b"a", b"1").status, Status::Ok);
            let effect = Effect::Errno(EIO);
            world.fail_disk(leader, Fault { on, after: 0, count: u32::MAX, effect });
            // Enough for more than one segment: each begins with syncs of its own.
            let value = vec![7; 64 << 10];
            let mut calls = Vec::new();
            for sequence in 2..200 {
                calls.push(world.send_put(leader, 5, sequence, b"a", &value));
                world.run_for(Ticks::from_millis(2));
                if world.ended(leader).is_some() {
                    break;
                }
            }
            let ended = world.ended(leader).unwrap_or_else(|| panic!("{on:?}: it goes on"));
            assert!(matches!(ended, ShardError::Log(_)), "{ended}");
            let acknowledged = calls.iter().filter(|&&call| {
                world.take_reply(leader, call).is_some_and(|reply| reply.0 == Status::Ok)
            });
            let acknowledged = acknowledged.count() as u64;
            let next = world.elect();
            assert!(next != leader);
            assert!(world.group(next).applied.0 > acknowledged, "none of them is lost");
            assert_eq!(world.put(next, 6, 1, b"b", b"2").status, Status::Ok);
        }
    }
}

/// A15: a disk that answers late, a follower's: what is written waits for the others only; and neither it
/// nor its leader is deposed.
#[test]
fn a15_a_slow_follower_holds_nobody_up() {
    let mut world = World::new(3, 3, 1);
    let leader = world.elect();
    let slow = others(&world, leader)[0];
    world.hold_disk(slow, true);
    for sequence in 1..20 {
        assert_eq!(world.put(leader, 5, sequence, b"a", b"1").status, Status::Ok);
    }
    world.run_for(timeouts(10));
    assert!(world.leads(leader, GROUP));
    world.hold_disk(slow, false);
    world.run_for(timeouts(5));
    assert!(world.leads(leader, GROUP));
    world.assert_converged();
}
