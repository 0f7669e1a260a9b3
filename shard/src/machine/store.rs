//! The versions of every key: the current one in a slot of two cache lines, found by hash; the ones
//! before it in the history.
//!
//! ```text
//! key --hash--> HashIndex --> slot: key, value, revisions, newest record --> History
//! key --order-> BTreeMap  ----^
//! ```
//! Setting a key that exists touches the hash index, its slot and the history's two ends. The
//! ordered index is touched only when a key appears, or disappears from the window. A removed
//! key's slot (version zero) stays as long as the history holds its removal.

mod snapshot;

use std::collections::BTreeMap;
use std::ops::Bound;

use ringraft_types::command::Keys;
use ringraft_types::limits::HISTORY_REVISIONS_DEFAULT;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{STRANDS, Status, StrandBytes};
use xxhash_rust::xxh3::xxh3_64;

use super::hash::{Change, fold};
use super::history::{History, Old, Record};
use super::index::HashIndex;
use super::key::Key;
use snapshot::{Loading, Snapshot, item_bytes};

/// The revision that means "as it is now, with the running transaction's changes".
pub(super) const NOW: u64 = u64::MAX;

/// Records pruned by one command beyond those it made. More than zero, so that a backlog (a large
/// delete, a shorter window) shrinks; bounded, so that no command waits for all of it.
const PRUNE_EXTRA: usize = 32;
/// Records pruned at once between commands: what a compaction left behind goes in some turns,
/// without holding any of them up.
const PRUNE_TIDY: usize = 1_024;

const CHUNK_SLOTS: usize = 4096;
/// What an entry of the ordered index takes, with the key's counters and its node's slack, bytes.
const ORDER_ENTRY_BYTES: usize = 56;
/// What one of the hash index takes, half of its table empty, bytes.
const INDEX_ENTRY_BYTES: usize = 16;

/// A key with its current version; two cache lines side by side, fetched together.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    key: Key,
    value: Box<[u8]>,
    create: u64,
    modified: u64,
    /// Zero: the key doesn't exist.
    version: u64,
    /// The number of its newest record.
    newest: u64,
}

const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    fn free() -> Self {
        let (key, value) = (Key::NOBODY, Box::default());
        Self { key, value, create: 0, modified: 0, version: 0, newest: 0 }
    }
}

/// A version of a key, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version<'a> {
    pub(super) value: &'a [u8],
    pub(super) create: u64,
    pub(super) modified: u64,
    pub(super) version: u64,
}

/// All keys and their versions within the window.
#[derive(Debug)]
pub(super) struct Store {
    /// In chunks, so that growth never copies more than one of them: the first one grows with its
    /// keys, because there may be thousands of small machines.
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    index: HashIndex,
    order: BTreeMap<Box<[u8]>, u32>,
    history: History,
    /// The newest revision.
    revision: u64,
    /// The oldest revision that may be read. Never goes back, as long as the window may grow.
    oldest: u64,
    /// Revisions before the current one that stay readable.
    window: u64,
    /// Keys that exist now.
    live: u64,
    hash: u64,
    /// Bytes of current values, and of the keys in the ordered index.
    value_bytes: usize,
    key_bytes: usize,
    /// The value pruned last: the next of its length takes its place, which spares the allocator
    /// two trips to memory that nobody touched for long.
    spare: Box<[u8]>,
    /// Records made since the last [`Store::commit`].
    made: usize,
    /// What a snapshot would hold of the keys of each strand, bytes.
    strands: StrandBytes,
    /// The one that is being taken.
    snapshot: Option<Box<Snapshot>>,
    /// Of the snapshot that is being loaded.
    loading: Loading,
}

/// The strand of a key with this hash: by its highest bits, on every node and in every version.
const fn strand_of(key_hash: u64) -> usize {
    (key_hash >> (64 - STRANDS.ilog2())) as usize
}

const _: () = assert!(STRANDS.is_power_of_two() && STRANDS > 1);

