//! The disk format of the log, version 1. Every byte is documented here.
//!
//! A log is a row of segment files, `wal-<log>-<segment>.seg`, both numbers in 16 hexadecimal
//! digits. A segment is a header of 4096 bytes, then blocks, then zeros up to its full length. A
//! segment is zero-filled and synced before its header is written, so a file without a valid
//! header and without a valid block was never used. Segment numbers only grow, and a number that
//! ever carried a block is never used again.
//!
//! A block is one write. It starts and ends at a multiple of 4096 bytes (or of more, if the
//! device demands it) and is never rewritten. All numbers are little-endian.
//!
//! ```text
//! block
//!   0  [8]   magic         "ringblok"
//!   8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12..head, then the directory
//!  12  u32   head          bytes of this header and the repeated directory: 136 + 56 * repeated
//!  16  u16   version       1
//!  18  u16   flags         1: first block of a life (after format or recovery), 2: seal
//!  20  u32   directory_at  where the records end and the directory starts, from the block's start
//!  24  u32   items         of the directory
//!  28  u32   repeated      items of the repeated directory
//!  32  u128  cluster
//!  48  u64   incarnation   of the node's data directory
//!  56  u64   log
//!  64  u64   segment       the file's number
//!  72  u64   offset        of this block in the file
//!  80  u64   sequence      of this block in the log, from 1
//!  88  u64   previous      the sequence of the block before; not always one less, see below
//!  96  u64   before        the sequence of the block before that
//! 104  u64   durable       newest contiguous durable sequence when this block was written
//! 112  u64   oldest        sequence of the oldest block that the log still needed then
//! 120  u32   node
//! 124  u32   records
//! 128  u32   length        of the whole block, padding included
//! 132  u32   chain         checksum of the block before; zero if there was none
//! 136  repeated directory  of the block before
//!      records             `ringraft_types::record`, each with its own checksum, none spans blocks
//!      directory
//!      zeros up to `length`
//!
//! directory item
//!   0  u64   group         zero: the node's own records
//!   8  u64   first         the block removes the group's entries from `first` on ...
//!  16  u64   last          ... and leaves the group's log ending at `last` (one less than `first`
//!                          if it only removed)
//!  24  u64   last_term     the term of the entry `last`, zero if the block doesn't hold it
//!  32  u64   hard_term     the term of the newest hard state in the block
//!  40  u32   records       of the group in this block
//!  44  u32   bytes         of them
//!  48  u32   flags         1: first, last and last_term are set, 2: hard_term is set,
//!                          4: carried records; they remove nothing and have an item of their own,
//!                          8: of group zero: nothing but records of the node,
//!                          16: a record that names a snapshot
//!  52  u32   zero
//!
//! segment header (zeros up to 4096 bytes)
//!   0  [8]   magic         "ringsegm"
//!   8  u32   checksum      CRC-32/IEEE of bytes 0..8, then 12..80
//!  12  u32   head          80
//!  16  u16   version       1
//!  18  u16   zero
//!  20  u32   align         of the blocks, bytes
//!  24  u64   length        of the file, bytes
//!  32  u128  cluster
//!  48  u64   incarnation
//!  56  u64   log
//!  64  u64   segment       the file's number
//!  72  u32   node
//!  76  u32   zero
//! ```
//!
//! **Versions.** The first 32 bytes of a block and the first 16 of a segment header mean the same
//! in every version, so the checksum can be judged before the version: rot never looks like a
//! newer version. A version or a record kind that this program doesn't know is refused, never
//! skipped.
//!
//! **Why the directory stands behind the records.** Its size is known only when the block is
//! full; behind them, records are copied once and never moved.
//!
//! **Lives.** Sequences are not reused. The first block of a life carries flag 1, a sequence well
//! above every one seen, and in `previous` the last block that recovery kept. Blocks between the
//! two were cut, and stay cut.
//!
//! **Rot and torn.** The largest `durable` in any valid header is what was surely acknowledged. A
//! bad block at or below it is rot: it was good once, and what it held is named by its own
//! directory or by the repeated one in the next block. A bad block above it is a torn tail, which
//! nobody was told of. A seal is an empty block, written after a few milliseconds of idleness,
//! whose `durable` covers the last block with records; rot of the last block before its seal is
//! written can't be told from a torn write.

