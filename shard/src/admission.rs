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
use crate::node_record::NodeRecord;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_net::handshake::{Hello, RefusalCode, Welcome};
use ringraft_raft::Input;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Incarnation, Index, Lacked, Met, NodeId, Sequence, Term, Ticks};
use ringraft_wal::device::Device;

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
        /// As whom it was met last.
        known: Met,
    },
    /// This node's is: the peer met it in a start that it lacks. No group of the shard takes part
    /// any more.
    Forgot,
    /// It carries this node's own number.
    Itself,
    /// No group names it, and so many of those are connected that it must try again.
    Full,
}

impl PeerAdmission {
    /// How such a greeting is refused, and what was met of the peer if that is why. `None` if it
    /// is welcome.
    pub fn refusal(self) -> Option<(RefusalCode, Option<Met>)> {
        match self {
            Self::Welcome => None,
            Self::WrongIncarnation { .. } => Some((RefusalCode::WrongIncarnation, None)),
            Self::RolledBack { known } => Some((RefusalCode::RolledBack, Some(known))),
            Self::Forgot => Some((RefusalCode::RolledBack, None)),
            Self::Itself => Some((RefusalCode::WrongNode, None)),
            Self::Full => Some((RefusalCode::Busy, None)),
        }
    }
}

/// What a peer's handshake says of it, and of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The life of its data directory, and its start.
    pub from: Met,
    /// As whom it met this node last.
    pub met: Option<Met>,
}

impl From<&Hello> for Greeting {
    fn from(hello: &Hello) -> Self {
        let from = Met { incarnation: hello.sender.incarnation, start: hello.start };
        Self { from, met: hello.met }
    }
}

