//! Reading old entries back, for followers that lag and for what is still to be applied. A block is
//! read whole and verified again before a byte of it leaves (V13).
//!
//! Entries of many groups lie in one block, and after a start all groups want theirs. So what is
//! read next is the oldest block that anybody waits for, and all who wait for it are served: the
//! log is gone through about once for all groups, not once for each.

use crate::block::{Block, walk};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation, ReadFrom};
use crate::error::ReadError;
use crate::format::{Directory, Identity};
use crate::index::Span;
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
use ringraft_types::{GroupId, Index, Sequence};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Reads in flight at once.
pub(crate) const READS_IN_FLIGHT_MAX: usize = 4;
/// One in so many reads is for who waits longest: old blocks that many want never keep one waiting
/// for a new one.
const FOR_LONGEST: u64 = 4;

/// Bytes of answers that were used up and wait to be written into again, as long as anything is
/// read: memory that was just given back is the dearest there is.
const SPARE_BYTES_MAX: usize = 64 << 20;

/// Room that an answer has from the beginning, bytes; one that may be longer grows.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// Entries wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Comes back with the answer.
    pub ticket: u64,
    /// The group.
    pub group: GroupId,
    /// The first entry wanted.
    pub first: Index,
    /// The last entry wanted.
    pub last: Index,
    /// The answer stops before it gets longer, but holds at least one entry.
    pub bytes_max: usize,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDone {
    /// As asked.
    pub ticket: u64,
    /// Verified records of the group, one after the other, `first` first; possibly fewer than
    /// asked for.
    pub result: Result<Vec<u8>, ReadError>,
}

#[derive(Debug)]
struct Job {
    request: ReadRequest,
    next: Index,
    out: Vec<u8>,
    /// The group's count of removals when `out` was begun.
    removals: u64,
    /// The block that it waits for, and where the index had it.
    block: Option<Sequence>,
    near: usize,
    is_second_try: bool,
    /// Attempts in a row that the system asked to repeat, or cut short.
    attempts: u32,
}

/// A block that is being read.
#[derive(Clone, Copy, Debug)]
struct Flight {
    sequence: Sequence,
    segment: u64,
    offset: u64,
}

/// Reads asked for and not yet answered, and answers not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// By number: who waits longest comes first.
    jobs: BTreeMap<u64, Job>,
    next_number: u64,
    /// Jobs of which it isn't known which block they wait for.
    unplaced: Vec<u64>,
    /// The others, by the block that they waited for when it was looked at last.
    waiting: BTreeMap<Sequence, Vec<u64>>,
    flights: Vec<Flight>,
    done: VecDeque<ReadDone>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

impl Reads {
    fn answer(&mut self, number: u64, result: Result<Vec<u8>, ReadError>) {
        let job = self.jobs.remove(&number).expect("a job is answered once");
        self.done.push_back(ReadDone { ticket: job.request.ticket, result });
    }

    /// Room for an answer of so many bytes.
    fn room(&mut self, bytes: usize) -> Vec<u8> {
        match self.spare.pop() {
            Some(spare) => {
                self.spare_bytes -= spare.capacity();
                spare
            }
            None => Vec::with_capacity(bytes.min(ROOM_BYTES_MAX)),
        }
    }

    fn is_flying(&self, sequence: Sequence) -> bool {
        self.flights.iter().any(|flight| flight.sequence == sequence)
    }
}

impl Log {
    /// Asks for entries of a group; the answer comes by [`Log::take_read`] after some turns.
    /// Entries that aren't durable yet are waited for. How many may be asked for at once is the
    /// caller's to bound.
    pub fn read(&mut self, request: ReadRequest) {
        let number = self.reads.next_number;
        self.reads.next_number += 1;
        self.stats.reads += 1;
        let removals = self.index.removals(request.group);
        let job = Job {
            request,
            next: request.first,
            out: self.reads.room(request.bytes_max),
            removals,
            block: None,
            near: 0,
            is_second_try: false,
            attempts: 0,
        };
        self.reads.jobs.insert(number, job);
        self.reads.unplaced.push(number);
    }

    /// Whether there is an answer.
    pub fn has_reads_done(&self) -> bool {
        !self.reads.done.is_empty()
    }

    /// An answer, if there is one.
    pub fn take_read(&mut self) -> Option<ReadDone> {
        self.reads.done.pop_front()
    }

    /// What an answer brought is used up: another one may be written in its place.
    pub fn give_read(&mut self, mut records: Vec<u8>) {
        let reads = &mut self.reads;
        if reads.spare_bytes + records.capacity() <= SPARE_BYTES_MAX {
            records.clear();
            reads.spare_bytes += records.capacity();
            reads.spare.push(records);
        }
    }

