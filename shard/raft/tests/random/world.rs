//! The network, the clock, the faults, and the checks.

use crate::disk::{Batch, end_of};
use crate::members::{Registry, configured};
use crate::node::{Entry, Node};
use crate::random::Random;
use ringraft_raft::{
    AppendOutcome, Configured, Entries, EntryHead, Envelope, Input, Message, Output, Raft,
    RoleKind, Settings, Token,
};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) enum Event {
    Deliver { from: usize, to: usize, life: u32, message: Message, entries: Vec<Entry> },
    Tick { node: usize, life: u32 },
    DiskDone { node: usize, life: u32, token: Token },
    Fetched { node: usize, life: u32, peer: NodeId, first: Index, entries: Vec<Entry> },
    Taken { node: usize, life: u32, snapshot: Vec<Entry> },
    Stored { node: usize, life: u32, snapshot: Vec<Entry> },
    Loaded { node: usize, life: u32 },
    Complete { node: usize, life: u32 },
    Stamp { node: usize, life: u32 },
    Torn { a: usize, b: usize },
}

/// What a run came across: a test that reaches nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) leaders: u64,
    pub(crate) committed: u64,
    pub(crate) truncations: u64,
    pub(crate) crashes: u64,
    pub(crate) reads: u64,
    pub(crate) reads_lost: u64,
    /// Of the reads, those that a node answered that didn't lead.
    pub(crate) reads_elsewhere: u64,
    pub(crate) fetches: u64,
    pub(crate) rots: u64,
    pub(crate) repairs: u64,
    pub(crate) releases: u64,
    pub(crate) offers: u64,
    pub(crate) installs: u64,
    /// Of the installs, those that found the log too short, in conflict, and kept a tail of it.
    pub(crate) emptied: u64,
    pub(crate) cut: u64,
    pub(crate) kept: u64,
    /// Snapshots that came too late to be of use.
    pub(crate) late: u64,
    /// Starts at which a stored snapshot wasn't reported yet, and the log was in conflict.
    pub(crate) cut_at_start: u64,
    /// Configurations appended, those of them that end a joint one by themselves, those whose
    /// entry was removed again, and changes refused.
    pub(crate) configured: u64,
    pub(crate) completed: u64,
    pub(crate) forgotten: u64,
    pub(crate) changes_refused: u64,
    /// Leaders elected under a joint configuration, and under one that leaves them out.
    pub(crate) joint_leaders: u64,
    pub(crate) leaving_leaders: u64,
    /// Transfers begun, leaders that were told to stand, and transfers refused.
    pub(crate) transfers: u64,
    pub(crate) transfers_done: u64,
    pub(crate) transfers_refused: u64,
    /// Looks at ready leaders that had a lease, and that had none.
    pub(crate) leases: u64,
    pub(crate) no_leases: u64,
    /// Looks at nodes that hibernated, and of those the ones that were woken by a silence.
    pub(crate) rests: u64,
    pub(crate) woken: u64,
}

