//! Snapshots that follow each other, cross each other or come too late (S31), and leaders that change
//! while one is given (A18).

use super::*;
use ringraft_net::wire::InstallItem;
use ringraft_net::{Identity, Outbox};
use ringraft_shard::limits::READ_WAIT_MAX;
use ringraft_types::Index;

/// A follower is away while the leader's log is freed behind a snapshot, and perhaps those of some
/// others are; it comes back. The machine is as large as so many values.
fn far_away(world: &mut World, leader: NodeId, also: &[NodeId], bytes: usize) -> NodeId {
    let nodes = world.nodes();
    let away = nodes.into_iter().rfind(|it| *it != leader && !also.contains(it)).expect("one");
    fill(world, leader, 1..=10, 100);
    world.kill(away, |_| false);
    fill(world, leader, 11..=60, bytes);
    world.run_for(Ticks::from_millis(500));
    for &node in [leader].iter().chain(also) {
        take(world, node);
    }
    fill(world, leader, 61..=70, 100);
    world.run_for(Ticks::from_millis(5_000));
    world.start(away);
    away
}

/// Runs until so many chunks are there. Returns who gives them.
fn fetch(world: &mut World, node: NodeId, chunks: u32) -> NodeId {
    for _ in 0..100_000 {
        world.run_for(Ticks(100));
        if let Some(progress) =
            world.shard(node).install_progress().filter(|it| it.fetched >= chunks)
        {
            return progress.from;
        }
    }
    panic!("they don't come");
}

/// What was told since the last look: the newest entry of each snapshot that was taken.
fn taken(world: &mut World, node: NodeId) -> Vec<Index> {
    let taken = world.events(node).into_iter().filter_map(|event| match event {
        ShardEvent::SnapshotTaken { last, .. } => Some(last),
        _ => None,
    });
    taken.collect()
}

fn third(world: &World, others: [NodeId; 2]) -> NodeId {
    world.nodes().into_iter().find(|it| !others.contains(it)).expect("there are three")
}

/// Goal: the leader dies in the middle of giving a snapshot. If the next one's log begins late too,
/// what is missing is had of its snapshot; if not, of its log, and what came is let go. The follower
/// ends equal, and so does the old leader (A18).
#[test]
fn a18_the_leader_dies_while_it_gives_a_snapshot() {
    for has_own in [false, true] {
        let (mut world, leader) = cluster(50, 3, BY_HAND);
        let other = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
        let also = if has_own { vec![other] } else { Vec::new() };
        let away = far_away(&mut world, leader, &also, 200_000);
        let other = third(&world, [leader, away]);
        assert_eq!(fetch(&mut world, away, 6), leader);
        world.kill(leader, |sector| sector % 2 == 0);
        assert_eq!(world.elect(), other, "who is away votes, and lacks what is committed");
        fill(&mut world, other, 71..=80, 100);
        world.run_for(Ticks::from_millis(15_000));
        world.assert_converged();
        let said = world.events(away);
        let from = said.iter().find_map(|event| match event {
            ShardEvent::SnapshotInstalled { from, .. } => Some(*from),
            _ => None,
        });
        assert_eq!(from, has_own.then_some(other), "{said:?}");
        assert_eq!(files(&world, away, FileKind::Snapshot).len(), usize::from(has_own));
        assert!(world.shard(away).install_progress().is_none());
        world.start(leader);
        world.run_for(Ticks::from_millis(2_000));
        world.assert_converged();
    }
}

/// Goal: another leader is elected while the old one, which doesn't know it, gives a snapshot: the
/// transfer goes on where it is, and the follower goes on from it under the new leader (A18).
#[test]
fn a18_a_deposed_leader_goes_on_giving() {
    let paced = SnapshotRules { bytes_per_second: 4 << 20, ..BY_HAND };
    let (mut world, leader) = cluster(51, 5, paced);
    let nodes = world.nodes();
    let others: Vec<NodeId> = nodes.into_iter().filter(|&node| node != leader).collect();
    let also = &others[..3];
    let away = far_away(&mut world, leader, also, 150_000);
    assert_eq!(fetch(&mut world, away, 3), leader);
    let term = world.group(leader).term;
    for &other in also {
        world.cut(leader, other);
    }
    let next = world.elect_among(|node| also.contains(&node));
    assert!(world.group(next).term > term);
    let progress = world.shard(away).install_progress().expect("it is still under way");
    assert!(progress.from == leader && progress.fetched < progress.chunks, "{progress:?}");
    fill(&mut world, next, 71..=80, 100);
    let ShardEvent::SnapshotInstalled { from, .. } = await_installed(&mut world, away) else {
        unreachable!("that is what is awaited")
    };
    assert_eq!(from, leader, "it isn't begun anew");
    world.run_for(Ticks::from_millis(1_000));
    assert_eq!(world.group(away).term, world.group(next).term);
    world.heal();
    world.run_for(Ticks::from_millis(8_000));
    world.assert_converged();
}

