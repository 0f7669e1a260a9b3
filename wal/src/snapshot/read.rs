//! Reading snapshots back, chunk by chunk: to load one, or to send it. A chunk is verified before a
//! byte of it leaves (V13).

use super::{CHUNK_HEAD_BYTES, HEAD_BYTES, SnapshotHead, decode_chunk};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation, ReadFrom};
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
use std::collections::VecDeque;

/// Chunks in flight at once, of all snapshots of the log.
const IN_FLIGHT_MAX: usize = 4;

/// Stands for the head of a snapshot, where a chunk is asked for.
const HEAD: u32 = u32::MAX;

/// Why a chunk could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of snapshot {number} can't be read (errno {errno})", name(*chunk))]
pub struct ChunkError {
    /// The file's number.
    pub number: u64,
    /// The chunk; the largest number: the head.
    pub chunk: u32,
    /// As the kernel says; zero: the read went well, the bytes are wrong.
    pub errno: i32,
}

fn name(chunk: u32) -> String {
    if chunk == HEAD { "the head".to_owned() } else { format!("chunk {chunk}") }
}

/// A chunk that was asked for.
#[derive(Debug)]
pub struct ChunkDone {
    /// As asked.
    pub ticket: u64,
    /// What was read; of a head nothing.
    pub result: Result<Chunk, ChunkError>,
}

/// A chunk as it lies in its file.
#[derive(Debug)]
pub struct Chunk {
    /// Its bytes, verified.
    pub bytes: Buffer,
    /// Its checksum, which covers its place too.
    pub checksum: u32,
    /// The checksum of its bytes alone, which goes with them to another node.
    pub content: u32,
}

/// The checksums of a snapshot's chunks, in their order: whether they are those of one snapshot.
#[derive(Clone, Debug, Default)]
pub struct ChunkSums(crc32fast::Hasher);

impl ChunkSums {
    /// Adds the next chunk's.
    pub fn add(&mut self, checksum: u32) {
        self.0.update(&checksum.to_le_bytes());
    }

    /// What the head of a snapshot of these chunks says.
    pub fn sum(&self) -> u32 {
        self.0.clone().finalize()
    }
}

#[derive(Clone, Copy, Debug)]
struct Job {
    ticket: u64,
    head: SnapshotHead,
    chunk: u32,
    is_in_flight: bool,
    is_second_try: bool,
    /// Attempts in a row that the system asked to repeat, or cut short.
    attempts: u32,
}

/// A read that completed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChunkRead {
    /// The file was opened for this job.
    Open(u64),
    /// The chunk of this job.
    Chunk(u64),
}

/// Chunks asked for and not yet answered, and answers not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    jobs: Vec<Job>,
    done: VecDeque<ChunkDone>,
}

impl Log {
    /// Asks for a chunk of a snapshot; the answer comes by [`Log::take_chunk`] after some turns.
    /// How many may be asked for at once is the caller's to bound.
    ///
    /// # Panics
    /// If the ticket is in use, or the snapshot has no such chunk.
    pub fn read_chunk(&mut self, ticket: u64, head: &SnapshotHead, chunk: u32) {
        assert!(chunk < head.chunks, "snapshot {} has {} chunks", head.number, head.chunks);
        self.read_part(ticket, head, chunk);
    }

    /// Asks whether the head of a snapshot is on the disk as it is known here; the answer comes as
    /// that for a chunk does.
    ///
    /// # Panics
    /// If the ticket is in use.
    pub fn read_head(&mut self, ticket: u64, head: &SnapshotHead) {
        self.read_part(ticket, head, HEAD);
    }

    fn read_part(&mut self, ticket: u64, head: &SnapshotHead, chunk: u32) {
        let jobs = &mut self.snapshots.reads.jobs;
        assert!(jobs.iter().all(|job| job.ticket != ticket), "a ticket is used once at a time");
        jobs.push(Job {
            ticket,
            head: *head,
            chunk,
            is_in_flight: false,
            is_second_try: false,
            attempts: 0,
        });
    }

    /// A chunk that was asked for, if one is there.
    pub fn take_chunk(&mut self) -> Option<ChunkDone> {
        self.snapshots.reads.done.pop_front()
    }

    /// Whether a chunk that was asked for is there.
    pub fn has_chunks(&self) -> bool {
        !self.snapshots.reads.done.is_empty()
    }

    /// Nothing more is read of a snapshot for now: its file is closed.
    pub fn close_snapshot<D: Device>(&mut self, device: &mut D, number: u64) {
        if self.snapshots.open.remove(&number) {
            let file = self.snapshots.file(number);
            self.snapshots.closing.insert(number);
            self.operations.submit(device, Purpose::Close(number), Operation::Close(file));
        }
    }

    /// A file that can't be closed costs a descriptor, nothing else.
    pub(crate) fn snapshot_closed(&mut self, number: u64) {
        self.snapshots.closing.remove(&number);
    }