impl Reached {
    pub(crate) fn add(&mut self, other: Self) {
        self.leaders += other.leaders;
        self.committed += other.committed;
        self.truncations += other.truncations;
        self.crashes += other.crashes;
        self.reads += other.reads;
        self.reads_lost += other.reads_lost;
        self.reads_elsewhere += other.reads_elsewhere;
        self.fetches += other.fetches;
        self.rots += other.rots;
        self.repairs += other.repairs;
        self.releases += other.releases;
        self.offers += other.offers;
        self.installs += other.installs;
        self.emptied += other.emptied;
        self.cut += other.cut;
        self.kept += other.kept;
        self.late += other.late;
        self.cut_at_start += other.cut_at_start;
        self.configured += other.configured;
        self.completed += other.completed;
        self.forgotten += other.forgotten;
        self.changes_refused += other.changes_refused;
        self.joint_leaders += other.joint_leaders;
        self.leaving_leaders += other.leaving_leaders;
        self.transfers += other.transfers;
        self.transfers_done += other.transfers_done;
        self.transfers_refused += other.transfers_refused;
        self.leases += other.leases;
        self.no_leases += other.no_leases;
        self.rests += other.rests;
        self.woken += other.woken;
    }
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: Ticks,
    pub(crate) settings: Settings,
    /// How fast each node's clock goes, of a thousand.
    rates: Vec<u64>,
    ids: Vec<NodeId>,
    /// What the group began with, and what entries say since.
    pub(crate) first: Configuration,
    pub(crate) configurations: Registry,
    pub(crate) nodes: Vec<Node>,
    /// By time, then in the order in which they were made.
    events: BTreeMap<(Ticks, u64), Event>,
    events_made: u64,
    /// One-way cuts: `cut[from][to]`.
    pub(crate) cut: Vec<Vec<bool>>,
    /// If groups hibernate: when the newest message arrives, from and to whom; when a node heard
    /// another last, by its clock; and by whom a silence was noticed, and whose.
    pub(crate) arrivals: BTreeMap<(usize, usize), Ticks>,
    pub(crate) heard: BTreeMap<(usize, usize), Ticks>,
    pub(crate) silent: BTreeSet<(usize, usize)>,
    /// Messages that left, by node.
    pub(crate) sent: Vec<u64>,
    /// How much of the crashes and cuts of a stormy world happen here, of a thousand.
    storm: u64,
    /// How often snapshots are taken, of a thousand events.
    pub(crate) snapshots: u64,
    /// How often members change, of a thousand events.
    changes: u64,
    /// Whether leaders keep what others need of their logs, if they can.
    pub(crate) keeps_needed: bool,
    /// Losses and duplicates of a thousand.
    loss: u64,
    duplicate: u64,
    pub(crate) is_healed: bool,
    pub(crate) value: u64,
    ticket: u64,
    /// Per ticket, what was committed anywhere when the read came.
    reads: BTreeMap<u64, Index>,
    /// Committed anywhere, for ever.
    pub(crate) committed: Vec<Entry>,
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(usize, Term), NodeId>,
    /// Terms in which somebody stands because it was told to.
    told: BTreeSet<Term>,
    /// Per node, its newest transfer: in which term, and when it ends.
    pub(crate) transfers: BTreeMap<usize, (Term, Ticks)>,
    pub(crate) reached: Reached,
}

/// How much the rates of clocks may differ, parts per thousand.
const DRIFT: u32 = 100;

