//! Snapshots of one entry on several nodes, so that whoever lacks one can fetch it from all of them
//! at once (decision 0017).
//!
//! A leader that is about to save a large group appoints the entry: what is committed when it
//! decides. Nobody has heard yet that more is, for that comes later over the same link. So every
//! member that can stops applying there for as long as it takes to begin a snapshot of its own, and
//! goes on. It is a hint: who misses it, or is busy, only gives nothing to those that fetch.

use ringraft_net::wire::{self, SaveAt};
use ringraft_net::{Frame, Kind};
use ringraft_raft::RoleKind;
use ringraft_types::{NodeId, Ticks};
use ringraft_wal::device::Device;

use super::SnapshotReason;
use crate::error::FrameRefusal;
use crate::links::Links;
use crate::shard::Shard;

/// The part of what the rules allow by which a follower waits longer for a snapshot of its own: the
/// leader's is about to be due, and appoints the entry.
const PATIENCE_PARTS: u64 = 8;

impl<D: Device, L: Links> Shard<D, L> {
    /// Whether a snapshot of this group would be kept in strands.
    pub(super) fn is_in_strands(&self, slot: usize) -> bool {
        let bytes = self.groups[slot].machine.strands().iter().sum::<u64>();
        bytes >= self.settings.snapshots.strands_bytes.max(1)
    }

    /// How far a group may go, in whatever is counted, before a snapshot of it is due here.
    pub(super) fn patience(&self, slot: usize, rule: u64) -> u64 {
        let group = &self.groups[slot];
        let is_led = group.raft.role() != RoleKind::Leader && group.leader().is_some();
        let more = if is_led && self.is_in_strands(slot) { rule / PATIENCE_PARTS } else { 0 };
        rule.saturating_add(more)
    }

    /// Begins the snapshot of a group that is due. If others could give it too, they are told at
    /// which entry, and it begins when that is applied here.
    pub(super) fn begin_or_appoint(&mut self, now: Ticks, slot: usize, reason: SnapshotReason) {
        let group = &self.groups[slot];
        let is_leader = group.raft.role() == RoleKind::Leader;
        if self.is_stopping || !is_leader || !self.is_in_strands(slot) {
            self.begin_snapshot(now, slot, reason);
            return;
        }
        let (at, own) = (group.committed, self.settings.identity.node);
        let Self { groups, links, peers, settings, .. } = self;
        let group = &mut groups[slot];
        for &node in group.named_nodes.iter().filter(|&&node| node != own) {
            if peers.get(&node).is_some_and(|peer| peer.is_up())
                && let Some(outbox) = links.peer(node).filter(|outbox| !outbox.is_urgent_full())
            {
                SaveAt { index: at }.write(outbox, group.id, settings.identity);
            }
        }
        if group.applied == at {
            self.begin_snapshot(now, slot, reason);
        } else {
            group.save_at = Some((at, reason));
            self.snapshots.awaited = Some(slot);
            self.snapshots.rouse();
        }
    }

    /// A leader appoints the entry at which it saves a group.
    pub(crate) fn save_at(&mut self, from: NodeId, frame: &Frame<'_>) -> Result<(), FrameRefusal> {
        let malformed = |error| FrameRefusal::malformed(Kind::SaveAt, error);
        let SaveAt { index } = wire::save_at(frame).map_err(malformed)?;
        let Some(&slot) = self.slots.get(&frame.header.group) else { return Ok(()) };
        let group = &mut self.groups[slot];
        let is_heeded = group.leader() == Some(from) && self.snapshots.awaited != Some(slot);
        if is_heeded && index >= group.applied {
            group.save_at = Some((index, SnapshotReason::Appointed));
            self.list_for_apply(slot);
        }
        Ok(())
    }

    /// Begins the snapshot that was to begin at the entry that is applied now, if one may begin.
    pub(crate) fn save_if_due(&mut self, now: Ticks, slot: usize) {
        let group = &mut self.groups[slot];
        let applied = group.applied;
        let Some((at, reason)) = group.save_at.take_if(|(at, _)| *at <= applied) else { return };
        let is_awaited = self.snapshots.awaited.take_if(|awaited| *awaited == slot).is_some();
        let is_free = is_awaited || self.may_begin(now) && !self.is_stopping;
        if at == applied && is_free && self.is_due(slot) {
            self.snapshots.wanted.remove(slot);
            self.begin_snapshot(now, slot, reason);
        } else if is_awaited {
            self.want_snapshot(slot, reason);
        }
    }

    /// A snapshot that waits for its entry doesn't wait for one that never comes.
    pub(super) fn look_for_awaited(&mut self) {
        let Some(slot) = self.snapshots.awaited else { return };
        let group = &mut self.groups[slot];
        if group.is_muted || group.halt.is_some() {
            self.give_up_appointed(slot);
        }
    }

    /// What was to be saved at an entry isn't there any more.
    pub(super) fn give_up_appointed(&mut self, slot: usize) {
        self.groups[slot].save_at = None;
        self.snapshots.awaited.take_if(|awaited| *awaited == slot);
    }
}
