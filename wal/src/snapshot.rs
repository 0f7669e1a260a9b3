//! Snapshot files: the state of a group at one entry, as its owner gives it, byte by byte.
//!
//! A log keeps them beside its segments and writes them through the same door. What the bytes say
//! is the owner's affair; here they are cut into chunks of one size, each with its own checksum, so
//! that any of them can be read, sent and judged alone. `format.rs` has every byte.
//!
//! ```text
//!  create -> chunks, a few in flight -> sync -> head -> sync -> sync of the directory -> visible
//! ```
//! The head stands at the file's beginning and is written last: a file without one was never
//! finished. It counts only once it, and the file's name, are durable (S29). Nobody was promised
//! anything before that, so whatever goes wrong on the way ends the attempt, not the log: the file
//! is removed, and the owner is told why.

mod format;
mod layout;
mod read;
mod write;

use crate::device::FileId;
pub use format::{
    CHUNK_BYTES, CHUNK_HEAD_BYTES, CHUNK_ROOM, HEAD_BYTES, SnapshotHead, SnapshotHeadError,
    content_sum,
};
pub(crate) use format::{decode_chunk, first_offset};
pub use layout::{Layout, Stretch};
pub use read::{Chunk, ChunkDone, ChunkError, ChunkSums};
pub(crate) use read::{ChunkRead, Reads};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use write::Writing;
pub(crate) use write::Written;
pub use write::{SnapshotError, SnapshotWritten};

/// The snapshots of a log.
#[derive(Debug)]
pub(crate) struct Snapshots {
    log_id: u64,
    next_number: u64,
    /// Begun, not submitted.
    fresh: Vec<u64>,
    writing: BTreeMap<u64, Writing>,
    written: VecDeque<SnapshotWritten>,
    reads: Reads,
    /// Files that are open.
    open: BTreeSet<u64>,
    /// Files that are being closed: none of them is opened before that is done.
    closing: BTreeSet<u64>,
    /// Files that are being removed.
    removing: u32,
    /// The directory is synced when they are.
    syncs_removals: bool,
}

impl Snapshots {
    pub(crate) fn new(log_id: u64, next_number: u64) -> Self {
        Self {
            log_id,
            next_number,
            fresh: Vec::new(),
            writing: BTreeMap::new(),
            written: VecDeque::new(),
            reads: Reads::default(),
            open: BTreeSet::new(),
            closing: BTreeSet::new(),
            removing: 0,
            syncs_removals: false,
        }
    }

    fn file(&self, number: u64) -> FileId {
        FileId::snapshot(self.log_id, number)
    }
}
