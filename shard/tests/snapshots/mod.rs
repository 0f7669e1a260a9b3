//! Groups that are saved while they serve, and start from what was saved.

mod crashes;
mod elsewhere;
mod owed;
mod parallel;
mod rot;
mod succession;

use crate::world::{GROUP, World};
use ringraft_net::bulk_wire::ChunkHead;
use ringraft_net::status::SnapshotActivity;
use ringraft_shard::snapshots::LoadFailure;
use ringraft_shard::{
    Halt, InstallFailure, ShardEvent, SnapshotAsked, SnapshotReason, SnapshotRules,
};
use ringraft_types::{GroupId, NodeId, Status, Ticks};
use ringraft_wal::SnapshotError;
use ringraft_wal::device::memory::{Effect, Fault, OperationKind};
use ringraft_wal::device::{FileId, FileKind};
use ringraft_wal::snapshot::{CHUNK_BYTES, CHUNK_HEAD_BYTES, CHUNK_ROOM, HEAD_BYTES, content_sum};
use std::collections::{BTreeMap, BTreeSet};

/// "No space left on device".
const ENOSPC: i32 = 28;
/// "Input/output error".
const EIO: i32 = 5;
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

/// A cluster that leads, and where.
fn cluster(seed: u64, nodes: u32, rules: SnapshotRules) -> (World, NodeId) {
    let mut world = World::with_rules(seed, nodes, 1, rules);
    let leader = world.elect();
    (world, leader)
}

/// Puts these values, one after the other, under numbers of one session.
fn fill(world: &mut World, to: NodeId, numbers: std::ops::RangeInclusive<u64>, bytes: usize) {
    for number in numbers {
        let key = format!("key-{}", number % 40);
        let value = vec![number as u8; bytes];
        assert_eq!(world.put(to, 9, number, key.as_bytes(), &value).status, Status::Ok);
    }
}

/// Takes a snapshot of every group of a node, and waits for it.
fn take(world: &mut World, node: NodeId) -> ShardEvent {
    assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
    for _ in 0..5_000 {
        world.run_for(Ticks::from_millis(1));
        let taken = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotTaken { .. });
        if let Some(event) = world.events(node).into_iter().find(taken) {
            return event;
        }
    }
    panic!("no snapshot within five seconds");
}

fn files(world: &World, node: NodeId, kind: FileKind) -> Vec<FileId> {
    let files = world.files(node).into_iter().map(|(file, _)| file);
    files.filter(|file| file.kind == kind).collect()
}

/// Goal: every node starts from its snapshot and what followed it, with the same state as before,
/// sessions included; nothing that the snapshot holds is applied again.
#[test]
fn a_node_starts_from_its_snapshot() {
    let (mut world, leader) = cluster(1, 3, BY_HAND);
    fill(&mut world, leader, 1..=60, 100);
    world.run_for(Ticks::from_millis(500));
    for node in world.nodes() {
        take(&mut world, node);
    }
    fill(&mut world, leader, 61..=70, 100);
    world.run_for(Ticks::from_millis(500));
    let state = world.group(leader).state_hash;
    for node in world.nodes() {
        world.kill(node, |_| false);
    }
    for node in world.nodes() {
        world.start(node);
        assert!(world.group(node).applied.0 > 60, "it begins where the snapshot ends");
    }
    let leader = world.elect();
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert_eq!(world.group(leader).state_hash, state);
    for node in world.nodes() {
        assert!(world.shard(node).metrics().entries_applied < 20);
    }
    let again = world.put(leader, 9, 70, b"key-30", &[70; 100]);
    assert_eq!((again.status, again.revision.0), (Status::Ok, 70), "a retry is applied once");
}

