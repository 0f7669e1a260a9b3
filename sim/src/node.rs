//! A node: a machine with its disks, and a process that comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use ringraft_net::Identity;
use ringraft_net::status::GroupStatus;
use ringraft_shard::limits::Limits;
use ringraft_shard::machine::StateMachine;
use ringraft_shard::mesh::{Mesh, MeshEnd, MeshLimits};
use ringraft_shard::{LoadStep, Loaded, Loading, Member, Shard, ShardError, ShardSettings};
use ringraft_types::{
    ClusterId, GroupId, Incarnation, Index, Lacked, LogId, NodeId, Sequence, ShardId, Starts, Ticks,
};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::{LogSettings, Recovered, Recovery, RecoveryStep, WalError};

use crate::base::{Base, Event, Owner};
use crate::clock::Clock;
use crate::disk::SimDisk;
use crate::faults::Armed;
use crate::lane::Lane;
use crate::links::{Parcel, SimLinks};
use crate::net::Network;
use crate::options::Options;
use crate::trace::{self, What};

/// The cluster of every world.
pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
/// Of production, `src/boot.rs`.
const MESH: MeshLimits = MeshLimits { requests: 1024, notices: 4096 };

/// Why a process ended by itself.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Its log can't be recovered.
    Recovery(WalError),
    /// Its shard can't go on.
    Shard(ShardError),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(error) => error.fmt(f),
            Self::Shard(error) => error.fmt(f),
        }
    }
}

/// A lane's place.
pub(crate) enum Place {
    /// The process doesn't run; its disk is here.
    Down(Box<SimDisk>),
    /// The log is being recovered.
    Recovering(Box<Recovering>),
    /// It serves.
    Running(Box<Lane>),
    /// For the time of a change only.
    Nothing,
}

impl Place {
    fn down(disk: SimDisk) -> Self {
        Self::Down(Box::new(disk))
    }
}

/// A lane that recovers.
pub(crate) struct Recovering {
    step: Step,
    disk: Box<SimDisk>,
    mesh: MeshEnd<Parcel>,
    /// What happens to it before it looks.
    accepted: Vec<u64>,
    news: BTreeSet<u64>,
}

/// Where a recovery stands.
enum Step {
    /// The log is being read back.
    Log(Box<Recovery>),
    /// Its snapshots are being loaded.
    Snapshots(Box<Loading>),
    /// For the time of a change only.
    Nothing,
}

/// A copy of a node's data directory.
#[derive(Clone)]
pub(crate) struct DirectoryCopy {
    disks: Vec<MemoryDevice>,
    begun: Vec<bool>,
    pub(crate) starts: Starts,
    lacked: Option<Lacked>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    /// What the manifest says of its starts; a copy of its disks has a copy of it.
    pub(crate) starts: Starts,
    /// What the manifest says of a start that it lacks: its directory is an older copy.
    pub(crate) lacked: Option<Lacked>,
    /// What the manifest says of each lane's log: its first block was durable. Marked when a
    /// process ends, which is late enough to be true.
    pub(crate) begun: Vec<bool>,
    /// Lives of its process so far; the present one's number while it runs.
    pub(crate) life: u64,
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    pub(crate) clock: Clock,
    pub(crate) places: Vec<Place>,
    /// When each lane turns next.
    wakes: Vec<Ticks>,
    /// Each lane is busy until then.
    busy: Vec<Ticks>,
    /// Each lane's rounds take so many times as long.
    pub(crate) slowness: Vec<u64>,
    /// How each lane's disk does.
    pub(crate) moods: Vec<Mood>,
    options: Rc<Options>,
}

/// How a disk does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mood {
    /// Everything takes so many times as long.
    pub(crate) slowness: u64,
    /// It was slow or hung once: a node may give it up.
    pub(crate) was_slow: bool,
    /// Nothing completes.
    pub(crate) is_hung: bool,
    /// What would have: the process's life, and the operation.
    pub(crate) held: Vec<(u64, u64)>,
    /// What becomes of the next operations.
    pub(crate) armed: Vec<Armed>,
    /// No read fails or misleads before this: two such in a row are rot.
    pub(crate) reads_are_good_until: Ticks,
}

