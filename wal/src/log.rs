//! The log: appends in, durable sequences out.
//!
//! ```text
//!  append -> filling block -> queue of sealed blocks -> in flight -> durable (contiguous prefix)
//! ```
//! While a block is in flight the next one fills: that is group commit. A log does nothing by
//! itself; [`Log::turn`] does it all, and never waits.

mod carry;
mod make;
mod purge;
mod write;

use crate::buffer::BufferPool;
use crate::device::{Device, FileId};
use crate::error::{AppendError, WalFatal};
use crate::format::{
    BLOCK_HEADER_BYTES, BLOCK_ITEMS_MAX, Directory, DirectoryItem, ITEM_BYTES, Identity,
};
use crate::index::GroupIndex;
use crate::operations::Operations;
use crate::pack::{Filling, Sealed};
use crate::reader::{READS_IN_FLIGHT_MAX, Reads};
pub use crate::reader::{ReadDone, ReadRequest};
use crate::scrub::Scrub;
use crate::segment::{Segment, Segments};
use crate::settings::LogSettings;
use crate::snapshot::{ChunkRead, Snapshots, Written};
use crate::stats::LogStats;
use crate::sweep::{Remembered, Sweep};
pub(crate) use purge::Locals;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, Sequence, Term, Ticks};
use std::collections::{BTreeSet, VecDeque};
use write::Flight;

/// Attempts of one write that may end without progress before the log stops.
pub const ATTEMPTS_MAX: u32 = 16;

/// When a log wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once: there is more to do.
    Now,
    /// At this time, or when the device or the caller has something, whichever is first.
    At(Ticks),
    /// When the device or the caller has something.
    OnEvent,
}

/// What of the device a log waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// A block's write or sync.
    Block(Sequence),
    /// A new segment for the next block; the number of the next operation tells steps apart.
    Segment(u64),
}

/// What an operation in flight is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The write of a block.
    Block(Sequence),
    /// The sync that covers a block written in parts.
    BlockSync(Sequence),
    /// The making of a segment.
    Make,
    /// A read of a block with old entries.
    Read(Sequence),
    /// A read of a block in its turn, with entries of any group.
    Sweep(Sequence),
    /// What the kernel remembers of a segment is dropped.
    Forget,
    /// A read of a block that nobody waits for.
    Scrub,
    /// The removal of a file that nothing needs any more.
    Remove,
    /// The writing of a snapshot.
    Snapshot(Written),
    /// A read of a snapshot.
    Chunk(ChunkRead),
    /// The removal of a snapshot.
    RemoveSnapshot,
    SyncRemovals,
    /// The closing of a snapshot's file.
    Close(u64),
}

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) settings: LogSettings,
    pub(crate) align: usize,
    /// The last block kept; all zero in a fresh log.
    pub(crate) last: Link,
    /// Its directory.
    pub(crate) repeat: Vec<DirectoryItem>,
    /// Of the first block of this life.
    pub(crate) next_sequence: Sequence,
    pub(crate) oldest: Sequence,
    pub(crate) used: VecDeque<Segment>,
    pub(crate) spares: VecDeque<u64>,
    pub(crate) next_number: u64,
    pub(crate) index: GroupIndex,
    pub(crate) locals: Locals,
    /// Files without anything of use, to be removed once this life has begun.
    pub(crate) leftovers: Vec<FileId>,
    /// Records of the node were lost: no old one may be written again, and pass for the newest.
    pub(crate) keeps_all: bool,
    /// Groups that lost something: see [`Log::repaired`].
    pub(crate) owing: BTreeSet<GroupId>,
    pub(crate) next_operation: u64,
    /// Of the next snapshot.
    pub(crate) next_snapshot: u64,
}

/// The end of the chain of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) sequence: Sequence,
    pub(crate) previous: Sequence,
    pub(crate) checksum: u32,
}

