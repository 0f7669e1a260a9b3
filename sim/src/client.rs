//! A client: the production library's core with sockets of the simulated network, as
//! `net/src/client/driver.rs` drives it, and somebody who uses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ringraft_net::barrier_wire::BarrierReply;
use ringraft_net::client::{CallId, Core, CoreOptions, LinkId, Outcome};
use ringraft_net::client_wire::{Consistency, Local};
use ringraft_net::handshake::Role;
use ringraft_types::{GroupId, Index, Level, NodeId, Status, Ticks};

use crate::base::{Base, Event, Owner};
use crate::history::{self, Ask, CallName, History, Range};
use crate::net::{Network, Received};
use crate::node::{CLUSTER, address, node_at};
use crate::options::Options;
use crate::trace::{self, What};
use crate::workload::Workload;

/// A call under way.
#[derive(Debug)]
struct Under {
    name: CallName,
    group: GroupId,
    /// It may see no state before this entry.
    at_least: Index,
    /// It sets a key, whatever its compares come to.
    grows: bool,
    /// It sees all that was done, and one node was asked, whether that leads or not.
    is_of_node: bool,
}

/// What a client asks for again and again for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insists {
    /// Of this group.
    pub(crate) group: GroupId,
    /// Reads only; else writes too.
    pub(crate) reads: bool,
    /// So long.
    pub(crate) until: Ticks,
}

/// One client.
pub(crate) struct Client {
    at: usize,
    host: usize,
    /// Lives of its process so far; each is another client to the cluster.
    life: u64,
    core: Core,
    connections: BTreeMap<LinkId, u64>,
    links: BTreeMap<u64, LinkId>,
    made: BTreeSet<u64>,
    news: BTreeSet<u64>,
    calls: BTreeMap<CallId, Under>,
    /// Barriers under way: the group, and an entry that one for the newest must not be before.
    barriers: BTreeMap<CallId, (GroupId, Index)>,
    next_call: u64,
    workload: Workload,
    errands: VecDeque<GroupId>,
    insists: Option<Insists>,
    wake: Ticks,
    next_work: Ticks,
    /// It asks for nothing more.
    pub(crate) is_done: bool,
    options: Rc<Options>,
    /// By group: writes and reads that were done after they began at this time or later.
    since: Ticks,
    done: BTreeMap<GroupId, (u64, u64)>,
    began: BTreeMap<CallId, Ticks>,
    /// The newest entry that an answer of a group had seen.
    seen: BTreeMap<GroupId, Index>,
}

impl Client {
    /// A client that has asked for nothing yet.
    pub(crate) fn new(at: usize, base: &mut Base, options: Rc<Options>) -> Self {
        let endpoints = some_endpoints(base, &options);
        let core = core(base, endpoints);
        Self {
            at,
            host: options.nodes as usize + at,
            life: 1,
            core,
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            made: BTreeSet::new(),
            news: BTreeSet::new(),
            calls: BTreeMap::new(),
            barriers: BTreeMap::new(),
            next_call: 1,
            workload: Workload::default(),
            errands: VecDeque::new(),
            insists: None,
            wake: Ticks::NEVER,
            next_work: Ticks::ZERO,
            is_done: false,
            options,
            since: Ticks::NEVER,
            done: BTreeMap::new(),
            began: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Its place among the hosts.
    pub(crate) fn host(&self) -> usize {
        self.host
    }

    /// Which life its process is in.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    fn name(&self) -> u64 {
        (self.at as u64 + 1) * 1_000 + self.life
    }

    /// Whether no call is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.barriers.is_empty()
    }

    /// From now on what is done is counted.
    pub(crate) fn count_from(&mut self, now: Ticks) {
        self.since = now;
        self.done.clear();
    }

    /// By group: writes and reads done since, begun and ended.
    pub(crate) fn done(&self) -> &BTreeMap<GroupId, (u64, u64)> {
        &self.done
    }

    /// It turns at this time at the latest.
    pub(crate) fn wake(&mut self, base: &mut Base, at: Ticks) {
        let at = at.max(base.now);
        if at < self.wake {
            self.wake = at;
            base.at(at, Event::Client { client: self.at });
        }
    }

    /// The system has news of a connection.
    pub(crate) fn news(&mut self, base: &mut Base, connection: u64) {
        self.news.insert(connection);
        let soon = base.span(Ticks(1), Ticks(20));
        self.wake(base, base.now.after(soon));
    }

    /// Whether it is to turn now.
    pub(crate) fn is_due(&mut self, base: &Base) -> bool {
        let is_due = self.wake == base.now;
        if is_due {
            self.wake = Ticks::NEVER;
        }
        is_due
    }

