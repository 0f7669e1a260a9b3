//! Which groups are to be on this node, as the system group says, and bringing that about (decision
//! 0033).
//!
//! The shard that has the system group reads it when it changed, and every shard of the node is told
//! all of it; each compares that with what it has. Nothing depends on any change being seen by
//! itself: what is here and what is to be are compared again after a start.
//!
//! A group begins on the nodes that the configuration names with which it began. Where it is from
//! then on its own configurations say: a node that is added to it gets it with the leader's first
//! word, and one that it leaves out gives it up.
//!
//! What is read may be old, never newer than what is committed: ids aren't given twice, and a group
//! of which it says nothing yet is left alone. But it is never older than what an earlier life of this
//! node has seen: a group that was deleted would come again, and vote once more in terms in which it
//! voted. So each life begins with a linearizable read of the system group.

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::homes::first_members;
use crate::links::Links;
use crate::machine::StateMachine;
use crate::peer_frames::Carried;
use crate::shard::Shard;
use ringraft_raft::{Input, RoleKind};
use ringraft_types::command::{Keys, RangeCommand};
use ringraft_types::placement::{self, GROUP_PREFIX, GroupRecord, NEXT_KEY};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::reply::{KeyValue, Reply};
use ringraft_types::{GroupId, Index, Phase, Revision, Status, Ticks};
use ringraft_wal::device::Device;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The system group is read again after this time at the earliest: reading all of it takes about a
/// microsecond for each group.
const LOOK_PAUSE: Ticks = Ticks::from_millis(50);
/// So many groups may wait to be looked at because a leader wants this node in them: the next beat
/// asks again.
const WANTED_MAX: usize = 1_024;
/// The first key behind all records of groups.
const END_OF_GROUPS: &[u8] = b"group0";
/// So many groups are looked at in a turn: to make or remove one takes some microseconds.
const GROUPS_PER_TURN: usize = 64;

/// What the system group says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The id that the next group gets.
    pub next: GroupId,
    /// Each group with a record; `None`: it isn't one that this version understands.
    pub groups: BTreeMap<GroupId, Option<GroupRecord>>,
}

impl Placement {
    /// What a machine of the system group says now.
    fn of(machine: &dyn StateMachine) -> Self {
        let mut next = GroupId::FIRST_CREATED;
        each(machine, Keys::One(NEXT_KEY), |found| {
            next = placement::id_of_value(found.value).unwrap_or(next).max(next);
        });
        let mut groups = BTreeMap::new();
        each(machine, Keys::Prefix(GROUP_PREFIX), |found| {
            if let Some(group) = placement::group_of_key(found.key) {
                groups.insert(group, GroupRecord::decode(found.value).ok());
            }
        });
        Self { next, groups }
    }

    /// Whether a group was deleted.
    pub fn is_deleted(&self, group: GroupId) -> bool {
        match self.groups.get(&group) {
            Some(record) => record.as_ref().is_some_and(|record| record.is_deleted),
            None => (GroupId::FIRST_CREATED..self.next).contains(&group),
        }
    }

    /// The record of a group that isn't deleted.
    fn live(&self, group: GroupId) -> Option<&GroupRecord> {
        self.groups.get(&group)?.as_ref().filter(|record| !record.is_deleted)
    }
}

/// Gives every key of a range.
fn each(machine: &dyn StateMachine, keys: Keys<'_>, mut give: impl FnMut(&KeyValue<'_>)) {
    let (mut command, mut reply) = (Vec::new(), Vec::new());
    let mut after: Option<Vec<u8>> = None;
    loop {
        command.clear();
        reply.clear();
        let rest = |start| Keys::Between { start, end: END_OF_GROUPS };
        let range = RangeCommand::current(after.as_deref().map_or(keys, rest));
        range.encode(&mut command).expect("keys of a placement are short");
        let applied = machine.query(&command, &mut reply);
        let Ok(Reply::Range(found)) = Reply::decode(&reply) else { return };
        if applied.status != Status::Ok {
            return;
        }
        let mut newest = None;
        for one in found.keys {
            give(&one);
            newest = Some(one.key);
        }
        let Some(newest) = newest.filter(|_| found.more) else { return };
        after = Some([newest, &[0]].concat());
    }
}

