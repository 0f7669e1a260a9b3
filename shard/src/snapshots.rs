//! Snapshots of groups: when one is taken, what goes into it, and how a group starts from it
//! (decision 0012).
//!
//! A snapshot is a group's machine and sessions between two entries. The log keeps it as a file of
//! chunks; here it is one stream of pieces, each whole, so that whoever loads it never holds more
//! than a piece of it. One is taken at a time per shard, a slice per turn, while writes go on.
//! A node whose log ends before the leader's begins fetches one from its peers.

mod appoint;
mod fetch;
mod load;
mod loader;
mod pace;
mod pieces;
mod report;
mod serve;
mod take;
mod transfer;

pub(crate) use fetch::Fetching;
pub use fetch::{InstallFailure, InstallProgress};
pub(crate) use load::LoadedState;
pub use load::{LoadFailure, LoadStep, Loaded, LoadedGroup, Loading};
pub(crate) use loader::MIXED;
pub(crate) use pieces::{Part, SLICE_BYTES, end_piece, members_piece};
pub use report::{GroupSnapshots, KeptSnapshot, SnapshotAsked, SnapshotEnd};
pub(crate) use serve::Serving;
pub(crate) use take::Snapshots;

use ringraft_types::Ticks;

/// What the keys of a group take at least if its snapshots are kept in strands, bytes: less comes from
/// one node in a moment, and would be in many chunks that are nearly empty.
pub const STRANDS_BYTES: u64 = 16 << 20;

/// When snapshots are taken by themselves, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRules {
    /// The log's bytes on the disk from which on the groups that keep it long are taken, one after
    /// the other (U1). Zero: never for that reason.
    pub log_bytes: u64,
    /// Entries of a group since its last snapshot. Zero: never for that reason.
    pub entries: u64,
    /// Time since a group's last snapshot, if there is any entry since. Zero: never for that
    /// reason.
    pub interval: Ticks,
    /// Whether a graceful stop takes those that are missing.
    pub on_stop: bool,
    /// The log's bytes on the disk up to which it keeps what snapshots cover for followers that lag;
    /// beyond, they are given a snapshot.
    pub lag_bytes: u64,
    /// Bytes in a second of a snapshot that is taken or given to a peer, as long as the log grows
    /// slowly. Zero: as fast as it goes.
    pub bytes_per_second: u64,
    /// Bytes of a group's keys from which on a snapshot keeps them in strands, which several nodes can
    /// give at once. Nodes that say different things here give snapshots one by one.
    pub strands_bytes: u64,
    /// Snapshots of a group that are kept, at least one. The log begins behind the oldest.
    pub kept: usize,
}

impl Default for SnapshotRules {
    /// At 256 MiB of log, of which followers that lag may keep twice as much, at 32 MiB a second; one
    /// is kept; a stop takes none.
    fn default() -> Self {
        Self {
            log_bytes: 256 << 20,
            entries: 0,
            interval: Ticks::ZERO,
            on_stop: false,
            lag_bytes: 512 << 20,
            bytes_per_second: 32 << 20,
            strands_bytes: STRANDS_BYTES,
            kept: 1,
        }
    }
}

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotReason {
    /// The log is long.
    LogBytes,
    /// There are many entries since the last one.
    Entries,
    /// The last one is old.
    Interval,
    /// The last one can't be read.
    Unreadable,
    /// Somebody asked for it.
    Asked,
    /// The node stops.
    Stop,
    /// The leader takes one at the same entry.
    Appointed,
    /// A replica whose state went wrong is rebuilt from it.
    Rebuild,
}

impl SnapshotReason {
    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogBytes => "the log is long",
            Self::Entries => "there are many entries since the last one",
            Self::Interval => "the last one is old",
            Self::Unreadable => "the last one can't be read",
            Self::Asked => "it was asked for",
            Self::Stop => "the node stops",
            Self::Appointed => "the leader takes one at the same entry",
            Self::Rebuild => "a replica is rebuilt from it",
        }
    }
}
