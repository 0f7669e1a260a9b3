//! The links of one shard to other nodes: who is dialled where, and which connections are in use.
//! The hot lane's sockets and the simulator's go by this; what a socket is they know themselves.

use crate::connection::{Dial, State};
use crate::handshake::{RefusalCode, Role};
use ringraft_types::{Met, NodeId, Ticks};
use std::collections::BTreeMap;

/// Another node's shard, as this one dials it.
#[derive(Debug)]
pub struct Link {
    /// Where it listens, a name or an address. Empty: it isn't dialled.
    pub address: String,
    /// When it is dialled, and the connection that came of it.
    pub dial: Dial,
    /// Resolution is under way.
    pub resolving: bool,
    /// Why the last attempt was refused, to say it once.
    pub refused: Option<RefusalCode>,
    /// As whom it was last refused, to say it once.
    pub shown: Option<Met>,
}

impl Link {
    fn new(dial: Dial) -> Self {
        Self { address: String::new(), dial, resolving: false, refused: None, shown: None }
    }
}

/// The other nodes that one shard knows.
#[derive(Debug)]
pub struct LinkTable {
    own: NodeId,
    peers: BTreeMap<NodeId, Link>,
    /// The same nodes, as those from which snapshots are fetched: dialled when that is wanted.
    pulls: BTreeMap<NodeId, Link>,
    /// Who fetches snapshots here, by which connection.
    served: BTreeMap<NodeId, u32>,
    /// Nobody is to be dialled before this, unless a link changes.
    due_from: Ticks,
}

impl LinkTable {
    /// The table of this node, which knows nobody yet.
    pub fn new(own: NodeId) -> Self {
        let (peers, pulls, served) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { own, peers, pulls, served, due_from: Ticks::ZERO }
    }

    /// A node is a peer, and is dialled at this address from now on. Empty: it isn't dialled, but
    /// may come.
    pub fn know(&mut self, now: Ticks, node: NodeId, address: &str) {
        self.due_from = Ticks::ZERO;
        for (role, links) in [(Role::Peer, &mut self.peers), (Role::Bulk, &mut self.pulls)] {
            let link = links.entry(node);
            let link = link.or_insert_with(|| Link::new(Dial::new(self.own, node, role)));
            if link.address != address {
                link.address = address.to_owned();
            }
            if role == Role::Peer || address.is_empty() {
                link.dial.want(now, !address.is_empty());
            }
        }
    }

    /// A node isn't dialled any more. A connection that it has stays.
    pub fn forget(&mut self, now: Ticks, node: NodeId) {
        self.know(now, node, "");
    }

    /// A node is no peer any more. Returns the slots of its connections, to be closed.
    #[must_use = "these connections belong to nobody now"]
    pub fn part(&mut self, node: NodeId) -> Vec<u32> {
        let parted = [self.peers.remove(&node), self.pulls.remove(&node)];
        parted.iter().flatten().flat_map(|link| link.dial.slots()).collect()
    }

    /// The link to a node, of this kind.
    pub fn get(&mut self, node: NodeId, role: Role) -> Option<&mut Link> {
        self.due_from = Ticks::ZERO;
        match role {
            Role::Bulk => self.pulls.get_mut(&node),
            _ => self.peers.get_mut(&node),
        }
    }

    /// The slot by which frames for a peer leave.
    pub fn peer(&self, node: NodeId) -> Option<u32> {
        self.peers.get(&node)?.dial.up
    }

    /// The slot by which snapshots are asked for. If there is no such connection one is made, where
    /// it is known how to reach the node.
    pub fn pull(&mut self, node: NodeId) -> Option<u32> {
        let link = self.pulls.get_mut(&node)?;
        if link.dial.up.is_none() {
            link.dial.want(Ticks::ZERO, !link.address.is_empty());
            self.due_from = Ticks::ZERO;
        }
        link.dial.up
    }

    /// The slot by which a peer fetches snapshots here.
    pub fn serve(&self, node: NodeId) -> Option<u32> {
        self.served.get(&node).copied()
    }

    /// A peer fetches snapshots over this slot. An older connection is replaced; its slot is
    /// returned.
    pub fn serves(&mut self, node: NodeId, slot: u32) -> Option<u32> {
        self.served.insert(node, slot).filter(|&old| old != slot)
    }

    /// A link is up over this slot. An older connection is replaced; its slot is returned.
    ///
    /// # Panics
    /// If the node is no peer.
    pub fn linked(&mut self, node: NodeId, role: Role, slot: u32) -> Option<u32> {
        let link = self.get(node, role).expect("only peers get here");
        link.refused = None;
        link.shown = None;
        link.dial.linked(slot)
    }

