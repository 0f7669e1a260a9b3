//! Who leads, as calls that wait: a group is handed over, a node is kept from leading.

use std::time::Duration;

use ringraft_types::{GroupId, NodeId, ShardId, Status, Term};

use super::driver::Client;
use super::{CallId, Reason, SubmitError};
use crate::error::ClientError;
use crate::lead_wire::{LeadRefusal, LeadReply, Leading};

/// A group was handed over, or was led by the named node already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Who leads.
    pub leader: NodeId,
    /// In which term, as the former leader knows it.
    pub term: Term,
}

/// Why a group wasn't handed over, or why that isn't known.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// It wasn't: the former leader goes on, or another node leads than the named one.
    #[error("{sentence}")]
    Refused {
        /// Why, for programs.
        refusal: LeadRefusal,
        /// Why, for people.
        sentence: String,
        /// Who leads, if the node that answered knows.
        leader: Option<NodeId>,
    },
    /// What can go wrong with any call.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<SubmitError> for TransferError {
    fn from(error: SubmitError) -> Self {
        Self::Client(error.into())
    }
}

impl Client {
    /// Has another node lead a group: `to`, or the one that fits best. Waits until it leads, or until
    /// it is known that it doesn't; at most for `timeout`. Writes and reads go on through the
    /// change: what finds no leader meanwhile is sent again by the library.
    ///
    /// It may be asked for again: a group that `to` leads already is handed over. Without a name it
    /// may move twice if an answer is lost on the way.
    ///
    /// # Errors
    /// If it wasn't handed over, if no leader answers in time, or if that isn't known.
    pub fn transfer_leader(
        &mut self,
        group: GroupId,
        to: Option<NodeId>,
        timeout: Duration,
    ) -> Result<HandedOver, TransferError> {
        let deadline = self.after(timeout);
        let call = self.core_mut().submit_hand_over(group, to, deadline)?;
        let response = self.finish(call)?;
        let reply = LeadReply::decode(&response.body).map_err(ClientError::from)?;
        match (reply.refusal, to) {
            (None, _) => Ok(HandedOver { leader: reply.leader, term: reply.term }),
            (Some(LeadRefusal::AlreadyLeads), Some(leader)) => {
                Ok(HandedOver { leader, term: reply.term })
            }
            (Some(refusal), _) => Err(TransferError::Refused {
                refusal,
                sentence: reply.sentence.to_owned(),
                leader: Some(reply.leader).filter(|leader| leader.0 != 0),
            }),
        }
    }

    /// Has all shards of the node at `address` stand in no election and hand over what they lead, or
    /// stand again. The node forgets it when it starts anew. Returns how many shards were told.
    ///
    /// # Errors
    /// If a shard doesn't answer in time: the others may have been told.
    pub fn pause_elections(
        &mut self,
        address: &str,
        is_paused: bool,
    ) -> Result<usize, ClientError> {
        self.tell_all_shards(address, if is_paused { Leading::Pause } else { Leading::Resume })
    }

    /// Gives the node at `address` another priority as a leader, 0 to 255; the node forgets it when it
    /// starts anew, and goes by its file. Returns how many shards were told.
    ///
    /// # Errors
    /// If a shard doesn't answer in time: the others may have been told.
    pub fn set_priority(&mut self, address: &str, priority: u8) -> Result<usize, ClientError> {
        self.tell_all_shards(address, Leading::Priority(priority))
    }

    fn tell_all_shards(&mut self, address: &str, leading: Leading) -> Result<usize, ClientError> {
        let deadline = self.after(self.timeout());
        // The first connection says how many there are.
        let first = self.core_mut().submit_leading(address, Some(ShardId(0)), leading, deadline)?;
        self.told(first)?;
        let shards = self.core_mut().shards_at(address).unwrap_or(1);
        let calls: Vec<_> = (1..shards)
            .map(ShardId)
            .map(|shard| self.core_mut().submit_leading(address, Some(shard), leading, deadline))
            .collect();
        for call in calls {
            self.told(call?)?;
        }
        Ok(usize::from(shards))
    }

    fn told(&mut self, call: CallId) -> Result<(), ClientError> {
        let response = self.finish(call)?;
        match LeadReply::decode(&response.body)?.status {
            Status::Ok => Ok(()),
            status => {
                let (reason, trouble) = (Reason::Refused(status), self.trouble().cloned());
                Err(ClientError::NotDone { reason, trouble })
            }
        }
    }
}
