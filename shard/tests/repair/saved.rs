//! What rot took on one node, and every other one gave up behind a snapshot: that is a repair too,
//! also if nobody can lead before it (decision 0023).

use super::*;
use ringraft_shard::{SnapshotReason, SnapshotRules};
use ringraft_wal::device::memory::{HeldOperation, OperationKind};

/// Nothing is taken by itself; the log is freed behind the newest.
const BY_HAND: SnapshotRules = SnapshotRules {
    log_bytes: 0,
    entries: 0,
    interval: Ticks::ZERO,
    on_stop: false,
    lag_bytes: 512 << 20,
    bytes_per_second: 0,
    strands_bytes: u64::MAX,
    kept: 1,
};
/// The write at which the others are saved.
const SAVED: u64 = WRITES / 2;

/// Who is who when all are down: `newest` holds every write; `lags` lacks the last ones, and may have a
/// snapshot at the write [`SAVED`], and no log before that; `gone` has that and every write.
struct Three {
    world: World,
    newest: NodeId,
    lags: NodeId,
    gone: NodeId,
    /// Of each write.
    entries: Vec<Index>,
}

/// The one that lags misses those after this write.
fn three(seed: u64, has: u64, is_saved: bool) -> Three {
    let mut world = World::with_rules(seed, 3, 1, BY_HAND);
    let leader = world.elect();
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&id| id != leader).collect();
    // The leader isn't always the one that has the newest.
    let (newest, lags, gone) = match seed % 2 {
        0 => (leader, others[0], others[1]),
        _ => (others[0], others[1], leader),
    };
    let mut entries = vec![Index::ZERO];
    for number in 1..=WRITES {
        let reply = world.put(leader, 9, number, &value(number), &value(number));
        assert_eq!(reply.status, Status::Ok);
        entries.push(reply.index);
        if number == SAVED {
            world.run_for(Ticks::from_millis(500));
            let saved = if is_saved { vec![lags, gone] } else { vec![gone] };
            for &node in &saved {
                assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
            }
            world.run_for(Ticks::from_millis(1_500));
            for node in saved {
                assert_eq!(world.group(node).snapshot, entries[SAVED as usize]);
            }
        }
        if number == has {
            world.run_for(Ticks::from_millis(500));
            world.kill(lags, |_| true);
        }
    }
    world.run_for(Ticks::from_millis(500));
    for node in [newest, gone] {
        world.kill(node, |_| true);
    }
    Three { world, newest, lags, gone, entries }
}

/// Every write is there, on the one that leads.
fn assert_all_there(world: &mut World, seed: u64) {
    let leader = world.elect();
    for number in 1..=WRITES {
        let (status, body) = world.get(leader, &value(number));
        let is_there = body.windows(12).any(|part| part == value(number));
        assert!(status == Status::Ok && is_there, "seed {seed}: {number}");
    }
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

fn is_installed(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::SnapshotInstalled { .. })
}

/// Goal: the only node that holds the newest writes lost old ones, which the other one has in a
/// snapshot only; the third is gone. It has them by the snapshot, keeps what lay behind, and leads.
#[test]
fn what_is_in_a_snapshot_only_is_had_without_a_leader() {
    for seed in 0..4 {
        let Three { mut world, newest, lags, entries, .. } = three(seed, WRITES - 4, true);
        rot(&mut world, newest, 4);
        world.start(newest);
        world.start(lags);
        assert_eq!(world.elect(), newest, "seed {seed}: the other lacks what is committed");
        let said = world.events(newest);
        assert_cured(&said, entries[4]);
        assert!(said.iter().any(is_installed), "{said:?}");
        assert!(!said.iter().any(|event| matches!(event, ShardEvent::NotMended { .. })));
        assert_all_there(&mut world, seed);
    }
}

