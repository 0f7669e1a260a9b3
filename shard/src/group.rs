//! One group on its shard: the protocol, the machine, the sessions, and who waits for what.

use crate::limits::STATE_NOTE_ENTRIES;
use crate::links::ConnectionId;
use crate::machine::StateMachine;
use crate::members::Book;
use crate::repair::Holes;
use crate::session::Sessions;
use crate::share::Pending;
use crate::snapshots::SnapshotReason;
use crate::states::{Comparing, Notes};
use ringraft_raft::{Raft, RoleKind, output::Gated};
use ringraft_types::{GroupId, Index, LogId, NodeId, Sequence, Term, Ticks};
use ringraft_wal::{NamedSnapshot, SnapshotHead};
use std::collections::{BTreeSet, VecDeque};

/// A write that was proposed here and waits for apply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) index: Index,
    pub(crate) connection: ConnectionId,
    pub(crate) call: u64,
    pub(crate) bytes: u32,
}

/// The reads of one client frame.
#[derive(Debug)]
pub(crate) struct ReadBatch {
    pub(crate) ticket: u64,
    pub(crate) connection: ConnectionId,
    /// Set when a majority confirmed, or the leader that was asked; served when this is applied.
    pub(crate) index: Option<Index>,
    /// Refused then, if what it waits for isn't applied yet.
    pub(crate) until: Ticks,
    /// It asks for what this node has, and not for all that was done.
    pub(crate) is_local: bool,
    /// The frame's body, checked.
    pub(crate) body: Vec<u8>,
}

/// One proposal of one turn, for the stage times: writes of one turn move together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) last: Index,
    pub(crate) count: u64,
    /// The block that carries the newest of it.
    pub(crate) sequence: Sequence,
    pub(crate) arrived: Ticks,
    pub(crate) proposed: Ticks,
    pub(crate) submitted: Option<Ticks>,
    pub(crate) durable: Option<Ticks>,
    pub(crate) committed: Option<Ticks>,
}

/// Why a group refuses to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Rot took entries of its log, and they haven't come again; or what it holds can't be read.
    Damaged,
    /// The node's data directory is an older copy: what it promised since, it doesn't know.
    RolledBack,
    /// A committed command is unknown to this version: applying on would skip it.
    UnknownCommand(Index),
    /// It isn't on this node any more.
    Removed,
    /// Its state is another one than that of a majority, though the log is the same: it is fenced
    /// until it is rebuilt from a snapshot of the leader (V7, decision 0030).
    Diverged,
}

/// Why a group is to install a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// This leader's log begins behind this entry. It says so again while this node lacks that.
    Leader(NodeId, LogId),
    /// A start found this entry missing, nobody who was asked has it in a log, and nobody leads
    /// (decision 0013).
    Repair(Index),
    /// The state here isn't to be trusted: this leader gives one of this entry or a later one
    /// (decision 0030).
    State(NodeId, Index),
}

impl Need {
    /// The entry that a snapshot must cover at least.
    pub(crate) fn least(self) -> Index {
        match self {
            Self::Leader(_, base) => base.index,
            Self::Repair(missing) => missing,
            Self::State(_, applied) => applied,
        }
    }
}

