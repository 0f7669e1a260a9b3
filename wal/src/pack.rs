//! Packing records into blocks: the one copy between memory and disk.
//!
//! ```text
//! | header | repeated directory | records, copied in and never moved ... | directory | zeros |
//! ```
//! The directory and the padding are written when the block is sealed, the header when it is
//! submitted, because only then its place and the newest durable sequence are known.

use crate::block::inner_header;
use crate::buffer::Buffer;
use crate::format::{
    BLOCK_HEADER_BYTES, BLOCK_ITEMS_MAX, BlockHeader, Directory, DirectoryItem, ITEM_BYTES,
    round_up,
};
use ringraft_types::record::{RecordHeader, RecordKind};
use ringraft_types::{GroupId, Index, Sequence, Term, Ticks};

/// The block that is being filled.
#[derive(Debug)]
pub(crate) struct Filling {
    buffer: Buffer,
    pub(crate) sequence: Sequence,
    used: usize,
    repeated: u32,
    directory: Directory,
    records: u32,
    /// When it was first seen with records in it.
    pub(crate) since: Option<Ticks>,
}

impl Filling {
    /// An empty block with the directory of the block before.
    pub(crate) fn new(
        mut buffer: Buffer,
        sequence: Sequence,
        repeat: &[DirectoryItem],
        mut directory: Directory,
    ) -> Self {
        assert!(repeat.len() <= BLOCK_ITEMS_MAX, "a directory has a bounded number of items");
        directory.clear();
        let mut used = BLOCK_HEADER_BYTES;
        for item in repeat {
            item.encode(&mut buffer[used..used + ITEM_BYTES]);
            used += ITEM_BYTES;
        }
        Self {
            buffer,
            sequence,
            used,
            repeated: repeat.len() as u32,
            directory,
            records: 0,
            since: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that it would take on disk now, without the padding.
    pub(crate) fn bytes(&self) -> usize {
        self.used + self.directory.items.len() * ITEM_BYTES
    }

    /// Bytes of records of this group that still fit.
    pub(crate) fn room(&self, group: GroupId, carried: bool, items_max: usize) -> usize {
        let new = usize::from(self.directory.is_new(group, carried));
        let items = self.directory.items.len() + new;
        if items > items_max {
            return 0;
        }
        self.buffer.len().saturating_sub(self.used + items * ITEM_BYTES)
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.buffer[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// Adds one record.
    pub(crate) fn push(&mut self, header: &RecordHeader, bytes: &[u8]) {
        let is_carried = header.kind == RecordKind::Carried;
        assert!(bytes.len() <= self.room(header.group, is_carried, BLOCK_ITEMS_MAX));
        let inner = inner_header(bytes, header);
        self.directory.note(header, inner.as_ref(), bytes.len());
        self.records += 1;
        self.copy(bytes);
    }

    /// Adds a run of entries of one group.
    pub(crate) fn push_run(
        &mut self,
        group: GroupId,
        first: Index,
        last: Index,
        last_term: Term,
        bytes: &[u8],
    ) {
        assert!(bytes.len() <= self.room(group, false, BLOCK_ITEMS_MAX));
        assert!(first <= last, "a run holds at least one entry");
        self.directory.note_run(group, first, last, last_term, bytes.len());
        self.records += (last.0 - first.0 + 1) as u32;
        self.copy(bytes);
    }

    /// Ends the block: writes the directory and zeros up to the alignment.
    pub(crate) fn seal(mut self, align: usize) -> Sealed {
        let directory_at = self.used;
        for item in &self.directory.items {
            item.encode(&mut self.buffer[self.used..self.used + ITEM_BYTES]);
            self.used += ITEM_BYTES;
        }
        let length = round_up(self.used, align);
        self.buffer[self.used..length].fill(0);
        self.buffer.set_window(length);
        Sealed {
            buffer: self.buffer,
            sequence: self.sequence,
            directory_at: directory_at as u32,
            repeated: self.repeated,
            records: self.records,
            directory: self.directory,
        }
    }
}

/// A block that is full, or on its way to the disk.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) buffer: Buffer,
    pub(crate) sequence: Sequence,
    directory_at: u32,
    repeated: u32,
    pub(crate) records: u32,
    pub(crate) directory: Directory,
}

impl Sealed {
    /// Writes the header; `template` holds what the log knows, the block's own fields are filled
    /// in here. Returns the header's checksum, the next block's `chain`.
    pub(crate) fn stamp(&mut self, template: BlockHeader) -> u32 {
        let header = BlockHeader {
            directory_at: self.directory_at,
            items: self.directory.items.len() as u32,
            repeated: self.repeated,
            sequence: self.sequence,
            records: self.records,
            length: self.buffer.len() as u32,
            ..template
        };
        header.encode(&mut self.buffer)
    }
}
