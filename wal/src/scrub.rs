//! Looking whether blocks are still as they were written, before anybody needs what they hold: one
//! block at a time, from the oldest to the newest durable one. How fast is the caller's to say.

use crate::block::{Block, walk};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation, ReadFrom};
use crate::error::ReadError;
use crate::format::Directory;
use crate::log::{ATTEMPTS_MAX, Log, Purpose};
use ringraft_types::{GroupId, Sequence};

/// A block that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// Its bytes.
    pub bytes: u64,
    /// What is wrong with it, if anything is.
    pub rot: Option<ReadError>,
    /// The groups of which it holds entries that are needed and can't be read.
    pub groups: Vec<GroupId>,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    sequence: Sequence,
    segment: u64,
    offset: u64,
    length: usize,
    is_in_flight: bool,
    is_second_try: bool,
    /// Attempts in a row that the system asked to repeat, or cut short.
    attempts: u32,
}

/// Where a pass over the log stands.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// The block that was looked at last.
    last: Sequence,
    job: Option<Job>,
    done: Option<Scrubbed>,
}

impl Log {
    /// Asks for the next block to be looked at; the answer comes by [`Log::take_scrubbed`] after some
    /// turns. False: there is none behind the last one, the pass is over, and the next begins with
    /// the oldest.
    ///
    /// # Panics
    /// If one is being looked at, or its answer wasn't taken.
    pub fn scrub_next(&mut self) -> bool {
        let scrub = &self.scrub;
        assert!(scrub.job.is_none() && scrub.done.is_none(), "one block at a time");
        let (last, durable) = (scrub.last, self.durable);
        let found = self.segments.after(last).filter(|(_, place)| place.sequence <= durable);
        self.scrub.last = found.map_or(Sequence::ZERO, |(_, place)| place.sequence);
        self.scrub.job = found.map(|(segment, place)| Job {
            sequence: place.sequence,
            segment,
            offset: place.offset(),
            length: place.length(),
            is_in_flight: false,
            is_second_try: false,
            attempts: 0,
        });
        found.is_some()
    }

    /// What was found, if it is there.
    pub fn take_scrubbed(&mut self) -> Option<Scrubbed> {
        self.scrub.done.take()
    }

    /// Whether a block is being looked at.
    pub fn is_scrubbing(&self) -> bool {
        self.scrub.job.is_some()
    }

    pub(crate) fn step_scrub<D: Device>(&mut self, device: &mut D) {
        let Some(job) = self.scrub.job.as_mut().filter(|job| !job.is_in_flight) else { return };
        let Job { sequence, segment, offset, length, .. } = *job;
        if self.segments.find(sequence).is_none() {
            // Its segment was given up.
            self.scrub.job = None;
            self.scrub.done = Some(Scrubbed { bytes: 0, rot: None, groups: Vec::new() });
            return;
        }
        job.is_in_flight = true;
        let (file, buffer) = (self.segments.file(segment), Buffer::zeroed(length, self.align));
        let read = Operation::Read { file, offset, buffer, from: ReadFrom::Disk };
        self.operations.submit(device, Purpose::Scrub, read);
    }

    pub(crate) fn scrub_completed(&mut self, completion: Completion) {
        let job = self.scrub.job.as_mut().expect("a block is looked at until it is answered");
        job.is_in_flight = false;
        let buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        let errno = -completion.result.min(0);
        let is_cut = errno == 0 && (completion.result as usize) < buffer.len();
        if (is_cut || matches!(errno, libc::EAGAIN | libc::EINTR)) && job.attempts < ATTEMPTS_MAX {
            // Says nothing of what lies on the disk (S19).
            job.attempts += 1;
            return;
        }
        let job = *job;
        let is_read = errno == 0 && !is_cut;
        let damaged = if is_read { self.judge(&buffer, &job) } else { None };
        let is_sound = damaged.as_ref().is_some_and(Vec::is_empty);
        if !is_sound && self.segments.find(job.sequence).is_some() {
            let at = self.scrub.job.as_mut().expect("it was just there");
            if !std::mem::replace(&mut at.is_second_try, true) {
                // A misdirected or stale read is cured by the next one; rot isn't.
                return;
            }
        }
        self.scrub.job = None;
        let bytes = job.length as u64;
        if is_sound || self.segments.find(job.sequence).is_none() {
            self.scrub.done = Some(Scrubbed { bytes, rot: None, groups: Vec::new() });
            return;
        }
        let mut groups = self.index.groups_in(job.sequence);
        if let Some(damaged) = damaged {
            groups.retain(|group| damaged.contains(group));
        }
        self.renew_locals(job.sequence);
        let Job { sequence, segment, offset, .. } = job;
        let rot = Some(ReadError::Rot { segment, offset, sequence, errno });
        self.scrub.done = Some(Scrubbed { bytes, rot, groups });
    }

    /// The groups of which a block doesn't hold what its directory says; `None` if it isn't the
    /// block that was written at all.
    fn judge(&self, bytes: &[u8], job: &Job) -> Option<Vec<GroupId>> {
        let block = Block::parse(bytes).ok()?;
        let is_ours = block.header.is_at(self.identity, job.segment, job.offset, job.sequence);
        let walked = is_ours.then(|| walk(&block, &mut Directory::default(), |_, _| {}))?;
        Some(walked.damaged.iter().map(|item| item.group).collect())
    }
}
