//! What the lanes of a node send each other over the mesh. Each parcel owns what it carries: dropped
//! on its way, it closes its connection and frees its seat.

use crate::control::{LogEvent, ShardSnapshots, SnapshotWish};
use crate::numbers::Taken;
use crate::seats::Seat;
use ringraft_net::Inbox;
use ringraft_net::handshake::Hello;
use ringraft_shard::links::ConnectionId;
use ringraft_shard::placement::Placement;
use ringraft_types::ShardId;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What travels between the lanes of one node.
pub enum Parcel {
    /// A connection that greeted another shard than the one that accepted it.
    Handoff {
        /// The socket.
        socket: OwnedFd,
        /// What it said.
        hello: Hello,
        /// What it sent after the greeting.
        inbox: Inbox,
        /// A client's seat.
        seat: Option<Seat>,
    },
    /// A client's frame for a group of the receiving shard.
    ClientFrame {
        /// Where the answer goes.
        from: ConnectionId,
        /// The frame, header included, as it came.
        header: ringraft_net::FrameHeader,
        /// Its body.
        body: Vec<u8>,
    },
    /// Frames for a client of the receiving shard.
    Answers {
        /// Whose they are.
        to: ConnectionId,
        /// Whole frames.
        bytes: Vec<u8>,
    },
    /// A client of the receiving shard whose answers piled up elsewhere: close it.
    Drop(ConnectionId),
    /// The node's data directory is an older copy.
    OlderCopy,
    /// How many bytes of data the groups of this shard hold.
    DataBytes(ShardId, u64),
    /// What the system group says.
    Placement(Arc<Placement>),
    /// "How are you?" from the control lane.
    AskNumbers,
    /// The answer.
    Numbers(Box<Taken>),
    /// A question of the control lane about snapshots, by its number.
    AskSnapshots(u64, SnapshotWish),
    /// The answer to the question of this number.
    Snapshots(u64, Box<ShardSnapshots>),
    /// Something worth a line in the log, and how many were dropped before it.
    Log(LogEvent, u64),
}
