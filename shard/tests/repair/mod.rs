//! Groups that lose entries to rot get them again from their peers (decision 0013).

mod saved;

use crate::world::{GROUP, World};
use ringraft_net::status::GroupRole;
use ringraft_shard::{Halt, ShardEvent};
use ringraft_types::{GroupId, Index, NodeId, Status, Ticks};
use ringraft_wal::device::FileId;

/// Writes of each test.
const WRITES: u64 = 24;

fn value(number: u64) -> Vec<u8> {
    format!("<value {number:04}>").into_bytes()
}

/// Three nodes on which every write is applied and durable, and the entry of each.
fn written(seed: u64, groups: u64) -> (World, Vec<Index>) {
    let mut world = World::new(seed, 3, groups);
    let leader = world.elect();
    let mut entries = vec![Index::ZERO];
    for number in 1..=WRITES {
        let reply = world.put(leader, 9, number, &value(number), &value(number));
        assert_eq!(reply.status, Status::Ok);
        entries.push(reply.index);
    }
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    (world, entries)
}

/// A bit of what a node that doesn't run wrote with this write flips.
fn rot(world: &mut World, node: NodeId, number: u64) {
    flip(world, node, &value(number));
}

/// That bit flips back.
fn unrot(world: &mut World, node: NodeId, number: u64) {
    let mut value = value(number);
    value[0] ^= 1;
    flip(world, node, &value);
}

/// A bit of these bytes, which are in one place on a node that doesn't run, flips.
pub(crate) fn flip(world: &mut World, node: NodeId, bytes: &[u8]) {
    let (mut device, starts) = world.copy(node);
    let places: Vec<(FileId, usize)> = device
        .files()
        .into_iter()
        .filter_map(|(file, _)| {
            let content = device.content(file);
            let at = content.windows(bytes.len()).position(|part| part == bytes)?;
            Some((file, at))
        })
        .collect();
    let &[(file, at)] = &places[..] else { panic!("{bytes:?} is at {places:?}") };
    device.flip_bit(file, at as u64 * 8);
    world.put_back(node, (device, starts));
}

fn stop_all(world: &mut World) {
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
}

/// Power fails on every node: of what isn't durable every second piece is there.
fn stop_all_at_once(world: &mut World, odd: u64) {
    for node in world.nodes() {
        world.kill(node, |at| (at as u64 + odd).is_multiple_of(2));
    }
}

fn start_all(world: &mut World) {
    for node in world.nodes() {
        world.start(node);
    }
}

fn is_lost(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::EntriesLost { .. })
}

fn is_repaired(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::Repaired { .. })
}

/// What a node says when it has lost entries from `first` on and gets them again.
fn assert_cured(said: &[ShardEvent], first: Index) {
    let lost = |event: &ShardEvent| matches!(event, ShardEvent::EntriesLost { first: at, .. } if *at == first);
    let halted = ShardEvent::Halted { group: GROUP, halt: Halt::Damaged };
    let order = [
        said.iter().position(lost),
        said.iter().position(|event| *event == halted),
        said.iter().position(is_repaired),
    ];
    assert!(order.is_sorted() && order[0].is_some(), "{order:?}: {said:?}");
    let count = |is: fn(&ShardEvent) -> bool| said.iter().filter(|event| is(event)).count();
    assert_eq!((count(is_lost), count(is_repaired)), (1, 1), "{said:?}");
}

