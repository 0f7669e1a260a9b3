//! Power that fails at every step of a snapshot: while it is written and named, while the log is
//! given up behind it, and while another node installs it (S29, A17).

use super::*;
use ringraft_types::Index;
use ringraft_wal::device::memory::HeldOperation;

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

/// A start found nothing missing.
#[track_caller]
fn assert_whole(said: &[ShardEvent], what: &str) {
    let is_bad = |event: &ShardEvent| {
        matches!(
            event,
            ShardEvent::EntriesLost { .. }
                | ShardEvent::SnapshotUnreadable { .. }
                | ShardEvent::Halted { .. }
        )
    };
    assert!(!said.iter().any(is_bad), "{what}: {said:?}");
}

/// Goal: power fails after each operation of a snapshot and of the log that ends behind it, and any
/// part of what no sync covered is there: the next start has the old state or the new one, which are
/// one; the log is as long as the snapshot isn't durable; nothing half done is left. The same while
/// another snapshot follows at once, and the log is still given up behind the first (S31).
#[test]
fn s29_power_fails_at_each_step_of_a_snapshot() {
    for again in [false, true] {
        let (mut world, node) = cluster(30, 1, BY_HAND);
        fill(&mut world, node, 1..=50, 200_000);
        world.run_for(Ticks::from_millis(500));
        world.kill(node, |_| false);
        let before = world.copy(node);
        let mut seen = [0; 3];
        let wanted = 1 + usize::from(again);
        for steps in 0..400 {
            let mut ends = false;
            for keep in [0, 3] {
                world.put_back(node, before.clone());
                world.start(node);
                world.elect();
                world.run_for(Ticks::from_millis(200));
                world.events(node);
                world.shard(node).device.hold(true);
                world.shard(node).want_snapshots(SnapshotReason::Asked);
                let mut told = 0;
                let mut calls = Vec::new();
                let mut last = Index::ZERO;
                for _ in 0..steps {
                    step(&mut world, node);
                    for event in world.events(node) {
                        let ShardEvent::SnapshotTaken { last: at, .. } = event else { continue };
                        (told, last) = (told + 1, at);
                        if again && told == 1 {
                            let key = b"between".as_slice();
                            calls.push(world.send_put(node, 9, 51, key, b"x"));
                            world.run_for(Ticks(300));
                        }
                    }
                    if again && told == 1 {
                        world.shard(node).want_snapshots(SnapshotReason::Asked);
                    }
                }
                let is_done =
                    calls.pop().is_some_and(|call| world.take_reply(node, call).is_some());
                let state = world.group(node).state_hash;
                let oldest = files(&world, node, FileKind::Segment)[0].number;
                let is_freed = oldest > 1;
                ends = is_freed && told == wanted;
                world.kill(node, |sector| keep > 0 && (sector + steps) % keep != 0);
                world.start(node);
                let what = format!("{steps} steps, {keep}");
                assert_whole(&world.events(node), &what);
                let found = world.group(node).snapshot;
                assert!(found >= last, "{what}: {last} was durable, {found} is there");
                assert!(found > Index::ZERO || !is_freed, "{what}: the log was given up before");
                world.elect();
                world.run_for(Ticks::from_millis(1_000));
                let oldest = files(&world, node, FileKind::Segment)[0].number;
                assert_eq!(oldest > 1, found > Index::ZERO, "{what}: the log ends in any case");
                for key in (0..40).step_by(13) {
                    let (status, body) = world.get(node, format!("key-{key}").as_bytes());
                    assert!(status == Status::Ok && body.len() > 200_000, "{what}: {key}");
                }
                let (_, body) = world.get(node, b"between");
                let is_there = body.windows(7).any(|part| part == b"between");
                assert!(is_there || !is_done, "{what}: it was acknowledged");
                if !again || is_done {
                    assert_eq!(world.group(node).state_hash, state, "{what}");
                }
                let kept = files(&world, node, FileKind::Snapshot).len();
                let most = usize::from(found > Index::ZERO);
                assert_eq!(kept, most, "{what}: older ones and half written ones are gone");
                seen[usize::from(found > Index::ZERO) + usize::from(is_freed)] += 1;
                world.kill(node, |_| true);
            }
            if ends {
                break;
            }
            assert!(steps < 399, "it ends");
        }
        assert!(seen.iter().all(|&times| times > 1), "old, new, and with less log: {seen:?}");
    }
}

/// Goal: power fails at a node that installs, after each operation of its disk: the next start has
/// the old state or the new one, whole; what was told is so; in the end it is as the others are.
#[test]
fn s29_power_fails_at_each_step_of_an_install() {
    let mut seen = [0; 2];
    for steps in 0.. {
        let mut is_told = false;
        for keep in [0, 3] {
            let (mut world, leader) = cluster(31, 3, BY_HAND);
            let away = away(&mut world, leader, 10_000);
            let base = world.group(leader).snapshot;
            world.shard(away).device.hold(true);
            let mut after = 0;
            for _ in 0..steps {
                if world.shard(away).device.held().is_empty() {
                    world.run_for(Ticks::from_millis(20));
                } else {
                    step(&mut world, away);
                }
                after += usize::from(world.shard(away).metrics().snapshots_installed > 0);
            }
            // And the record that names it.
            is_told = after > 4;
            let is_there = world.shard(away).metrics().snapshots_installed > 0;
            world.kill(away, |sector| keep > 0 && (sector + steps) % keep != 0);
            world.start(away);
            let what = format!("{steps} steps, {keep}");
            assert_whole(&world.events(away), &what);
            let found = world.group(away).applied;
            let is_new = found >= base;
            assert!(is_new || found.0 < 15, "{what}: {found} is neither old nor new");
            assert!(is_new || !is_there, "{what}: it was told that it is there");
            seen[usize::from(is_new)] += 1;
            fill(&mut world, leader, 71..=72, 100);
            world.run_for(Ticks::from_millis(5_000));
            world.assert_converged();
            let kept = files(&world, away, FileKind::Snapshot).len();
            assert_eq!(kept, 1, "{what}: nothing half fetched is left");
        }
        if is_told {
            break;
        }
        assert!(steps < 300, "it ends");
    }
    assert!(seen.iter().all(|&times| times > 4), "both outcomes: {seen:?}");
}
