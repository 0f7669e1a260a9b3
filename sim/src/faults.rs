//! What goes wrong in a run, when, and to whom; and what keeps it survivable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ringraft_net::status::GroupRole;
use ringraft_types::{GroupId, Ticks};

use crate::audit;
use crate::base::Event;
use crate::client::Insists;
use crate::damage;
use crate::node::Node;
use crate::trace::{self, What};
use crate::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A process is killed, its machine goes on.
    Kill,
    /// A machine loses its power.
    PowerCut,
    /// All machines lose their power at once.
    PowerCutAll,
    /// A process stands still for a while; its clock goes on.
    Pause,
    /// One shard of a node is slow.
    SlowShard,
    /// A clock goes at another rate.
    ClockRate,
    /// A clock jumps ahead.
    ClockJump,
    /// A client's process dies.
    ClientDeath,
    /// Two parts of the hosts don't hear of each other.
    Partition,
    /// One way between some hosts is blocked.
    OneWay,
    /// One node hears of nobody, or nobody of it.
    Isolate,
    /// A part of a block can't be read any more.
    BadSector,
    /// A data directory is emptied and formatted anew.
    Wipe,
    /// A data directory is put back from a copy that was taken some lives ago.
    RollBack,
    /// The log of one shard is gone, the rest of the directory is there.
    LostLog,
    /// A leader whose clock hardly moves is cut off with a client beside it, which reads; the others
    /// write meanwhile. What it says may arrive nowhere, and what it hears be old.
    LonelyLeader,
    /// Links are blocked one by one, and released in any order.
    Clog,
    /// Some links are slow.
    SlowLink,
    /// A connection is torn.
    Tear,
    /// A connection is torn at one end.
    HalfOpen,
    /// A piece of a stream is lost and sent again; how often is drawn.
    Loss,
    /// An old frame of a peer comes again; how often is drawn.
    Replay,
    /// A disk is slow.
    SlowDisk,
    /// A disk completes nothing for a while.
    HungDisk,
    /// A write fails.
    WriteError,
    /// A sync fails once, and says that all is well the next time.
    SyncError,
    /// A read fails.
    ReadError,
    /// Reads and writes stop short.
    ShortIo,
    /// Reads and writes are to be tried again, says the system.
    Transient,
    /// A disk is full for a while.
    DiskFull,
    /// A read sees what was there before.
    StaleRead,
    /// Bits flip in what was durable.
    BitRot,
    /// A write that was said to be durable never was.
    LostWrite,
    /// A write that was said to be durable went over another one.
    MisdirectedWrite,
}

impl FaultKind {
    /// All kinds, in the order in which they are drawn.
    pub const ALL: &[FaultKind] = &[
        FaultKind::Kill,
        FaultKind::PowerCut,
        FaultKind::PowerCutAll,
        FaultKind::Pause,
        FaultKind::SlowShard,
        FaultKind::ClockRate,
        FaultKind::ClockJump,
        FaultKind::ClientDeath,
        FaultKind::Partition,
        FaultKind::OneWay,
        FaultKind::Isolate,
        FaultKind::Clog,
        FaultKind::SlowLink,
        FaultKind::Tear,
        FaultKind::HalfOpen,
        FaultKind::Loss,
        FaultKind::Replay,
        FaultKind::SlowDisk,
        FaultKind::HungDisk,
        FaultKind::WriteError,
        FaultKind::SyncError,
        FaultKind::ReadError,
        FaultKind::ShortIo,
        FaultKind::Transient,
        FaultKind::DiskFull,
        FaultKind::StaleRead,
        FaultKind::BitRot,
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::LonelyLeader,
        FaultKind::Wipe,
        FaultKind::RollBack,
        FaultKind::LostLog,
        FaultKind::BadSector,
    ];

    /// Whether it destroys what a node promised to keep. Such faults strike a minority only, the
    /// same nodes for a whole run: more would destroy what the cluster promised.
    pub const fn dooms(self) -> bool {
        matches!(
            self,
            Self::BitRot
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::Wipe
                | Self::RollBack
                | Self::LostLog
                | Self::BadSector
        )
    }

