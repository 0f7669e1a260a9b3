//! Leadership is handed over, and nodes are paused, at random and under every other fault.

use crate::world::World;
use ringraft_raft::{Input, RoleKind};
use ringraft_types::Ticks;

impl World {
    /// Somebody asks a node to hand over: to anybody, or to whom it likes.
    pub(crate) fn transfer(&mut self, node: usize, other: usize) {
        let to = self.nodes[other].id;
        let to = self.random.permille(500).then_some(to);
        let Some(raft) = &self.nodes[node].raft else { return };
        let term = raft.term();
        let now = self.clock(node);
        match raft.transfer_target(now, to, &[]) {
            Ok(to) => {
                self.reached.transfers += 1;
                let ends_at = now.after(self.settings.election_timeout);
                self.transfers.insert(node, (term, ends_at));
                self.step(node, Input::Transfer { to }, &[]);
            }
            Err(_) => self.reached.transfers_refused += 1,
        }
    }

    /// A node isn't to stand, or may again.
    pub(crate) fn pause(&mut self, node: usize, is_paused: bool) {
        if self.nodes[node].raft.is_some() {
            self.step(node, Input::Paused(is_paused), &[]);
        }
    }

    /// A leader was given a tick: no transfer is under way that has had its time.
    pub(crate) fn check_transfer(&self, node: usize) {
        let Some(raft) = &self.nodes[node].raft else { return };
        let known = self.transfers.get(&node).filter(|known| known.0 == raft.term());
        let ends_at = known.map_or(Ticks::ZERO, |known| known.1);
        if raft.role() == RoleKind::Leader && self.clock(node) >= ends_at {
            assert_eq!(raft.transfers_to(), None, "a transfer has no end");
        }
    }
}