/// One shard's log.
#[derive(Debug)]
pub struct Log {
    pub(crate) settings: LogSettings,
    pub(crate) identity: Identity,
    pub(crate) align: usize,
    pub(crate) items_max: usize,
    pub(crate) pool: BufferPool,
    pub(crate) directories: Vec<Directory>,

    pub(crate) filling: Option<Filling>,
    pub(crate) queue: VecDeque<Sealed>,
    pub(crate) queue_bytes: usize,
    /// In the order of their sequences.
    pub(crate) flights: VecDeque<Flight>,

    pub(crate) operations: Operations<Purpose>,
    pub(crate) segments: Segments,
    pub(crate) index: GroupIndex,
    pub(crate) reads: Reads,
    pub(crate) scrub: Scrub,
    /// The sweep that is under way.
    pub(crate) sweep: Option<Sweep>,
    /// The segments that the kernel may remember for it.
    pub(crate) remembered: Remembered,
    pub(crate) locals: Locals,
    pub(crate) leftovers: Vec<FileId>,
    pub(crate) snapshots: Snapshots,

    /// The block that was submitted last.
    pub(crate) last: Link,
    /// The directory of the block that was sealed last.
    pub(crate) repeat: Vec<DirectoryItem>,
    /// Of the block to be begun next.
    pub(crate) next_sequence: Sequence,
    pub(crate) durable: Sequence,
    pub(crate) submitted: Sequence,
    pub(crate) oldest: Sequence,
    /// This block is the oldest that is needed, once the second one is durable: what was moved out
    /// of those before it is durable then.
    pub(crate) oldest_next: Option<(Sequence, Sequence)>,
    /// Removals wait until this block is durable: it says that they may.
    pub(crate) purge_after: Option<Sequence>,
    pub(crate) purge_asked: bool,
    /// No segment in use is removed.
    pub(crate) keeps_all: bool,
    /// Nor is one while a group is among these: a start found that it lost something, and the next
    /// one must find that too, by what isn't there and by what was written behind it.
    pub(crate) owing: BTreeSet<GroupId>,

    pub(crate) life_begun: bool,
    pub(crate) needs_seal: bool,
    pub(crate) idle_since: Ticks,
    /// Bytes in the block that was sealed last, padding not counted.
    pub(crate) sealed_bytes: usize,
    pub(crate) stats: LogStats,
    pub(crate) failed: Option<WalFatal>,
}

impl Log {
    pub(crate) fn start(start: Start) -> Self {
        let Start { settings, align, .. } = start;
        let items_max = BLOCK_ITEMS_MAX.min(settings.block_bytes_max / (8 * ITEM_BYTES));
        // Those that are written or filled, and those that are read.
        let kept = settings.inflight_max + 2 + READS_IN_FLIGHT_MAX;
        assert!(start.repeat.len() <= BLOCK_ITEMS_MAX);
        assert!(start.next_sequence > start.last.sequence, "sequences only grow");
        // The directory repeated first may be of a life with larger blocks.
        let fits =
            BLOCK_HEADER_BYTES + (start.repeat.len() + 1) * ITEM_BYTES <= settings.block_bytes_max;
        // Recovery read them just now.
        let remembered = Remembered::of(start.used.iter().map(|segment| segment.number));
        Self {
            identity: settings.identity(),
            align,
            items_max,
            pool: BufferPool::new(settings.block_bytes_max, align, kept),
            directories: Vec::new(),
            filling: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            flights: VecDeque::new(),
            operations: Operations::new(start.next_operation),
            segments: Segments {
                log_id: settings.log_id,
                used: start.used,
                write_offset: None,
                spares: start.spares,
                making: None,
                next_number: start.next_number,
                exhausted: false,
                retry_at: Ticks::ZERO,
            },
            index: start.index,
            reads: Reads::default(),
            scrub: Scrub::default(),
            sweep: None,
            remembered,
            locals: start.locals,
            leftovers: start.leftovers,
            snapshots: Snapshots::new(settings.log_id, start.next_snapshot),
            last: start.last,
            repeat: if fits { start.repeat } else { Vec::new() },
            next_sequence: start.next_sequence,
            durable: start.last.sequence,
            submitted: start.last.sequence,
            oldest: start.oldest,
            oldest_next: None,
            purge_after: None,
            purge_asked: false,
            keeps_all: start.keeps_all,
            owing: start.owing,
            life_begun: false,
            needs_seal: false,
            idle_since: Ticks::ZERO,
            sealed_bytes: 0,
            stats: LogStats::new(),
            failed: None,
            settings,
        }
    }

