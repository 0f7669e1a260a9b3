//! Replicas that hold another state than the others, though their log is the same (V7): found by the
//! hashes that they tell their leader, fenced, and rebuilt.

use crate::members::Ask;
use crate::world::{GROUP, World};
use ringraft_net::client_wire::{Consistency, Local};
use ringraft_shard::limits::{REBUILDS_PER_HOUR, STATE_NOTE_ENTRIES};
use ringraft_shard::machine::{
    Applied, ApplyError, CommandKind, KvMachine, LoadError, StateMachine,
};
use ringraft_shard::{ShardEvent, SnapshotReason, SnapshotRules};
use ringraft_types::{GroupId, Index, NodeId, Revision, Status, Ticks};
use ringraft_wal::device::{FileId, FileKind};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Nothing is taken by itself.
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

/// Machines by their number, in the order in which they were made, that pass over their next command.
#[derive(Clone, Default)]
struct Flaws {
    made: Rc<Cell<u32>>,
    wrong: Rc<RefCell<BTreeSet<u32>>>,
}

impl Flaws {
    /// The machine that was made last goes wrong.
    fn strike_newest(&self) {
        self.strike(self.made.get());
    }

    fn strike(&self, number: u32) {
        self.wrong.borrow_mut().insert(number);
    }
}

/// A key-value machine that may go wrong.
struct FlawedMachine {
    inner: KvMachine,
    number: u32,
    flaws: Flaws,
}

impl StateMachine for FlawedMachine {
    fn check(&self, command: &[u8]) -> Result<CommandKind, Status> {
        self.inner.check(command)
    }

