//! Snapshots that aren't what was saved: on the disk, on the way, in memory, cut short, or somebody
//! else's (S30).

use super::*;
use ringraft_net::bulk_wire::SnapshotOffer;
use ringraft_net::{Identity, Outbox};
use ringraft_shard::FrameRefusal;
use ringraft_types::{ClusterId, Incarnation, Index, Term};
use ringraft_wal::ChunkError;

/// A cluster of two groups; one node is away, and each of the others saved both. Returns the leader
/// of the first group, the third node, and who is away and doesn't run.
fn saved_twice(seed: u64, bytes: usize) -> (World, [NodeId; 3]) {
    let mut world = World::with_rules(seed, 3, 2, BY_HAND);
    let leader = world.elect();
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    let other = *world.nodes().iter().find(|&&it| it != leader && it != away).expect("three");
    fill(&mut world, leader, 1..=10, 100);
    world.kill(away, |_| false);
    world.elect();
    fill(&mut world, leader, 11..=60, bytes);
    world.run_for(Ticks::from_millis(500));
    for node in [leader, other] {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 2);
    }
    world.run_for(Ticks::from_millis(500));
    fill(&mut world, leader, 61..=70, bytes);
    world.run_for(Ticks::from_millis(5_000));
    (world, [leader, other, away])
}

/// The file of the newest snapshot of a group.
fn file_of(world: &mut World, node: NodeId, group: u64) -> FileId {
    let all = files(world, node, FileKind::Snapshot);
    let of_group = |file: &&FileId| {
        let content = world.content(node, **file);
        content[72..80] == group.to_le_bytes()
    };
    *all.iter().rfind(of_group).expect("it was saved")
}

/// Waits until the first group's snapshot is installed, and says whose it is.
fn installed_from(world: &mut World, node: NodeId) -> NodeId {
    loop {
        match await_installed(world, node) {
            ShardEvent::SnapshotInstalled { group: GROUP, from, .. } => return from,
            _ => continue,
        }
    }
}

/// Goal: a source whose snapshot is rotten, cut short, another group's or another node's gives none
/// of it: it says so, and the node that needs one has it of another source (S30).
#[test]
fn s30_a_source_that_cant_read_its_own_is_given_up_for_another() {
    for case in 0..5 {
        let (mut world, [leader, other, away]) = saved_twice(40, 20_000);
        let bad = file_of(&mut world, leader, 1);
        let second = file_of(&mut world, leader, 2);
        let foreign = file_of(&mut world, other, 1);
        let (of_second, of_other) = (world.content(leader, second), world.content(other, foreign));
        let device = &mut world.shard(leader).device;
        match case {
            // In the last chunk: the others were given before.
            0 => device.flip_bit(bad, (HEAD_BYTES as u64 + 3 * CHUNK_BYTES as u64 + 99) * 8),
            1 => device.set_length(bad, HEAD_BYTES as u64 + CHUNK_BYTES as u64),
            2 => device.corrupt(bad, 0, &of_second),
            3 => device.corrupt(bad, 0, &of_other),
            _ => device.spoil(bad, HEAD_BYTES as u64, 4096),
        }
        world.start(away);
        assert_eq!(installed_from(&mut world, away), other, "case {case}");
        let said = world.events(leader);
        let is_told = said.iter().any(|event| {
            matches!(event, ShardEvent::SnapshotUnreadable { group: GROUP, number, .. }
                if *number == bad.number)
        });
        assert!(is_told, "case {case}: {said:?}");
        world.run_for(Ticks::from_millis(1_000));
        world.assert_converged();
        assert!(!world.group(leader).damaged, "what it holds in memory is as it was");
    }
}

/// Goal: whatever changes on the way between two nodes costs the connection, and is asked for again:
/// not a byte of it is taken (S30).
#[test]
fn s30_what_changes_on_the_way_is_asked_for_again() {
    let (mut world, [_, _, away]) = saved_twice(41, 200_000);
    world.start(away);
    let mut flips = 0;
    let installed =
        |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { group: GROUP, .. });
    while !world.events(away).iter().any(installed) {
        world.run_for(Ticks(50));
        if flips < 25 && world.garble_bulk(10_000) {
            flips += 1;
        }
    }
    assert!(world.garbled() > 5, "{} of {flips} came", world.garbled());
    world.run_for(Ticks::from_millis(2_000));
    world.assert_converged();
    assert_eq!(world.shard(away).metrics().installs_failed, 0, "nothing wrong came to the disk");
}

