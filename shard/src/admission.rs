//! Who may be a peer: a node in the life that is known, and not put back to an older state.
//!
//! A node that forgot what it promised must not count. Formatted anew, it comes with another
//! incarnation; put back from an older copy, it lacks the start in which it was met last. What was
//! met is kept in the log; the peer's own memory of this node is judged here too, because a copy
//! may have been started so often that only the node itself can tell (decision 0011).

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::Halt;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_raft::Input;
use ringraft_types::bytes::u64_at;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{RecordError, RecordKind};
use ringraft_types::{GroupId, Incarnation, Index, Met, NodeId, Start, Term, Ticks};
use ringraft_wal::device::Device;

/// Bytes of a peer record's payload.
const PAYLOAD_BYTES: usize = 16;

/// Whether a peer's handshake is welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAdmission {
    /// It is who it was, or was never seen before.
    Welcome,
    /// It carries this node's identity but another life of its data directory.
    WrongIncarnation {
        /// The one on record here.
        known: Incarnation,
    },
    /// Its data directory is an older copy: it lacks the start in which it was met.
    RolledBack {
        /// The one on record here.
        known: Start,
    },
    /// This node's is: the peer met it in a start that it lacks. No group of the shard takes part
    /// any more.
    Forgot,
    /// It isn't a member, or it is this node itself.
    NotAMember,
}

/// What a peer's handshake says of it, and of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The life of its data directory, and its start.
    pub from: Met,
    /// As whom it met this node last.
    pub met: Option<Met>,
}

/// The payload of a peer's record.
fn payload_of(start: Start) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [0; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&start.number.to_le_bytes());
    payload[8..].copy_from_slice(&start.nonce.to_le_bytes());
    payload
}

/// The start in a peer's record.
pub(crate) fn start_of(payload: &[u8]) -> Result<Start, RecordError> {
    if payload.len() != PAYLOAD_BYTES {
        return Err(RecordError::Short { have: payload.len(), need: PAYLOAD_BYTES });
    }
    Ok(Start { number: u64_at(payload, 0), nonce: u64_at(payload, 8) })
}

impl<D: Device, L: Links> Shard<D, L> {
    /// As whom a peer was met last: to be told to it in the handshake.
    pub fn met(&self, node: NodeId) -> Option<Met> {
        self.peers.get(&node)?.met
    }

    /// Judges a peer's handshake, and by what it met, this node.
    ///
    /// # Errors
    /// If the log refuses a record; the process must stop.
    pub fn admit_peer(
        &mut self,
        now: Ticks,
        node: NodeId,
        greeting: Greeting,
    ) -> Result<PeerAdmission, ShardError> {
        let Some(peer) = self.peers.get_mut(&node) else {
            return Ok(PeerAdmission::NotAMember);
        };
        let Greeting { from, met } = greeting;
        if let Some(known) = peer.met {
            let is_other = known.incarnation != from.incarnation;
            #[cfg(ringraft_plant)]
            let is_other = is_other && !planted(Plant::IncarnationUnchecked);
            if is_other {
                return Ok(PeerAdmission::WrongIncarnation { known: known.incarnation });
            }
            let (old, new) = (known.start, from.start);
            let is_older = new.number < old.number || new.number == old.number && new != old;
            #[cfg(ringraft_plant)]
            let is_older = is_older && !planted(Plant::RollbackUnchecked);
            if is_older {
                return Ok(PeerAdmission::RolledBack { known: old });
            }
        }
        // Who was told once stays out: a peer that knows no better must not meet this copy, or the
        // right directory would be refused by it.
        if self.has_forgotten(now, node, met)? || self.is_rolled_back {
            return Ok(PeerAdmission::Forgot);
        }
        self.peers.get_mut(&node).expect("it was just found").greeted = Some(from);
        Ok(PeerAdmission::Welcome)
    }

    /// Whether a peer met this node in a start that it doesn't remember. Then its data directory
    /// is an older copy, and it may have promised what it doesn't know: from now on no group of
    /// this shard takes part, and who asks is told so.
    ///
    /// # Errors
    /// If the log refuses a record; the process must stop.
    pub fn has_forgotten(
        &mut self,
        now: Ticks,
        peer: NodeId,
        met: Option<Met>,
    ) -> Result<bool, ShardError> {
        let Some(met) = met else { return Ok(false) };
        // Of another life of the directory the peer judges by itself.
        let is_of_this_life = met.incarnation == self.settings.identity.incarnation;
        let has_forgotten = is_of_this_life && self.settings.starts.lack(met.start);
        #[cfg(ringraft_plant)]
        let has_forgotten = has_forgotten && !planted(Plant::RollbackUnchecked);
        if has_forgotten && !std::mem::replace(&mut self.is_rolled_back, true) {
            let start = self.settings.starts.newest();
            self.events.push(ShardEvent::RolledBack { peer, met: met.start, start });
            for slot in 0..self.groups.len() {
                self.fall_silent(now, slot)?;
            }
        }
        Ok(has_forgotten)
    }

    fn fall_silent(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        // What is encoded already is handed over first: its writers are told "unknown".
        if !self.groups[slot].proposals.is_empty() {
            self.propose(now, slot)?;
        }
        // It leads no more, and whoever reads or writes here is told so.
        self.step(now, slot, Input::Damaged, Carried::Cache)?;
        let group = &mut self.groups[slot];
        group.is_muted = true;
        group.gated.clear();
        group.halt = Some(group.halt.unwrap_or(Halt::RolledBack));
        self.list_for_apply(slot);
        Ok(())
    }

    /// A frame of a peer came: it has taken this node's greeting for good, so it is met. It is not
    /// believed before that is written down.
    pub(crate) fn meet(&mut self, node: NodeId) -> Result<(), ShardError> {
        let Some(peer) = self.peers.get(&node) else { return Ok(()) };
        let Some(met) = peer.greeted.filter(|_| peer.greeted != peer.met) else { return Ok(()) };
        let (index, term) = (Index(u64::from(node.0)), Term(met.incarnation.0));
        let payload = payload_of(met.start);
        let sequence =
            self.append_record(RecordKind::Peer, GroupId::ZERO, index, term, &payload)?;
        let peer = self.peers.get_mut(&node).expect("it was just found");
        peer.met = Some(met);
        peer.awaits = Some(sequence);
        Ok(())
    }
}
