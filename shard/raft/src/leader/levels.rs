//! What a leader knows of how far entries have come, beyond that they are committed.
//!
//! ```text
//!   voter      1 (leads)   2     3        Majority            8   = the commit index
//!   holds      9           8     5        All                 5   = the least that a voter holds
//!   knows      8           7     4        MajorityCommitted   7   committed
//!                                         AllCommitted        4
//! ```
//! No level is above the commit index: what is at one is committed, so no later leader takes it
//! away. A voter counts by what it said in this term and since its last connection; this node by
//! what its own disk holds.

use super::Leader;
use crate::output::Output;
use crate::replica::Replica;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, Level, NodeId, Ticks};

/// How far a level has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Every entry up to here is at the level. Zero: none.
    pub index: Index,
    /// Who is the furthest behind, of the voters that the level lacks to be at the commit index.
    pub behind: Option<NodeId>,
}

impl Leader {
    /// How far a level has come. Of a joint configuration both lists of voters count.
    pub(crate) fn standing(&self, replica: &Replica, level: Level) -> Standing {
        let commit = replica.commit();
        let persisted = replica.durable().persisted();
        #[cfg(ringraft_plant)]
        let persisted = match planted(Plant::LevelSelfCountedEarly) {
            true => replica.log().last(),
            false => persisted,
        };
        let held = |id| self.peer(id).map_or(persisted, |peer| peer.matched).min(commit);
        let known = |id| self.peer(id).map_or(commit, |peer| peer.commit).min(commit);
        let of = |id| if level.is_of_knowledge() { known(id) } else { held(id) };
        let configuration = &replica.membership.in_force().configuration;
        #[cfg(ringraft_plant)]
        if planted(Plant::LevelOldVotersOnly) && !configuration.outgoing().is_empty() {
            let old = configuration.outgoing().iter().map(|&id| of(id)).min();
            let index = old.unwrap_or_default();
            return Standing { index, behind: None };
        }
        let last = configuration.all_voters().map(|id| (of(id), id)).min();
        let (least, last) = last.expect("a group has voters");
        let index = match level {
            Level::Majority => commit,
            Level::All | Level::AllCommitted => least,
            // Also where half is enough to commit: the level says what its name says.
            Level::MajorityCommitted => replica.membership.agreed(known),
        };
        Standing { index, behind: Some(last).filter(|_| index < commit) }
    }

    /// Has every peer told at once what is committed, and so answer what it knows.
    pub(crate) fn tell_commit(&mut self, replica: &Replica, now: Ticks, out: &mut Output) {
        self.stir(replica, now);
        if replica.settings.lease > Ticks::ZERO {
            self.reads.begin_bare();
        }
        self.send_heartbeats(replica, now, out);
    }
}
