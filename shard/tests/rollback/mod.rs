//! A node whose data directory was put back from an older copy.

use crate::world::{GROUP, World};
use ringraft_shard::{Halt, PeerAdmission, ShardEvent};
use ringraft_types::{GroupId, Met, NodeId, Start, Starts, Status, Ticks};
use ringraft_wal::block::Block;
use ringraft_wal::device::FileId;
use ringraft_wal::device::memory::MemoryDevice;

type Disk = (MemoryDevice, Starts);
/// A node, with an older disk and its newest one.
type TwoDisks = (NodeId, [Disk; 2]);

/// Three nodes that all met each other, and one of them, which doesn't lead and doesn't run.
fn one_is_down(seed: u64) -> (World, NodeId) {
    let mut world = World::new(seed, 3, 2);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"a", b"1").status, Status::Ok);
    let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    world.kill(node, |_| true);
    (world, node)
}

/// It runs with what it has, is met by the others, and is down again.
fn live(world: &mut World, node: NodeId) {
    world.start(node);
    world.run_for(Ticks::from_millis(1_000));
    assert_eq!(world.take_refused(), []);
    world.kill(node, |_| true);
}

/// The node is started from this disk; the others refuse it, it falls silent, and they go on.
fn is_refused(world: &mut World, node: NodeId, disk: Disk, known: Start) -> Disk {
    let own = world.put_back(node, disk);
    let before = world.copy(node).1.newest().number;
    world.start(node);
    let reason = if before < known.number {
        let incarnation = World::identity(node).incarnation;
        PeerAdmission::RolledBack { known: Met { incarnation, start: known } }
    } else {
        PeerAdmission::Forgot
    };
    let refused = world.take_refused();
    assert_eq!(refused.len(), 2, "{refused:?}");
    for (by, of, why) in refused {
        let (judge, judged) = if why == PeerAdmission::Forgot { (of, by) } else { (by, of) };
        assert_eq!((judged, why), (node, reason), "{judge} knows it");
    }
    world.run_for(Ticks::from_millis(2_000));
    let said = world.events(node);
    let met = |event: &ShardEvent| matches!(event, ShardEvent::RolledBack { lacked, .. } if lacked.start == known);
    assert_eq!(said.iter().filter(|event| met(event)).count(), 1, "{said:?}");
    let halts =
        |event: &&ShardEvent| matches!(event, ShardEvent::Halted { halt: Halt::RolledBack, .. });
    assert_eq!(said.iter().filter(halts).count(), 2, "each group: {said:?}");
    assert_eq!(world.get(node, b"a").0, Status::Damaged, "its clients are told");
    let leader = world.elect_among(|other| other != node);
    assert_eq!(world.get(leader, b"a").0, Status::Ok);
    world.kill(node, |_| true);
    own
}

/// Goal: an older copy is refused by all that met the node since, however often the copy itself
/// was started meanwhile; the directory that was in use is taken again.
#[test]
fn an_older_copy_is_refused_and_the_newest_taken() {
    let (mut world, node) = one_is_down(21);
    let copy = world.copy(node);
    (0..3).for_each(|_| live(&mut world, node));
    let known = world.copy(node).1.newest();
    let newest = is_refused(&mut world, node, copy, known);
    // The copy's own starts count up, and pass the number that is known.
    for _ in 0..5 {
        let copy = world.copy(node);
        is_refused(&mut world, node, copy, known);
    }
    world.put_back(node, newest);
    world.start(node);
    assert_eq!(world.take_refused(), []);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 2, b"b", b"2").status, Status::Ok);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: what was met survives a restart of who met it.
#[test]
fn what_was_met_is_durable() {
    let (mut world, node) = one_is_down(22);
    let copy = world.copy(node);
    live(&mut world, node);
    let known = world.copy(node).1.newest();
    for other in world.nodes().into_iter().filter(|&other| other != node) {
        world.kill(other, |_| false);
        world.start(other);
    }
    world.elect();
    is_refused(&mut world, node, copy, known);
}

/// Goal: a peer that says nothing after its greeting isn't met by it: a copy that learns from the
/// answer that it is one leaves no trace.
#[test]
fn a_greeting_alone_is_no_meeting() {
    let (mut world, node) = one_is_down(23);
    let copy = world.copy(node);
    live(&mut world, node);
    let known = world.copy(node).1.newest();
    let newest = is_refused(&mut world, node, copy, known);
    for _ in 0..4 {
        let copy = world.copy(node);
        is_refused(&mut world, node, copy, known);
    }
    world.put_back(node, newest);
    live(&mut world, node);
}