/// Goal: holes before the snapshot's end and behind it: the ones go with the snapshot, the others are
/// had as records; the log begins and ends where it has to, and so it does after a power cut.
#[test]
fn a_snapshot_and_records_together_fill_all_holes() {
    for seed in 0..4 {
        let Three { mut world, newest, lags, entries, .. } = three(seed, WRITES - 4, true);
        for number in [2, SAVED, SAVED + 1, SAVED + 4] {
            rot(&mut world, newest, number);
        }
        world.start(newest);
        world.start(lags);
        assert_eq!(world.elect(), newest);
        assert_cured(&world.events(newest), entries[2]);
        assert_all_there(&mut world, seed);
        world.kill(newest, |_| false);
        world.start(newest);
        assert!(!world.events(newest).iter().any(is_lost), "seed {seed}");
        assert_all_there(&mut world, seed);
    }
}

/// Goal: two nodes are left, both lost something, and each has what the other lacks: one in its
/// snapshot, the other in its log.
#[test]
fn two_damaged_nodes_that_hold_what_the_other_lacks() {
    for seed in 0..4 {
        let Three { mut world, newest, lags, entries, .. } = three(seed, WRITES - 4, true);
        rot(&mut world, newest, SAVED - 2);
        rot(&mut world, lags, SAVED + 2);
        world.start(newest);
        world.start(lags);
        assert_eq!(world.elect(), newest);
        world.run_for(Ticks::from_millis(1_000));
        assert_cured(&world.events(newest), entries[SAVED as usize - 2]);
        assert_cured(&world.events(lags), entries[SAVED as usize + 2]);
        assert_all_there(&mut world, seed);
    }
}

/// Goal: a snapshot is no way to forget: the entries behind it that are rotten too, and that nobody
/// has, are owed as before. The node doesn't stand, nor helps the one that lacks them; when the third
/// one is back with them, all is there.
#[test]
fn what_lies_behind_the_snapshot_is_still_owed() {
    for seed in 0..4 {
        let Three { mut world, newest, lags, gone, entries } = three(seed, WRITES - 4, true);
        let lost = WRITES - 2;
        rot(&mut world, newest, 3);
        rot(&mut world, newest, lost);
        world.start(newest);
        world.start(lags);
        world.run_for(Ticks::from_millis(20_000));
        let said = world.events(newest);
        assert!(said.iter().any(is_installed), "{said:?}");
        assert!(!said.iter().any(is_repaired), "{said:?}");
        let first = entries[lost as usize];
        let lacking = ShardEvent::NotMended { group: GROUP, first };
        assert!(said.contains(&lacking), "it names the entry: {said:?}");
        for again in [false, true] {
            if again {
                world.kill(newest, |_| false);
                world.start(newest);
                world.run_for(Ticks::from_millis(5_000));
            }
            let group = world.group(newest);
            assert!(group.damaged, "seed {seed}: {group:?}");
            assert!(group.applied >= entries[SAVED as usize], "seed {seed}: {group:?}");
            assert!(group.last < first, "seed {seed}: {group:?}");
            assert!(!world.leads(lags, GROUP) && !world.leads(newest, GROUP), "seed {seed}");
        }
        world.start(gone);
        assert_all_there(&mut world, seed);
        world.run_for(Ticks::from_millis(3_000));
        assert!(!world.group(newest).damaged, "seed {seed}");
    }
}

/// Goal: a snapshot that ends with all that a node ever held makes it whole, though the other node is
/// damaged too and nobody leads.
#[test]
fn a_snapshot_of_all_that_was_held_is_enough() {
    for seed in 0..4 {
        let Three { mut world, newest, lags, gone, entries } = three(seed, SAVED, false);
        // The one lost what the other one has in its snapshot, the other what nobody has.
        rot(&mut world, lags, 5);
        rot(&mut world, gone, SAVED + 3);
        world.start(gone);
        world.start(lags);
        world.run_for(Ticks::from_millis(5_000));
        assert!(!world.group(lags).damaged, "seed {seed}: {:?}", world.events(lags));
        assert!(world.group(gone).damaged);
        world.start(newest);
        assert_all_there(&mut world, seed);
        assert!(entries[SAVED as usize] <= world.group(lags).applied);
    }
}

