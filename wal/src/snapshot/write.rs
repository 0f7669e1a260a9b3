//! Snapshots on their way to the disk.

use super::format::{CHUNK_ROOM, chunk_stride, encode_chunk};
use super::{CHUNK_HEAD_BYTES, ChunkSums, HEAD_BYTES, SnapshotHead, first_offset};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Durability, Operation};
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{GroupId, Index, LogId};
use std::collections::VecDeque;

/// Chunks of one snapshot that wait or are in flight; its owner waits while there are so many.
const CHUNKS_MAX: usize = 4;

/// Why a snapshot was not written. Nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There was no room for it.
    #[error("the disk is full")]
    Full,
    /// A system call failed: nothing of what it was to write is believed.
    #[error("{what} failed with errno {errno}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// As the kernel says; zero: it made no progress.
        errno: i32,
    },
    /// Its owner gave it up.
    #[error("it was given up")]
    GivenUp,
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotWritten {
    /// Its head, with the number of [`Log::begin_snapshot`]. Without an error it is durable, and will be found by a start.
    pub head: SnapshotHead,
    /// How it went.
    pub result: Result<(), SnapshotError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Chunks,
    SyncChunks,
    Head,
    SyncHead,
    SyncDirectory,
    Remove,
}

/// A write of a snapshot's that completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    offset: u64,
    attempts: u32,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    head: SnapshotHead,
    step: Step,
    filling: Option<Buffer>,
    filled: usize,
    /// Complete, not submitted; each with its place in the file.
    queue: VecDeque<(u64, Buffer)>,
    in_flight: usize,
    sums: ChunkSums,
    /// Its owner gave everything.
    is_whole: bool,
    failed: Option<SnapshotError>,
}

impl Writing {
    fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    fn seal_chunk(&mut self, align: usize) {
        let Some(mut buffer) = self.filling.take() else { return };
        let (bytes, place) = (self.filled, self.head.chunks);
        let (checksum, length) = encode_chunk(&mut buffer, bytes, align, &self.head, place);
        buffer.set_window(length);
        self.sums.add(checksum);
        self.queue.push_back((self.head.length, buffer));
        self.head.chunks += 1;
        self.head.bytes += bytes as u64;
        self.head.length += length as u64;
        self.filled = 0;
    }
}

impl Log {
    /// Begins a snapshot of a group as it is after the entry `last`, and returns the file's number.
    /// Whether it was written is told by [`Log::take_snapshot_written`].
    ///
    /// # Panics
    /// If `last` is no entry.
    pub fn begin_snapshot(&mut self, group: GroupId, last: LogId) -> u64 {
        assert!(last.index > Index::ZERO, "a group without entries has no snapshot");
        let number = self.snapshots.next_number;
        self.snapshots.next_number += 1;
        let head = SnapshotHead {
            identity: self.identity,
            number,
            group,
            last,
            chunks: 0,
            length: first_offset(self.align),
            bytes: 0,
            sum: 0,
            align: self.align as u32,
        };
        self.snapshots.writing.insert(
            number,
            Writing {
                head,
                step: Step::Create,
                filling: None,
                filled: 0,
                queue: VecDeque::new(),
                in_flight: 0,
                sums: ChunkSums::default(),
                is_whole: false,
                failed: None,
            },
        );
        self.snapshots.fresh.push(number);
        number
    }

    /// Whether a snapshot takes more bytes now: not while chunks of it wait for the disk, nor when
    /// it failed.
    pub fn snapshot_has_room(&self, number: u64) -> bool {
        let writing = self.snapshots.writing.get(&number);
        writing.is_some_and(|it| it.failed.is_none() && it.waiting() < CHUNKS_MAX)
    }

    /// Bytes that were added to a snapshot that is being written; zero if none is.
    pub fn snapshot_bytes(&self, number: u64) -> u64 {
        let writing = self.snapshots.writing.get(&number);
        writing.map_or(0, |writing| writing.head.bytes + writing.filled as u64)
    }

    /// Adds the next bytes of a snapshot. Bytes of one that failed are let go.
    ///
    /// # Panics
    /// If it was ended, or was never begun.
    pub fn add_to_snapshot(&mut self, number: u64, mut bytes: &[u8]) {
        let align = self.align;
        let Some(writing) = self.snapshots.writing.get_mut(&number) else {
            panic!("snapshot {number} isn't being written");
        };
        assert!(!writing.is_whole, "nothing is added to a snapshot that was ended");
        if writing.failed.is_some() {
            return;
        }
        while !bytes.is_empty() {
            let buffer =
                writing.filling.get_or_insert_with(|| Buffer::zeroed(chunk_stride(align), align));
            let count = bytes.len().min(CHUNK_ROOM - writing.filled);
            let at = CHUNK_HEAD_BYTES + writing.filled;
            buffer[at..at + count].copy_from_slice(&bytes[..count]);
            writing.filled += count;
            bytes = &bytes[count..];
            if writing.filled == CHUNK_ROOM {
                writing.seal_chunk(align);
            }
        }
    }

    /// Nothing is added any more: what there is is made durable, and then visible.
    ///
    /// # Panics
    /// If it was never begun.
    pub fn end_snapshot(&mut self, number: u64) {
        let align = self.align;
        let writing = self.snapshots.writing.get_mut(&number);
        let writing = writing.expect("a snapshot that is being written");
        writing.seal_chunk(align);
        writing.is_whole = true;
    }

