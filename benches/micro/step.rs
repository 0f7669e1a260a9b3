//! The protocol alone: what proposing, following and committing 1,000 entries costs.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringraft_raft::{
    Append, AppendOutcome, Boot, Configured, Entries, EntryHead, HardState, Input, LogShape,
    Message, Output, Raft, RoleKind, Settings,
};
use ringraft_types::{Configuration, Index, LogId, NodeId, Term, Ticks};

const ENTRIES: usize = 1_000;
const RECORD_BYTES: u32 = 232;

fn settings() -> Settings {
    Settings {
        election_timeout: Ticks::from_millis(600),
        heartbeat_interval: Ticks::from_millis(100),
        append_entries_max: 4_096,
        append_bytes_max: 1 << 20,
        inflight_appends_max: 64,
        inflight_bytes_max: 8 << 20,
        reads_waiting_max: 1_024,
        commits_by_half: false,
        lease: Ticks::ZERO,
        hibernate_after: Ticks::ZERO,
    }
}

fn boot(id: u32) -> Boot {
    let configuration = Configuration::first((1..=3).map(NodeId).collect(), Vec::new());
    let configuration = configuration.expect("three voters");
    Boot {
        id: NodeId(id),
        configuration: Configured { index: Index::ZERO, configuration, is_of_another: false },
        logged: Vec::new(),
        hard_state: HardState::default(),
        log: LogShape::default(),
        vote_floor: None,
        seed: 7,
    }
}

/// A node, its time, and the output that it reuses.
struct Node {
    raft: Raft,
    now: Ticks,
    out: Output,
}

impl Node {
    fn new(id: u32) -> Self {
        let now = Ticks(1);
        Self { raft: Raft::new(now, settings(), boot(id)), now, out: Output::default() }
    }

    fn step(&mut self, input: Input<'_>) {
        self.out.clear();
        self.raft.step(self.now, input, &mut self.out);
    }

    fn message(&mut self, from: u32, message: Message, heads: &[EntryHead]) {
        let entries = Entries { heads, configurations: &[] };
        self.step(Input::Message { from: NodeId(from), message, entries });
    }

    fn persist(&mut self) {
        if let Some(token) = self.out.token {
            self.step(Input::Persisted { token });
        }
    }

    /// Both followers accept everything up to the last entry.
    fn accept_all(&mut self) {
        let term = self.raft.term();
        for from in [2, 3] {
            let outcome = AppendOutcome::Accepted { matched: self.raft.last() };
            let (append_term, commit) = (term, Index::ZERO);
            self.message(from, Message::AppendReply { term, append_term, outcome, commit }, &[]);
        }
    }

    fn lead(&mut self) {
        self.now = self.raft.wake_at();
        self.step(Input::Tick);
        let term = self.raft.term().next();
        self.message(2, Message::PreVoteReply { term, granted: true }, &[]);
        self.persist();
        self.message(2, Message::VoteReply { term, granted: true }, &[]);
        assert_eq!(self.raft.role(), RoleKind::Leader);
        self.persist();
        self.accept_all();
    }
}

fn leader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_step");
    group.throughput(Throughput::Elements(ENTRIES as u64));
    let bytes = [RECORD_BYTES; ENTRIES];
    let mut node = Node::new(1);
    node.lead();
    group.bench_function("propose_persist_commit_1000", |bencher| {
        bencher.iter(|| {
            node.step(Input::Propose { bytes: black_box(&bytes) });
            node.persist();
            node.accept_all();
            let first = node.raft.last().next();
            node.step(Input::Trimmed { first });
        });
    });
    let heads = [EntryHead { term: Term(1), bytes: RECORD_BYTES }; ENTRIES];
    let mut node = Node::new(2);
    let mut last = 0;
    group.bench_function("follow_1000", |bencher| {
        bencher.iter(|| {
            let term = Term(if last == 0 { 0 } else { 1 });
            let append = Append {
                term: Term(1),
                prev: LogId::new(term, Index(last)),
                commit: Index(last),
                count: ENTRIES as u32,
            };
            node.message(1, Message::Append(append), black_box(&heads));
            node.persist();
            last += ENTRIES as u64;
            node.step(Input::Trimmed { first: Index(last + 1) });
        });
    });
    group.finish();
}

criterion_group!(benches, leader);
criterion_main!(benches);
