//! Snapshots of the store, taken piece by piece while it changes.
//!
//! A snapshot is the store as it was when it began: every key, and every change that the history
//! held. Nothing is copied at the beginning. Pieces walk through the slots and the history; whoever
//! changes a slot, or prunes a change, that the walk has not come to saves it first. So each key
//! and each change is written once, by whoever comes first, and neither the history nor a writer
//! ever waits for the walk.
//!
//! ```text
//!  0  u8   kind: 1 head, 2 key, 3 change        an item; all numbers are little-endian
//!  1  u8   change: 1 if it removed the key
//!  2  u16  bytes of the key
//!  4  u32  bytes of the value
//!  8  u64  change: its revision                 head: the newest revision
//! 16  u64  the version's create revision        head: the oldest revision that may be read
//! 24  u64  the version's modify revision        head: revisions that stay readable
//! 32  u64  the version's number                 head: the state's hash
//! 40       the key, the value                   head: keys, changes, entry applied last (u64 each)
//! ```
//! A change holds the version that it ended. The head comes before the changes, which come in their
//! order; keys come in any order, before, between and after them.
//!
//! If the snapshot is kept in strands, each key's item is in the strand that the three highest bits
//! of its hash name (XXH3, 64 bits, no seed), the items of a strand in any order. Everything else is
//! in none.

use ringraft_types::bytes::{u16_at, u32_at, u64_at};
use ringraft_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, STRANDS};
use xxhash_rust::xxh3::xxh3_64;

use super::{CHUNK_SLOTS, Old, Record, Slot, Store, strand_of};
use crate::machine::items::{Saved, load_items};
use crate::machine::{LoadError, StrandPieces};

const ITEM_BYTES: usize = 40;
const KIND_HEAD: u8 = 1;
const KIND_KEY: u8 = 2;
const KIND_CHANGE: u8 = 3;
const HEAD_VALUE_BYTES: usize = 24;
/// Slots that one piece looks at, so that a store of few keys among many free slots doesn't hold
/// its core up.
const SLOTS_PER_PIECE: u32 = 4_096;

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The store's, when it began.
    revision: u64,
    /// Slots from here to the end aren't written, but for those that were changed since.
    slots_next: u32,
    slots_end: u32,
    /// Records from here to the end, which is the last, aren't written.
    records_next: u64,
    records_end: u64,
    /// Items that writers saved: those of no strand.
    saved: Saved,
    /// The same of each strand, if there are any.
    saved_strands: Option<Box<[Saved; STRANDS]>>,
}

/// How far a snapshot is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loading {
    head: Option<Head>,
    /// The newest revision that set a key of it.
    newest: u64,
}

/// What the head of a snapshot says.
#[derive(Clone, Copy, Debug)]
struct Head {
    keys: u64,
    changes: u64,
    /// The newest entry applied.
    applied: Index,
}

/// One item, to be written or just read.
struct Item<'a> {
    kind: u8,
    removed: bool,
    revision: u64,
    create: u64,
    modified: u64,
    version: u64,
    key: &'a [u8],
    value: &'a [u8],
}

impl Item<'_> {
    fn write(&self, out: &mut impl Extend<u8>) {
        out.extend([self.kind, u8::from(self.removed)]);
        out.extend((self.key.len() as u16).to_le_bytes());
        out.extend((self.value.len() as u32).to_le_bytes());
        for number in [self.revision, self.create, self.modified, self.version] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.key.iter().copied());
        out.extend(self.value.iter().copied());
    }

    /// The item at the beginning of `bytes`, and how many it takes.
    fn read(bytes: &[u8]) -> Result<(Item<'_>, usize), &'static str> {
        if bytes.len() < ITEM_BYTES {
            return Err("an item is cut short");
        }
        let (key_bytes, value_bytes) = (usize::from(u16_at(bytes, 2)), u32_at(bytes, 4) as usize);
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err("a key or a value is longer than the limit");
        }
        let end = ITEM_BYTES + key_bytes + value_bytes;
        let Some(rest) = bytes.get(ITEM_BYTES..end) else {
            return Err("a key or a value is cut short");
        };
        let (key, value) = rest.split_at(key_bytes);
        let removed = match (bytes[0], bytes[1]) {
            (_, 0) => false,
            (KIND_CHANGE, 1) => true,
            _ => return Err("only a change may remove"),
        };
        let [revision, create, modified, version] =
            [8, 16, 24, 32].map(|place| u64_at(bytes, place));
        let item =
            Item { kind: bytes[0], removed, revision, create, modified, version, key, value };
        Ok((item, end))
    }
}