/// Goal: a snapshot holds the state at one entry, however much is written while it is taken, and
/// writes are answered meanwhile (SN-10, A21).
#[test]
fn writes_go_on_while_a_snapshot_is_taken() {
    let (mut world, leader) = cluster(2, 1, BY_HAND);
    fill(&mut world, leader, 1..=40, 200_000);
    world.shard(leader).want_snapshots(SnapshotReason::Asked);
    let mut calls = Vec::new();
    let last = loop {
        let (number, value) = (41 + calls.len() as u64, vec![1; 10_000]);
        let key = format!("key-{}", number % 40);
        calls.push(world.send_put(leader, 9, number, key.as_bytes(), &value));
        world.run_for(Ticks(2));
        let taken = world.events(leader).into_iter().find_map(|event| match event {
            ShardEvent::SnapshotTaken { last, bytes, .. } => Some((last, bytes)),
            _ => None,
        });
        if let Some((last, bytes)) = taken {
            assert!(bytes > 40 * 200_000 / 2, "{bytes} bytes");
            break last;
        }
        assert!(calls.len() < 400, "it ends");
    };
    assert!(calls.len() > 3, "there were writes meanwhile, {} of them", calls.len());
    for call in calls {
        assert_eq!(world.await_answer(leader, call).status, Status::Ok);
    }
    assert!(last < world.group(leader).applied, "it is of an entry before them");
    let state = world.group(leader).state_hash;
    world.kill(leader, |_| false);
    world.start(leader);
    world.elect();
    assert_eq!(world.group(leader).state_hash, state);
}

/// Goal: a log that nobody else needs is freed behind the snapshot, again and again, and the disk
/// holds no more than the rules say (LG-09, U1).
#[test]
fn a_log_ends() {
    let segment = 8 << 20;
    let rules = SnapshotRules { log_bytes: 2 * segment, ..BY_HAND };
    let (mut world, leader) = cluster(3, 1, rules);
    let mut removed = 0;
    for round in 0..12u64 {
        fill(&mut world, leader, round * 40 + 1..=round * 40 + 40, 100_000);
        world.run_for(Ticks::from_millis(500));
        let segments = files(&world, leader, FileKind::Segment);
        assert!(segments.len() <= 5, "round {round}: {} segments", segments.len());
        assert_eq!(files(&world, leader, FileKind::Snapshot).len(), usize::from(round > 3));
        removed = segments.iter().map(|file| file.number).min().expect("there is one");
    }
    assert!(removed > 4, "segments before {removed} are gone");
    let state = world.group(leader).state_hash;
    world.kill(leader, |_| false);
    world.start(leader);
    world.elect();
    assert_eq!(world.group(leader).state_hash, state);
    fill(&mut world, leader, 481..=482, 100);
}

/// Goal: a snapshot that can't be read back is never taken for one: with an older one and the rest
/// of the log the state is the same, without any the group refuses to serve (S30).
#[test]
fn an_older_snapshot_takes_the_place_of_a_rotten_one() {
    for rotten in 1..=2 {
        let (mut world, leader) = cluster(4, 1, SnapshotRules { kept: 2, ..BY_HAND });
        let mut last = Vec::new();
        for round in 0..3 {
            fill(&mut world, leader, round * 10 + 1..=round * 10 + 10, 100);
            let ShardEvent::SnapshotTaken { last: at, .. } = take(&mut world, leader) else {
                unreachable!("that is what is waited for")
            };
            last.push(at);
        }
        world.run_for(Ticks::from_millis(100));
        let state = world.group(leader).state_hash;
        let kept = files(&world, leader, FileKind::Snapshot);
        assert_eq!(kept.len(), 2, "as many as the rules say");
        world.kill(leader, |_| false);
        for file in kept.iter().rev().take(rotten) {
            world.disk(leader).flip_bit(*file, (HEAD_BYTES as u64 + 100) * 8);
        }
        world.start(leader);
        let said = world.events(leader);
        for file in kept.iter().rev().take(rotten) {
            let is_told = said.iter().any(|event| {
                matches!(event, ShardEvent::SnapshotUnreadable { number, error: LoadFailure::Chunk(_), .. }
                    if *number == file.number)
            });
            assert!(is_told, "{said:?}");
        }
        if rotten == 1 {
            world.elect();
            assert_eq!(world.group(leader).state_hash, state);
            let again = world.put(leader, 9, 30, b"key-30", &[30; 100]);
            assert_eq!((again.status, again.revision.0), (Status::Ok, 30));
            fill(&mut world, leader, 31..=40, 100);
            take(&mut world, leader);
            world.run_for(Ticks::from_millis(100));
            let files = files(&world, leader, FileKind::Snapshot);
            assert!(!files.contains(&kept[1]), "the rotten one is gone: {files:?}");
        } else {
            world.run_for(Ticks::from_millis(2_000));
            assert!(world.group(leader).damaged);
            assert_eq!(world.get(leader, b"key-30").0, Status::Damaged);
            let said = world.events(leader);
            let halted = ShardEvent::Halted { group: GROUP, halt: Halt::Damaged };
            assert!(said.contains(&halted), "{said:?}");
        }
    }
}

