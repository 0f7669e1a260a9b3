//! Newest entries of a shard's groups, as encoded records, in memory: what appends to followers
//! and apply read.
//!
//! One arena of chunks per shard, bounded by bytes; the oldest chunk goes first, whichever groups
//! it holds. Entries below the cache are read back from the log. Nothing here is the only copy:
//! an entry is handed to the log in the turn in which it enters the cache.

use ringraft_types::{Index, record};
use std::collections::VecDeque;

/// Bytes of one chunk; a longer record gets a chunk of its own.
const CHUNK_BYTES: usize = 256 << 10;

/// Where a record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: u64,
    offset: u32,
    bytes: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    data: Vec<u8>,
    /// The tails (by group slot) that have records here, each once.
    tails: Vec<u32>,
}

/// The cached end of one group's log.
#[derive(Debug, Default)]
struct Tail {
    /// The first cached entry; meaningless while `places` is empty.
    first: Index,
    places: VecDeque<Place>,
}

/// The cache of one shard.
#[derive(Debug)]
pub(crate) struct Cache {
    chunks: VecDeque<Chunk>,
    /// The number of the chunk at the front of `chunks`.
    chunk_first: u64,
    tails: Vec<Tail>,
    bytes: usize,
    bytes_max: usize,
    spare: Vec<Chunk>,
    /// Tails whose front was evicted since the last look.
    trimmed: Vec<u32>,
}

impl Cache {
    /// An empty cache that holds about `bytes_max` bytes of records.
    ///
    /// # Panics
    /// If `bytes_max` is less than two chunks.
    pub(crate) fn new(bytes_max: usize) -> Self {
        assert!(bytes_max >= 2 * CHUNK_BYTES, "the entry cache needs {} bytes", 2 * CHUNK_BYTES);
        Self {
            chunks: VecDeque::new(),
            chunk_first: 0,
            tails: Vec::new(),
            bytes: 0,
            bytes_max,
            spare: Vec::new(),
            trimmed: Vec::new(),
        }
    }

    /// Makes room for a group; its slot is the number of calls before this one.
    pub(crate) fn add_tail(&mut self) -> usize {
        self.tails.push(Tail::default());
        self.tails.len() - 1
    }

    /// Bytes held, unused ends of chunks included.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first entry still held of a group, or `None` if none is.
    pub(crate) fn first(&self, slot: usize) -> Option<Index> {
        let tail = &self.tails[slot];
        (!tail.places.is_empty()).then_some(tail.first)
    }

    fn chunk_with_room(&mut self, slot: usize, bytes: usize) -> (u64, &mut Chunk) {
        let fits = self
            .chunks
            .back()
            .is_some_and(|chunk| chunk.data.capacity() - chunk.data.len() >= bytes);
        if !fits {
            self.evict_for(bytes.max(CHUNK_BYTES));
            let mut chunk = self.spare.pop().unwrap_or_default();
            chunk.data.reserve_exact(bytes.max(CHUNK_BYTES));
            self.bytes += chunk.data.capacity();
            self.chunks.push_back(chunk);
        }
        let number = self.chunk_first + self.chunks.len() as u64 - 1;
        let chunk = self.chunks.back_mut().expect("a chunk was just made sure of");
        let slot = slot as u32;
        if chunk.tails.last() != Some(&slot) && !chunk.tails.contains(&slot) {
            chunk.tails.push(slot);
        }
        (number, chunk)
    }

    fn evict_for(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max {
            let Some(mut chunk) = self.chunks.pop_front() else { return };
            self.chunk_first += 1;
            self.bytes -= chunk.data.capacity();
            for &slot in &chunk.tails {
                let tail = &mut self.tails[slot as usize];
                let before = tail.places.len();
                while tail.places.front().is_some_and(|place| place.chunk < self.chunk_first) {
                    tail.places.pop_front();
                    tail.first = tail.first.next();
                }
                if tail.places.len() != before {
                    self.trimmed.push(slot);
                }
            }
            chunk.tails.clear();
            chunk.data.clear();
            if chunk.data.capacity() == CHUNK_BYTES && self.spare.len() < 4 {
                self.spare.push(chunk);
            }
        }
    }