/// A rate within the drift: 940 or 1040 of a thousand, or between.
fn rate_of(seed: u64, at: u64) -> u64 {
    let mut random = Random::new(seed ^ (at + 1) << 32);
    match random.below(3) {
        0 => 940,
        1 => 1040,
        _ => random.between(940, 1041),
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = random.between(1, 8) as usize;
        let settings = Settings {
            election_timeout: Ticks::from_millis(150),
            heartbeat_interval: Ticks::from_millis(40),
            append_entries_max: random.between(1, 8) as u32,
            append_bytes_max: random.between(100, 600),
            inflight_appends_max: random.between(1, 6) as usize,
            inflight_bytes_max: random.between(200, 2000),
            reads_waiting_max: random.between(2, 10) as usize,
            // A draw of its own would change every run there is.
            commits_by_half: seed % 2 == 1,
            lease: Settings::lease_of(Ticks::from_millis(150), DRIFT),
            hibernate_after: Ticks::from_millis([0, 60, 250][(seed % 3) as usize]),
        };
        let ids: Vec<NodeId> = (1..=count as u32).map(NodeId).collect();
        let changes = [0, 10, 30, 100][random.below(4) as usize];
        let began = match changes {
            0 => count,
            _ => random.between(1, count as u64 + 1) as usize,
        };
        let first = Configuration::first(ids[..began].to_vec(), Vec::new()).expect("sound");
        // Who is to join knows of nobody, or has the file of the others.
        let knows = random.permille(300);
        let first_of = |at| if at < began || knows { first.clone() } else { Configuration::none() };
        let mut world = Self {
            nodes: ids.iter().zip(0..).map(|(&id, at)| Node::new(id, first_of(at))).collect(),
            now: Ticks(1_000_000),
            settings,
            rates: (0..count as u64).map(|at| rate_of(seed, at)).collect(),
            ids,
            first,
            configurations: Registry::new(),
            changes,
            events: BTreeMap::new(),
            events_made: 0,
            cut: vec![vec![false; count]; count],
            storm: [200, 600, 1000][random.below(3) as usize],
            snapshots: [0, 3, 30, 100][random.below(4) as usize],
            keeps_needed: random.permille(500),
            loss: random.below(2) * random.below(200),
            duplicate: random.below(200),
            arrivals: BTreeMap::new(),
            heard: BTreeMap::new(),
            silent: BTreeSet::new(),
            sent: vec![0; count],
            is_healed: false,
            value: 0,
            ticket: 0,
            reads: BTreeMap::new(),
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            told: BTreeSet::new(),
            transfers: BTreeMap::new(),
            reached: Reached::default(),
            random,
        };
        if world.hibernates() {
            // A connection gives what was sent once, and in order.
            world.duplicate = 0;
        }
        for node in 0..count {
            world.boot(node);
        }
        world
    }

    fn boot(&mut self, node: usize) {
        if self.nodes[node].raft.is_some() {
            return;
        }
        let seed = self.random.next();
        let now = self.clock(node);
        self.nodes[node].boot(now, self.settings, &self.configurations, seed);
        self.reached.cut_at_start += self.nodes[node].batches.len() as u64;
        self.plan_tick(node);
        if self.hibernates() {
            let life = self.nodes[node].life;
            self.plan(0, Event::Stamp { node, life });
        }
    }

    pub(crate) fn plan(&mut self, delay: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((self.now.after(Ticks(delay)), self.events_made), event);
    }

    fn plan_tick(&mut self, node: usize) {
        let Some(raft) = &self.nodes[node].raft else { return };
        if raft.wake_at() == Ticks::NEVER {
            return;
        }
        let late = if self.is_healed { 0 } else { self.random.below(3000) };
        let left = raft.wake_at().since(self.clock(node)).0;
        let delay = (left * 1000).div_ceil(self.rates[node]) + late;
        let life = self.nodes[node].life;
        self.plan(delay, Event::Tick { node, life });
    }

    /// Takes the next event.
    pub(crate) fn advance(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else { return };
        self.now = at;
        match event {
            Event::Deliver { from, to, life, message, entries } => {
                // A connection that was told takes the place of those of earlier lives.
                let is_old = self.nodes[to].met.get(&from).is_some_and(|&met| life < met);
                if self.nodes[to].raft.is_some() && !is_old {
                    self.heard(to, from);
                    let heads = heads(&entries);
                    let from = self.nodes[from].id;
                    let raft = self.nodes[to].raft.as_ref().expect("just seen");
                    let configurations = self.carried(message, &entries);
                    let entries_of = Entries { heads: &heads, configurations: &configurations };
                    let judged = raft.judge(from, &message, entries_of);
                    assert_eq!(judged, Ok(()), "a sound node is never refused: {message:?}");
                    self.step(to, Input::Message { from, message, entries: entries_of }, &entries);
                }
            }
            Event::Tick { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].raft.is_some() {
                    self.step(node, Input::Tick, &[]);
                    self.check_transfer(node);
                    self.plan_tick(node);
                }
            }
            Event::DiskDone { node, life, token } => {
                if self.nodes[node].life == life {
                    self.disk_done(node, token);
                }
            }
            Event::Fetched { node, life, peer, first, entries } => {
                if self.nodes[node].life == life && self.nodes[node].raft.is_some() {
                    let heads = heads(&entries);
                    self.step(node, Input::Fetched { peer, first, heads: &heads }, &entries);
                }
            }
            Event::Taken { node, life, snapshot } => {
                if self.nodes[node].life == life {
                    self.taken(node, snapshot);
                }
            }
            Event::Stored { node, life, snapshot } => {
                if self.nodes[node].life == life {
                    self.stored(node, snapshot);
                }
            }
            Event::Stamp { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].raft.is_some() {
                    self.stamp(node);
                }
            }
            Event::Torn { a, b } => self.torn(a, b),
            Event::Complete { node, life } => {
                if self.nodes[node].life == life {
                    self.complete(node);
                }
            }
            Event::Loaded { node, life } => {
                if self.nodes[node].life == life {
                    self.loaded(node);
                }
            }
        }
    }

    /// Makes something happen from outside, now and then.
    pub(crate) fn disturb(&mut self) {
        let mut node = self.random.below(self.nodes.len() as u64) as usize;
        let other = self.random.below(self.nodes.len() as u64) as usize;
        if self.random.permille(300) {
            // What happens to leaders tells most.
            node = self.leaders.last_key_value().map_or(node, |(_, &leader)| leader);
        }
        if self.random.permille(self.snapshots) {
            self.take_snapshot(node);
            self.fetch_unasked(other);
        }
        if self.random.permille(self.changes) {
            self.change_members(node);
        }
        match self.random.below(1000) {
            0..100 => self.propose(node),
            100..140 => self.read(node),
            140..150 => self.trim(node),
            150..160 if self.random.permille(self.storm) => {
                self.crash(node);
                if self.random.permille(300) {
                    self.rot(node);
                }
                if self.random.permille(500) {
                    self.boot(node);
                    self.tell_links(node, true);
                }
            }
            160..180 if self.nodes[node].raft.is_none() => {
                self.boot(node);
                self.tell_links(node, true);
            }
            180..188 if self.random.permille(self.storm) => self.cut[node][other] = true,
            188..192 if self.random.permille(self.storm) => {
                self.cut[node].fill(true);
                self.cut.iter_mut().for_each(|row| row[node] = true);
            }
            192..196 => self.cut.iter_mut().for_each(|row| row.fill(false)),
            196..200 => {
                let id = self.nodes[other].id;
                let input =
                    if self.random.permille(500) { Input::LinkDown(id) } else { Input::LinkUp(id) };
                if node != other && self.nodes[node].raft.is_some() {
                    self.step(node, input, &[]);
                }
            }
            200..204 if self.nodes[node].raft.is_some() => {
                let is_stuck = !self.is_healed && self.random.permille(300);
                self.step(node, Input::DiskStuck(is_stuck), &[]);
            }
            204..208 if self.nodes[node].raft.is_some() => {
                // One that says so leads no more: its lease has ended, too.
                let leads = |raft: &Raft| raft.role() == RoleKind::Leader;
                if !self.nodes[other].raft.as_ref().is_some_and(leads) {
                    let id = self.nodes[other].id;
                    self.step(node, Input::Resigned(id), &[]);
                }
            }
            209..229 => self.transfer(node, other),
            229..234 => {
                let is_paused = self.random.permille(500);
                self.pause(node, is_paused);
            }
            // The power goes: of many, or of all.
            208 if self.random.permille(self.storm / 4) => {
                for node in 0..self.nodes.len() {
                    if self.random.permille(700) {
                        self.crash(node);
                    }
                }
            }
            _ => {}
        }
    }

    fn propose(&mut self, node: usize) {
        let Some(raft) = &self.nodes[node].raft else { return };
        let term = raft.term();
        let count = self.random.between(1, 6);
        let entries: Vec<Entry> = (0..count)
            .map(|_| {
                self.value += 1;
                let bytes = 40 + 8 * self.random.below(20) as u32;
                Entry { term, value: self.value, bytes }
            })
            .collect();
        let bytes: Vec<u32> = entries.iter().map(|entry| entry.bytes).collect();
        self.step(node, Input::Propose { bytes: &bytes }, &entries);
    }

    fn read(&mut self, node: usize) {
        if self.nodes[node].raft.is_none() {
            return;
        }
        for _ in 0..self.random.between(1, 4) {
            self.ticket += 1;
            self.reads.insert(self.ticket, Index(self.committed.len() as u64));
            self.step(node, Input::Read { ticket: self.ticket }, &[]);
        }
        let mut out = Output::default();
        let now = self.clock(node);
        let raft = self.nodes[node].raft.as_mut().expect("just seen");
        let wake_at = raft.wake_at();
        raft.flush_reads(now, &mut out);
        if raft.wake_at() < wake_at {
            self.plan_tick(node);
        }
        self.carry_out(node, &out, &[], None);
    }

    fn trim(&mut self, node: usize) {
        let last = self.nodes[node].log.len() as u64;
        let first = Index(self.random.between(1, last + 2));
        if self.nodes[node].raft.is_some() {
            let cached = &mut self.nodes[node].first_cached;
            *cached = first.max(*cached);
            self.step(node, Input::Trimmed { first }, &[]);
        }
    }

    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].raft.is_some() {
            let written = self.random.below(self.nodes[node].batches.len() as u64 + 1);
            self.nodes[node].crash(written as usize);
            self.reached.crashes += 1;
            self.tell_links(node, false);
        }
    }

    /// Rot takes the end of a stopped node's log, or all of it. A minority of the voters has such a
    /// log at a time, so that what is committed is whole on one of every majority.
    fn rot(&mut self, node: usize) {
        let damaged = self.nodes.iter().enumerate();
        let damaged = damaged.filter(|(at, other)| *at == node || other.disk.is_damaged());
        let damaged: Vec<NodeId> = damaged.map(|(_, node)| node.id).collect();
        if self.nodes[node].raft.is_none() && self.may_lack(&damaged) {
            let chance = self.random.next();
            self.reached.rots += u64::from(self.nodes[node].disk.rot(chance));
        }
    }

    /// Most of the others notice that a node went or came.
    fn tell_links(&mut self, node: usize, is_up: bool) {
        let id = self.nodes[node].id;
        for other in 0..self.nodes.len() {
            let notices = self.is_healed || self.random.permille(800);
            if other != node && notices && self.nodes[other].raft.is_some() {
                let input = if is_up { Input::LinkUp(id) } else { Input::LinkDown(id) };
                let life = self.nodes[node].life;
                self.nodes[other].met.insert(node, life);
                self.step(other, input, &[]);
            }
        }
    }

    fn disk_done(&mut self, node: usize, token: Token) {
        if self.nodes[node].batches.front().is_none_or(|batch| batch.token > token) {
            return;
        }
        while self.nodes[node].batches.front().is_some_and(|batch| batch.token <= token) {
            let batch = self.nodes[node].batches.pop_front().expect("just seen");
            self.nodes[node].disk.write(batch);
        }
        let gated = std::mem::take(&mut self.nodes[node].gated);
        let (released, kept): (Vec<_>, Vec<_>) =
            gated.into_iter().partition(|(gate, _)| *gate <= token);
        self.nodes[node].gated = kept;
        for (_, envelope) in released {
            self.send(node, envelope, &[]);
        }
        self.step(node, Input::Persisted { token }, &[]);
    }

    /// One step of a node's core; `entries` are what the input carries.
    pub(crate) fn step(&mut self, node: usize, input: Input<'_>, entries: &[Entry]) {
        let mut out = Output::default();
        let now = self.clock(node);
        let raft = self.nodes[node].raft.as_mut().expect("callers look first");
        let was = (raft.role(), raft.term());
        let wake_at = raft.wake_at();
        raft.step(now, input, &mut out);
        let is = (raft.role(), raft.term());
        if raft.wake_at() < wake_at {
            self.plan_tick(node);
        }
        if is.0 == RoleKind::Leader && was != is {
            self.check_leader(node, is.1);
        }
        let first = match input {
            Input::Message { message: Message::Append(append), .. } => {
                Some(append.prev.index.next())
            }
            Input::Fetched { first, .. } => Some(first),
            _ => None,
        };
        self.carry_out(node, &out, entries, first);
        self.check_node(node);
        self.check_leases();
    }

    /// What a node's clock says.
    pub(crate) fn clock(&self, node: usize) -> Ticks {
        Ticks(self.now.0 * self.rates[node] / 1000)
    }

    /// Whoever is sure by its lease that it leads has committed whatever was committed anywhere.
    fn check_leases(&mut self) {
        let committed = Index(self.committed.len() as u64);
        for node in 0..self.nodes.len() {
            let Some(raft) = &self.nodes[node].raft else { continue };
            match raft.lease_index(self.clock(node)) {
                Some(index) => {
                    assert!(index >= committed, "node {} would read {index}", node + 1);
                    let leads_later = |other: &Raft| {
                        other.role() == RoleKind::Leader && other.term() > raft.term()
                    };
                    let mut rafts = self.nodes.iter().filter_map(|node| node.raft.as_ref());
                    let later = rafts.find(|other| leads_later(other));
                    assert!(later.is_none(), "node {} has a lease, another leads", node + 1);
                    self.check_promises(node);
                    self.reached.leases += 1;
                }
                None => self.reached.no_leases += u64::from(raft.is_ready()),
            }
        }
    }

    /// While a leader has a lease, those who would help another into office are no majority. Who
    /// doesn't run helps nobody, and won't for a while when it does.
    fn check_promises(&self, leader: usize) {
        let is_free = |&(at, node): &(usize, &Node)| {
            node.raft.as_ref().is_some_and(|raft| !raft.sticks(self.clock(at)))
        };
        let free: Vec<NodeId> =
            self.nodes.iter().enumerate().filter(is_free).map(|(_, node)| node.id).collect();
        assert!(
            !self.would_elect(leader, &free),
            "node {} has a lease, and {free:?} are free to elect another",
            leader + 1
        );
    }

    /// I-13: a node that says it is whole again holds on its disk all that was committed of what it
    /// ever held, and a start finds it whole.
    fn check_repair(&mut self, node: usize) {
        self.reached.repairs += 1;
        let own = &mut self.nodes[node];
        assert!(!own.disk.is_damaged(), "node {} isn't whole", own.id);
        for (position, entry) in std::mem::take(&mut own.lost).iter().enumerate() {
            if self.committed.get(position) == Some(entry) {
                let held = own.disk.get(position);
                assert_eq!(held, Some(entry), "node {} lacks index {}", own.id, position + 1);
            }
        }
    }

    /// What an owner does with an output. `entries` are the input's, from `first` on.
    fn carry_out(&mut self, node: usize, out: &Output, entries: &[Entry], first: Option<Index>) {
        if out.repaired {
            self.check_repair(node);
        }
        let own = &mut self.nodes[node];
        if let Some(base) = out.emptied {
            own.log = own.disk.snapshot.clone();
            own.first_cached = base.index.next();
        } else if let Some(index) = out.truncate_from {
            let kept = index.0 as usize - 1;
            let removed = configured(&self.configurations, &own.log);
            self.reached.forgotten += removed.filter(|one| one.index >= index).count() as u64;
            own.log.truncate(kept);
            own.first_cached = own.first_cached.min(index);
            self.reached.truncations += 1;
        }
        let mut append = None;
        if let Some(span) = out.append {
            assert_eq!(span.first.0, own.log.len() as u64 + 1);
            let entries = match (out.new_term_entry, first) {
                (Some(term), _) => vec![Entry { term, value: 0, bytes: 40 }],
                (None, Some(first)) => entries[(span.first.0 - first.0) as usize..].to_vec(),
                (None, None) => entries.to_vec(),
            };
            assert_eq!(entries.len() as u64, span.count());
            own.log.extend(&entries);
            append = Some((span.first, entries));
        }
        if let Some(token) = out.token {
            let (truncate_from, hard_state) = (out.truncate_from, out.hard_state);
            own.batches.push_back(Batch { token, truncate_from, append, hard_state });
            let life = own.life;
            let delay = match self.random.below(100) {
                0..5 if !self.is_healed => self.random.between(50_000, 300_000),
                _ => self.random.between(100, 5000),
            };
            self.plan(delay, Event::DiskDone { node, life, token });
        }
        for envelope in &out.send_now {
            self.send(node, *envelope, entries);
        }
        let gated = out.send_after_persist.iter().map(|gated| (gated.token, gated.envelope));
        self.nodes[node].gated.extend(gated);
        let leads = |raft: &Raft| raft.role() == RoleKind::Leader;
        let is_leader = self.nodes[node].raft.as_ref().is_some_and(leads);
        self.reached.reads_elsewhere += out.reads.len() as u64 * u64::from(!is_leader);
        for ready in &out.reads {
            let floor = self.reads.remove(&ready.ticket).expect("answered once");
            assert!(ready.index >= floor, "a read at {} after {floor} was committed", ready.index);
            self.reached.reads += 1;
        }
        for ticket in &out.reads_lost {
            self.reads.remove(ticket).expect("answered once");
            self.reached.reads_lost += 1;
        }
        for fetch in &out.fetch {
            assert!(fetch.last < self.nodes[node].first_cached);
            let count = self.random.between(1, fetch.last.0 - fetch.first.0 + 2);
            let fails = !self.is_healed && self.random.permille(100);
            let last = Index(fetch.first.0 + count - 1);
            let mut bytes = 0;
            let mut entries = self.nodes[node].entries(fetch.first, last);
            let fit = entries.iter().take_while(|entry| {
                bytes += u64::from(entry.bytes);
                bytes <= fetch.bytes_max
            });
            let fit = fit.count().max(1);
            entries.truncate(if fails { 0 } else { fit });
            let life = self.nodes[node].life;
            let (peer, first) = (fetch.peer, fetch.first);
            let delay = self.random.between(100, 20_000);
            self.plan(delay, Event::Fetched { node, life, peer, first, entries });
            self.reached.fetches += 1;
        }
        if let Some(commit) = out.committed {
            self.check_commit(node, commit);
        }
        if out.completes {
            self.plan_completion(node);
        }
        if let Some(install) = out.install {
            self.fetch_snapshot(node, install);
        }
    }

    /// A message leaves. `fetched` are entries that the owner holds for this step only.
    fn send(&mut self, from: usize, envelope: Envelope, fetched: &[Entry]) {
        self.check_promise(from, envelope);
        let to = self.ids.iter().position(|&id| id == envelope.to).expect("to a node");
        let own = &self.nodes[from];
        let entries = match envelope.message {
            Message::Append(append) if append.count > 0 => {
                let first = append.prev.index.next();
                let last = Index(append.prev.index.0 + u64::from(append.count));
                let entries = own.entries(first, last);
                let is_fetched = entries == fetched;
                assert!(first >= own.first_cached || is_fetched, "{first} isn't in the cache");
                entries
            }
            _ => Vec::new(),
        };
        let copies = 1 + u64::from(self.random.permille(self.duplicate));
        for copy in 0..copies {
            self.sent[from] += 1;
            if self.cut[from][to] || self.random.permille(self.loss) {
                self.lost(from, to);
                continue;
            }
            let delay = match copy {
                0 => self.random.between(100, 15_000),
                _ => self.random.between(100, 2_000_000),
            };
            let (message, entries) = (envelope.message, entries.clone());
            let life = self.nodes[from].life;
            let delay = self.in_order(from, to, delay);
            self.plan(delay, Event::Deliver { from, to, life, message, entries });
        }
    }

    /// I-03, V1: a promise that leaves is on the disk, and never contradicts another.
    fn check_promise(&mut self, from: usize, envelope: Envelope) {
        let node = &self.nodes[from];
        let hard_state = node.disk.hard_state;
        let vote = match envelope.message {
            Message::VoteReply { term, granted: true } => Some((term, envelope.to)),
            Message::Vote { term, .. } => Some((term, node.id)),
            _ => None,
        };
        if let Message::Vote { term, is_transfer: true, .. } = envelope.message {
            self.told.insert(term);
        }
        if let Some((term, to)) = vote {
            assert!(hard_state.term >= term, "a vote left before it was durable");
            assert!(hard_state.term > term || hard_state.vote == Some(to));
            let known = *self.votes.entry((from, term)).or_insert(to);
            assert_eq!(known, to, "node {} voted twice in term {term}", node.id);
        }
        if let Message::AppendReply { append_term, outcome, .. } = envelope.message
            && let AppendOutcome::Accepted { matched } = outcome
            && node.raft.as_ref().is_some_and(|raft| raft.term() == append_term)
        {
            let matched = matched.0 as usize;
            assert!(node.is_durable(matched), "an ack left before it was durable");
        }
    }

    /// I-04 and leader completeness.
    fn check_leader(&mut self, node: usize, term: Term) {
        self.reached.leaders += 1;
        self.reached.transfers_done += u64::from(self.told.contains(&term));
        let known = *self.leaders.entry(term).or_insert(node);
        assert_eq!(known, node, "two leaders in term {term}");
        let log = &self.nodes[node].log;
        assert!(log.len() >= self.committed.len(), "a leader lacks what is committed");
        assert_eq!(log[..self.committed.len()], self.committed);
        self.note_leader(node);
    }

    /// Committed entries are the same everywhere, and durable on a majority.
    fn check_commit(&mut self, node: usize, commit: Index) {
        let own = &mut self.nodes[node];
        let range = own.commit.0 as usize..commit.0 as usize;
        own.commit = commit;
        for position in range {
            let entry = self.nodes[node].log[position];
            if let Some(known) = self.committed.get(position) {
                assert_eq!(*known, entry, "index {} committed twice", position + 1);
                continue;
            }
            // What rot took counts: its node votes as if it held it.
            let holds = |node: &&Node| {
                let held = [node.disk.get(position), node.disk.lost.get(position)];
                held.contains(&Some(&entry))
            };
            let copies: Vec<NodeId> = self.nodes.iter().filter(holds).map(|node| node.id).collect();
            let is_held = self.are_enough(node, &copies);
            assert!(is_held, "index {} is on {copies:?} only (V5)", position + 1);
            self.committed.push(entry);
            self.reached.committed += 1;
        }
    }

    /// The core's view, the owner's and the disk's agree; logs match (I-05).
    fn check_node(&self, node: usize) {
        self.check_configuration(node);
        let own = &self.nodes[node];
        let raft = own.raft.as_ref().expect("it just stepped");
        assert_eq!(raft.last().0 as usize, own.log.len());
        let terms = own.log.last().map(|entry| entry.term);
        assert_eq!(raft.term_at(raft.last()), Some(terms.unwrap_or_default()));
        let persisted = raft.persisted().0 as usize;
        assert!(own.is_durable(persisted), "persisted is ahead of the disk");
        let base = raft.base();
        assert!(base.index.0 as usize <= own.disk.snapshot.len(), "the base is ahead of the disk");
        assert_eq!(base, end_of(&own.log[..base.index.0 as usize]));
        for other in &self.nodes {
            let common = own.log.len().min(other.log.len());
            let equal = (0..common).rev().find(|&at| own.log[at].term == other.log[at].term);
            if let Some(at) = equal {
                assert!(own.log[..=at] == other.log[..=at], "logs differ below {}", at + 1);
            }
        }
    }

    pub(crate) fn run_for(&mut self, millis: u64) {
        let end = self.now.after(Ticks::from_millis(millis));
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.advance();
        }
        self.now = end;
    }

    /// Runs until it holds, so many seconds at most, and a moment longer.
    pub(crate) fn run_until(&mut self, seconds: u64, holds: impl Fn(&Self) -> bool) {
        for _ in 0..seconds * 10 {
            self.run_for(100);
            if holds(self) {
                break;
            }
        }
    }

    /// Faults end: soon there is one leader, and what it takes reaches everybody.
    pub(crate) fn heal_and_check(&mut self) {
        self.is_healed = true;
        for node in 0..self.nodes.len() {
            if self.nodes[node].raft.is_some() {
                self.step(node, Input::DiskStuck(false), &[]);
                self.pause(node, false);
            }
        }
        (self.loss, self.duplicate) = (0, 0);
        self.cut.iter_mut().for_each(|row| row.fill(false));
        for node in 0..self.nodes.len() {
            self.boot(node);
        }
        // Every connection is new: a restart that somebody missed is noticed now.
        for node in 0..self.nodes.len() {
            self.tell_links(node, true);
        }
        // With a window of one entry and a disk to fetch it from, catching up takes its time.
        self.run_until(60, |world| (0..world.nodes.len()).any(|node| world.stays(node)));
        self.run_for(500);
        let rafts = || rafts_of(&self.nodes);
        let leaders: Vec<usize> = (0..self.nodes.len())
            .filter(|&node| rafts().nth(node).is_some_and(|raft| raft.is_ready()))
            .collect();
        assert_eq!(leaders.len(), 1, "leaders after healing");
        let leader = leaders[0];
        assert!(self.stays(leader), "a change that isn't held ends (M02)");
        let term = rafts().nth(leader).expect("exists").term();
        let members: Vec<usize> =
            (0..self.nodes.len()).filter(|&node| self.is_member(leader, node)).collect();
        for &node in &members {
            let raft = rafts().nth(node).expect("exists");
            assert!(raft.term() == term && raft.leader().is_some(), "node {}", node + 1);
        }
        for _ in 0..5 {
            self.propose(leader);
        }
        let reads = self.reached.reads;
        self.read(leader);
        let elsewhere = self.reached.reads_elsewhere;
        let follower = members.iter().copied().find(|&node| node != leader);
        if let Some(follower) = follower {
            self.read(follower);
        }
        let last = Index(self.nodes[leader].log.len() as u64);
        self.run_until(60, |world| members.iter().all(|&node| world.nodes[node].has_all(last)));
        // Whoever lost entries has them again, and stands for election as any other.
        let floors = members.iter().filter_map(|&node| self.nodes[node].raft.as_ref());
        let floors: Vec<_> = floors.filter_map(Raft::vote_floor).collect();
        assert!(floors.is_empty(), "floors after healing: {floors:?}");
        assert!(self.reached.reads > reads, "a read was answered");
        let is_answered = follower.is_none() || self.reached.reads_elsewhere > elsewhere;
        assert!(is_answered, "a follower answered none");
        for &node in &members {
            let node = &self.nodes[node];
            assert!(node.has_all(last), "node {} has {} of {last}", node.id, node.commit);
        }
        self.check_calm(leader, term);
        self.check_rest(&members);
    }
}

impl World {
    /// What the entries of a message say that are configurations.
    fn carried(&self, message: Message, entries: &[Entry]) -> Vec<Configured> {
        let Message::Append(append) = message else { return Vec::new() };
        let ids = (append.prev.index.0 + 1..).zip(entries);
        let ids = ids.map(|(index, entry)| LogId::new(entry.term, Index(index)));
        let configured = ids.filter_map(|id| {
            let configuration = self.configurations.get(&id)?.clone();
            Some(Configured { index: id.index, configuration, is_of_another: false })
        });
        configured.collect()
    }
}

fn rafts_of(nodes: &[Node]) -> impl Iterator<Item = &Raft> {
    nodes.iter().map(|node| node.raft.as_ref().expect("all run"))
}

fn heads(entries: &[Entry]) -> Vec<EntryHead> {
    entries.iter().map(|entry| EntryHead { term: entry.term, bytes: entry.bytes }).collect()
}
