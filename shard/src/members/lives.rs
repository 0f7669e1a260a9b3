//! Which life of a node's data directory may speak for it (decision 0015).
//!
//! One that was wiped has forgotten what it promised, and comes in another life. It is kept out as
//! long as a group here counts the one before. But this node may be the one that lags, and the
//! other life may lead by now: then the peers that are believed are asked, and on their word it is
//! let in as one that may lead, and nothing else. What it sends brings the news, and with the news
//! it is met like any other.

use crate::error::{FrameRefusal, ShardError};
use crate::group::Group;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::{Peer, Shard};
use ringraft_net::wire::{self, LIFE_ITEMS_MAX, Life, LifeItem};
use ringraft_net::{Frame, Kind};
use ringraft_raft::{Input, Message};
use ringraft_types::{Incarnation, Index, NodeId, Ticks};
use ringraft_wal::device::Device;
use std::collections::{BTreeMap, BTreeSet};

/// The same is asked again after this time at the earliest.
const ASK_PAUSE: Ticks = Ticks::from_millis(1_000);

/// Another life of a peer than the one that counts here, and what other peers say of it.
#[derive(Debug)]
pub(crate) struct Doubt {
    life: Incarnation,
    /// Groups (by slot) of which it is a member, and the entry of the configuration by which it is:
    /// a later one than this node has applied.
    vouched: BTreeMap<usize, Index>,
    /// The peers aren't asked before.
    next_at: Ticks,
}

impl Doubt {
    fn is_vouched(&self) -> bool {
        !self.vouched.is_empty()
    }

    pub(crate) fn forget_group(&mut self, slot: usize) {
        self.vouched.remove(&slot);
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Which life of a node's data directory may speak for it: as the configurations say that
    /// count, of all groups here, because a node has one link for all of them; else the one that
    /// was met. `None`: whichever comes first, and of who counts nowhere whichever comes.
    ///
    /// A wiped node that is added anew is let in when no group counts its vote any more by what it
    /// was before.
    pub(crate) fn life(&self, node: NodeId) -> Option<Incarnation> {
        let known = self.peers.get(&node).map(|peer| peer.met);
        let met = known.unwrap_or_else(|| self.strangers.get(&node).copied());
        let met = met.map(|met| met.incarnation);
        if !self.counts(node) {
            return None;
        }
        let groups = || self.groups_of(self.settings.identity.node);
        let (mut meant, mut counts_unnamed) = (BTreeSet::new(), false);
        for (life, is_voter) in groups().flat_map(|group| group.book.lives(node)) {
            meant.extend((life != Incarnation(0)).then_some(life));
            counts_unnamed |= is_voter && life == Incarnation(0);
        }
        let newest = groups().filter_map(|group| group.book.newest_with(node));
        let newest = newest.filter_map(|members| {
            let life = members.life(node).filter(|&life| life != Incarnation(0))?;
            Some((members.configuration.is_voter(node), life))
        });
        let newest = newest.max().map(|(_, life)| life);
        let is_new = meant.len() == 1 && !(counts_unnamed && met.is_some());
        let first = newest.or(meant.first().copied());
        if is_new { first } else { met.or(first) }
    }

    /// Groups that name a node; this one, to know what they say: nobody tells it any more what a
    /// group says that it left.
    fn groups_of(&self, node: NodeId) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(move |group| group.named_nodes.contains(&node))
    }

    /// Whether a group names a node, or may: of one that lost what it knew nobody can say.
    fn counts(&self, node: NodeId) -> bool {
        let own = self.settings.identity.node;
        let mut groups = self.groups_of(own);
        groups.any(|group| group.named_nodes.contains(&node))
            || self.groups.iter().filter(|group| !group.is_gone()).any(|group| {
                group.is_muted || group.halt.is_some() && group.book.newest().is_none()
            })
    }

