//! A few cores, driven by hand: every delivery, completion and tick is a call.

use ringraft_raft::{
    Boot, Change, ChangeRefused, Configured, Entries, EntryHead, Envelope, Fetch, HardState, Input,
    LogShape, Message, Output, Plan, Raft, Settings, Token,
};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};
use std::collections::{BTreeMap, VecDeque};

/// A message under way, with the entries it carries.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) message: Message,
    pub(crate) heads: Vec<EntryHead>,
}

pub(crate) struct Node {
    pub(crate) raft: Raft,
    /// All entries, those that only a snapshot holds included.
    pub(crate) log: Vec<EntryHead>,
    /// What the newest durable snapshot holds.
    pub(crate) snapshot: Vec<EntryHead>,
    /// What survives a crash.
    pub(crate) disk: (HardState, Vec<EntryHead>),
    /// Outstanding batches, and what the disk holds after each.
    pub(crate) batches: VecDeque<(Token, HardState, Vec<EntryHead>)>,
    pub(crate) gated: Vec<(Token, Envelope)>,
    pub(crate) fetch: VecDeque<Fetch>,
    /// It is to go on from a joint configuration.
    pub(crate) completes: bool,
}

pub(crate) struct Cluster {
    pub(crate) now: Ticks,
    pub(crate) settings: Settings,
    /// Nodes start at the very moment.
    pub(crate) is_fresh: bool,
    /// What the group begins with.
    pub(crate) first: Configuration,
    /// Those that join later: they know of nobody.
    pub(crate) joins: Vec<u32>,
    /// What entries say that are configurations.
    pub(crate) configurations: BTreeMap<LogId, Configuration>,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) links: BTreeMap<(u32, u32), VecDeque<Mail>>,
    /// The output of the last step.
    pub(crate) out: Output,
}

/// Terms of a log, one per entry, as heads of 48 bytes each.
pub(crate) fn heads(terms: &[u64]) -> Vec<EntryHead> {
    terms.iter().map(|&term| EntryHead { term: Term(term), bytes: 48 }).collect()
}

pub(crate) fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn end_of(snapshot: &[EntryHead]) -> LogId {
    let term = snapshot.last().map_or(Term::ZERO, |head| head.term);
    LogId::new(term, Index(snapshot.len() as u64))
}

impl Cluster {
    pub(crate) fn new(voters: &[u32]) -> Self {
        Self {
            now: Ticks::from_millis(1000),
            settings: Settings {
                election_timeout: Ticks::from_millis(100),
                heartbeat_interval: Ticks::from_millis(30),
                append_entries_max: 4,
                append_bytes_max: 1000,
                inflight_appends_max: 2,
                inflight_bytes_max: 10_000,
                reads_waiting_max: 4,
                commits_by_half: false,
                lease: Ticks::ZERO,
                hibernate_after: Ticks::ZERO,
            },
            is_fresh: false,
            first: Configuration::first(nodes(voters), Vec::new()).expect("sound"),
            joins: Vec::new(),
            configurations: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            out: Output::default(),
        }
    }

    /// A cluster of new nodes.
    pub(crate) fn started(voters: &[u32]) -> Self {
        let mut cluster = Self::new(voters);
        for &id in voters {
            cluster.boot(id, 0, None, 0, &[]);
        }
        cluster
    }

    pub(crate) fn boot(
        &mut self,
        id: u32,
        term: u64,
        vote: Option<u32>,
        commit: u64,
        terms: &[u64],
    ) {
        let hard_state =
            HardState { term: Term(term), vote: vote.map(NodeId), commit: Index(commit) };
        self.boot_with(id, hard_state, &heads(terms), &[], None);
    }

