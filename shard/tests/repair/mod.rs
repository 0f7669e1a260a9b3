//! Groups that lose entries to rot get them again from their peers (decision 0013).

use crate::world::{GROUP, World};
use ringraft_net::status::GroupRole;
use ringraft_shard::{Halt, ShardEvent};
use ringraft_types::{GroupId, Index, LogId, NodeId, Status, Ticks};
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
    let (mut device, starts) = world.copy(node);
    let value = value(number);
    let places: Vec<(FileId, usize)> = device
        .files()
        .into_iter()
        .filter_map(|(file, _)| {
            let content = device.content(file);
            let at = content.windows(value.len()).position(|part| part == &value[..])?;
            Some((file, at))
        })
        .collect();
    let &[(file, at)] = &places[..] else { panic!("write {number} is at {places:?}") };
    device.flip_bit(file, at as u64 * 8);
    world.put_back(node, (device, starts));
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
        for &node in &nodes {
            world.kill(node, |_| true);
        }
        for (at, number) in [(0, 5), (1, 11)] {
            rot(&mut world, nodes[at], number);
        }
        for &node in &nodes {
            world.start(node);
        }
        world.elect();
        world.run_for(Ticks::from_millis(2_000));
        for (at, number) in [(0, 5), (1, 11)] {
            assert_cured(&world.events(nodes[at]), entries[number]);
        }
        assert_counts(&mut world, nodes[0], seed);
    }
}

/// S06, what is still open, and S07: rot of different entries, or of the same one, on every node:
/// the group halts and says which entries it lacks; no entry is made up, and the other groups of
/// the same logs go on.
#[test]
fn s07_rot_on_every_node_halts_that_group_only() {
    for (seed, numbers) in [(0, [7, 7, 7]), (1, [7, 7, 7]), (2, [3, 9, 15])] {
        let groups = 4;
        let (mut world, entries) = written(seed, groups);
        let nodes = world.nodes();
        for &node in &nodes {
            world.kill(node, |_| true);
        }
        for (&node, number) in nodes.iter().zip(numbers) {
            rot(&mut world, node, number);
        }
        for &node in &nodes {
            world.start(node);
        }
        world.run_for(Ticks::from_millis(8_000));
        let newest = world.group(nodes[0]).term;
        for (&node, number) in nodes.iter().zip(numbers) {
            let said = world.events(node);
            let lost: Vec<&ShardEvent> = said.iter().filter(|event| is_lost(event)).collect();
            let &[&ShardEvent::EntriesLost { group, first, promised }] = &lost[..] else {
                panic!("{said:?}")
            };
            assert_eq!((group, first), (GROUP, entries[number as usize]));
            assert!(promised >= LogId::new(newest, entries[WRITES as usize]), "{promised}");
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
    }
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