    /// Which life of a node a configuration is to name, if it isn't said: the one that counts, and
    /// of who counts nowhere the one that is linked.
    ///
    /// # Errors
    /// With the life that was known of a node that counts nowhere and isn't linked: it may have been
    /// wiped since.
    pub(crate) fn life_to_name(&self, node: NodeId) -> Result<Option<Incarnation>, Incarnation> {
        if self.counts(node) {
            return Ok(self.life(node));
        }
        let peer = self.peers.get(&node);
        let linked = peer.filter(|peer| peer.connected).and_then(|peer| peer.greeted);
        let known = peer.map_or_else(|| self.strangers.get(&node).copied(), |peer| peer.met);
        match (linked, known) {
            (None, Some(known)) => Err(known.incarnation),
            (linked, _) => Ok(linked.map(|met| met.incarnation)),
        }
    }

    /// Whether a group heeds what a peer says.
    ///
    /// Not a vote, an acknowledgement or a candidate's word of another life than the one that the
    /// group means: a link carries all groups, and this one may not know yet whom another one has
    /// let in. What a leader says is judged by its log. Of a peer that is let in on the word of
    /// others only that is heeded, and only where they say that it is a member: a life of which
    /// nobody knows could lead wiped nodes over what this one holds.
    pub(crate) fn heeds(
        &mut self,
        now: Ticks,
        slot: usize,
        from: NodeId,
        message: &Message,
    ) -> bool {
        use Message::{Append, Heartbeat, Install};
        let is_leaders = matches!(message, Append(_) | Heartbeat { .. } | Install { .. });
        let Some(peer) = self.peers.get(&from) else { return false };
        if is_leaders {
            let may_lead = self.may_lead(slot, from);
            if !may_lead {
                self.ask_for_doubted(now, from);
            }
            return may_lead;
        }
        let is_other = |life| peer.met.is_some_and(|met| met.incarnation != life);
        !peer.is_vouched && !self.life_meant(slot, from).is_some_and(is_other)
    }

    /// Whether a peer, in the life that it greeted in, may lead a group, as far as is known here.
    pub(crate) fn may_lead(&self, slot: usize, node: NodeId) -> bool {
        let Some(peer) = self.peers.get(&node).filter(|peer| peer.is_vouched) else { return true };
        let greeted = peer.greeted.map(|met| met.incarnation);
        let is_meant = greeted.is_some() && self.life_meant(slot, node) == greeted;
        is_meant || peer.doubt.as_ref().is_some_and(|doubt| doubt.vouched.contains_key(&slot))
    }

    /// The life that a group means of a node, if it says one.
    fn life_meant(&self, slot: usize, node: NodeId) -> Option<Incarnation> {
        let meant = self.groups[slot].book.newest().life(node);
        meant.filter(|&life| life != Incarnation(0))
    }

    /// Looks whether a group's configurations mean other lives of peers than those that are known.
    pub(crate) fn check_lives(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let own = self.settings.identity.node;
        let named = self.groups[slot].named_nodes.clone();
        for node in named.into_iter().filter(|&node| node != own) {
            let peer = &self.peers[&node];
            let met = [peer.met, peer.greeted].map(|met| met.map(|met| met.incarnation));
            let is_other = |life| met.iter().flatten().any(|&known| known != life);
            let is_doubtful = |(life, _)| life != Incarnation(0) && is_other(life);
            if self.groups[slot].book.lives(node).any(is_doubtful) {
                self.check_life(now, node)?;
            }
        }
        Ok(())
    }

    /// Another life of a node's data directory speaks for it from now on: the one before is a
    /// stranger, and who was let in on the word of others is met with its next frame.
    pub(crate) fn check_life(&mut self, now: Ticks, node: NodeId) -> Result<(), ShardError> {
        let Some(life) = self.life(node) else { return Ok(()) };
        self.forget_old_words(node);
        let peer = self.peers.get_mut(&node).expect("who is or was just named is a peer");
        if peer.met.is_some_and(|met| met.incarnation != life) {
            peer.met = None;
        }
        let Some(greeted) = peer.greeted else { return Ok(()) };
        let was_vouched = std::mem::take(&mut peer.is_vouched);
        if greeted.incarnation == life {
            peer.doubt = None;
            if !was_vouched {
                return Ok(());
            }
        } else if was_vouched && peer.doubt.as_ref().is_some_and(Doubt::is_vouched) {
            peer.is_vouched = true;
            return Ok(());
        } else {
            // Its next frame is refused, and with it the connection.
            peer.greeted = None;
            if !std::mem::take(&mut peer.connected) {
                return Ok(());
            }
        }
        peer.staged.clear();
        peer.postponed.clear();
        for slot in 0..self.groups.len() {
            self.step(now, slot, Input::LinkDown(node), Carried::Cache)?;
        }
        Ok(())
    }