/// Goal: a second snapshot is taken in the moment in which the first is there, and power fails at any
/// moment of it: the newest that is whole wins, and the state is what it was (S31).
#[test]
fn s31_two_snapshots_in_quick_succession() {
    let mut newest = BTreeSet::new();
    for span in 0..40u64 {
        let (mut world, node) = cluster(52, 1, BY_HAND);
        fill(&mut world, node, 1..=20, 20_000);
        world.shard(node).want_snapshots(SnapshotReason::Asked);
        let mut told = Vec::new();
        while told.is_empty() {
            world.run_for(Ticks(1));
            told = taken(&mut world, node);
        }
        world.shard(node).device.hold(true);
        world.send_put(node, 9, 21, b"key-21", &[21; 20_000]);
        for _ in 0..span {
            if !world.shard(node).device.held().is_empty() {
                world.shard(node).device.finish(0);
            }
            world.run_for(Ticks(40));
            world.shard(node).want_snapshots(SnapshotReason::Asked);
        }
        told.extend(taken(&mut world, node));
        world.kill(node, |sector| !(sector as u64 + span).is_multiple_of(3));
        world.start(node);
        let said = world.events(node);
        let is_bad = |event: &ShardEvent| {
            matches!(event, ShardEvent::EntriesLost { .. } | ShardEvent::SnapshotUnreadable { .. })
        };
        assert!(!said.iter().any(is_bad), "step {span}: {said:?}");
        let found = world.group(node).snapshot;
        assert!(Some(&found) >= told.last(), "step {span}: {told:?}, {found} is there");
        newest.insert(found);
        world.elect();
        for number in 1..=20 {
            let (_, body) = world.get(node, format!("key-{number}").as_bytes());
            assert!(body.windows(100).any(|part| part == [number as u8; 100]), "{span}: {number}");
        }
        fill(&mut world, node, 21..=24, 20_000);
        take(&mut world, node);
        world.run_for(Ticks::from_millis(100));
        assert_eq!(files(&world, node, FileKind::Snapshot).len(), 1);
    }
    assert_eq!(newest.len(), 2, "the first and the second: {newest:?}");
}