    /// Answers what can be answered and submits reads.
    pub(crate) fn step_reads<D: Device>(&mut self, device: &mut D) {
        if self.reads.jobs.is_empty() {
            if !self.reads.spare.is_empty() {
                (self.reads.spare, self.reads.spare_bytes) = (Vec::new(), 0);
            }
            self.reads.unplaced.clear();
            return;
        }
        for number in std::mem::take(&mut self.reads.unplaced) {
            self.place_read(number);
        }
        while self.reads.flights.len() < READS_IN_FLIGHT_MAX {
            let Some(sequence) = self.next_block() else { return };
            // Entries may have been moved or removed since it was looked at.
            for number in self.reads.waiting.remove(&sequence).unwrap_or_default() {
                self.place_read(number);
            }
            if !self.reads.waiting.contains_key(&sequence) {
                continue;
            }
            let place = self.segments.find(sequence);
            let (segment, offset, length) = place.expect("it was found just now");
            self.reads.flights.push(Flight { sequence, segment, offset });
            self.stats.blocks_read += 1;
            let file = self.segments.file(segment);
            let buffer = self.read_buffer(length);
            let purpose = Purpose::Read(sequence);
            let read = Operation::Read { file, offset, buffer, from: ReadFrom::Disk };
            self.operations.submit(device, purpose, read);
        }
    }

    /// A buffer for a block: one of those that blocks are written from, unless it is longer.
    pub(crate) fn read_buffer(&mut self, bytes: usize) -> Buffer {
        if bytes > self.settings().block_bytes_max {
            return Buffer::zeroed(bytes, self.align);
        }
        let mut buffer = self.pool.take();
        buffer.set_window(bytes);
        buffer
    }

    /// The block to be read next, if there is one that can be read and isn't being read.
    fn next_block(&self) -> Option<Sequence> {
        let durable = self.durable();
        let is_to_be_read = |sequence: &Sequence| {
            *sequence <= durable
                && !self.reads.is_flying(*sequence)
                && self.segments.find(*sequence).is_some()
        };
        if self.stats.blocks_read % FOR_LONGEST == FOR_LONGEST - 1 {
            let mut blocks = self.reads.jobs.values().filter_map(|job| job.block);
            return blocks.find(is_to_be_read);
        }
        self.reads.waiting.keys().copied().find(is_to_be_read)
    }

    /// Answers a job, or finds out which block it waits for.
    fn place_read(&mut self, number: u64) {
        let Some(job) = self.reads.jobs.get_mut(&number) else { return };
        let (group, removals) = (job.request.group, self.index.removals(job.request.group));
        if job.removals != removals {
            // Entries of two histories must not be joined: begin anew.
            job.removals = removals;
            job.next = job.request.first;
            job.out.clear();
        }
        let is_full = !job.out.is_empty() && job.out.len() >= job.request.bytes_max;
        let is_over = is_full || job.next > job.request.last;
        let span = self.index.find_near(group, job.next, &mut job.near).filter(|_| !is_over);
        let block = span.map(|span| span.sequence);
        if block != job.block {
            job.block = block;
            (job.is_second_try, job.attempts) = (false, 0);
        }
        if let Some(sequence) = block {
            self.reads.waiting.entry(sequence).or_default().push(number);
            return;
        }
        let out = std::mem::take(&mut job.out);
        let result = if out.is_empty() { Err(ReadError::NotHeld) } else { Ok(out) };
        self.reads.answer(number, result);
    }

    pub(crate) fn read_completed(&mut self, sequence: Sequence, completion: Completion) {
        let at = self.reads.flights.iter().position(|flight| flight.sequence == sequence);
        let flight = self.reads.flights.swap_remove(at.expect("what completed was being read"));
        let buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        let errno = if completion.result < 0 { -completion.result } else { 0 };
        let numbers = self.reads.waiting.remove(&sequence).unwrap_or_default();
        // Some came since it was submitted; of others the entries were moved or removed.
        let (mut wanted, mut found) = (Vec::new(), BTreeMap::new());
        for number in numbers {
            let job = self.reads.jobs.get_mut(&number).expect("who waits has a job");
            let group = job.request.group;
            let span = self.index.find_near(group, job.next, &mut job.near);
            let span = span.filter(|span| span.sequence == sequence);
            if let Some(span) = span.filter(|_| job.removals == self.index.removals(group)) {
                wanted.push((number, group, span));
                found.insert(group, Held::default());
            }
            self.reads.unplaced.push(number);
        }
        let is_whole = completion.result == buffer.len() as i32;
        let identity = self.settings().identity();
        let is_sound = is_whole && extract(&buffer, identity, &flight, &mut found);
        let is_cut = completion.result >= 0 && !is_whole;
        let is_to_be_repeated = is_cut || matches!(errno, libc::EAGAIN | libc::EINTR);
        for (number, group, span) in wanted {
            let held = Some(&found[&group]).filter(|held| is_sound && !held.is_rotten);
            let Some(entries) = held.and_then(|held| of_span(held, span)) else {
                self.read_failed(number, &flight, errno, is_to_be_repeated);
                continue;
            };
            let job = self.reads.jobs.get_mut(&number).expect("looked at just now");
            (job.is_second_try, job.attempts) = (false, 0);
            let is_full = entries.into_iter().any(|(index, range)| {
                let is_wanted = index == job.next && index <= job.request.last;
                let bytes = job.out.len() + range.len();
                let fits = job.out.is_empty() || bytes <= job.request.bytes_max;
                if is_wanted && fits {
                    job.out.extend_from_slice(&buffer[range]);
                    job.next = index.next();
                }
                is_wanted && !fits
            });
            if is_full {
                let out = std::mem::take(&mut job.out);
                self.reads.answer(number, Ok(out));
            }
        }
        self.give_buffer(buffer);
    }

