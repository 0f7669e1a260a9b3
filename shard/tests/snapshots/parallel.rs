//! Snapshots of one entry, taken by several nodes, and fetched from all of them at once.

use super::{BY_HAND, assert_starts_from_it, await_installed, cluster, files, fill, take};
use crate::world::World;
use ringraft_shard::{ShardEvent, SnapshotReason, SnapshotRules};
use ringraft_types::{Index, NodeId, Status, Ticks};
use ringraft_wal::device::FileKind;
use ringraft_wal::snapshot::{CHUNK_BYTES, HEAD_BYTES};

/// Every snapshot is kept in strands.
const IN_STRANDS: SnapshotRules = SnapshotRules { strands_bytes: 1, ..BY_HAND };
/// More than a source gives that is asked what it has, and for nothing else, bytes.
const TALK_BYTES: usize = 4 << 10;

/// The entry of the snapshot that a node took last, and why.
fn taken(world: &mut World, node: NodeId) -> Option<(Index, SnapshotReason)> {
    world.events(node).into_iter().rev().find_map(|event| match event {
        ShardEvent::SnapshotTaken { last, reason, .. } => Some((last, reason)),
        _ => None,
    })
}

/// A node that was away while the others saved what it lacks, the leader, and the others. It isn't
/// started yet. Who is `unaware` doesn't hear at which entry.
fn behind(world: &mut World, leader: NodeId, unaware: Option<NodeId>) -> (NodeId, Vec<NodeId>) {
    let mut others: Vec<NodeId> = world.nodes().into_iter().filter(|&it| it != leader).collect();
    others.retain(|&node| Some(node) != unaware);
    let away = others.remove(0);
    fill(world, leader, 1..=10, 100);
    world.kill(away, |_| false);
    fill(world, leader, 11..=60, 200_000);
    world.run_for(Ticks::from_millis(500));
    if let Some(unaware) = unaware {
        world.cut(leader, unaware);
    }
    for &node in &others {
        world.events(node);
    }
    let ShardEvent::SnapshotTaken { last, .. } = take(world, leader) else {
        unreachable!("that is what is taken")
    };
    world.run_for(Ticks::from_millis(2_000));
    for &node in &others {
        assert_eq!(taken(world, node), Some((last, SnapshotReason::Appointed)), "node {node}");
    }
    world.heal();
    fill(world, leader, 61..=70, 100);
    world.run_for(Ticks::from_millis(5_000));
    (away, others)
}

/// Who installed from how many nodes, the first of them, and at which entry.
fn installed(world: &mut World, node: NodeId) -> (NodeId, usize, Index) {
    let ShardEvent::SnapshotInstalled { from, sources, last, .. } = await_installed(world, node)
    else {
        unreachable!("that is what is awaited")
    };
    (from, sources, last)
}

/// Runs until so many chunks of a snapshot are here, given by so many nodes at once.
fn await_chunks(world: &mut World, node: NodeId, sources: usize, chunks: u32) {
    for _ in 0..100_000 {
        world.run_for(Ticks(20));
        let progress = world.shard(node).install_progress();
        if progress.is_some_and(|it| it.sources >= sources && it.fetched >= chunks) {
            return;
        }
    }
    panic!("{sources} sources don't give {chunks} chunks");
}

