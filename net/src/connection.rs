//! What a connection of a shard is, from the greeting to its end. The hot lane's sockets and the
//! simulator's go by this.

use crate::handshake::{Hello, Role};
use crate::patience::{DIAL_TIME, FRAME_TIME, GREETING_TIME};
use ringraft_types::{NodeId, Ticks};

/// What a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted; its greeting is awaited.
    Greeting {
        /// Which port it came to.
        port: Role,
    },
    /// A connect to a peer is under way, to be a peer's or to fetch snapshots.
    Dialing(NodeId, Role),
    /// Our greeting is sent; the welcome is awaited.
    Dialed(NodeId, Role),
    /// A peer's shard.
    Peer(NodeId),
    /// Snapshots are fetched from a peer's shard here.
    Pull(NodeId),
    /// A peer's shard fetches snapshots here.
    Serve(NodeId),
    /// A client.
    Client,
}

impl State {
    /// What an accepted connection is by its greeting.
    pub fn greeted(hello: &Hello) -> Self {
        match hello.role {
            Role::Peer => Self::Peer(hello.sender.node),
            Role::Bulk => Self::Serve(hello.sender.node),
            Role::Client => Self::Client,
        }
    }

    /// What a link's connection is once it is up.
    pub fn linked(node: NodeId, role: Role) -> Self {
        if role == Role::Bulk { Self::Pull(node) } else { Self::Peer(node) }
    }

    /// Whether frames come and go.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Peer(_) | Self::Pull(_) | Self::Serve(_) | Self::Client)
    }

    /// The link of which it is, or is to be, the connection.
    pub fn link(self) -> Option<(NodeId, Role)> {
        match self {
            Self::Dialing(node, role) | Self::Dialed(node, role) => Some((node, role)),
            Self::Peer(node) => Some((node, Role::Peer)),
            Self::Pull(node) => Some((node, Role::Bulk)),
            Self::Greeting { .. } | Self::Serve(_) | Self::Client => None,
        }
    }

    /// How long what it awaits at its beginning may take.
    pub fn patience(self) -> Ticks {
        match self {
            Self::Greeting { .. } => GREETING_TIME,
            Self::Dialing(..) => DIAL_TIME,
            _ => FRAME_TIME,
        }
    }
}
