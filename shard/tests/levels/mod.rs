//! Barriers: each level, who counts for it, and what ends the wait.

use crate::members::Ask;
use crate::world::{Answer, GROUP, HEARTBEAT_INTERVAL, World};
use ringraft_net::barrier_wire::BarrierReply;
use ringraft_net::lead_wire::Leading;
use ringraft_shard::limits::{GROUP_BARRIERS_MAX, SHARD_BARRIERS_MAX};
use ringraft_types::{GroupId, Index, Level, NodeId, Status, Ticks};

const SECOND: Ticks = Ticks::from_millis(1_000);

fn read(answer: &Answer) -> BarrierReply {
    BarrierReply::decode(&answer.body).expect("a sound body")
}

/// Asks a node, and waits for what it answers.
fn barrier(
    world: &mut World,
    at: NodeId,
    level: Level,
    index: Index,
    wait_ms: u32,
) -> BarrierReply {
    let call = world.send_barrier(at, GROUP, (level, Some(index)), wait_ms);
    read(&world.await_answer(at, call))
}

fn put(world: &mut World, leader: NodeId, sequence: u64) -> Index {
    let answer = world.put(leader, 1, sequence, b"key", b"value");
    assert_eq!(answer.status, Status::Ok);
    answer.index
}

fn others(world: &World, than: NodeId) -> [NodeId; 2] {
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != than).collect();
    others.try_into().expect("three nodes")
}

/// Every level is reached by the entry that a write was told; in an idle group voters learn of the
/// commit, and tell what they know, long before the next heartbeat.
#[test]
fn a36_every_level_is_reached_in_an_idle_group() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    world.run_for(SECOND);
    for (sequence, level) in (1..).zip(Level::ALL) {
        let index = put(&mut world, leader, sequence);
        let asked_at = world.now();
        let reply = barrier(&mut world, leader, level, index, 5_000);
        assert_eq!((reply.status, reply.level, reply.index), (Status::Ok, level, index));
        assert!(reply.reached >= index);
        let took = world.now().since(asked_at);
        assert!(took < Ticks(HEARTBEAT_INTERVAL.0 / 5), "{level}: {took}");
    }
    assert_eq!(world.shard(leader).metrics().barriers_reached, 4);
    // Nobody waits: nothing more is said than the heartbeats.
    let frames = world.frames();
    world.run_for(Ticks(4 * HEARTBEAT_INTERVAL.0));
    assert!(world.frames() - frames <= 5 * 4, "{} frames", world.frames() - frames);
}

/// A member that is gone: what every voter must hold or know is never reached, and says how far it
/// is and who lacks; a majority is enough for the rest; when it is back it is reached.
#[test]
fn a36_a_member_that_is_gone_holds_all_up() {
    let mut world = World::new(2, 3, 1);
    let leader = world.elect();
    let [gone, _] = others(&world, leader);
    let before = put(&mut world, leader, 1);
    assert_eq!(barrier(&mut world, leader, Level::AllCommitted, before, 500).status, Status::Ok);
    world.kill(gone, |_| true);
    let index = put(&mut world, leader, 2);
    for level in [Level::All, Level::AllCommitted] {
        let asked_at = world.now();
        let reply = barrier(&mut world, leader, level, index, 300);
        assert_eq!((reply.status, reply.behind), (Status::NotReached, gone), "{level}");
        assert_eq!((reply.index, reply.reached), (index, before), "{level}");
        let took = world.now().since(asked_at);
        assert!(took >= Ticks::from_millis(300) && took < Ticks::from_millis(310), "{took}");
    }
    for level in [Level::Majority, Level::MajorityCommitted] {
        assert_eq!(barrier(&mut world, leader, level, index, 300).status, Status::Ok, "{level}");
    }
    assert_eq!(world.shard(leader).metrics().barriers_timed_out, 2);
    let waits = world.send_barrier(leader, GROUP, (Level::AllCommitted, Some(index)), 5_000);
    world.run_for(SECOND);
    assert!(world.take_reply(leader, waits).is_none());
    world.start(gone);
    assert_eq!(world.await_answer(leader, waits).status, Status::Ok);
    assert!(world.group(gone).commit >= index);
}

/// The leader is a voter like any other: what its own disk hasn't yet isn't on all.
#[test]
fn a36_the_leaders_own_disk_counts() {
    let mut world = World::new(3, 3, 1);
    let leader = world.elect();
    world.run_for(SECOND);
    world.hold_disk(leader, true);
    let index = put(&mut world, leader, 1);
    assert_eq!(barrier(&mut world, leader, Level::Majority, index, 0).status, Status::Ok);
    let reply = barrier(&mut world, leader, Level::All, index, 100);
    assert_eq!((reply.status, reply.behind), (Status::NotReached, leader));
    let waits = world.send_barrier(leader, GROUP, (Level::All, Some(index)), 1_000);
    world.hold_disk(leader, false);
    assert_eq!(world.await_answer(leader, waits).status, Status::Ok);
}