    /// Its process dies and begins anew; what was under way stays unknown.
    pub(crate) fn die(&mut self, base: &mut Base, network: &mut Network) {
        let endpoints = some_endpoints(base, &self.options);
        self.begin_anew(base, network, endpoints);
    }

    /// Whether it knows where one of these nodes is. A client that doesn't can't find them.
    pub(crate) fn knows_any(&self, nodes: &[usize]) -> bool {
        self.core.addresses().filter_map(node_at).any(|node| nodes.contains(&node))
    }

    /// Its process begins anew, and is told where these nodes are.
    pub(crate) fn begin_at(&mut self, base: &mut Base, network: &mut Network, nodes: &[usize]) {
        let endpoints = nodes.iter().map(|&node| address(NodeId(node as u32 + 1))).collect();
        self.begin_anew(base, network, endpoints);
    }

    fn begin_anew(&mut self, base: &mut Base, network: &mut Network, endpoints: Vec<String>) {
        network.host_down(base, self.host, true);
        self.life += 1;
        network.host_up(base, self.host, self.life);
        self.core = core(base, endpoints);
        self.connections.clear();
        self.links.clear();
        self.made.clear();
        self.news.clear();
        self.calls.clear();
        self.barriers.clear();
        self.began.clear();
        self.workload = Workload::default();
        self.wake(base, base.now.after(Ticks(1_000)));
    }

    /// Turns: asks, connects, sends, receives, and hears.
    pub(crate) fn turn(&mut self, base: &mut Base, network: &mut Network, history: &mut History) {
        if base.now >= self.next_work {
            self.ask(base, history);
            let think = self.options.think;
            self.next_work = base.now.after(base.span(Ticks(1_000), think.after(think)));
        }
        for _ in 0..3 {
            self.core.advance(base.now);
            while let Some(link) = self.core.next_close() {
                self.drop_connection(base, network, link);
            }
            while let Some((link, to)) = self.core.next_connect(base.now) {
                let to = node_at(to).expect("an address of this world");
                let owner = Owner { host: self.host, life: self.life, lane: 0 };
                let connection = network.connect(base, owner, to, Role::Client);
                self.connections.insert(link, connection);
                self.links.insert(connection, link);
            }
            self.send(base, network);
            if self.news.is_empty() {
                break;
            }
            self.receive(base, network);
        }
        self.hear(base, history);
        let next =
            self.core.wake_at().min(if self.is_done { Ticks::NEVER } else { self.next_work });
        let next = if self.news.is_empty() { next } else { base.now.after(Ticks(1)) };
        if next != Ticks::NEVER {
            self.wake(base, next.max(base.now.after(Ticks(1))));
        }
    }

    fn send(&mut self, base: &mut Base, network: &mut Network) {
        for (&link, &connection) in &self.connections {
            if self.made.contains(&connection) && network.room(connection, 0) > 0 {
                let bytes = self.core.outbox(link).take_all();
                network.send(base, connection, 0, bytes);
            }
        }
    }

    fn receive(&mut self, base: &mut Base, network: &mut Network) {
        for connection in std::mem::take(&mut self.news) {
            let Some(&link) = self.links.get(&connection) else { continue };
            if !self.made.contains(&connection) {
                match network.dialled(connection) {
                    None => {}
                    Some(true) => {
                        self.made.insert(connection);
                        self.core.connected(base.now, link);
                    }
                    Some(false) => self.lose(base, network, link),
                }
                continue;
            }
            let space = self.core.inbox(link).space();
            match network.receive(base, connection, 0, space) {
                Received::Nothing => {}
                Received::Ended => self.lose(base, network, link),
                Received::Bytes(count, has_more) => {
                    self.core.inbox(link).filled(count);
                    self.core.received(base.now, link);
                    if has_more {
                        self.news.insert(connection);
                    }
                    while let Some(closed) = self.core.next_close() {
                        self.drop_connection(base, network, closed);
                    }
                }
            }
        }
    }

    fn lose(&mut self, base: &mut Base, network: &mut Network, link: LinkId) {
        self.drop_connection(base, network, link);
        self.core.closed(base.now, link);
    }

    fn drop_connection(&mut self, base: &mut Base, network: &mut Network, link: LinkId) {
        if let Some(connection) = self.connections.remove(&link) {
            self.links.remove(&connection);
            self.made.remove(&connection);
            network.close(base, connection, 0);
        }
    }