/// What a lane found of its log and its snapshots.
pub(crate) struct Found {
    pub(crate) recovered: Recovered,
    /// The snapshots that groups start from: the newest entry, and the machine's hash.
    pub(crate) snapshots: BTreeMap<GroupId, (LogId, u64)>,
}

/// What a lane's turn led to.
pub(crate) enum Turned {
    /// Nothing special.
    Fine,
    /// Its log was read back, and it serves from now on.
    Serves(Box<Found>),
    /// The process must end.
    Stops(Stop),
}

impl Node {
    /// A node whose process has never run.
    pub(crate) fn new(id: NodeId, options: Rc<Options>) -> Self {
        let shards = usize::from(options.shards);
        let incarnation = Incarnation(1_000 + u64::from(id.0));
        Self {
            id,
            incarnation,
            starts: Starts::default(),
            lacked: None,
            begun: vec![false; shards],
            life: 0,
            is_up: false,
            is_paused: false,
            clock: Clock::new(Ticks::ZERO, Ticks::ZERO, 1_000_000),
            places: (0..shards).map(|_| Place::down(SimDisk::new(options.align))).collect(),
            wakes: vec![Ticks::NEVER; shards],
            busy: vec![Ticks::ZERO; shards],
            slowness: vec![1; shards],
            moods: vec![Mood { slowness: 1, ..Mood::default() }; shards],
            options,
        }
    }

    /// Its place among the hosts.
    pub(crate) fn host(&self) -> usize {
        self.id.0 as usize - 1
    }

    /// Who it is, in every frame.
    pub(crate) fn identity(&self) -> Identity {
        Identity { cluster: CLUSTER, incarnation: self.incarnation, node: self.id }
    }

    /// The settings of a lane's log.
    pub(crate) fn log_settings(&self, lane: usize) -> LogSettings {
        let log_id = lane as u64 + 1;
        let defaults = LogSettings::new(CLUSTER, self.id, self.incarnation, log_id);
        LogSettings { is_begun: self.begun[lane], ..self.options.log.over(defaults) }
    }

    /// The disk of a lane, wherever it is.
    pub(crate) fn disk(&self, lane: usize) -> &SimDisk {
        match &self.places[lane] {
            Place::Down(disk) => disk,
            Place::Recovering(recovering) => &recovering.disk,
            Place::Running(running) => &running.shard.device,
            Place::Nothing => unreachable!("a lane is somewhere"),
        }
    }

    /// The disk of a lane, to be changed.
    pub(crate) fn disk_mut(&mut self, lane: usize) -> &mut SimDisk {
        match &mut self.places[lane] {
            Place::Down(disk) => disk,
            Place::Recovering(recovering) => &mut recovering.disk,
            Place::Running(running) => &mut running.shard.device,
            Place::Nothing => unreachable!("a lane is somewhere"),
        }
    }

    /// A copy of its data directory: what is flushed.
    pub(crate) fn copy(&self) -> DirectoryCopy {
        let disks = (0..self.places.len()).map(|lane| self.disk(lane).flushed()).collect();
        DirectoryCopy {
            disks,
            begun: self.begun.clone(),
            starts: self.starts.clone(),
            lacked: self.lacked,
        }
    }

    /// Puts a copy in the place of its data directory; without one it is formatted anew.
    pub(crate) fn put_back(&mut self, copy: Option<DirectoryCopy>) {
        assert!(!self.is_up, "its process doesn't run");
        match copy {
            Some(DirectoryCopy { disks, begun, starts, lacked }) => {
                (self.begun, self.starts, self.lacked) = (begun, starts, lacked);
                self.places = disks.into_iter().map(SimDisk::of).map(Place::down).collect();
            }
            None => {
                self.incarnation = Incarnation(self.incarnation.0 + 1_000);
                self.starts = Starts::default();
                self.lacked = None;
                self.begun.fill(false);
                for place in &mut self.places {
                    *place = Place::down(SimDisk::new(self.options.align));
                }
            }
        }
    }