use ringraft_types::bytes::{u16_at, u32_at, u64_at, u128_at};
use ringraft_types::limits::{BLOCK_ALIGN_MIN, BLOCK_BYTES_MAX, CARRIED_BYTES_MAX};
use ringraft_types::record::{RecordHeader, RecordKind};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, NodeId, Sequence, Term};
use rustc_hash::FxHashMap;

/// The format's version.
pub const VERSION: u16 = 1;
/// The block header before the repeated directory, bytes.
pub const BLOCK_HEADER_BYTES: usize = 136;
/// A directory's item, bytes.
pub const ITEM_BYTES: usize = 56;
/// Groups that share a block; the next one starts a new block.
pub const BLOCK_ITEMS_MAX: usize = 1024;
/// The segment header with its padding, bytes. The first block follows at this offset, rounded up
/// to the device's alignment.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_ALIGN_MIN;
/// The first block of a life is this far above every sequence seen, so that a block which was
/// unreadable at one recovery and readable at the next can't clash with it.
pub const LIFE_GAP: u64 = 1024;

/// Flag of a block: the first of a life.
pub const FLAG_LIFE: u16 = 1;
/// Flag of a block: empty, written for its `durable` only.
pub const FLAG_SEAL: u16 = 2;

/// Flag of an item: `first`, `last` and `last_term` are set.
pub const ITEM_ENTRIES: u32 = 1;
/// Flag of an item: `hard_term` is set.
pub const ITEM_HARD: u32 = 2;
/// Flag of an item: carried records.
pub const ITEM_CARRIED: u32 = 4;
/// Flag of an item of group zero: all its records are of the kind of which the newest says all.
pub const ITEM_NODE: u32 = 8;
/// Flag of an item: a record that names a snapshot.
pub const ITEM_SNAPSHOT: u32 = 16;

pub(crate) const BLOCK_MAGIC: [u8; 8] = *b"ringblok";
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"ringsegm";
const SEGMENT_HEAD_BYTES: usize = 80;

// The largest record fits a block beside a full directory and a full repeated one.
const _: () = assert!(
    CARRIED_BYTES_MAX + BLOCK_HEADER_BYTES + 2 * BLOCK_ITEMS_MAX * ITEM_BYTES <= BLOCK_BYTES_MAX
);
const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(8) && ITEM_BYTES.is_multiple_of(8));

/// Whose log it is: every header repeats it, and nothing of another log is ever believed (V13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The life of the node's data directory.
    pub incarnation: Incarnation,
    /// The log within the node.
    pub log_id: u64,
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A block's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Whose log it is.
    pub identity: Identity,
    /// [`FLAG_LIFE`], [`FLAG_SEAL`].
    pub flags: u16,
    /// Where the directory starts, bytes from the block's start.
    pub directory_at: u32,
    /// Items of the directory.
    pub items: u32,
    /// Items of the repeated directory.
    pub repeated: u32,
    /// The file's number.
    pub segment: u64,
    /// Of this block in the file, bytes.
    pub offset: u64,
    /// Of this block in the log.
    pub sequence: Sequence,
    /// The sequence of the block before.
    pub previous: Sequence,
    /// The sequence of the block before that.
    pub before: Sequence,
    /// Newest contiguous durable sequence known when the block was written.
    pub durable: Sequence,
    /// Oldest sequence that the log still needed then.
    pub oldest: Sequence,
    /// Records in the block.
    pub records: u32,
    /// The whole block, bytes.
    pub length: u32,
    /// Checksum of the header of the block before.
    pub chain: u32,
}

impl BlockHeader {
    /// Bytes of the header and the repeated directory: where the records start.
    pub fn head(&self) -> usize {
        BLOCK_HEADER_BYTES + self.repeated as usize * ITEM_BYTES
    }

    /// Whether this is the block that a log has at a place.
    pub(crate) fn is_at(
        &self,
        identity: Identity,
        segment: u64,
        offset: u64,
        sequence: Sequence,
    ) -> bool {
        self.identity == identity
            && (self.segment, self.offset) == (segment, offset)
            && self.sequence == sequence
    }

