//! What goes wrong in a run, when, and to whom; and what keeps it survivable.

mod directory;
mod disk;
mod groups;
mod kind;
mod leaders;
mod leading;
mod members;
mod network;

use std::collections::BTreeMap;

use ringraft_types::{GroupId, Ticks};

use crate::base::Event;
use crate::trace::{self, What};
use crate::world::World;
pub(crate) use kind::Family;
pub use kind::FaultKind;

/// What a lasting fault changed, to be mended.
#[derive(Debug)]
pub(crate) enum Lasting {
    /// These ways are blocked.
    Blocked(Vec<(usize, usize)>),
    /// These ways will be blocked for so many milliseconds.
    Soon(Vec<(usize, usize)>, u64),
    /// These ways are blocked around a leader of this group; so many leaders more will be cut off.
    CutOff(Vec<(usize, usize)>, GroupId, u64),
    /// The next leader of this group will be cut off.
    Next(GroupId, u64),
    /// These ways are slow.
    Slow(Vec<(usize, usize)>),
    /// This lane's groups don't stand for election.
    NotStanding(usize, usize),
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

    pub(crate) fn say(&mut self, text: String) {
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
                // Without leases no promise rests on a clock's rate: a leader that hardly notices
                // how time passes may not serve an old state either.
                let (low, high) = self.options.clock_rate;
                let has_leases = self.options.raft.lease > Ticks::ZERO;
                let rate = match self.base.random.below(4) {
                    0..2 if has_leases => self.base.random.pick(&[low, high]),
                    _ if has_leases => self.base.random.between(low, high),
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
            FaultKind::PingPong => self.begin_ping_pong(),
            FaultKind::Members => self.change_members(),
            FaultKind::HandOver => self.hand_over(),
            FaultKind::PauseElections => self.pause_elections(node),
            FaultKind::Groups => self.change_groups(),
            // The network does these all the time.
            FaultKind::Loss | FaultKind::Replay | FaultKind::LateAnswers => false,
            _ => self.inflict_on_network(kind, node),
        }
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
            Some(Lasting::Blocked(ways)) => self.open(ways),
            // What would begin once the calm has come doesn't.
            Some(Lasting::Soon(..) | Lasting::Next(..)) if self.is_calm => {}
            Some(Lasting::CutOff(ways, group, left)) => self.open_again(ways, group, left),
            Some(Lasting::Next(group, left)) => self.cut_off(group, left),
            Some(Lasting::Soon(ways, millis)) => {
                self.block(&ways);
                self.last(Lasting::Blocked(ways), millis, millis);
            }
            Some(Lasting::Slow(ways)) => {
                for (from, to) in ways {
                    self.network.slow(from, to, Ticks::ZERO);
                }
            }
            Some(Lasting::Paused(node, life)) => self.resume(node, life),
            Some(Lasting::NotStanding(node, lane)) => {
                self.stand_again(node, lane);
            }
            Some(Lasting::SlowShard(node, lane)) => self.nodes[node].slowness[lane] = 1,
            Some(Lasting::SlowDisk(node, lane)) => self.nodes[node].moods[lane].slowness = 1,
            Some(Lasting::HungDisk(node, lane)) => self.release(node, lane),
            Some(Lasting::DiskFull(node, lane)) => {
                self.say(format!("disk {}/{lane} has space again", node + 1));
                self.nodes[node].disk_mut(lane).memory_mut().set_capacity(u64::MAX);
            }
        }
    }

    fn block(&mut self, ways: &[(usize, usize)]) {
        self.say(format!("blocked: {ways:?}"));
        for &(from, to) in ways {
            self.network.block(&mut self.base, from, to, true);
        }
    }

    fn open(&mut self, ways: Vec<(usize, usize)>) {
        self.say(format!("open again: {ways:?}"));
        for (from, to) in ways {
            self.network.block(&mut self.base, from, to, false);
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