/// Goal: a disk that refuses a snapshot costs the snapshot, not the group, which is told and tried
/// again (S23).
#[test]
fn a_snapshot_that_fails_is_tried_again() {
    let (mut world, leader) = cluster(5, 1, BY_HAND);
    fill(&mut world, leader, 1..=10, 100);
    let effect = Effect::Errno(ENOSPC);
    let fault = Fault { on: OperationKind::Create, after: 0, count: 1, effect };
    world.shard(leader).device.inject(fault);
    world.shard(leader).want_snapshots(SnapshotReason::Asked);
    world.run_for(Ticks::from_millis(100));
    let said = world.events(leader);
    assert!(said.iter().any(|event| matches!(event, ShardEvent::SnapshotFailed { .. })));
    fill(&mut world, leader, 11..=20, 100);
    world.run_for(Ticks::from_millis(10_000));
    let said = world.events(leader);
    assert!(said.iter().any(|event| matches!(event, ShardEvent::SnapshotTaken { .. })), "{said:?}");
    assert_eq!(files(&world, leader, FileKind::Snapshot).len(), 1);
}

/// Goal: who asks for a snapshot is told what will come of it, and what came of it.
#[test]
fn who_asks_is_told() {
    let (mut world, leader) = cluster(7, 1, BY_HAND);
    fill(&mut world, leader, 1..=10, 100);
    let look = |world: &mut World| {
        let mut rows = world.shard(leader).group_snapshots();
        rows.next().expect("a group")
    };
    let none = look(&mut world);
    assert!(none.kept.is_empty() && none.attempts == 0 && none.end.is_none(), "{none:?}");
    assert_eq!(none.activity, SnapshotActivity::None);
    assert_eq!(world.shard(leader).ask_snapshot(GroupId(99)), None);
    let fault =
        Fault { on: OperationKind::Create, after: 0, count: 1, effect: Effect::Errno(ENOSPC) };
    world.shard(leader).device.inject(fault);
    for _ in 0..2 {
        assert_eq!(world.shard(leader).ask_snapshot(GROUP), Some(SnapshotAsked::Wanted));
        assert_eq!(look(&mut world).activity, SnapshotActivity::Waiting);
    }
    world.run_for(Ticks::from_millis(100));
    let failed = look(&mut world);
    assert_eq!((failed.attempts, failed.activity), (1, SnapshotActivity::Waiting));
    assert_eq!(failed.end.and_then(|end| end.error), Some(SnapshotError::Full));
    world.run_for(Ticks::from_millis(10_000));
    let taken = look(&mut world);
    assert_eq!((taken.attempts, taken.activity), (2, SnapshotActivity::None));
    let (end, kept) = (taken.end.expect("two ended"), taken.kept[0]);
    assert_eq!((end.error, end.last, end.bytes), (None, kept.last, kept.bytes));
    assert!(kept.last.index == taken.applied && kept.is_named, "{taken:?}");
    assert_eq!(files(&world, leader, FileKind::Snapshot), [kept.file]);
    assert_eq!(world.group(leader).snapshot, kept.last.index);
    assert_eq!(world.shard(leader).ask_snapshot(GROUP), Some(SnapshotAsked::NothingNew));
}