    /// Gives a snapshot up that isn't visible yet; its file is removed.
    pub fn drop_snapshot(&mut self, number: u64) {
        if let Some(writing) = self.snapshots.writing.get_mut(&number)
            && !matches!(writing.step, Step::SyncHead | Step::SyncDirectory)
        {
            writing.failed.get_or_insert(SnapshotError::GivenUp);
            writing.queue.clear();
            writing.filling = None;
        }
    }

    /// What became of a snapshot, if one came to its end.
    pub fn take_snapshot_written(&mut self) -> Option<SnapshotWritten> {
        self.snapshots.written.pop_front()
    }

    /// Submits what can be submitted of the snapshots that are being written.
    pub(crate) fn write_snapshots<D: Device>(&mut self, device: &mut D) {
        for number in std::mem::take(&mut self.snapshots.fresh) {
            let file = self.snapshots.file(number);
            let purpose = Purpose::Snapshot(Written { number, offset: 0, attempts: 0 });
            self.operations.submit(device, purpose, Operation::Create(file));
        }
        for (&number, writing) in &mut self.snapshots.writing {
            let file = writing.head.file();
            let mut submit = |operation, offset| {
                let purpose = Purpose::Snapshot(Written { number, offset, attempts: 0 });
                self.operations.submit(device, purpose, operation);
            };
            if writing.step == Step::Chunks && writing.failed.is_none() {
                while let Some((offset, buffer)) = writing.queue.pop_front() {
                    let durability = Durability::None;
                    submit(Operation::Write { file, offset, buffer, durability }, offset);
                    writing.in_flight += 1;
                }
            }
            if writing.in_flight > 0 || writing.step != Step::Chunks {
                continue;
            }
            if writing.failed.is_some() {
                writing.step = Step::Remove;
                submit(Operation::Remove(file), 0);
            } else if writing.is_whole {
                writing.step = Step::SyncChunks;
                #[cfg(ringraft_plant)]
                if planted(Plant::SnapshotHeadEarly) {
                    submit(Operation::SyncDirectory, 0);
                    continue;
                }
                submit(Operation::Sync(file), 0);
            }
        }
    }

    pub(crate) fn snapshot_completed<D: Device>(
        &mut self,
        device: &mut D,
        what: Written,
        completion: Completion,
    ) {
        let Written { number, offset, attempts } = what;
        let file = self.snapshots.file(number);
        let align = self.align;
        let writing = self.snapshots.writing.get_mut(&number).expect("a write has its snapshot");
        let result = completion.result;
        let mut submit = |operation, attempts| {
            let purpose = Purpose::Snapshot(Written { number, offset, attempts });
            self.operations.submit(device, purpose, operation);
        };
        if let Some(mut buffer) = completion.buffer
            && (result < buffer.len() as i32)
        {
            // Short, or asked to be repeated: what is left goes again.
            let is_repeated = result >= 0 || matches!(-result, libc::EAGAIN | libc::EINTR);
            let whole = result.max(0) as usize & !(align - 1);
            let attempts = if whole > 0 { 0 } else { attempts + 1 };
            if is_repeated && attempts <= ATTEMPTS_MAX && writing.failed.is_none() {
                buffer.advance(whole);
                let offset = offset + buffer.start() as u64;
                let durability = Durability::None;
                submit(Operation::Write { file, offset, buffer, durability }, attempts);
                return;
            }
            writing.failed.get_or_insert(failure("writing", -result.min(0)));
        } else if result < 0 {
            let what = match writing.step {
                Step::Create => "creating",
                Step::Remove => "removing",
                _ => "syncing",
            };
            writing.failed.get_or_insert(failure(what, -result));
        }
        writing.in_flight -= usize::from(writing.step == Step::Chunks);
        let is_failed = writing.failed.is_some();
        match writing.step {
            Step::Create if is_failed && result < 0 => self.snapshot_ended(number),
            Step::Remove => self.snapshot_ended(number),
            // `write_snapshots` goes on with the chunks, or removes the file, once nothing of it
            // is in flight.
            Step::Create | Step::Chunks => writing.step = Step::Chunks,
            _ if is_failed => writing.step = Step::Chunks,
            Step::SyncChunks => {
                writing.head.sum = writing.sums.sum();
                let mut buffer = Buffer::zeroed(HEAD_BYTES.max(align), align);
                writing.head.encode(&mut buffer);
                writing.step = Step::Head;
                let (offset, durability) = (0, Durability::None);
                submit(Operation::Write { file, offset, buffer, durability }, 0);
            }
            Step::Head => {
                writing.step = Step::SyncHead;
                #[cfg(ringraft_plant)]
                if planted(Plant::SnapshotHeadEarly) {
                    submit(Operation::SyncDirectory, 0);
                    return;
                }
                submit(Operation::Sync(file), 0);
            }
            Step::SyncHead => {
                writing.step = Step::SyncDirectory;
                submit(Operation::SyncDirectory, 0);
            }
            Step::SyncDirectory => self.snapshot_ended(number),
        }
    }

    fn snapshot_ended(&mut self, number: u64) {
        let writing = self.snapshots.writing.remove(&number).expect("looked at just now");
        let result = writing.failed.map_or(Ok(()), Err);
        if result.is_ok() {
            self.snapshots.open.insert(number);
        }
        self.snapshots.written.push_back(SnapshotWritten { head: writing.head, result });
    }
}

fn failure(what: &'static str, errno: i32) -> SnapshotError {
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE => SnapshotError::Full,
        errno => SnapshotError::Io { what, errno },
    }
}
