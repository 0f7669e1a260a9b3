//! What a group is started with.

use ringraft_types::{Index, LogId, NodeId, Term, Ticks};

/// Timing and limits of one group. Relations are checked where the configuration is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A follower that hears from no leader for this long, plus a random part of up to as much
    /// again, stands for election (thesis 3.4). Also: a leader that hears from no majority for
    /// this long steps down (check-quorum), and a voter that heard from its leader within it
    /// refuses (pre-)votes (stickiness, thesis 4.2.3).
    pub election_timeout: Ticks,
    /// A leader sends heartbeats at least this often. At most a third of `election_timeout`.
    pub heartbeat_interval: Ticks,
    /// Entries in one append.
    pub append_entries_max: u32,
    /// Record bytes in one append; a single longer record still travels alone.
    pub append_bytes_max: u64,
    /// Appends in flight to one follower.
    pub inflight_appends_max: usize,
    /// Record bytes in flight to one follower.
    pub inflight_bytes_max: u64,
    /// Reads waiting for a round; more are refused with [`crate::Refusal::Busy`].
    pub reads_waiting_max: usize,
}

/// Term, vote and commit: what a group must find again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// The commit index, as far as it is known to be durable; a hint, never ahead of the truth.
    pub commit: Index,
}

/// The shape of the log found at start: terms by runs, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogShape {
    /// The entry before the first one held (zero until snapshots remove a prefix).
    pub base: LogId,
    /// Runs of equal terms: the first index of each, ascending; the last run ends at `last`.
    pub runs: Vec<(Index, Term)>,
    /// The newest entry's index, or `base.index` if there is none.
    pub last: Index,
}

/// What a group starts from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// This node.
    pub id: NodeId,
    /// The voters, this node among them or not, ascending.
    pub voters: Vec<NodeId>,
    /// As found in the log; the default for a new group.
    pub hard_state: HardState,
    /// As found in the log; all of it is durable.
    pub log: LogShape,
    /// Entries that were acknowledged and then rotted: the group votes as if its log ended here,
    /// never campaigns, and refuses to serve (S05). `None` for a sound log.
    pub vote_floor: Option<LogId>,
    /// Seeds the group's own random numbers (election jitter).
    pub seed: u64,
}
