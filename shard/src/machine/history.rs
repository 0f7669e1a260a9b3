//! What keys were before: one record for every change, in the order of revisions, so that a
//! revision in the window can be read and its changes be listed.
//!
//! Each record owns the version that its change ended, and links to the record before it of the
//! same key. Records leave at the front as their revision leaves the window.

use std::collections::VecDeque;

/// A version of a key that a change ended. Version zero: the key didn't exist.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) value: Box<[u8]>,
    pub(super) create: u64,
    /// The revision that began it; for a key that didn't exist, the one that removed it or zero.
    pub(super) modified: u64,
    pub(super) version: u64,
}

/// One change.
#[derive(Debug)]
pub(super) struct Record {
    /// The revision of the change: the first at which `old` is no longer seen.
    pub(super) revision: u64,
    /// The number of the record before it of the same key; may have left already.
    pub(super) older: u64,
    pub(super) slot: u32,
    /// Whether the change removed the key.
    pub(super) removed: bool,
    pub(super) old: Old,
}

/// The records, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct History {
    records: VecDeque<Record>,
    /// The number of the newest record.
    newest: u64,
    /// Bytes of the values owned.
    value_bytes: usize,
}

impl History {
    /// Adds a record and gives its number.
    #[inline]
    pub(super) fn push(&mut self, record: Record) -> u64 {
        debug_assert!(self.records.back().is_none_or(|back| back.revision <= record.revision));
        self.value_bytes += record.old.value.len();
        self.records.push_back(record);
        self.newest += 1;
        self.newest
    }

    /// The record with this number, if it hasn't left.
    pub(super) fn get(&self, number: u64) -> Option<&Record> {
        let back = self.newest.checked_sub(number)? as usize;
        self.records.get(self.records.len().checked_sub(back + 1)?)
    }

    /// Takes out the oldest record and its number if its change isn't above `oldest`: the version
    /// it owns can no longer be asked for.
    #[inline]
    pub(super) fn pop(&mut self, oldest: u64) -> Option<(u64, Record)> {
        if self.records.front()?.revision > oldest {
            return None;
        }
        let number = self.newest - self.records.len() as u64 + 1;
        let record = self.records.pop_front()?;
        self.value_bytes -= record.old.value.len();
        Some((number, record))
    }

    /// Whether the change of the oldest record isn't above `oldest`: [`History::pop`] takes it out.
    pub(super) fn has_left(&self, oldest: u64) -> bool {
        self.records.front().is_some_and(|record| record.revision <= oldest)
    }

    /// The numbers of the oldest record whose change is above this revision, and of the newest; if
    /// there is none, the first is one more than the second.
    pub(super) fn numbers(&self, oldest: u64) -> (u64, u64) {
        let left = self.records.partition_point(|record| record.revision <= oldest);
        (self.newest - (self.records.len() - left) as u64 + 1, self.newest)
    }

    /// The revision of the newest record; zero if there is none.
    pub(super) fn newest_revision(&self) -> u64 {
        self.records.back().map_or(0, |record| record.revision)
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What the records take, without room for more, bytes.
    pub(super) fn data_bytes(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.value_bytes
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.value_bytes
    }
}