    /// Its name in counts and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::Pause => "pause",
            Self::SlowShard => "slow-shard",
            Self::ClockRate => "clock-rate",
            Self::ClockJump => "clock-jump",
            Self::ClientDeath => "client-death",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Isolate => "isolate",
            Self::LonelyLeader => "lonely-leader",
            Self::Wipe => "wipe",
            Self::RollBack => "roll-back",
            Self::LostLog => "lost-log",
            Self::BadSector => "bad-sector",
            Self::Clog => "clog",
            Self::SlowLink => "slow-link",
            Self::Tear => "tear",
            Self::HalfOpen => "half-open",
            Self::Loss => "loss",
            Self::Replay => "replay",
            Self::SlowDisk => "slow-disk",
            Self::HungDisk => "hung-disk",
            Self::WriteError => "write-error",
            Self::SyncError => "sync-error",
            Self::ReadError => "read-error",
            Self::ShortIo => "short-io",
            Self::Transient => "transient",
            Self::DiskFull => "disk-full",
            Self::StaleRead => "stale-read",
            Self::BitRot => "bit-rot",
            Self::LostWrite => "lost-write",
            Self::MisdirectedWrite => "misdirected-write",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a lasting fault changed, to be mended.
#[derive(Debug)]
pub(crate) enum Lasting {
    /// These ways are blocked.
    Blocked(Vec<(usize, usize)>),
    /// These ways will be blocked for so many milliseconds.
    Soon(Vec<(usize, usize)>, u64),
    /// These ways are slow.
    Slow(Vec<(usize, usize)>),
    /// This node stands still, in this life.
    Paused(usize, u64),
    /// This shard is slow.
    SlowShard(usize, usize),
    /// This shard's disk is slow.
    SlowDisk(usize, usize),
    /// This shard's disk completes nothing.
    HungDisk(usize, usize),
    /// This shard's disk is full.
    DiskFull(usize, usize),
}

/// What becomes of the next operations of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Armed {
    /// What.
    pub(crate) kind: FaultKind,
    /// How often.
    pub(crate) count: u64,
}

/// The lasting faults there are.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    lasting: BTreeMap<u64, Lasting>,
    next: u64,
}

impl World {
    /// Plans the first fault of each kind.
    pub(crate) fn plan_faults(&mut self) {
        let kinds: Vec<_> = self.options.faults.keys().copied().collect();
        for kind in kinds {
            self.plan_fault(kind);
        }
    }

    fn plan_fault(&mut self, kind: FaultKind) {
        let mean = self.options.faults[&kind];
        let later = self.base.span(Ticks(1), Ticks(2 * mean.0));
        let kind = FaultKind::ALL.iter().position(|&other| other == kind).expect("a kind");
        self.base.after(later, Event::Fault { kind });
    }

    /// A fault strikes, and the next of its kind is planned.
    pub(crate) fn strike(&mut self, kind: usize) {
        if self.is_calm {
            return;
        }
        let kind = FaultKind::ALL[kind];
        if self.inflict(kind) {
            self.base.count(kind.name());
        }
        self.plan_fault(kind);
    }

    fn say(&mut self, text: String) {
        trace::note(self.base.now, What::Text(text));
    }

    fn last(&mut self, lasting: Lasting, low: u64, high: u64) {
        self.faults.next += 1;
        let fault = self.faults.next;
        self.faults.lasting.insert(fault, lasting);
        let span = self.base.span(Ticks::from_millis(low), Ticks::from_millis(high));
        self.base.after(span, Event::Mend { fault });
    }

    fn set_rate(&mut self, node: usize, rate: u64) {
        let now = self.base.now;
        self.nodes[node].clock.set_rate(now, rate);
        self.say(format!("node {}: the clock's rate is {rate}", node + 1));
        self.nodes[node].wake_all(&mut self.base);
    }