/// Goal: a copy that was told what it is meets nobody any more: who knows no better would take its
/// start down, and refuse the right directory for it.
#[test]
fn a_copy_that_was_told_meets_nobody() {
    let (mut world, node) = one_is_down(25);
    let copy = world.copy(node);
    let leader = world.elect();
    let late = world.nodes().into_iter().find(|&it| it != node && it != leader).expect("three");
    world.kill(late, |_| true);
    live(&mut world, node);
    let newest = world.put_back(node, copy);
    world.start(node);
    assert_ne!(world.take_refused(), [], "the leader met it since");
    world.start(late);
    let told = world.take_refused();
    assert!(told.iter().all(|refused| refused.2 == PeerAdmission::Forgot), "{told:?}");
    assert_ne!(told, []);
    world.run_for(Ticks::from_millis(1_000));
    world.kill(node, |_| true);
    world.put_back(node, newest);
    world.start(node);
    assert_eq!(world.take_refused(), [], "the right directory is taken");
}

/// Goal: a shard that hears from another one of its node that their directory is an older copy does
/// as if it had been told itself: it leads no more, refuses its clients, and is met by nobody.
#[test]
fn what_another_shard_was_told_counts() {
    let mut world = World::new(26, 3, 2);
    let node = world.elect();
    assert_eq!(world.put(node, 9, 1, b"a", b"1").status, Status::Ok);
    let late = world.nodes().into_iter().find(|&other| other != node).expect("three");
    world.kill(late, |_| true);
    world.events(node);
    world.tell_older_copy(node);
    let sent = world.bytes_from(node);
    world.run_for(Ticks::from_millis(2_000));
    let said = world.events(node);
    let halts =
        |event: &&ShardEvent| matches!(event, ShardEvent::Halted { halt: Halt::RolledBack, .. });
    assert_eq!(said.iter().filter(halts).count(), 2, "each group: {said:?}");
    let told = |event: &ShardEvent| matches!(event, ShardEvent::RolledBack { .. });
    assert!(!said.iter().any(told), "whoever was told said so: {said:?}");
    assert_eq!(world.get(node, b"a").0, Status::Damaged, "its clients are told");
    assert_eq!(world.bytes_from(node), sent, "no peer hears of it");
    world.start(late);
    let refused = world.take_refused();
    assert_ne!(refused, []);
    assert!(refused.iter().all(|refused| refused.2 == PeerAdmission::Forgot), "{refused:?}");
    let leader = world.elect_among(|other| other != node);
    assert_eq!(world.get(leader, b"a").0, Status::Ok);
}

/// The blocks of a log with records of the node itself, oldest first: each one's place.
fn blocks_of_the_node(device: &MemoryDevice) -> Vec<(FileId, u64)> {
    let mut found = Vec::new();
    for (file, _) in device.files() {
        let content = device.content(file);
        let mut at = 4096;
        while at < content.len() {
            let Ok(block) = Block::parse(&content[at..]) else { break };
            if block.directory().iter().any(|item| item.group == GroupId::ZERO) {
                found.push((block.header.sequence, (file, at as u64)));
            }
            at += block.bytes.len();
        }
    }
    found.sort_by_key(|(sequence, _)| *sequence);
    found.into_iter().map(|(_, place)| place).collect()
}

/// Goal: rot of what a log said of its node, the peers that it met, takes nothing if it was said
/// again since. If it was the newest, the node is silent for good: what it writes down later must
/// not pass for what it lost.
#[test]
fn only_the_newest_record_of_the_node_counts() {
    for is_newest in [false, true] {
        let (mut world, node) = one_is_down(27);
        let other = world.nodes().into_iter().find(|&other| other != node).expect("three");
        // It is met in a later start: there is something to write down.
        let live_and_meet = |world: &mut World| {
            world.start(node);
            world.run_for(Ticks::from_millis(500));
            world.kill(other, |_| true);
            world.start(other);
            world.elect_among(|it| it != node || !is_newest);
            world.run_for(Ticks::from_millis(500));
        };
        for _ in 0..2 {
            live_and_meet(&mut world);
            world.kill(node, |_| true);
        }
        let (mut device, starts) = world.copy(node);
        let blocks = blocks_of_the_node(&device);
        assert!(blocks.len() > 2, "{blocks:?}");
        let (file, offset) = blocks[if is_newest { blocks.len() - 1 } else { 1 }];
        device.flip_bit(file, (offset + 20) * 8);
        world.put_back(node, (device, starts));
        for round in 0..3 {
            live_and_meet(&mut world);
            let is_silent = world.get(node, b"a").0 == Status::Damaged;
            assert_eq!(is_silent, is_newest, "start {round}");
            world.kill(node, |_| true);
        }
    }
}