/// Goal: by entries and by time, and never without anything new to save.
#[test]
fn snapshots_are_taken_by_the_rules() {
    let by_entries = SnapshotRules { entries: 20, ..BY_HAND };
    let by_time = SnapshotRules { interval: Ticks::from_millis(1_000), ..BY_HAND };
    for (rules, reason) in
        [(by_entries, SnapshotReason::Entries), (by_time, SnapshotReason::Interval)]
    {
        let (mut world, leader) = cluster(6, 3, rules);
        let mut taken = 0;
        for round in 0..4 {
            fill(&mut world, leader, round * 25 + 1..=round * 25 + 25, 10);
            world.run_for(Ticks::from_millis(1_500));
            for event in world.events(leader) {
                if let ShardEvent::SnapshotTaken { reason: why, .. } = event {
                    assert_eq!(why, reason);
                    taken += 1;
                }
            }
        }
        assert!((4..=6).contains(&taken), "{reason:?}: {taken}");
        world.run_for(Ticks::from_millis(5_000));
        let more = world.events(leader);
        let more = more.iter().filter(|it| matches!(it, ShardEvent::SnapshotTaken { .. }));
        assert_eq!(more.count(), 0, "{reason:?}: nothing new, nothing taken");
    }
}

/// Goal: a node that is told to stop saves every group that has anything new, and nothing else (SN-03).
#[test]
fn a_node_that_stops_saves_its_groups() {
    let rules = SnapshotRules { on_stop: true, ..BY_HAND };
    let mut world = World::with_rules(9, 3, 3, rules);
    let leader = world.elect();
    fill(&mut world, leader, 1..=20, 100);
    assert_eq!(world.shard(leader).want_snapshots(SnapshotReason::Asked), 3);
    world.run_for(Ticks::from_millis(500));
    fill(&mut world, leader, 21..=22, 100);
    world.run_for(Ticks::from_millis(500));
    let applied = world.group(leader).applied;
    world.stop(leader);
    assert!(world.shard(leader).is_saving());
    while world.shard(leader).is_saving() {
        world.run_for(Ticks::from_millis(10));
    }
    let mut saved = BTreeMap::new();
    for event in world.events(leader) {
        if let ShardEvent::SnapshotTaken { group, last, reason: SnapshotReason::Stop, .. } = event {
            assert_eq!(saved.insert(group, last), None, "each once");
        }
    }
    assert_eq!(saved.get(&GROUP), Some(&applied));
    world.kill(leader, |_| false);
    world.start(leader);
    let applied = world.shard(leader).metrics().entries_applied;
    assert_eq!(applied, 0, "it starts from what it saved");
}

/// Goal: a snapshot is taken, and given to a peer, no faster than the rules say while little is
/// written, whatever was written before, and a log that grows fast hurries it.
#[test]
fn snapshots_keep_their_pace() {
    let paced = SnapshotRules { bytes_per_second: 4 << 20, lag_bytes: 16 << 20, ..BY_HAND };
    let state = 50 * 80_000;
    let (mut world, leader) = cluster(8, 3, paced);
    let away = world.nodes().into_iter().find(|&node| node != leader).expect("there are three");
    fill(&mut world, leader, 1..=10, 100);
    world.kill(away, |_| false);
    fill(&mut world, leader, 11..=60, 80_000);
    let least = Ticks::from_millis(state / (4 << 10) / 2);
    let ShardEvent::SnapshotTaken { bytes, took, .. } = take(&mut world, leader) else {
        unreachable!("that is what is taken")
    };
    assert!(bytes > state && took > least, "{bytes} bytes took {} us", took.0);
    fill(&mut world, leader, 61..=62, 100);
    for numbers in [63..=200, 201..=202] {
        world.run_for(Ticks::from_millis(5_000));
        world.start(away);
        let ShardEvent::SnapshotInstalled { took, .. } = await_installed(&mut world, away) else {
            unreachable!("that is what is awaited")
        };
        assert!(took > least, "before {numbers:?} it took {} us", took.0);
        world.kill(away, |_| false);
        fill(&mut world, leader, numbers, 100_000);
        take(&mut world, leader);
    }

    let segment = 8 << 20;
    let rules = SnapshotRules { bytes_per_second: 1, log_bytes: 2 * segment, ..BY_HAND };
    let (mut world, leader) = cluster(9, 1, rules);
    for round in 0..16u64 {
        fill(&mut world, leader, round * 40 + 1..=round * 40 + 40, 100_000);
        let segments = files(&world, leader, FileKind::Segment).len();
        assert!(segments <= 7, "round {round}: {segments} segments");
    }
    assert!(world.shard(leader).metrics().snapshots_taken > 1);
}