    /// Which node leads which group.
    fn leaders(&self) -> Vec<(usize, GroupId)> {
        let groups_of = |node: &Node| {
            let now = node.clock.read(self.base.now);
            let groups = node.lanes().flat_map(move |lane| lane.shard.status(now).groups);
            let led = groups.filter(|group| group.role == GroupRole::Leader);
            led.map(|group| group.group).collect::<Vec<_>>()
        };
        let nodes = self.nodes.iter().enumerate();
        nodes.flat_map(|(at, node)| groups_of(node).into_iter().map(move |it| (at, it))).collect()
    }

    fn leave_alone(&mut self) -> bool {
        let leaders = self.leaders();
        let (nodes, clients) = (self.nodes.len(), self.clients.len());
        if leaders.is_empty() || nodes < 3 || clients < 2 {
            return false;
        }
        let (leader, group) = self.base.random.pick(&leaders);
        let beside = self.base.random.below(clients as u64) as usize;
        let hears = self.base.random.coin();
        let rate = self.base.random.pick(&[50_000, 200_000, 500_000, 1_000_000]);
        self.set_rate(leader, rate);
        let (mut blocked, mut slow) = (Vec::new(), Vec::new());
        for other in (0..nodes + clients).filter(|&at| at != leader && at != nodes + beside) {
            blocked.push((leader, other));
            if hears {
                let by = self.base.random.pick(&[50, 300, 1_000]);
                self.network.slow(other, leader, Ticks::from_millis(by));
                slow.push((other, leader));
            } else {
                blocked.push((other, leader));
            }
        }
        let text =
            format!("node {} leads group {group} alone, client {beside} beside it", leader + 1);
        self.say(text);
        let span = Ticks::from_millis(self.base.random.between(500, 4_000));
        let until = self.base.now.after(span);
        for (at, client) in self.clients.iter_mut().enumerate() {
            client.insist(&mut self.base, Insists { group, reads: at == beside, until });
        }
        // Answers to what it said last are on their way for long when nobody hears it any more.
        let soon = if hears { self.base.random.pick(&[20, 100, 300]) } else { 1 };
        let millis = span.0 / 1_000;
        self.last(Lasting::Soon(blocked, millis), soon, soon);
        self.last(Lasting::Slow(slow), soon + millis, soon + millis);
        true
    }

    fn any_node(&mut self) -> usize {
        self.base.random.below(self.nodes.len() as u64) as usize
    }

    /// Does it, if it can be done. Returns whether it was.
    fn inflict(&mut self, kind: FaultKind) -> bool {
        let node = self.any_node();
        match kind {
            FaultKind::Kill => self.end_and_start(node, None, "killed"),
            FaultKind::PowerCut => {
                let keep = self.keep();
                self.end_and_start(node, Some(keep), "power cut")
            }
            FaultKind::PowerCutAll => {
                let keep = self.keep();
                for node in 0..self.nodes.len() {
                    self.end_and_start(node, Some(keep), "power cut of all");
                }
                true
            }
            FaultKind::Pause => {
                let is_possible = self.nodes[node].is_up && !self.nodes[node].is_paused;
                if is_possible {
                    self.nodes[node].is_paused = true;
                    self.say(format!("node {} stands still", node + 1));
                    let life = self.nodes[node].life;
                    self.last(Lasting::Paused(node, life), 10, 4_000);
                }
                is_possible
            }
            FaultKind::SlowShard => {
                let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
                self.nodes[node].slowness[lane] = self.base.random.pick(&[20, 200, 2_000]);
                self.say(format!("node {}/{lane} is slow", node + 1));
                self.last(Lasting::SlowShard(node, lane), 100, 3_000);
                true
            }
            FaultKind::ClockRate => {
                // No promise rests on a clock's rate: a leader that hardly notices how time passes
                // may not serve an old state either.
                let rate = match self.base.random.below(4) {
                    0 => self.base.random.pick(&[100_000, 300_000, 3_000_000]),
                    _ => self.base.random.between(700_000, 1_300_000),
                };
                self.set_rate(node, rate);
                true
            }
            FaultKind::ClockJump => {
                let by = Ticks::from_millis(self.base.random.pick(&[5, 100, 1_000, 60_000]));
                let now = self.base.now;
                self.nodes[node].clock.jump(now, by);
                self.say(format!("node {}: the clock jumps ahead by {by} us", node + 1));
                self.nodes[node].wake_all(&mut self.base);
                true
            }
            FaultKind::ClientDeath => {
                let client = self.base.random.below(self.clients.len() as u64) as usize;
                self.say(format!("client {client} dies"));
                self.clients[client].die(&mut self.base, &mut self.network);
                true
            }
            FaultKind::SlowDisk
            | FaultKind::HungDisk
            | FaultKind::WriteError
            | FaultKind::SyncError
            | FaultKind::ReadError
            | FaultKind::ShortIo
            | FaultKind::Transient
            | FaultKind::DiskFull
            | FaultKind::StaleRead => self.inflict_on_disk(kind, node),
            FaultKind::BitRot
            | FaultKind::LostWrite
            | FaultKind::MisdirectedWrite
            | FaultKind::BadSector => self.damage(kind),
            FaultKind::Wipe => self.lose_directory(false),
            FaultKind::RollBack => self.lose_directory(true),
            FaultKind::LostLog => self.lose_log(),
            FaultKind::LonelyLeader => self.leave_alone(),
            // The network does these all the time.
            FaultKind::Loss | FaultKind::Replay => false,
            _ => self.inflict_on_network(kind, node),
        }
    }

