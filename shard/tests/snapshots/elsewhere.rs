//! Machines that keep what is large elsewhere: a snapshot names it, and who loads it fetches it.

use super::{BY_HAND, assert_starts_from_it, await_installed, away, fill};
use crate::world::World;
use ringraft_shard::ShardEvent;
use ringraft_shard::machine::{
    Applied, ApplyError, CommandKind, Fetched, KvMachine, LoadError, StateMachine,
};
use ringraft_types::{Index, Revision, Status, Ticks};
use std::cell::RefCell;
use std::rc::Rc;

/// How often a machine says that it still fetches.
const ASKS: u32 = 5;

/// A place that every node reaches.
#[derive(Default)]
struct Store {
    /// What was put there, each in pieces.
    states: Vec<Vec<Vec<u8>>>,
    is_away: bool,
    /// How often a machine was asked whether it is whole.
    asks: u32,
}

/// A key-value machine whose snapshots hold one number: that of a state in the store.
struct FarMachine {
    inner: KvMachine,
    store: Rc<RefCell<Store>>,
    saved: u64,
    loaded: Option<u64>,
    asks: u32,
    is_whole: bool,
}

impl FarMachine {
    fn new(store: Rc<RefCell<Store>>) -> Self {
        let inner = KvMachine::new();
        Self { inner, store, saved: 0, loaded: None, asks: 0, is_whole: true }
    }
}

impl StateMachine for FarMachine {
    fn check(&self, command: &[u8]) -> Result<CommandKind, Status> {
        self.inner.check(command)
    }

    fn apply(
        &mut self,
        index: Index,
        command: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Applied, ApplyError> {
        assert!(self.is_whole, "nothing is applied to a part");
        self.inner.apply(index, command, reply)
    }

    fn query(&self, command: &[u8], reply: &mut Vec<u8>) -> Applied {
        assert!(self.is_whole, "a part answers nothing");
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
        let mut pieces = Vec::new();
        let mut is_last = false;
        while !is_last {
            let mut piece = Vec::new();
            is_last = self.inner.snapshot(64 << 10, &mut piece);
            pieces.push(piece);
        }
        self.inner.end_snapshot();
        let mut store = self.store.borrow_mut();
        self.saved = store.states.len() as u64;
        store.states.push(pieces);
    }

    fn snapshot(&mut self, _bytes: usize, piece: &mut Vec<u8>) -> bool {
        piece.extend_from_slice(&self.saved.to_le_bytes());
        true
    }

    fn end_snapshot(&mut self) {}

    fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        let number = piece.try_into().map_err(|_| LoadError { at: 0, what: "no number" })?;
        self.loaded = Some(u64::from_le_bytes(number));
        Ok(())
    }

    fn end_load(&mut self) -> Result<(), LoadError> {
        self.is_whole = false;
        self.loaded.map(drop).ok_or(LoadError { at: 0, what: "no number" })
    }

    fn fetch(&mut self) -> Result<Fetched, LoadError> {
        let mut store = self.store.borrow_mut();
        store.asks += 1;
        self.asks += 1;
        if self.asks < ASKS {
            return Ok(Fetched::Working);
        }
        if store.is_away {
            return Err(LoadError { at: 0, what: "the store doesn't answer" });
        }
        let number = self.loaded.expect("it was loaded");
        for piece in &store.states[number as usize] {
            self.inner.load(piece)?;
        }
        self.is_whole = true;
        self.inner.end_load().map(|()| Fetched::Whole)
    }
}

fn world(seed: u64) -> (World, Rc<RefCell<Store>>) {
    let store = Rc::new(RefCell::new(Store::default()));
    let of_machines = store.clone();
    let make = move || Box::new(FarMachine::new(of_machines.clone())) as Box<dyn StateMachine>;
    (World::with_machines(seed, 3, 1, BY_HAND, Rc::new(make)), store)
}

/// Goal: a follower that lags is told where the state is, and its machine fetches it; nothing is
/// applied or asked before it is whole; the node starts from it again (SN-09).
#[test]
fn a_machine_fetches_what_its_snapshot_names() {
    let (mut world, store) = world(61);
    let leader = world.elect();
    let lagging = away(&mut world, leader, 10_000);
    let ShardEvent::SnapshotInstalled { bytes, .. } = await_installed(&mut world, lagging) else {
        unreachable!("that is what is awaited")
    };
    assert!(bytes < 50 * 10_000 / 2, "the state didn't travel between nodes: {bytes} bytes");
    assert_eq!(store.borrow().asks, ASKS);
    fill(&mut world, leader, 71..=80, 100);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
    assert!(world.shard(lagging).metrics().entries_applied < 40);
    assert_starts_from_it(&mut world, lagging);
    assert_eq!(store.borrow().asks, 2 * ASKS, "at its start it fetches again");
}

/// Goal: a machine that can't fetch is said so, what it serves stays as it was, and it is tried
/// again until it can.
#[test]
fn what_can_not_be_fetched_is_tried_again() {
    let (mut world, store) = world(62);
    let leader = world.elect();
    store.borrow_mut().is_away = true;
    let lagging = away(&mut world, leader, 10_000);
    let is_failure = |event: &ShardEvent| {
        let said = "the snapshot can't be loaded, at byte 0 of the piece: the store doesn't answer";
        matches!(event, ShardEvent::InstallFailed { error, .. } if error.to_string() == said)
    };
    for _ in 0..2 {
        let mut steps = 0;
        while !world.events(lagging).iter().any(is_failure) {
            world.run_for(Ticks::from_millis(1));
            steps += 1;
            assert!(steps < 30_000, "it is said");
        }
    }
    assert_eq!(world.shard(lagging).metrics().snapshots_installed, 0);
    store.borrow_mut().is_away = false;
    await_installed(&mut world, lagging);
    world.run_for(Ticks::from_millis(500));
    world.assert_converged();
}
