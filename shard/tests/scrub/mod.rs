//! The scrubber finds rot before somebody needs what it hit, in the log and in snapshots (decision
//! 0013).

use crate::world::World;
use ringraft_shard::{ScrubRules, ShardEvent, SnapshotReason, SnapshotRules};
use ringraft_types::{NodeId, Status, Ticks};
use ringraft_wal::device::{FileId, FileKind};

const WRITES: u64 = 24;
const EVERY: Ticks = Ticks::from_millis(1_000);

fn value(number: u64) -> Vec<u8> {
    format!("<value {number:04}>").into_bytes()
}

/// Three nodes that read their logs through each second, with writes that no cache holds any more.
fn written(seed: u64) -> (World, NodeId) {
    written_by(seed, SnapshotRules::default())
}

fn written_by(seed: u64, rules: SnapshotRules) -> (World, NodeId) {
    let mut world = World::with_rules(seed, 3, 2, rules);
    let leader = world.elect();
    for number in 1..=WRITES {
        let reply = world.put(leader, 9, number, &value(number), &value(number));
        assert_eq!(reply.status, Status::Ok);
    }
    world.run_for(Ticks::from_millis(500));
    world.scrub(ScrubRules { interval: EVERY, bytes_per_second: 1 << 20 });
    for node in world.nodes() {
        world.kill(node, |_| true);
        world.start(node);
    }
    let leader = world.elect();
    world.run_for(Ticks::from_millis(500));
    for node in world.nodes() {
        world.events(node);
    }
    (world, leader)
}

/// A bit of what a running node wrote with this write flips.
fn rot(world: &mut World, node: NodeId, number: u64) {
    let device = &mut world.shard(node).device;
    let value = value(number);
    let place = |(file, _): (FileId, u64)| {
        let content = device.content(file);
        let at = content.windows(value.len()).position(|part| part == &value[..])?;
        Some((file, at))
    };
    let (file, at) = device.files().into_iter().find_map(place).expect("it was written");
    device.flip_bit(file, at as u64 * 8);
}

/// A13, S03: bits flip on all nodes, each in another entry, the leader's among them: a pass finds
/// them, nobody halts or leaves leading, each has its entries again from the others, and finds
/// nothing missing at its next start.
#[test]
fn a13_the_scrubber_finds_rot_before_it_is_needed() {
    for seed in 0..3 {
        let (mut world, leader) = written(seed);
        for (node, number) in world.nodes().into_iter().zip([4, 11, 19]) {
            rot(&mut world, node, number);
        }
        world.run_for(Ticks::from_millis(3_000));
        for node in world.nodes() {
            let said = world.events(node);
            let count = |is: fn(&ShardEvent) -> bool| said.iter().filter(|&one| is(one)).count();
            assert_eq!(count(|one| matches!(one, ShardEvent::Unreadable { .. })), 1, "{said:?}");
            assert_eq!(count(|one| matches!(one, ShardEvent::Mended { .. })), 1, "{said:?}");
            assert!(count(|one| matches!(one, ShardEvent::Scrubbed { rotten: 1, .. })) > 0);
            let stops = |one: &ShardEvent| {
                matches!(one, ShardEvent::Halted { .. } | ShardEvent::SteppedDown { .. })
            };
            assert_eq!(count(stops), 0, "seed {seed}: {said:?}");
            assert_eq!(world.shard(node).repairs_under_way(), 0);
        }
        assert_eq!(world.put(leader, 9, WRITES + 1, b"after", b"x").status, Status::Ok);
        world.run_for(Ticks::from_millis(500));
        for node in world.nodes() {
            world.kill(node, |_| false);
            world.start(node);
            let said = world.events(node);
            assert!(
                !said.iter().any(|one| matches!(one, ShardEvent::EntriesLost { .. })),
                "{said:?}"
            );
        }
        world.elect();
        world.run_for(Ticks::from_millis(500));
        world.assert_converged();
    }
}

fn snapshots(world: &World, node: NodeId) -> Vec<FileId> {
    let files = world.files(node).into_iter().map(|(file, _)| file);
    files.filter(|file| file.kind == FileKind::Snapshot).collect()
}