/// What a key takes in a snapshot, bytes.
pub(super) const fn item_bytes(key: &[u8], value: &[u8]) -> u64 {
    (ITEM_BYTES + key.len() + value.len()) as u64
}

fn key_item(slot: &Slot) -> Item<'_> {
    Item {
        kind: KIND_KEY,
        removed: false,
        revision: 0,
        create: slot.create,
        modified: slot.modified,
        version: slot.version,
        key: slot.key.bytes(),
        value: &slot.value,
    }
}

fn change_item<'a>(record: &'a Record, key: &'a [u8]) -> Item<'a> {
    let Old { value, create, modified, version } = &record.old;
    Item {
        kind: KIND_CHANGE,
        removed: record.removed,
        revision: record.revision,
        create: *create,
        modified: *modified,
        version: *version,
        key,
        value,
    }
}

impl Snapshot {
    /// Whether this slot's key is part of the snapshot and isn't written yet.
    fn lacks(&self, number: u32, slot: &Slot) -> bool {
        let is_unwritten = (self.slots_next..self.slots_end).contains(&number);
        is_unwritten && slot.version > 0 && slot.modified <= self.revision
    }

    /// The slot is about to change.
    #[cold]
    pub(super) fn save_key(&mut self, number: u32, slot: &Slot) {
        #[cfg(ringraft_plant)]
        if planted(Plant::SnapshotUnsaved) {
            return;
        }
        if self.lacks(number, slot) {
            let saved = match &mut self.saved_strands {
                Some(saved) => &mut saved[strand_of(xxh3_64(slot.key.bytes()))],
                None => &mut self.saved,
            };
            saved.push(|out| key_item(slot).write(out));
        }
    }
}

impl Store {
    /// Begins a snapshot of the store as it is; one that was under way is given up. `applied` is
    /// the newest entry applied.
    pub(in crate::machine) fn begin_snapshot(&mut self, applied: Index) {
        assert!(self.made == 0, "no command is half done");
        let (first, newest) = self.history.numbers(self.oldest);
        let mut value = [0; HEAD_VALUE_BYTES];
        value[..8].copy_from_slice(&self.live.to_le_bytes());
        value[8..16].copy_from_slice(&(newest + 1 - first).to_le_bytes());
        value[16..].copy_from_slice(&applied.0.to_le_bytes());
        let head = Item {
            kind: KIND_HEAD,
            removed: false,
            revision: self.revision,
            create: self.oldest,
            modified: self.window,
            version: self.hash,
            key: b"",
            value: &value,
        };
        let mut saved = Saved::default();
        saved.push(|out| head.write(out));
        let slots = match self.chunks.split_last() {
            Some((last, full)) => full.len() * CHUNK_SLOTS + last.len(),
            None => 0,
        };
        self.snapshot = Some(Box::new(Snapshot {
            revision: self.revision,
            slots_next: 0,
            slots_end: u32::try_from(slots).expect("memory ends before four billion keys"),
            records_next: first,
            records_end: newest,
            saved,
            saved_strands: None,
        }));
    }

    /// The snapshot that was just begun is kept in strands.
    pub(in crate::machine) fn keep_strands(&mut self) {
        let snapshot = self.snapshot.as_mut().expect("a snapshot was begun");
        snapshot.saved_strands = Some(Box::default());
    }

