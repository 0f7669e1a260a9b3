//! The disk door: the only way from the log to a disk.
//!
//! A device shows raw outcomes (result, short count, the order in which they came); every
//! decision on them is made above this door, where the simulator can see it. Implementations
//! only translate: [`memory`] in memory, `uring` on the core's ring, [`files`] for offline commands.

pub mod files;
pub mod geometry;
pub mod memory;
mod reclaim;
#[allow(unsafe_code)]
pub mod uring;

use crate::buffer::Buffer;
use ringraft_types::tag::Tag;

/// A file of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// What kind of file.
    pub kind: FileKind,
    /// The log it belongs to.
    pub owner: u64,
    /// Its number, unique for ever within the owner.
    pub number: u64,
}

impl FileId {
    /// A segment of a log.
    pub const fn segment(owner: u64, number: u64) -> Self {
        Self { kind: FileKind::Segment, owner, number }
    }

    /// A snapshot of a log.
    pub const fn snapshot(owner: u64, number: u64) -> Self {
        Self { kind: FileKind::Snapshot, owner, number }
    }
}

/// The kinds of file that pass the disk door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A segment of the write-ahead log: `wal-<owner>-<number>.seg`, both in hexadecimal.
    Segment,
    /// A snapshot of a group: `snap-<owner>-<number>.snp`, both in hexadecimal.
    Snapshot,
}

/// How a write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Not by itself: followed by [`Operation::Sync`] where it matters.
    None,
    /// One write with RWF_DSYNC.
    Dsync,
    /// A write linked to an fdatasync in one submission.
    LinkedSync,
    /// A blocking write and fdatasync, inside `submit`.
    Blocking,
}

/// Where a read may take what it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// What the disk holds, whatever the kernel remembers of it.
    Disk,
    /// What the kernel remembers of the file since this device first read it so, and where it
    /// remembers nothing what the disk holds, to be remembered as far as there is memory until
    /// [`Operation::Forget`]: for what is read twice, and written by nobody in between.
    Cache,
}

/// One operation. The device owns the buffer until the completion gives it back (I-08).
#[derive(Clone, Debug)]
pub enum Operation {
    /// Which files are there? Answered in `Completion::files`.
    List,
    /// Creates and opens a file that must not exist yet.
    Create(FileId),
    /// Opens an existing file.
    Open(FileId),
    /// Writes the whole buffer at this offset.
    Write {
        /// An open file.
        file: FileId,
        /// Aligned as [`Geometry`] says.
        offset: u64,
        /// Its length is aligned too.
        buffer: Buffer,
        /// How it becomes durable.
        durability: Durability,
    },
    /// Fills the buffer from this offset on.
    Read {
        /// An open file.
        file: FileId,
        /// Aligned as [`Geometry`] says.
        offset: u64,
        /// Its length is aligned too.
        buffer: Buffer,
        /// Where what it brings may come from.
        from: ReadFrom,
    },
    /// What the kernel remembers of a file that was read from [`ReadFrom::Cache`] is dropped.
    Forget(FileId),
    /// fdatasync of a file.
    Sync(FileId),
    /// fsync of the directory.
    SyncDirectory,
    /// Closes a file; it stays.
    Close(FileId),
    /// Closes and removes a file.
    Remove(FileId),
}

/// A raw outcome.
#[derive(Clone, Debug)]
pub struct Completion {
    /// As submitted.
    pub tag: Tag,
    /// As the kernel says: bytes or zero if it went well, else a negative errno. For a linked
    /// write, the write's own result.
    pub result: i32,
    /// For a linked write: the sync's own result.
    pub sync_result: Option<i32>,
    /// The buffer of a read or write, given back.
    pub buffer: Option<Buffer>,
    /// For [`Operation::List`]: the files and their lengths, in no particular order.
    pub files: Vec<(FileId, u64)>,
}

/// What a device demands of offsets, lengths and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// max(dio_offset_align, physical block size, 4096), bytes; a power of two.
    pub align: usize,
}

/// The disk door.
pub trait Device {
    /// What the device demands.
    fn geometry(&self) -> Geometry;
    /// Starts an operation. Never fails: a refusal is a completion with a negative result.
    fn submit(&mut self, tag: Tag, operation: Operation);
    /// Appends what completed since the last call, in the order in which it came.
    fn poll(&mut self, completions: &mut Vec<Completion>);
}
