//! Reading old entries back, for followers that lag. A block is read whole and verified again
//! before a byte of it leaves (V13).

use crate::block::{Block, walk};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation};
use crate::error::ReadError;
use crate::format::{Directory, Identity};
use crate::index::Span;
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
use ringraft_types::{GroupId, Index};
use std::collections::VecDeque;
use std::ops::Range;

/// Reads in flight at once.
const IN_FLIGHT_MAX: usize = 4;

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
    number: u64,
    request: ReadRequest,
    next: Index,
    out: Vec<u8>,
    /// The group's count of removals when `out` was begun.
    removals: u64,
    in_flight: Option<(Span, u64, u64)>,
    is_second_try: bool,
    /// Attempts in a row that the system asked to repeat, or cut short.
    attempts: u32,
}

/// Reads asked for and not yet answered, and answers not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    jobs: Vec<Job>,
    done: VecDeque<ReadDone>,
    next_number: u64,
}

impl Reads {
    fn answer(&mut self, at: usize, result: Result<Vec<u8>, ReadError>) {
        let job = self.jobs.remove(at);
        self.done.push_back(ReadDone { ticket: job.request.ticket, result });
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
        self.reads.jobs.push(Job {
            number,
            request,
            next: request.first,
            out: Vec::new(),
            removals,
            in_flight: None,
            is_second_try: false,
            attempts: 0,
        });
    }

    /// Whether there is an answer.
    pub fn has_reads_done(&self) -> bool {
        !self.reads.done.is_empty()
    }

    /// An answer, if there is one.
    pub fn take_read(&mut self) -> Option<ReadDone> {
        self.reads.done.pop_front()
    }

    /// Answers what can be answered and submits reads.
    pub(crate) fn step_reads<D: Device>(&mut self, device: &mut D) {
        let mut at = 0;
        while at < self.reads.jobs.len() {
            let group = self.reads.jobs[at].request.group;
            let removals = self.index.removals(group);
            let flying = self.reads.jobs.iter().filter(|job| job.in_flight.is_some()).count();
            let job = &mut self.reads.jobs[at];
            if job.in_flight.is_some() {
                at += 1;
                continue;
            }
            if job.removals != removals {
                // Entries of two histories must not be joined: begin anew.
                job.removals = removals;
                job.next = job.request.first;
                job.out.clear();
            }
            let (next, request) = (job.next, job.request);
            let is_full = !job.out.is_empty() && job.out.len() >= request.bytes_max;
            let span = self.index.find(group, next);
            if next > request.last || is_full || span.is_none() {
                let out = std::mem::take(&mut self.reads.jobs[at].out);
                let result = if out.is_empty() { Err(ReadError::NotHeld) } else { Ok(out) };
                self.reads.answer(at, result);
                continue;
            }
            let span = span.expect("looked at just now");
            let place = self.segments.find(span.sequence);
            let (true, Some((segment, offset, length)), true) =
                (span.sequence <= self.durable(), place, flying < IN_FLIGHT_MAX)
            else {
                at += 1;
                continue;
            };
            let file = self.segments.file(segment);
            let buffer = Buffer::zeroed(length, self.align);
            let job = &mut self.reads.jobs[at];
            job.in_flight = Some((span, segment, offset));
            let purpose = Purpose::Read(job.number);
            self.operations.submit(device, purpose, Operation::Read { file, offset, buffer });
            at += 1;
        }
    }

    pub(crate) fn read_completed(&mut self, number: u64, completion: Completion) {
        let identity = self.settings().identity();
        let at = self.reads.jobs.iter().position(|job| job.number == number);
        let at = at.expect("a read is asked for until it is answered");
        let job = &mut self.reads.jobs[at];
        let (span, segment, offset) = job.in_flight.take().expect("a read was in flight");
        let buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        let errno = if completion.result < 0 { -completion.result } else { 0 };
        let found = if completion.result == buffer.len() as i32 {
            let wanted = Wanted { group: job.request.group, identity, span, segment, offset };
            extract(&buffer, &wanted)
        } else {
            None
        };
        let is_cut = completion.result >= 0 && completion.result < buffer.len() as i32;
        let is_to_be_repeated = is_cut || matches!(errno, libc::EAGAIN | libc::EINTR);
        if is_to_be_repeated && job.attempts < ATTEMPTS_MAX {
            // Says nothing of what lies on the disk (S19).
            job.attempts += 1;
            return;
        }
        let Some(found) = found else {
            if self.index.find(job.request.group, job.next) != Some(span) {
                // Carried meanwhile: it is read from its new place.
                (job.is_second_try, job.attempts) = (false, 0);
                return;
            }
            // A misdirected or stale read is cured by the next one; rot isn't.
            if std::mem::replace(&mut job.is_second_try, true) {
                let sequence = span.sequence;
                let rot = ReadError::Rot { segment, offset, sequence, errno };
                // What was read before the bad block is good, and enough for now.
                let out = std::mem::take(&mut job.out);
                let result = if out.is_empty() { Err(rot) } else { Ok(out) };
                self.reads.answer(at, result);
            }
            return;
        };
        (job.is_second_try, job.attempts) = (false, 0);
        for (index, range) in found {
            let is_wanted = index == job.next && index <= job.request.last;
            let fits = job.out.is_empty() || job.out.len() + range.len() <= job.request.bytes_max;
            if is_wanted && fits {
                job.out.extend_from_slice(&buffer[range]);
                job.next = index.next();
            } else if is_wanted {
                let out = std::mem::take(&mut job.out);
                self.reads.answer(at, Ok(out));
                return;
            }
        }
    }
}

struct Wanted {
    group: GroupId,
    identity: Identity,
    span: Span,
    segment: u64,
    offset: u64,
}

/// The entries of a span within a block; `None` if the block isn't what it should be.
fn extract(bytes: &[u8], wanted: &Wanted) -> Option<Vec<(Index, Range<usize>)>> {
    let block = Block::parse(bytes).ok()?;
    let header = &block.header;
    if header.identity != wanted.identity
        || (header.segment, header.offset) != (wanted.segment, wanted.offset)
        || header.sequence != wanted.span.sequence
    {
        return None;
    }
    let mut found: Vec<(Index, Range<usize>)> = Vec::new();
    let mut newest = Index::ZERO;
    let place = |bytes_of: &[u8]| {
        let start = bytes_of.as_ptr() as usize - bytes.as_ptr() as usize;
        start..start + bytes_of.len()
    };
    // As recovery judges it: a rotten record of another group is no loss of this one's.
    let result = walk(&block, &mut Directory::default(), |record, inner| {
        if record.header.group != wanted.group {
            return;
        }
        // An entry takes the place of all from its index on, a carried one that of its own.
        if let Some(inner) = inner.filter(|inner| inner.header.kind.is_entry()) {
            let index = inner.header.index;
            if newest >= index {
                found.retain(|(at, _)| *at != index);
            }
            newest = newest.max(index);
            found.push((index, place(inner.bytes)));
        } else if record.header.kind.is_entry() {
            let index = record.header.index;
            if newest >= index {
                found.retain(|(at, _)| *at < index);
            }
            newest = index;
            found.push((index, place(record.bytes)));
        }
    });
    if result.damaged.iter().any(|item| item.group == wanted.group) {
        return None;
    }
    found.retain(|(index, _)| (wanted.span.first..=wanted.span.last).contains(index));
    found.sort_by_key(|(index, _)| *index);
    let whole = found.len() as u64 == wanted.span.last.0 - wanted.span.first.0 + 1
        && found.first().is_some_and(|(index, _)| *index == wanted.span.first);
    whole.then_some(found)
}