    /// Starts from a log that was never cut, and a snapshot.
    pub(crate) fn boot_with(
        &mut self,
        id: u32,
        hard_state: HardState,
        log: &[EntryHead],
        snapshot: &[EntryHead],
        vote_floor: Option<LogId>,
    ) {
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for (index, head) in (1..).map(Index).zip(log) {
            if runs.last().is_none_or(|run| run.1 < head.term) {
                runs.push((index, head.term));
            }
        }
        let shape = LogShape { base: LogId::ZERO, runs, last: Index(log.len() as u64) };
        let base = end_of(snapshot);
        let (shape, _) = shape.after_snapshot(base).expect("the log was never cut");
        let mut whole = snapshot.to_vec();
        whole.extend(&log[base.index.0.min(log.len() as u64) as usize..]);
        whole.truncate(shape.last.0 as usize);
        let boot = Boot {
            id: NodeId(id),
            configuration: self.configuration_at(id, snapshot),
            logged: self.configurations_of(Index(1), &whole),
            hard_state,
            log: shape,
            vote_floor,
            seed: u64::from(id),
        };
        // It started an election timeout ago, and owes nobody anything: or no test could have it
        // vote. One that is about what a start owes says so.
        let ago = if self.is_fresh { Ticks::ZERO } else { self.settings.election_timeout };
        let raft = Raft::new(Ticks(self.now.0 - ago.0), self.settings, boot);
        let node = Node {
            raft,
            disk: (hard_state, log.to_vec()),
            log: whole,
            snapshot: snapshot.to_vec(),
            batches: VecDeque::new(),
            gated: Vec::new(),
            fetch: VecDeque::new(),
            completes: false,
        };
        self.nodes.insert(id, node);
    }

    /// What these entries say that are configurations; the first entry's index is `first`.
    pub(crate) fn configurations_of(&self, first: Index, log: &[EntryHead]) -> Vec<Configured> {
        let ids = (first.0..).zip(log).map(|(index, head)| LogId::new(head.term, Index(index)));
        let configured = ids.filter_map(|id| {
            let configuration = self.configurations.get(&id)?.clone();
            Some(Configured { index: id.index, configuration, is_of_another: false })
        });
        configured.collect()
    }

    /// The configuration in force where this log ends.
    fn configuration_at(&self, id: u32, log: &[EntryHead]) -> Configured {
        let first = match self.joins.contains(&id) {
            true => Configuration::none(),
            false => self.first.clone(),
        };
        let first = Configured { index: Index::ZERO, configuration: first, is_of_another: false };
        self.configurations_of(Index(1), log).pop().unwrap_or(first)
    }

    /// Asks for a change, and makes it.
    pub(crate) fn change(
        &mut self,
        id: u32,
        expected: u64,
        change: Change<'_>,
    ) -> Result<(), ChangeRefused> {
        self.out.clear();
        if let Plan::Append(next) = self.raft(id).plan(self.now, Index(expected), change)? {
            self.configure(id, &next);
            assert_eq!(self.out.refused, None);
        }
        Ok(())
    }

    pub(crate) fn configure(&mut self, id: u32, configuration: &Configuration) {
        self.step(id, Input::Configure { configuration, bytes: 96 });
    }

    /// Goes on from a joint configuration, if it is to.
    pub(crate) fn complete(&mut self, id: u32) -> bool {
        let next = self.raft(id).completion();
        self.nodes.get_mut(&id).expect("booted").completes = false;
        next.inspect(|next| self.configure(id, next)).is_some()
    }

    /// Loses what isn't durable and starts from the disk.
    pub(crate) fn crash(&mut self, id: u32) {
        let (hard_state, log) = self.nodes[&id].disk.clone();
        let snapshot = self.nodes[&id].snapshot.clone();
        self.boot_with(id, hard_state, &log, &snapshot, None);
    }

    /// A node takes a snapshot up to here, and its log gives up what it holds.
    pub(crate) fn release(&mut self, id: u32, through: u64) {
        let node = self.nodes.get_mut(&id).expect("booted");
        node.snapshot = node.log[..through as usize].to_vec();
        self.step(id, Input::Released { through: Index(through) });
    }

    /// A node gets another's snapshot up to here, and loads it.
    pub(crate) fn install(&mut self, id: u32, from: u32, through: u64) {
        let snapshot = self.nodes[&from].log[..through as usize].to_vec();
        let last = end_of(&snapshot);
        let node = self.nodes.get_mut(&id).expect("booted");
        assert!(node.raft.may_install(last), "it is of no use");
        node.snapshot = snapshot.clone();
        let configuration = &self.configuration_at(from, &snapshot);
        self.step(id, Input::Installed { last, configuration });
        let node = &self.nodes[&id];
        assert_eq!(node.log[..through as usize], node.snapshot, "the snapshot is what it holds");
    }