fn assert_converged(world: &mut World, leader: NodeId) {
    fill(world, leader, 71..=80, 100);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: a follower behind the log is given a snapshot by the leader and the other followers at once,
/// each a part of it, and starts from what they made together (SN-08, A19).
#[test]
fn a19_a_snapshot_comes_from_several_nodes() {
    let (mut world, leader) = cluster(21, 5, IN_STRANDS);
    let (away, others) = behind(&mut world, leader, None);
    world.start(away);
    let (_, sources, _) = installed(&mut world, away);
    assert_eq!(sources, 4, "the leader and {others:?}");
    let mut all = 0;
    for &node in others.iter().chain([&leader]) {
        let sent = world.bulk_sent(node, away);
        assert!(sent > CHUNK_BYTES, "node {node} gave {sent} bytes");
        all += sent;
    }
    let of_leader = world.bulk_sent(leader, away);
    assert!(of_leader < all * 2 / 3, "the leader gave {of_leader} of {all} bytes");
    let file = files(&world, away, FileKind::Snapshot)[0];
    let length = world.content(away, file).len();
    assert!(all < length + length / 8, "{all} bytes for {length}: nothing comes twice");
    assert_converged(&mut world, leader);
    assert_starts_from_it(&mut world, away);
}

/// Goal: a source that dies midway costs what it hadn't given to the end, whoever it is: the others
/// give that, and the leader needn't be one of them (A19).
#[test]
fn a19_a_source_that_dies_midway_is_given_up() {
    for is_leader in [false, true] {
        let (mut world, leader) = cluster(22, 5, IN_STRANDS);
        let (away, others) = behind(&mut world, leader, None);
        world.start(away);
        await_chunks(&mut world, away, 4, 3);
        let dead = if is_leader { leader } else { others[0] };
        world.kill(dead, |_| false);
        let (from, sources, _) = installed(&mut world, away);
        assert!(from != dead && sources >= 3, "{sources} sources, {from} first");
        world.start(dead);
        let leader = world.elect();
        assert_converged(&mut world, leader);
    }
}

/// Goal: a node that didn't hear of the entry, and saved another one, is asked and gives nothing; one
/// that can't be reached isn't waited for (A19).
#[test]
fn a19_who_is_unaware_gives_nothing() {
    let (mut world, leader) = cluster(23, 5, IN_STRANDS);
    let unaware = world.nodes().into_iter().rfind(|&node| node != leader).expect("there are five");
    let (away, others) = behind(&mut world, leader, Some(unaware));
    take(&mut world, unaware);
    world.start(away);
    world.shut_bulk(away, others[0]);
    let (_, sources, _) = installed(&mut world, away);
    assert_eq!(sources, 2, "the leader and {}", others[1]);
    let sent = world.bulk_sent(unaware, away);
    assert!(0 < sent && sent < TALK_BYTES, "{sent} bytes of who is unaware");
    assert_converged(&mut world, leader);
}

/// Goal: a source whose snapshot rots gives what it can, takes another one, and the rest comes from
/// the others; so with the leader's (A19, A23).
#[test]
fn a19_a_source_whose_snapshot_rots_is_given_up() {
    for is_leader in [false, true] {
        let (mut world, leader) = cluster(24, 5, IN_STRANDS);
        let (away, others) = behind(&mut world, leader, None);
        let rotten = if is_leader { leader } else { others[0] };
        world.start(away);
        await_chunks(&mut world, away, 4, 1);
        let file = files(&world, rotten, FileKind::Snapshot)[0];
        let length = world.content(rotten, file).len();
        for at in (HEAD_BYTES + 200..length).step_by(20_000) {
            world.shard(rotten).device.flip_bit(file, at as u64 * 8);
        }
        world.events(rotten);
        let (_, sources, _) = installed(&mut world, away);
        assert!(sources >= 3, "{sources} sources");
        let said = world.events(rotten);
        let unreadable = |it: &ShardEvent| matches!(it, ShardEvent::SnapshotUnreadable { .. });
        assert!(said.iter().any(unreadable), "{said:?}");
        assert_converged(&mut world, leader);
    }
}

/// Goal: connections that break, of any source, again and again, cost what was on its way (SN-11).
#[test]
fn several_sources_go_on_after_breaks() {
    let (mut world, leader) = cluster(25, 5, IN_STRANDS);
    let (away, others) = behind(&mut world, leader, None);
    world.start(away);
    let nodes = [&[leader], &others[..]].concat();
    let (mut fetched, mut breaks) = (0, 0);
    loop {
        await_chunks(&mut world, away, 0, fetched + u32::from(fetched > 0));
        let progress = world.shard(away).install_progress().expect("just seen");
        assert!(progress.fetched >= fetched, "nothing is fetched twice");
        if progress.chunks > 0 && progress.fetched + 4 > progress.chunks {
            break;
        }
        world.run_for(Ticks(300));
        if progress.fetched > fetched {
            fetched = progress.fetched;
            world.break_bulk(away, nodes[breaks % nodes.len()]);
            breaks += 1;
        }
    }
    assert!(breaks > 4, "{breaks} breaks");
    installed(&mut world, away);
    assert_converged(&mut world, leader);
}

/// Goal: an install from several nodes that is cut by the installing node's power, at any moment,
/// ends in the old state or the new one.
#[test]
fn several_sources_and_power_cuts() {
    let (mut world, leader) = cluster(26, 3, IN_STRANDS);
    let (away, _) = behind(&mut world, leader, None);
    for cut in 0..30 {
        world.start(away);
        world.run_for(Ticks(cut * 700));
        world.kill(away, |sector| sector as u64 % 3 != cut % 3);
    }
    world.start(away);
    world.run_for(Ticks::from_millis(5_000));
    assert_converged(&mut world, leader);
}

/// Goal: all members save a group at the same entry also while writes come one behind the other, more
/// than a turn applies; and each starts from its own.
#[test]
fn the_entry_is_the_same_under_load() {
    let (mut world, leader) = cluster(27, 3, IN_STRANDS);
    fill(&mut world, leader, 1..=40, 1_000);
    for round in 0..4u8 {
        let client = 100 + u128::from(round);
        let calls: Vec<u64> = (1..=600)
            .map(|number| {
                if number == 300 {
                    world.shard(leader).want_snapshots(SnapshotReason::Asked);
                }
                if number % 50 == 0 {
                    world.run_for(Ticks(30));
                }
                let key = format!("key-{}", number % 90);
                world.send_put(leader, client, number, key.as_bytes(), &[round; 300])
            })
            .collect();
        for call in calls {
            assert_eq!(world.await_answer(leader, call).status, Status::Ok);
        }
        world.run_for(Ticks::from_millis(1_000));
        let (last, reason) = taken(&mut world, leader).expect("it was asked for");
        assert_eq!(reason, SnapshotReason::Asked);
        for node in world.nodes().into_iter().filter(|&node| node != leader) {
            let appointed = Some((last, SnapshotReason::Appointed));
            assert_eq!(taken(&mut world, node), appointed, "round {round}, node {node}");
        }
    }
    for node in world.nodes() {
        world.kill(node, |_| false);
        world.start(node);
    }
    let leader = world.elect();
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert_eq!(world.put(leader, 9, 41, b"key", b"value").status, Status::Ok);
}