    fn apply(
        &mut self,
        index: Index,
        command: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Applied, ApplyError> {
        if self.flaws.wrong.borrow_mut().remove(&self.number) {
            return Ok(Applied { status: Status::Ok, revision: self.inner.revision() });
        }
        self.inner.apply(index, command, reply)
    }

    fn query(&self, command: &[u8], reply: &mut Vec<u8>) -> Applied {
        self.inner.query(command, reply)
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn state_hash(&self) -> u64 {
        self.inner.state_hash()
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }

    fn begin_snapshot(&mut self) {
        self.inner.begin_snapshot();
    }

    fn snapshot(&mut self, bytes: usize, piece: &mut Vec<u8>) -> bool {
        self.inner.snapshot(bytes, piece)
    }

    fn end_snapshot(&mut self) {
        self.inner.end_snapshot();
    }

    fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        self.inner.load(piece)
    }

    fn end_load(&mut self) -> Result<(), LoadError> {
        self.inner.end_load()
    }
}

/// A cluster whose machines are numbered as its nodes, and where it is led.
fn cluster(seed: u64, nodes: u32) -> (World, Flaws, NodeId) {
    let flaws = Flaws::default();
    let of_machines = flaws.clone();
    let make = move || {
        let flaws = of_machines.clone();
        flaws.made.set(flaws.made.get() + 1);
        let number = flaws.made.get();
        Box::new(FlawedMachine { inner: KvMachine::new(), number, flaws }) as Box<dyn StateMachine>
    };
    let mut world = World::with_machines(seed, nodes, 1, BY_HAND, Rc::new(make));
    let leader = world.elect();
    (world, flaws, leader)
}

/// Writes until an entry behind the next one is applied whose hash is noted; what happened meanwhile.
fn cross(world: &mut World, numbers: &mut u64) {
    let leader = world.elect();
    let noted = world.applied(leader).0 / STATE_NOTE_ENTRIES * STATE_NOTE_ENTRIES;
    let end = noted + STATE_NOTE_ENTRIES + 1;
    let count = end - world.applied(leader).0;
    let first = *numbers;
    *numbers += count;
    world.flood(leader, GROUP, 7, first..*numbers, b"value");
    for _ in 0..2_000 {
        world.run_for(Ticks::from_millis(1));
        if world.running().into_iter().any(|node| world.applied(node).0 >= end) {
            return;
        }
    }
    panic!("{count} writes aren't applied within two seconds");
}

/// What a node said of its state since somebody last asked.
fn said(world: &mut World, node: NodeId) -> Vec<ShardEvent> {
    let is_of_state = |event: &ShardEvent| {
        matches!(
            event,
            ShardEvent::Diverged { .. } | ShardEvent::Rebuilt { .. } | ShardEvent::Undecided { .. }
        )
    };
    world.events(node).into_iter().filter(is_of_state).collect()
}

/// Asserts that this node alone was found odd, at this entry, and was rebuilt.
fn assert_rebuilt(world: &mut World, odd: NodeId, at: u64) {
    for node in world.nodes() {
        let said = said(world, node);
        if node != odd {
            assert_eq!(said, [], "node {node}");
            continue;
        }
        let [ShardEvent::Diverged { group, index, own, majority, waits }, rebuilt] = said[..]
        else {
            panic!("{said:?}")
        };
        assert_eq!((group, index, waits), (GROUP, Index(at), Ticks::ZERO));
        assert_ne!(own, majority);
        assert!(matches!(rebuilt, ShardEvent::Rebuilt { last, .. } if last >= index));
        let shard = world.shard(node);
        assert_eq!(shard.groups_diverged(), 0);
        let metrics = shard.metrics();
        assert_eq!((metrics.divergences, metrics.states_rebuilt, metrics.repairs), (1, 1, 0));
        assert!(!world.group(node).damaged);
    }
}

/// The others of three nodes.
fn others(world: &World, beside: NodeId) -> Vec<NodeId> {
    world.nodes().into_iter().filter(|node| *node != beside).collect()
}

/// Goal: replicas that hold the same are left alone, whoever leads, however far each is.
#[test]
fn equal_states_are_left_alone() {
    let (mut world, _, leader) = cluster(101, 3);
    let mut numbers = 1;
    cross(&mut world, &mut numbers);
    let away = others(&world, leader)[0];
    world.kill(away, |_| false);
    for _ in 0..3 {
        cross(&mut world, &mut numbers);
    }
    world.start(away);
    world.run_for(Ticks::from_millis(2_000));
    world.kill(leader, |_| false);
    cross(&mut world, &mut numbers);
    world.start(leader);
    world.run_for(Ticks::from_millis(2_000));
    for node in world.nodes() {
        assert_eq!(said(&mut world, node), []);
    }
    world.assert_converged();
}

/// Goal: a follower whose machine went wrong is found at the next entry that is noted, refuses local
/// reads from then on, is rebuilt from the leader, and serves again; the leader leads on (V7).
#[test]
fn a_follower_that_went_wrong_is_rebuilt() {
    let (mut world, flaws, leader) = cluster(102, 3);
    let odd = others(&world, leader)[1];
    flaws.strike(odd.0);
    let mut numbers = 1;
    // It can't be rebuilt yet.
    world.shut_bulk(odd, leader);
    cross(&mut world, &mut numbers);
    world.run_for(Ticks::from_millis(1_000));
    assert_eq!(world.shard(odd).groups_diverged(), 1);
    assert!(world.group(odd).damaged);
    let answer = world.get_of(odd, b"flood", Consistency::Local(Local::default()));
    assert_eq!(answer.status, Status::Damaged, "what it holds isn't served");
    // Its log is right: without it nothing would be committed.
    let third = others(&world, leader).into_iter().find(|node| *node != odd).expect("three");
    world.kill(third, |_| false);
    assert_eq!(world.put(leader, 8, 1, b"key", b"value").status, Status::Ok);
    world.start(third);
    world.open_bulk(odd);
    world.run_for(Ticks::from_millis(5_000));
    let answer = world.get_of(odd, b"key", Consistency::Local(Local::default()));
    assert_eq!(answer.status, Status::Ok);
    world.assert_converged();
    assert!(world.leads(leader, GROUP), "nobody else had to lead");
    assert_rebuilt(&mut world, odd, STATE_NOTE_ENTRIES);
    // It starts from what it was given.
    world.kill(odd, |_| false);
    world.start(odd);
    cross(&mut world, &mut numbers);
    world.run_for(Ticks::from_millis(2_000));
    world.assert_converged();
}

/// Goal: a leader that went wrong leaves leading, and is rebuilt by the one that leads then.
#[test]
fn a_leader_that_went_wrong_steps_down_and_is_rebuilt() {
    let (mut world, flaws, odd) = cluster(103, 3);
    flaws.strike(odd.0);
    let mut numbers = 1;
    cross(&mut world, &mut numbers);
    world.run_for(Ticks::from_millis(5_000));
    let leader = world.elect();
    assert_ne!(leader, odd);
    assert_eq!(world.put(leader, 8, 1, b"key", b"value").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert_rebuilt(&mut world, odd, STATE_NOTE_ENTRIES);
}

/// Goal: a learner that went wrong is judged by the voters, and rebuilt.
#[test]
fn a_learner_that_went_wrong_is_rebuilt() {
    let (mut world, flaws, leader) = cluster(104, 3);
    let odd = NodeId(4);
    world.join(odd);
    Ask::of(&[1, 2, 3], &[4]).soon(&mut world);
    assert_eq!(world.put(leader, 8, 1, b"key", b"value").status, Status::Ok);
    world.run_for(Ticks::from_millis(2_000));
    flaws.strike_newest();
    cross(&mut world, &mut 1);
    world.run_for(Ticks::from_millis(5_000));
    world.assert_converged();
    assert_rebuilt(&mut world, odd, STATE_NOTE_ENTRIES);
}

/// Goal: of two voters that differ nobody knows who is right: people are told once, and nobody is
/// fenced.
#[test]
fn two_that_differ_are_told_of_and_left() {
    let (mut world, flaws, leader) = cluster(105, 2);
    let other = others(&world, leader)[0];
    flaws.strike(other.0);
    let mut numbers = 1;
    for _ in 0..2 {
        cross(&mut world, &mut numbers);
        world.run_for(Ticks::from_millis(500));
    }
    let said_by_leader = said(&mut world, leader);
    let [ShardEvent::Undecided { group, index, own, other: who, hash }] = said_by_leader[..] else {
        panic!("{said_by_leader:?}")
    };
    assert_eq!((group, index, who), (GROUP, Index(STATE_NOTE_ENTRIES), other));
    assert_ne!(own, hash);
    assert_eq!(said(&mut world, other), []);
    assert_eq!(world.shard(leader).metrics().divergences_undecided, 1);
    for node in world.nodes() {
        assert!(!world.group(node).damaged);
    }
}

/// Goal: a node that restarts before it was rebuilt doesn't come back with the state that was wrong,
/// although it had saved it and its log begins behind that.
#[test]
fn a_restart_before_it_is_rebuilt_forgets_what_was_wrong() {
    let (mut world, flaws, leader) = cluster(106, 3);
    let odd = others(&world, leader)[0];
    flaws.strike(odd.0);
    assert_eq!(world.put(leader, 8, 1, b"key", b"value").status, Status::Ok);
    world.run_for(Ticks::from_millis(500));
    let (right, wrong) = (world.group(leader).state_hash, world.group(odd).state_hash);
    assert_ne!(right, wrong);
    for node in world.nodes() {
        assert_eq!(world.shard(node).want_snapshots(SnapshotReason::Asked), 1);
    }
    world.run_for(Ticks::from_millis(1_000));
    assert!(world.group(odd).snapshot > Index::ZERO, "the wrong state is saved");
    world.shut_bulk(odd, leader);
    let mut numbers = 1;
    cross(&mut world, &mut numbers);
    world.run_for(Ticks::from_millis(1_000));
    assert_eq!(world.shard(odd).groups_diverged(), 1);
    world.kill(odd, |_| false);
    world.start(odd);
    // That is what makes the fence durable.
    assert_eq!(world.group(odd).snapshot, Index::ZERO, "nothing that is wrong can be loaded");
    let is_saved = |(file, _): &(FileId, u64)| file.kind == FileKind::Snapshot;
    assert!(!world.files(odd).iter().any(is_saved), "{:?}", world.files(odd));
    world.shut_bulk(odd, leader);
    world.run_for(Ticks::from_millis(300));
    let state = world.group(odd);
    assert!(state.damaged || state.revision == world.group(leader).revision, "{state:?}");
    world.open_bulk(odd);
    world.run_for(Ticks::from_millis(8_000));
    assert!(!world.group(odd).damaged);
    world.assert_converged();
}

/// Goal: a replica that goes wrong again and again is rebuilt a few times, and then stays fenced for a
/// while, and says so.
#[test]
fn one_that_goes_wrong_again_and_again_stays_fenced() {
    let (mut world, flaws, leader) = cluster(107, 3);
    let odd = others(&world, leader)[0];
    let mut numbers = 1;
    flaws.strike(odd.0);
    for _ in 0..REBUILDS_PER_HOUR {
        cross(&mut world, &mut numbers);
        world.run_for(Ticks::from_millis(5_000));
        world.assert_converged();
        // The machine that it was rebuilt with.
        flaws.strike_newest();
    }
    said(&mut world, odd);
    cross(&mut world, &mut numbers);
    world.run_for(Ticks::from_millis(10_000));
    let said = said(&mut world, odd);
    let waits = said.iter().find_map(|event| match event {
        ShardEvent::Diverged { waits, .. } => Some(*waits),
        _ => None,
    });
    assert!(waits.expect("it was found") > Ticks::from_millis(3_000_000), "{said:?}");
    assert_eq!(world.shard(odd).groups_diverged(), 1);
    assert!(world.group(odd).damaged);
    assert_eq!(world.shard(odd).metrics().states_rebuilt, u64::from(REBUILDS_PER_HOUR));
}

/// Goal: what was told over a link that broke is told again: an idle group is compared all the same.
#[test]
fn what_was_lost_with_a_link_is_told_again() {
    let (mut world, flaws, leader) = cluster(108, 3);
    let odd = others(&world, leader)[0];
    flaws.strike(odd.0);
    let mut numbers = 1;
    cross(&mut world, &mut numbers);
    world.cut(leader, odd);
    world.run_for(Ticks::from_millis(100));
    world.heal();
    world.run_for(Ticks::from_millis(8_000));
    world.assert_converged();
    let group: GroupId = GROUP;
    assert!(
        said(&mut world, odd).iter().any(|event| {
            matches!(event, ShardEvent::Rebuilt { group: of, .. } if *of == group)
        })
    );
}
