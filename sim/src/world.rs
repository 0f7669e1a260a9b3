//! A whole cluster with its clients in virtual time: what happens next, and to whom.

mod calm;
mod helix;
mod levels;
mod look;
mod memory;
mod placed;
mod repair;
mod spread;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringraft_types::{GroupId, Index, Lacked, NodeId, ShardId, Ticks};

use crate::base::{Base, Event, Owner};
use crate::checker::{self, Effort};
use crate::client::Client;
use crate::disk::{Fresh, Trouble, Work};
use crate::faults::{Armed, FaultKind, Faults};
use crate::history::History;
use crate::net::Network;
use crate::node::{DirectoryCopy, Node, Turned};
use crate::options::{Asked, Options};
use crate::random::Random;
use crate::trace::{self, What};
use crate::witness::{Ledger, Snoop, Steps, Witness};

/// How often everything is looked at.
const PROBE_TIME: Ticks = Ticks::from_millis(200);
/// No operation of a disk takes longer, so that a disk that was slow isn't for ever.
const OPERATION_TIME_MAX: Ticks = Ticks::from_millis(4_000);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// A hash over everything that happened.
    pub hash: u64,
    /// Simulated time.
    pub time: Ticks,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Calls in the history.
    pub calls: usize,
}

/// A cluster.
pub(crate) struct World {
    pub(crate) options: Rc<Options>,
    pub(crate) base: Base,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) faults: Faults,
    /// No more faults strike.
    pub(crate) is_calm: bool,
    /// Nodes that aren't started again.
    stay_down: BTreeSet<usize>,
    /// Nodes whose disks lost what was durable: they may find rot, and refuse to serve.
    pub(crate) damaged: BTreeSet<usize>,
    /// Those of them that came back with an empty directory, or an older copy.
    pub(crate) lost: BTreeSet<usize>,
    /// Shards of which something rots as soon as their log is read.
    pub(crate) rots_when_read: BTreeSet<(usize, usize)>,
    /// How those that lost entries get them again.
    repairs: repair::Repairs,
    /// Copies of directories.
    pub(crate) copies: BTreeMap<usize, DirectoryCopy>,
    history: History,
    ledger: Rc<RefCell<Ledger>>,
    pub(crate) snoop: Snoop,
    /// By node and group: what its machine applied in this life.
    steps: BTreeMap<(usize, GroupId), Steps>,
    /// The same of the machine that was made last: it may still be loaded.
    made: Rc<RefCell<BTreeMap<(usize, GroupId), Steps>>>,
    /// What snapshots were when they were taken, by node, lane and number: group, newest entry, and
    /// a hash of what they said.
    saved: BTreeMap<(usize, usize, u64), (GroupId, Index, u64)>,
    /// By node: commit and applied index of its groups, in this life.
    seen: BTreeMap<(usize, u64, GroupId), (Index, Index)>,
    /// So many groups were to be created so far.
    pub(crate) placed: u64,
    /// So many writes were made by nobody's client.
    pub(crate) injected: u64,
}

/// Runs a seed to its end.
///
/// # Panics
/// If an invariant is broken, by the product or between its parts.
pub fn run(seed: u64, asked: &Asked) -> Ran {
    trace::begin(seed);
    let mut random = Random::new(seed);
    let options = Options::draw(&mut random, asked);
    let mut world = World::new(options, random);
    let quorum = world.live();
    let dumps = world.dumps(&quorum);
    let World { mut base, history, .. } = world;
    let verdict = checker::check(&history, &dumps, Effort::Quick);
    let verdict = verdict.unwrap_or_else(|violation| panic!("V8, V9: {violation}"));
    *base.counts.entry("groups judged").or_default() += verdict.groups as u64;
    *base.counts.entry("groups judged by search too").or_default() += verdict.whole as u64;
    Ran { hash: trace::finish(), time: base.now, counts: base.counts, calls: history.len() }
}

impl World {
    fn new(options: Options, random: Random) -> Self {
        trace::note(Ticks::ZERO, What::Text(format!("{options:?}")));
        let options = Rc::new(options);
        let mut base = Base::new(random);
        let hosts = options.nodes as usize + options.clients;
        let mut network = Network::new(options.weather.clone(), hosts);
        if options.faults.contains_key(&FaultKind::LateAnswers) {
            network.keep_answers();
        }
        let nodes = (1..=options.nodes).map(|id| Node::new(NodeId(id), options.clone())).collect();
        let clients: Vec<Client> =
            (0..options.clients).map(|at| Client::new(at, &mut base, options.clone())).collect();
        for client in &clients {
            network.host_up(&mut base, client.host(), client.life());
        }
        let snoop = Snoop::new(options.voters);
        Self {
            options,
            base,
            network,
            nodes,
            clients,
            faults: Faults::default(),
            is_calm: false,
            stay_down: BTreeSet::new(),
            damaged: BTreeSet::new(),
            lost: BTreeSet::new(),
            rots_when_read: BTreeSet::new(),
            repairs: repair::Repairs::default(),
            copies: BTreeMap::new(),
            history: History::new(),
            ledger: Rc::new(RefCell::new(Ledger::default())),
            snoop,
            steps: BTreeMap::new(),
            made: Rc::default(),
            saved: BTreeMap::new(),
            seen: BTreeMap::new(),
            placed: 0,
            injected: 0,
        }
    }