/// A bit flips in each node's snapshot of a group, in its head or in a chunk, behind which its log begins: a pass finds it, and
/// another one is taken of what the machine holds; the rotten file goes when that one is durable, not
/// before, and the next start finds nothing missing (A13, SN-13).
#[test]
fn a_rotten_snapshot_is_replaced_before_it_is_needed() {
    let rules = SnapshotRules { log_bytes: 0, lag_bytes: 0, ..SnapshotRules::default() };
    let (mut world, leader) = written_by(2, rules);
    let nodes = world.nodes();
    for &node in &nodes {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 2);
    }
    world.run_for(Ticks::from_millis(200));
    let rotten: Vec<FileId> = nodes.iter().map(|&node| snapshots(&world, node)[0]).collect();
    for (&node, &file) in nodes.iter().zip(&rotten) {
        world.events(node);
        let length = world.content(node, file).len() as u64;
        let at = if node == leader { 50 } else { length - 4096 + 100 };
        world.shard(node).device.flip_bit(file, at * 8);
    }
    for _ in 0..30_000 {
        world.run_for(Ticks(100));
        let mut files = nodes.iter().map(|&node| snapshots(&world, node).len());
        assert!(files.all(|count| count >= 2), "none goes before there is another");
    }
    for (&node, file) in nodes.iter().zip(&rotten) {
        let said = world.events(node);
        let count = |is: fn(&ShardEvent) -> bool| said.iter().filter(|&one| is(one)).count();
        assert_eq!(
            count(|one| matches!(one, ShardEvent::SnapshotUnreadable { .. })),
            1,
            "{said:?}"
        );
        let found = |one: &ShardEvent| {
            matches!(one, ShardEvent::Scrubbed { rotten: 0, rotten_snapshots: 1, .. })
        };
        assert_eq!(count(found), 1, "{said:?}");
        let taken = |one: &ShardEvent| {
            let why = SnapshotReason::Unreadable;
            matches!(one, ShardEvent::SnapshotTaken { reason, .. } if *reason == why)
        };
        assert_eq!(count(taken), 1, "{said:?}");
        assert_eq!(count(|one| matches!(one, ShardEvent::Halted { .. })), 0, "{said:?}");
        assert_eq!(world.shard(node).metrics().scrubbed_rotten_snapshots, 1);
        let kept = snapshots(&world, node);
        assert!(kept.len() == 2 && !kept.contains(file), "{kept:?}");
        assert!(world.shard(node).group_snapshots().all(|group| group.unreadable == 0));
    }
    assert_eq!(world.put(leader, 9, WRITES + 1, b"after", b"x").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    for node in nodes {
        world.kill(node, |_| false);
        world.start(node);
        let said = world.events(node);
        let is_lost = |one: &ShardEvent| {
            matches!(one, ShardEvent::EntriesLost { .. } | ShardEvent::SnapshotUnreadable { .. })
        };
        assert!(!said.iter().any(is_lost), "{said:?}");
    }
    world.elect();
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Sectors of old segments can't be read any more, on each node other ones, and one of a snapshot: one
/// pass finds all of it, nobody stops serving, and everything is in a place where it can be read, also
/// after the next start, though the old places are as they were (S39).
#[test]
fn s39_latent_errors_are_found_in_one_pass() {
    let segment = 8 << 20;
    let value = |number: u64| value(number).repeat(20_000);
    let mut world = World::new(3, 3, 2);
    let leader = world.elect();
    // Three segments, of which the last is written to.
    for number in 1..=80 {
        let reply = world.put(leader, 9, number, format!("k{number}").as_bytes(), &value(number));
        assert_eq!(reply.status, Status::Ok);
    }
    world.run_for(Ticks::from_millis(500));
    let period = Ticks(3 * EVERY.0);
    world.scrub(ScrubRules { interval: period, bytes_per_second: 32 << 20 });
    for node in world.nodes() {
        world.kill(node, |_| true);
        world.start(node);
    }
    let leader = world.elect();
    for node in world.nodes() {
        world.events(node);
        for number in [5, 20, 40].map(|number| number + u64::from(node.0)) {
            let pattern = value(number);
            let device = &mut world.shard(node).device;
            let place = |(file, _): (FileId, u64)| {
                let content = device.content(file);
                let at = content.windows(40).position(|part| part == &pattern[..40])?;
                Some((file, at as u64))
            };
            let (file, at) = device.files().into_iter().find_map(place).expect("it was written");
            assert!(at < segment);
            device.spoil(file, at + 100_000, 4096);
        }
    }
    // And the time that reading takes.
    world.run_for(period);
    world.run_for(EVERY);
    for node in world.nodes() {
        let said = world.events(node);
        let count = |is: fn(&ShardEvent) -> bool| said.iter().filter(|&one| is(one)).count();
        let found = |one: &ShardEvent| matches!(one, ShardEvent::Scrubbed { rotten: 3, .. });
        assert_eq!(count(found), 1, "node {node}, all in the first pass: {said:?}");
        assert!(count(|one| matches!(one, ShardEvent::Mended { .. })) > 0, "{said:?}");
        assert_eq!(count(|one| matches!(one, ShardEvent::Halted { .. })), 0, "{said:?}");
        assert_eq!(world.shard(node).repairs_under_way(), 0);
    }
    assert_eq!(world.put(leader, 9, 81, b"after", b"x").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    for node in world.nodes() {
        world.kill(node, |_| false);
        world.start(node);
        let said = world.events(node);
        assert!(!said.iter().any(|one| matches!(one, ShardEvent::EntriesLost { .. })), "{said:?}");
    }
    world.elect();
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// A sector of the one snapshot that a node keeps can't be read: a pass finds it, and another one is
/// taken in its place (S39).
#[test]
fn s39_a_latent_error_in_a_snapshot_is_found_in_one_pass() {
    let rules = SnapshotRules { log_bytes: 0, lag_bytes: 0, ..SnapshotRules::default() };
    let (mut world, leader) = written_by(4, rules);
    assert_eq!(world.shard(leader).want_snapshots(SnapshotReason::Asked), 2);
    world.run_for(Ticks::from_millis(200));
    world.events(leader);
    let bad = snapshots(&world, leader)[0];
    let length = world.content(leader, bad).len() as u64;
    world.shard(leader).device.spoil(bad, length - 4096, 4096);
    world.run_for(EVERY);
    world.run_for(EVERY);
    let said = world.events(leader);
    let is_told = |one: &ShardEvent| matches!(one, ShardEvent::SnapshotUnreadable { number, .. } if *number == bad.number);
    assert!(said.iter().any(is_told), "{said:?}");
    let kept = snapshots(&world, leader);
    assert!(kept.len() == 2 && !kept.contains(&bad), "{kept:?}");
    world.kill(leader, |_| false);
    world.start(leader);
    let said = world.events(leader);
    assert!(!said.iter().any(|one| matches!(one, ShardEvent::EntriesLost { .. })), "{said:?}");
    world.elect();
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// A pass begins an interval after the start and reads no faster than it may; off is off.
#[test]
fn the_scrubber_keeps_its_pace() {
    let (mut world, leader) = written(1);
    let rate = 256 << 10;
    let rules = [
        ScrubRules { interval: EVERY, bytes_per_second: rate },
        ScrubRules { interval: Ticks::ZERO, bytes_per_second: rate },
        ScrubRules::default(),
    ];
    for (at, rules) in rules.into_iter().enumerate() {
        world.scrub(rules);
        world.kill(leader, |_| true);
        world.start(leader);
        let mut before = 0;
        for second in 0..10 {
            world.run_for(EVERY);
            let read = world.shard(leader).metrics().scrubbed_bytes;
            let most = if second == 0 { 128 << 10 } else { rate + (128 << 10) };
            assert!(read - before <= most, "{} bytes in second {second}", read - before);
            before = read;
        }
        assert_eq!(before > 0, at == 0, "{rules:?}");
        assert_eq!(world.shard(leader).metrics().scrub_passes > 0, at == 0, "{rules:?}");
    }
}
