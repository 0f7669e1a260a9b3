//! Who is a member of a group, as its log says, and whom the shard knows by it.
//!
//! The protocol looks at nodes and roles only. What else an entry says of its members, how to reach
//! them and which lives of their data directories are meant, is kept here: of every configuration
//! that may be in force, and of the one as of what is applied, for snapshots. A group begins with
//! the configuration that its data directory was formatted for, or with none, and then waits to be
//! added (decision 0015).
//!
//! Peers are per shard, members per group: a node is a peer as long as a group names it. One that
//! is named no more stays one until its link is lost, to learn of that. Whoever comes by itself is
//! let in, named or not: one that left may not know it, and one that leads may be a member of which
//! this node hasn't heard, because nobody but that leader could tell it.

mod book;
mod change;
mod lives;

pub use book::Members;
pub(crate) use book::{Book, Own};
pub use change::MemberChange;
pub(crate) use lives::Doubt;

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::Need;
use crate::links::Links;
use crate::shard::{Peer, Shard, ShardSettings};
use ringraft_raft::{Output, Span};
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Configuration, GroupId, Index, Member, NodeId, Ticks, Words};
use ringraft_wal::device::Device;
use std::collections::BTreeSet;

/// Peers that no group names, at most: more are refused as busy, and dial again.
const GUESTS_MAX: usize = 64;
/// As whom so many nodes were met that aren't peers any more is kept: of more, the ones with the
/// smallest numbers are forgotten, and are then nodes that were never met.
const STRANGERS_MAX: usize = 256;

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
        let group = self.groups[slot].id;
        self.may_leave(group);
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
                self.may_part = true;
            }
        }
        for &node in named.iter().filter(|&&node| node != own) {
            if let Some(address) = self.address_of(slot, node) {
                self.links.know(now, node, &address);
            }
        }
    }

    /// One more group names a node. Where it is reached may be said later, or never: then it comes
    /// by itself.
    fn name_peer(&mut self, now: Ticks, node: NodeId) {
        if !self.peers.contains_key(&node) {
            self.links.know(now, node, "");
        }
        self.make_peer(node).named += 1;
    }

    /// A peer, as whom it was met if it was.
    fn make_peer(&mut self, node: NodeId) -> &mut Peer {
        let Self { peers, strangers, .. } = self;
        let peer = || Peer { met: strangers.remove(&node), ..Peer::default() };
        peers.entry(node).or_insert_with(peer)
    }

    /// Peers without a link that nobody names, and that aren't to add this node either, are
    /// strangers from now on. In the turn after a link was lost: another one may have taken its
    /// place.
    pub(crate) fn part_from_strangers(&mut self, now: Ticks) {
        if !std::mem::take(&mut self.may_part) {
            return;
        }
        let seeds = self.seeds();
        let is_left = |node: &NodeId, peer: &Peer| {
            peer.named == 0 && !peer.connected && !seeds.contains(node)
        };
        // What is on its way to the disk belongs to a peer.
        self.may_part = self.peers.iter().any(|it| is_left(it.0, it.1) && it.1.awaits.is_some());
        let is_stranger =
            |node: &NodeId, peer: &mut Peer| is_left(node, peer) && peer.awaits.is_none();
        let parted: Vec<(NodeId, Peer)> = self.peers.extract_if(.., is_stranger).collect();
        for (node, peer) in parted {
            self.links.part(now, node);
            self.pull_lost(node);
            self.strangers.extend(peer.met.map(|met| (node, met)));
        }
        while self.strangers.len() > STRANGERS_MAX {
            self.strangers.pop_first();
        }
    }

    /// A node comes by itself. If it isn't a peer it is let in as a guest, as long as there aren't
    /// too many. Returns whether it is a peer now.
    pub(crate) fn let_in(&mut self, now: Ticks, node: NodeId) -> bool {
        if self.peers.contains_key(&node) {
            return true;
        }
        let seeds = self.seeds();
        let guests = self.peers.iter().filter(|(id, peer)| peer.named == 0 && !seeds.contains(id));
        if guests.count() >= GUESTS_MAX {
            return false;
        }
        self.make_peer(node);
        self.links.know(now, node, "");
        self.may_part = true;
        true
    }

    /// Who may add this node to groups of which it knows no member yet: whom the settings name.
    pub(crate) fn seeds(&self) -> BTreeSet<NodeId> {
        let mut groups = self.groups.iter().filter(|group| !group.is_gone());
        let is_outside = groups.any(|group| group.book.newest().is_none());
        let members = self.settings.members.iter().filter(|_| is_outside);
        let own = self.settings.identity.node;
        members.map(|member| member.node).filter(|&node| node != own).collect()
    }

    /// They are looked for where the settings say.
    pub(crate) fn look_for_seeds(&mut self, now: Ticks) {
        for node in self.seeds() {
            self.make_peer(node);
            let address = peer_address(self.words_of_settings(node));
            self.links.know(now, node, &address);
        }
    }

    /// Where a node is reached: as the settings say, else as the newest configuration does.
    pub(crate) fn address_of(&self, slot: usize, node: NodeId) -> Option<String> {
        let known = peer_address(self.words_of_settings(node));
        if !known.is_empty() {
            return Some(known);
        }
        let said = peer_address(self.groups[slot].book.words(node)?);
        Some(said).filter(|address| !address.is_empty())
    }

    /// A leader that this node may never have heard of says where it is reached: it is to be asked
    /// for a snapshot, and that is what would say it else.
    pub(crate) fn hear_of_address(
        &mut self,
        now: Ticks,
        from: NodeId,
        group: GroupId,
        address: &[u8],
    ) {
        let Some(&slot) = self.slots.get(&group) else { return };
        let told = || String::from_utf8_lossy(address).into_owned();
        let address = self.address_of(slot, from).unwrap_or_else(told);
        let need = self.groups[slot].install;
        let is_asked = matches!(need, Some(Need::Leader(source, _)) if source == from);
        if is_asked && !address.is_empty() {
            // A guest isn't dialled, also if it is known where it is.
            self.links.know(now, from, &address);
        }
    }

    /// Where clients reach a member: as the settings say, else as its group's configuration does.
    pub(crate) fn client_address(&self, member: &Member<'_>) -> String {
        let known = self.words_of_settings(member.node).addresses.client;
        let known = if known.is_empty() { member.words.addresses.client } else { known };
        String::from_utf8_lossy(known).into_owned()
    }

    /// Who this node is, for configurations that name it.
    pub(crate) fn own(&self) -> Own {
        let ShardSettings { identity, voters, .. } = &self.settings;
        Own { node: identity.node, life: identity.incarnation, begins: !voters.is_empty() }
    }
}

fn peer_address(words: Words<'_>) -> String {
    String::from_utf8_lossy(words.addresses.peer).into_owned()
}