/// Whether what the system group says here is at least what this node knew before it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newness {
    /// It isn't known; not to be asked before then.
    Unknown {
        ask_at: Ticks,
    },
    /// A read with this ticket is under way.
    Asked {
        ticket: u64,
    },
    /// It is when this entry is applied.
    From(Index),
    Known,
}

/// How far a shard is with what the system group says.
#[derive(Debug)]
pub(crate) struct Placing {
    newness: Newness,
    /// The revision that was read last.
    seen: Revision,
    /// It isn't read before this.
    look_at: Ticks,
    /// What it said.
    known: Option<Arc<Placement>>,
    /// The other shards of the node weren't told yet.
    untold: bool,
    /// Groups that are to be looked at, and whether a leader wants this node in them.
    due: VecDeque<(GroupId, bool)>,
}

impl Default for Placing {
    fn default() -> Self {
        Self {
            newness: Newness::Unknown { ask_at: Ticks::ZERO },
            seen: Revision::ZERO,
            look_at: Ticks::ZERO,
            known: None,
            untold: false,
            due: VecDeque::new(),
        }
    }
}

impl Placing {
    /// Whether a read of its own is under way.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.newness, Newness::Asked { .. })
    }

    /// A read round is confirmed. Whether the ticket was this one's.
    pub(crate) fn read_placed(&mut self, ticket: u64, index: Index) -> bool {
        let is_own = self.newness == Newness::Asked { ticket };
        if is_own {
            self.newness = Newness::From(index);
        }
        is_own
    }

    /// A read is lost: whoever was asked leads no more. Whether the ticket was this one's.
    pub(crate) fn read_lost(&mut self, ticket: u64) -> bool {
        let is_own = self.newness == Newness::Asked { ticket };
        if is_own {
            self.newness = Newness::Unknown { ask_at: Ticks::ZERO };
        }
        is_own
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Makes and removes groups as the system group says, some in each turn. Returns when it wants
    /// another turn.
    pub(crate) fn place_groups(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let look_at = self.read_placement(now)?;
        // Each of them is a record of the log: a disk that hangs or is full takes no more.
        if !self.placing.due.is_empty() && !self.reads_peers() {
            return Ok(now.after(LOOK_PAUSE));
        }
        for _ in 0..GROUPS_PER_TURN {
            let Some((group, is_wanted)) = self.placing.due.pop_front() else { break };
            self.place(now, group, is_wanted)?;
        }
        Ok(if self.placing.due.is_empty() { look_at } else { now })
    }

    /// Reads the system group, if it is here and has changed.
    fn read_placement(&mut self, now: Ticks) -> Result<Ticks, ShardError> {
        let Some(&slot) = self.slots.get(&GroupId::SYSTEM) else { return Ok(Ticks::NEVER) };
        if let Some(look_at) = self.placement_awaited(now, slot)? {
            return Ok(look_at);
        }
        let group = &self.groups[slot];
        let revision = group.machine.revision();
        if revision == self.placing.seen || group.halt.is_some() {
            return Ok(Ticks::NEVER);
        }
        if now < self.placing.look_at {
            return Ok(self.placing.look_at);
        }
        let placement = Arc::new(Placement::of(&*group.machine));
        self.placing.seen = revision;
        self.placing.look_at = now.after(LOOK_PAUSE);
        self.placing.untold = self.settings.shards > 1;
        self.hear_of_placement(placement);
        Ok(Ticks::NEVER)
    }

    /// Makes sure that what is applied is at least what this node knew before it started. Returns
    /// when to look again while it isn't sure.
    fn placement_awaited(&mut self, now: Ticks, slot: usize) -> Result<Option<Ticks>, ShardError> {
        #[cfg(ringraft_plant)]
        if planted(Plant::PlacementOld) {
            self.placing.newness = Newness::Known;
        }
        match self.placing.newness {
            Newness::Known => return Ok(None),
            Newness::From(index) if self.groups[slot].applied >= index => {
                self.placing.newness = Newness::Known;
                return Ok(None);
            }
            // Whatever moves it on wakes the shard.
            Newness::From(_) | Newness::Asked { .. } => return Ok(Some(Ticks::NEVER)),
            Newness::Unknown { ask_at } if now < ask_at => return Ok(Some(ask_at)),
            Newness::Unknown { .. } => {}
        }
        if self.read_refusal(slot).is_some() || self.are_reads_full(slot) {
            let ask_at = now.after(LOOK_PAUSE);
            self.placing.newness = Newness::Unknown { ask_at };
            return Ok(Some(ask_at));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.placing.newness = Newness::Asked { ticket };
        self.touch(slot);
        self.step(now, slot, Input::Read { ticket }, Carried::Cache)?;
        Ok(Some(Ticks::NEVER))
    }

    /// What the system group said when it was last read here; `None`: it wasn't.
    pub fn placement(&self) -> Option<&Placement> {
        self.placing.known.as_deref()
    }

    /// What the other shards of this node must hear of the system group, if anything.
    pub fn placement_to_tell(&mut self) -> Option<Arc<Placement>> {
        std::mem::take(&mut self.placing.untold).then(|| self.placing.known.clone()).flatten()
    }

    /// What the system group says, as the shard that has it read it.
    pub(crate) fn hear_of_placement(&mut self, placement: Arc<Placement>) {
        let (home, router) = (self.settings.shard, self.router);
        let here = |group: &GroupId| router.home(*group) == home && *group != GroupId::SYSTEM;
        for (&group, _) in
            placement.groups.iter().filter(|(group, record)| here(group) && record.is_none())
        {
            self.events.push(ShardEvent::PlacementUnreadable { group });
        }
        let is_missing =
            |group: &GroupId| !self.slots.contains_key(group) && !self.homes.is_gone(*group);
        let all = placement.groups.keys().copied();
        let to_come = all.filter(here).filter(is_missing);
        let to_go = self
            .slots
            .keys()
            .copied()
            .filter(here)
            .filter(|group| placement.is_deleted(*group) || self.is_left_out(*group));
        // One that left, and is deleted now, needn't be remembered any more.
        let to_forget = self.homes.left().filter(|group| placement.is_deleted(*group));
        let due = to_come.chain(to_go).chain(to_forget).map(|group| (group, false));
        self.placing.due = due.collect();
        self.placing.known = Some(placement);
    }

    /// A leader wants this node in a group that isn't here.
    pub(crate) fn wanted_by_leader(&mut self, group: GroupId) {
        let is_here = self.router.home(group) == self.settings.shard;
        let known = self.placing.known.as_ref();
        let is_live = known.is_some_and(|placement| placement.live(group).is_some());
        if is_here && is_live && self.placing.due.len() < WANTED_MAX {
            self.placing.due.push_back((group, true));
        }
    }

    /// A configuration was applied: a group that was created, and doesn't name this node any more, is
    /// given up.
    pub(crate) fn may_leave(&mut self, group: GroupId) {
        if self.is_left_out(group) {
            self.placing.due.push_back((group, false));
        }
    }

    /// Another state took the place of the one that was applied: what it says is read anew.
    pub(crate) fn placement_replaced(&mut self, group: GroupId) {
        if group == GroupId::SYSTEM {
            self.placing.seen = Revision::ZERO;
        }
    }

    /// Whether the applied configuration of a group that was created leaves this node out, and none
    /// that came after it names it again: what a voter acknowledged counts as long as one may. A
    /// leader goes on until those who stay know of it.
    fn is_left_out(&self, group: GroupId) -> bool {
        let Some(&slot) = self.slots.get(&group) else { return false };
        let group = &self.groups[slot];
        let members = group.book.as_of(group.applied);
        let own = self.settings.identity.node;
        group.id >= GroupId::FIRST_CREATED
            && !members.is_none()
            && members.index > Index::ZERO
            && group.book.leaves_out(own, group.applied)
            && group.raft.role() != RoleKind::Leader
    }

    fn place(&mut self, now: Ticks, group: GroupId, is_wanted: bool) -> Result<(), ShardError> {
        let Some(placement) = self.placing.known.clone() else { return Ok(()) };
        if placement.is_deleted(group) {
            self.remove_group(now, group, true)?;
            return Ok(());
        }
        let Some(record) = placement.live(group) else { return Ok(()) };
        if self.is_left_out(group) {
            self.remove_group(now, group, false)?;
        } else if is_wanted {
            self.create_group(now, group, &[])?;
        } else if let Ok(first) = first_members(&record.begins)
            && first.configuration.phase() == Phase::Stable
        {
            if first.configuration.is_member(self.settings.identity.node) {
                self.create_group(now, group, &record.begins)?;
            }
        } else {
            self.events.push(ShardEvent::PlacementUnreadable { group });
        }
        Ok(())
    }
}