    /// Where the directory ends: bytes used.
    pub fn used(&self) -> usize {
        self.directory_at as usize + self.items as usize * ITEM_BYTES
    }

    /// Writes the header to the start of a block that already holds both directories, checksums
    /// all of them, and returns the checksum.
    pub(crate) fn encode(&self, block: &mut [u8]) -> u32 {
        assert!(self.used() <= self.length as usize && self.length as usize == block.len());
        put(block, 0, &BLOCK_MAGIC);
        put(block, 12, &(self.head() as u32).to_le_bytes());
        put(block, 16, &VERSION.to_le_bytes());
        put(block, 18, &self.flags.to_le_bytes());
        put(block, 20, &self.directory_at.to_le_bytes());
        put(block, 24, &self.items.to_le_bytes());
        put(block, 28, &self.repeated.to_le_bytes());
        put(block, 32, &self.identity.cluster.0.to_le_bytes());
        put(block, 48, &self.identity.incarnation.0.to_le_bytes());
        put(block, 56, &self.identity.log_id.to_le_bytes());
        put(block, 64, &self.segment.to_le_bytes());
        put(block, 72, &self.offset.to_le_bytes());
        put(block, 80, &self.sequence.0.to_le_bytes());
        put(block, 88, &self.previous.0.to_le_bytes());
        put(block, 96, &self.before.0.to_le_bytes());
        put(block, 104, &self.durable.0.to_le_bytes());
        put(block, 112, &self.oldest.0.to_le_bytes());
        put(block, 120, &self.identity.node.0.to_le_bytes());
        put(block, 124, &self.records.to_le_bytes());
        put(block, 128, &self.length.to_le_bytes());
        put(block, 132, &self.chain.to_le_bytes());
        let checksum =
            block_checksum(block, self.head(), self.directory_at as usize, self.items as usize);
        put(block, 8, &checksum.to_le_bytes());
        checksum
    }

    /// Reads the fields; the caller has verified the checksum.
    pub(crate) fn decode(block: &[u8]) -> Self {
        Self {
            identity: Identity {
                cluster: ClusterId(u128_at(block, 32)),
                node: NodeId(u32_at(block, 120)),
                incarnation: Incarnation(u64_at(block, 48)),
                log_id: u64_at(block, 56),
            },
            flags: u16_at(block, 18),
            directory_at: u32_at(block, 20),
            items: u32_at(block, 24),
            repeated: u32_at(block, 28),
            segment: u64_at(block, 64),
            offset: u64_at(block, 72),
            sequence: Sequence(u64_at(block, 80)),
            previous: Sequence(u64_at(block, 88)),
            before: Sequence(u64_at(block, 96)),
            durable: Sequence(u64_at(block, 104)),
            oldest: Sequence(u64_at(block, 112)),
            records: u32_at(block, 124),
            length: u32_at(block, 128),
            chain: u32_at(block, 132),
        }
    }
}

/// The checksum of a block's header and directories. The bounds were checked by the caller.
pub(crate) fn block_checksum(block: &[u8], head: usize, directory_at: usize, items: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..8]);
    hasher.update(&block[12..head]);
    hasher.update(&block[directory_at..directory_at + items * ITEM_BYTES]);
    hasher.finalize()
}

/// What a block holds of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryItem {
    /// The group; zero: the node's own records.
    pub group: GroupId,
    /// The block removes the group's entries from here on.
    pub first: Index,
    /// The group's log ends here after the block.
    pub last: Index,
    /// The term of the entry `last`.
    pub last_term: Term,
    /// The term of the newest hard state in the block.
    pub hard_term: Term,
    /// Records of the group in the block.
    pub records: u32,
    /// Bytes of them.
    pub bytes: u32,
    /// [`ITEM_ENTRIES`], [`ITEM_HARD`], [`ITEM_CARRIED`], [`ITEM_NODE`], [`ITEM_SNAPSHOT`].
    pub flags: u32,
}

