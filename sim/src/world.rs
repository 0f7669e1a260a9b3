//! A whole cluster with its clients in virtual time: what happens next, and to whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringraft_net::status::GroupRole;
use ringraft_shard::{ShardError, ShardEvent};
use ringraft_types::limits::FRAME_BODY_BYTES_MAX;
use ringraft_types::{GroupId, Index, Lacked, NodeId, ShardId, Term, Ticks};
use ringraft_wal::Recovered;

use crate::audit;
use crate::base::{Base, Event, Owner};
use crate::checker::Dump;
use crate::client::Client;
use crate::disk::{Fresh, Trouble, Work};
use crate::faults::{Armed, FaultKind, Faults};
use crate::history::{Ask, Bytes, History, KeySet, Range};
use crate::judge;
use crate::net::Network;
use crate::node::{DirectoryCopy, Node, Stop, Turned};
use crate::options::{Asked, Options};
use crate::random::Random;
use crate::trace::{self, What};
use crate::witness::{Ledger, Snoop, Steps, Witness};

/// How often everything is looked at.
const PROBE_TIME: Ticks = Ticks::from_millis(200);
/// After the last fault every group must serve within this.
const SERVE_TIME: Ticks = Ticks::from_millis(30_000);
/// After the last write all nodes of the quorum must be alike within this.
const CONVERGE_TIME: Ticks = Ticks::from_millis(20_000);

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
    /// Copies of directories.
    pub(crate) copies: BTreeMap<usize, DirectoryCopy>,
    history: History,
    ledger: Rc<RefCell<Ledger>>,
    snoop: Snoop,
    /// By node and group: what its machine applied in this life.
    steps: BTreeMap<(usize, GroupId), Steps>,
    /// By node: commit and applied index of its groups, in this life.
    seen: BTreeMap<(usize, u64, GroupId), (Index, Index)>,
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
    match judge::judge(&history, &dumps) {
        Err(violation) => panic!("V8, V9: {violation}"),
        Ok(judged) => {
            *base.counts.entry("groups judged").or_default() += judged.groups;
            *base.counts.entry("groups judged by search too").or_default() += judged.searched;
        }
    }
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
        let snoop = Snoop::new(options.nodes as usize);
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
            copies: BTreeMap::new(),
            history: History::new(),
            ledger: Rc::new(RefCell::new(Ledger::default())),
            snoop,
            steps: BTreeMap::new(),
            seen: BTreeMap::new(),
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
        self.must_converge(&quorum);
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
            self.nodes[node].start(&mut self.base, &mut self.network);
        }
    }

    /// Ends a node's process.
    pub(crate) fn end(&mut self, node: usize, keep: Option<u32>, why: &'static str) {
        self.nodes[node].end(&mut self.base, &mut self.network, keep, why);
    }

    fn turn(&mut self, node: usize, lane: usize) {
        let Self { nodes, base, network, ledger, steps, .. } = self;
        let id = nodes[node].id;
        let machine = |group| {
            let applied = Steps::default();
            steps.insert((node, group), applied.clone());
            Box::new(Witness::new(id, group, ledger.clone(), applied)) as Box<_>
        };
        let turned = nodes[node].turn(base, network, lane, machine);
        self.base.count("turns");
        match turned {
            Turned::Fine => {}
            Turned::Serves(recovered) => self.recovered(node, lane, &recovered),
            Turned::Stops(stop) => return self.stopped(node, &stop),
        }
        self.look_at(node, lane);
        let fresh = self.nodes[node].disk_mut(lane).take_fresh();
        for fresh in fresh {
            self.plan_operation(node, lane, fresh);
        }
    }

    /// What a lane did in its turn.
    fn look_at(&mut self, node: usize, lane: usize) {
        let id = self.nodes[node].id;
        let crate::node::Place::Running(running) = &mut self.nodes[node].places[lane] else {
            return;
        };
        let now = self.base.now;
        for sent in std::mem::take(&mut running.sent) {
            self.snoop.sent(id, sent.to, &sent.bytes, |header| {
                trace::note(
                    now,
                    What::Sent {
                        from: id,
                        to: sent.to,
                        shard: ShardId(lane as u16),
                        kind: header.kind as u8,
                        group: header.group,
                        bytes: header.frame_bytes(),
                    },
                );
            });
        }
        for (from, refusal) in std::mem::take(&mut running.refused) {
            let is_sound = [node, from.0 as usize - 1].iter().all(|at| !self.damaged.contains(at));
            assert!(!is_sound, "V13: node {id} refuses what node {from} says: {refusal}");
        }
        let mut lacks = None;
        let mut elections = 0;
        for event in running.shard.take_events() {
            match event {
                ShardEvent::BecameLeader { group, term, last } => {
                    trace::note(now, What::Leads { node: id, group, term, last: last.0 });
                    self.base.count("leaders");
                    elections += 1;
                    running.leads(group);
                    let is_lost = self.lost.contains(&node);
                    assert!(
                        !is_lost,
                        "S36: node {id} forgot its promises, and leads group {group}"
                    );
                    let newest = self.ledger.borrow().newest(group);
                    self.snoop.leads(id, group, term, last, newest);
                }
                ShardEvent::Unreadable { group, error } => {
                    let is_damaged = self.damaged.contains(&node);
                    assert!(is_damaged, "I-11: node {id} can't read group {group}: {error}");
                    self.base.count("rot met by a read");
                }
                ShardEvent::Halted { group, halt } => {
                    assert!(
                        self.damaged.contains(&node),
                        "I-11: node {id} halts group {group}, whose log was never damaged: {halt:?}"
                    );
                    self.base.count("groups that refuse as damaged");
                }
                ShardEvent::RolledBack { lacked, .. } => {
                    lacks = Some(lacked);
                    running.tell_older_copy(usize::from(self.options.shards));
                }
                ShardEvent::SteppedDown { group, term } => {
                    let text = format!("node {id} leads group {group} no more, in term {term}");
                    trace::note(now, What::Text(text));
                }
                ShardEvent::DiskStuck(true) => self.base.count("disk is stuck"),
                ShardEvent::DiskFull(true) => self.base.count("disk is full"),
                _ => {}
            }
        }
        if let Some(lacked) = lacks {
            let node = &mut self.nodes[node];
            node.lacked.get_or_insert(lacked);
            // Its next round rings the lanes that it told.
            node.wake(&mut self.base, lane, now);
        }
        for _ in 0..elections {
            self.was_elected(node, lane);
        }
    }

    fn recovered(&mut self, node: usize, lane: usize, recovered: &Recovered) {
        let id = self.nodes[node].id;
        let shard = ShardId(lane as u16);
        let rot = recovered.rot.len();
        let (torn, stale) = (recovered.torn_blocks, recovered.stale_blocks);
        trace::note(self.base.now, What::Recovered { node: id, shard, torn, stale, rot });
        self.base.count("recoveries");
        if torn > 0 {
            self.base.count("recovery: torn tail cut");
        }
        if stale > 0 {
            self.base.count("recovery: stale blocks");
        }
        if rot > 0 {
            self.base.count("recovery: rot");
        }
        if recovered.unknown_damage || recovered.node_damaged {
            self.base.count("recovery: rot that silences a log");
        }
        assert!(
            recovered.rot.is_empty() || self.damaged.contains(&node),
            "I-11: node {id}/{lane} finds rot where there is none: {:?}",
            recovered.rot
        );
        if self.lost.contains(&node) {
            // It knows nothing of what it promised, and nobody believes it.
            return;
        }
        let is_damaged = self.damaged.contains(&node);
        self.snoop.recovered(id, (shard.0, self.options.shards), recovered, is_damaged);
    }

    fn stopped(&mut self, node: usize, stop: &Stop) {
        let id = self.nodes[node].id;
        trace::note(self.base.now, What::Text(format!("node {id} stops: {stop}")));
        let is_given_up = matches!(stop, Stop::Shard(ShardError::DiskStuck { .. }))
            && self.nodes[node].moods.iter().any(|mood| mood.was_slow);
        assert!(
            is_given_up || self.nodes[node].has_disk_errors() || self.damaged.contains(&node),
            "I-10: node {id} stops, and nothing went wrong with its disk: {stop}"
        );
        self.base.count(match stop {
            Stop::Recovery(_) => "stopped in recovery",
            Stop::Shard(_) => "stopped by its disk",
        });
        self.end(node, None, "an error of its disk");
        let later = self.base.span(Ticks::from_millis(1), Ticks::from_millis(1_000));
        self.base.after(later, Event::Start { node });
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
            Work::List | Work::Create | Work::Open | Work::Remove => 20,
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

    /// What the nodes applied, from their disks.
    fn dumps(&self, quorum: &[usize]) -> Vec<Dump> {
        let mut dumps = Vec::new();
        for &at in quorum {
            let node = &self.nodes[at];
            for lane in 0..usize::from(self.options.shards) {
                let mut found = audit::open(node.disk(lane).flushed(), node.log_settings(lane));
                for (&(_, group), steps) in self.steps.range((at, GroupId(0))..(at + 1, GroupId(0)))
                {
                    if group.0 % u64::from(self.options.shards) == lane as u64 {
                        dumps.push(found.dump(node.id, group, &steps.borrow()));
                    }
                }
            }
        }
        dumps
    }

    /// Everything that was applied anywhere lies intact on a quorum of disks, counting only what is
    /// flushed (V5).
    fn audit(&mut self) {
        self.base.count("disks audited");
        let mut copies: BTreeMap<(GroupId, Term), usize> = BTreeMap::new();
        for (_, node) in self.nodes.iter().enumerate().filter(|(at, _)| !self.damaged.contains(at))
        {
            for lane in 0..usize::from(self.options.shards) {
                let found = audit::open(node.disk(lane).flushed(), node.log_settings(lane));
                for (&group, found) in &found.recovered.groups {
                    let newest = self.ledger.borrow().newest(group);
                    if let Some(term) = audit::term_at(found, newest) {
                        *copies.entry((group, term)).or_default() += 1;
                    }
                }
            }
        }
        // What a damaged disk held counts: its node votes as if it held it still.
        let majority = (self.nodes.len() / 2 + 1).saturating_sub(self.damaged.len()).max(1);
        for group in (1..=self.options.groups).map(GroupId) {
            let newest = self.ledger.borrow().newest(group);
            let of_group = (group, Term::ZERO)..=(group, Term(u64::MAX));
            let most = copies.range(of_group).map(|(_, &copies)| copies).max().unwrap_or(0);
            assert!(
                newest == Index::ZERO || most >= majority,
                "V5: entry {newest} of group {group} was applied, and {most} disks of {} hold it",
                self.nodes.len()
            );
        }
    }

    /// Looks at all groups of all nodes that serve.
    fn probe(&mut self) {
        if self.base.random.chance(100_000) {
            self.audit();
        }
        let mut states: BTreeMap<(GroupId, Index), (NodeId, u64)> = BTreeMap::new();
        let mut leaders: BTreeMap<GroupId, u64> = BTreeMap::new();
        for node in &self.nodes {
            let now = node.clock.read(self.base.now);
            for lane in node.lanes() {
                // V14: what waits anywhere is bounded.
                let waiting = lane.shard.links.waiting_bytes_max();
                let most = 4 * self.options.outbox.client.max(self.options.outbox.peer);
                assert!(waiting <= most + FRAME_BODY_BYTES_MAX, "V14: {waiting} bytes wait");
                for group in lane.shard.status(now).groups {
                    let (id, host) = (group.group, node.host());
                    assert!(
                        group.applied <= group.commit && group.commit <= group.last,
                        "I-01: node {} group {id}: {group:?}",
                        node.id
                    );
                    assert!(
                        group.role != GroupRole::Leader || lane.may_lead(id, &self.options),
                        "N02: node {} leads group {id}, and heard no majority for two election \
                         timeouts",
                        node.id
                    );
                    for counted in lane.shard.peers_counted(id) {
                        self.snoop.counts(node.id, id, group.term, counted);
                    }
                    *leaders.entry(id).or_default() += u64::from(group.role == GroupRole::Leader);
                    let seen = self.seen.entry((host, node.life, id)).or_default();
                    assert!(
                        group.commit >= seen.0 && group.applied >= seen.1,
                        "V2: node {} group {id} went back from {seen:?}: {group:?}",
                        node.id
                    );
                    *seen = (group.commit, group.applied);
                    let key = (id, group.applied);
                    let first = *states.entry(key).or_insert((node.id, group.state_hash));
                    assert!(
                        first.1 == group.state_hash,
                        "V7: nodes {} and {} differ at entry {} of group {id}",
                        first.0,
                        node.id,
                        group.applied
                    );
                }
            }
        }
        if leaders.values().any(|&leaders| leaders > 1) {
            self.base.count("a leader beside an older one");
        }
    }

    /// Nothing goes wrong any more, for a quorum at least: its nodes.
    fn heal(&mut self) -> Vec<usize> {
        self.is_calm = true;
        self.audit();
        trace::note(self.base.now, What::Text(String::from("calm from now on")));
        self.mend_all();
        let all = self.nodes.len();
        let least = all / 2 + 1;
        let mut order: Vec<usize> =
            (0..all).filter(|node| !self.options.doomed.contains(node)).collect();
        self.base.random.shuffle(&mut order);
        let sound = order.len();
        let size = match self.base.random.coin() {
            true => sound,
            false => self.base.random.between(least as u64, sound as u64) as usize,
        };
        let mut quorum = order[..size].to_vec();
        quorum.sort_unstable();
        for node in 0..all {
            let is_doomed = self.options.doomed.contains(&node);
            if quorum.contains(&node) || is_doomed && self.base.random.coin() {
                // A damaged node may go on: it must disturb nobody.
                self.start(node);
            } else if self.base.random.coin() {
                self.stay_down.insert(node);
                if self.nodes[node].is_up {
                    self.end(node, None, "stays down");
                }
            } else {
                for other in (0..all + self.clients.len()).filter(|&other| other != node) {
                    self.network.block(&mut self.base, node, other, true);
                    self.network.block(&mut self.base, other, node, true);
                }
            }
        }
        self.point_out(&quorum);
        quorum
    }

    /// A client whose only endpoints are gone for good, and that never heard of other nodes, needs
    /// a new configuration.
    fn point_out(&mut self, quorum: &[usize]) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            if !client.knows_any(quorum) {
                let text = format!("client {at} knows none of the quorum, and is told");
                trace::note(self.base.now, What::Text(text));
                client.begin_at(&mut self.base, &mut self.network, quorum);
            }
        }
    }

    fn must_serve(&mut self) {
        let now = self.base.now;
        for client in &mut self.clients {
            client.count_from(now);
        }
        let until = now.after(SERVE_TIME);
        let mut missing = self.unserved();
        while !missing.is_empty() {
            assert!(
                self.base.now < until,
                "liveness: groups {missing:?} don't serve {SERVE_TIME} us after the last fault"
            );
            // Chance may leave a group out.
            for (at, &group) in missing.iter().enumerate() {
                let client = at % self.clients.len();
                self.clients[client].send_to(&mut self.base, group);
            }
            let next = self.base.now.after(Ticks::from_millis(3_000)).min(until);
            self.run_until(next, |world| world.unserved().is_empty());
            missing = self.unserved();
        }
    }

    /// Groups of which no write, or no read, was done since it is calm.
    fn unserved(&self) -> Vec<GroupId> {
        let is_served = |group: &GroupId| {
            let done = self.clients.iter().filter_map(|client| client.done().get(group));
            let (writes, reads) = done.fold((0, 0), |sum, done| (sum.0 + done.0, sum.1 + done.1));
            writes > 0 && reads > 0
        };
        (1..=self.options.groups).map(GroupId).filter(|group| !is_served(group)).collect()
    }

    fn must_converge(&mut self, quorum: &[usize]) {
        for client in &mut self.clients {
            client.is_done = true;
        }
        let until = self.base.now.after(CONVERGE_TIME);
        let is_idle = |world: &Self| world.clients.iter().all(Client::is_idle);
        if !self.run_until(until, is_idle) {
            panic!("liveness: calls are unanswered {CONVERGE_TIME} us after the last one");
        }
        let last = until.after(Ticks(10 * CONVERGE_TIME.0));
        let (mut until, mut before) = (until, 0);
        while !self.run_until(until, |world| world.difference(quorum).is_none()) {
            // One entry for each round trip over a slow link takes its time; standing still doesn't.
            let applied = self.applied(quorum);
            let difference = self.difference(quorum).expect("there is one");
            assert!(
                applied > before && self.base.now < last,
                "liveness: {difference} {CONVERGE_TIME} us after the last write or progress"
            );
            (until, before) = (until.after(CONVERGE_TIME), applied);
        }
    }

    /// Entries that the nodes of a quorum applied, all together.
    fn applied(&self, quorum: &[usize]) -> u64 {
        let groups = quorum.iter().flat_map(|&node| self.nodes[node].groups(&self.base));
        groups.map(|group| group.applied.0).sum()
    }

    /// Groups that a doomed node leads, as long as it may: it isn't known what its disk lost.
    fn led_by_doomed(&self) -> u64 {
        let doomed = self.options.doomed.iter();
        let groups = doomed.flat_map(|&node| self.nodes[node].groups(&self.base));
        groups.filter(|group| group.role == GroupRole::Leader).count() as u64
    }

    /// What keeps the nodes of a quorum from being alike and at rest, if anything does.
    fn difference(&self, quorum: &[usize]) -> Option<String> {
        let mut ends: BTreeMap<GroupId, (NodeId, Index)> = BTreeMap::new();
        let mut led = self.led_by_doomed();
        for &node in quorum {
            let node = &self.nodes[node];
            let now = node.clock.read(self.base.now);
            if node.lanes().count() != usize::from(self.options.shards) {
                return Some(format!("node {} doesn't serve", node.id));
            }
            for lane in node.lanes() {
                if !lane.shard.is_quiet() {
                    return Some(format!("node {} is still writing", node.id));
                }
                for group in lane.shard.status(now).groups {
                    led += u64::from(group.role == GroupRole::Leader);
                    let first = *ends.entry(group.group).or_insert((node.id, group.applied));
                    if first.1 != group.applied || group.applied != group.last {
                        return Some(format!(
                            "nodes {} and {} differ: {group:?}",
                            first.0, node.id
                        ));
                    }
                }
            }
        }
        let groups = self.options.groups;
        (led != groups).then(|| format!("the quorum {quorum:?} leads {led} of {groups} groups"))
    }

    /// A client reads everything there is.
    fn read_all(&mut self) {
        let now = self.base.now;
        for group in (1..=self.options.groups).map(GroupId) {
            let ask = Ask::Range(Range::current(KeySet::Prefix(Bytes::from(""))));
            let Self { clients, base, history, .. } = self;
            clients[0].submit(base, history, group, ask);
            clients[0].wake(base, base.now);
        }
        let until = now.after(CONVERGE_TIME);
        if !self.run_until(until, |world| world.clients.iter().all(Client::is_idle)) {
            panic!("liveness: the last reads are unanswered");
        }
    }

    fn finish(&mut self, quorum: &[usize]) {
        self.probe();
        for &node in quorum {
            let node = &self.nodes[node];
            for group in node.groups(&self.base) {
                trace::note(
                    self.base.now,
                    What::Final {
                        node: node.id,
                        group: group.group,
                        applied: group.applied.0,
                        hash: group.state_hash,
                    },
                );
            }
        }
    }
}
