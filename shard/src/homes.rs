//! Groups that come to a shard while it runs, and leave it (decision 0033).
//!
//! A node is configured with groups; of every other one, and of one of those that left, the log says
//! so by a record of its own, the group's *home*, before anything else of it: a start knows from the
//! log alone which groups are here and what they began with. What the log held of a group that left
//! counts no more from that record on.
//!
//! A group that left keeps its place among the shard's groups, muted and halted, until nothing that
//! is under way concerns it; then another group may have the place.

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::{Group, Halt};
use crate::links::Links;
use crate::members::{Book, Members};
use crate::peer_frames::Carried;
use crate::session::Sessions;
use crate::shard::{FetchFor, Shard};
use crate::snapshots::LoadedGroup;
use ringraft_raft::Input;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, HomeState, RecordKind};
use ringraft_types::{GroupId, Index, LogId, NodeId, Sequence, Term, Ticks};
use ringraft_wal::device::Device;
use ringraft_wal::{Recovered, RecoveredGroup};
use std::collections::{BTreeMap, BTreeSet};

/// What the log says of groups, beside those that the node is configured with.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// Groups that came, each with what it began with: a configuration, or nothing if it joined.
    here: BTreeMap<GroupId, Vec<u8>>,
    /// Groups that left and may come again, each with the newest term that it has known, and the entry
    /// up to which it votes as if it held all.
    left: BTreeMap<GroupId, (Term, LogId)>,
    /// The same entry of those that came again. They gave up what they had promised to hold: until
    /// they hold as much, they help nobody into office who lacks it (decision 0013).
    owed: BTreeMap<GroupId, LogId>,
    /// Groups that were deleted, as far as a start found any of them: what it finds of their snapshots
    /// goes.
    deleted: BTreeSet<GroupId>,
    /// Places (slots) of groups that left, as long as no other group has them.
    husks: Vec<usize>,
    /// Those whose snapshots go when this record is durable: a start that doesn't find it misses
    /// them.
    going: Vec<(Sequence, usize)>,
}

impl Homes {
    /// What a start found.
    ///
    /// # Errors
    /// If a record is unknown to this version.
    pub(crate) fn of(recovered: &Recovered) -> Result<Self, ShardError> {
        let mut homes = Self::default();
        for bytes in &recovered.node_records {
            let record = record::decode(bytes).map_err(ShardError::Record)?;
            if record.header.kind != RecordKind::Home {
                continue;
            }
            let group = GroupId(record.header.index.0);
            match HomeState::of(record.payload).map_err(ShardError::Record)? {
                HomeState::Here => {
                    homes.here.insert(group, record.payload[HomeState::BYTES..].to_vec());
                }
                HomeState::Back => {
                    homes.here.insert(group, Vec::new());
                    homes.owed.extend(HomeState::owed(record.payload).map(|owed| (group, owed)));
                }
                HomeState::Left => {
                    let owed = HomeState::owed(record.payload).expect("its payload was looked at");
                    homes.left.insert(group, (record.header.term, owed));
                }
                HomeState::Deleted => drop(homes.deleted.insert(group)),
            }
        }
        Ok(homes)
    }

    /// The groups that are here, of a node that is configured with some, ascending.
    pub(crate) fn groups(&self, configured: &[GroupId]) -> BTreeSet<GroupId> {
        let configured = configured.iter().filter(|id| !self.is_gone(**id)).copied();
        configured.chain(self.here.keys().copied()).collect()
    }

    /// Whether a group was here, left, and may come again.
    pub(crate) fn is_gone(&self, group: GroupId) -> bool {
        self.left.contains_key(&group)
    }

    /// Whether what a start finds of a group is of no use.
    pub(crate) fn is_orphan(&self, group: GroupId) -> bool {
        self.is_gone(group) || self.deleted.contains(&group)
    }

    /// The groups that left and may come again.
    pub(crate) fn left(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.left.keys().copied()
    }

    /// Up to which entry a group that came again votes as if it held all.
    pub(crate) fn owed(&self, group: GroupId) -> Option<LogId> {
        self.owed.get(&group).copied()
    }

    /// What a group began with, if the log says it.
    pub(crate) fn first(&self, group: GroupId) -> Option<&[u8]> {
        self.here.get(&group).map(Vec::as_slice)
    }
}