impl DirectoryItem {
    /// Whether the item has this flag.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn encode(&self, out: &mut [u8]) {
        put(out, 0, &self.group.0.to_le_bytes());
        put(out, 8, &self.first.0.to_le_bytes());
        put(out, 16, &self.last.0.to_le_bytes());
        put(out, 24, &self.last_term.0.to_le_bytes());
        put(out, 32, &self.hard_term.0.to_le_bytes());
        put(out, 40, &self.records.to_le_bytes());
        put(out, 44, &self.bytes.to_le_bytes());
        put(out, 48, &self.flags.to_le_bytes());
        put(out, 52, &[0; 4]);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self {
            group: GroupId(u64_at(bytes, 0)),
            first: Index(u64_at(bytes, 8)),
            last: Index(u64_at(bytes, 16)),
            last_term: Term(u64_at(bytes, 24)),
            hard_term: Term(u64_at(bytes, 32)),
            records: u32_at(bytes, 40),
            bytes: u32_at(bytes, 44),
            flags: u32_at(bytes, 48),
        }
    }

    fn note_entries(&mut self, first: Index, last: Index, last_term: Term) {
        // A jump forward follows an installed snapshot: what was before is gone.
        let jumps = self.has(ITEM_ENTRIES) && first > self.last.next();
        if !self.has(ITEM_ENTRIES) || jumps || first < self.first {
            self.first = first;
        }
        self.last = last;
        self.last_term = last_term;
        self.flags |= ITEM_ENTRIES;
    }

    fn note_carried(&mut self, index: Index, term: Term) {
        if !self.has(ITEM_ENTRIES) {
            self.first = index;
        }
        self.first = self.first.min(index);
        if index >= self.last {
            self.last = index;
            self.last_term = term;
        }
        self.flags |= ITEM_ENTRIES;
    }

    fn note_truncate(&mut self, from: Index) {
        if !self.has(ITEM_ENTRIES) || from < self.first {
            self.first = from;
        }
        self.last = from.previous();
        self.last_term = Term::ZERO;
        self.flags |= ITEM_ENTRIES;
    }
}

/// A block's directory while it is being built: by the packer from what it packs, and again by
/// recovery from what it reads, so that the two can be compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    pub(crate) items: Vec<DirectoryItem>,
    places: FxHashMap<(GroupId, bool), usize>,
    newest: usize,
}

impl Directory {
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.places.clear();
        self.newest = 0;
    }

    /// The item of this group, made if there is none.
    fn item(&mut self, group: GroupId, carried: bool) -> &mut DirectoryItem {
        let flags = if carried { ITEM_CARRIED } else { 0 };
        let hit = self
            .items
            .get(self.newest)
            .is_some_and(|item| item.group == group && item.flags & ITEM_CARRIED == flags);
        if !hit {
            self.newest = *self.places.entry((group, carried)).or_insert_with(|| {
                self.items.push(DirectoryItem { group, flags, ..DirectoryItem::default() });
                self.items.len() - 1
            });
        }
        &mut self.items[self.newest]
    }

    /// Whether one more record of the group would take a new item.
    pub(crate) fn is_new(&self, group: GroupId, carried: bool) -> bool {
        !self.places.contains_key(&(group, carried))
    }

    /// Whether the directory has exactly this item.
    pub(crate) fn holds(&self, item: &DirectoryItem) -> bool {
        let place = self.places.get(&(item.group, item.has(ITEM_CARRIED)));
        place.is_some_and(|&place| self.items[place] == *item)
    }

    /// Notes a run of entries of one group.
    pub(crate) fn note_run(
        &mut self,
        group: GroupId,
        first: Index,
        last: Index,
        last_term: Term,
        bytes: usize,
    ) {
        let item = self.item(group, false);
        item.records += (last.0 - first.0 + 1) as u32;
        item.bytes += bytes as u32;
        item.note_entries(first, last, last_term);
    }

    /// Notes one record; `inner` is the record that a carried one carries.
    pub(crate) fn note(
        &mut self,
        header: &RecordHeader,
        inner: Option<&RecordHeader>,
        bytes: usize,
    ) {
        let item = self.item(header.group, header.kind == RecordKind::Carried);
        item.records += 1;
        item.bytes += bytes as u32;
        match (header.kind, inner) {
            (RecordKind::HardState, _) => {
                item.hard_term = header.term;
                item.flags |= ITEM_HARD;
            }
            (RecordKind::Truncate, _) => item.note_truncate(header.index),
            (RecordKind::Carried, Some(inner)) if inner.kind.is_entry() => {
                item.note_carried(inner.index, inner.term);
            }
            (RecordKind::Carried, Some(inner)) if inner.kind == RecordKind::HardState => {
                item.hard_term = inner.term;
                item.flags |= ITEM_HARD;
            }
            (RecordKind::Snapshot, _) => item.flags |= ITEM_SNAPSHOT,
            (RecordKind::Carried, Some(inner)) if inner.kind == RecordKind::Snapshot => {
                item.flags |= ITEM_SNAPSHOT;
            }
            (kind, _) if kind.is_entry() => {
                item.note_entries(header.index, header.index, header.term);
            }
            (RecordKind::Node, _) if item.records == 1 => item.flags |= ITEM_NODE,
            (RecordKind::Node, _) => {}
            _ => item.flags &= !ITEM_NODE,
        }
    }
}