    /// The connection in a slot, which was this, is closed.
    pub fn closed(&mut self, now: Ticks, slot: u32, state: State) {
        if let State::Serve(node) = state
            && self.serve(node) == Some(slot)
        {
            self.served.remove(&node);
        }
        if let Some((node, role)) = state.link()
            && let Some(link) = self.get(node, role)
        {
            link.dial.closed(now, slot);
        }
    }

    /// Whether a connection that was closed has left its link without one.
    pub fn is_down(&mut self, state: State) -> bool {
        let link = state.link().and_then(|(node, role)| self.get(node, role));
        link.is_some_and(|link| link.dial.up.is_none())
    }

    /// The nodes to be dialled now, as what, and where. Cheap as long as there are none.
    pub fn due(&mut self, now: Ticks) -> Vec<(NodeId, Role, String)> {
        if now < self.due_from {
            return Vec::new();
        }
        let peers = self.peers.iter().map(|(&node, link)| (node, Role::Peer, link));
        let pulls = self.pulls.iter().map(|(&node, link)| (node, Role::Bulk, link));
        let links = || peers.clone().chain(pulls.clone()).filter(|(.., link)| !link.resolving);
        // Those that are due now are looked at again until they change.
        let due_at = links().map(|(.., link)| link.dial.due_at()).min();
        self.due_from = due_at.unwrap_or(Ticks::NEVER);
        let due = links().filter(|(.., link)| link.dial.is_due(now));
        due.map(|(node, role, link)| (node, role, link.address.clone())).collect()
    }

    /// Peers there are, linked or not.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Peers whose link is up.
    pub fn connected(&self) -> usize {
        self.peers.values().filter(|link| link.dial.up.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);
    const NOW: Ticks = Ticks(5);

    fn table() -> LinkTable {
        LinkTable::new(NodeId(1))
    }

    /// Peers are dialled where they are; those from whom snapshots are fetched when that is wanted,
    /// and only if it is known where.
    #[test]
    fn who_is_dialled() {
        let mut table = table();
        table.know(NOW, NODE, "");
        assert_eq!((table.pull(NODE), table.due(NOW)), (None, vec![]));
        table.know(NOW, NODE, "a:1");
        let at = |role| (NODE, role, String::from("a:1"));
        assert_eq!(table.due(NOW), [at(Role::Peer)]);
        assert_eq!(table.pull(NODE), None);
        assert_eq!(table.due(NOW), [at(Role::Peer), at(Role::Bulk)]);
        table.forget(NOW, NODE);
        assert_eq!(table.due(NOW), []);
        assert_eq!(table.pull(NodeId(9)), None);
    }

    /// A link is down when the connection in use is closed, not when one that was replaced is.
    #[test]
    fn what_is_down() {
        let mut table = table();
        table.know(NOW, NODE, "a:1");
        assert_eq!((table.peers(), table.connected()), (1, 0));
        assert_eq!(table.linked(NODE, Role::Peer, 7), None);
        assert_eq!(table.linked(NODE, Role::Peer, 8), Some(7));
        let state = State::Peer(NODE);
        table.closed(NOW, 7, state);
        assert_eq!(
            (table.is_down(state), table.peer(NODE), table.connected()),
            (false, Some(8), 1)
        );
        table.closed(NOW, 8, state);
        assert_eq!((table.is_down(state), table.peer(NODE), table.connected()), (true, None, 0));
        assert_eq!((table.serves(NODE, 3), table.serves(NODE, 4)), (None, Some(3)));
        table.closed(NOW, 3, State::Serve(NODE));
        assert_eq!(table.serve(NODE), Some(4));
        table.closed(NOW, 4, State::Serve(NODE));
        assert_eq!(table.serve(NODE), None);
    }

    /// Who parts leaves the connections to be closed, and nothing else.
    #[test]
    fn who_parts() {
        let mut table = table();
        table.know(NOW, NODE, "a:1");
        table.get(NODE, Role::Peer).expect("a peer").dial.dialed(3);
        table.linked(NODE, Role::Bulk, 4);
        assert_eq!(table.part(NODE), [3, 4]);
        assert_eq!((table.peers(), table.due(Ticks::NEVER)), (0, vec![]));
        table.closed(NOW, 3, State::Dialing(NODE, Role::Peer));
        assert!(!table.is_down(State::Pull(NODE)), "there is no such link");
    }
}
