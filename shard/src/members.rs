//! Who is a member of a group, as its log says, and whom the shard knows by it.
//!
//! The protocol looks at nodes and roles only. What else an entry says of its members, how to reach
//! them and which lives of their data directories are meant, is kept here: of every configuration
//! that may be in force, and of the one as of what is applied, for snapshots. A group begins with
//! the configuration that its data directory was formatted for, or with none, and then waits to be
//! added (decision 0015).
//!
//! Peers are per shard, members per group: a node is a peer as long as a group names it. One that
//! is named no more stays one until its link is lost, to learn of that, and is let in again if it
//! comes by itself.

mod book;
mod change;

pub use book::Members;
pub(crate) use book::{Book, Own};
pub use change::MemberChange;

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::{Peer, Shard, ShardSettings};
use ringraft_raft::{Input, Message, Output, Span};
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::{
    Configuration, GroupId, Incarnation, Index, Member, NodeId, Ticks, Words,
    record::{self, RecordKind},
};
use ringraft_wal::device::Device;
use std::collections::BTreeSet;

impl<D: Device, L: Links> Shard<D, L> {
    /// What every group begins with: the voters that the settings name, as the settings reach them;
    /// or none.
    pub(crate) fn first_members(&self) -> Members {
        let voters = self.settings.voters.clone();
        if voters.is_empty() {
            return Members::none();
        }
        let configuration = Configuration::first(voters, Vec::new());
        let configuration = configuration.expect("voters were checked where they were read");
        let words = |node| self.words_of_settings(node);
        Members::new(Index::ZERO, configuration, words).expect("addresses are checked there too")
    }