    /// The whole run. Returns the nodes that went through it to the end.
    fn live(&mut self) -> Vec<usize> {
        for node in 0..self.nodes.len() {
            let later = self.base.span(Ticks(1), Ticks::from_millis(50));
            self.base.after(later, Event::Start { node });
        }
        for client in 0..self.clients.len() {
            let later = self.base.span(Ticks(1), Ticks::from_millis(100));
            let at = self.base.now.after(later);
            self.clients[client].wake(&mut self.base, at);
        }
        self.plan_faults();
        self.base.after(PROBE_TIME, Event::Probe);
        let until = self.base.now.after(self.options.safety);
        self.run_until(until, |_| false);
        let quorum = self.heal();
        self.must_serve();
        self.must_clear();
        self.must_converge(&quorum);
        self.must_place(&quorum);
        self.must_spread(&quorum);
        self.read_all();
        self.finish(&quorum);
        quorum
    }

    /// Lets time pass until then, or until something is so. Returns whether it is.
    fn run_until(&mut self, until: Ticks, is_over: impl Fn(&Self) -> bool) -> bool {
        let mut looked = self.base.now;
        while let Some(event) = self.base.next(until) {
            self.handle(event);
            if self.base.now.since(looked) >= Ticks::from_millis(20) {
                looked = self.base.now;
                if is_over(self) {
                    return true;
                }
            }
        }
        is_over(self)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Lane { node, lane, life } => {
                if self.nodes[node].life == life && self.nodes[node].is_due(&self.base, lane) {
                    self.turn(node, lane);
                }
            }
            Event::Disk { node, lane, life, operation } => {
                if self.nodes[node].life == life && self.nodes[node].is_up {
                    self.disk_done(node, lane, operation);
                }
            }
            Event::Connect { connection } => {
                if let Some(node) = self.network.arrive(&mut self.base, connection) {
                    self.nodes[node].accept(&mut self.base, connection);
                }
            }
            Event::Arrive { connection, side } => {
                self.network.deliver(&mut self.base, connection, side);
            }
            Event::Reset { connection, side } => {
                self.network.lose(&mut self.base, connection, side);
            }
            Event::Patience { connection } => {
                self.network.lose_patience(&mut self.base, connection);
            }
            Event::Client { client } => {
                if self.clients[client].is_due(&self.base) {
                    let Self { clients, base, network, history, .. } = self;
                    clients[client].turn(base, network, history);
                }
            }
            Event::Start { node } => self.start(node),
            Event::Again { from, to, shard } => {
                if !self.is_calm {
                    self.network.answer_again(&mut self.base, from, to, shard);
                }
            }
            Event::Fault { kind } => self.strike(kind),
            Event::Mend { fault } => self.mend(fault),
            Event::Probe => {
                self.probe();
                self.base.after(PROBE_TIME, Event::Probe);
            }
        }
        for (owner, connection) in std::mem::take(&mut self.base.news) {
            self.tell(owner, connection);
        }
    }

    fn tell(&mut self, owner: Owner, connection: u64) {
        let nodes = self.nodes.len();
        if owner.host >= nodes {
            let client = &mut self.clients[owner.host - nodes];
            if client.life() == owner.life {
                client.news(&mut self.base, connection);
            }
        } else if self.nodes[owner.host].life == owner.life && self.nodes[owner.host].is_up {
            self.nodes[owner.host].news(&mut self.base, owner.lane, connection);
        }
    }

    /// Starts a node's process if it doesn't run.
    pub(crate) fn start(&mut self, node: usize) {
        if let Some(Lacked { start, by }) = self.nodes[node].lacked {
            let number = start.number;
            let text = format!("node {} lacks start {number}, as {by} said: no start", node + 1);
            trace::note(self.base.now, What::Text(text));
            self.base.count("starts refused: an older copy");
        } else if !self.nodes[node].is_up && !self.stay_down.contains(&node) {
            self.note_damages(node);
            self.nodes[node].start(&mut self.base, &mut self.network);
        }
    }

    /// Ends a node's process.
    pub(crate) fn end(&mut self, node: usize, keep: Option<u32>, why: &'static str) {
        self.nodes[node].end(&mut self.base, &mut self.network, keep, why);
    }

    fn turn(&mut self, node: usize, lane: usize) {
        let Self { nodes, base, network, ledger, made, .. } = self;
        let id = nodes[node].id;
        let (ledger, made) = (ledger.clone(), made.clone());
        let machine = move |group| {
            let applied = Steps::default();
            made.borrow_mut().insert((node, group), applied.clone());
            Box::new(Witness::new(id, group, ledger.clone(), applied)) as Box<_>
        };
        let turned = nodes[node].turn(base, network, lane, machine);
        self.base.count("turns");
        match turned {
            Turned::Fine => {}
            Turned::Serves(found) => {
                self.recovered(node, lane, &found);
                self.rot_after_reading(node, lane);
            }
            Turned::Stops(stop) => return self.stopped(node, lane, &stop),
        }
        self.look_at(node, lane);
        let fresh = self.nodes[node].disk_mut(lane).take_fresh();
        for fresh in fresh {
            self.plan_operation(node, lane, fresh);
        }
    }

    /// How long an operation of a disk takes, and what becomes of it.
    fn plan_operation(&mut self, node: usize, lane: usize, fresh: Fresh) {
        let (write, read) = self.options.disk_time;
        let random = &mut self.base.random;
        let base = match fresh.work {
            Work::Read => read.0 + fresh.bytes as u64 / 500,
            Work::Write => write.0 / 4 + fresh.bytes as u64 / 500,
            Work::SyncedWrite => write.0 + fresh.bytes as u64 / 500,
            Work::Sync | Work::SyncDirectory => write.0,
            Work::List | Work::Create | Work::Open | Work::Close => 20,
            Work::Forget | Work::Remove => 20,
        };
        let mut span = random.between(base / 2 + 1, base * 2 + 2);
        if random.chance(10_000) {
            span *= 20;
        }
        let is_early = random.chance(300_000);
        self.arm(node, lane, &fresh);
        let Self { nodes, base, .. } = self;
        let (life, operation) = (nodes[node].life, fresh.number);
        if is_early {
            // Its effect comes long before anybody is told.
            nodes[node].disk_mut(lane).carry_out(operation, &mut base.random);
        }
        let mood = &mut nodes[node].moods[lane];
        if mood.is_hung {
            mood.held.push((life, operation));
        } else {
            let span = Ticks(span * mood.slowness).min(OPERATION_TIME_MAX);
            base.after(span, Event::Disk { node, lane, life, operation });
        }
    }

    /// Something may be about to go wrong with a disk: here it does, if the operation fits.
    fn arm(&mut self, node: usize, lane: usize, fresh: &Fresh) {
        let is_recovering = self.nodes[node].is_recovering(lane);
        let Self { nodes, base, options, .. } = self;
        let mood = &mut nodes[node].moods[lane];
        let are_reads_good = base.now < mood.reads_are_good_until;
        let armed = &mut mood.armed;
        let is_write = matches!(fresh.work, Work::Write | Work::SyncedWrite);
        let is_dsync = options.log.is_dsync();
        let is_read = fresh.work == Work::Read;
        // A recovery reads a unit four times, and then takes it for rot.
        let is_unit = is_read && is_recovering && fresh.bytes <= options.align;
        let is_interrupted = is_write || is_read && !(is_unit && are_reads_good);
        let fits = |armed: &Armed| match armed.kind {
            FaultKind::WriteError => is_write,
            FaultKind::SyncError => matches!(fresh.work, Work::Sync | Work::SyncedWrite),
            FaultKind::ReadError => is_read && !are_reads_good,
            FaultKind::StaleRead => is_read && !is_recovering && !are_reads_good,
            FaultKind::ShortIo | FaultKind::Transient => is_interrupted,
            _ => false,
        };
        let Some(at) = armed.iter().position(fits) else { return };
        let kind = armed[at].kind;
        armed[at].count -= 1;
        if armed[at].count == 0 {
            armed.remove(at);
        }
        if is_unit || matches!(kind, FaultKind::ReadError | FaultKind::StaleRead) {
            mood.reads_are_good_until = base.now.after(Ticks::from_millis(30_000));
        }
        let sectors = fresh.bytes as u64 / 512;
        let part = base.random.below(sectors.max(1)) as usize * 512;
        let trouble = match kind {
            FaultKind::SyncError if fresh.work == Work::Sync || !is_dsync => Trouble::SyncFails,
            FaultKind::WriteError | FaultKind::SyncError => {
                Trouble::Fails { errno: 5, written: part }
            }
            FaultKind::ReadError => Trouble::Fails { errno: 5, written: 0 },
            FaultKind::Transient => {
                let errno = base.random.pick(&[4, 11]);
                Trouble::Fails { errno, written: 0 }
            }
            FaultKind::StaleRead => Trouble::Stale(part & !4095),
            _ => Trouble::Short(part),
        };
        base.count("fault: of one operation of a disk");
        let text = format!("disk {}/{lane} #{}: {trouble:?}", node + 1, fresh.number);
        trace::note(base.now, What::Text(text));
        nodes[node].disk_mut(lane).trouble(fresh.number, trouble);
    }

    fn disk_done(&mut self, node: usize, lane: usize, operation: u64) {
        let Self { nodes, base, .. } = self;
        let done = nodes[node].disk_mut(lane).finish(operation, &mut base.random);
        let Some((work, result)) = done else { return };
        let (id, shard) = (nodes[node].id, ShardId(lane as u16));
        trace::note(base.now, What::Disk { node: id, shard, operation, work, result });
        let soon = base.span(Ticks(1), Ticks(10));
        nodes[node].wake(base, lane, base.now.after(soon));
    }
}
