//! Applying what the log holds at a start, in one reading of it for all groups.
//!
//! Each group notes now and then what is committed, so that most of a log is known to be committed
//! before anybody leads. What a sweep passes before that is known, and what a block that can't be
//! read holds, is fetched when it has ended, as anything else that isn't in the cache.

use std::collections::BTreeSet;

use ringraft_types::record::Record;
use ringraft_wal::Swept;
use ringraft_wal::device::Device;

use crate::apply::apply_logged;
use crate::group::Group;
use crate::links::Links;
use crate::shard::Shard;

impl<D: Device, L: Links> Shard<D, L> {
    /// Has the log read through, from the oldest entry that is committed and not applied.
    pub(crate) fn begin_sweep(&mut self) {
        let behind = self.groups.iter().filter(|group| group.applied < group.committed);
        let behind = behind.filter(|group| group.halt.is_none());
        self.log.sweep(behind.map(|group| (group.id, group.applied.next())));
        self.is_sweeping = self.log.is_sweeping();
    }

    /// Applies what the next block holds. What is left of its groups, and their reads, are looked at
    /// in the same turn; what is left of others too, when there is no other block.
    pub(crate) fn sweep_on(&mut self) {
        if let Some(swept) = self.log.take_swept() {
            self.apply_swept(&swept);
            self.log.give_swept(swept);
            // If it was the last one, the log knows after its turn.
            self.fetch_asked = true;
        } else if self.is_sweeping && !self.log.is_sweeping() {
            self.is_sweeping = false;
            for slot in 0..self.groups.len() {
                self.list_for_apply(slot);
            }
        }
    }

    fn apply_swept(&mut self, swept: &Swept) {
        let Self { groups, slots, answers, scratch, metrics, .. } = self;
        let bodies = &mut scratch.reply;
        bodies.clear();
        let mut touched = BTreeSet::new();
        swept.entries(|entry| {
            let Some(&slot) = slots.get(&entry.header.group) else { return };
            let group = &mut groups[slot];
            if group.takes(entry) {
                apply_logged(group, entry.header.index, entry.bytes, answers, bodies);
                metrics.entries_applied += u64::from(group.halt.is_none());
                touched.insert(slot);
            }
        });
        assert!(answers.is_empty(), "nobody waits for what was in the log at the start");
        for slot in touched {
            self.list_for_apply(slot);
        }
    }
}

impl Group {
    /// Whether this is the next entry to apply: one of this index and term is the same on all nodes
    /// (Raft paper, 5.3), so a log that holds it has no other.
    fn takes(&self, entry: &Record<'_>) -> bool {
        let index = entry.header.index;
        index == self.applied.next()
            && index <= self.committed
            && self.halt.is_none()
            && self.raft.term_at(index) == Some(entry.header.term)
    }
}
