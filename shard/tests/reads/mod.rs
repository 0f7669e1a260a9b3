//! Reads that ask no majority: under a lease, and of what one node has. `follower` has those on nodes
//! that don't lead.

mod follower;

use crate::world::World;
use ringraft_net::client_wire::{Consistency, Local};
use ringraft_types::{Index, NodeId, Status, Ticks};

fn local(at_least: u64, age_ms_max: u32, wait_ms: u32) -> Consistency {
    Consistency::Local(Local { at_least: Index(at_least), age_ms_max, wait_ms })
}

/// A world with a leader who has a lease, and one of its followers.
fn world(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 1, 1, b"key", b"old").status, Status::Ok);
    world.run_for(Ticks::from_millis(200));
    let follower = world.nodes().into_iter().find(|&node| node != leader).expect("there are two");
    (world, leader, follower)
}

fn cut_off(world: &mut World, node: NodeId) {
    for other in world.nodes() {
        if other != node {
            world.cut(node, other);
        }
    }
}

/// A leader that nobody hears answers under its lease as long as that lasts, and not when another
/// may lead.
#[test]
fn a_lease_ends_before_another_leads() {
    let (mut world, leader, _) = world(71);
    cut_off(&mut world, leader);
    let answer = world.get_of(leader, b"key", Consistency::Lease);
    assert_eq!((answer.status, answer.body.is_empty()), (Status::Ok, false));
    world.run_for(Ticks::from_millis(290));
    let call = world.send_get_of(leader, b"key", Consistency::Lease);
    let next = world.elect_among(|node| node != leader);
    assert_eq!(world.put(next, 2, 1, b"key", b"new").status, Status::Ok);
    let reply = world.take_reply(leader, call);
    assert!(reply.is_none_or(|reply| reply.0 != Status::Ok), "it asks, and nobody answers");
}

/// Any node answers of what it has, and sees the entry that the reader has seen, or says that it
/// isn't there yet (A35).
#[test]
fn a35_local_reads_see_what_was_seen() {
    let (mut world, leader, follower) = world(73);
    let any = local(0, u32::MAX, 0);
    assert_eq!(world.get_of(follower, b"key", any).status, Status::Ok);
    world.cut(leader, follower);
    let written = world.put(leader, 1, 2, b"key", b"new");
    assert_eq!(written.status, Status::Ok);
    let seen = written.index.0;
    assert_eq!(world.get_of(follower, b"key", local(seen, u32::MAX, 50)).status, Status::NotYet);
    let answer = world.get_of(follower, b"key", any);
    assert_eq!(answer.status, Status::Ok, "a read that doesn't mind is answered");
    assert!(answer.index.0 < seen);
    // It waits, and is answered when the entry comes.
    let call = world.send_get_of(follower, b"key", local(seen, u32::MAX, 5_000));
    world.heal();
    let answer = world.await_answer(follower, call);
    assert_eq!(answer.status, Status::Ok);
    assert!(answer.index.0 >= seen);
}

/// A node that hasn't heard of its leader for longer than the reader allows refuses.
#[test]
fn a_local_read_keeps_its_age() {
    let (mut world, _, follower) = world(74);
    assert_eq!(world.get_of(follower, b"key", local(0, 100, 0)).status, Status::Ok);
    cut_off(&mut world, follower);
    world.run_for(Ticks::from_millis(150));
    assert_eq!(world.get_of(follower, b"key", local(0, 100, 0)).status, Status::TooStale);
    assert_eq!(world.get_of(follower, b"key", local(0, 10_000, 0)).status, Status::Ok);
}
