//! The other door: frames out to peers, clients, other cores.
//!
//! A link never blocks and never fails: a frame for a link that is down is not sent, and what
//! that means is decided above this door.

use ringraft_net::{Frame, Outbox};
use ringraft_types::{NodeId, ShardId, Ticks};

/// A client's connection. The generation tells a slot's next tenant from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The shard that owns the socket.
    pub shard: ShardId,
    /// Its place in that shard's table.
    pub slot: u32,
    /// Which tenant of that place.
    pub generation: u32,
}

/// The network door of one shard.
pub trait Links {
    /// A node is a peer: it is dialled at this address from now on, by the one of the two with the
    /// smaller number first, by the other one after a while. Empty: it isn't dialled, but may come.
    fn know(&mut self, now: Ticks, node: NodeId, address: &str);
    /// A node isn't dialled any more. A connection that it has stays.
    fn forget(&mut self, now: Ticks, node: NodeId);
    /// A node is no peer any more: what there is of connections to it is closed, and nothing of it
    /// is kept.
    fn part(&mut self, now: Ticks, node: NodeId);
    /// Where frames for the same shard of a peer are written; `None` while the link is down.
    fn peer(&mut self, node: NodeId) -> Option<&mut Outbox>;
    /// Where this shard asks the same shard of a peer for snapshots. `None` while there is no such
    /// connection; one is made then.
    fn pull(&mut self, node: NodeId) -> Option<&mut Outbox>;
    /// Where a peer that connected to fetch snapshots is answered; `None` without one.
    fn serve(&mut self, node: NodeId) -> Option<&mut Outbox>;
    /// Where frames for a client are written; `None` once it is gone.
    fn client(&mut self, connection: ConnectionId) -> Option<&mut Outbox>;
    /// Hands a client's frame to the shard that owns its group. Returns whether there was room;
    /// if not, the caller answers "busy".
    fn forward(&mut self, to: ShardId, connection: ConnectionId, frame: &Frame<'_>) -> bool;
}