/// The node counts as any other: with the third one away it makes a majority, and all is there.
fn assert_counts(world: &mut World, node: NodeId, seed: u64) {
    assert!(!world.group(node).damaged, "seed {seed}");
    world.assert_converged();
    let away = *world.nodes().iter().find(|&&other| other != node).expect("there are three");
    world.kill(away, |_| false);
    let leader = world.elect();
    for number in 1..=WRITES {
        let (status, body) = world.get(leader, &value(number));
        assert_eq!(status, Status::Ok, "seed {seed}");
        assert!(body.windows(12).any(|part| part == value(number)), "seed {seed}: {number}");
    }
    assert_eq!(world.put(leader, 9, WRITES + 1, b"after", b"x").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Rot strikes one node at one write while it is down; it starts, and is whole again by itself.
fn one_is_cured(seed: u64, is_leader: bool, number: u64) {
    let (mut world, entries) = written(seed, 1);
    let leader = world.elect();
    let nodes = world.nodes();
    let node = *nodes.iter().find(|&&node| (node == leader) == is_leader).expect("there is one");
    world.kill(node, |_| true);
    rot(&mut world, node, number);
    world.start(node);
    world.run_for(Ticks::from_millis(3_000));
    assert_cured(&world.events(node), entries[number as usize]);
    assert_counts(&mut world, node, seed);
}

/// S04: rot of what was acknowledged last isn't taken for a torn write: it is repaired.
#[test]
fn s04_rot_of_the_last_acknowledged_entry_is_repaired() {
    for seed in 0..4 {
        one_is_cured(seed, seed % 2 == 0, WRITES);
    }
}

/// S05, A13: rot in the middle of the log, with intact entries behind it: the node refuses to
/// serve, and is whole again without a hand.
#[test]
fn s05_rot_in_the_middle_is_repaired() {
    for seed in 0..4 {
        one_is_cured(seed, seed % 2 == 1, WRITES / 2);
    }
}

/// A node that lost entries and is alone refuses its clients and disturbs nobody; when it meets the
/// others it is cured, and may lead.
#[test]
fn a_damaged_node_waits_for_the_others() {
    let mut led = 0;
    for seed in 0..8 {
        let (mut world, entries) = written(seed, 1);
        let leader = world.elect();
        let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&id| id != node).collect();
        world.kill(node, |_| true);
        rot(&mut world, node, 3);
        for &other in &others {
            world.cut(node, other);
        }
        world.start(node);
        let before = world.elections();
        world.run_for(Ticks::from_millis(5_000));
        let group = world.group(node);
        assert!(group.damaged && group.applied < entries[3], "{group:?}");
        assert_eq!(group.last.next(), entries[3], "it ends before what is lost");
        assert_eq!(group.role, GroupRole::Follower);
        assert_eq!(world.elections(), before, "nobody stands");
        assert_eq!(world.get(node, &value(1)).0, Status::Damaged);
        world.heal();
        world.run_for(Ticks::from_millis(2_000));
        assert_cured(&world.events(node), entries[3]);
        assert_counts(&mut world, node, seed);
        led += u32::from(world.group(node).role == GroupRole::Leader);
    }
    assert!(led > 0, "a repaired node never led");
}

/// I-13: a node that says that it is whole finds itself so after a power cut that keeps nothing but
/// what was durable; one that didn't say it finds that it isn't.
#[test]
fn a_repair_that_is_told_outlasts_a_power_cut() {
    let (mut told, mut untold) = (0, 0);
    for (seed, span) in (0..).zip((100..3_000).step_by(150)) {
        let (mut world, _) = written(seed, 1);
        let leader = world.elect();
        let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        world.kill(node, |_| true);
        rot(&mut world, node, 2);
        world.start(node);
        world.run_for(Ticks(span));
        let is_told = world.events(node).iter().any(is_repaired);
        world.kill(node, |_| false);
        world.start(node);
        let is_whole = !world.events(node).iter().any(is_lost);
        // Durable and not yet told of: the process may end between the two.
        assert!(is_whole || !is_told, "seed {seed}: it was whole after {span} us");
        (told, untold) = (told + u32::from(is_told), untold + u32::from(!is_whole));
        world.run_for(Ticks::from_millis(2_000));
        assert_counts(&mut world, node, seed);
    }
    assert!(told > 2 && untold > 2, "{told} were told, {untold} were interrupted");
}

/// S06, in part: different entries are rotten on two of three nodes, and the third is whole: all
/// three are whole again.
#[test]
fn s06_rot_on_two_of_three_is_repaired_by_the_third() {
    for seed in 0..4 {
        let (mut world, entries) = written(seed, 1);
        let nodes = world.nodes();
        stop_all(&mut world);
        for (at, number) in [(0, 5), (1, 11)] {
            rot(&mut world, nodes[at], number);
        }
        start_all(&mut world);
        world.elect();
        world.run_for(Ticks::from_millis(2_000));
        for (at, number) in [(0, 5), (1, 11)] {
            assert_cured(&world.events(nodes[at]), entries[number]);
        }
        assert_counts(&mut world, nodes[0], seed);
    }
}

/// S06: different entries are rotten on every node, each is intact somewhere: nobody may stand at
/// first, and all are whole again without a hand.
#[test]
fn s06_different_entries_rot_on_every_node() {
    for (seed, numbers) in [
        [vec![3], vec![9], vec![15]],
        [vec![7], vec![8], vec![9]],
        [vec![WRITES], vec![WRITES - 1], vec![1]],
        [vec![2, 12, 20], vec![3, 13, 21], vec![1, 11, 19, WRITES]],
        // The helix: every entry is rotten on one of them.
        [0, 1, 2].map(|node| (1..=WRITES).filter(|number| number % 3 == node).collect()),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = seed as u64;
        let (mut world, entries) = written(seed, 3);
        let nodes = world.nodes();
        stop_all(&mut world);
        for (&node, numbers) in nodes.iter().zip(&numbers) {
            numbers.iter().for_each(|&number| rot(&mut world, node, number));
        }
        start_all(&mut world);
        world.elect();
        world.run_for(Ticks::from_millis(5_000));
        for (&node, numbers) in nodes.iter().zip(&numbers) {
            assert_cured(&world.events(node), entries[numbers[0] as usize]);
        }
        let lent: u64 = nodes.iter().map(|&node| world.shard(node).metrics().entries_lent).sum();
        assert!(lent > 0, "seed {seed}: somebody had it of another one first");
        assert_counts(&mut world, nodes[0], seed);
    }
}

/// S06, I-13: power fails on all nodes at any moment while they repair each other. None of them says
/// that it is whole and finds that it isn't, and in the end nothing is lost.
#[test]
fn s06_power_fails_while_they_repair_each_other() {
    let (mut told, mut untold) = (0, 0);
    for (seed, span) in (0..).zip((300_000..320_000).step_by(1_600)) {
        let (mut world, _) = written(seed, 1);
        let nodes = world.nodes();
        stop_all(&mut world);
        for (at, &node) in nodes.iter().enumerate() {
            for number in (1 + at as u64..=WRITES).step_by(3) {
                rot(&mut world, node, number);
            }
        }
        start_all(&mut world);
        world.run_for(Ticks(span));
        let is_told: Vec<bool> =
            nodes.iter().map(|&node| world.events(node).iter().any(is_repaired)).collect();
        stop_all_at_once(&mut world, seed);
        start_all(&mut world);
        for (&node, is_told) in nodes.iter().zip(is_told) {
            let is_whole = !world.events(node).iter().any(is_lost);
            assert!(is_whole || !is_told, "seed {seed}: {node} was whole after {span} us");
            (told, untold) = (told + u32::from(is_told), untold + u32::from(!is_whole));
        }
        world.elect();
        world.run_for(Ticks::from_millis(5_000));
        assert_counts(&mut world, nodes[0], seed);
    }
    assert!(told > 2 && untold > 2, "{told} were told, {untold} were interrupted");
}

/// S05: the only node that has the newest entries lost older ones, and the third is gone: it has them
/// from the one that lags, and leads.
#[test]
fn s05_who_has_the_newest_is_repaired_by_who_lags() {
    for seed in 0..3 {
        let mut world = World::new(seed, 3, 1);
        let leader = world.elect();
        let others: Vec<NodeId> = world.nodes().into_iter().filter(|&id| id != leader).collect();
        let (lags, gone) = (others[0], others[1]);
        for number in 1..=WRITES {
            if number == WRITES / 2 {
                world.run_for(Ticks::from_millis(500));
                world.kill(lags, |_| true);
            }
            let reply = world.put(leader, 9, number, &value(number), &value(number));
            assert_eq!(reply.status, Status::Ok);
        }
        world.run_for(Ticks::from_millis(500));
        world.kill(gone, |_| true);
        world.kill(leader, |_| true);
        rot(&mut world, leader, 4);
        world.start(leader);
        world.start(lags);
        assert_eq!(world.elect(), leader, "seed {seed}: the other lacks what is committed");
        world.run_for(Ticks::from_millis(500));
        let (status, body) = world.get(leader, &value(WRITES));
        assert!(status == Status::Ok && body.windows(12).any(|part| part == value(WRITES)));
        world.assert_converged();
    }
}

/// S07: the same entry is rotten on every node: that group halts, says which one it lacks, and
/// nothing is made up; what is intact somewhere is had nevertheless, and the other groups of the same
/// logs go on. When one of the nodes can read it again, all are whole.
#[test]
fn s07_rot_on_every_node_halts_that_group_only() {
    for (seed, others) in [(0, [7, 7, 7]), (1, [3, 9, 15])] {
        let groups = 4;
        let (mut world, entries) = written(seed, groups);
        let nodes = world.nodes();
        stop_all(&mut world);
        for (&node, other) in nodes.iter().zip(others) {
            rot(&mut world, node, 7);
            if other != 7 {
                rot(&mut world, node, other);
            }
        }
        start_all(&mut world);
        world.run_for(Ticks::from_millis(12_000));
        for (&node, other) in nodes.iter().zip(others) {
            let said = world.events(node);
            let lost: Vec<&ShardEvent> = said.iter().filter(|event| is_lost(event)).collect();
            let &[&ShardEvent::EntriesLost { group, first, .. }] = &lost[..] else {
                panic!("{said:?}")
            };
            assert_eq!((group, first), (GROUP, entries[other.min(7) as usize]));
            let lacking = ShardEvent::NotMended { group: GROUP, first: entries[7] };
            assert!(said.contains(&lacking), "it names the entry: {said:?}");
            assert_eq!(world.get(node, &value(1)).0, Status::Damaged);
            assert!(!said.iter().any(is_repaired), "{said:?}");
        }
        for group in (1..=groups).map(GroupId) {
            let of_group = |node| world.groups(node).into_iter().find(|one| one.group == group);
            let all: Vec<_> = nodes.iter().filter_map(|&node| of_group(node)).collect();
            let leaders = all.iter().filter(|one| one.role == GroupRole::Leader).count();
            assert_eq!(leaders, usize::from(group != GROUP), "group {group}: {all:?}");
            assert!(all.iter().all(|one| one.damaged == (group == GROUP)), "{all:?}");
        }
        world.kill(nodes[1], |_| true);
        unrot(&mut world, nodes[1], 7);
        world.start(nodes[1]);
        world.elect();
        world.run_for(Ticks::from_millis(15_000));
        assert_counts(&mut world, nodes[1], seed);
    }
}

/// A11: power fails on every node while writes are under way: the last blocks are torn on all of
/// them, each in its own way. Nothing that was acknowledged is lost, no rot is seen, and all go on.
#[test]
fn a11_the_last_writes_are_torn_on_every_node() {
    let mut torn = 0;
    for seed in 0..16u64 {
        let (mut world, _) = written(seed, 1);
        let leader = world.elect();
        for node in world.nodes() {
            world.hold_disk(node, true);
        }
        for number in WRITES + 1..=WRITES + 8 {
            let long = value(number).repeat(400);
            world.send_put(leader, 9, number, &value(number), &long);
            world.run_for(Ticks(40 + seed * 50));
        }
        for (at, node) in world.nodes().into_iter().enumerate() {
            let lost = 2 + seed % 3;
            world.kill(node, |sector| !(sector as u64 + seed + at as u64).is_multiple_of(lost));
        }
        start_all(&mut world);
        for node in world.nodes() {
            torn += world.shard(node).torn_blocks();
            assert!(!world.events(node).iter().any(is_lost), "seed {seed}: no rot");
        }
        let leader = world.elect();
        for number in 1..=WRITES {
            let (status, body) = world.get(leader, &value(number));
            let is_there = body.windows(12).any(|part| part == value(number));
            assert!(status == Status::Ok && is_there, "seed {seed}: {number}");
        }
        world.run_for(Ticks::from_millis(500));
        world.assert_converged();
    }
    assert!(torn > 16, "{torn} blocks were torn");
}

/// A11: what a majority acknowledged lies behind the last whole record of the third node, whose writes
/// were under way when the power failed on all: it recovers up to there, and has the rest of the others.
#[test]
fn a11_what_is_torn_on_one_is_had_of_the_others() {
    let mut behind = 0;
    for seed in 0..8u64 {
        let (mut world, _) = written(seed, 1);
        let leader = world.elect();
        let slow = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        world.hold_disk(slow, true);
        for number in WRITES + 1..=WRITES + 8 {
            let long = value(number).repeat(400);
            assert_eq!(world.put(leader, 9, number, &value(number), &long).status, Status::Ok);
        }
        let newest = world.group(leader).last;
        for node in world.nodes() {
            world.kill(node, |sector| (sector as u64 + seed).is_multiple_of(2 + seed % 3));
        }
        start_all(&mut world);
        behind += u32::from(world.group(slow).last < newest);
        for node in world.nodes() {
            assert!(!world.events(node).iter().any(is_lost), "seed {seed}: no rot");
        }
        world.elect();
        world.run_for(Ticks::from_millis(1_000));
        assert!(world.group(slow).last > newest);
        world.assert_converged();
        let away = *world.nodes().iter().find(|&&node| node != slow).expect("there are three");
        world.kill(away, |_| false);
        let leader = world.elect();
        for number in WRITES + 1..=WRITES + 8 {
            let (status, body) = world.get(leader, &value(number));
            assert!(status == Status::Ok && body.len() > 4_000, "seed {seed}: {number}");
        }
    }
    assert!(behind > 4, "{behind} were torn");
}

/// S32: a record of one group rots in a log that many share: only that group is repaired, and the
/// others lost nothing.
#[test]
fn s32_rot_of_one_groups_record_concerns_that_group_only() {
    let (mut world, entries) = written(5, 16);
    let leader = world.elect();
    let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    world.kill(node, |_| true);
    rot(&mut world, node, 8);
    for &other in &world.nodes() {
        if other != node {
            world.cut(node, other);
        }
    }
    world.start(node);
    world.run_for(Ticks::from_millis(200));
    let damaged = world.groups(node).into_iter().filter(|group| group.damaged);
    assert_eq!(damaged.map(|group| group.group).collect::<Vec<_>>(), [GROUP]);
    world.heal();
    world.run_for(Ticks::from_millis(3_000));
    assert_cured(&world.events(node), entries[8]);
    world.assert_converged();
}

/// S03: a bit flips anywhere in what a node wrote. It is noticed, or it lay where nothing is lost;
/// the node is whole again by itself, or takes no part and says so; nobody ever differs.
#[test]
fn s03_a_bit_flip_anywhere_is_noticed_and_cured() {
    let (mut cured, mut silent, mut harmless) = (0, 0, 0);
    for hit in (3..).step_by(61) {
        let (mut world, _) = written(0, 2);
        let node = world.nodes()[0];
        world.kill(node, |_| true);
        let (mut device, starts) = world.copy(node);
        let (file, _) = device.files()[0];
        // Padding is zero, and says nothing.
        let content = device.content(file);
        let mut written = (0..content.len()).filter(|&at| content[at] != 0);
        let Some(at) = written.nth(hit) else { break };
        device.flip_bit(file, at as u64 * 8 + hit as u64 % 8);
        world.put_back(node, (device, starts));
        world.start(node);
        world.run_for(Ticks::from_millis(2_500));
        let said = world.events(node);
        let lost = said.iter().filter(|event| is_lost(event)).count();
        let repaired = said.iter().filter(|event| is_repaired(event)).count();
        let damaged = world.groups(node).iter().filter(|group| group.damaged).count();
        if damaged > 0 {
            // What it knew of the others is lost, or nobody knows what: no group takes part.
            assert_eq!((damaged, lost), (2, 0), "byte {at}: {said:?}");
            silent += 1;
            continue;
        }
        assert_eq!(lost, repaired, "byte {at}: {said:?}");
        world.assert_converged();
        (cured, harmless) = (cured + u32::from(lost > 0), harmless + u32::from(lost == 0));
    }
    assert!(
        cured > 10 && silent > 0 && harmless > 0,
        "{cured} cured, {silent} silent, {harmless} harmless"
    );
}
