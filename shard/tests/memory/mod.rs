//! The limit of the data that a node holds (decision 0028), what is refused at it, and how that ends;
//! and the limit of the writes that all groups have under way, and who gets how much of it (decision
//! 0029).

use crate::world::World;
use ringraft_shard::ShardEvent;
use ringraft_types::command::{Command, DeleteCommand, Keys, Operation, PutCommand, TxnBuilder};
use ringraft_types::{GroupId, MemoryLevel, NodeId, Revision, Status, Ticks};

const LIMIT: u64 = 256 << 10;
const VALUE: [u8; 1_024] = [7; 1_024];

/// Nodes that start anew with a limit.
fn limited(world: &mut World, nodes: &[NodeId], limit: u64) {
    world.limit_data(limit);
    for &node in nodes {
        world.kill(node, |_| true);
    }
    for &node in nodes {
        world.start(node);
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// Writes keys until one is refused. Returns its number, which no write has.
fn fill(world: &mut World, leader: NodeId) -> u64 {
    for number in 1..1_000 {
        let answer = world.put(leader, 9, number, &key(number), &VALUE);
        if answer.status != Status::Ok {
            assert_eq!(answer.status, Status::MemoryFull);
            return number;
        }
        world.run_for(Ticks::from_millis(2));
    }
    panic!("nothing was refused");
}

fn level(world: &mut World, node: NodeId) -> MemoryLevel {
    world.shard(node).memory().level
}

/// Goal: at the limit what grows is refused as definitely not done, people were warned before, and
/// retries, reads, deletes and compactions go on; those make room, and the alarm ends by itself.
#[test]
fn a_full_memory_refuses_what_grows_until_there_is_room() {
    let mut world = World::new(81, 3, 1);
    let nodes = world.nodes();
    limited(&mut world, &nodes, LIMIT);
    let leader = world.elect();
    world.events(leader);
    let refused = fill(&mut world, leader);
    assert!(refused > 150, "{refused}");
    let levels = world.events(leader).into_iter().filter_map(|event| match event {
        ShardEvent::Memory { level, bytes, bytes_max: LIMIT, .. } => Some((level, bytes)),
        _ => None,
    });
    let levels: Vec<_> = levels.collect();
    assert!(matches!(levels[..], [(MemoryLevel::Warning, _), (MemoryLevel::Full, LIMIT..)]));
    assert_eq!(world.shard(leader).metrics().refused_memory, 1);

    let retry = world.put(leader, 9, refused - 1, &key(refused - 1), &VALUE);
    assert_eq!(retry.status, Status::Ok, "it was applied before");
    assert_eq!(world.get(leader, &key(1)).0, Status::Ok);
    let put = Operation::Put(PutCommand { key: b"p", value: b"", previous: false });
    let keys = Keys::Between { start: b"key-1", end: b"key-5" };
    let delete = Operation::Delete(DeleteCommand { keys, previous: false });
    let mut txn = |sequence, then: &[Operation<'_>]| {
        let mut command = Vec::new();
        let builder = TxnBuilder { compares: &[], then, otherwise: &[] };
        builder.encode(&mut command).expect("within limits");
        world.write(leader, 9, sequence, &command).status
    };
    assert_eq!(txn(refused, &[put, delete]), Status::MemoryFull);
    assert_eq!(txn(refused, &[delete]), Status::Ok);
    // What was deleted is history, which can be read.
    assert_eq!(level(&mut world, leader), MemoryLevel::Full);
    assert_eq!(world.delete(leader, 9, refused + 1, &key(9)).status, Status::Ok);
    let mut compact = Vec::new();
    let revision = world.group(leader).revision;
    assert!(revision > Revision::ZERO);
    Command::Compact { revision }.encode(&mut compact).expect("within limits");
    assert_eq!(world.write(leader, 9, refused + 2, &compact).status, Status::Ok);
    world.run_for(Ticks::from_millis(300));
    for node in nodes {
        assert_eq!(level(&mut world, node), MemoryLevel::Normal, "it ends by itself");
    }
    assert_eq!(world.put(leader, 9, refused + 3, b"after", &VALUE).status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}

/// Goal: a leader with room refuses for a voter that has none, and says whom; one that is cut off
/// holds nobody up.
#[test]
fn a_full_voter_is_spared() {
    let mut world = World::new(82, 3, 1);
    let leader = world.elect();
    let full = *world.nodes().iter().find(|&&node| node != leader).expect("there are three");
    limited(&mut world, &[full], LIMIT);
    world.run_for(Ticks::from_millis(1_000));
    let leader = world.elect_among(|node| node != full);
    let refused = fill(&mut world, leader);
    assert_eq!(level(&mut world, leader), MemoryLevel::Normal);
    assert_eq!(world.shard(leader).full_peers(), 1);
    let said = |event: &ShardEvent| matches!(event, ShardEvent::PeerMemory { is_full: true, .. });
    assert!(world.events(leader).iter().any(said));
    assert_eq!(world.delete(leader, 9, refused, &key(1)).status, Status::Ok);
    for other in world.nodes() {
        if other != full {
            world.cut(full, other);
        }
    }
    world.run_for(Ticks::from_millis(1_500));
    let leader = world.elect_among(|node| node != full);
    assert_eq!(world.put(leader, 9, refused + 1, b"on", &VALUE).status, Status::Ok);
}

/// Goal: a node that starts with more than its limit serves and follows all the same.
#[test]
fn a_limit_below_what_is_there_refuses_no_start() {
    let mut world = World::new(83, 3, 1);
    let leader = world.elect();
    for number in 1..=100 {
        assert_eq!(world.put(leader, 9, number, &key(number), &VALUE).status, Status::Ok);
    }
    let nodes = world.nodes();
    limited(&mut world, &nodes, LIMIT / 16);
    let leader = world.elect();
    world.run_for(Ticks::from_millis(500));
    for node in nodes {
        assert_eq!(level(&mut world, node), MemoryLevel::Full);
    }
    assert_eq!(world.get(leader, &key(100)).0, Status::Ok);
    assert_eq!(world.put(leader, 9, 101, b"more", b"x").status, Status::MemoryFull);
    assert_eq!(world.delete(leader, 9, 101, &key(1)).status, Status::Ok);
}

/// A39: many times what all groups may have under way comes for two of three groups. What is under
/// way stays within its limit, the rest is busy; the group that asks for little is served each time;
/// nobody loses its leader; and what was answered is done.
#[test]
fn a39_overload_is_fair_and_keeps_its_leaders() {
    const WRITES_MAX: usize = 600;
    const BYTES_MAX: usize = 1 << 20;
    const BURST: u64 = 1_000;
    let mut world = World::new(84, 3, 3);
    world.limit_pending(WRITES_MAX, BYTES_MAX);
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
    for node in world.nodes() {
        world.start(node);
    }
    world.elect();
    world.run_for(Ticks::from_millis(500));
    let leader_of = |world: &World, group| {
        let mut nodes = world.nodes().into_iter();
        nodes.find(|&node| world.leads(node, group)).expect("somebody leads")
    };
    let groups: Vec<GroupId> = (1..=3).map(GroupId).collect();
    let leaders: Vec<NodeId> = groups.iter().map(|&group| leader_of(&world, group)).collect();
    let terms = |world: &World| {
        let rows = groups.iter().zip(&leaders).map(|(group, &leader)| {
            let mut rows = world.groups(leader).into_iter();
            rows.find(|row| row.group == *group).expect("it has the group").term
        });
        rows.collect::<Vec<_>>()
    };
    let before = terms(&world);
    let value = [7; 512];
    let (mut calm, mut busy, mut done, mut most) = (0, 0, [0, 0], 0);
    for round in 1..=60u64 {
        // The disks are slow, too: they answer at the end of each round.
        for node in world.nodes() {
            world.hold_disk(node, true);
        }
        let mut calls = Vec::new();
        for burst in 0..4 {
            for at in 0..2 {
                // New sessions: each burst begins with a write number 1.
                let client = 1_000 * u128::from(round) + 10 * burst + at as u128;
                let call = world.flood(leaders[at], groups[at], client, 1..BURST + 1, &value);
                calls.push((at, call));
            }
        }
        let call = world.flood(leaders[2], groups[2], 7, round..round + 1, &value);
        for node in world.nodes() {
            let pending = world.shard(node).pending_write_bytes();
            assert!(pending <= BYTES_MAX + 1_024, "{pending} bytes are under way");
            assert!(world.shard(node).pending_writes() <= WRITES_MAX as u64);
            most = most.max(pending);
        }
        for node in world.nodes() {
            world.hold_disk(node, false);
        }
        calm += u64::from(world.await_answer(leaders[2], call).status == Status::Ok);
        world.run_for(Ticks::from_millis(100));
        for (at, first) in calls {
            for call in first..first + BURST {
                match world.take_reply(leaders[at], call).map(|reply| reply.0) {
                    Some(Status::Ok) => done[at] += 1,
                    Some(Status::Busy | Status::Gap) => busy += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(calm, 60, "who asks for little is served");
    assert!(busy > 4 * (done[0] + done[1]), "it was overload: {done:?} done, {busy} busy");
    assert!(most > BYTES_MAX / 8, "the limit was used: {most}");
    assert!(done[0].min(done[1]) * 4 > done[0].max(done[1]), "{done:?}");
    assert_eq!(terms(&world), before, "nobody was elected anew");
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}