/// The header of a segment file, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub identity: Identity,
    /// The file's number.
    pub segment: u64,
    /// The file's length, bytes.
    pub length: u64,
    /// What its blocks are aligned to, bytes.
    pub align: u32,
}

/// Why bytes are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentHeaderError {
    /// All zeros: never written.
    Empty,
    /// Not intact.
    Bad,
    /// Intact, and of another version.
    Version(u16),
}

impl SegmentHeader {
    /// Writes the header to zeroed bytes.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        assert!(out.len() >= SEGMENT_HEADER_BYTES, "a segment header takes a unit of its own");
        out.fill(0);
        put(out, 0, &SEGMENT_MAGIC);
        put(out, 12, &(SEGMENT_HEAD_BYTES as u32).to_le_bytes());
        put(out, 16, &VERSION.to_le_bytes());
        put(out, 20, &self.align.to_le_bytes());
        put(out, 24, &self.length.to_le_bytes());
        put(out, 32, &self.identity.cluster.0.to_le_bytes());
        put(out, 48, &self.identity.incarnation.0.to_le_bytes());
        put(out, 56, &self.identity.log_id.to_le_bytes());
        put(out, 64, &self.segment.to_le_bytes());
        put(out, 72, &self.identity.node.0.to_le_bytes());
        let checksum = checksum(&out[..SEGMENT_HEAD_BYTES]);
        put(out, 8, &checksum.to_le_bytes());
    }

    /// Reads and verifies the header at the start of a segment file.
    ///
    /// # Errors
    /// If it isn't an intact header of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..8] != SEGMENT_MAGIC {
            let empty = is_zero(bytes);
            return Err(if empty { SegmentHeaderError::Empty } else { SegmentHeaderError::Bad });
        }
        let head = u32_at(bytes, 12) as usize;
        if !(SEGMENT_HEAD_BYTES..=SEGMENT_HEADER_BYTES).contains(&head)
            || u32_at(bytes, 8) != checksum(&bytes[..head])
        {
            return Err(SegmentHeaderError::Bad);
        }
        let version = u16_at(bytes, 16);
        if version != VERSION {
            return Err(SegmentHeaderError::Version(version));
        }
        if !is_zero(&bytes[head..SEGMENT_HEADER_BYTES]) {
            return Err(SegmentHeaderError::Bad);
        }
        Ok(Self {
            identity: Identity {
                cluster: ClusterId(u128_at(bytes, 32)),
                node: NodeId(u32_at(bytes, 72)),
                incarnation: Incarnation(u64_at(bytes, 48)),
                log_id: u64_at(bytes, 56),
            },
            segment: u64_at(bytes, 64),
            length: u64_at(bytes, 24),
            align: u32_at(bytes, 20),
        })
    }
}

/// Over everything but the place of the checksum itself, which follows the magic.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..8]);
    hasher.update(&bytes[12..]);
    hasher.finalize()
}

/// `bytes` rounded up to a multiple of `align`, a power of two.
pub(crate) const fn round_up(bytes: usize, align: usize) -> usize {
    (bytes + align - 1) & !(align - 1)
}

/// Whether all bytes are zero: by comparing pages, which is as fast as memory.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}