/// Goal: while a node fetches one snapshot the leader takes others and keeps nothing of its log for
/// it: one install follows the other, none of them goes back, and the last one wins (S31, A23).
#[test]
fn s31_one_install_follows_the_other() {
    let (mut world, leader) = cluster(53, 3, SnapshotRules { lag_bytes: 0, ..BY_HAND });
    let away = far_away(&mut world, leader, &[], 200_000);
    let (mut installed, mut number) = (Vec::new(), 71);
    for _ in 0..2 {
        fetch(&mut world, away, 3);
        // It waits there, with what it has.
        world.shut_bulk(away, leader);
        fill(&mut world, leader, number..=number + 4, 200_000);
        take(&mut world, leader);
        number += 5;
        world.open_bulk(away);
        if let ShardEvent::SnapshotInstalled { last, .. } = await_installed(&mut world, away) {
            installed.push(last);
        }
    }
    world.run_for(Ticks::from_millis(5_000));
    let later = world.events(away).into_iter().filter_map(|event| match event {
        ShardEvent::SnapshotInstalled { last, .. } => Some(last),
        _ => None,
    });
    installed.extend(later);
    assert!(installed.len() >= 2 && installed.is_sorted(), "{installed:?}");
    world.assert_converged();
    assert_eq!(files(&world, away, FileKind::Snapshot).len(), 1, "the last one");
    let last = *installed.last().expect("two were installed");
    assert_eq!(world.group(away).snapshot, last);
    world.kill(away, |_| false);
    world.start(away);
    assert!(world.group(away).applied >= last);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: a node that takes a snapshot of its own is given a newer one: its own is of a machine that is
/// gone, and is let go, whole or half written (S31).
#[test]
fn s31_an_install_ends_a_snapshot_that_is_being_taken() {
    let (mut world, leader) = cluster(54, 3, BY_HAND);
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    fill(&mut world, leader, 1..=20, 100_000);
    world.run_for(Ticks::from_millis(500));
    world.kill(away, |_| false);
    fill(&mut world, leader, 21..=60, 1_000);
    take(&mut world, leader);
    fill(&mut world, leader, 61..=70, 1_000);
    world.run_for(Ticks::from_millis(5_000));
    // So slow that it doesn't end.
    world.save_by(SnapshotRules { bytes_per_second: 1, ..BY_HAND });
    world.start(away);
    world.run_for(Ticks(50));
    assert_eq!(world.shard(away).want_snapshots(SnapshotReason::Asked), 1);
    world.run_for(Ticks(50));
    assert_eq!(world.group(away).activity, SnapshotActivity::Taking);
    let own = files(&world, away, FileKind::Snapshot);
    await_installed(&mut world, away);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
    let kept = files(&world, away, FileKind::Snapshot);
    assert!(kept.len() == 1 && !own.contains(&kept[0]), "{own:?}, {kept:?}");
    assert_eq!(world.shard(away).metrics().snapshots_taken, 0);
    world.kill(away, |_| false);
    world.start(away);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: a node is told to install what it has, or what is behind its log, again and again: nothing
/// is asked for, and nothing changes (A23, S31).
#[test]
fn a23_an_install_of_what_is_there_is_let_go() {
    let (mut world, leader) = cluster(55, 3, BY_HAND);
    fill(&mut world, leader, 1..=30, 1_000);
    take(&mut world, leader);
    fill(&mut world, leader, 31..=40, 1_000);
    world.run_for(Ticks::from_millis(500));
    let follower = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    let (term, commit) = (world.group(leader).term, world.group(leader).commit);
    let applied = world.group(follower).applied;
    for index in [world.group(leader).snapshot, Index(2), commit] {
        let base = (term, index);
        for _ in 0..20 {
            let write = |out: &mut Outbox, sender: Identity| {
                let (base_term, base_index) = base;
                let item = InstallItem { term, base_term, base_index, commit, address_bytes: 0 };
                item.write(out, GROUP, sender, b"");
            };
            assert_eq!(world.inject(leader, follower, write), Ok(()));
            world.run_for(Ticks::from_millis(20));
            assert!(world.shard(follower).install_progress().is_none(), "{base:?}");
        }
    }
    let said = world.events(follower);
    let failed = |event: &ShardEvent| matches!(event, ShardEvent::InstallFailed { .. });
    assert!(!said.iter().any(failed), "{said:?}");
    assert_eq!(world.group(follower).applied, applied);
    assert_eq!(world.shard(follower).metrics().snapshots_installed, 0);
    fill(&mut world, leader, 41..=42, 100);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: a snapshot that nobody can give is asked for at a bounded pace, each failure is told, the
/// node serves nobody meanwhile and says how far it is; when there is a way again it comes (A22, A23).
#[test]
fn a23_an_install_that_nobody_gives_is_tried_at_its_pace() {
    let (mut world, leader) = cluster(56, 3, BY_HAND);
    let away = far_away(&mut world, leader, &[], 10_000);
    world.shut_bulk(away, leader);
    world.run_for(Ticks::from_millis(100));
    let before = world.group(away).applied;
    for minute in 0..2 {
        world.run_for(Ticks::from_millis(60_000));
        let said = world.events(away);
        let count = said.iter().filter(|event| {
            let error = InstallFailure::NoSource;
            matches!(event, ShardEvent::InstallFailed { error: it, .. } if *it == error)
        });
        let count = count.count();
        assert!((1..=30).contains(&count), "minute {minute}: {count} failures");
        assert_eq!(world.group(away).applied, before, "nothing is said to be installed");
        let call = world.send_get(away, b"key-1");
        world.run_for(READ_WAIT_MAX);
        assert_eq!(world.await_answer(away, call).status, Status::NotLeader, "it serves nobody");
    }
    fill(&mut world, leader, 71..=72, 100);
    world.open_bulk(away);
    await_installed(&mut world, away);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
}

/// Goal: a read on a node that must install first waits for that, and sees what was done before it
/// came (A34).
#[test]
fn a34_a_read_waits_for_the_install() {
    let (mut world, leader) = cluster(58, 3, BY_HAND);
    let away = far_away(&mut world, leader, &[], 10_000);
    world.shut_bulk(away, leader);
    world.run_for(Ticks::from_millis(100));
    let newest = world.group(leader).applied;
    let call = world.send_get(away, b"key-1");
    world.run_for(Ticks::from_millis(2_000));
    assert!(world.take_reply(away, call).is_none(), "it waits");
    world.open_bulk(away);
    let answer = world.await_answer(away, call);
    assert_eq!(answer.status, Status::Ok);
    assert!(answer.index >= newest);
}

/// Goal: a follower that lacks nothing but a snapshot's last entry gets that from the log (A20).
#[test]
fn a20_who_lacks_a_snapshots_last_entry_needs_no_install() {
    let (mut world, leader) = cluster(57, 3, BY_HAND);
    let slow = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    fill(&mut world, leader, 1..=10, 100);
    world.run_for(Ticks::from_millis(200));
    world.cut(leader, slow);
    fill(&mut world, leader, 11..=11, 100);
    let ShardEvent::SnapshotTaken { last, .. } = take(&mut world, leader) else {
        unreachable!("that is what is taken")
    };
    assert_eq!(world.group(slow).last.next(), last, "that one is what it lacks");
    world.run_for(Ticks::from_millis(20));
    world.heal();
    fill(&mut world, leader, 12..=20, 100);
    world.run_for(Ticks::from_millis(1_000));
    world.assert_converged();
    assert_eq!(world.shard(slow).metrics().snapshots_installed, 0);
}