/// Leadership goes while barriers wait: each is told so, with who leads now, and the same index may
/// be asked of the new leader. Who doesn't lead says who does.
#[test]
fn a36_leadership_is_lost_while_barriers_wait() {
    let mut world = World::new(4, 3, 1);
    let leader = world.elect();
    let [next, gone] = others(&world, leader);
    world.run_for(SECOND);
    world.kill(gone, |_| true);
    let index = put(&mut world, leader, 1);
    let reply = barrier(&mut world, next, Level::All, index, 1_000);
    assert_eq!((reply.status, reply.leader), (Status::NotLeader, leader));
    let waits: Vec<u64> = [Level::All, Level::AllCommitted]
        .map(|level| world.send_barrier(leader, GROUP, (level, Some(index)), 60_000))
        .to_vec();
    // What isn't in the log yet is waited for as well.
    let later = Some(Index(index.0 + 100));
    let beyond = world.send_barrier(leader, GROUP, (Level::Majority, later), 60_000);
    world.run_for(SECOND);
    world.send_lead(leader, GROUP, Leading::HandOver { to: Some(next) });
    for call in waits.into_iter().chain([beyond]) {
        let reply = read(&world.await_answer(leader, call));
        assert_eq!((reply.status, reply.reached), (Status::LeadershipLost, Index::ZERO));
    }
    assert_eq!(world.elect(), next);
    let waits = world.send_barrier(next, GROUP, (Level::AllCommitted, Some(index)), 10_000);
    world.run_for(SECOND);
    assert!(world.take_reply(next, waits).is_none());
    world.start(gone);
    assert_eq!(world.await_answer(next, waits).status, Status::Ok);
}

/// A leader that was cut off doesn't know what was acknowledged since: it says of no index that it
/// is the newest, and of none that it isn't there.
#[test]
fn a36_a_deposed_leader_promises_nothing() {
    let mut world = World::new(5, 3, 1);
    let old = world.elect();
    let first = put(&mut world, old, 1);
    world.run_for(SECOND);
    for other in others(&world, old) {
        world.cut(old, other);
    }
    let newest = world.send_barrier(old, GROUP, (Level::Majority, None), 60_000);
    let index = Some(Index(first.0 + 2));
    let unknown = world.send_barrier(old, GROUP, (Level::Majority, index), 60_000);
    let next = world.elect_among(|node| node != old);
    let second = put(&mut world, next, 2);
    for call in [newest, unknown] {
        assert_eq!(world.await_answer(old, call).status, Status::LeadershipLost);
    }
    let call = world.send_barrier(next, GROUP, (Level::MajorityCommitted, None), 1_000);
    let reply = read(&world.await_answer(next, call));
    assert_eq!(reply.status, Status::Ok);
    assert!(reply.index >= second, "{reply:?}");
}

/// So many wait in a group, and so many on a shard; one more is busy. Those that wait are told in
/// time, and leave room behind.
#[test]
fn a36_so_many_barriers_wait() {
    let groups = (SHARD_BARRIERS_MAX / GROUP_BARRIERS_MAX + 1) as u64;
    let mut world = World::new(6, 3, groups);
    let leader = world.elect();
    let [one, two] = others(&world, leader);
    for group in (1..=groups).map(GroupId) {
        for node in [one, two] {
            if world.leads(node, group) {
                world.send_lead(node, group, Leading::HandOver { to: Some(leader) });
            }
        }
    }
    world.run_for(SECOND);
    let far = Some(Index(1_000_000));
    let mut waits = Vec::new();
    for group in (1..groups).map(GroupId) {
        assert!(world.leads(leader, group));
        for _ in 0..GROUP_BARRIERS_MAX {
            waits.push(world.send_barrier(leader, group, (Level::All, far), 2_000));
        }
        let call = world.send_barrier(leader, group, (Level::All, far), 2_000);
        assert_eq!(world.await_answer(leader, call).status, Status::Busy);
    }
    let call = world.send_barrier(leader, GroupId(groups), (Level::All, far), 2_000);
    assert_eq!(world.await_answer(leader, call).status, Status::Busy);
    world.run_for(Ticks::from_millis(2_100));
    for call in waits {
        assert_eq!(world.take_reply(leader, call).expect("in time").0, Status::NotReached);
    }
    let index = put(&mut world, leader, 1);
    assert_eq!(barrier(&mut world, leader, Level::All, index, 500).status, Status::Ok);
}

/// Learners don't count; of a joint configuration both lists of voters do.
#[test]
fn a36_voters_of_both_lists_count() {
    let mut world = World::new(7, 3, 1);
    world.elect();
    world.join(NodeId(4));
    world.run_for(SECOND);
    Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    let leader = world.elect_among(|node| node.0 < 4);
    world.kill(NodeId(4), |_| true);
    let index = put(&mut world, leader, 1);
    for level in Level::ALL {
        assert_eq!(barrier(&mut world, leader, level, index, 500).status, Status::Ok, "{level}");
    }
    world.start(NodeId(4));
    world.run_for(SECOND);
    // Held between the old voters and the new.
    let [gone, stays] = others_of(&world, leader);
    let target = [leader.0, stays.0, 4];
    Ask::held(&sorted(target)).soon(&mut world);
    let leader = world.elect();
    for (away, sequence) in [(gone, 2), (NodeId(4), 3)].into_iter().filter(|it| it.0 != leader) {
        world.kill(away, |_| true);
        let index = put(&mut world, leader, sequence);
        let reply = barrier(&mut world, leader, Level::All, index, 300);
        assert_eq!((reply.status, reply.behind), (Status::NotReached, away));
        let reply = barrier(&mut world, leader, Level::MajorityCommitted, index, 300);
        assert_eq!(reply.status, Status::Ok);
        world.start(away);
        assert_eq!(barrier(&mut world, leader, Level::All, index, 2_000).status, Status::Ok);
    }
}

fn others_of(world: &World, than: NodeId) -> [NodeId; 2] {
    let nodes = world.nodes().into_iter().filter(|&node| node != than && node.0 < 4);
    nodes.collect::<Vec<_>>().try_into().expect("three nodes")
}

fn sorted(mut nodes: [u32; 3]) -> [u32; 3] {
    nodes.sort_unstable();
    nodes
}
