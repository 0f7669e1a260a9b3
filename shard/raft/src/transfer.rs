//! Why leadership isn't handed over. What a leader does about it is in `leader/transfer`.

use ringraft_types::{Index, NodeId};

/// Why a leader doesn't hand over, or not to this node. Nothing was changed by asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused {
    /// Another node leads, or none; the hint is the leader if known.
    #[error("this node doesn't lead")]
    NotLeader(Option<NodeId>),
    /// It leads itself: there is nothing to do.
    #[error("node {node} leads already")]
    AlreadyLeads {
        /// This node.
        node: NodeId,
    },
    /// One at a time; it ends within an election timeout.
    #[error("leadership is being handed over to node {to}: ask again in a moment")]
    UnderWay {
        /// To whom.
        to: NodeId,
    },
    /// Only who votes can lead, and goes on voting when a change of members ends.
    #[error("node {node} is no voter of the group: `ringraft node promote` makes it one")]
    NoVoter {
        /// Which.
        node: NodeId,
    },
    /// It wasn't heard of for an election timeout.
    #[error("node {node} doesn't answer: check that it runs and can be reached")]
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// It lacks too much to be brought up to date within an election timeout.
    #[error("node {node} holds entries up to {matched} of {commit}: wait until it has caught up")]
    Behind {
        /// Which.
        node: NodeId,
        /// Up to where its log is known to agree.
        matched: Index,
        /// What is committed.
        commit: Index,
    },
    /// The owner knows why: its disk doesn't move.
    #[error("node {node} can't lead: its disk doesn't move; look at its log file")]
    Unfit {
        /// Which.
        node: NodeId,
    },
    /// Nobody was named, and nobody else fits.
    #[error("no other voter answers, has caught up, and can lead")]
    NoTarget,
}
