//! How a leader hands over (thesis 3.10): it takes no more proposals, brings the target up to date,
//! commits what it took, and tells it to stand at once. It goes on as before if it leads still after
//! an election timeout.
//!
//! Nothing here is needed for safety: the target wins by its log and by votes, as any other would.
//! But voters give these votes though they hear a leader. So whoever was told may be elected at any
//! later time, and nothing in this term may rest on the others' patience any more.

use super::Leader;
use crate::change::ChangeRefused;
use crate::message::Message;
use crate::output::{Envelope, Output, Refusal};
use crate::replica::Replica;
use crate::transfer::TransferRefused;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{NodeId, Ticks};

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    /// When this leader goes on by itself.
    pub(super) ends_at: Ticks,
    /// The target was told to stand.
    is_told: bool,
}

impl Leader {
    /// To whom leadership is being handed over.
    pub(crate) fn transfers_to(&self) -> Option<NodeId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Whether to hand over, and to whom: to this node, or to the one that holds most. `unfit` are
    /// nodes that can't lead, as the owner knows.
    pub(crate) fn transfer_target(
        &self,
        replica: &Replica,
        now: Ticks,
        to: Option<NodeId>,
        unfit: &[NodeId],
    ) -> Result<NodeId, TransferRefused> {
        if let Some(to) = self.transfers_to() {
            return Err(TransferRefused::UnderWay { to });
        }
        if let Some(node) = to {
            return self.check_target(replica, now, node, unfit).map(|()| node);
        }
        let configuration = &replica.membership.in_force().configuration;
        let fits = |node: &NodeId| self.check_target(replica, now, *node, unfit).is_ok();
        let matched = |node: &NodeId| self.peer(*node).map(|peer| peer.matched);
        // Of equals the one with the smallest number.
        let voters = configuration.voters().iter().rev().copied();
        voters.filter(fits).max_by_key(matched).ok_or(TransferRefused::NoTarget)
    }

    fn check_target(
        &self,
        replica: &Replica,
        now: Ticks,
        node: NodeId,
        unfit: &[NodeId],
    ) -> Result<(), TransferRefused> {
        if node == replica.id {
            return Err(TransferRefused::AlreadyLeads { node });
        }
        // Of a joint configuration, who goes on voting when it ends.
        if !replica.membership.in_force().configuration.voters().contains(&node) {
            return Err(TransferRefused::NoVoter { node });
        }
        match self.check_ready(replica, now, node) {
            Err(ChangeRefused::Unreachable { node }) => Err(TransferRefused::Unreachable { node }),
            Err(ChangeRefused::Behind { node, matched, commit }) => {
                Err(TransferRefused::Behind { node, matched, commit })
            }
            _ if unfit.contains(&node) => Err(TransferRefused::Unfit { node }),
            _ => Ok(()),
        }
    }

    /// Begins to hand over to a node that [`Leader::transfer_target`] named.
    pub(crate) fn begin_transfer(
        &mut self,
        replica: &Replica,
        now: Ticks,
        to: NodeId,
        out: &mut Output,
    ) {
        if self.transfer_target(replica, now, Some(to), &[]).is_err() {
            out.refused = Some(Refusal::NotNow);
            return;
        }
        self.stir(replica, now);
        let ends_at = now.after(replica.settings.election_timeout);
        self.transfer = Some(Transfer { to, ends_at, is_told: false });
        self.tell_target(replica, out);
    }

    /// Tells the target to stand, once: when it holds the whole log, durably, and all of that is
    /// committed, so that whoever waits for it here is answered first.
    pub(super) fn tell_target(&mut self, replica: &Replica, out: &mut Output) {
        let last = replica.log().last();
        let Some(Transfer { to, is_told: false, .. }) = self.transfer else { return };
        let is_ready =
            replica.commit() == last && self.peer(to).is_some_and(|peer| peer.matched == last);
        #[cfg(ringraft_plant)]
        let is_ready = is_ready || planted(Plant::TransferBlind);
        if is_ready {
            self.has_told = true;
            self.transfer.as_mut().expect("just seen").is_told = true;
            let message = Message::TimeoutNow { term: replica.term() };
            out.send_now.push(Envelope { to, message });
        }
    }

    /// Tells it again, with every heartbeat: the word may have been lost.
    pub(super) fn tell_target_again(&mut self, replica: &Replica, out: &mut Output) {
        if let Some(transfer) = &mut self.transfer {
            transfer.is_told = false;
            self.tell_target(replica, out);
        }
    }
}
