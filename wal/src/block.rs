//! Reading a block: is it one, is it intact, and what does it hold.
//!
//! Nothing in here trusts a byte before its checksum matched, and nothing panics on any bytes.

use crate::format::{
    BLOCK_HEADER_BYTES, BLOCK_ITEMS_MAX, BLOCK_MAGIC, BlockHeader, Directory, DirectoryItem,
    ITEM_BYTES, VERSION, block_checksum, is_zero,
};
use ringraft_types::bytes::{u16_at, u32_at};
use ringraft_types::limits::{BLOCK_ALIGN_MIN, BLOCK_BYTES_MAX};
use ringraft_types::record::{self, Record, RecordError, RecordHeader, RecordKind};

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// No header, or one that contradicts itself.
    #[error("no block header")]
    NoHeader,
    /// More bytes are needed to judge it.
    #[error("{need} bytes are needed to judge the block")]
    Short {
        /// Bytes in all.
        need: usize,
    },
    /// The header's checksum doesn't match.
    #[error("the block header's checksum doesn't match")]
    Checksum,
    /// Intact, and written by another version.
    #[error("the block's format version is {version}, this program knows {VERSION}")]
    Version {
        /// In the header.
        version: u16,
    },
}

/// A block whose header and directories are intact. Its records are not judged yet.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The header.
    pub header: BlockHeader,
    /// The header's checksum: the next block's `chain`.
    pub checksum: u32,
    /// The whole block.
    pub bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the block at the start of `bytes` and verifies its header and directories.
    ///
    /// # Errors
    /// If it isn't one; [`BlockError::Short`] if `bytes` ends before the block does.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BlockError> {
        if bytes.len() < BLOCK_ALIGN_MIN {
            return Err(BlockError::Short { need: BLOCK_ALIGN_MIN });
        }
        if bytes[..8] != BLOCK_MAGIC {
            return Err(BlockError::NoHeader);
        }
        let head = u32_at(bytes, 12) as usize;
        let directory_at = u32_at(bytes, 20) as usize;
        let items = u32_at(bytes, 24) as usize;
        let length = u32_at(bytes, 128) as usize;
        if head < 32 || head > directory_at || items > BLOCK_ITEMS_MAX * 2 {
            return Err(BlockError::NoHeader);
        }
        let end = directory_at.saturating_add(items * ITEM_BYTES);
        if end > BLOCK_BYTES_MAX {
            return Err(BlockError::NoHeader);
        }
        if bytes.len() < end {
            return Err(BlockError::Short { need: end });
        }
        let checksum = block_checksum(bytes, head, directory_at, items);
        if checksum != u32_at(bytes, 8) {
            return Err(BlockError::Checksum);
        }
        // From here on the header is intact: what is wrong now was written so.
        let version = u16_at(bytes, 16);
        if version != VERSION {
            return Err(BlockError::Version { version });
        }
        let repeated = u32_at(bytes, 28) as usize;
        if repeated > BLOCK_ITEMS_MAX
            || head != BLOCK_HEADER_BYTES + repeated * ITEM_BYTES
            || length < end
            || length > BLOCK_BYTES_MAX
            || !length.is_multiple_of(BLOCK_ALIGN_MIN)
        {
            return Err(BlockError::NoHeader);
        }
        if bytes.len() < length {
            return Err(BlockError::Short { need: length });
        }
        Ok(Self { header: BlockHeader::decode(bytes), checksum, bytes: &bytes[..length] })
    }

    /// The block's directory.
    pub fn directory(&self) -> Vec<DirectoryItem> {
        self.own_items().collect()
    }

    fn own_items(&self) -> impl Iterator<Item = DirectoryItem> + 'a {
        self.items(self.header.directory_at as usize, self.header.items)
    }

    /// The directory of the block before.
    pub fn repeated(&self) -> Vec<DirectoryItem> {
        self.items(BLOCK_HEADER_BYTES, self.header.repeated).collect()
    }

    fn items(&self, start: usize, count: u32) -> impl Iterator<Item = DirectoryItem> + 'a {
        let bytes = &self.bytes[start..start + count as usize * ITEM_BYTES];
        bytes.chunks_exact(ITEM_BYTES).map(DirectoryItem::decode)
    }

    /// The bytes of the records.
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[self.header.head()..self.header.directory_at as usize]
    }

    /// Whether the padding is what it was written as.
    pub fn padding_is_zero(&self) -> bool {
        is_zero(&self.bytes[self.header.used()..])
    }
}