/// Carries out what the held disk of a node has waited for longest, or all of it if that is nothing
/// but the parts of a snapshot; then lets the node go on.
fn step(world: &mut World, node: NodeId) {
    let device = &mut world.shard(node).device;
    let is_part = |held: &HeldOperation| held.kind == OperationKind::Write && !held.syncs;
    let count = if device.held().iter().all(is_part) { device.held().len() } else { 1 };
    for _ in 0..count {
        device.finish(0);
    }
    world.run_for(Ticks(300));
}

/// Goal: power fails at the node that repairs itself by a snapshot, after each operation of its disk,
/// with a hole behind the snapshot and without: what was told is so, and in the end it leads with
/// everything (A17, I-13).
#[test]
fn power_fails_at_each_step_of_a_repair_by_snapshot() {
    for numbers in [&[3][..], &[3, SAVED + 2]] {
        let Three { mut world, newest, lags, .. } = three(2, WRITES - 4, true);
        numbers.iter().for_each(|&number| rot(&mut world, newest, number));
        let before = [newest, lags].map(|node| (node, world.copy(node)));
        let mut seen = [0; 3];
        for steps in 0.. {
            let mut is_over = false;
            for keep in [0, 3] {
                for (node, copy) in before.clone() {
                    world.put_back(node, copy);
                    world.start(node);
                }
                world.run_for(Ticks::from_millis(100));
                world.events(newest);
                world.shard(newest).device.hold(true);
                let (mut is_there, mut is_told) = (false, false);
                for _ in 0..steps {
                    if world.shard(newest).device.held().is_empty() {
                        world.run_for(Ticks::from_millis(50));
                    } else {
                        step(&mut world, newest);
                    }
                    let said = world.events(newest);
                    is_there |= said.iter().any(is_installed);
                    is_told |= said.iter().any(is_repaired);
                }
                is_over = world.leads(newest, GROUP);
                world.kill(newest, |sector| keep > 0 && (sector + steps) % keep != 0);
                world.start(newest);
                let is_whole = !world.events(newest).iter().any(is_lost);
                let what = format!("{numbers:?}: {steps} steps, {keep}");
                assert!(is_whole || !is_told, "{what}: it was told to be whole");
                seen[usize::from(is_there) + usize::from(is_told)] += 1;
                assert_eq!(world.elect(), newest, "{what}");
                assert_all_there(&mut world, steps as u64);
                world.kill(newest, |_| false);
                world.start(newest);
                assert!(!world.events(newest).iter().any(is_lost), "{what}: it stays whole");
                world.kill(newest, |_| true);
                world.kill(lags, |_| true);
            }
            if is_over {
                break;
            }
            assert!(steps < 200, "it ends");
        }
        assert!(seen.iter().all(|&times| times > 0), "{numbers:?}: each stage: {seen:?}");
    }
}

/// Goal: the third node comes back, and with it a leader, at any moment of a repair by snapshot: one
/// of the two ways comes to its end, nothing is lost, and all are alike.
#[test]
fn a_leader_appears_while_a_repair_is_under_way() {
    let mut installed = 0;
    for (seed, span) in (0..).zip((280_000..420_000).step_by(7_000)) {
        let Three { mut world, newest, lags, gone, .. } = three(seed, WRITES - 4, true);
        for number in [3, SAVED + 2, WRITES - 1] {
            rot(&mut world, newest, number);
        }
        world.start(newest);
        world.start(lags);
        world.run_for(Ticks(span));
        world.start(gone);
        assert_all_there(&mut world, seed);
        world.run_for(Ticks::from_millis(5_000));
        installed += world.shard(newest).metrics().snapshots_installed;
        assert_counts(&mut world, newest, seed);
    }
    assert!(installed > 0, "some were repaired so");
}