    /// Appends one encoded record, verified by the caller, and returns the sequence of the block
    /// that will carry it: when [`Log::durable`] reaches it, the record is durable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    ///
    /// # Panics
    /// If the bytes aren't exactly one record.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Sequence, AppendError> {
        let header = record::peek(bytes).expect("the caller appends a verified record");
        assert_eq!(record::encoded_bytes(header.length as usize), bytes.len(), "one whole record");
        self.admit(bytes.len(), bytes.len())?;
        let is_carried = header.kind == RecordKind::Carried;
        let filling = self.filling_with_room(header.group, is_carried, bytes.len());
        filling.push(&header, bytes);
        let sequence = filling.sequence;
        if header.kind.is_entry() {
            self.index.append(header.group, header.index, header.index, sequence);
        } else if header.kind == RecordKind::Truncate {
            self.index.truncate(header.group, header.index);
        } else if is_carried {
            let inner = &bytes[bytes.len() - header.length as usize..];
            let inner = record::peek(inner).expect("the caller carries a verified record");
            if inner.kind.is_entry() {
                self.index.carry(inner.group, inner.index, sequence);
            }
        } else if let Some(gone) = self.locals.note(&header, bytes, sequence) {
            self.forget(gone);
        }
        Ok(sequence)
    }

    /// Appends the entries `first` to `last` of one group: `records` holds them encoded, one after
    /// the other, verified by the caller; `last_term` is the term of the last one. Returns the
    /// sequence of the last block that will carry some of them.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    ///
    /// # Panics
    /// If the first record isn't the entry `first` of the group.
    pub fn append_run(
        &mut self,
        group: GroupId,
        first: Index,
        last: Index,
        last_term: Term,
        records: &[u8],
    ) -> Result<Sequence, AppendError> {
        let header = record::peek(records).expect("the caller appends verified records");
        assert!(header.kind.is_entry(), "a run holds entries");
        assert_eq!((header.group, header.index), (group, first), "a run starts with `first`");
        assert!(first <= last, "a run holds at least one entry");
        let largest = if records.len() <= self.record_bytes_max() {
            0
        } else {
            lengths(records).max().unwrap_or(0)
        };
        self.admit(records.len(), largest)?;
        let (mut rest, mut next) = (records, first);
        loop {
            let room = match &self.filling {
                Some(filling) => filling.room(group, false, self.items_max),
                None => 0,
            };
            if rest.len() <= room {
                let filling = self.filling_with_room(group, false, rest.len());
                filling.push_run(group, next, last, last_term, rest);
                let sequence = filling.sequence;
                self.index.append(group, next, last, sequence);
                return Ok(sequence);
            }
            // As many whole records as fit, but at least one: a new block has room for it.
            let (mut bytes, mut count, mut newest) = (0, 0u64, 0);
            for length in lengths(rest) {
                if bytes + length > room {
                    break;
                }
                newest = bytes;
                bytes += length;
                count += 1;
            }
            if count == 0 {
                let length = lengths(rest).next().expect("there is a rest");
                if self.filling.is_some() {
                    self.seal();
                }
                self.filling_with_room(group, false, length);
                continue;
            }
            let end = Index(next.0 + count - 1);
            assert!(end < last, "a part of a run is shorter than the run");
            let term = record::peek(&rest[newest..]).expect("verified by the caller").term;
            let filling = self.filling_with_room(group, false, bytes);
            filling.push_run(group, next, end, term, &rest[..bytes]);
            let sequence = filling.sequence;
            self.index.append(group, next, end, sequence);
            next = end.next();
            rest = &rest[bytes..];
        }
    }

    /// The largest record that fits a block of these settings, bytes.
    pub fn record_bytes_max(&self) -> usize {
        let directories = (self.items_max.max(self.repeat.len()) + 1) * ITEM_BYTES;
        self.settings.block_bytes_max - BLOCK_HEADER_BYTES - directories
    }

    fn admit(&self, bytes: usize, largest_record: usize) -> Result<(), AppendError> {
        if self.failed.is_some() {
            return Err(AppendError::Stopped);
        }
        if largest_record > self.record_bytes_max() {
            let limit = self.record_bytes_max();
            return Err(AppendError::TooLong { bytes: largest_record, limit });
        }
        let (waiting, limit) = (self.unsubmitted_bytes(), self.settings.unsubmitted_bytes_max);
        if waiting > 0 && waiting + bytes > limit {
            return Err(AppendError::Full { waiting, limit });
        }
        Ok(())
    }

    /// The filling block, or a new one if it has no room for these bytes.
    fn filling_with_room(
        &mut self,
        group: GroupId,
        is_carried: bool,
        bytes: usize,
    ) -> &mut Filling {
        let items_max = self.items_max;
        if self.filling.as_ref().is_some_and(|f| f.room(group, is_carried, items_max) < bytes) {
            self.seal();
        }
        if self.filling.is_none() {
            self.begin_block();
        }
        self.filling.as_mut().expect("begun if there was none")
    }

    fn begin_block(&mut self) {
        assert!(self.filling.is_none(), "one block is filled at a time");
        let directory = self.directories.pop().unwrap_or_default();
        let buffer = self.pool.take();
        self.filling = Some(Filling::new(buffer, self.next_sequence, &self.repeat, directory));
        self.next_sequence = self.next_sequence.next();
    }

    /// Ends the filling block and queues it.
    fn seal(&mut self) {
        let filling = self.filling.take().expect("there is a block to seal");
        self.sealed_bytes = filling.bytes();
        let sealed = filling.seal(self.align);
        self.repeat.clear();
        self.repeat.extend_from_slice(&sealed.directory.items);
        self.queue_bytes += sealed.buffer.len();
        self.queue.push_back(sealed);
    }

    /// One turn: takes what the device completed, writes what can be written, makes segments,
    /// reads. Never waits.
    ///
    /// # Errors
    /// [`WalFatal`]: the process must stop. Every later turn returns the same.
    pub fn turn<D: Device>(&mut self, now: Ticks, device: &mut D) -> Result<Wake, WalFatal> {
        if let Some(fatal) = &self.failed {
            return Err(fatal.clone());
        }
        let outcome = self.advance(now, device);
        if let Err(fatal) = &outcome {
            self.failed = Some(fatal.clone());
        }
        outcome
    }

    fn advance<D: Device>(&mut self, now: Ticks, device: &mut D) -> Result<Wake, WalFatal> {
        // A device that completes within `submit` would keep this loop busy: bounded.
        for round in 0..64 {
            let completed = self.operations.poll(device);
            if completed.is_empty() && round > 0 {
                return Ok(self.next_wake(now));
            }
            for (purpose, completion) in completed {
                match purpose {
                    Purpose::Block(sequence) => {
                        self.block_written(now, device, sequence, completion)?;
                    }
                    Purpose::BlockSync(sequence) => {
                        self.block_synced(now, sequence, &completion)?;
                    }
                    Purpose::Make => self.make_completed(now, device, completion)?,
                    Purpose::Read(sequence) => self.read_completed(sequence, completion),
                    Purpose::Sweep(sequence) => self.sweep_completed(sequence, completion),
                    Purpose::Scrub => self.scrub_completed(completion),
                    // What isn't dropped costs memory for a while, nothing else.
                    Purpose::Forget => {}
                    Purpose::Remove => self.stats.segments_removed += 1,
                    Purpose::Snapshot(what) => self.snapshot_completed(device, what, completion),
                    Purpose::Chunk(what) => self.chunk_completed(what, completion),
                    Purpose::Close(number) => self.snapshot_closed(number),
                    // A file that can't be removed costs room, nothing else.
                    Purpose::RemoveSnapshot => self.snapshot_removed(device),
                    // Nothing relies on it.
                    Purpose::SyncRemovals => {}
                }
            }
            self.advance_durable();
            self.purge(device);
            self.make(now, device);
            self.write(now, device);
            self.step_reads(device);
            self.step_sweep(device);
            self.step_scrub(device);
            self.write_snapshots(device);
            self.step_chunks(device);
            // What was submitted just now may have completed already.
        }
        Ok(Wake::Now)
    }

    fn next_wake(&self, now: Ticks) -> Wake {
        let mut at = Ticks::NEVER;
        if self.flights.len() < self.settings.inflight_max
            && let Some(since) = self.filling.as_ref().and_then(|filling| filling.since)
        {
            let ready = since.after(self.settings.group_commit_wait).max(self.company_until());
            if ready > now {
                at = at.min(ready);
            }
        }
        if self.needs_seal && self.is_idle() {
            at = at.min(self.idle_since.after(self.settings.seal_after));
        }
        at = at.min(self.make_wake());
        match at {
            Ticks::NEVER => Wake::OnEvent,
            at if at <= now => Wake::Now,
            at => Wake::At(at),
        }
    }

    /// The newest durable sequence: this block and every one before it is on the disk.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// The newest sequence that was given to the device.
    pub fn submitted(&self) -> Sequence {
        self.submitted
    }

    /// Bytes that wait to be submitted.
    pub fn unsubmitted_bytes(&self) -> usize {
        let filling = self.filling.as_ref().filter(|filling| !filling.is_empty());
        self.queue_bytes + filling.map_or(0, Filling::bytes)
    }

    /// Bytes that aren't durable yet, submitted or not.
    pub fn pending_bytes(&self) -> usize {
        self.unsubmitted_bytes() + self.flights.iter().map(Flight::bytes).sum::<usize>()
    }

    /// Whether everything appended is durable.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.unsubmitted_bytes() == 0
    }

    /// Whether no operation is in flight and nothing waits: the device may be taken away.
    pub fn is_quiet(&self) -> bool {
        self.is_idle() && self.operations.is_empty()
    }

    /// The oldest of what isn't durable, and was given to the device or would be if it had made
    /// room; `None`: the device holds nothing up. As long as this stays the same, the device did
    /// nothing for it. A full disk isn't waited for.
    pub fn waits_for(&self) -> Option<WaitsFor> {
        if let Some(flight) = self.flights.front() {
            return Some(WaitsFor::Block(flight.sequence()));
        }
        let is_held_up = !self.queue.is_empty() && !self.segments.exhausted;
        is_held_up.then(|| WaitsFor::Segment(self.operations.next()))
    }

    /// Whether the disk was full when the next segment was to be made. Proposals are to be
    /// refused; what must be written for elections still finds room. Heals when space returns.
    pub fn space_exhausted(&self) -> bool {
        self.segments.exhausted
    }

    /// First and last entry held of a group; `None` if none.
    pub fn held(&self, group: GroupId) -> Option<(Index, Index)> {
        self.index.bounds(group)
    }

    /// What the log did since its start.
    pub fn stats(&self) -> &LogStats {
        &self.stats
    }

    /// The settings.
    pub fn settings(&self) -> &LogSettings {
        &self.settings
    }
}

/// The lengths of the records in a run, padding included.
fn lengths(mut records: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if records.is_empty() {
            return None;
        }
        let header = record::peek(records).expect("the caller appends verified records");
        let length = record::encoded_bytes(header.length as usize);
        records = &records[length..];
        Some(length)
    })
}
