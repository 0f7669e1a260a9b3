//! The scrubber finds rot before somebody needs what it hit (decision 0013).

use crate::world::World;
use ringraft_shard::{ScrubRules, ShardEvent};
use ringraft_types::{NodeId, Status, Ticks};
use ringraft_wal::device::FileId;

const WRITES: u64 = 24;
const EVERY: Ticks = Ticks::from_millis(1_000);

fn value(number: u64) -> Vec<u8> {
    format!("<value {number:04}>").into_bytes()
}

/// Three nodes that read their logs through each second, with writes that no cache holds any more.
fn written(seed: u64) -> (World, NodeId) {
    let mut world = World::new(seed, 3, 2);
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