/// A follower is away while the leader's log is freed behind a snapshot, and comes back. Returns
/// it, and the leader.
fn away(world: &mut World, leader: NodeId, bytes: usize) -> NodeId {
    let away = world.nodes().into_iter().find(|&node| node != leader).expect("there are three");
    fill(world, leader, 1..=10, 100);
    world.kill(away, |_| false);
    fill(world, leader, 11..=60, bytes);
    take(world, leader);
    fill(world, leader, 61..=70, bytes);
    world.run_for(Ticks::from_millis(5_000));
    world.start(away);
    away
}

fn await_installed(world: &mut World, node: NodeId) -> ShardEvent {
    for _ in 0..30_000 {
        world.run_for(Ticks::from_millis(1));
        let installed = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { .. });
        if let Some(event) = world.events(node).into_iter().find(installed) {
            return event;
        }
    }
    panic!("nothing installed within half a minute");
}

/// Goal: a follower whose log ends before the leader's begins gets a snapshot, goes on from it with
/// the same state, and starts from it again.
#[test]
fn a_follower_installs_a_snapshot() {
    let (mut world, leader) = cluster(7, 3, BY_HAND);
    let away = away(&mut world, leader, 10_000);
    await_installed(&mut world, away);
    fill(&mut world, leader, 71..=80, 100);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert_eq!(world.shard(away).metrics().snapshots_installed, 1);
    assert!(world.shard(away).metrics().entries_applied < 40);
    assert_eq!(files(&world, away, FileKind::Snapshot).len(), 1);
    assert_starts_from_it(&mut world, away);
}

/// A node that installed a snapshot starts from it, and needs no other.
fn assert_starts_from_it(world: &mut World, node: NodeId) {
    world.kill(node, |_| false);
    world.start(node);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert_eq!(world.shard(node).metrics().snapshots_installed, 0, "once is enough");
}

/// Goal: who needs a snapshot doesn't wait for the silence of nodes that are gone, ten seconds for
/// each of them and for each group: others are asked at once (seed 311154).
#[test]
fn a_source_that_is_gone_is_passed_over() {
    let (mut world, leader) = cluster(41, 5, BY_HAND);
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&node| node != leader).collect();
    let (lagging, gone) = (others[0], others[1]);
    world.kill(lagging, |_| false);
    fill(&mut world, leader, 1..=60, 10_000);
    world.run_for(Ticks::from_millis(500));
    for node in world.running() {
        take(&mut world, node);
    }
    fill(&mut world, leader, 61..=70, 10_000);
    world.run_for(Ticks::from_millis(5_000));
    world.start(lagging);
    while world.shard(lagging).install_progress().is_none() {
        world.run_for(Ticks(20));
    }
    let progress = world.shard(lagging).install_progress().expect("just seen");
    assert_eq!((progress.from, progress.chunks), (leader, 0), "it is being asked");
    world.kill(leader, |_| true);
    world.kill(gone, |_| true);
    world.run_for(Ticks::from_millis(8_000));
    assert_eq!(world.shard(lagging).metrics().snapshots_installed, 1);
    let next = world.elect();
    fill(&mut world, next, 71..=72, 100);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: people are told of an install for as long as one is under way, also before the leader says
/// once more that it is needed.
#[test]
fn an_install_is_told_from_its_beginning() {
    let (mut world, leader) = cluster(17, 3, BY_HAND);
    let away = away(&mut world, leader, 10_000);
    let mut looks = 0;
    while world.shard(away).metrics().snapshots_installed == 0 {
        world.run_for(Ticks(20));
        if world.shard(away).install_progress().is_some() {
            looks += 1;
            assert_eq!(world.group(away).activity, SnapshotActivity::Installing, "look {looks}");
        }
    }
    assert!(looks > 0);
    world.run_for(Ticks::from_millis(500));
    assert_eq!(world.group(away).activity, SnapshotActivity::None);
}

