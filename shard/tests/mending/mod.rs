//! Rot that is met while a node runs is repaired from the peers without a restart (decision 0013).

use crate::world::{GROUP, World};
use ringraft_net::status::GroupRole;
use ringraft_net::wire::{AnswerState, RepairAnswer, RepairAsk, RunItem};
use ringraft_shard::{FrameRefusal, ShardEvent};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, NodeId, Status, Term, Ticks};
use ringraft_wal::device::FileId;

/// Writes of each test: more than a cache holds.
const WRITES: u64 = 80;

fn value(number: u64) -> Vec<u8> {
    format!("<value {number:04}>").into_bytes().repeat((256 << 10) / 12)
}

/// Two nodes that run, the leader first, and one that doesn't and lacks more than their caches hold;
/// the entry of each write.
fn far_behind(seed: u64, groups: u64) -> (World, [NodeId; 3], Vec<Index>) {
    let mut world = World::new(seed, 3, groups);
    let leader = world.elect();
    let away = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    let other = *world.nodes().iter().find(|&&node| node != leader && node != away).expect("three");
    world.kill(away, |_| true);
    let mut entries = vec![Index::ZERO];
    for number in 1..=WRITES {
        let reply = world.put(leader, 9, number, format!("k{number}").as_bytes(), &value(number));
        assert_eq!(reply.status, Status::Ok);
        entries.push(reply.index);
    }
    (world, [leader, other, away], entries)
}

/// A bit of what a running node wrote with this write flips; or back.
fn flip(world: &mut World, node: NodeId, number: u64) {
    let device = &mut world.shard(node).device;
    let value = format!("<value {number:04}><value {number:04}>").into_bytes();
    let place = |(file, _): (FileId, u64)| {
        let content = device.content(file);
        let at = content.windows(value.len()).position(|part| part == &value[..])?;
        Some((file, at))
    };
    let (file, at) = device.files().into_iter().find_map(place).expect("it was written");
    // In the record, and not what this looks for.
    device.flip_bit(file, (at as u64 + 100_000) * 8);
}

fn count(said: &[ShardEvent], is: fn(&ShardEvent) -> bool) -> usize {
    said.iter().filter(|event| is(event)).count()
}

fn is_unreadable(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::Unreadable { .. })
}

fn is_mended(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::Mended { .. })
}

fn is_repaired(event: &ShardEvent) -> bool {
    matches!(event, ShardEvent::Repaired { .. })
}

/// The node starts from what its disk holds if the power goes now, and lacks nothing.
fn assert_whole_after_a_cut(world: &mut World, node: NodeId) {
    world.kill(node, |_| false);
    world.start(node);
    let said = world.events(node);
    assert!(!said.iter().any(|event| matches!(event, ShardEvent::EntriesLost { .. })), "{said:?}");
    assert!(!world.group(node).damaged);
}

/// S05, A13: a leader meets rot when it reads for a follower that was away. It has the entries again
/// from the other one, without a restart, stands and leads as any other, and finds nothing missing
/// at its next start.
#[test]
fn s05_rot_that_is_met_is_repaired_without_a_restart() {
    for seed in 0..3 {
        let (mut world, [leader, other, away], _) = far_behind(seed, 1);
        flip(&mut world, leader, 3);
        world.start(away);
        world.run_for(Ticks::from_millis(10_000));
        let said = world.events(leader);
        let order = [is_unreadable, is_mended, is_repaired].map(|is| said.iter().position(is));
        assert!(order[0].is_some() && order.is_sorted(), "seed {seed}: {said:?}");
        assert!(!world.group(leader).damaged, "seed {seed}");
        world.assert_converged();
        assert!(world.shard(leader).metrics().entries_mended > 0);
        assert!(world.shard(other).metrics().entries_lent > 0);
        assert_whole_after_a_cut(&mut world, leader);
        world.run_for(Ticks::from_millis(2_000));
        // It makes a majority, and may lead.
        world.kill(other, |_| false);
        let next = world.elect();
        assert_eq!(world.put(next, 9, WRITES + 1, b"after", b"value").status, Status::Ok);
        let (status, body) = world.get(next, b"k3");
        assert!(status == Status::Ok && body.windows(12).any(|part| part == b"<value 0003>"));
        world.run_for(Ticks::from_millis(1_000));
        world.assert_converged();
    }
}

/// S06, as far as entries can be read somewhere: different entries are rotten on both nodes that
/// hold them; each has its own again from the other, and the third catches up.
#[test]
fn s06_two_nodes_repair_each_other() {
    for seed in 0..3 {
        let (mut world, [leader, other, away], _) = far_behind(seed, 1);
        flip(&mut world, leader, 5);
        flip(&mut world, other, 6);
        world.start(away);
        world.run_for(Ticks::from_millis(20_000));
        for node in [leader, other] {
            let said = world.events(node);
            assert!(count(&said, is_repaired) <= 2, "seed {seed}: {said:?}");
            assert_eq!(
                count(&said, is_unreadable),
                count(&said, is_mended),
                "seed {seed}: {said:?}"
            );
            assert!(!world.group(node).damaged, "seed {seed}");
        }
        world.assert_converged();
        assert_whole_after_a_cut(&mut world, leader);
    }
}