/// One group.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) raft: Raft,
    /// The configurations that count, with how to reach their members.
    pub(crate) book: Book,
    /// Whom they name.
    pub(crate) named_nodes: BTreeSet<NodeId>,
    /// A configuration was applied since somebody last looked.
    pub(crate) members_applied: bool,
    pub(crate) machine: Box<dyn StateMachine>,
    /// What it held when somebody last counted.
    pub(crate) data_bytes: u64,
    pub(crate) sessions: Sessions,
    /// Everything up to here is in the machine. Never goes back (I-02).
    pub(crate) applied: Index,
    /// Everything up to here is committed, as the protocol told.
    pub(crate) committed: Index,
    /// How long the log was, in bytes written since the start, when it was told last what is
    /// committed.
    pub(crate) commit_noted_at: u64,
    pub(crate) halt: Option<Halt>,
    /// Who waits for the group was told that it halts.
    pub(crate) halt_told: bool,
    /// It may have promised what rot or an older copy took: it takes no part in the protocol at all.
    pub(crate) is_muted: bool,
    /// What a start found missing and what lies behind it, as long as the log is as it was then.
    pub(crate) holes: Option<Box<Holes>>,
    /// Writes proposed here, ascending by index.
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) waiting_bytes: usize,
    /// This turn's proposals: each record's bytes.
    pub(crate) proposals: Vec<u32>,
    pub(crate) proposals_arrived: Ticks,
    /// Ascending by ticket.
    pub(crate) reads: VecDeque<ReadBatch>,
    /// Those that need no round, or that the leader has answered: each waits for its entry to be
    /// applied.
    pub(crate) reads_placed: VecDeque<ReadBatch>,
    /// Of both.
    pub(crate) reading: Pending,
    /// What a snapshot is needed for, until it is asked for.
    pub(crate) install: Option<Need>,
    /// Messages that wait for their token.
    pub(crate) gated: VecDeque<Gated>,
    pub(crate) batches: VecDeque<Batch>,
    /// A read of the log for apply is under way.
    pub(crate) apply_fetch: bool,
    /// Records that a read of the log brought for apply, and where the next one begins.
    pub(crate) apply_stock: Option<(Vec<u8>, usize)>,
    /// Who led when somebody last looked, for the count of changes.
    pub(crate) leader_seen: Option<NodeId>,
    /// Since when nobody is known to lead, as far as that was looked at.
    pub(crate) leaderless_since: Option<Ticks>,
    /// The role when somebody last looked.
    pub(crate) role_seen: RoleKind,
    /// Its snapshots on the disk, ascending.
    pub(crate) kept: Vec<SnapshotHead>,
    /// Files of snapshots that can't be loaded: they go when there is a newer one.
    pub(crate) unreadable: Vec<u64>,
    /// What the log named may be anything: until it names one again a start knows as little.
    pub(crate) is_name_lost: bool,
    /// It hibernates, as was seen after its last step.
    pub(crate) rests: bool,
    /// The snapshot that the log names.
    pub(crate) named: Option<NamedSnapshot>,
    /// The newest entry of the one that a durable record names.
    pub(crate) named_durable: Index,
    /// Up to here the log has given its entries up.
    pub(crate) released: Index,
    /// When the last one was taken; the start, if none was.
    pub(crate) snapshot_at: Ticks,
    /// The entry at which a snapshot is to be taken, and why: nothing behind it is applied before.
    pub(crate) save_at: Option<(Index, SnapshotReason)>,
    /// What the state's hash was at some entries, for comparing.
    pub(crate) notes: Notes,
    /// What is known of the others' states.
    pub(crate) comparing: Comparing,
    /// Set while the group is in the shard's list of groups to compare.
    pub(crate) compare_listed: bool,
    /// Set while the group is in the shard's list of groups to apply.
    pub(crate) apply_listed: bool,
    /// Set while the group is in the shard's list of groups touched in this turn.
    pub(crate) touched: bool,
}

impl Group {
    pub(crate) fn new(
        id: GroupId,
        raft: Raft,
        book: Book,
        machine: Box<dyn StateMachine>,
        halt: Option<Halt>,
    ) -> Self {
        Self {
            id,
            raft,
            book,
            named_nodes: BTreeSet::new(),
            members_applied: false,
            machine,
            data_bytes: 0,
            sessions: Sessions::new(),
            applied: Index::ZERO,
            committed: Index::ZERO,
            commit_noted_at: 0,
            halt,
            halt_told: false,
            is_muted: false,
            holes: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            proposals: Vec::new(),
            proposals_arrived: Ticks::ZERO,
            reads: VecDeque::new(),
            reads_placed: VecDeque::new(),
            reading: Pending::default(),
            install: None,
            gated: VecDeque::new(),
            batches: VecDeque::new(),
            apply_fetch: false,
            apply_stock: None,
            leader_seen: None,
            leaderless_since: None,
            role_seen: RoleKind::Follower,
            kept: Vec::new(),
            unreadable: Vec::new(),
            is_name_lost: false,
            rests: false,
            named: None,
            named_durable: Index::ZERO,
            released: Index::ZERO,
            snapshot_at: Ticks::ZERO,
            save_at: None,
            notes: Notes::new(STATE_NOTE_ENTRIES),
            comparing: Comparing::default(),
            compare_listed: false,
            apply_listed: false,
            touched: false,
        }
    }