/// Goal: a connection that breaks, again and again, costs the chunks that were on their way, not
/// those that are here; a leader that is gone isn't needed to end what it began (SN-11).
#[test]
fn an_install_goes_on_after_breaks_and_another_leader() {
    let (mut world, leader) = cluster(8, 3, BY_HAND);
    let away = away(&mut world, leader, 200_000);
    let mut fetched = 0;
    while fetched < 12 {
        world.run_for(Ticks::from_millis(1));
        let Some(progress) = world.shard(away).install_progress() else { continue };
        assert!(progress.fetched >= fetched, "nothing is fetched twice");
        if progress.fetched > fetched {
            fetched = progress.fetched;
            world.break_bulk(away, leader);
        }
    }
    // The leader loses its followers' ear, but goes on giving.
    let other = world.nodes().into_iter().find(|&it| it != leader && it != away).expect("three");
    world.cut(leader, other);
    await_installed(&mut world, away);
    world.heal();
    let leader = world.elect();
    fill(&mut world, leader, 71..=80, 100);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: an install that is cut by the installing node's power, at any moment, ends in the old
/// state or the new one, and the follower comes back (A18).
#[test]
fn an_install_survives_power_cuts() {
    let (mut world, leader) = cluster(9, 3, BY_HAND);
    let away = away(&mut world, leader, 60_000);
    for cut in 0..60 {
        world.run_for(Ticks(cut * 400));
        world.kill(away, |sector| sector as u64 % 3 != cut % 3);
        world.start(away);
    }
    world.run_for(Ticks::from_millis(5_000));
    fill(&mut world, leader, 71..=80, 100);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: a disk that is full or a source that can't be read makes the install fail, with a word; it
/// is tried again and comes to its end (A22, A23).
#[test]
fn an_install_that_fails_is_tried_again() {
    let (mut world, leader) = cluster(10, 3, BY_HAND);
    let away = away(&mut world, leader, 10_000);
    let effect = Effect::Errno(ENOSPC);
    let fault = Fault { on: OperationKind::Create, after: 1, count: 1, effect };
    world.shard(away).device.inject(fault);
    world.run_for(Ticks::from_millis(1_000));
    let said = world.events(away);
    let failed = |event: &ShardEvent| matches!(event, ShardEvent::InstallFailed { .. });
    assert!(said.iter().any(failed), "{said:?}");
    assert!(world.group(away).applied.0 < 20, "nothing is said to be installed");
    await_installed(&mut world, away);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: a follower that lags by less than the log keeps is brought on by entries (A20).
#[test]
fn a_small_lag_needs_no_install() {
    let (mut world, leader) = cluster(11, 3, BY_HAND);
    let slow = world.nodes().into_iter().find(|&node| node != leader).expect("there are three");
    fill(&mut world, leader, 1..=10, 100);
    world.hold_disk(slow, true);
    fill(&mut world, leader, 11..=30, 100);
    take(&mut world, leader);
    fill(&mut world, leader, 31..=40, 100);
    world.hold_disk(slow, false);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
    assert_eq!(world.shard(slow).metrics().snapshots_installed, 0);
}

/// Goal: as long as nobody leads, a log is given up for no snapshot: who can't read some of it, and
/// without whom nobody is elected, has it of those who hold it.
#[test]
fn a_log_is_kept_while_nobody_leads() {
    let (mut world, leader) = cluster(13, 3, BY_HAND);
    let others: Vec<NodeId> = world.nodes().into_iter().filter(|&it| it != leader).collect();
    fill(&mut world, leader, 1..=100, 400_000);
    world.run_for(Ticks::from_millis(500));
    world.kill(leader, |_| true);
    world.kill(others[0], |_| true);
    world.run_for(Ticks::from_millis(2_000));
    let left = others[1];
    assert_eq!(world.group(left).leader, NodeId::ZERO);
    assert_eq!(world.shard(left).want_snapshots(SnapshotReason::Asked), 1);
    world.run_for(Ticks::from_millis(2_000));
    assert_eq!(files(&world, left, FileKind::Snapshot).len(), 1);
    let segments = world.shard(left).segments();
    world.start(others[0]);
    world.run_for(Ticks::from_millis(5_000));
    let kept = world.shard(left).segments();
    assert!(kept < segments, "{kept} of {segments}: it goes when somebody leads");
}

/// Goal: a source that is gone is given up for another node that has a snapshot; the leader needn't
/// be the one that gives it (A19).
#[test]
fn a_source_that_is_gone_is_given_up_for_another() {
    let (mut world, leader) = cluster(12, 3, BY_HAND);
    let away = away(&mut world, leader, 200_000);
    let other = world.nodes().into_iter().find(|&it| it != leader && it != away).expect("three");
    take(&mut world, other);
    // The leader still says that its log begins later, and can't be asked.
    world.shut_bulk(away, leader);
    let ShardEvent::SnapshotInstalled { from, .. } = await_installed(&mut world, away) else {
        unreachable!("that is what is waited for")
    };
    assert_eq!(from, other);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: a snapshot that its source replaces while it is fetched is given to its end, and its file
/// goes when nobody fetches it any more (A23).
#[test]
fn a_snapshot_that_is_replaced_meanwhile_is_still_given() {
    let (mut world, leader) = cluster(13, 3, BY_HAND);
    let away = away(&mut world, leader, 200_000);
    let mut number = 71;
    let mut begun = None;
    let installed = loop {
        world.run_for(Ticks::from_millis(1));
        let installed = |event: &ShardEvent| matches!(event, ShardEvent::SnapshotInstalled { .. });
        if let Some(event) = world.events(away).into_iter().find(installed) {
            break event;
        }
        let Some(progress) = world.shard(away).install_progress() else { continue };
        if progress.fetched > 2 && begun.is_none() {
            begun = Some(progress);
            for _ in 0..3 {
                fill(&mut world, leader, number..=number, 100);
                number += 1;
                take(&mut world, leader);
            }
        }
        assert!(begun.is_none_or(|it| it.fetched <= progress.fetched), "it isn't begun anew");
    };
    let ShardEvent::SnapshotInstalled { last, .. } = installed else {
        unreachable!("that is what is waited for")
    };
    assert!(begun.is_some() && last < world.group(leader).applied);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    world.run_for(Ticks::from_millis(40_000));
    assert_eq!(files(&world, leader, FileKind::Snapshot).len(), 1, "what nobody fetches goes");
}

/// Goal: what came and can't be read back takes nothing's place: the node says so, keeps what it
/// has, and tries again (A22).
#[test]
fn what_came_and_cant_be_read_back_is_not_installed() {
    let (mut world, leader) = cluster(14, 3, BY_HAND);
    let away = away(&mut world, leader, 20_000);
    let own = world.group(away).last;
    let effect = Effect::Errno(EIO);
    // It can't read its log either, and has that again from its peers meanwhile.
    let fault = Fault { on: OperationKind::Read, after: 0, count: 24, effect };
    world.shard(away).device.inject(fault);
    let said = loop {
        world.run_for(Ticks::from_millis(1));
        let failed = |event: &ShardEvent| matches!(event, ShardEvent::InstallFailed { .. });
        if let Some(event) = world.events(away).into_iter().find(failed) {
            break event;
        }
        assert_eq!(world.shard(away).metrics().snapshots_installed, 0);
    };
    let call = world.send_get(away, b"key-1");
    world.run_for(Ticks::from_millis(20));
    let reply = world.take_reply(away, call);
    assert!(reply.is_none_or(|reply| reply.0 != Status::Ok), "it answers no reads meanwhile");
    let is_told = matches!(
        said,
        ShardEvent::InstallFailed { error: InstallFailure::Load(LoadFailure::Chunk(_)), .. }
    );
    assert!(is_told, "{said:?}");
    assert!(world.group(away).applied <= own, "what its own log holds, and no more");
    await_installed(&mut world, away);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: chunks that come before those in front of them wait for these, also when the connection
/// breaks in between.
#[test]
fn chunks_that_come_out_of_order_wait() {
    let (mut world, leader) = cluster(15, 3, BY_HAND);
    let away = away(&mut world, leader, 200_000);
    let is_begun = |world: &mut World| {
        world.shard(away).install_progress().is_some_and(|progress| progress.chunks > 0)
    };
    while !is_begun(&mut world) {
        world.run_for(Ticks(20));
    }
    // The second chunk overtakes the first.
    let file = files(&world, leader, FileKind::Snapshot)[0];
    let at = HEAD_BYTES + CHUNK_BYTES + CHUNK_HEAD_BYTES;
    let bytes = world.content(leader, file)[at..at + CHUNK_ROOM].to_vec();
    let content = content_sum(&bytes);
    let head = ChunkHead { number: file.number, chunk: 1, content, found: true };
    world.inject_bulk(leader, away, |out, sender| head.write(out, GROUP, sender, &bytes));
    world.break_bulk(away, leader);
    await_installed(&mut world, away);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: a group that is idle doesn't keep the log long, however many snapshots are kept (S33).
#[test]
fn an_idle_group_pins_nothing() {
    let segment = 8 << 20;
    let rules = SnapshotRules { log_bytes: 2 * segment, kept: 2, ..BY_HAND };
    let mut world = World::with_rules(16, 1, 2, rules);
    let leader = world.elect();
    for round in 0..12u64 {
        fill(&mut world, leader, round * 40 + 1..=round * 40 + 40, 100_000);
        world.run_for(Ticks::from_millis(500));
        let segments = files(&world, leader, FileKind::Segment);
        assert!(segments.len() <= 6, "round {round}: {} segments", segments.len());
    }
}

/// Goal: groups that need a snapshot take turns: one whose installs fail doesn't keep the others from
/// theirs.
#[test]
fn groups_take_turns_with_installs() {
    let groups: BTreeSet<GroupId> = (1..=3).map(GroupId).collect();
    let mut world = World::with_rules(18, 3, groups.len() as u64, BY_HAND);
    let away = NodeId(3);
    world.kill(away, |_| false);
    world.elect();
    world.run_for(Ticks::from_millis(500));
    for node in [NodeId(1), NodeId(2)] {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), groups.len());
    }
    world.run_for(Ticks::from_millis(5_000));
    world.start(away);
    // One file there is room for: a segment of its log.
    let effect = Effect::Errno(ENOSPC);
    let fault = Fault { on: OperationKind::Create, after: 1, count: u32::MAX, effect };
    world.shard(away).device.inject(fault);
    let mut failed = Vec::new();
    while failed.len() < 2 * groups.len() {
        world.run_for(Ticks::from_millis(100));
        failed.extend(world.events(away).into_iter().filter_map(|event| match event {
            ShardEvent::InstallFailed { group, .. } => Some(group),
            _ => None,
        }));
    }
    for round in failed.chunks(groups.len()) {
        let round: BTreeSet<GroupId> = round.iter().copied().collect();
        assert_eq!(round, groups, "{failed:?}");
    }
    // With room again all of them come to their end.
    world.kill(away, |_| false);
    world.start(away);
    world.run_for(Ticks::from_millis(5_000));
    assert_eq!(world.shard(away).metrics().snapshots_installed, groups.len() as u64);
    world.assert_converged();
}

/// Goal: a source that can't read its snapshot offers it no more, and takes another one in its place,
/// which is then given (A23, S30).
#[test]
fn a_source_replaces_what_it_cant_read() {
    let (mut world, leader) = cluster(19, 3, BY_HAND);
    let away = away(&mut world, leader, 10_000);
    let rotten = files(&world, leader, FileKind::Snapshot)[0];
    world.shard(leader).device.flip_bit(rotten, (HEAD_BYTES as u64 + 100) * 8);
    world.events(leader);
    let ShardEvent::SnapshotInstalled { from, last, .. } = await_installed(&mut world, away) else {
        unreachable!("that is what is waited for")
    };
    let said = world.events(leader);
    let is_told = said.iter().any(|event| {
        matches!(event, ShardEvent::SnapshotUnreadable { number, error: LoadFailure::Chunk(_), .. }
            if *number == rotten.number)
    });
    assert!(is_told, "{said:?}");
    let taken = said.iter().find_map(|event| match *event {
        ShardEvent::SnapshotTaken { reason, last, .. } => Some((reason, last)),
        _ => None,
    });
    assert_eq!(taken, Some((SnapshotReason::Unreadable, last)), "{said:?}");
    assert_eq!(from, leader);
    let kept = files(&world, leader, FileKind::Snapshot);
    assert!(kept.len() == 1 && kept[0] != rotten, "{kept:?}");
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}