    /// The groups whose front was evicted since the last call.
    pub(crate) fn take_trimmed(&mut self, out: &mut Vec<u32>) {
        out.append(&mut self.trimmed);
    }

    fn note(&mut self, slot: usize, index: Index, place: Place) {
        let tail = &mut self.tails[slot];
        if tail.places.is_empty() {
            tail.first = index;
        }
        assert!(
            tail.first.0 + tail.places.len() as u64 == index.0,
            "entry {index} doesn't follow the cached tail that starts at {} with {} entries",
            tail.first,
            tail.places.len(),
        );
        tail.places.push_back(place);
    }

    /// Adds the entry at `index`, encoded by `encode` straight into the cache; `bytes` is what it
    /// will take. Returns the record's bytes.
    ///
    /// # Panics
    /// If `index` doesn't follow the newest cached entry, or `encode` wrote another number of
    /// bytes.
    pub(crate) fn push_with(
        &mut self,
        slot: usize,
        index: Index,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let (chunk, into) = self.chunk_with_room(slot, bytes);
        let offset = into.data.len();
        encode(&mut into.data);
        assert!(into.data.len() - offset == bytes, "the record took another number of bytes");
        self.note(slot, index, Place { chunk, offset: offset as u32, bytes: bytes as u32 });
    }

    /// Adds entries from `first` on, already encoded and verified, as one run of bytes.
    pub(crate) fn push_run(&mut self, slot: usize, first: Index, mut records: &[u8]) {
        let mut index = first;
        while !records.is_empty() {
            let header = record::peek(records).expect("the caller verified these records");
            let bytes = record::encoded_bytes(header.length as usize);
            let (record, rest) = records.split_at(bytes);
            self.push_with(slot, index, bytes, |out| out.extend_from_slice(record));
            records = rest;
            index = index.next();
        }
    }

    /// Forgets a group's entries from `index` on.
    pub(crate) fn truncate(&mut self, slot: usize, index: Index) {
        let tail = &mut self.tails[slot];
        let keep = index.0.saturating_sub(tail.first.0) as usize;
        tail.places.truncate(keep);
    }

    /// The record at `index`, if it is held.
    pub(crate) fn get(&self, slot: usize, index: Index) -> Option<&[u8]> {
        let tail = &self.tails[slot];
        let at = index.0.checked_sub(tail.first.0)?;
        let place = tail.places.get(usize::try_from(at).ok()?)?;
        Some(self.slice(place, place.bytes as usize))
    }