    /// Appends the snapshot's next piece: whole items, until it is `bytes` long or there are no
    /// more, those of strands to theirs. Returns whether this was the last.
    pub(in crate::machine) fn snapshot_piece(
        &mut self,
        bytes: usize,
        piece: &mut Vec<u8>,
        mut strands: Option<&mut StrandPieces>,
    ) -> bool {
        let mut snapshot = self.snapshot.take().expect("a snapshot was begun");
        assert!(strands.is_some() == snapshot.saved_strands.is_some(), "strands are kept, or not");
        let end = piece.len() + bytes;
        snapshot.saved.take(end, piece);
        let mut left = end.saturating_sub(piece.len());
        if let (Some(strands), Some(saved)) = (&mut strands, &mut snapshot.saved_strands) {
            for (strand, saved) in strands.iter_mut().zip(saved.iter_mut()) {
                let length = strand.len();
                saved.take(length + left, strand);
                left = left.saturating_sub(strand.len() - length);
            }
        }
        while left > 0 && snapshot.records_next <= snapshot.records_end {
            let record = self.history.get(snapshot.records_next).expect("it would have been saved");
            let length = piece.len();
            change_item(record, self.slot(record.slot).key.bytes()).write(piece);
            left = left.saturating_sub(piece.len() - length);
            snapshot.records_next += 1;
        }
        let pause = snapshot.slots_next.saturating_add(SLOTS_PER_PIECE).min(snapshot.slots_end);
        while left > 0 && snapshot.slots_next < pause {
            let slot = self.slot(snapshot.slots_next);
            if snapshot.lacks(snapshot.slots_next, slot) {
                let key = slot.key.bytes();
                key_item(slot).write(match &mut strands {
                    Some(strands) => &mut strands[strand_of(xxh3_64(key))],
                    None => &mut *piece,
                });
                left = left.saturating_sub(item_bytes(key, &slot.value) as usize);
            }
            snapshot.slots_next += 1;
        }
        let is_empty = |saved: &[Saved; STRANDS]| saved.iter().all(Saved::is_empty);
        let is_last = snapshot.saved.is_empty()
            && snapshot.saved_strands.as_deref().is_none_or(is_empty)
            && snapshot.records_next > snapshot.records_end
            && snapshot.slots_next == snapshot.slots_end;
        self.snapshot = Some(snapshot);
        is_last
    }

    /// The history is about to lose as many records at its front, if they left the window.
    #[cold]
    pub(super) fn save_changes(&mut self, records: usize) {
        let Some(mut snapshot) = self.snapshot.take() else { return };
        for _ in 0..records {
            let record = self.history.get(snapshot.records_next);
            let Some(record) = record.filter(|record| {
                snapshot.records_next <= snapshot.records_end && record.revision <= self.oldest
            }) else {
                break;
            };
            let key = self.slot(record.slot).key.bytes();
            snapshot.saved.push(|out| change_item(record, key).write(out));
            snapshot.records_next += 1;
        }
        self.snapshot = Some(snapshot);
    }

    /// Ends the snapshot that is under way, if one is.
    pub(in crate::machine) fn end_snapshot(&mut self) {
        self.snapshot = None;
    }

    /// Bytes that a snapshot holds for its next pieces.
    pub(super) fn snapshot_bytes(&self) -> usize {
        self.snapshot.as_ref().map_or(0, |snapshot| {
            let strands = snapshot.saved_strands.iter().flat_map(|saved| saved.iter());
            strands.chain([&snapshot.saved]).map(Saved::memory_bytes).sum()
        })
    }