/// S07: what is rotten wherever it was written halts its group only, which says what it lacks; when
/// one of them can read it again, both are whole, without a restart.
#[test]
fn s07_what_nobody_can_read_is_asked_for_until_somebody_can() {
    let groups = 4;
    let (mut world, [leader, other, away], entries) = far_behind(7, groups);
    flip(&mut world, leader, 5);
    flip(&mut world, other, 5);
    world.start(away);
    world.run_for(Ticks::from_millis(20_000));
    for node in [leader, other] {
        let said = world.events(node);
        let lacking = ShardEvent::NotMended { group: GROUP, first: entries[5] };
        let times = said.iter().filter(|event| **event == lacking).count();
        assert_eq!((times, count(&said, is_mended)), (1, 0), "{said:?}");
        assert!(world.group(node).damaged);
        assert_eq!(world.shard(node).repairs_under_way(), 1);
    }
    for group in (2..=groups).map(GroupId) {
        let of_group = |node| world.groups(node).into_iter().find(|one| one.group == group);
        let all: Vec<_> = world.nodes().into_iter().filter_map(of_group).collect();
        assert!(all.iter().all(|one| !one.damaged), "{all:?}");
        assert!(all.iter().any(|one| one.role == GroupRole::Leader), "{all:?}");
    }
    flip(&mut world, other, 5);
    world.run_for(Ticks::from_millis(30_000));
    for node in [leader, other] {
        let said = world.events(node);
        assert_eq!((count(&said, is_mended), count(&said, is_repaired)), (1, 1), "{said:?}");
        assert!(!world.group(node).damaged);
    }
    world.elect();
    world.run_for(Ticks::from_millis(5_000));
    world.assert_converged();
}

/// A node that is cut off asks nobody and answers nobody; it is whole when it meets the others.
#[test]
fn a_node_that_is_cut_off_waits_with_its_questions() {
    let (mut world, [leader, other, away], _) = far_behind(2, 1);
    flip(&mut world, leader, 2);
    world.start(away);
    while !world.events(leader).iter().any(is_unreadable) {
        world.run_for(Ticks(100));
    }
    for node in [other, away] {
        world.cut(leader, node);
    }
    world.run_for(Ticks::from_millis(8_000));
    assert_eq!(count(&world.events(leader), is_mended), 0);
    assert_eq!(world.get(leader, b"k2").0, Status::Damaged);
    world.heal();
    world.run_for(Ticks::from_millis(15_000));
    let said = world.events(leader);
    assert_eq!((count(&said, is_mended), count(&said, is_repaired)), (1, 1), "{said:?}");
    world.assert_converged();
}

/// I-13: power fails at any moment of a repair. A node that said that it is whole finds itself so.
#[test]
fn a_repair_that_is_told_outlasts_a_power_cut() {
    let (mut told, mut untold) = (0, 0);
    for span in (0..4_000).step_by(400) {
        let (mut world, [leader, _, away], _) = far_behind(4, 1);
        flip(&mut world, leader, 4);
        world.start(away);
        let mut said = Vec::new();
        while !said.iter().any(is_unreadable) {
            world.run_for(Ticks(100));
            said.extend(world.events(leader));
        }
        world.run_for(Ticks(span));
        said.extend(world.events(leader));
        world.kill(leader, |_| false);
        world.start(leader);
        let is_lost = |event: &ShardEvent| matches!(event, ShardEvent::EntriesLost { .. });
        let is_whole = !world.events(leader).iter().any(is_lost);
        let is_told = said.iter().any(is_repaired);
        assert!(is_whole || !is_told, "{span} us");
        (told, untold) = (told + u32::from(is_told), untold + u32::from(!is_whole));
        world.run_for(Ticks::from_millis(10_000));
        assert!(!world.group(leader).damaged, "{span} us");
        world.assert_converged();
    }
    assert!(told > 0 && untold > 0, "{told} were told, {untold} were interrupted");
}

/// Questions and answers that no sound node sends: what nobody asked for is ignored, and what isn't
/// the frame's is refused; a node gives nothing that it doesn't hold.
#[test]
fn unasked_answers_and_odd_questions_do_no_harm() {
    let mut world = World::new(1, 3, 1);
    let leader = world.elect();
    assert_eq!(world.put(leader, 9, 1, b"key", b"value").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    let [from, to] = [leader, *world.nodes().iter().find(|&&node| node != leader).expect("three")];
    let mut records = Vec::new();
    let payload = [&b"nonsense"[..], b""];
    record::encode(&mut records, RecordKind::Command, GROUP, Index(2), Term(1), payload);
    let head = RepairAnswer { round: 1, first: Index(2), count: 1, state: AnswerState::Here };
    for group in [GROUP, GroupId(99)] {
        let taken = world.inject(from, to, |out, sender| head.write(out, group, sender, &records));
        assert_eq!(taken, Ok(()), "nobody asked");
        for (first, last, term) in
            [(1, u64::MAX, 1), (2, 3, 77), (u64::MAX, u64::MAX, 1), (500, 501, 1)]
        {
            let runs = [RunItem { first: Index(first), term: Term(term) }];
            let ask = RepairAsk { round: 3, last: Index(last) };
            let taken = world.inject(from, to, |out, sender| ask.write(out, group, sender, &runs));
            assert_eq!(taken, Ok(()));
            world.run_for(Ticks::from_millis(10));
        }
    }
    let last = world.group(to).last.0;
    assert_eq!(world.shard(to).metrics().entries_lent, last, "only what it holds, in its term");
    world.assert_converged();
    let refused = world.inject(from, to, |out, sender| {
        RepairAnswer { count: 0, ..head }.write(out, GROUP, sender, &records);
    });
    assert!(matches!(refused, Err(FrameRefusal::Malformed { .. })), "{refused:?}");
}
