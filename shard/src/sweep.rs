//! Applying what the log holds at a start, in one reading of it for all groups.
//!
//! Each group notes now and then what is committed, so that most of a log is known to be committed
//! before anybody leads. What a sweep passes before that is known, and what a block that can't be
//! read holds, is fetched when it has ended, as anything else that isn't in the cache.

use std::ops::Range;

use ringraft_types::Index;
use ringraft_types::record::{self, RecordHeader};
use ringraft_wal::Swept;
use ringraft_wal::device::Device;

use crate::apply::apply_logged;
use crate::group::Group;
use crate::links::Links;
use crate::shard::Shard;

/// What is applied together, bytes: the entries of each group one after the other, so that the
/// memory of a thousand groups is gone through once for so much, instead of once for each block.
const TOGETHER_BYTES: usize = 16 << 20;
/// What one turn applies of it, entries and bytes.
const ENTRIES_PER_TURN: usize = 1024;
const BYTES_PER_TURN: usize = 2 << 20;

/// The blocks that are applied together.
#[derive(Default)]
pub(crate) struct Together {
    blocks: Vec<Swept>,
    bytes: usize,
    /// By group, each in the order of the log.
    entries: Vec<Placed>,
    /// Up to here they are applied.
    applied: usize,
    is_sorted: bool,
}

/// An entry in one of the blocks.
struct Placed {
    slot: u32,
    block: u32,
    at: Range<u32>,
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Has the log read through, from the oldest entry that is committed and not applied.
    pub(crate) fn begin_sweep(&mut self) {
        let behind = self.groups.iter().filter(|group| group.applied < group.committed);
        let behind = behind.filter(|group| group.halt.is_none());
        self.log.sweep(behind.map(|group| (group.id, group.applied.next())));
        self.is_sweeping = self.log.is_sweeping();
    }

    /// Takes in the next blocks, or applies some of what is together. What is left of its groups,
    /// and their reads, are looked at in the same turn; what is left of others too, when there is
    /// no other block.
    pub(crate) fn sweep_on(&mut self) {
        if !self.is_sweeping {
            return;
        }
        if !self.together.is_sorted {
            while self.together.bytes < TOGETHER_BYTES
                && let Some(swept) = self.log.take_swept()
            {
                self.together.add(swept, |header| self.slots.get(&header.group).copied());
                // If it was the last one, the log knows after its turn.
                self.fetch_asked = true;
            }
            if self.together.bytes < TOGETHER_BYTES && self.log.is_sweeping() {
                return;
            }
            self.together.sort();
        }
        if self.together.blocks.is_empty() {
            (self.is_sweeping, self.together) = (false, Together::default());
            for slot in 0..self.groups.len() {
                self.list_for_apply(slot);
            }
            return;
        }
        self.fetch_asked = true;
        self.apply_together();
        if self.together.is_applied() {
            for swept in self.together.blocks.drain(..) {
                self.log.give_swept(swept);
            }
            self.together.clear();
        }
    }

    fn apply_together(&mut self) {
        let Self { groups, answers, scratch, metrics, together, .. } = self;
        let bodies = &mut scratch.reply;
        bodies.clear();
        let Together { blocks, entries, applied, .. } = together;
        let mut touched = Vec::new();
        let mut bytes = 0;
        for placed in entries[*applied..].iter().take(ENTRIES_PER_TURN) {
            if bytes >= BYTES_PER_TURN {
                break;
            }
            *applied += 1;
            let entry = blocks[placed.block as usize].entry(&placed.at);
            bytes += entry.len();
            let header = record::peek(entry).expect("it was decoded when its block came");
            let group = &mut groups[placed.slot as usize];
            if group.takes(&header) {
                apply_logged(group, header.index, entry, answers, bodies);
                metrics.entries_applied += u64::from(group.halt.is_none());
                if touched.last() != Some(&placed.slot) {
                    touched.push(placed.slot);
                }
            }
        }
        assert!(answers.is_empty(), "nobody waits for what was in the log at the start");
        for slot in touched {
            self.list_for_apply(slot as usize);
        }
    }
}

impl Together {
    fn add(&mut self, swept: Swept, slot: impl Fn(&RecordHeader) -> Option<usize>) {
        let block = self.blocks.len() as u32;
        swept.entries(|entry, at| {
            if let Some(slot) = slot(&entry.header) {
                self.entries.push(Placed { slot: slot as u32, block, at });
            }
        });
        self.bytes += swept.memory_bytes();
        self.blocks.push(swept);
    }

    fn sort(&mut self) {
        self.entries.sort_by_key(|entry| entry.slot);
        self.is_sorted = true;
    }

    fn is_applied(&self) -> bool {
        self.applied == self.entries.len()
    }

    /// Makes room for the next ones; the blocks are given back before.
    fn clear(&mut self) {
        assert!(self.blocks.is_empty(), "their memory is the log's");
        self.entries.clear();
        (self.bytes, self.applied, self.is_sorted) = (0, 0, false);
    }
}

impl Group {
    /// Whether this is the next entry to apply: one of this index and term is the same on all nodes
    /// (Raft paper, 5.3), so a log that holds it has no other.
    fn takes(&self, entry: &RecordHeader) -> bool {
        let index: Index = entry.index;
        index == self.applied.next()
            && index <= self.committed
            && self.halt.is_none()
            && self.raft.term_at(index) == Some(entry.term)
    }
}
