//! One node: the core, what its owner remembers, and its disk.

use ringraft_raft::{Boot, Envelope, HardState, LogShape, Raft, Settings, Token};
use ringraft_types::{Index, LogId, NodeId, Term, Ticks};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) value: u64,
    pub(crate) bytes: u32,
}

/// What one step asked to persist.
pub(crate) struct Batch {
    pub(crate) token: Token,
    pub(crate) truncate_from: Option<Index>,
    pub(crate) append: Vec<Entry>,
    pub(crate) hard_state: Option<HardState>,
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) log: Vec<Entry>,
}

impl Disk {
    pub(crate) fn write(&mut self, batch: Batch) {
        if let Some(index) = batch.truncate_from {
            self.log.truncate(index.0 as usize - 1);
        }
        self.log.extend(batch.append);
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// None while crashed.
    pub(crate) raft: Option<Raft>,
    /// Counts restarts: what belongs to an earlier life is void.
    pub(crate) life: u32,
    /// The log as the owner holds it, durable or not.
    pub(crate) log: Vec<Entry>,
    pub(crate) disk: Disk,
    /// Not durable yet.
    pub(crate) batches: VecDeque<Batch>,
    pub(crate) gated: Vec<(Token, Envelope)>,
    /// Entries below are not in the owner's cache.
    pub(crate) first_cached: Index,
    /// Applied up to here.
    pub(crate) commit: Index,
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            raft: None,
            life: 0,
            log: Vec::new(),
            disk: Disk::default(),
            batches: VecDeque::new(),
            gated: Vec::new(),
            first_cached: Index(1),
            commit: Index::ZERO,
        }
    }

    /// Starts from the disk.
    pub(crate) fn boot(&mut self, now: Ticks, settings: Settings, voters: &[NodeId], seed: u64) {
        assert!(self.raft.is_none());
        self.log = self.disk.log.clone();
        self.first_cached = Index(self.log.len() as u64 + 1);
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for (position, entry) in self.log.iter().enumerate() {
            if runs.last().is_none_or(|run| run.1 < entry.term) {
                runs.push((Index(position as u64 + 1), entry.term));
            }
        }
        let boot = Boot {
            id: self.id,
            voters: voters.to_vec(),
            hard_state: self.disk.hard_state,
            log: LogShape { base: LogId::ZERO, runs, last: Index(self.log.len() as u64) },
            vote_floor: None,
            seed,
        };
        let raft = Raft::new(now, settings, boot);
        self.commit = raft.commit();
        self.raft = Some(raft);
    }

    /// Loses everything but the disk; the `written` oldest batches had reached it.
    pub(crate) fn crash(&mut self, written: usize) {
        self.raft = None;
        self.life += 1;
        self.gated.clear();
        for batch in self.batches.drain(..).take(written) {
            self.disk.write(batch);
        }
    }

    /// Leads, and knows what is committed.
    pub(crate) fn is_ready(&self) -> bool {
        self.raft.as_ref().is_some_and(Raft::is_ready)
    }

    /// Everything up to `last` is committed and durable here.
    pub(crate) fn has_all(&self, last: Index) -> bool {
        self.raft.as_ref().is_some_and(|raft| (raft.commit(), raft.persisted()) == (last, last))
    }

    /// Entries `first ..= last` as the owner holds them.
    pub(crate) fn entries(&self, first: Index, last: Index) -> Vec<Entry> {
        self.log[first.0 as usize - 1..last.0 as usize].to_vec()
    }
}