    /// Entries of these terms are in a node's log again, behind those that it started with.
    pub(crate) fn refill(&mut self, id: u32, terms: &[u64]) {
        let node = self.nodes.get_mut(&id).expect("booted");
        let first = Index(node.log.len() as u64 + 1);
        node.log.extend(heads(terms));
        let last = Index(node.log.len() as u64);
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for (index, &term) in (first.0..).map(Index).zip(terms) {
            if runs.last().is_none_or(|run| run.1 < Term(term)) {
                runs.push((index, Term(term)));
            }
        }
        let configurations = self.configurations_of(first, &heads(terms));
        let input = Input::Refilled { runs: &runs, last, configurations: &configurations };
        self.step(id, input);
    }

    pub(crate) fn raft(&self, id: u32) -> &Raft {
        &self.nodes[&id].raft
    }

    pub(crate) fn step(&mut self, id: u32, input: Input<'_>) {
        self.out.clear();
        let node = self.nodes.get_mut(&id).expect("booted");
        node.raft.step(self.now, input, &mut self.out);
        let carried = match input {
            Input::Message { message: Message::Append(append), entries, .. } => {
                Some((append.prev.index.next(), entries.heads))
            }
            _ => None,
        };
        let proposed: Vec<EntryHead> = match input {
            Input::Propose { bytes } => {
                let term = node.raft.term();
                bytes.iter().map(|&bytes| EntryHead { term, bytes }).collect()
            }
            Input::Configure { bytes, .. } => vec![EntryHead { term: node.raft.term(), bytes }],
            _ => Vec::new(),
        };
        let fetched = match input {
            Input::Fetched { first, heads, .. } => Some((first, heads)),
            _ => None,
        };
        if self.out.emptied.is_some() {
            node.log = node.snapshot.clone();
        } else if let Some(index) = self.out.truncate_from {
            node.log.truncate(index.0 as usize - 1);
        }
        if let Some(span) = self.out.append {
            assert_eq!(span.first.0 as usize, node.log.len() + 1);
            match (self.out.new_term_entry, carried) {
                (Some(term), _) => node.log.push(EntryHead { term, bytes: 40 }),
                (None, Some((first, heads))) => {
                    node.log.extend(&heads[(span.first.0 - first.0) as usize..]);
                }
                (None, None) => node.log.extend(proposed),
            }
            assert_eq!(span.last.0 as usize, node.log.len());
            if let Input::Configure { configuration, .. } = input {
                let id = LogId::new(node.raft.term(), span.last);
                let was = self.configurations.insert(id, configuration.clone());
                assert_eq!(was, None);
            }
        }
        node.completes |= self.out.completes;
        if let Some(token) = self.out.token {
            let newest = node.batches.back().map_or(node.disk.0, |batch| batch.1);
            let hard_state = self.out.hard_state.unwrap_or(newest);
            node.batches.push_back((token, hard_state, node.log.clone()));
        }
        node.fetch.extend(&self.out.fetch);
        let gated = self.out.send_after_persist.iter().map(|gated| (gated.token, gated.envelope));
        node.gated.extend(gated);
        for envelope in self.out.send_now.clone() {
            self.post(id, envelope, fetched);
        }
    }

    fn post(&mut self, from: u32, envelope: Envelope, fetched: Option<(Index, &[EntryHead])>) {
        let heads = match envelope.message {
            Message::Append(append) => {
                let first = append.prev.index.0 as usize;
                let heads = self.nodes[&from].log[first..first + append.count as usize].to_vec();
                if let Some((index, fetched)) = fetched
                    && index.0 as usize == first + 1
                {
                    assert_eq!(heads, fetched);
                }
                heads
            }
            _ => Vec::new(),
        };
        let to = envelope.to.0;
        let mail = Mail { from, to, message: envelope.message, heads };
        self.links.entry((from, to)).or_default().push_back(mail);
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        self.now = self.now.after(Ticks::from_millis(millis));
    }

    pub(crate) fn tick(&mut self, id: u32) {
        self.step(id, Input::Tick);
    }

