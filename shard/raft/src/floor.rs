//! What a node votes as if it held, though rot took it: its vote floor, and when that is lifted.
//!
//! A node that promised an entry and lost it must not help anybody into office who lacks it, and
//! must not lead itself. It takes entries as any follower does, so its log fills up again. When its
//! durable log is as new as the floor, in the sense of votes (thesis 3.6.1), it holds all that it
//! ever promised and that counts (decision 0013):
//!
//! ```text
//!   floor 2.9     log  1.1 1.2 2.3 | 2.4 2.5 ... 2.9            sent again by leader 2
//!   floor 2.9     log  1.1 1.2 2.3 | 2.4 3.5                    leader 3 has what is committed
//!                 kept             | durable since the loss
//! ```
//! The newest entry is of some term T, and the log up to it is that of T's leader. What was
//! committed in an older term is in it, because that leader was elected with this floor in force;
//! what was committed in T itself lies at or below the floor's index, so it is there too.

use ringraft_types::LogId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// The log ends before what is lost: a leader sends it again.
    Lost(LogId),
    /// The log goes on over what can't be read: no leader knows that it is wanted, so none sends
    /// it, and a log that grows proves nothing. Only the owner knows when it can read all again.
    Unreadable(LogId),
}

impl Floor {
    pub(crate) fn id(self) -> LogId {
        match self {
            Self::Lost(id) | Self::Unreadable(id) => id,
        }
    }

    /// Whether a durable snapshot that ends with `base` holds all that was promised: at most as
    /// many entries, or none that can still be committed.
    pub(crate) fn is_covered(self, base: LogId) -> bool {
        self.id().index <= base.index || self.id() <= base
    }

    /// Whether a log that is durable up to here holds again what was promised (I-13).
    pub(crate) fn is_met(self, durable: LogId) -> bool {
        match self {
            Self::Lost(id) => durable >= id,
            Self::Unreadable(_) => false,
        }
    }
}
