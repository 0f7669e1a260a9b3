//! The closed list of what can wake a shard. A reader finds every entrance here.

use crate::links::ConnectionId;
use ringraft_net::Frame;
use ringraft_types::{NodeId, Ticks};

/// One thing that happened outside. Time is the other input: [`crate::Shard::turn`].
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The link to the same shard of a peer is up; its handshake was welcomed.
    PeerUp(NodeId),
    /// The link is lost.
    PeerDown(NodeId),
    /// A frame came over a peer's link.
    PeerFrame {
        /// Whose link.
        from: NodeId,
        /// The frame, intact.
        frame: Frame<'a>,
    },
    /// A frame came from a client, here or forwarded by another core.
    ClientFrame {
        /// Where its answer goes.
        from: ConnectionId,
        /// The frame, intact.
        frame: Frame<'a>,
    },
}

/// When a shard wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once: there is work left.
    Now,
    /// When something happens, and at this instant at the latest.
    At(Ticks),
    /// When something happens.
    OnEvent,
}

impl Wake {
    /// The earlier of the two.
    pub fn earlier(self, other: Wake) -> Wake {
        match (self, other) {
            (Wake::Now, _) | (_, Wake::Now) => Wake::Now,
            (Wake::OnEvent, wake) | (wake, Wake::OnEvent) => wake,
            (Wake::At(a), Wake::At(b)) => Wake::At(a.min(b)),
        }
    }
}