/// Goal: what changed in the memory of one of the two nodes, so that the frame is sound by itself, isn't
/// what lay on the source's disk: it isn't loaded, and the next source is asked (S30).
#[test]
fn s30_what_changed_in_memory_is_not_loaded() {
    let (mut world, [leader, other, away]) = saved_twice(42, 100_000);
    let source = file_of(&mut world, leader, 1);
    let at = HEAD_BYTES + CHUNK_BYTES + CHUNK_HEAD_BYTES;
    let mut bytes = world.content(leader, source)[at..at + CHUNK_ROOM].to_vec();
    // Within a value: nothing else would notice.
    let is_value = |&at: &usize| bytes[at - 100..at + 100].iter().all(|&byte| byte == bytes[at]);
    let hit = (100..CHUNK_ROOM - 100).find(is_value).expect("there are long values");
    let content = content_sum(&bytes);
    bytes[hit] ^= 1;
    world.start(away);
    let is_begun = |world: &mut World| {
        let progress = world.shard(away).install_progress();
        progress.is_some_and(|it| it.group == GROUP && it.chunks > 0 && it.from == leader)
    };
    while !is_begun(&mut world) {
        world.run_for(Ticks(20));
    }
    let head = ChunkHead { number: source.number, chunk: 1, content, found: true };
    world.inject_bulk(leader, away, |out, sender| head.write(out, GROUP, sender, &bytes));
    let before = world.group(away).applied;
    let said = loop {
        world.run_for(Ticks(100));
        let ended = |event: &ShardEvent| {
            matches!(
                event,
                ShardEvent::InstallFailed { group: GROUP, .. }
                    | ShardEvent::SnapshotInstalled { group: GROUP, .. }
            )
        };
        if let Some(event) = world.events(away).into_iter().find(ended) {
            break event;
        }
    };
    let ShardEvent::InstallFailed { error: InstallFailure::Load(why), .. } = said else {
        panic!("{said:?}");
    };
    assert!(matches!(why, LoadFailure::Chunk(ChunkError { chunk: 1, errno: 0, .. })), "{why:?}");
    assert_eq!(world.group(away).applied, before, "it goes on with what it had");
    assert_eq!(installed_from(&mut world, away), other, "who gave it is asked last");
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: offers and chunks of another group, another cluster, another life or another file, chunks of
/// another length, and offers that can't be, take no place in what is fetched (S30).
#[test]
fn s30_what_is_of_another_place_is_let_go() {
    let (mut world, [leader, _, away]) = saved_twice(43, 100_000);
    let source = file_of(&mut world, leader, 1);
    world.start(away);
    let progress = |world: &mut World| {
        let progress = world.shard(away).install_progress();
        progress.filter(|it| it.group == GROUP && it.chunks > 0 && it.from == leader)
    };
    while progress(&mut world).is_none() {
        world.run_for(Ticks(20));
    }
    let bytes = vec![0xA5; CHUNK_ROOM];
    let own = World::identity(leader);
    let identities = [
        Identity { cluster: ClusterId(0xBAD), ..own },
        Identity { incarnation: Incarnation(0xBAD), ..own },
        Identity { node: NodeId(99), ..own },
    ];
    let content = content_sum(&bytes);
    let head = ChunkHead { number: source.number, chunk: 1, content, found: true };
    // Of a peer that isn't linked any more, if it ever was.
    let gone = NodeId(98);
    let taken = world.inject_bulk_as(gone, away, World::identity(gone), |out, sender| {
        head.write(out, GROUP, sender, &bytes);
    });
    assert_eq!(taken, Ok(()), "what was on its way is let go");
    for sender in identities {
        let write = |out: &mut Outbox, sender| head.write(out, GROUP, sender, &bytes);
        let taken = world.inject_bulk_as(leader, away, sender, write);
        assert_eq!(taken, Err(FrameRefusal::WrongSender), "{sender:?}");
    }
    let offer = SnapshotOffer {
        number: 77,
        term: Term(1),
        index: Index(1_000),
        bytes: CHUNK_ROOM as u64,
        chunks: 1,
        strands: [0; ringraft_types::STRANDS],
    };
    for group in [GROUP, GroupId(2), GroupId(99)] {
        world.inject_bulk(leader, away, |out, sender| offer.write(out, group, sender));
    }
    let other_file = ChunkHead { number: source.number + 50, ..head };
    let far = ChunkHead { chunk: 1_000_000, ..head };
    for (group, head) in
        [(GroupId(2), head), (GroupId(99), head), (GROUP, other_file), (GROUP, far)]
    {
        world.inject_bulk(leader, away, |out, sender| head.write(out, group, sender, &bytes));
    }
    let now = progress(&mut world).expect("it goes on");
    assert_eq!((now.from, now.group), (leader, GROUP));
    // A chunk that is shorter than it was offered to be: its source is given up.
    world.inject_bulk(leader, away, |out, sender| head.write(out, GROUP, sender, &bytes[..100]));
    assert_eq!(progress(&mut world), None);
    world.run_for(Ticks::from_millis(5_000));
    world.assert_converged();
    assert!(world.shard(away).metrics().snapshots_installed >= 1);
}