    /// Takes a buffer back that [`Log::read_buffer`] gave.
    pub(crate) fn give_buffer(&mut self, buffer: Buffer) {
        if buffer.capacity() == self.settings().block_bytes_max {
            self.pool.give(buffer);
        }
    }

    fn read_failed(&mut self, number: u64, flight: &Flight, errno: i32, is_to_be_repeated: bool) {
        let job = self.reads.jobs.get_mut(&number).expect("its block was read");
        if is_to_be_repeated && job.attempts < ATTEMPTS_MAX {
            // Says nothing of what lies on the disk (S19).
            job.attempts += 1;
            return;
        }
        // A misdirected or stale read is cured by the next one; rot isn't.
        if std::mem::replace(&mut job.is_second_try, true) {
            let Flight { sequence, segment, offset } = *flight;
            let rot = ReadError::Rot { segment, offset, sequence, errno };
            // What was read before the bad block is good, and enough for now.
            let out = std::mem::take(&mut job.out);
            let result = if out.is_empty() { Err(rot) } else { Ok(out) };
            self.reads.answer(number, result);
        }
    }
}

/// Where entries lie in a block.
type Entries = Vec<(Index, Range<usize>)>;

/// What a block holds of a group.
#[derive(Debug, Default)]
struct Held {
    entries: Entries,
    /// Of those that there were.
    newest: Index,
    is_rotten: bool,
}

/// Finds the entries of the groups of `found`. Returns whether the block is what it should be.
fn extract(
    bytes: &[u8],
    identity: Identity,
    flight: &Flight,
    found: &mut BTreeMap<GroupId, Held>,
) -> bool {
    let Ok(block) = Block::parse(bytes) else { return false };
    if !block.header.is_at(identity, flight.segment, flight.offset, flight.sequence) {
        return false;
    }
    let place = |bytes_of: &[u8]| {
        let start = bytes_of.as_ptr() as usize - bytes.as_ptr() as usize;
        start..start + bytes_of.len()
    };
    // As recovery judges it: a rotten record of another group is no loss of this one's.
    let result = walk(&block, &mut Directory::default(), |record, inner| {
        let Some(Held { entries, newest, .. }) = found.get_mut(&record.header.group) else {
            return;
        };
        // An entry takes the place of all from its index on, a carried one that of its own.
        if let Some(inner) = inner.filter(|inner| inner.header.kind.is_entry()) {
            let index = inner.header.index;
            if *newest >= index {
                entries.retain(|(at, _)| *at != index);
            }
            *newest = index.max(*newest);
            entries.push((index, place(inner.bytes)));
        } else if record.header.kind.is_entry() {
            let index = record.header.index;
            if *newest >= index {
                entries.retain(|(at, _)| *at < index);
            }
            *newest = index;
            entries.push((index, place(record.bytes)));
        }
    });
    for item in &result.damaged {
        found.entry(item.group).or_default().is_rotten = true;
    }
    for held in found.values_mut() {
        held.entries.sort_by_key(|(index, _)| *index);
    }
    true
}

/// The entries of a span, if all of them are there.
fn of_span(held: &Held, span: Span) -> Option<Entries> {
    let is_within = |(index, _): &&(Index, Range<usize>)| (span.first..=span.last).contains(index);
    let within: Entries = held.entries.iter().filter(is_within).cloned().collect();
    let count = span.last.0 - span.first.0 + 1;
    let is_whole = within.len() as u64 == count
        && within.first().is_some_and(|(index, _)| *index == span.first);
    is_whole.then_some(within)
}