    fn ask(&mut self, base: &mut Base, history: &mut History) {
        if self.is_done {
            return;
        }
        while let Some(group) = self.errands.pop_front() {
            let (put, read) = self.workload.errand(self.name());
            self.submit(base, history, group, put);
            self.submit(base, history, group, read);
        }
        if let Some(Insists { group, reads, until }) = self.insists
            && base.now < until
        {
            if self.calls.len() >= 16 {
                return;
            }
            let (put, read) = self.workload.errand(self.name());
            if !reads {
                self.submit(base, history, group, put);
            }
            self.submit(base, history, group, read);
            return;
        }
        let most = self.options.pipeline;
        for _ in 0..base.random.between(1, most) {
            if self.calls.len() as u64 >= most {
                return;
            }
            let group = GroupId(base.random.between(1, self.options.groups));
            if base.random.chance(40_000) {
                self.submit_barrier(base, group);
                continue;
            }
            let ask = self.workload.next(&mut base.random, group, self.name(), &self.options);
            match ask {
                // Every so often any node may answer.
                Ask::Range(range) if range.revision == 0 && self.next_call.is_multiple_of(5) => {
                    let consistency = history::Consistency::Stale;
                    self.submit(base, history, group, Ask::Range(Range { consistency, ..range }));
                }
                // Every so often one node answers, whether it leads or not.
                Ask::Range(range) if self.next_call % 3 == 1 => {
                    let node = self.some_node(3);
                    self.submit_at(base, history, group, Ask::Range(range), Some(node));
                }
                ask => self.submit(base, history, group, ask),
            }
        }
    }

    /// Waits for an entry to be at a level: for the newest that was seen, or for the newest.
    fn submit_barrier(&mut self, base: &mut Base, group: GroupId) {
        let level = base.random.pick(&Level::ALL);
        let seen = self.seen.get(&group).copied().unwrap_or_default();
        let index = Some(seen).filter(|&seen| seen > Index::ZERO && base.random.coin());
        let patience = base.random.pick(&[100, 1_000, 3_000]);
        let deadline = base.now.after(Ticks::from_millis(patience));
        if let Ok(call) = self.core.submit_barrier(group, level, index, deadline) {
            self.barriers.insert(call, (group, seen));
        }
    }

    /// The newest revision of a group that it saw.
    pub(crate) fn known_revision(&self, group: GroupId) -> u64 {
        self.workload.known_revision(group)
    }

    /// A write and a read that every group can serve.
    pub(crate) fn errand(&mut self) -> (Ask, Ask) {
        self.workload.errand(self.name())
    }

    /// Asks this group soon, for a write and a read.
    pub(crate) fn send_to(&mut self, base: &mut Base, group: GroupId) {
        self.errands.push_back(group);
        self.next_work = base.now;
        self.wake(base, base.now);
    }

    /// Asks this for a while, and nothing else.
    pub(crate) fn insist(&mut self, base: &mut Base, insists: Insists) {
        self.insists = Some(insists);
        self.next_work = base.now;
        self.wake(base, base.now);
    }

    /// The node whose turn it is, of those that every so many calls go to.
    fn some_node(&self, calls: u64) -> NodeId {
        let turn = self.next_call / calls;
        NodeId((turn % u64::from(self.options.nodes)) as u32 + 1)
    }

    /// Asks for one thing.
    pub(crate) fn submit(
        &mut self,
        base: &mut Base,
        history: &mut History,
        group: GroupId,
        ask: Ask,
    ) {
        self.submit_at(base, history, group, ask, None);
    }

    /// Asks for one thing; a read of this node alone, if it names one.
    fn submit_at(
        &mut self,
        base: &mut Base,
        history: &mut History,
        group: GroupId,
        ask: Ask,
        node: Option<NodeId>,
    ) {
        let mut command = Vec::new();
        ask.encode(&mut command).expect("the workload keeps the limits");
        let patience = base.random.pick(&[200, 1_000, 5_000, 5_000]);
        let deadline = base.now.after(Ticks::from_millis(patience));
        let (mut at, mut consistency) = (node.map(address), Consistency::Linearizable);
        let mut at_least = Index::ZERO;
        match &ask {
            Ask::Range(range) if range.consistency == history::Consistency::Stale => {
                let turn = self.next_call / 5;
                at = Some(address(self.some_node(5)));
                if turn.is_multiple_of(2) {
                    at_least = self.seen.get(&group).copied().unwrap_or_default();
                }
                let age_ms_max = if turn.is_multiple_of(3) { 300 } else { u32::MAX };
                consistency = Consistency::Local(Local { at_least, age_ms_max, wait_ms: 100 });
            }
            Ask::Range(_) if self.options.raft.lease > Ticks::ZERO && base.random.coin() => {
                consistency = Consistency::Lease;
            }
            _ => {}
        }
        let submitted = match ask.is_read() {
            true => {
                let at = at.as_deref();
                self.core.submit_read_of(at, group, &command, consistency, deadline)
            }
            false => {
                let rare = base.random.chance(60_000);
                let level = if rare { base.random.pick(&Level::ALL) } else { Level::Majority };
                self.core.submit_write_at_level(group, &command, level, deadline)
            }
        };
        // As many calls as the core takes are under way, those included that only fill a gap.
        let Ok(id) = submitted else { return };
        let name = CallName { client: self.name(), number: self.next_call };
        self.next_call += 1;
        trace::note(base.now, What::Asked { client: self.at, call: name.number, group });
        let grows = ask.grows();
        history.invoke(base.now, name, group, ask).expect("time goes on, and names are new");
        let is_of_node = node.is_some();
        self.calls.insert(id, Under { name, group, at_least, grows, is_of_node });
        self.began.insert(id, base.now);
    }

