//! Snapshots on their way to the disk: taken here, as streams of bytes that are cut into chunks, or
//! fetched, as chunks that come in any order.

use super::format::{CHUNK_ROOM, chunk_stride, content_sum, encode_chunk};
use super::{CHUNK_HEAD_BYTES, ChunkSums, HEAD_BYTES, Layout, SnapshotHead, first_offset};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Durability, Operation};
use crate::format::round_up;
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{GroupId, Index, LogId, STRANDS, StrandBytes};
use std::collections::{BTreeMap, VecDeque};

/// Chunks of one snapshot that wait or are in flight; its owner waits while there are so many. What
/// it adds at once may fill one more of each stretch.
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

/// The chunk of a stretch that isn't full.
#[derive(Debug, Default)]
struct Filling {
    buffer: Option<Buffer>,
    filled: usize,
    /// Its place in the stretch: those before it are complete.
    chunk: u32,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    head: SnapshotHead,
    step: Step,
    /// Of each strand, and of the rest.
    filling: [Filling; STRANDS + 1],
    /// What the chunks of the rest hold that are complete, bytes: up to the last of them.
    rest: u64,
    /// Complete, not submitted; each with its place in the file.
    queue: VecDeque<(u64, Buffer)>,
    in_flight: usize,
    /// The checksum of each chunk that is complete.
    sums: BTreeMap<u32, u32>,
    /// Its owner gave everything.
    is_whole: bool,
    failed: Option<SnapshotError>,
}

impl Writing {
    fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    /// The layout with so many bytes of the rest.
    fn layout(&self, rest: u64) -> Layout {
        let strands = self.head.strands;
        Layout::new(strands, strands.iter().sum::<u64>() + rest).expect("it was begun with one")
    }

    /// Adds bytes to a stretch, and queues the chunks of it that are full.
    fn add(&mut self, stretch: usize, mut bytes: &[u8], align: usize) {
        while !bytes.is_empty() {
            let of_strand = self.head.strands.get(stretch);
            let filling = &mut self.filling[stretch];
            let room = of_strand.map_or(CHUNK_ROOM, |&whole| {
                let before = u64::from(filling.chunk) * CHUNK_ROOM as u64;
                whole.saturating_sub(before).min(CHUNK_ROOM as u64) as usize
            });
            assert!(filling.filled < room, "strand {stretch} holds more than it was begun for");
            let count = bytes.len().min(room - filling.filled);
            let at = CHUNK_HEAD_BYTES + filling.filled;
            let buffer = room_for(&mut filling.buffer, at + count, align);
            buffer[at..at + count].copy_from_slice(&bytes[..count]);
            filling.filled += count;
            bytes = &bytes[count..];
            if filling.filled == room {
                self.seal_filling(stretch, align);
            }
        }
    }

    fn seal_filling(&mut self, stretch: usize, align: usize) {
        let filling = &mut self.filling[stretch];
        let Some(buffer) = filling.buffer.take() else { return };
        let (place, filled) = (filling.chunk, std::mem::take(&mut filling.filled));
        filling.chunk += 1;
        let layout = self.layout(0);
        let first = layout.stretches().nth(stretch).expect("there are as many").chunks.start;
        let content = content_sum(&buffer[CHUNK_HEAD_BYTES..CHUNK_HEAD_BYTES + filled]);
        self.seal(first + place, buffer, (filled, content), align);
    }

    /// Completes a chunk of so many bytes with this checksum, and queues it.
    fn seal(&mut self, chunk: u32, mut buffer: Buffer, content: (usize, u32), align: usize) {
        let (checksum, length) = encode_chunk(&mut buffer, content, align, &self.head, chunk);
        let (bytes, _) = content;
        buffer.set_window(length);
        let strand_chunks = self.layout(0).strand_chunks();
        if let Some(place) = chunk.checked_sub(strand_chunks) {
            let end = u64::from(place) * CHUNK_ROOM as u64 + bytes as u64;
            self.rest = self.rest.max(end);
        }
        let layout = self.layout(self.rest);
        self.queue.push_back((layout.offset(chunk, align), buffer));
        if self.sums.insert(chunk, checksum).is_none() {
            self.head.chunks += 1;
            self.head.bytes += bytes as u64;
            self.head.length += length as u64;
        }
    }

    /// Whether a chunk was complete before: what comes in its place must not meet it on its way.
    fn has(&self, chunk: u32) -> bool {
        self.sums.contains_key(&chunk)
    }

    /// Everything is there: the head says so.
    fn complete(&mut self, align: usize) {
        let layout = self.layout(self.rest);
        let is_whole = self.sums.len() == layout.chunks() as usize;
        assert!(is_whole, "a snapshot is ended whose strands lack something");
        let all = self.head.strands.iter().sum::<u64>() + self.rest;
        (self.head.chunks, self.head.bytes) = (layout.chunks(), all);
        self.head.length = layout.length(align);
        self.is_whole = true;
    }
}