impl Store {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            index: HashIndex::new(),
            order: BTreeMap::new(),
            history: History::default(),
            revision: 0,
            oldest: 0,
            window: HISTORY_REVISIONS_DEFAULT,
            live: 0,
            hash: 0,
            value_bytes: 0,
            key_bytes: 0,
            spare: Box::default(),
            made: 0,
            strands: [0; STRANDS],
            snapshot: None,
            loading: Loading::default(),
        }
    }

    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) const fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) const fn live(&self) -> u64 {
        self.live
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum::<usize>() * size_of::<Slot>()
            + self.index.memory_bytes()
            + self.history.memory_bytes()
            + self.order.len() * ORDER_ENTRY_BYTES
            + self.key_bytes
            + self.value_bytes
            + self.snapshot_bytes()
    }

    /// What keys, values and changes take, bytes; free slots and spare room don't count.
    pub(super) fn data_bytes(&self) -> usize {
        let key_bytes = size_of::<Slot>() + ORDER_ENTRY_BYTES + INDEX_ENTRY_BYTES;
        self.order.len() * key_bytes + self.key_bytes + self.value_bytes + self.history.data_bytes()
    }

    pub(super) const fn strands(&self) -> StrandBytes {
        self.strands
    }

    #[inline]
    fn slot(&self, slot: u32) -> &Slot {
        &self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    #[inline]
    fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.chunks[slot as usize / CHUNK_SLOTS][slot as usize % CHUNK_SLOTS]
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |slot| self.slot(slot).key.bytes() == key)
    }

    /// Sets a key as part of the next revision.
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        let key_hash = xxh3_64(key);
        let number = match self.find(key_hash, key) {
            Some(number) => number,
            None => self.create(key_hash, key),
        };
        let revision = self.revision + 1;
        self.value_bytes += value.len();
        let value_box = if self.spare.len() == value.len() {
            let mut spare = std::mem::take(&mut self.spare);
            spare.copy_from_slice(value);
            spare
        } else {
            Box::from(value)
        };
        let slot = &mut self.chunks[number as usize / CHUNK_SLOTS][number as usize % CHUNK_SLOTS];
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save_key(number, slot);
        }
        let old = Old {
            value: std::mem::replace(&mut slot.value, value_box),
            create: slot.create,
            modified: slot.modified,
            version: slot.version,
        };
        let strand = &mut self.strands[strand_of(key_hash)];
        if slot.version == 0 {
            slot.create = revision;
            self.live += 1;
            *strand += item_bytes(key, value);
        } else {
            *strand = *strand + value.len() as u64 - old.value.len() as u64;
        }
        self.value_bytes -= old.value.len();
        slot.modified = revision;
        slot.version += 1;
        let older = slot.newest;
        slot.newest =
            self.history.push(Record { revision, older, slot: number, removed: false, old });
        self.made += 1;
        self.hash = fold(self.hash, revision, Change::Put, key, value);
    }

    /// Removes the keys of a set as part of the next revision, and gives how many there were.
    pub(super) fn delete(&mut self, keys: &Keys<'_>) -> u64 {
        if let Keys::One(key) = *keys {
            return match self.find(xxh3_64(key), key) {
                Some(slot) if self.slot(slot).version > 0 => {
                    self.remove(slot);
                    1
                }
                _ => 0,
            };
        }
        let slots: Vec<u32> = self.visible(keys, NOW).map(|(slot, _, _)| slot).collect();
        for &slot in &slots {
            self.remove(slot);
        }
        slots.len() as u64
    }

    fn remove(&mut self, number: u32) {
        let revision = self.revision + 1;
        let slot = &mut self.chunks[number as usize / CHUNK_SLOTS][number as usize % CHUNK_SLOTS];
        assert!(slot.version > 0, "only a key that exists is removed");
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.save_key(number, slot);
        }
        let old = Old {
            value: std::mem::take(&mut slot.value),
            create: slot.create,
            modified: slot.modified,
            version: slot.version,
        };
        let key = slot.key.bytes();
        self.strands[strand_of(xxh3_64(key))] -= item_bytes(key, &old.value);
        (slot.create, slot.modified, slot.version) = (0, revision, 0);
        let older = slot.newest;
        self.value_bytes -= old.value.len();
        self.live -= 1;
        self.made += 1;
        let newest =
            self.history.push(Record { revision, older, slot: number, removed: true, old });
        self.slot_mut(number).newest = newest;
        self.hash = fold(self.hash, revision, Change::Delete, self.slot(number).key.bytes(), b"");
    }

    /// A slot for a key that has none; the key doesn't exist yet.
    fn create(&mut self, key_hash: u64, key: &[u8]) -> u32 {
        let slot = Slot { key: Key::new(key), ..Slot::free() };
        let number = match self.free.pop() {
            Some(number) => {
                *self.slot_mut(number) = slot;
                number
            }
            None => {
                match self.chunks.last() {
                    None => self.chunks.push(Vec::new()),
                    Some(chunk) if chunk.len() == CHUNK_SLOTS => {
                        self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
                    }
                    Some(_) => {}
                }
                let last = self.chunks.len() - 1;
                self.chunks[last].push(slot);
                let number = last * CHUNK_SLOTS + self.chunks[last].len() - 1;
                u32::try_from(number).expect("memory ends before four billion keys")
            }
        };
        self.key_bytes += key.len();
        self.index.insert(key_hash, number);
        self.order.insert(key.into(), number);
        number
    }

    /// Gives back the slot of a key that no revision in the window knows.
    fn release(&mut self, number: u32) {
        let slot = std::mem::replace(self.slot_mut(number), Slot::free());
        let key = slot.key.bytes();
        self.key_bytes -= key.len();
        self.index.remove(xxh3_64(key), number);
        self.order.remove(key);
        self.free.push(number);
    }

    /// Changes how many revisions before the current one stay readable.
    pub(super) fn set_window(&mut self, revisions: u64) {
        self.window = revisions;
        let value = revisions.to_le_bytes();
        self.hash = fold(self.hash, self.revision, Change::History, b"", &value);
    }

    /// Forgets what keys were before a revision. What that frees goes with the next commands, and by
    /// [`Store::tidy`].
    pub(super) fn compact(&mut self, revision: u64) -> Result<(), Status> {
        if revision > self.revision {
            return Err(Status::FutureRevision);
        }
        if revision < self.oldest {
            return Err(Status::Compacted);
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::CompactionIgnored) {
            return Ok(());
        }
        if revision > self.oldest {
            self.oldest = revision;
            let value = revision.to_le_bytes();
            self.hash = fold(self.hash, self.revision, Change::Compact, b"", &value);
        }
        Ok(())
    }

    /// Ends a command: its changes, if any, become the next revision; then history that left the
    /// window is pruned, a bounded piece at a time.
    #[inline]
    pub(super) fn commit(&mut self) {
        if self.made > 0 {
            self.revision += 1;
        }
        self.oldest = self.oldest.max(self.revision.saturating_sub(self.window));
        self.prune(self.made + PRUNE_EXTRA);
        self.made = 0;
    }

    /// Frees a bounded piece of the history that left the window. Returns whether there is more of
    /// it. Between commands.
    pub(super) fn tidy(&mut self) -> bool {
        assert!(self.made == 0, "no command is half done");
        if !self.history.has_left(self.oldest) {
            return false;
        }
        self.prune(PRUNE_TIDY);
        self.history.has_left(self.oldest)
    }

    #[inline]
    fn prune(&mut self, records: usize) {
        if self.snapshot.is_some() {
            self.save_changes(records);
        }
        for _ in 0..records {
            let Some((number, record)) = self.history.pop(self.oldest) else { break };
            if record.removed {
                let slot = self.slot(record.slot);
                if slot.newest == number && slot.version == 0 {
                    self.release(record.slot);
                }
            }
            self.spare = record.old.value;
        }
    }

    /// A key as of a revision.
    pub(super) fn get(&self, key: &[u8], at: u64) -> Option<Version<'_>> {
        self.version_at(self.slot(self.find(xxh3_64(key), key)?), at)
    }

    /// The keys of a set that exist as of a revision, in order: slot, key, version.
    pub(super) fn visible<'s>(
        &'s self,
        keys: &Keys<'s>,
        at: u64,
    ) -> impl Iterator<Item = (u32, &'s [u8], Version<'s>)> {
        let keys = *keys;
        let from = (Bound::Included(keys.start()), Bound::Unbounded);
        self.order.range::<[u8], _>(from).take_while(move |(key, _)| keys.holds(key)).filter_map(
            move |(key, &slot)| Some((slot, &**key, self.version_at(self.slot(slot), at)?)),
        )
    }

    #[inline]
    fn version_at<'s>(&'s self, slot: &'s Slot, at: u64) -> Option<Version<'s>> {
        let found = if slot.modified <= at {
            let (create, modified) = (slot.create, slot.modified);
            Version { value: &slot.value, create, modified, version: slot.version }
        } else {
            let mut number = slot.newest;
            loop {
                // A chain that ends, or left the window, says that the key didn't exist.
                let record = self.history.get(number)?;
                let Old { value, create, modified, version } = &record.old;
                if *modified <= at {
                    break Version {
                        value,
                        create: *create,
                        modified: *modified,
                        version: *version,
                    };
                }
                number = record.older;
            }
        };
        (found.version > 0).then_some(found)
    }

    /// Slots in use and records kept: what pruning is to keep small.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), self.history.len())
    }
}
