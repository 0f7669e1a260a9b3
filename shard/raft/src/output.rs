//! Everything that a group asks of its owner.

use crate::message::Message;
use crate::settings::HardState;
use ringraft_types::{Index, LogId, NodeId, Term};

/// Names one batch of things to persist. Ascending within a group's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A run of entries, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first entry.
    pub first: Index,
    /// The last entry.
    pub last: Index,
}

impl Span {
    /// How many entries.
    pub const fn count(self) -> u64 {
        self.last.0 - self.first.0 + 1
    }
}

/// A message and where it goes. An append's entries are those after its `prev`, `count` of them:
/// the owner takes their records from its cache (or from what it just fetched).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The receiving node.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
}

/// A message that leaves only when its token's batch is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gated {
    /// What it waits for.
    pub token: Token,
    /// What leaves then.
    pub envelope: Envelope,
}

/// Entries that the owner no longer caches are wanted from the log, for a lagging follower.
/// At most one outstanding per follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// For whom.
    pub peer: NodeId,
    /// The first entry wanted.
    pub first: Index,
    /// The last entry wanted; fewer may be answered, from `first` on.
    pub last: Index,
    /// How many record bytes at most (at least one entry is answered).
    pub bytes_max: u64,
}

/// The leader's log begins after `base`, and this node lacks what is before: a snapshot that
/// covers at least `base` is to be fetched, loaded, and reported by `Input::Installed`. Said again
/// as long as the leader asks; the owner goes on with what it has begun if that suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// The leader that said so. Others may have such a snapshot as well.
    pub from: NodeId,
    /// What the snapshot must cover.
    pub base: LogId,
}

/// A read may be served once everything up to `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// The owner's name for it.
    pub ticket: u64,
    /// The read index.
    pub index: Index,
}

/// Why a proposal, a read or a configuration was not taken. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another node leads, or none; the hint is the leader if known.
    NotLeader(Option<NodeId>),
    /// Too many are waiting.
    Busy,
    /// The configuration can't follow the one in force, or not yet: [`crate::Raft::plan`] says why.
    /// Or leadership can't be handed over so: [`crate::Raft::transfer_target`] says why.
    NotNow,
    /// Leadership is being handed over (EL-11): for an election timeout at most.
    Transferring,
}

/// A role, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// What one step asks for. Owned and reused by the caller, so that a step allocates nothing;
/// cleared by [`Output::clear`] before the next step.
#[derive(Debug, Default)]
pub struct Output {
    /// Entries from here on are removed, before anything is appended. Never at or below the
    /// commit index as it was before the step (I-02).
    pub truncate_from: Option<Index>,
    /// The installed snapshot took the place of the whole log: no entry that was appended or
    /// cached before counts any more, and the next one follows this. Of the entries on the disk
    /// `truncate_from` cuts so many that what is appended next leaves a gap behind them.
    pub emptied: Option<LogId>,
    /// Entries to persist. For a proposal: the proposed. For an append: those of the message that
    /// are new here (a suffix). For a new leader: its one entry without payload, which the owner
    /// encodes (`new_term_entry`).
    pub append: Option<Span>,
    /// The span in `append` is the new leader's first entry: a `NewTerm` record of this term.
    pub new_term_entry: Option<Term>,
    /// Term, vote and commit to persist with it. Written whenever term or vote changed; with the
    /// newest commit index whenever anything else is persisted anyway and it moved.
    pub hard_state: Option<HardState>,
    /// Names the batch, if any of the above is set.
    pub token: Option<Token>,
    /// Safe before our disk is done.
    pub send_now: Vec<Envelope>,
    /// Votes and acknowledgements (I-03).
    pub send_after_persist: Vec<Gated>,
    /// The commit index, if it moved.
    pub committed: Option<Index>,
    /// Reads that a majority confirmed, here or at the leader that was asked.
    pub reads: Vec<ReadReady>,
    /// Reads that were waiting when leadership was lost, or the leader that was asked, or that it
    /// didn't answer for an election timeout. They are not done.
    pub reads_lost: Vec<u64>,
    /// Entries wanted from the log.
    pub fetch: Vec<Fetch>,
    /// A snapshot is wanted from the leader, or from whoever has one that is new enough.
    pub install: Option<Install>,
    /// The proposal, read or configuration of this step was not taken.
    pub refused: Option<Refusal>,
    /// A joint configuration is committed and this leader is to go on from it: the owner encodes
    /// [`crate::Raft::completion`] and steps `Input::Configure`. Said by every step until it does.
    pub completes: bool,
    /// Another configuration may be in force than before this step: see
    /// [`crate::Raft::configurations`].
    pub members_changed: bool,
    /// The role, term or known leader changed in this step.
    pub role_changed: bool,
    /// The vote floor is met, durably, and lifted: what rot took is there
    /// again, and the group may serve (decision 0013).
    pub repaired: bool,
}

impl Output {
    /// Empties everything; keeps the buffers.
    pub fn clear(&mut self) {
        let Self {
            truncate_from,
            emptied,
            append,
            new_term_entry,
            hard_state,
            token,
            send_now,
            send_after_persist,
            committed,
            reads,
            reads_lost,
            fetch,
            install,
            refused,
            completes,
            members_changed,
            role_changed,
            repaired,
        } = self;
        *truncate_from = None;
        *emptied = None;
        *append = None;
        *new_term_entry = None;
        *hard_state = None;
        *token = None;
        send_now.clear();
        send_after_persist.clear();
        *committed = None;
        reads.clear();
        reads_lost.clear();
        fetch.clear();
        *install = None;
        *refused = None;
        *completes = false;
        *members_changed = false;
        *role_changed = false;
        *repaired = false;
    }
}
