//! Exactly once, from the first try to long after the session has ended.

use crate::world::{Answer, GROUP, World};
use ringraft_shard::{ShardEvent, SnapshotRules};
use ringraft_types::limits::SESSIONS_PER_GROUP_MAX;
use ringraft_types::{NodeId, Revision, Status, Ticks};

/// A group is saved every so many entries, and its log ends there.
const OFTEN: SnapshotRules = SnapshotRules {
    log_bytes: 0,
    entries: 2_000,
    interval: Ticks::ZERO,
    on_stop: false,
    lag_bytes: 0,
    bytes_per_second: 0,
    strands_bytes: u64::MAX,
    kept: 1,
};

/// Who retries.
const CLIENT: u128 = 7;

fn retry(world: &mut World, to: NodeId) -> Answer {
    world.put(to, CLIENT, 1, b"once", b"value")
}

/// So many clients that nobody saw before write once each.
fn crowd(world: &mut World, to: NodeId, first: u128, count: usize) {
    let mut next = first;
    let end = first + count as u128;
    while next < end {
        let until = end.min(next + 1_000);
        let calls: Vec<u64> =
            (next..until).map(|client| world.flood(to, GROUP, client, 1..2, b"x")).collect();
        for call in calls {
            let status = world.await_answer(to, call).status;
            assert_eq!(status, Status::Ok);
        }
        next = until;
    }
}

/// A33: a write that isn't idempotent is tried again after its leader was lost, after every node
/// lost power, on a node that has it by a snapshot only, and after its session made room for others.
/// It is applied once; as long as the session lasts it is answered as it was the first time, and
/// then with a status of its own, also under later numbers and after a start, and never applied
/// again.
#[test]
fn a33_a_retry_is_applied_once_and_never_after_its_session() {
    let mut world = World::with_rules(91, 3, 1, OFTEN);
    let leader = world.elect();
    let first = retry(&mut world, leader);
    assert_eq!(first.status, Status::Ok);
    let is_first = |answer: &Answer| {
        let told = (answer.status, answer.revision, answer.index);
        assert_eq!(told, (first.status, first.revision, first.index));
    };
    is_first(&retry(&mut world, leader));

    // Its leader is gone.
    world.kill(leader, |_| false);
    let next = world.elect_among(|node| node != leader);
    is_first(&retry(&mut world, next));
    assert_eq!(world.group(next).revision, first.revision, "it was applied once");

    // All lose power; the one that was gone stays so.
    let away = leader;
    for node in world.running() {
        world.kill(node, |_| false);
    }
    for node in world.nodes() {
        if node != away {
            world.start(node);
        }
    }
    let leader = world.elect_among(|node| node != away);
    is_first(&retry(&mut world, leader));

    // Others come, as many as there is room for; who was away has all of it by a snapshot.
    crowd(&mut world, leader, 1_000, SESSIONS_PER_GROUP_MAX - 1);
    let revision = world.group(leader).revision;
    assert_eq!(revision, Revision(first.revision.0 + SESSIONS_PER_GROUP_MAX as u64 - 1));
    world.start(away);
    let is_installed = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { .. });
    let mut installed = false;
    for _ in 0..10_000 {
        world.run_for(Ticks::from_millis(1));
        installed |= world.events(away).iter().any(is_installed);
        if installed && world.applied(away) == world.applied(leader) {
            break;
        }
    }
    assert!(installed, "a snapshot brought it");
    is_first(&retry(&mut world, leader));
    world.kill(leader, |_| true);
    let next = world.elect();
    is_first(&retry(&mut world, next));
    world.start(leader);
    world.run_for(Ticks::from_millis(1_000));

    // One more than there is room for: the oldest makes room.
    let leader = world.elect();
    crowd(&mut world, leader, 1 << 40, 1);
    let revision = world.group(leader).revision;
    let expired = |world: &mut World, leader: NodeId| {
        assert_eq!(retry(world, leader).status, Status::SessionExpired);
        let later = world.put(leader, CLIENT, 2, b"once", b"later");
        assert_eq!(later.status, Status::SessionExpired);
        assert_eq!(world.group(leader).revision, revision, "nothing is applied");
    };
    expired(&mut world, leader);
    for node in world.nodes() {
        world.kill(node, |_| false);
    }
    for node in world.nodes() {
        world.start(node);
    }
    let leader = world.elect();
    world.run_for(Ticks::from_millis(500));
    expired(&mut world, leader);
    world.assert_converged();
}