    /// The newest entry that this node promised, as far as it knows the log: that may be missing.
    pub(crate) fn promised(&self) -> Index {
        self.holes.as_ref().map_or(self.raft.last(), |holes| holes.last().index)
    }

    /// The term of an entry, also of one behind what a start found missing, where it may be zero:
    /// not known.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let holes = self.holes.as_ref().filter(|_| index > self.raft.last());
        holes.map_or_else(|| self.raft.term_at(index), |holes| holes.term_at(index))
    }

    /// Whether a snapshot is still needed.
    pub(crate) fn needs(&self, need: Need) -> bool {
        let is_lacking = match need {
            Need::Leader(_, base) => self.raft.commit() < base.index,
            Need::Repair(missing) => {
                self.holes.as_ref().is_some_and(|holes| holes.is_missing(missing))
            }
            Need::State(..) => self.halt == Some(Halt::Diverged),
        };
        is_lacking && !self.is_muted
    }

    /// Whether a snapshot that ends with this entry may be installed. With a leader one may lose what
    /// lies behind it, for the leader sends that. Without one nothing that was promised may be lost.
    pub(crate) fn may_install(&self, need: Need, last: LogId) -> bool {
        if self.is_in_log(need, last) {
            return true;
        }
        let is_safe = match need {
            Need::Leader(..) | Need::State(..) => true,
            Need::Repair(_) => self.goes_on_behind(last) || self.raft.is_covered_by(last),
        };
        is_safe && self.raft.may_install(last)
    }

    /// Whether a snapshot that ends with this entry takes the place of the state alone: the log has
    /// the entry, and goes on behind it.
    pub(crate) fn is_in_log(&self, need: Need, last: LogId) -> bool {
        matches!(need, Need::State(..))
            && last.index >= self.applied
            && last.index <= self.raft.commit()
            && self.raft.term_at(last.index) == Some(last.term)
    }

    /// Whether what a start found behind the log of this group, holes and all, lies behind this
    /// entry too, which is committed: the node held it, for sure, and held more.
    pub(crate) fn goes_on_behind(&self, entry: LogId) -> bool {
        let Some(holes) = &self.holes else { return false };
        match self.raft.term_at(entry.index) {
            Some(term) => term == entry.term,
            None => entry.index < holes.last().index && holes.held(entry),
        }
    }

    /// Whether the configuration of a committed entry isn't applied here, nor one after it.
    pub(crate) fn lacks_members_of(&self, index: Index) -> bool {
        index > self.book.as_of(self.applied).index
    }

    /// When the protocol wants its next tick.
    pub(crate) fn wake_at(&self) -> Ticks {
        if self.is_muted { Ticks::NEVER } else { self.raft.wake_at() }
    }

    /// Who leads, as far as this group may say: one that takes no part knows nothing.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.raft.leader().filter(|_| !self.is_muted)
    }

    /// Whether nobody is served here, and no other node is known that serves. A group that halted
    /// and follows a leader sends its clients there, as any follower does.
    pub(crate) fn is_out(&self) -> bool {
        let is_led_elsewhere = || self.raft.role() == RoleKind::Follower && self.leader().is_some();
        self.halt.is_some() && !is_led_elsewhere()
    }

    /// Where the next proposal of this turn goes.
    pub(crate) fn next_proposal(&self) -> Index {
        Index(self.raft.last().0 + self.proposals.len() as u64 + 1)
    }
}