/// The members of a group that begins with this payload of a configuration, or joins with none.
pub(crate) fn first_members(payload: &[u8]) -> Result<Members, ShardError> {
    if payload.is_empty() {
        return Ok(Members::none());
    }
    Members::decode(Index::ZERO, payload).map_err(ShardError::Members)
}

impl<D: Device, L: Links> Shard<D, L> {
    /// A group comes to this shard, which is its home. `members` is the payload of the configuration
    /// that it begins with, the same on every node; empty: it joins a group that others began, and
    /// waits to be added. One that was here before and left joins in any case, and votes for nobody
    /// in the terms that it has known. Returns whether it is here now and wasn't before: it can't
    /// come to a node that stops, or that lost what its log said of it.
    ///
    /// # Errors
    /// If the log can't go on, or `members` is no configuration.
    ///
    /// # Panics
    /// If another shard is the group's home.
    pub fn create_group(
        &mut self,
        now: Ticks,
        id: GroupId,
        members: &[u8],
    ) -> Result<bool, ShardError> {
        assert!(self.router.home(id) == self.settings.shard, "group {id} is at home elsewhere");
        let is_out = self.is_stopping || self.is_rolled_back || self.is_node_damaged;
        if is_out || self.slots.contains_key(&id) {
            return Ok(false);
        }
        let left = self.homes.left.remove(&id);
        #[cfg(ringraft_plant)]
        let left = left.filter(|_| !planted(Plant::LeftForgotten));
        let members = if left.is_none() { members } else { &[] };
        let first = first_members(members)?;
        let joins = first.is_none();
        let payload = match left {
            Some((_, owed)) => HomeState::Back.with_owed(owed).to_vec(),
            None => [&HomeState::Here.head()[..], members].concat(),
        };
        self.append_record(RecordKind::Home, GroupId::ZERO, Index(id.0), Term::ZERO, &payload)?;
        self.homes.here.insert(id, members.to_vec());
        self.homes.owed.extend(left.map(|(_, owed)| (id, owed)));
        let known = left.map(|(term, _)| RecoveredGroup {
            first: Index(1),
            hard_lost: Some(term),
            ..RecoveredGroup::default()
        });
        let slot = self.add_group(id, first, known.as_ref(), LoadedGroup::default(), false, now)?;
        self.check_lives(now, slot)?;
        self.look_for_seeds(now);
        let up: Vec<NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.is_up()).map(|(&node, _)| node).collect();
        for node in up {
            self.step(now, slot, Input::LinkUp(node), Carried::Cache)?;
        }
        if self.is_paused() {
            self.step(now, slot, Input::Paused(true), Carried::Cache)?;
        }
        if self.watch.is_stuck() {
            self.step(now, slot, Input::DiskStuck(true), Carried::Cache)?;
        }
        self.events.push(ShardEvent::GroupCame { group: id, joins });
        Ok(true)
    }

    /// A group leaves this shard: it takes part in nothing from now on, its writers are told that
    /// what became of their writes isn't known, and its data is removed. `is_deleted`: everywhere,
    /// and for good; else this node is no member of it any more and may be one again. Returns whether
    /// it was here.
    ///
    /// # Errors
    /// If the log can't go on.
    pub fn remove_group(
        &mut self,
        now: Ticks,
        id: GroupId,
        is_deleted: bool,
    ) -> Result<bool, ShardError> {
        let is_configured = self.settings.groups.contains(&id);
        let Some(&slot) = self.slots.get(&id) else {
            // That it left needn't be remembered for ever.
            if is_deleted && !is_configured && self.homes.left.remove(&id).is_some() {
                self.append_deleted(id)?;
            }
            return Ok(false);
        };
        if self.is_node_damaged || self.is_rolled_back {
            return Ok(false);
        }
        // Nothing is known of what a muted one promised.
        let owed = match self.groups[slot].is_muted {
            true => LogId::new(Term(u64::MAX), Index(u64::MAX)),
            false => self.groups[slot].raft.vote_last(),
        };
        self.silence(now, slot, Halt::Removed)?;
        let term = self.groups[slot].raft.term();
        // One that the node is configured with would come again with the next start.
        let is_remembered = is_configured || !is_deleted;
        let sequence = match is_remembered {
            true => {
                self.homes.left.insert(id, (term, owed));
                let payload = HomeState::Left.with_owed(owed);
                self.append_record(RecordKind::Home, GroupId::ZERO, Index(id.0), term, &payload)?
            }
            false => self.append_deleted(id)?,
        };
        self.homes.here.remove(&id);
        self.homes.owed.remove(&id);
        self.slots.remove(&id);
        self.homes.husks.push(slot);
        self.homes.going.push((sequence, slot));
        self.cache.truncate(slot, Index::ZERO);
        self.stop_taking(slot);
        #[cfg(ringraft_plant)]
        if planted(Plant::HomeUnordered) {
            self.forget_snapshots(slot);
        }
        self.fetching.forget(slot);
        self.handing_over.forget(slot);
        self.mending.remove(&slot);
        self.unsubmitted.retain(|&other| other != slot);
        self.completing.retain(|&other| other != slot);
        self.to_compare.retain(|&other| other != slot);
        self.fenced.remove(&slot);
        let group = &mut self.groups[slot];
        group.halt = Some(Halt::Removed);
        group.holes = None;
        group.install = None;
        group.compare_listed = false;
        group.book = Book::new(Members::none(), Vec::new());
        group.machine = (self.make_machine)(id);
        group.sessions = Sessions::new();
        let named = group.named_nodes.clone();
        self.account(slot);
        self.members_moved(now, slot);
        let own = self.settings.identity.node;
        for node in named.into_iter().filter(|&node| node != own) {
            self.check_life(now, node)?;
        }
        for peer in self.peers.values_mut() {
            peer.forget_group(slot);
        }
        Ok(true)
    }

    fn append_deleted(&mut self, id: GroupId) -> Result<Sequence, ShardError> {
        let head = HomeState::Deleted.head();
        self.append_record(RecordKind::Home, GroupId::ZERO, Index(id.0), Term::ZERO, &head)
    }

    /// Removes the snapshots of groups of which the log says, durably, that they left.
    pub(crate) fn clear_homes(&mut self) {
        let durable = self.log.durable();
        let gone: Vec<usize> =
            self.homes.going.extract_if(.., |it| it.0 <= durable).map(|it| it.1).collect();
        for slot in gone {
            self.forget_snapshots(slot);
        }
    }

    /// A place for one more group, in the cache too.
    pub(crate) fn next_slot(&mut self) -> usize {
        match self.homes.husks.iter().position(|&slot| self.is_vacant(slot)) {
            Some(at) => self.homes.husks.swap_remove(at),
            None => self.cache.add_tail(),
        }
    }

    /// Whether the group of this place left, and nothing that is under way concerns it.
    fn is_vacant(&self, slot: usize) -> bool {
        let group = &self.groups[slot];
        let is_of = |fetch: &FetchFor| match *fetch {
            FetchFor::Apply { slot: of, .. }
            | FetchFor::Peer { slot: of, .. }
            | FetchFor::Lend { slot: of, .. } => of == slot,
        };
        group.is_idle_husk()
            && !self.homes.going.iter().any(|it| it.1 == slot)
            && !self.is_sweeping
            && !self.gates.holds(slot)
            && !self.fetches.values().any(is_of)
            && !self.snapshots.concerns(slot)
            && !self.fetching.concerns(slot)
            && !self.hands_over(slot)
            && !self.barriers.concerns(slot)
            && !self.scrubbing.is_at(slot)
            && !self.peers.values().any(|peer| peer.postponed.contains(&slot))
    }

    /// The groups that are here, ascending.
    pub fn group_ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.slots.keys().copied()
    }
}

impl Group {
    /// It left this shard.
    pub(crate) fn is_gone(&self) -> bool {
        self.halt == Some(Halt::Removed)
    }

    /// It left, and whoever waited for it was told.
    fn is_idle_husk(&self) -> bool {
        self.is_gone()
            && self.halt_told
            && !self.touched
            && !self.compare_listed
            && !self.apply_listed
            && self.waiting.is_empty()
            && self.reads.is_empty()
            && self.reads_placed.is_empty()
            && self.gated.is_empty()
    }
}