    /// Adds a piece of a snapshot to a store that held nothing before its first.
    pub(in crate::machine) fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        load_items(piece, Item::read, |item| self.load_item(&item))
    }

    /// Adds keys of a strand to a store that held nothing before. Returns how many bytes are taken:
    /// all whole items.
    pub(in crate::machine) fn load_strand(&mut self, bytes: &[u8]) -> Result<usize, LoadError> {
        let whole = whole_items(bytes);
        load_items(&bytes[..whole], Item::read, |item| match item.kind {
            KIND_KEY => self.load_key(&item),
            _ => Err("a strand holds something else than keys"),
        })?;
        Ok(whole)
    }

    /// The last piece is loaded: everything that the head names must be there.
    pub(in crate::machine) fn end_load(&mut self) -> Result<Index, LoadError> {
        let error = |what| LoadError { at: 0, what };
        let Loading { head, newest } = std::mem::take(&mut self.loading);
        let head = head.ok_or(error("there is no head"))?;
        if newest > self.revision {
            return Err(error("a key is newer than the head"));
        }
        if head.keys != self.live {
            return Err(error("there are other keys than the head counts"));
        }
        if head.changes != self.history.len() as u64 {
            return Err(error("there are other changes than the head counts"));
        }
        Ok(head.applied)
    }

    fn load_item(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        match (item.kind, self.loading.head) {
            (KIND_HEAD, None) => self.load_head(item),
            (KIND_HEAD, Some(_)) => Err("a second head"),
            (_, None) => Err("there is no head"),
            (KIND_KEY, Some(_)) => self.load_key(item),
            (KIND_CHANGE, Some(_)) => self.load_change(item),
            _ => Err("an item of a kind that this version doesn't know"),
        }
    }

    fn load_head(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        assert!(self.revision == 0, "only an empty store is loaded");
        if item.value.len() != HEAD_VALUE_BYTES || item.create > item.revision {
            return Err("the head is none");
        }
        self.revision = item.revision;
        (self.oldest, self.window, self.hash) = (item.create, item.modified, item.version);
        let [keys, changes, applied] = [0, 8, 16].map(|place| u64_at(item.value, place));
        self.loading.head = Some(Head { keys, changes, applied: Index(applied) });
        Ok(())
    }

    fn load_key(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        let is_order = 0 < item.create && item.create <= item.modified;
        if !is_order || item.version == 0 || item.key.is_empty() {
            return Err("a key's revisions contradict each other");
        }
        self.loading.newest = self.loading.newest.max(item.modified);
        let hash = xxh3_64(item.key);
        let number = self.slot_of(hash, item.key);
        self.value_bytes += item.value.len();
        self.live += 1;
        let slot = self.slot_mut(number);
        if slot.version != 0 {
            return Err("a key comes twice");
        }
        slot.value = Box::from(item.value);
        (slot.create, slot.modified, slot.version) = (item.create, item.modified, item.version);
        self.strands[strand_of(hash)] += item_bytes(item.key, item.value);
        Ok(())
    }

    fn load_change(&mut self, item: &Item<'_>) -> Result<(), &'static str> {
        let is_known = self.history.newest_revision() <= item.revision
            && self.oldest < item.revision
            && item.revision <= self.revision;
        if !is_known || item.modified >= item.revision || item.key.is_empty() {
            return Err("a change's revisions contradict each other");
        }
        let number = self.slot_of(xxh3_64(item.key), item.key);
        let slot = self.slot_mut(number);
        let older = slot.newest;
        if slot.version == 0 {
            // It may be gone for good. If it isn't, its key is still to come.
            slot.modified = if item.removed { item.revision } else { 0 };
        }
        let old = Old {
            value: Box::from(item.value),
            create: item.create,
            modified: item.modified,
            version: item.version,
        };
        let (revision, removed) = (item.revision, item.removed);
        let newest = self.history.push(Record { revision, older, slot: number, removed, old });
        self.slot_mut(number).newest = newest;
        Ok(())
    }

    /// The slot of a key with this hash, a new one if it has none.
    fn slot_of(&mut self, hash: u64, key: &[u8]) -> u32 {
        self.find(hash, key).unwrap_or_else(|| self.create(hash, key))
    }
}

/// How many of these bytes are whole items, as far as their lengths are any: what isn't an item is
/// left to whoever reads it.
fn whole_items(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(head) = bytes[at..].first_chunk::<ITEM_BYTES>() {
        let (key, value) = (usize::from(u16_at(head, 2)), u32_at(head, 4) as usize);
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
            return bytes.len();
        }
        let end = at + ITEM_BYTES + key + value;
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    at
}