    /// Whether its disks failed in this life.
    pub(crate) fn has_disk_errors(&self) -> bool {
        (0..self.places.len()).any(|lane| self.disk(lane).errors() > 0)
    }

    /// Whether a lane's log is being read back.
    pub(crate) fn is_recovering(&self, lane: usize) -> bool {
        matches!(self.places[lane], Place::Recovering(_))
    }

    /// The groups of the shards that serve, as they are now.
    pub(crate) fn groups(&self, base: &Base) -> impl Iterator<Item = GroupStatus> + '_ {
        let now = self.clock.read(base.now);
        self.lanes().flat_map(move |lane| lane.shard.status(now).groups)
    }

    /// A shard, if it serves.
    pub(crate) fn lane(&self, lane: usize) -> Option<&Lane> {
        match &self.places[lane] {
            Place::Running(lane) => Some(lane),
            _ => None,
        }
    }

    /// The shards that serve.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.places.iter().filter_map(|place| match place {
            Place::Running(lane) => Some(&**lane),
            _ => None,
        })
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, base: &mut Base, network: &mut Network) {
        assert!(!self.is_up, "a node has one process");
        self.life += 1;
        // A life is never twice the same, so its number does for the random one.
        self.starts.begin(self.life);
        self.is_up = true;
        self.is_paused = false;
        let origin = base.span(Ticks(1_000_000), Ticks(1_000_000_000));
        let (low, high) = self.options.clock_rate;
        let rate = base.random.between(low, high);
        self.clock = Clock::new(base.now, origin, rate);
        network.host_up(base, self.host(), self.life);
        trace::note(base.now, What::Started(self.id));
        base.count("starts");
        let ends = Mesh::<Parcel>::new(self.places.len(), MESH).into_ends();
        for (lane, mesh) in ends.into_iter().enumerate() {
            let recovery = Recovery::new(self.log_settings(lane));
            let place = std::mem::replace(&mut self.places[lane], Place::Nothing);
            let Place::Down(disk) = place else { unreachable!("it doesn't run") };
            let (accepted, news) = (Vec::new(), BTreeSet::new());
            let step = Step::Log(Box::new(recovery));
            let recovering = Recovering { step, disk, mesh, accepted, news };
            self.places[lane] = Place::Recovering(Box::new(recovering));
            self.busy[lane] = base.now;
            self.wakes[lane] = Ticks::NEVER;
            let soon = base.span(Ticks(10), Ticks(2_000));
            self.wake(base, lane, base.now.after(soon));
        }
    }

    /// Ends the process, and its machine's power with it if `keep` is given: then of what isn't
    /// flushed each part stays in so many of a million cases.
    pub(crate) fn end(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        keep_per_million: Option<u32>,
        why: &'static str,
    ) {
        assert!(self.is_up, "it runs");
        self.is_up = false;
        trace::note(base.now, What::Ended(self.id, why));
        network.host_down(base, self.host(), keep_per_million.is_none());
        for lane in 0..self.places.len() {
            let mut disk = match std::mem::replace(&mut self.places[lane], Place::Nothing) {
                Place::Down(disk) => disk,
                Place::Recovering(recovering) => recovering.disk,
                Place::Running(running) => {
                    // Whatever else is flushed: only then was anything promised.
                    self.begun[lane] |= running.shard.log().durable() > Sequence::ZERO;
                    Box::new(running.shard.into_doors().0)
                }
                Place::Nothing => unreachable!("a lane is somewhere"),
            };
            match keep_per_million {
                Some(keep) => disk.power_cut(&mut base.random, keep),
                None => disk.kill(&mut base.random),
            }
            self.places[lane] = Place::Down(disk);
            self.wakes[lane] = Ticks::NEVER;
        }
    }

    /// A lane turns at this time at the latest.
    pub(crate) fn wake(&mut self, base: &mut Base, lane: usize, at: Ticks) {
        let at = at.max(self.busy[lane]).max(base.now);
        if at < self.wakes[lane] {
            self.wakes[lane] = at;
            base.at(at, Event::Lane { node: self.host(), lane, life: self.life });
        }
    }

    /// All lanes look around soon.
    pub(crate) fn wake_all(&mut self, base: &mut Base) {
        for lane in 0..self.places.len() {
            let soon = base.span(Ticks(1), Ticks(50));
            self.wake(base, lane, base.now.after(soon));
        }
    }

    /// The system has news of a connection for a lane.
    pub(crate) fn news(&mut self, base: &mut Base, lane: usize, connection: u64) {
        match &mut self.places[lane] {
            Place::Recovering(recovering) => {
                recovering.news.insert(connection);
            }
            Place::Running(running) => {
                running.news.insert(connection);
                let soon = base.span(Ticks(1), Ticks(20));
                self.wake(base, lane, base.now.after(soon));
            }
            Place::Down(_) | Place::Nothing => {}
        }
    }

    /// Somebody connected.
    pub(crate) fn accept(&mut self, base: &mut Base, connection: u64) {
        match &mut self.places[0] {
            Place::Recovering(recovering) => recovering.accepted.push(connection),
            Place::Running(running) => {
                running.accepted.push(connection);
                let soon = base.span(Ticks(1), Ticks(20));
                self.wake(base, 0, base.now.after(soon));
            }
            Place::Down(_) | Place::Nothing => {}
        }
    }

    /// Whether a lane is to turn now, if an event says so.
    pub(crate) fn is_due(&mut self, base: &Base, lane: usize) -> bool {
        if self.is_paused || self.wakes[lane] != base.now {
            // A paused process looks around when it goes on.
            self.wakes[lane] = if self.is_paused { Ticks::NEVER } else { self.wakes[lane] };
            return false;
        }
        self.wakes[lane] = Ticks::NEVER;
        true
    }

    /// A lane turns. `machine` makes the machine of a group.
    pub(crate) fn turn(
        &mut self,
        base: &mut Base,
        network: &mut Network,
        lane: usize,
        mut machine: impl FnMut(GroupId) -> Box<dyn StateMachine> + 'static,
    ) -> Turned {
        let (low, high) = self.options.turn_cost;
        let cost = Ticks(base.random.between(low.0, high.0) * self.slowness[lane]);
        self.busy[lane] = base.now.after(cost);
        let now = self.clock.read(base.now);
        match &mut self.places[lane] {
            Place::Recovering(recovering) => {
                let disk = &mut *recovering.disk;
                let mut pause = None;
                match std::mem::replace(&mut recovering.step, Step::Nothing) {
                    Step::Log(mut recovery) => match recovery.turn(now, disk) {
                        RecoveryStep::Failed(error) => return Turned::Stops(Stop::Recovery(error)),
                        RecoveryStep::Done(done) => {
                            let (log, recovered) = *done;
                            let groups = self.options.all_groups();
                            let loading = Loading::new(log, recovered, &groups);
                            recovering.step = Step::Snapshots(loading);
                        }
                        RecoveryStep::Working => recovering.step = Step::Log(recovery),
                    },
                    Step::Snapshots(loading) => match loading.turn(now, disk, &mut machine) {
                        Err(fatal) => return Turned::Stops(Stop::Shard(fatal.into())),
                        Ok(LoadStep::Done(loaded)) => {
                            return self.serve(base, lane, now, *loaded, machine);
                        }
                        Ok(LoadStep::Working(loading)) => {
                            pause = loading.pause();
                            recovering.step = Step::Snapshots(loading);
                        }
                    },
                    Step::Nothing => unreachable!("a recovery stands somewhere"),
                }
                if recovering.disk.is_idle() {
                    self.wake(base, lane, base.now.after(pause.unwrap_or(Ticks(1))));
                }
                Turned::Fine
            }
            Place::Running(running) => match running.run(base, network, now) {
                Err(error) => Turned::Stops(Stop::Shard(error)),
                Ok(next) => {
                    let rung = running.take_rung();
                    for other in rung {
                        let soon = base.span(Ticks(1), Ticks(20));
                        self.wake(base, other, base.now.after(soon));
                    }
                    let at = self.clock.when(next);
                    self.wake(base, lane, at);
                    Turned::Fine
                }
            },
            Place::Down(_) | Place::Nothing => Turned::Fine,
        }
    }

    /// The log is recovered, and its snapshots are loaded: the shard begins.
    fn serve(
        &mut self,
        base: &mut Base,
        lane: usize,
        now: Ticks,
        loaded: Loaded,
        machine: impl FnMut(GroupId) -> Box<dyn StateMachine> + 'static,
    ) -> Turned {
        let options = self.options.clone();
        let place = std::mem::replace(&mut self.places[lane], Place::Nothing);
        let Place::Recovering(recovering) = place else { unreachable!("it recovers") };
        let Recovering { disk, mesh, accepted, news, .. } = *recovering;
        let settings = self.shard_settings(lane, base.random.any());
        let shard = ShardId(lane as u16);
        let identity = self.identity();
        let start = self.starts.newest();
        let links = SimLinks::new(identity, start, shard, options.shards, mesh, options.outbox);
        let snapshots = loaded.groups().iter();
        let mut found = Found {
            recovered: loaded.recovered().clone(),
            snapshots: snapshots.filter_map(|(&id, it)| Some((id, it.start()?))).collect(),
        };
        let made = Shard::new(settings, *disk, links, loaded, now, machine);
        let shard = match made {
            Ok(shard) => shard,
            // The disk went with it; only a foreign log can make this happen.
            Err(error) => panic!("node {} can't make its shard {lane}: {error}", self.id),
        };
        let applied = shard.status(now).groups.into_iter().filter(|it| it.applied > Index::ZERO);
        let applied: BTreeSet<GroupId> = applied.map(|it| it.group).collect();
        found.snapshots.retain(|group, _| applied.contains(group));
        let owner = Owner { host: self.host(), life: self.life, lane };
        let mut running = Lane::new(owner, shard, now);
        running.accepted = accepted;
        running.news = news;
        self.places[lane] = Place::Running(Box::new(running));
        self.wake(base, lane, base.now.after(Ticks(1)));
        Turned::Serves(Box::new(found))
    }

    fn shard_settings(&self, lane: usize, seed: u64) -> ShardSettings {
        let options = &self.options;
        let voters = (1..=options.voters).map(NodeId);
        let is_larger = self.id.0 % 2 == 1 && options.clients % 2 == 1;
        ShardSettings {
            identity: self.identity(),
            starts: self.starts.clone(),
            shard: ShardId(lane as u16),
            shards: options.shards,
            members: (1..=options.nodes).map(NodeId).map(member).collect(),
            voters: if self.id.0 <= options.voters { voters.collect() } else { Vec::new() },
            groups: options.all_groups(),
            raft: options.raft,
            lead: options.lead[self.id.0 as usize - 1],
            limits: Limits {
                // Where they differ, who isn't full hears it from who is.
                data_bytes_max: options.limits.data_bytes_max * (1 + u64::from(is_larger)),
                ..options.limits
            },
            snapshots: options.snapshots,
            scrub: options.scrub,
            state_note_entries: NOTE_ENTRIES,
            slow_write: None,
            seed,
            name: format!("node-{}", self.id),
        }
    }
}

/// Entries from one comparison of states to the next: far fewer than in production, so that every run
/// has many.
const NOTE_ENTRIES: u64 = 16;

fn member(node: NodeId) -> Member {
    let peer_address = format!("node-{node}:2");
    Member { node, peer_address, client_address: address(node) }
}

/// Where clients reach a node.
pub(crate) fn address(node: NodeId) -> String {
    format!("node-{node}:1")
}

/// The node behind an address.
pub(crate) fn node_at(address: &str) -> Option<usize> {
    let number = address.strip_prefix("node-")?.strip_suffix(":1")?;
    number.parse::<usize>().ok()?.checked_sub(1)
}
