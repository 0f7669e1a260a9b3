//! A new cluster from what a survivor's disk holds, when the majority is lost for good (M13).

use crate::world::{GROUP, World};
use ringraft_shard::SnapshotReason;
use ringraft_shard::SnapshotRules;
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_shard::salvage::{NewLog, SalvageError, Salvaged, load, salvage};
use ringraft_types::record::{RecordKind, encode};
use ringraft_types::{Configuration, GroupId, Index, LogId, NodeId, Status, Term, Ticks, Words};
use ringraft_wal::device::memory::{Effect, Fault, MemoryDevice, OperationKind};
use ringraft_wal::{LogSettings, SnapshotError};

/// "No space left on device", "Input/output error".
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn machine(_: GroupId) -> Box<dyn StateMachine> {
    Box::new(KvMachine::new())
}

fn settings(node: NodeId) -> LogSettings {
    let identity = World::identity(node);
    let mut settings = LogSettings::new(identity.cluster, node, identity.incarnation, 1);
    settings.segment_bytes = 8 << 20;
    settings
}

fn salvaged(node: NodeId, device: &mut MemoryDevice) -> Result<Vec<Salvaged>, SalvageError> {
    let loaded = load(settings(node), device, &mut machine)?;
    salvage(loaded, device, &mut machine)
}

/// Nothing is taken by itself.
fn by_hand() -> SnapshotRules {
    SnapshotRules { log_bytes: 0, ..SnapshotRules::default() }
}

fn write(world: &mut World, to: NodeId, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let (key, value) = (format!("key-{}", number % 40), format!("value-{number};"));
        let reply = world.put(to, 9, number, key.as_bytes(), value.as_bytes());
        assert_eq!(reply.status, Status::Ok);
    }
}

fn holds(world: &mut World, at: NodeId, key: u64, value: &str) -> bool {
    let (status, body) = world.get(at, format!("key-{key}").as_bytes());
    assert_eq!(status, Status::Ok);
    body.windows(value.len()).any(|part| part == value.as_bytes())
}

/// The one node of a new cluster, with these groups on its disk, running.
fn new_world(seed: u64, groups: u64, from: Vec<Salvaged>) -> World {
    let mut world = World::new(seed, 1, groups);
    let first = NodeId(1);
    world.kill(first, |_| true);
    let (_, starts) = world.copy(first);
    let mut device = MemoryDevice::new(4096);
    let alone = Configuration::first(vec![first], Vec::new()).expect("one voter");
    let alone = alone.encode(|_| Words::default()).expect("it is short");
    let mut log = NewLog::begin(settings(first), &mut device).expect("nothing is there");
    for salvaged in from {
        let is_held = salvaged.held.last > LogId::ZERO;
        assert_eq!(log.add(&mut device, salvaged, &alone).expect("there is room"), is_held);
    }
    // All of it is durable.
    device.power_cut(|_| false);
    world.put_back(first, (device, starts));
    world.start(first);
    world
}

/// Goal: everything that a survivor held is there in the new cluster, from its snapshot and from its
/// log, in all groups; a write that is tried again there is still done once.
#[test]
fn m13_what_a_survivor_holds_goes_on() {
    for takes_snapshot in [false, true] {
        let mut world = World::with_rules(1, 3, 2, by_hand());
        let leader = world.elect();
        write(&mut world, leader, 1..=60);
        let survivor = NodeId(leader.0 % 3 + 1);
        world.run_for(Ticks::from_millis(500));
        if takes_snapshot {
            assert_eq!(world.shard(survivor).want_snapshots(SnapshotReason::Asked), 2);
            world.run_for(Ticks::from_millis(500));
        }
        write(&mut world, leader, 61..=80);
        world.run_for(Ticks::from_millis(500));
        let old = world.groups(survivor);
        let first = world.put(leader, 9, 80, b"key-0", b"value-80;");
        for node in world.nodes() {
            world.kill(node, |_| true);
        }
        let (mut disk, _) = world.copy(survivor);
        let found = salvaged(survivor, &mut disk).expect("its log is whole");
        assert_eq!(found.len(), 2);
        for (found, old) in found.iter().zip(&old) {
            assert_eq!((found.held.group, found.state_hash()), (old.group, old.state_hash));
            assert!(found.held.last.index >= old.applied && found.held.missing.is_none());
            assert_eq!(found.held.snapshot.is_some(), takes_snapshot);
            assert!(
                found.held.term >= found.held.last.term
                    && found.held.commit >= old.applied.previous()
            );
        }
        let last = found[0].held.last;

        let mut world = new_world(2, 2, found);
        assert_eq!(world.elect(), NodeId(1));
        let group = world.group(NodeId(1));
        assert!(group.applied > last.index, "it goes on behind what it took over");
        assert_eq!(group.state_hash, old[0].state_hash);
        for number in 41..=80 {
            assert!(holds(&mut world, NodeId(1), number % 40, &format!("value-{number};")));
        }
        let again = world.put(NodeId(1), 9, 80, b"key-0", b"value-80;");
        assert_eq!((again.revision, again.index), (first.revision, first.index), "done once");
        write(&mut world, NodeId(1), 81..=90);
        world.kill(NodeId(1), |_| true);
        world.start(NodeId(1));
        world.elect();
        assert!(holds(&mut world, NodeId(1), 10, "value-90;"));
        assert!(holds(&mut world, NodeId(1), 11, "value-51;"));
    }
}