impl Log {
    /// Begins a snapshot of a group as it is after the entry `last`, and returns the file's number.
    /// Each strand will hold as many bytes as it says here. Whether it was written is told by
    /// [`Log::take_snapshot_written`].
    ///
    /// # Panics
    /// If `last` is no entry, or the strands are longer than any snapshot.
    pub fn begin_snapshot(&mut self, group: GroupId, last: LogId, strands: StrandBytes) -> u64 {
        let all = strands.iter().fold(0u64, |all, &strand| all.saturating_add(strand));
        assert!(Layout::new(strands, all).is_some(), "strands of {all} bytes");
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
            strands,
            sum: 0,
            align: self.align as u32,
        };
        self.snapshots.writing.insert(
            number,
            Writing {
                head,
                step: Step::Create,
                filling: std::array::from_fn(|_| Filling::default()),
                rest: 0,
                queue: VecDeque::new(),
                in_flight: 0,
                sums: BTreeMap::new(),
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
        writing.map_or(0, |writing| {
            let filled = writing.filling.iter().map(|filling| filling.filled as u64);
            writing.head.bytes + filled.sum::<u64>()
        })
    }

    /// Adds the next bytes of the rest of a snapshot, which is all of it if there are no strands.
    /// Bytes of one that failed are let go.
    ///
    /// # Panics
    /// If it was ended, or was never begun.
    pub fn add_to_snapshot(&mut self, number: u64, bytes: &[u8]) {
        let align = self.align;
        if let Some(writing) = self.open_snapshot(number) {
            writing.add(STRANDS, bytes, align);
        }
    }

    /// Adds the next bytes of a strand of a snapshot. Bytes of one that failed are let go.
    ///
    /// # Panics
    /// If it was ended, or was never begun; if the strand holds more then than it was begun for.
    pub fn add_to_strand(&mut self, number: u64, strand: usize, bytes: &[u8]) {
        let align = self.align;
        assert!(strand < STRANDS, "there is no strand {strand}");
        if let Some(writing) = self.open_snapshot(number) {
            writing.add(strand, bytes, align);
        }
    }

    /// Whether a snapshot takes this chunk now: one that takes another's place waits until that is
    /// written.
    pub fn snapshot_takes(&self, number: u64, chunk: u32) -> bool {
        let is_free = |writing: &Writing| !writing.has(chunk) || writing.waiting() == 0;
        self.snapshot_has_room(number) && self.snapshots.writing.get(&number).is_some_and(is_free)
    }

    /// Puts a chunk into a snapshot, as another node has it, with the checksum of its bytes that was
    /// found there: if they aren't those any more, the chunk can't be read. It takes the place of one
    /// that was put there before. How long it must be says the layout. Chunks of a snapshot that
    /// failed are let go.
    ///
    /// # Panics
    /// If the snapshot was ended, or was never begun; if it doesn't take the chunk now.
    pub fn put_chunk(&mut self, number: u64, chunk: u32, bytes: &[u8], content: u32) {
        assert!(bytes.len() <= CHUNK_ROOM, "a chunk of {} bytes", bytes.len());
        let align = self.align;
        let Some(writing) = self.open_snapshot(number) else { return };
        let is_free = !writing.has(chunk) || writing.waiting() == 0;
        assert!(is_free, "chunk {chunk} is on its way to the disk");
        let mut buffer = Buffer::zeroed(round_up(CHUNK_HEAD_BYTES + bytes.len(), align), align);
        buffer[CHUNK_HEAD_BYTES..CHUNK_HEAD_BYTES + bytes.len()].copy_from_slice(bytes);
        writing.seal(chunk, buffer, (bytes.len(), content), align);
    }

    fn open_snapshot(&mut self, number: u64) -> Option<&mut Writing> {
        let Some(writing) = self.snapshots.writing.get_mut(&number) else {
            panic!("snapshot {number} isn't being written");
        };
        assert!(!writing.is_whole, "nothing is added to a snapshot that was ended");
        Some(writing).filter(|writing| writing.failed.is_none())
    }

    /// Nothing is added any more: what there is is made durable, and then visible.
    ///
    /// # Panics
    /// If it was never begun, or a strand holds less than it was begun for.
    pub fn end_snapshot(&mut self, number: u64) {
        let align = self.align;
        let Some(writing) = self.open_snapshot(number) else { return };
        writing.seal_filling(STRANDS, align);
        writing.complete(align);
    }

    /// Gives a snapshot up that isn't visible yet; its file is removed.
    pub fn drop_snapshot(&mut self, number: u64) {
        if let Some(writing) = self.snapshots.writing.get_mut(&number)
            && !matches!(writing.step, Step::SyncHead | Step::SyncDirectory)
        {
            writing.failed.get_or_insert(SnapshotError::GivenUp);
            writing.queue.clear();
            writing.filling = std::array::from_fn(|_| Filling::default());
        }
    }

    /// What became of a snapshot, if one came to its end.
    pub fn take_snapshot_written(&mut self) -> Option<SnapshotWritten> {
        self.snapshots.written.pop_front()
    }

    /// Whether a snapshot came to its end.
    pub fn has_snapshots_written(&self) -> bool {
        !self.snapshots.written.is_empty()
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
                let mut sums = ChunkSums::default();
                writing.sums.values().for_each(|&checksum| sums.add(checksum));
                writing.head.sum = sums.sum();
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

/// The buffer of a chunk, with room for so many bytes at least: as long as it needs to be, and twice
/// as long each time, so that a chunk of many small pieces is copied a few times and a small snapshot
/// needs no memory for a whole chunk, which costs more to clear than to fill.
fn room_for(buffer: &mut Option<Buffer>, bytes: usize, align: usize) -> &mut Buffer {
    let has = buffer.as_ref().map_or(0, Buffer::capacity);
    if has < bytes {
        let length = round_up(bytes.max(2 * has), align).min(chunk_stride(align));
        let mut longer = Buffer::zeroed(length, align);
        if let Some(shorter) = buffer {
            longer[..has].copy_from_slice(shorter);
        }
        *buffer = Some(longer);
    }
    buffer.as_mut().expect("it was made just now, or before")
}

fn failure(what: &'static str, errno: i32) -> SnapshotError {
    match errno {
        libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE => SnapshotError::Full,
        errno => SnapshotError::Io { what, errno },
    }
}
