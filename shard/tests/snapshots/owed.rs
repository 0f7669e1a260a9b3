//! What a snapshot held that can't be read any more, and of which the log tells little or nothing: the
//! group may have promised it all (decision 0013).

use super::*;
use crate::repair::flip;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Index, LogId, Term};

/// What a node says that it lacks, if it does.
fn lacking(said: &[ShardEvent]) -> Option<LogId> {
    said.iter().find_map(|event| match event {
        ShardEvent::EntriesLost { group: GROUP, promised, .. } => Some(*promised),
        _ => None,
    })
}

/// The node becomes whole by itself, is as the others, and is whole after another start.
fn assert_cured(world: &mut World, node: NodeId, bad: FileId) {
    world.run_for(Ticks::from_millis(5_000));
    let said = world.events(node);
    let is_repaired = |event: &ShardEvent| matches!(event, ShardEvent::Repaired { .. });
    assert!(said.iter().any(is_repaired), "{said:?}");
    world.assert_converged();
    world.kill(node, |_| false);
    world.start(node);
    assert_eq!(lacking(&world.events(node)), None);
    world.run_for(Ticks::from_millis(2_000));
    world.assert_converged();
    assert!(!files(world, node, FileKind::Snapshot).contains(&bad), "nothing can use it");
}

/// The record with which a log names a snapshot rots.
fn rot_name(world: &mut World, node: NodeId, number: u64, last: LogId) {
    let (mut name, number) = (Vec::new(), number.to_le_bytes());
    record::encode(&mut name, RecordKind::Snapshot, GROUP, last.index, last.term, [&number, b""]);
    flip(world, node, &name);
}

/// Goal: a node installed a snapshot; the record that names it rots, and a chunk of it. It votes as if
/// it held all that was in it, which the head tells, and isn't whole before it does.
#[test]
fn what_an_unnamed_snapshot_held_is_owed() {
    for seed in 60..63 {
        let (mut world, leader) = cluster(seed, 3, BY_HAND);
        let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        fill(&mut world, leader, 1..=10, 100);
        world.kill(away, |_| false);
        fill(&mut world, leader, 11..=60, 10_000);
        take(&mut world, leader);
        world.run_for(Ticks::from_millis(5_000));
        world.start(away);
        let ShardEvent::SnapshotInstalled { last, .. } = await_installed(&mut world, away) else {
            unreachable!("it was waited for");
        };
        world.run_for(Ticks::from_millis(10));
        let term = world.group(away).term;
        let &[bad] = &files(&world, away, FileKind::Snapshot)[..] else { panic!("there is one") };
        world.kill(away, |_| false);
        let chunk = HEAD_BYTES as u64 + CHUNK_HEAD_BYTES as u64 + 99;
        rot_name(&mut world, away, bad.number, LogId::new(term, last));
        world.disk(away).flip_bit(bad, chunk * 8);
        world.start(away);
        let promised = lacking(&world.events(away)).expect("it lacks nearly all");
        assert!(promised.index >= last, "seed {seed}: {promised} is owed, it held {last}");
        let votes = world.shard(away).votes_as_holding(GROUP).expect("it takes part");
        assert!(votes.index >= last, "seed {seed}: it votes as if it held {votes}");
        assert_cured(&mut world, away, bad);
    }
}

/// Goal: the record that names a snapshot rots, and its head: nobody knows what it held. The node votes
/// for nobody and goes on to the next term; when it holds what was written in a newer term than those
/// in which it promised anything, it is whole.
#[test]
fn what_nobody_knows_of_is_met_in_a_newer_term() {
    for seed in 70..73 {
        let (mut world, leader) = cluster(seed, 3, BY_HAND);
        fill(&mut world, leader, 1..=40, 100);
        world.run_for(Ticks::from_millis(500));
        let node = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        take(&mut world, node);
        world.run_for(Ticks::from_millis(500));
        let (last, term) = (world.group(node).snapshot, world.group(node).term);
        fill(&mut world, leader, 41..=50, 100);
        world.run_for(Ticks::from_millis(500));
        let &[bad] = &files(&world, node, FileKind::Snapshot)[..] else { panic!("there is one") };
        world.kill(node, |_| false);
        rot_name(&mut world, node, bad.number, LogId::new(term, last));
        world.disk(node).flip_bit(bad, 40 * 8);
        world.start(node);
        let unknown = LogId::new(term, Index(u64::MAX));
        assert_eq!(lacking(&world.events(node)), Some(unknown), "seed {seed}");
        assert_eq!(world.shard(node).votes_as_holding(GROUP), Some(unknown));
        assert_eq!(world.group(node).term, Term(term.0 + 1), "nobody has its vote in that one");
        assert_cured(&mut world, node, bad);
        assert!(world.group(node).term > term);
    }
}