    /// The configurations of a group that may be in force, and the one as of what is applied.
    pub fn configurations(&self, group: GroupId) -> impl Iterator<Item = Configuration> + '_ {
        let slot = self.slots.get(&group).copied();
        slot.into_iter().flat_map(|slot| self.groups[slot].book.configurations())
    }

    fn words_of_settings(&self, node: NodeId) -> Words<'_> {
        let found = self.settings.members.iter().find(|member| member.node == node);
        found.map(|member| member.words()).unwrap_or_default()
    }

    /// The newest configuration in a group's log, and what it says of its members. `None`: the
    /// group isn't here.
    pub fn members(&self, group: GroupId) -> Option<&Members> {
        let &slot = self.slots.get(&group)?;
        Some(self.groups[slot].book.newest())
    }

    /// Whether a group is here, and nothing here says who its members are.
    pub fn waits_to_be_added(&self, group: GroupId) -> bool {
        self.members(group).is_some_and(Members::is_none)
    }

    /// A step changed which configurations may be in force: what the log holds of them is read.
    ///
    /// All of them, also one that the next has taken the place of in the same step: a snapshot may
    /// end between the two.
    pub(crate) fn read_members(
        &mut self,
        now: Ticks,
        slot: usize,
        appended: Option<Span>,
    ) -> Result<(), ShardError> {
        let Self { groups, cache, .. } = self;
        let group = &mut groups[slot];
        for index in appended.into_iter().flat_map(|span| span.first.0..=span.last.0).map(Index) {
            let bytes = cache.get(slot, index).expect("this step has cached it");
            let header = record::peek(bytes).expect("records are verified where they enter");
            if header.kind == RecordKind::Configuration {
                let payload = &bytes[RECORD_HEADER_BYTES..][..header.length as usize];
                let members = Members::decode(index, payload);
                group.book.append(members.expect("the protocol has seen it decoded"));
            }
        }
        self.members_moved(now, slot);
        self.check_lives(now, slot)
    }

    /// What a step removed from the log isn't in the book any more.
    pub(crate) fn unread_members(&mut self, slot: usize, output: &Output) {
        let book = &mut self.groups[slot].book;
        if let Some(base) = output.emptied {
            book.truncate_from(base.index.next());
        } else if let Some(from) = output.truncate_from {
            book.truncate_from(from);
        }
    }

    /// A configuration was applied: the ones before it count no more.
    pub(crate) fn members_applied(&mut self, now: Ticks, slot: usize) -> Result<(), ShardError> {
        let own = self.settings.identity.node;
        let group = &mut self.groups[slot];
        group.members_applied = false;
        group.book.forget_before(group.applied);
        let members = group.book.as_of(group.applied);
        self.events.push(ShardEvent::MembersChanged {
            group: group.id,
            index: members.index,
            phase: members.configuration.phase(),
            voters: members.configuration.voters().len() as u8,
            learners: members.configuration.learners().len() as u8,
            is_member: members.configuration.is_member(own),
        });
        self.members_moved(now, slot);
        self.check_lives(now, slot)
    }

    /// The configurations that count changed in a group: who was not known is from now on, and who
    /// isn't named any more isn't dialled.
    pub(crate) fn members_moved(&mut self, now: Ticks, slot: usize) {
        let own = self.settings.identity.node;
        let named = self.groups[slot].book.nodes();
        let before = std::mem::replace(&mut self.groups[slot].named_nodes, named.clone());
        for &node in named.difference(&before).filter(|&&node| node != own) {
            self.name_peer(now, node);
        }
        for &node in before.difference(&named).filter(|&&node| node != own) {
            let peer = self.peers.get_mut(&node).expect("who is named is a peer");
            peer.named -= 1;
            if peer.named == 0 {
                self.links.forget(now, node);
            }
        }
        for &node in named.iter().filter(|&&node| node != own) {
            if let Some(address) = self.address_of(slot, node) {
                self.links.know(now, node, &address);
            }
        }
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

    /// One more group names a node. Where it is reached may be said later, or never: then it comes
    /// by itself.
    fn name_peer(&mut self, now: Ticks, node: NodeId) {
        if !self.peers.contains_key(&node) {
            let met = self.strangers.remove(&node);
            self.peers.insert(node, Peer { met, ..Peer::default() });
            self.links.know(now, node, "");
        }
        self.peers.get_mut(&node).expect("it was just put there").named += 1;
    }

    /// Peers without a link that nobody names, and that aren't to add this node either, are
    /// strangers from now on. In the turn after a link was lost: another one may have taken its
    /// place.
    pub(crate) fn part_from_strangers(&mut self) {
        if !std::mem::take(&mut self.may_part) {
            return;
        }
        let seeds = self.seeds();
        let is_stranger = |node: &NodeId, peer: &Peer| {
            peer.named == 0 && !peer.connected && peer.awaits.is_none() && !seeds.contains(node)
        };
        for (node, parted) in self.peers.extract_if(.., |node, peer| is_stranger(node, peer)) {
            self.strangers.extend(parted.met.map(|met| (node, met)));
        }
    }

    /// A node comes that was a peer once: it may not know that it left.
    pub(crate) fn take_back(&mut self, now: Ticks, node: NodeId) -> bool {
        let Some(met) = self.strangers.remove(&node) else { return false };
        self.peers.insert(node, Peer { met: Some(met), ..Peer::default() });
        self.links.know(now, node, "");
        self.may_part = true;
        true
    }

    /// Who may add this node to groups of which it knows no member yet: whom the settings name.
    pub(crate) fn seeds(&self) -> BTreeSet<NodeId> {
        let is_outside = self.groups.iter().any(|group| group.book.newest().is_none());
        let members = self.settings.members.iter().filter(|_| is_outside);
        let own = self.settings.identity.node;
        members.map(|member| member.node).filter(|&node| node != own).collect()
    }

    /// Where a node is reached: as the settings say, else as the newest configuration does.
    fn address_of(&self, slot: usize, node: NodeId) -> Option<String> {
        let of = |words: Words<'_>| String::from_utf8_lossy(words.addresses.peer).into_owned();
        let known = of(self.words_of_settings(node));
        if !known.is_empty() {
            return Some(known);
        }
        Some(of(self.groups[slot].book.words(node)?)).filter(|address| !address.is_empty())
    }

    /// Where clients reach a member: as the settings say, else as its group's configuration does.
    pub(crate) fn client_address(&self, member: &Member<'_>) -> String {
        let known = self.words_of_settings(member.node).addresses.client;
        let known = if known.is_empty() { member.words.addresses.client } else { known };
        String::from_utf8_lossy(known).into_owned()
    }

    /// Which life of a node's data directory may speak for it: as the configurations say that
    /// count, of all groups here, because a node has one link for all of them; else the one that
    /// was met. `None`: whichever comes first.
    ///
    /// A wiped node that is added anew is let in when no group counts its vote any more by what it
    /// was before.
    pub(crate) fn life(&self, node: NodeId) -> Option<Incarnation> {
        let known = self.peers.get(&node).map(|peer| peer.met);
        let met = known.unwrap_or_else(|| self.strangers.get(&node).copied());
        let met = met.map(|met| met.incarnation);
        // What a group says that this node left, nobody tells it any more.
        let own = self.settings.identity.node;
        let groups = || self.groups.iter().filter(|group| group.named_nodes.contains(&own));
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

    /// Whether what a peer says is a vote, an acknowledgement or a candidate's word of another life
    /// than the one that this group means: a link carries all groups, and this one may not know yet
    /// whom another one has let in. What a leader says is judged by its log.
    pub(crate) fn is_of_other_life(&self, slot: usize, from: NodeId, message: &Message) -> bool {
        use Message::{Append, Heartbeat, Install};
        let meant = self.groups[slot].book.newest().life(from);
        let Some(meant) = meant.filter(|&life| life != Incarnation(0)) else { return false };
        let met = self.peers.get(&from).and_then(|peer| peer.met);
        let is_other = met.is_some_and(|met| met.incarnation != meant);
        is_other && !matches!(message, Append(_) | Heartbeat { .. } | Install { .. })
    }

    /// Who this node is, for configurations that name it.
    pub(crate) fn own(&self) -> Own {
        let ShardSettings { identity, voters, .. } = &self.settings;
        Own { node: identity.node, life: identity.incarnation, begins: !voters.is_empty() }
    }

    /// Another life of a node's data directory speaks for it from now on: the one before is a
    /// stranger.
    fn check_life(&mut self, now: Ticks, node: NodeId) -> Result<(), ShardError> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let peer = self.peers.get_mut(&node).expect("who is named is a peer");
        if peer.met.is_some_and(|met| met.incarnation != life) {
            peer.met = None;
        }
        if peer.greeted.is_some_and(|greeted| greeted.incarnation != life) {
            // Its next frame is refused, and with it the connection.
            peer.greeted = None;
            if std::mem::take(&mut peer.connected) {
                peer.staged.clear();
                peer.postponed.clear();
                for slot in 0..self.groups.len() {
                    self.step(now, slot, Input::LinkDown(node), Carried::Cache)?;
                }
            }
        }
        Ok(())
    }
}
