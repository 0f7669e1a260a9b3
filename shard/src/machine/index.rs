//! Finds a slot by a hash: one probe into a flat table of eight bytes an entry. It is never
//! walked, so nothing replicated hangs on its order.
//!
//! An entry is `tag: upper 32 bits | slot + 1: lower 32 bits`, zero is empty; the tag is the upper
//! half of the hash and names the entry's home. Probing is linear; removal shifts back, so there
//! are no tombstones. Grows at three quarters.

/// A table from hashes to slots.
#[derive(Debug)]
pub(crate) struct HashIndex {
    entries: Vec<u64>,
    used: usize,
}

const ENTRIES_MIN: usize = 16;

impl HashIndex {
    pub(crate) fn new() -> Self {
        Self { entries: vec![0; ENTRIES_MIN], used: 0 }
    }

    /// Bytes of the table.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }

    /// The slot with this hash for which `is_it` holds.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.entries.len() - 1;
        let tag = hash >> 32;
        let mut at = tag as usize & mask;
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            if entry >> 32 == tag {
                let slot = entry as u32 - 1;
                if is_it(slot) {
                    return Some(slot);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a slot that isn't in the table.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        assert!(slot < u32::MAX, "slot numbers end below the largest");
        self.place(hash >> 32 << 32 | u64::from(slot + 1));
        self.used += 1;
    }

    /// Takes out a slot that is in the table under this hash.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let mask = self.entries.len() - 1;
        let entry = hash >> 32 << 32 | u64::from(slot + 1);
        let mut hole = (hash >> 32) as usize & mask;
        while self.entries[hole] != entry {
            assert!(self.entries[hole] != 0, "slot {slot} is not in the index");
            hole = (hole + 1) & mask;
        }
        let mut at = (hole + 1) & mask;
        while self.entries[at] != 0 {
            let home = (self.entries[at] >> 32) as usize & mask;
            // Moves back only what stays at or behind its home.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = self.entries[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.entries[hole] = 0;
        self.used -= 1;
    }

    fn place(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = (entry >> 32) as usize & mask;
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    fn grow(&mut self) {
        let doubled = vec![0; self.entries.len() * 2];
        let entries = std::mem::replace(&mut self.entries, doubled);
        for entry in entries.into_iter().filter(|&entry| entry != 0) {
            self.place(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Behaves as a map does, with hashes that collide a lot.
    #[test]
    fn behaves_as_a_map() {
        let mut index = HashIndex::new();
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for slot in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let hash = (random >> 40 & 0x3ff) << 32;
            if random >> 60 < 8 {
                index.insert(hash, slot);
                model.insert(slot, hash);
            } else if let Some((&slot, &hash)) = model.range(slot / 2..).next() {
                index.remove(hash, slot);
                model.remove(&slot);
            }
            if slot % 500 == 0 {
                for (&slot, &hash) in &model {
                    assert_eq!(index.find(hash, |found| found == slot), Some(slot));
                }
                assert_eq!(index.find(hash, |found| found == u32::MAX), None);
            }
        }
        assert_eq!(index.used, model.len());
    }
}
