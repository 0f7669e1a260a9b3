//! How groups start from their snapshots: the newest that can be loaded wins, an older one on
//! damage. Before a shard begins, step by step, through the log only.

use std::collections::{BTreeMap, VecDeque};

use ringraft_types::{GroupId, LogId, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{ChunkError, Log, Recovered, SnapshotHead, WalFatal};

use super::loader::{FETCH_PAUSE, Loader, Progress};
use crate::homes::Homes;
use crate::machine::{LoadError, StateMachine};
use crate::members::Members;
use crate::session::Sessions;

/// Chunks loaded in one turn.
const CHUNKS_PER_TURN: usize = 8;

/// Why a snapshot can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadFailure {
    /// A part of it can't be read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// What can be read is no snapshot, or of a newer version.
    #[error(transparent)]
    Piece(#[from] LoadError),
    /// It isn't needed any more.
    #[error("it was given up")]
    GivenUp,
}

/// What a group starts from.
#[derive(Default)]
pub struct LoadedGroup {
    /// What the newest snapshot that could be loaded holds.
    pub(crate) state: Option<LoadedState>,
    /// That one and those before it, ascending.
    pub(crate) kept: Vec<SnapshotHead>,
    /// Those that could not be loaded, newest first, and why.
    pub(crate) failed: Vec<(SnapshotHead, LoadFailure)>,
}

impl LoadedGroup {
    /// The newest entry in the snapshot that the group starts from, and the machine's hash.
    pub fn start(&self) -> Option<(LogId, u64)> {
        self.state.as_ref().map(|state| (state.last, state.machine.state_hash()))
    }
}

/// A machine and its sessions as a snapshot holds them.
pub(crate) struct LoadedState {
    pub(crate) last: LogId,
    pub(crate) machine: Box<dyn StateMachine>,
    pub(crate) sessions: Sessions,
    pub(crate) members: Members,
}

/// A log that was recovered, and its snapshots loaded.
pub struct Loaded {
    pub(crate) log: Log,
    pub(crate) recovered: Recovered,
    pub(crate) groups: BTreeMap<GroupId, LoadedGroup>,
}

impl Loaded {
    /// What recovery found.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The groups that have snapshots.
    pub fn groups(&self) -> &BTreeMap<GroupId, LoadedGroup> {
        &self.groups
    }
}

/// Where loading stands.
pub enum LoadStep {
    /// Call again, at once or when the device has completed something, after the
    /// [`pause`](Loading::pause) that it asks for.
    Working(Box<Loading>),
    /// Done.
    Done(Box<Loaded>),
}

/// Snapshots that are being loaded.
pub struct Loading {
    log: Log,
    recovered: Recovered,
    groups: BTreeMap<GroupId, LoadedGroup>,
    /// Groups to be loaded, each with its snapshots, the newest last.
    waiting: VecDeque<(GroupId, Vec<SnapshotHead>)>,
    under: Option<Loader>,
    is_fetching: bool,
}

impl Loading {
    /// Loads the snapshots of what recovery found, as far as they are of groups that are here: of
    /// those that the node is configured with, and of those that the log says came or left since.
    pub fn new(log: Log, recovered: Recovered, groups: &[GroupId]) -> Box<Self> {
        let mut waiting: BTreeMap<GroupId, Vec<SnapshotHead>> = BTreeMap::new();
        let groups = Homes::of(&recovered).map(|homes| homes.groups(groups)).unwrap_or_default();
        for head in recovered.snapshots.iter().filter(|head| groups.contains(&head.group)) {
            waiting.entry(head.group).or_default().push(*head);
        }
        for heads in waiting.values_mut() {
            heads.sort_by_key(|head| (head.last.index, head.number));
        }
        let waiting = waiting.into_iter().collect();
        let groups = BTreeMap::new();
        Box::new(Self { log, recovered, groups, waiting, under: None, is_fetching: false })
    }

    /// How long to wait before the next turn, beside for the device: a machine fetches what its
    /// snapshot only names.
    pub fn pause(&self) -> Option<Ticks> {
        self.is_fetching.then_some(FETCH_PAUSE)
    }

    /// One step, of bounded work. With a device that completes at once a loop of turns finishes.
    /// `machine` makes the empty machine of a group.
    ///
    /// # Errors
    /// If the log can't go on.
    pub fn turn<D: Device>(
        mut self: Box<Self>,
        now: Ticks,
        device: &mut D,
        machine: &mut impl FnMut(GroupId) -> Box<dyn StateMachine>,
    ) -> Result<LoadStep, WalFatal> {
        for _ in 0..CHUNKS_PER_TURN {
            if self.under.is_none() {
                let Some((group, heads)) = self.waiting.front() else {
                    let Self { log, recovered, groups, .. } = *self;
                    return Ok(LoadStep::Done(Box::new(Loaded { log, recovered, groups })));
                };
                let head = *heads.last().expect("there is one to load");
                self.under = Some(Loader::new(head, machine(*group)));
            }
            if !self.load_on(device) {
                break;
            }
        }
        self.log.turn(now, device)?;
        Ok(LoadStep::Working(self))
    }

    /// Loads a chunk; returns whether there may be more to do at once.
    fn load_on<D: Device>(&mut self, device: &mut D) -> bool {
        let under = self.under.as_mut().expect("a snapshot is being loaded");
        while let Some(done) = self.log.take_chunk() {
            under.arrived(done);
        }
        let progress = under.step(&mut self.log, usize::MAX);
        self.is_fetching = progress == Progress::Fetches;
        match progress {
            Progress::Waits | Progress::Fetches => return false,
            Progress::Works => return true,
            Progress::Ended => {}
        }
        let (head, result) = self.under.take().expect("just seen").end();
        self.log.close_snapshot(device, head.number);
        self.ended(head, result);
        true
    }

    fn ended(&mut self, head: SnapshotHead, result: Result<LoadedState, LoadFailure>) {
        let group = self.groups.entry(head.group).or_default();
        let (_, heads) = self.waiting.front_mut().expect("it was being loaded");
        match result {
            Ok(state) => {
                group.state = Some(state);
                group.kept = std::mem::take(heads);
            }
            Err(why) => {
                let _ = heads.pop();
                group.failed.push((head, why));
            }
        }
        if heads.is_empty() {
            self.waiting.pop_front();
        }
    }
}
