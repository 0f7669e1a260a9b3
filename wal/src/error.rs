//! Everything that can go wrong, as small enums; each first caller that can decide does.

use crate::device::FileId;
use ringraft_types::{GroupId, Sequence};

/// The log stopped for good: the process must stop too, and the next start reads the medium again
/// (I-10). A failed write or sync is never retried and then believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalFatal {
    /// A write failed.
    #[error(
        "write of {file:?} at {offset} failed with errno {errno}; the log stops, check the disk"
    )]
    Write {
        /// The file.
        file: FileId,
        /// Where, bytes.
        offset: u64,
        /// As the kernel says.
        errno: i32,
    },
    /// A sync failed.
    #[error("sync of {file:?} failed with errno {errno}; the log stops, check the disk")]
    Sync {
        /// The file; `None`: the directory.
        file: Option<FileId>,
        /// As the kernel says.
        errno: i32,
    },
    /// A write made no progress in [`crate::log::ATTEMPTS_MAX`] attempts.
    #[error("write of {file:?} at {offset} made no progress in many attempts; the log stops")]
    Stuck {
        /// The file.
        file: FileId,
        /// Where, bytes.
        offset: u64,
    },
    /// A segment could not be prepared, for another reason than a full disk.
    #[error("preparing {file:?} failed with errno {errno}; the log stops, check the disk")]
    Prepare {
        /// The file.
        file: FileId,
        /// As the kernel says.
        errno: i32,
    },
}

/// Why a record was not appended. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// As many bytes wait for the disk as the settings allow: try again when some are durable.
    #[error("the log is full: {waiting} bytes wait for the disk, the limit is {limit}")]
    Full {
        /// Bytes that wait.
        waiting: usize,
        /// The setting `unsubmitted_bytes_max`.
        limit: usize,
    },
    /// It doesn't fit any block of these settings.
    #[error("a record of {bytes} bytes doesn't fit a block of {limit}")]
    TooLong {
        /// The record.
        bytes: usize,
        /// What a block has room for.
        limit: usize,
    },
    /// The log stopped before, see [`WalFatal`].
    #[error("the log has stopped")]
    Stopped,
}

/// Why a read gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The first index asked for isn't in this log.
    #[error("not held by this log")]
    NotHeld,
    /// What the log holds of it can't be read: repair it from a peer.
    #[error("the block at {offset} of segment {segment} is rotten (errno {errno})")]
    Rot {
        /// The file's number.
        segment: u64,
        /// Of the block, bytes.
        offset: u64,
        /// The block.
        sequence: Sequence,
        /// As the kernel says; zero: the read went well, the bytes are wrong.
        errno: i32,
    },
}

/// Why a log could not be recovered. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// A segment belongs to another cluster, node, life or log.
    #[error(
        "{file:?} belongs to another log: {what} is {found}, not {expected}; is the data directory mixed up?"
    )]
    Foreign {
        /// The file.
        file: FileId,
        /// Which part of the identity.
        what: &'static str,
        /// In the file.
        found: String,
        /// Ours.
        expected: String,
    },
    /// A segment or block of another format version.
    #[error("{file:?} at {offset} has format version {version}; start the version that wrote it")]
    Version {
        /// The file.
        file: FileId,
        /// Where, bytes.
        offset: u64,
        /// In the file.
        version: u16,
    },
    /// An intact record of a kind that this version doesn't know.
    #[error("{file:?} at {offset} holds a record of kind {kind}; start the version that wrote it")]
    Kind {
        /// The file.
        file: FileId,
        /// Of the block, bytes.
        offset: u64,
        /// In the record.
        kind: u8,
    },
    /// A file could not be listed, opened, synced or removed.
    #[error("{what} {file:?} failed with errno {errno}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file; `None`: the directory.
        file: Option<FileId>,
        /// As the kernel says.
        errno: i32,
    },
    /// A log that was begun has no block any more.
    #[error(
        "log {log_id} was begun and holds nothing any more: what it promised is gone; nothing was \
         changed"
    )]
    Lost {
        /// The log.
        log_id: u64,
    },
    /// A unit can't be read that may hold the end of the log: what was acknowledged may be there.
    #[error(
        "{file:?} at {offset} can't be read (errno {errno}), and may hold what was acknowledged last; \
         nothing was changed: look for the disk's errors in the kernel's log, and start again when \
         it can be read"
    )]
    Unreadable {
        /// The file.
        file: FileId,
        /// Where, bytes.
        offset: u64,
        /// As the kernel says; zero: the read was cut short.
        errno: i32,
    },
    /// The settings contradict each other or the device.
    #[error("{0}")]
    Settings(String),
}

/// Something that was good once and isn't now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotReport {
    /// The file's number; `None`: where it was isn't known any more.
    pub segment: Option<u64>,
    /// Of the block, bytes.
    pub offset: Option<u64>,
    /// The block; `None`: it can't be told.
    pub sequence: Option<Sequence>,
    /// What is wrong.
    pub kind: RotKind,
    /// The groups that lost something (zero: the node itself).
    pub groups: Vec<GroupId>,
}

/// Kinds of rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotKind {
    /// A segment's header.
    SegmentHeader,
    /// A whole block, its header included; the next block names what it held.
    Block,
    /// Blocks of which nothing is known: every group may have lost something.
    Unknown,
    /// Records in a block whose header is intact.
    Records,
    /// Padding that isn't zero; nothing is lost.
    Padding,
}