    /// Removes a snapshot that nothing needs any more.
    pub fn remove_snapshot<D: Device>(&mut self, device: &mut D, number: u64) {
        self.snapshots.open.remove(&number);
        let file = self.snapshots.file(number);
        self.snapshots.removing += 1;
        self.operations.submit(device, Purpose::RemoveSnapshot, Operation::Remove(file));
    }

    /// Makes durable, as soon as can be, that the files are gone whose removal was asked for: what
    /// they hold must not come back with a power cut. Until then it may.
    pub fn sync_removals<D: Device>(&mut self, device: &mut D) {
        self.snapshots.syncs_removals = true;
        self.sync_if_removed(device);
    }

    pub(crate) fn snapshot_removed<D: Device>(&mut self, device: &mut D) {
        self.snapshots.removing -= 1;
        self.sync_if_removed(device);
    }

    fn sync_if_removed<D: Device>(&mut self, device: &mut D) {
        if self.snapshots.removing == 0 && std::mem::take(&mut self.snapshots.syncs_removals) {
            self.operations.submit(device, Purpose::SyncRemovals, Operation::SyncDirectory);
        }
    }

    pub(crate) fn step_chunks<D: Device>(&mut self, device: &mut D) {
        let snapshots = &mut self.snapshots;
        let mut flying = snapshots.reads.jobs.iter().filter(|job| job.is_in_flight).count();
        for job in &mut snapshots.reads.jobs {
            let is_closing = snapshots.closing.contains(&job.head.number);
            if job.is_in_flight || is_closing || flying == IN_FLIGHT_MAX {
                continue;
            }
            let (ticket, number) = (job.ticket, job.head.number);
            let file = job.head.file();
            job.is_in_flight = true;
            flying += 1;
            if snapshots.open.contains(&number) {
                let (offset, length) = place(&job.head, job.chunk);
                let length = crate::format::round_up(length, self.align);
                let buffer = Buffer::zeroed(length, self.align);
                let purpose = Purpose::Chunk(ChunkRead::Chunk(ticket));
                let read = Operation::Read { file, offset, buffer, from: ReadFrom::Disk };
                self.operations.submit(device, purpose, read);
            } else {
                let purpose = Purpose::Chunk(ChunkRead::Open(ticket));
                self.operations.submit(device, purpose, Operation::Open(file));
            }
        }
    }

    pub(crate) fn chunk_completed(&mut self, what: ChunkRead, completion: Completion) {
        let (ChunkRead::Open(ticket) | ChunkRead::Chunk(ticket)) = what;
        let snapshots = &mut self.snapshots;
        let at = snapshots.reads.jobs.iter().position(|job| job.ticket == ticket);
        let at = at.expect("a chunk is asked for until it is answered");
        let job = &mut snapshots.reads.jobs[at];
        job.is_in_flight = false;
        let Job { head, chunk, .. } = *job;
        let errno = -completion.result.min(0);
        if let ChunkRead::Open(_) = what
            && errno == 0
        {
            snapshots.open.insert(head.number);
            return;
        }
        let (_, length) = place(&head, chunk);
        let is_cut = errno == 0 && (completion.result as usize) < length;
        if (is_cut || matches!(errno, libc::EAGAIN | libc::EINTR)) && job.attempts < ATTEMPTS_MAX {
            // Says nothing of what lies on the disk (S19).
            job.attempts += 1;
            return;
        }
        let found = completion.buffer.filter(|_| errno == 0 && !is_cut);
        let found = found.and_then(|mut buffer| {
            if chunk == HEAD {
                let found = SnapshotHead::decode(&buffer, head.file(), head.length);
                buffer.set_window(0);
                return (found == Ok(head)).then_some(Chunk {
                    bytes: buffer,
                    checksum: 0,
                    content: 0,
                });
            }
            let (checksum, content) = decode_chunk(&buffer, &head, chunk)?;
            buffer.set_window(CHUNK_HEAD_BYTES + head.chunk_room(chunk));
            buffer.advance(CHUNK_HEAD_BYTES);
            Some(Chunk { bytes: buffer, checksum, content })
        });
        let is_open_failed = matches!(what, ChunkRead::Open(_));
        if found.is_none() && !is_open_failed && !std::mem::replace(&mut job.is_second_try, true) {
            // A misdirected or stale read is cured by the next one; rot isn't.
            return;
        }
        let result = found.ok_or(ChunkError { number: head.number, chunk, errno });
        snapshots.reads.jobs.remove(at);
        snapshots.reads.done.push_back(ChunkDone { ticket, result });
    }
}

/// Where a part of a snapshot lies in its file, and how long it is there.
fn place(head: &SnapshotHead, chunk: u32) -> (u64, usize) {
    if chunk == HEAD { (0, HEAD_BYTES) } else { head.place(chunk) }
}