/// The intact record behind a carried one.
///
/// # Errors
/// If there is none, or its kind is unknown.
pub fn carried<'a>(record: &Record<'a>) -> Result<Record<'a>, RecordError> {
    let inner = record::decode(record.payload)?;
    let fits = inner.bytes.len() == record.payload.len()
        && inner.header.group == record.header.group
        && inner.header.kind != RecordKind::Carried;
    if fits { Ok(inner) } else { Err(RecordError::Reserved) }
}

/// What walking over a block's records gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// Items of which the block doesn't hold what its directory says: their records are not to be
    /// used.
    pub(crate) damaged: Vec<DirectoryItem>,
    /// The first rotten record, bytes from the block's start, and what is wrong with it.
    pub(crate) rotten: Option<(usize, RecordError)>,
    /// A record that is intact and of a kind that this version doesn't know.
    pub(crate) unknown_kind: Option<u8>,
}

/// Calls `each` with the intact records of a block, in order, with the record inside for carried
/// ones, and compares what it saw with the directory. A rotten record is stepped over if its
/// length is believable: everything behind it must then be intact up to the last byte; else the
/// walk ends there. Who is hit follows from the directory, never from the rotten bytes.
pub(crate) fn walk<'a>(
    block: &Block<'a>,
    seen: &mut Directory,
    mut each: impl FnMut(&Record<'a>, Option<&Record<'a>>),
) -> Walk {
    let records = block.records();
    let mut result = Walk::default();
    seen.clear();
    let mut at = 0;
    while at < records.len() {
        let outcome = record::decode(&records[at..]).and_then(|record| {
            let inner = match record.header.kind {
                RecordKind::Carried => Some(carried(&record)?),
                _ => None,
            };
            Ok((record, inner))
        });
        match outcome {
            Ok((record, inner)) => {
                let inner_header = inner.map(|inner| inner.header);
                seen.note(&record.header, inner_header.as_ref(), record.bytes.len());
                each(&record, inner.as_ref());
                at += record.bytes.len();
            }
            Err(RecordError::Kind { kind }) => {
                result.unknown_kind = Some(kind);
                return result;
            }
            Err(error) => {
                if result.rotten.is_none() {
                    result.rotten = Some((block.header.head() + at, error));
                }
                match step_over(&records[at..]) {
                    Some(step) => at += step,
                    None => break,
                }
            }
        }
    }
    // Also without a rotten record: intact records of another block would not match (V13).
    let mut named = 0;
    for item in block.own_items() {
        named += item.records;
        if !seen.holds(&item) {
            result.damaged.push(item);
        }
    }
    let hit = |item: &DirectoryItem| result.damaged.iter().any(|other| other.group == item.group);
    if !result.damaged.is_empty() {
        // Nothing of a group is used of which a part is damaged, so all of it is named.
        result.damaged = block.own_items().filter(hit).collect();
    }
    if named != block.header.records && result.damaged.is_empty() {
        result.damaged = block.directory();
    }
    result
}

/// How far to step over the rotten record at the start of `records`, if what follows is intact.
fn step_over(records: &[u8]) -> Option<usize> {
    if records.len() < 8 {
        return None;
    }
    let length = u32_at(records, 4) as usize;
    if length > BLOCK_BYTES_MAX {
        return None;
    }
    let step = record::encoded_bytes(length);
    let mut at = step;
    while at < records.len() {
        at += record::decode(&records[at..]).ok()?.bytes.len();
    }
    (at == records.len()).then_some(step)
}

/// Whether a record may be appended to a log by itself, and the record that it carries, if any.
pub(crate) fn inner_header(bytes: &[u8], header: &RecordHeader) -> Option<RecordHeader> {
    (header.kind == RecordKind::Carried).then(|| {
        record::peek(&bytes[ringraft_types::limits::RECORD_HEADER_BYTES..])
            .expect("the caller carries an intact record")
    })
}