/// A cluster of so many nodes; a majority of them, with their disks of before the newest write and of
/// now; and the others. Nobody of the majority runs.
fn majority_is_down(seed: u64, nodes: u32) -> (World, Vec<TwoDisks>, Vec<NodeId>) {
    let mut world = World::new(seed, nodes, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"a", b"1").status, Status::Ok);
    world.run_for(Ticks::from_millis(1_000));
    let (many, few) = {
        let all = world.nodes();
        let (many, few) = all.split_at(all.len() / 2 + 1);
        (many.to_vec(), few.to_vec())
    };
    many.iter().for_each(|&node| world.kill(node, |_| true));
    let before: Vec<Disk> = many.iter().map(|&node| world.copy(node)).collect();
    many.iter().for_each(|&node| world.start(node));
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 2, b"b", b"2").status, Status::Ok);
    world.run_for(Ticks::from_millis(1_000));
    assert_eq!(world.take_refused(), []);
    many.iter().for_each(|&node| world.kill(node, |_| true));
    let disks = many.iter().zip(before).map(|(&node, before)| (node, [before, world.copy(node)]));
    let disks = disks.collect();
    (world, disks, few)
}

/// All of these are silent, and say so; nobody leads.
#[track_caller]
fn assert_halted(world: &mut World, copies: &[NodeId]) {
    world.run_for(Ticks::from_millis(3_000));
    for &node in copies {
        let said = world.events(node);
        let told = |event: &ShardEvent| matches!(event, ShardEvent::RolledBack { .. });
        assert!(said.iter().any(told), "node {node}: {said:?}");
        assert_eq!(world.get(node, b"a").0, Status::Damaged, "its clients are told");
    }
    let leads = |node: &NodeId| world.leads(*node, GROUP);
    assert!(!world.running().iter().any(leads), "nobody leads");
}

/// Goal: most directories are put back to an older copy, and somebody who met the later starts is
/// there: the copies fall silent, nothing is decided without the others, and nothing is lost: with the
/// newest directories the cluster goes on (S37).
#[test]
fn s37_older_copies_on_a_majority_halt_the_cluster() {
    for nodes in [3, 5] {
        let (mut world, disks, few) = majority_is_down(28, nodes);
        let many: Vec<NodeId> = disks.iter().map(|(node, _)| *node).collect();
        for (node, [before, _]) in &disks {
            world.put_back(*node, before.clone());
            world.start(*node);
        }
        assert_halted(&mut world, &many);
        for &node in &few {
            assert_ne!(world.get(node, b"b").0, Status::Ok, "it can't know");
        }
        many.iter().for_each(|&node| world.kill(node, |_| true));
        for (node, [_, newest]) in disks {
            world.put_back(node, newest);
            world.start(node);
        }
        let leader = world.elect();
        let (status, body) = world.get(leader, b"b");
        assert!(status == Status::Ok && body.windows(1).any(|part| part == b"2"));
        world.run_for(Ticks::from_millis(1_000));
        world.assert_converged();
    }
}

/// Goal: the limit, as `docs/ASSUMPTIONS.md` tells it: as long as nobody is there who met the later
/// starts, older copies on a majority are a cluster like any other. With the first one who did they
/// fall silent, before anything of theirs comes to it (S37).
#[test]
fn s37_a_majority_of_older_copies_halts_when_somebody_remembers() {
    for nodes in [3, 5] {
        let (mut world, disks, few) = majority_is_down(29, nodes);
        let last = world.group(few[0]).last;
        few.iter().for_each(|&node| world.kill(node, |_| true));
        for (node, [before, _]) in &disks {
            world.put_back(*node, before.clone());
        }
        let many: Vec<NodeId> = disks.iter().map(|(node, _)| *node).collect();
        many.iter().for_each(|&node| world.start(node));
        let leader = world.elect();
        assert_eq!(world.put(leader, 8, 1, b"c", b"3").status, Status::Ok, "nobody knows better");
        world.start(few[0]);
        assert_halted(&mut world, &many);
        assert_eq!(world.group(few[0]).last, last, "it takes nothing of theirs");
    }
}

/// Goal: links that break and come back between two runs of the same processes are taken.
#[test]
fn the_same_start_reconnects() {
    let mut world = World::new(24, 3, 1);
    world.elect();
    for _ in 0..3 {
        world.cut(NodeId(1), NodeId(2));
        world.run_for(Ticks::from_millis(200));
        world.heal();
        world.run_for(Ticks::from_millis(500));
    }
    assert_eq!(world.take_refused(), []);
    world.elect();
    world.assert_converged();
}