    fn hear(&mut self, base: &mut Base, history: &mut History) {
        for completed in self.core.take_completed() {
            if let Some((group, seen)) = self.barriers.remove(&completed.call) {
                base.count(judge_barrier(group, seen, completed.outcome));
                continue;
            }
            let Some(under) = self.calls.remove(&completed.call) else {
                panic!("V8: a client hears twice of a call, or of one that it never made");
            };
            let began = self.began.remove(&completed.call).unwrap_or_default();
            if matches!(completed.outcome, Outcome::Below(..)) {
                base.count("writes below their level");
            }
            let was_full = base.full_since.is_some_and(|since| since < began);
            let (outcome, word, revision) = match completed.outcome {
                Outcome::Done(answer) | Outcome::Below(answer, _) => {
                    let reply = history::Reply::decode(answer.body)
                        .unwrap_or_else(|error| panic!("V13: a reply can't be read: {error}"));
                    let index = Some(answer.index);
                    assert!(answer.index >= under.at_least, "RD-05: a read sees an older state");
                    let seen = self.seen.entry(under.group).or_default();
                    *seen = answer.index.max(*seen);
                    let revision = answer.revision;
                    self.workload.heard(under.group, &reply, revision);
                    if began >= self.since {
                        let done = self.done.entry(under.group).or_default();
                        match reply {
                            history::Reply::Range(_) => done.1 += 1,
                            _ => done.0 += 1,
                        }
                    }
                    assert!(
                        !under.grows || !was_full,
                        "FC-07: a write that grows was taken while all nodes were full"
                    );
                    let answer = history::Answer { revision, index, reply };
                    (history::Outcome::Done(answer), "done", revision.0)
                }
                Outcome::NotDone(why) => (history::Outcome::NotDone(reason(why)), "not done", 0),
                Outcome::Unknown(why) => (history::Outcome::Unknown(reason(why)), "unknown", 0),
            };
            if under.is_of_node {
                base.count(match word {
                    "done" => "reads of one node done",
                    _ => "reads of one node not done",
                });
            }
            base.count(match word {
                "done" => "calls done",
                "not done" => "calls not done",
                _ => "calls unknown",
            });
            let (client, call) = (self.at, under.name.number);
            trace::note(base.now, What::Answered { client, call, outcome: word, revision });
            history.end(base.now, under.name, outcome).expect("it was begun, and ends once");
        }
    }
}

/// What is to be counted of a barrier that ended. One for the newest entry names none that is before
/// what its client had seen.
fn judge_barrier(group: GroupId, seen: Index, outcome: Outcome<'_>) -> &'static str {
    let answer = match outcome {
        Outcome::Done(answer) => answer,
        _ => return "barriers without an answer",
    };
    let reply = BarrierReply::decode(answer.body).expect("V13: a reply can be read");
    if reply.status != Status::Ok {
        return "barriers that timed out";
    }
    assert!(
        reply.index >= seen,
        "RD-06: entry {} of group {group} is said to be the newest, and {seen} was seen before",
        reply.index
    );
    "barriers reached"
}

fn reason(reason: ringraft_net::client::Reason) -> history::Reason {
    match reason {
        ringraft_net::client::Reason::Deadline => history::Reason::Deadline,
        ringraft_net::client::Reason::Refused(status) => history::Reason::Refused(status),
    }
}

/// The addresses of some nodes, one at least.
fn some_endpoints(base: &mut Base, options: &Options) -> Vec<String> {
    let mut endpoints: Vec<String> =
        (1..=options.nodes).map(|node| address(NodeId(node))).collect();
    base.random.shuffle(&mut endpoints);
    endpoints.truncate(base.random.between(1, u64::from(options.nodes)) as usize);
    endpoints
}

fn core(base: &mut Base, endpoints: Vec<String>) -> Core {
    let seed = u128::from(base.random.any()) << 64 | u128::from(base.random.any());
    Core::new(CoreOptions {
        endpoints,
        cluster: Some(CLUSTER),
        calls_max: 256,
        outbox_bytes_max: 1 << 20,
        seed,
    })
}