    /// Lets the time pass until this node wants a tick, and ticks it.
    pub(crate) fn timeout(&mut self, id: u32) {
        self.now = self.now.max(self.raft(id).wake_at());
        self.tick(id);
    }

    pub(crate) fn propose(&mut self, id: u32, bytes: &[u32]) {
        self.step(id, Input::Propose { bytes });
    }

    pub(crate) fn flush(&mut self, id: u32) {
        self.out.clear();
        let node = self.nodes.get_mut(&id).expect("booted");
        node.raft.flush_reads(self.now, &mut self.out);
        for envelope in self.out.send_now.clone() {
            self.post(id, envelope, None);
        }
    }

    /// The oldest outstanding batch becomes durable.
    pub(crate) fn persist_one(&mut self, id: u32) -> bool {
        let node = self.nodes.get_mut(&id).expect("booted");
        let Some((token, hard_state, log)) = node.batches.pop_front() else { return false };
        node.disk = (hard_state, log);
        let gated = std::mem::take(&mut node.gated);
        let (released, kept) = gated.into_iter().partition(|(gate, _)| *gate <= token);
        node.gated = kept;
        let released: Vec<(Token, Envelope)> = released;
        for (_, envelope) in released {
            self.post(id, envelope, None);
        }
        self.step(id, Input::Persisted { token });
        true
    }

    pub(crate) fn persist(&mut self, id: u32) {
        while self.persist_one(id) {}
    }

    /// Takes the oldest message of a link.
    pub(crate) fn take(&mut self, from: u32, to: u32) -> Option<Mail> {
        self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front)
    }

    pub(crate) fn hand(&mut self, mail: &Mail) {
        let Mail { from, to, message, heads } = mail;
        let from = NodeId(*from);
        let configurations = match message {
            Message::Append(append) => self.configurations_of(append.prev.index.next(), heads),
            _ => Vec::new(),
        };
        let entries = Entries { heads, configurations: &configurations };
        assert_eq!(self.raft(*to).judge(from, message, entries), Ok(()));
        self.step(*to, Input::Message { from, message: *message, entries });
    }

    /// Delivers what is under way on a link, in order.
    pub(crate) fn deliver(&mut self, from: u32, to: u32) {
        let under_way = self.links.get(&(from, to)).map_or(0, VecDeque::len);
        for _ in 0..under_way {
            let mail = self.take(from, to).expect("counted");
            self.hand(&mail);
        }
    }

    pub(crate) fn drop_link(&mut self, from: u32, to: u32) {
        self.links.remove(&(from, to));
    }

    /// Cuts a node off: what is under way from and to it is lost.
    pub(crate) fn isolate(&mut self, id: u32) {
        self.links.retain(|&(from, to), _| from != id && to != id);
    }

    /// Persists and delivers among these nodes until nothing is under way; what goes to others
    /// is lost.
    pub(crate) fn settle(&mut self, ids: &[u32]) {
        loop {
            let mut is_quiet = true;
            for &id in ids {
                while self.persist_one(id) {
                    is_quiet = false;
                }
                if self.nodes[&id].completes && self.complete(id) {
                    is_quiet = false;
                }
            }
            for &from in ids {
                for &to in ids {
                    if self.links.get(&(from, to)).is_some_and(|link| !link.is_empty()) {
                        self.deliver(from, to);
                        is_quiet = false;
                    }
                }
            }
            if is_quiet {
                break;
            }
        }
        self.links.clear();
    }

    /// Makes a node lead with the help of these, itself among them.
    pub(crate) fn elect(&mut self, id: u32, ids: &[u32]) {
        let timeout = Ticks(self.settings.election_timeout.0 * 2);
        self.now = self.now.after(timeout);
        self.tick(id);
        self.settle(ids);
    }

    /// A round of heartbeats of this leader and their answers.
    pub(crate) fn beat(&mut self, id: u32, ids: &[u32]) {
        assert!(self.raft(id).wake_at() < Ticks::NEVER, "node {id} doesn't lead");
        self.timeout(id);
        self.settle(ids);
    }

    /// The terms of a node's log.
    pub(crate) fn terms(&self, id: u32) -> Vec<u64> {
        self.nodes[&id].log.iter().map(|head| head.term.0).collect()
    }
}