    fn damage(&mut self, kind: FaultKind) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        let disk = self.nodes[node].disk_mut(lane);
        let Some(done) = damage::inflict(disk, kind, &mut self.base.random) else { return false };
        self.damaged.insert(node);
        self.say(format!("disk {}/{lane}: {kind}: {done}", node + 1));
        true
    }

    /// A doomed node comes back with an empty directory, or with an older copy of it. Peers that
    /// never met it, or didn't since the copy was taken, can't tell (`docs/ASSUMPTIONS.md`): then
    /// it isn't done.
    fn lose_directory(&mut self, is_copy: bool) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        if !self.nodes[node].is_up || self.lost.contains(&node) {
            return false;
        }
        if is_copy && !self.copies.contains_key(&node) {
            let copy = self.nodes[node].copy();
            self.copies.insert(node, copy);
            self.say(format!("node {}: its directory is copied", node + 1));
            // What the copy lacks is the lives that come now.
            self.end_and_start(node, None, "its directory is copied");
            return false;
        }
        let copy = is_copy.then(|| self.copies[&node].clone());
        let newest = copy.as_ref().map_or(0, |copy| copy.starts.newest().number);
        if !self.is_met_since(node, newest) {
            return false;
        }
        self.end_and_start(node, Some(0), "its directory is lost");
        self.nodes[node].put_back(copy);
        self.damaged.insert(node);
        self.lost.insert(node);
        self.say(format!("node {}: {}", node + 1, if is_copy { "put back" } else { "wiped" }));
        true
    }

    /// A doomed node comes back without one of its logs. It knows that it had it, and must not start.
    fn lose_log(&mut self) -> bool {
        if self.options.doomed.is_empty() {
            return false;
        }
        let node = self.base.random.pick(&self.options.doomed);
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        if !self.end_and_start(node, Some(0), "a log is lost") || !self.nodes[node].begun[lane] {
            return false;
        }
        damage::empty(self.nodes[node].disk_mut(lane));
        self.damaged.insert(node);
        self.say(format!("disk {}/{lane}: its files are gone", node + 1));
        true
    }

    /// Whether every other node, but for those that lost their directory too, wrote down that it
    /// met this one in a later start, on each of its shards.
    fn is_met_since(&self, node: usize, start: u64) -> bool {
        let (id, incarnation) = (self.nodes[node].id, self.nodes[node].incarnation);
        let others = (0..self.nodes.len()).filter(|at| *at != node && !self.lost.contains(at));
        let lanes = 0..usize::from(self.options.shards);
        others.flat_map(|other| lanes.clone().map(move |lane| (other, lane))).all(
            |(other, lane)| {
                let other = &self.nodes[other];
                let disk = other.disk(lane).flushed();
                let met =
                    audit::try_open(disk, other.log_settings(lane)).map(|found| found.met(id));
                met.ok()
                    .flatten()
                    .is_some_and(|met| met.incarnation == incarnation && met.start.number > start)
            },
        )
    }

    fn inflict_on_disk(&mut self, kind: FaultKind, node: usize) -> bool {
        let lane = self.base.random.below(u64::from(self.options.shards)) as usize;
        self.say(format!("disk {}/{lane}: {kind}", node + 1));
        match kind {
            FaultKind::SlowDisk => {
                self.nodes[node].moods[lane].slowness = self.base.random.pick(&[10, 100, 1_000]);
                self.nodes[node].moods[lane].was_slow = true;
                self.last(Lasting::SlowDisk(node, lane), 50, 3_000);
            }
            FaultKind::HungDisk => {
                self.nodes[node].moods[lane].is_hung = true;
                self.nodes[node].moods[lane].was_slow = true;
                self.last(Lasting::HungDisk(node, lane), 10, 6_000);
            }
            FaultKind::DiskFull => {
                let room = self.base.random.pick(&[0, 4_096, 100_000, 300_000]);
                let disk = self.nodes[node].disk_mut(lane);
                let capacity = disk.used_bytes() + room;
                disk.memory_mut().set_capacity(capacity);
                self.last(Lasting::DiskFull(node, lane), 100, 5_000);
            }
            _ => {
                let is_often = matches!(kind, FaultKind::ShortIo | FaultKind::Transient);
                let count = if is_often { self.base.random.between(1, 6) } else { 1 };
                // One of a kind at a time: a disk that interrupts everything, again and again, may
                // be given up.
                let armed = &mut self.nodes[node].moods[lane].armed;
                if armed.iter().any(|armed| armed.kind == kind) {
                    return false;
                }
                armed.push(Armed { kind, count });
            }
        }
        true
    }

    /// A hung disk completes what it was told to do.
    fn release(&mut self, node: usize, lane: usize) {
        let mood = &mut self.nodes[node].moods[lane];
        mood.is_hung = false;
        let held = std::mem::take(&mut mood.held);
        self.say(format!("disk {}/{lane} goes on", node + 1));
        for (life, operation) in held {
            let later = self.base.span(Ticks(1), Ticks(5_000));
            self.base.after(later, Event::Disk { node, lane, life, operation });
        }
    }

    fn inflict_on_network(&mut self, kind: FaultKind, node: usize) -> bool {
        let nodes = self.nodes.len();
        let hosts = nodes + self.clients.len();
        let mut ways = BTreeSet::new();
        match kind {
            FaultKind::Partition | FaultKind::OneWay => {
                let is_one_way = kind == FaultKind::OneWay;
                let here: Vec<bool> = (0..hosts).map(|_| self.base.random.coin()).collect();
                for from in 0..hosts {
                    for to in 0..hosts {
                        if here[from] != here[to] && (here[from] || !is_one_way) {
                            ways.insert((from, to));
                        }
                    }
                }
            }
            FaultKind::Isolate => {
                let (hears, is_heard) = self.base.random.pick(&[
                    (false, false),
                    (false, false),
                    (true, false),
                    (false, true),
                ]);
                for other in (0..hosts).filter(|&other| other != node) {
                    if !hears {
                        ways.insert((other, node));
                    }
                    if !is_heard {
                        ways.insert((node, other));
                    }
                }
            }
            FaultKind::Clog => {
                for _ in 0..self.base.random.between(1, 3) {
                    let from = self.base.random.below(hosts as u64) as usize;
                    let to = self.base.random.below(hosts as u64) as usize;
                    ways.insert((from, to));
                }
            }
            FaultKind::SlowLink => {
                let by = Ticks::from_millis(self.base.random.pick(&[5, 50, 300]));
                for from in 0..hosts {
                    if self.base.random.coin() {
                        self.network.slow(from, node, by);
                        ways.insert((from, node));
                    }
                }
                self.say(format!("ways to node {} are slower by {by} us", node + 1));
                self.last(Lasting::Slow(ways.into_iter().collect()), 100, 4_000);
                return true;
            }
            _ => {
                let half_open = kind == FaultKind::HalfOpen;
                self.say(String::from("a connection is torn"));
                return self.network.tear(&mut self.base, half_open);
            }
        }
        ways.retain(|(from, to)| from != to);
        if ways.is_empty() {
            return false;
        }
        self.say(format!("blocked: {ways:?}"));
        for &(from, to) in &ways {
            self.network.block(&mut self.base, from, to, true);
        }
        if kind == FaultKind::Clog {
            for way in ways {
                self.last(Lasting::Blocked(vec![way]), 50, 4_000);
            }
        } else {
            let long = self.base.random.pick(&[300, 2_000, 2_000, 12_000]);
            self.last(Lasting::Blocked(ways.into_iter().collect()), 50, long);
        }
        true
    }

    /// How much of what isn't flushed stays in a power cut, per million.
    fn keep(&mut self) -> u32 {
        self.base.random.pick(&[0, 100_000, 500_000, 900_000, 1_000_000])
    }

    /// Ends a process if it runs, and plans its start.
    fn end_and_start(&mut self, node: usize, keep: Option<u32>, why: &'static str) -> bool {
        if !self.nodes[node].is_up {
            return false;
        }
        self.end(node, keep, why);
        let most = self.base.random.pick(&[5, 50, 500, 3_000]);
        let later = self.base.span(Ticks::from_millis(1), Ticks::from_millis(most));
        self.base.after(later, Event::Start { node });
        true
    }

    /// A lasting fault ends.
    pub(crate) fn mend(&mut self, fault: u64) {
        match self.faults.lasting.remove(&fault) {
            None => {}
            Some(Lasting::Blocked(ways)) => {
                self.say(format!("open again: {ways:?}"));
                for (from, to) in ways {
                    self.network.block(&mut self.base, from, to, false);
                }
            }
            // What would begin once the calm has come doesn't.
            Some(Lasting::Soon(..)) if self.is_calm => {}
            Some(Lasting::Soon(ways, millis)) => {
                self.say(format!("blocked: {ways:?}"));
                for &(from, to) in &ways {
                    self.network.block(&mut self.base, from, to, true);
                }
                self.last(Lasting::Blocked(ways), millis, millis);
            }
            Some(Lasting::Slow(ways)) => {
                for (from, to) in ways {
                    self.network.slow(from, to, Ticks::ZERO);
                }
            }
            Some(Lasting::Paused(node, life)) => self.resume(node, life),
            Some(Lasting::SlowShard(node, lane)) => self.nodes[node].slowness[lane] = 1,
            Some(Lasting::SlowDisk(node, lane)) => self.nodes[node].moods[lane].slowness = 1,
            Some(Lasting::HungDisk(node, lane)) => self.release(node, lane),
            Some(Lasting::DiskFull(node, lane)) => {
                self.say(format!("disk {}/{lane} has space again", node + 1));
                self.nodes[node].disk_mut(lane).memory_mut().set_capacity(u64::MAX);
            }
        }
    }

    /// A process that stands still goes on, if it is still there.
    fn resume(&mut self, node: usize, life: u64) {
        if self.nodes[node].is_up && self.nodes[node].life == life {
            self.nodes[node].is_paused = false;
            self.say(format!("node {} goes on", node + 1));
            self.nodes[node].wake_all(&mut self.base);
        }
    }

    /// All lasting faults end.
    pub(crate) fn mend_all(&mut self) {
        let (low, high) = self.options.clock_rate;
        for node in 0..self.nodes.len() {
            self.nodes[node].moods.iter_mut().for_each(|mood| mood.armed.clear());
            let rate = self.base.random.between(low, high);
            self.set_rate(node, rate);
        }
        let weather = self.network.weather_mut();
        (weather.loss, weather.replay) = (0, 0);
        for fault in self.faults.lasting.keys().copied().collect::<Vec<_>>() {
            self.mend(fault);
        }
        self.network.clear(&mut self.base);
    }
}