impl From<&Welcome> for Greeting {
    fn from(welcome: &Welcome) -> Self {
        let from = Met { incarnation: welcome.sender.incarnation, start: welcome.start };
        Self { from, met: welcome.met }
    }
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
        if node == self.settings.identity.node {
            return Ok(PeerAdmission::Itself);
        }
        if !self.let_in(now, node) {
            return Ok(PeerAdmission::Full);
        }
        let Greeting { from, met } = greeting;
        let mut is_vouched = false;
        if let Some(known) = self.life(node) {
            let is_other = known != from.incarnation;
            #[cfg(ringraft_plant)]
            let is_other = is_other && !planted(Plant::IncarnationUnchecked);
            if is_other {
                is_vouched = self.is_vouched_for(now, node, from.incarnation);
            }
            if is_other && !is_vouched {
                return Ok(PeerAdmission::WrongIncarnation { known });
            }
        }
        if let Some(known) = self.met(node).filter(|it| it.incarnation == from.incarnation) {
            let (old, new) = (known.start, from.start);
            let is_older = new.number < old.number || new.number == old.number && new != old;
            #[cfg(ringraft_plant)]
            let is_older = is_older && !planted(Plant::RollbackUnchecked);
            if is_older {
                return Ok(PeerAdmission::RolledBack { known });
            }
        }
        // Who was told once stays out: a peer that knows no better must not meet this copy, or the
        // right directory would be refused by it.
        if self.has_forgotten(now, node, met)? || self.is_rolled_back {
            return Ok(PeerAdmission::Forgot);
        }
        let peer = self.peers.get_mut(&node).expect("it was just found");
        (peer.greeted, peer.is_vouched) = (Some(from), is_vouched);
        Ok(PeerAdmission::Welcome)
    }

    /// Judges what a peer answers to this shard's greeting, and by what it met, this node. A peer
    /// that is refused or refuses isn't welcome, for the reason in the admission or the code.
    ///
    /// # Errors
    /// If the log refuses a record; the process must stop.
    pub fn admit_answer(
        &mut self,
        now: Ticks,
        node: NodeId,
        welcome: &Welcome,
    ) -> Result<Result<PeerAdmission, RefusalCode>, ShardError> {
        let sender = welcome.sender;
        if welcome.verdict == Err(RefusalCode::RolledBack) && sender.node == node {
            // One of the two is an older copy: this one, or the peer, which found it out itself.
            if self.has_forgotten(now, node, welcome.met)? {
                return Ok(Ok(PeerAdmission::Forgot));
            }
            if let Some(known) = self.met(node) {
                return Ok(Ok(PeerAdmission::RolledBack { known }));
            }
        }
        if let Err(code) = welcome.verdict {
            return Ok(Err(code));
        }
        if sender.cluster != self.settings.identity.cluster {
            return Ok(Err(RefusalCode::WrongCluster));
        }
        if sender.node != node {
            return Ok(Err(RefusalCode::WrongNode));
        }
        if welcome.shards != self.settings.shards {
            return Ok(Err(RefusalCode::NoSuchShard));
        }
        self.admit_peer(now, node, Greeting::from(welcome)).map(Ok)
    }

    /// Whether a peer met this node in a start that it doesn't remember. Then its data directory
    /// is an older copy, and it may have promised what it doesn't know: the shard falls silent, and
    /// who asks is told so.
    ///
    /// # Errors
    /// If the log refuses a record; the process must stop.
    fn has_forgotten(
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
        if has_forgotten && !self.is_rolled_back {
            let start = self.settings.starts.newest();
            let lacked = Lacked { start: met.start, by: peer };
            self.events.push(ShardEvent::RolledBack { lacked, start });
            self.fall_silent(now)?;
        }
        Ok(has_forgotten)
    }

    /// The data directory is an older copy: from now on no group of this shard takes part, and no
    /// peer hears of it.
    pub(crate) fn fall_silent(&mut self, now: Ticks) -> Result<(), ShardError> {
        if !std::mem::replace(&mut self.is_rolled_back, true) {
            for slot in 0..self.groups.len() {
                self.silence(now, slot, Halt::RolledBack)?;
            }
        }
        Ok(())
    }

    /// A group takes part in nothing any more.
    pub(crate) fn silence(
        &mut self,
        now: Ticks,
        slot: usize,
        halt: Halt,
    ) -> Result<(), ShardError> {
        // What is encoded already is handed over first: its writers are told "unknown".
        self.propose(now, slot)?;
        // It leads no more, and whoever reads or writes here is told so.
        self.step(now, slot, Input::Damaged, Carried::Cache)?;
        let group = &mut self.groups[slot];
        group.is_muted = true;
        group.gated.clear();
        group.halt = Some(group.halt.unwrap_or(halt));
        self.list_for_apply(slot);
        Ok(())
    }

    /// A frame of a peer came: it has taken this node's greeting for good, so it is met. It is not
    /// believed before that is written down.
    pub(crate) fn meet(&mut self, node: NodeId) -> Result<(), ShardError> {
        let Some(peer) = self.peers.get(&node) else { return Ok(()) };
        let Some(met) = peer.greeted.filter(|_| peer.greeted != peer.met) else { return Ok(()) };
        self.peers.get_mut(&node).expect("it was just found").met = Some(met);
        if self.is_node_damaged {
            // What the log said of the node is lost, and no group takes part: what is written now
            // would pass for all of it.
            return Ok(());
        }
        let sequence = self.write_node_record()?;
        let peer = self.peers.get_mut(&node).expect("it was just found");
        peer.awaits = Some(sequence);
        self.peers_due.awaits = true;
        Ok(())
    }

    /// Writes down all that the log is to say of the node.
    pub(crate) fn write_node_record(&mut self) -> Result<Sequence, ShardError> {
        let peers = self.peers.iter().filter_map(|(&node, peer)| Some((node, peer.met?)));
        let met = peers.chain(self.strangers.iter().map(|(&node, &met)| (node, met))).collect();
        let payload = NodeRecord { shards: self.settings.shards, met }.encode();
        let (group, index) = (GroupId::ZERO, Index::ZERO);
        self.append_record(RecordKind::Node, group, index, Term::ZERO, &payload)
    }
}