/// Goal: entries that the survivor doesn't know as committed are kept: the others may have
/// acknowledged them.
#[test]
fn m13_what_may_have_been_acknowledged_is_kept() {
    let mut world = World::with_rules(3, 3, 1, by_hand());
    let leader = world.elect();
    write(&mut world, leader, 1..=5);
    world.run_for(Ticks::from_millis(500));
    for other in world.nodes().into_iter().filter(|&node| node != leader) {
        world.cut(leader, other);
    }
    world.send_put(leader, 9, 6, b"key-6", b"value-6;");
    world.run_for(Ticks::from_millis(50));
    for node in world.nodes() {
        world.kill(node, |_| true);
    }
    let (mut disk, _) = world.copy(leader);
    let found = salvaged(leader, &mut disk).expect("its log is whole");
    assert!(
        found[0].held.last.index > found[0].held.commit,
        "{:?} {}",
        found[0].held.last,
        found[0].held.commit
    );
    let mut world = new_world(4, 1, found);
    world.elect();
    assert!(holds(&mut world, NodeId(1), 6, "value-6;"));
}

/// Goal: what rot took is told, and what is before it can be had.
#[test]
fn m13_rot_in_the_survivor_is_told() {
    let mut world = World::with_rules(5, 3, 1, by_hand());
    let leader = world.elect();
    write(&mut world, leader, 1..=30);
    world.run_for(Ticks::from_millis(500));
    let (applied, hash) = (world.applied(leader), world.group(leader).state_hash);
    world.rot(leader);
    world.kill(leader, |_| true);
    let (mut disk, _) = world.copy(leader);
    let found = salvaged(leader, &mut disk).expect("what is there can be read");
    let missing = found[0].held.missing.expect("something is missing");
    assert!(found[0].held.last.index < applied && missing.index >= applied, "{missing}");
    assert_ne!(found[0].state_hash(), hash);
    let last = found[0].held.last;
    let mut world = new_world(6, 1, found);
    world.elect();
    assert!(world.applied(NodeId(1)) > last.index);
}

/// Goal: an entry that this version can't apply is named, never skipped.
#[test]
fn an_unknown_entry_is_refused() {
    let node = NodeId(1);
    let mut device = MemoryDevice::new(4096);
    let loaded = load(settings(node), &mut device, &mut machine).expect("an empty log");
    assert!(salvage(loaded, &mut device, &mut machine).expect("nothing").is_empty());
    let recovered = ringraft_wal::Recovery::run(settings(node), &mut device);
    let (mut log, _) = recovered.expect("an empty log");
    let mut record = Vec::new();
    let (kind, payload) = (RecordKind::Command, [b"what nobody knows".as_slice(), b""]);
    encode(&mut record, kind, GROUP, Index(1), Term(1), payload);
    log.append(&record).expect("there is room");
    for turn in 0..200 {
        log.turn(Ticks::from_millis(turn), &mut device).expect("it goes on");
    }
    let found = salvaged(node, &mut device);
    let is_it = |error: &SalvageError| {
        matches!(error, SalvageError::UnknownCommand { group: GROUP, index: Index(1) })
    };
    assert!(found.is_err_and(|error| is_it(&error)));
}

/// Goal: a disk that fails or is full under the new log ends the attempt with what it is, wherever it
/// happens.
#[test]
fn a_new_log_that_cant_be_written_is_told() {
    let mut world = World::with_rules(7, 1, 1, by_hand());
    let node = world.elect();
    write(&mut world, node, 1..=20);
    world.kill(node, |_| true);
    let (disk, _) = world.copy(node);
    let alone = Configuration::first(vec![node], Vec::new()).expect("one voter");
    let alone = alone.encode(|_| Words::default()).expect("it is short");
    let attempt = |on, after, errno| {
        let found = salvaged(node, &mut disk.clone()).expect("its log is whole");
        let mut device = MemoryDevice::new(4096);
        device.inject(Fault { on, after, count: u32::MAX, effect: Effect::Errno(errno) });
        let mut log = NewLog::begin(settings(node), &mut device)?;
        let mut added = Ok(false);
        for salvaged in found {
            added = log.add(&mut device, salvaged, &alone);
        }
        added
    };
    for on in [OperationKind::Create, OperationKind::Write] {
        let full = attempt(on, 0, ENOSPC);
        let is_full = |error: &SalvageError| {
            let of_snapshot =
                matches!(error, SalvageError::Snapshot { error: SnapshotError::Full, .. });
            of_snapshot || matches!(error, SalvageError::Full)
        };
        assert!(full.as_ref().is_err_and(is_full), "{on:?}: {full:?}");
    }
    for on in [OperationKind::Create, OperationKind::Write, OperationKind::Sync] {
        let mut after = 0;
        // Up to the attempt that the fault comes too late for.
        while attempt(on, after, EIO).is_err() {
            after += 1;
        }
        assert!(after > 0, "{on:?}");
    }
    let none = attempt(OperationKind::Remove, 0, EIO);
    assert!(none.expect("nothing is removed"), "it takes a place");
}