    /// What others said of a life is of no more use where this node has applied as much.
    fn forget_old_words(&mut self, node: NodeId) {
        let Self { peers, groups, .. } = self;
        if let Some(doubt) = peers.get_mut(&node).and_then(|peer| peer.doubt.as_mut()) {
            doubt.vouched.retain(|&slot, index| groups[slot].lacks_members_of(*index));
        }
    }

    /// A peer greets in another life than the one that counts here: whether it is let in all the
    /// same, because others say that it is a member. They are asked.
    pub(crate) fn is_vouched_for(&mut self, now: Ticks, node: NodeId, life: Incarnation) -> bool {
        self.forget_old_words(node);
        let peer = self.peers.get_mut(&node).expect("who greets is a peer, or a guest");
        if peer.doubt.as_ref().is_none_or(|doubt| doubt.life != life) {
            peer.doubt = Some(Doubt { life, vouched: BTreeMap::new(), next_at: now });
        }
        self.ask_for_doubted(now, node);
        self.peers[&node].doubt.as_ref().is_some_and(Doubt::is_vouched)
    }

    /// Asks the peers that are believed for a life that isn't.
    fn ask_for_doubted(&mut self, now: Ticks, node: NodeId) {
        let Self { peers, links, settings, is_rolled_back, .. } = self;
        let doubt = peers.get(&node).and_then(|peer| peer.doubt.as_ref());
        let Some(doubt) = doubt.filter(|doubt| now >= doubt.next_at && !*is_rolled_back) else {
            return;
        };
        let ask = Life { node, life: doubt.life };
        let is_asked = |peer: &Peer| peer.is_up() && !peer.is_vouched;
        let mut next_at = now;
        for (&other, _) in peers.iter().filter(|(id, peer)| **id != node && is_asked(peer)) {
            if let Some(outbox) = links.peer(other).filter(|outbox| !outbox.is_urgent_full()) {
                ask.ask(outbox, settings.identity);
                next_at = now.after(ASK_PAUSE);
            }
        }
        let doubt = peers.get_mut(&node).and_then(|peer| peer.doubt.as_mut());
        doubt.expect("it was just found").next_at = next_at;
    }

    /// A peer asks for a life of a node: it is told which groups mean it, as far as that is
    /// committed.
    pub(crate) fn life_ask(&mut self, from: NodeId, frame: &Frame<'_>) -> Result<(), FrameRefusal> {
        let malformed = |error| FrameRefusal::malformed(Kind::LifeAsk, error);
        let asked = wire::life_ask(frame).map_err(malformed)?;
        let known = self.groups.iter().filter(|group| !group.is_muted).filter_map(|group| {
            let members = group.book.as_of(group.applied);
            let is_meant = members.life(asked.node) == Some(asked.life);
            is_meant.then_some(LifeItem { group: group.id, index: members.index })
        });
        let items: Vec<LifeItem> = known.take(LIFE_ITEMS_MAX).collect();
        let outbox = self.links.peer(from).filter(|outbox| !outbox.is_full());
        if let Some(outbox) = outbox.filter(|_| !items.is_empty()) {
            asked.answer(outbox, self.settings.identity, &items);
        }
        Ok(())
    }

    /// A peer says where a life of a node is a member: news where this node hasn't applied as much.
    pub(crate) fn life_answer(&mut self, frame: &Frame<'_>) -> Result<(), FrameRefusal> {
        let malformed = |error| FrameRefusal::malformed(Kind::LifeAnswer, error);
        let (asked, items) = wire::life_answer(frame).map_err(malformed)?;
        let Self { peers, groups, slots, .. } = self;
        let doubt = peers.get_mut(&asked.node).and_then(|peer| peer.doubt.as_mut());
        let Some(doubt) = doubt.filter(|doubt| doubt.life == asked.life) else { return Ok(()) };
        for item in items {
            let Some(&slot) = slots.get(&item.group) else { continue };
            if groups[slot].lacks_members_of(item.index) {
                doubt.vouched.insert(slot, item.index);
            }
        }
        Ok(())
    }
}
