//! A group that lost entries to rot is whole again (decision 0013): those that a start finds missing
//! come from the group's leader like any others. If none is there, and also those that can't be read
//! while the node runs, are asked of the peers, one question at a time, and carried to a new place in
//! the log.
//!
//! ```text
//!  read finds rot -> Damaged        the group halts, if somebody waits for what was read
//!                 -> asked          of the leader first, then of the others in turn
//!                 -> carried        verified, and written again
//!                 -> durable        when nothing of the rotten blocks is needed: Mended
//!
//!  start finds a hole -> asked       unless a leader appends first, or removes
//!                 -> a snapshot      what nobody has in a log: asked for if nobody leads
//!                 -> carried         the last one came: Refilled, the log is as it was
//!                 -> durable         Repaired
//! ```

mod ask;
mod holes;
mod lend;

use crate::error::ShardError;
use crate::event::ShardEvent;
use crate::group::Halt;
use crate::links::Links;
use crate::peer_frames::Carried;
use crate::shard::Shard;
pub(crate) use ask::Mending;
pub(crate) use holes::Holes;
use ringraft_raft::Input;
use ringraft_types::{LogId, Ticks};
use ringraft_wal::ReadError;
use ringraft_wal::device::Device;

impl<D: Device, L: Links> Shard<D, L> {
    /// Entries of a group can't be read back, and are needed. It refuses its clients, and leaves
    /// leading to those who can bring the others up to date, until it has them again.
    pub(crate) fn damaged(
        &mut self,
        now: Ticks,
        slot: usize,
        error: ReadError,
    ) -> Result<(), ShardError> {
        self.groups[slot].apply_fetch = false;
        self.unreadable(now, slot, error);
        if self.groups[slot].is_muted {
            return Ok(());
        }
        let group = &mut self.groups[slot];
        // A state that isn't to be trusted is served no sooner.
        if group.halt != Some(Halt::Diverged) {
            group.halt = Some(Halt::Damaged);
        }
        self.list_for_apply(slot);
        self.step(now, slot, Input::Damaged, Carried::Cache)?;
        if let Some(mending) = self.mending.get_mut(&slot) {
            mending.is_halted = true;
        }
        Ok(())
    }

    /// Entries of a group can't be read back: people are told, and its peers are asked.
    pub(crate) fn unreadable(&mut self, now: Ticks, slot: usize, error: ReadError) {
        let group = &self.groups[slot];
        let mut is_new = true;
        if let ReadError::Rot { sequence, .. } = error
            && !group.is_muted
        {
            let mending = self.mending.entry(slot).or_insert_with(|| Mending::new(now));
            is_new = mending.note(sequence);
        }
        if is_new {
            self.events.push(ShardEvent::Unreadable { group: group.id, error });
        }
    }

    /// A snapshot took the place of a log's beginning, and with it of holes, perhaps of all. What lay
    /// behind that entry lies there still, on the disk: it is forgotten no more than before. If nothing
    /// of it is missing it is the group's log again, in the step of the snapshot, before a record
    /// names that: a start finds no hole from that record on.
    pub(crate) fn go_on_behind(
        &mut self,
        now: Ticks,
        slot: usize,
        last: LogId,
        holes: Holes,
    ) -> Result<(), ShardError> {
        let holes = holes.behind(last);
        let is_whole = holes.is_whole();
        self.groups[slot].holes = Some(Box::new(holes));
        if is_whole { self.refill(now, slot) } else { Ok(()) }
    }

    /// What rot took is durable here again: the group votes and stands as any other, and serves from
    /// where its machine stands.
    pub(crate) fn repaired(&mut self, slot: usize) -> Result<(), ShardError> {
        let group = &mut self.groups[slot];
        assert!(!group.is_muted, "a group that takes no part isn't stepped");
        group.holes = None;
        self.log.repaired(group.id);
        // Nothing was lost of a log whose group only stood aside.
        if !std::mem::take(&mut group.comparing.stood_aside) {
            self.metrics.repairs += 1;
            let last = group.raft.persisted();
            self.events.push(ShardEvent::Repaired { group: group.id, last });
        }
        // Whatever else it halts for stays.
        if group.halt == Some(Halt::Damaged) {
            (group.halt, group.halt_told) = (None, false);
            self.list_for_apply(slot);
        }
        // What had to stay and to be left unsaid, so that a start finds what is missing.
        let group = &mut self.groups[slot];
        let is_name_lost = std::mem::take(&mut group.is_name_lost);
        if !group.kept.is_empty() {
            self.remove_unreadable(slot);
        } else if is_name_lost || group.named.is_some() {
            // The log names one that isn't there any more: a start must find another.
            self.want_another(slot);
        }
        self.name_oldest(slot)
    }

    /// Groups of which entries can't be read and aren't there again.
    pub fn repairs_under_way(&self) -> u64 {
        self.mending.len() as u64
    }
}
