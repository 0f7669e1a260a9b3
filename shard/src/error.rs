//! What stops a shard, and with it the process.

use ringraft_net::{Kind, WireError};
use ringraft_types::{GroupId, Ticks};

/// The world broke a promise that the shard can't go on without.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The log refused an append, a write or a sync.
    #[error("the log can't go on: {0}")]
    Log(#[from] ringraft_wal::WalFatal),
    /// The log had no room for what was already promised.
    #[error("the log refused a record: {0}")]
    Append(#[from] ringraft_wal::AppendError),
    /// The disk holds a write or a sync and doesn't answer.
    #[error(
        "the disk has held a write for {} ms, {} are allowed (wal.stuck_limit_ms): it hangs; look \
         for its errors in the kernel's log, and replace it before you start this node again",
        wait.get() / 1_000,
        limit.get() / 1_000
    )]
    DiskStuck {
        /// For how long.
        wait: Ticks,
        /// What the configuration allows.
        limit: Ticks,
    },
    /// The log was made by a node with another number of shards.
    #[error(
        "the log was made with {found} shards, the configuration has {configured}: a group's log \
         depends on it; configure {found} shards"
    )]
    Shards {
        /// In the log.
        found: u16,
        /// In the configuration.
        configured: u16,
    },
    /// A record of the node is not what this version writes.
    #[error("a record of the node can't be read: {0}")]
    Record(ringraft_types::record::RecordError),
    /// A configuration in the log is not what this version writes.
    #[error("an entry of the log holds no configuration: {0}")]
    Members(ringraft_types::ConfigurationError),
}

/// Why a frame was refused above the frame layer; its connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameRefusal {
    /// The body isn't what the kind says.
    #[error("a {kind:?} frame has a malformed body: {what}")]
    Malformed {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong with it.
        what: String,
    },
    /// A kind that doesn't belong on this port.
    #[error("a {kind:?} frame doesn't belong on this port")]
    WrongPort {
        /// The frame's kind.
        kind: Kind,
    },
    /// The sender isn't who the connection belongs to.
    #[error("the frame's sender isn't the one that shook hands")]
    WrongSender,
    /// A message that no sound node sends.
    #[error("a message of group {group} breaks the protocol: {breach}")]
    Breach {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        breach: ringraft_raft::Breach,
    },
    /// A record that isn't the frame's.
    #[error("a frame of group {group} carries a record that isn't its own: {what}")]
    Record {
        /// The group.
        group: GroupId,
        /// What is wrong.
        what: String,
    },
}

impl FrameRefusal {
    /// A body that can't be opened.
    pub(crate) fn malformed(kind: Kind, error: WireError) -> Self {
        Self::Malformed { kind, what: error.to_string() }
    }
}