    /// A copy of the records from `first` to `last`, as far as they are held one after the other:
    /// how many, and their bytes. It ends with the one that reaches `bytes_max`.
    pub(crate) fn copy(
        &self,
        slot: usize,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> (u32, Vec<u8>) {
        let (mut count, mut records) = (0, Vec::new());
        for record in (first.0..=last.0).map_while(|index| self.get(slot, Index(index))) {
            records.extend_from_slice(record);
            count += 1;
            if records.len() >= bytes_max {
                break;
            }
        }
        (count, records)
    }

    fn slice(&self, place: &Place, bytes: usize) -> &[u8] {
        let chunk = &self.chunks[(place.chunk - self.chunk_first) as usize];
        &chunk.data[place.offset as usize..place.offset as usize + bytes]
    }

    /// Hands out the records `first..=last` as few runs of bytes, each with its first and last
    /// index. Returns whether all of them are held; if not, nothing is handed out.
    pub(crate) fn runs(
        &self,
        slot: usize,
        first: Index,
        last: Index,
        mut give: impl FnMut(Index, Index, &[u8]),
    ) -> bool {
        let tail = &self.tails[slot];
        if tail.places.is_empty()
            || first < tail.first
            || last.0 >= tail.first.0 + tail.places.len() as u64
        {
            return false;
        }
        let mut at = (first.0 - tail.first.0) as usize;
        let end = (last.0 - tail.first.0) as usize;
        while at <= end {
            let start = tail.places[at];
            let mut bytes = start.bytes;
            let mut to = at;
            while to < end {
                let next = tail.places[to + 1];
                if next.chunk != start.chunk || next.offset != start.offset + bytes {
                    break;
                }
                bytes += next.bytes;
                to += 1;
            }
            give(
                Index(tail.first.0 + at as u64),
                Index(tail.first.0 + to as u64),
                self.slice(&start, bytes as usize),
            );
            at = to + 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::{GroupId, Term, record::RecordKind};

    fn record(index: u64, payload: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let bytes = vec![index as u8; payload];
        record::encode(
            &mut out,
            RecordKind::Command,
            GroupId(1),
            Index(index),
            Term(1),
            [&bytes, b""],
        );
        out
    }

    /// What goes in comes out, in one run while it is contiguous, and truncation forgets.
    #[test]
    fn runs_are_contiguous() {
        let mut cache = Cache::new(1 << 20);
        let slot = cache.add_tail();
        let all: Vec<u8> = (5..10).flat_map(|index| record(index, 100)).collect();
        cache.push_run(slot, Index(5), &all);
        let mut seen = Vec::new();
        assert!(cache.runs(slot, Index(6), Index(8), |a, b, bytes| seen.push((a, b, bytes.len()))));
        assert_eq!(seen, [(Index(6), Index(8), 3 * record(6, 100).len())]);
        assert!(!cache.runs(slot, Index(4), Index(8), |_, _, _| panic!("not all are held")));
        cache.truncate(slot, Index(7));
        assert!(cache.get(slot, Index(7)).is_none());
        assert_eq!(cache.get(slot, Index(6)), Some(&record(6, 100)[..]));
        cache.push_run(slot, Index(7), &record(7, 3));
        assert_eq!(cache.get(slot, Index(7)), Some(&record(7, 3)[..]));
    }

    /// The cache stays within its bound, drops the oldest, and says whose front went.
    #[test]
    fn eviction_is_oldest_first_and_reported() {
        let mut cache = Cache::new(4 * CHUNK_BYTES);
        let (a, b) = (cache.add_tail(), cache.add_tail());
        cache.push_run(b, Index(1), &record(1, 10));
        for index in 1..2000u64 {
            cache.push_run(a, Index(index), &record(index, 1000));
            assert!(cache.bytes() <= 4 * CHUNK_BYTES);
        }
        let mut trimmed = Vec::new();
        cache.take_trimmed(&mut trimmed);
        trimmed.sort_unstable();
        trimmed.dedup();
        assert_eq!(trimmed, [a as u32, b as u32]);
        assert!(cache.first(b).is_none());
        let first = cache.first(a).expect("the newest are held");
        assert!(first > Index(1));
        assert_eq!(cache.get(a, first), Some(&record(first.0, 1000)[..]));
        assert_eq!(cache.get(a, Index(1999)), Some(&record(1999, 1000)[..]));
        // A tail that was evicted whole starts again where its group goes on.
        cache.push_run(b, Index(2), &record(2, 10));
        assert_eq!(cache.first(b), Some(Index(2)));
    }

    /// A copy ends with what was asked for, with what is held, or with its limit, and holds the
    /// record that reaches it.
    #[test]
    fn copies_end() {
        let mut cache = Cache::new(1 << 20);
        let slot = cache.add_tail();
        let all: Vec<u8> = (5..10).flat_map(|index| record(index, 100)).collect();
        let one = all.len() / 5;
        cache.push_run(slot, Index(5), &all);
        let copied =
            |first, last, bytes_max| cache.copy(slot, Index(first), Index(last), bytes_max);
        assert_eq!(copied(6, 7, 1 << 20), (2, all[one..3 * one].to_vec()));
        assert_eq!(copied(8, 20, 1 << 20), (2, all[3 * one..].to_vec()));
        assert_eq!(copied(5, 9, one + 1), (2, all[..2 * one].to_vec()));
        assert_eq!(copied(5, 9, 2 * one), (2, all[..2 * one].to_vec()));
        assert_eq!(copied(4, 9, 1 << 20), (0, vec![]), "the first one isn't held");
    }

    /// The longest record fits.
    #[test]
    fn a_long_record_gets_its_own_chunk() {
        let mut cache = Cache::new(4 << 20);
        let slot = cache.add_tail();
        let long = record(1, ringraft_types::limits::PAYLOAD_BYTES_MAX);
        cache.push_run(slot, Index(1), &long);
        cache.push_run(slot, Index(2), &record(2, 1));
        assert_eq!(cache.get(slot, Index(1)), Some(&long[..]));
    }
}
