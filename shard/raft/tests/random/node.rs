//! One node: the core, what its owner remembers, and its disk.

use crate::disk::{Batch, Disk, end_of};
use crate::members::{Registry, configured, in_force};
use ringraft_raft::{Boot, Envelope, Raft, Settings, Token};
use ringraft_types::{Configuration, Index, NodeId, Term, Ticks};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) value: u64,
    pub(crate) bytes: u32,
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// None while crashed.
    pub(crate) raft: Option<Raft>,
    /// Counts restarts: what belongs to an earlier life is void.
    pub(crate) life: u32,
    /// Of other nodes, the life of the newest connection.
    pub(crate) met: BTreeMap<usize, u32>,
    /// The log as the owner holds it, durable or not; before its base, what the snapshot holds.
    pub(crate) log: Vec<Entry>,
    pub(crate) disk: Disk,
    /// What rot had taken when it started, to be looked at when it says that it is whole.
    pub(crate) lost: Vec<Entry>,
    /// Not durable yet.
    pub(crate) batches: VecDeque<Batch>,
    pub(crate) gated: Vec<(Token, Envelope)>,
    /// Entries below are not in the owner's cache.
    pub(crate) first_cached: Index,
    /// Applied up to here.
    pub(crate) commit: Index,
    /// The configuration that it was formatted with; nobody's if it is to join.
    pub(crate) first: Configuration,
    /// It is to go on from a joint configuration, in a moment.
    pub(crate) is_completing: bool,
    /// A snapshot is under way, of itself or from another node.
    pub(crate) is_snapshotting: bool,
}

impl Node {
    pub(crate) fn new(id: NodeId, first: Configuration) -> Self {
        Self {
            id,
            raft: None,
            life: 0,
            met: BTreeMap::new(),
            log: Vec::new(),
            disk: Disk::default(),
            lost: Vec::new(),
            batches: VecDeque::new(),
            gated: Vec::new(),
            first_cached: Index(1),
            commit: Index::ZERO,
            first,
            is_completing: false,
            is_snapshotting: false,
        }
    }

    /// Starts from the disk.
    pub(crate) fn boot(&mut self, now: Ticks, settings: Settings, registry: &Registry, seed: u64) {
        assert!(self.raft.is_none());
        self.log = self.disk.whole();
        self.lost.clone_from(&self.disk.lost);
        self.first_cached = Index(self.log.len() as u64 + 1);
        let found = self.disk.shape().after_snapshot(end_of(&self.disk.snapshot));
        let (log, truncate_from) = found.expect("nothing is missing");
        assert_eq!(log.last.0 as usize, self.log.len(), "what follows the snapshot is kept");
        // Before all else; it is in the log's order, so it may be durable later.
        let token = Token::default();
        let cut = |_| Batch { token, truncate_from, append: None, hard_state: None };
        self.batches.extend(truncate_from.map(cut));
        let boot = Boot {
            id: self.id,
            configuration: in_force(registry, &self.first, &self.disk.snapshot),
            logged: configured(registry, &self.log).collect(),
            hard_state: self.disk.hard_state,
            log,
            vote_floor: (!self.disk.lost.is_empty()).then(|| end_of(&self.disk.lost)),
            seed,
        };
        let raft = Raft::new(now, settings, boot);
        assert_eq!(raft.vote_floor().is_some(), self.disk.is_damaged());
        self.commit = raft.commit();
        self.raft = Some(raft);
    }

    /// Loses everything but the disk; the `written` oldest batches had reached it.
    pub(crate) fn crash(&mut self, written: usize) {
        self.raft = None;
        self.life += 1;
        self.is_snapshotting = false;
        self.is_completing = false;
        self.gated.clear();
        for batch in self.batches.drain(..).take(written) {
            self.disk.write(batch);
        }
    }

    /// Whether a start finds so many entries as they are. A snapshot that is stored and not yet
    /// loaded may say otherwise of what never was committed: then they are rightly gone.
    pub(crate) fn is_durable(&self, count: usize) -> bool {
        let common = self.log.len().min(self.disk.snapshot.len());
        let is_superseded = self.log[..common] != self.disk.snapshot[..common];
        let is_loaded = self.raft.as_ref().is_none_or(|raft| raft.commit().0 as usize >= common);
        assert!(!(is_superseded && is_loaded), "what is committed differs from the snapshot");
        is_superseded || self.disk.begins_with(&self.log[..count])
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
