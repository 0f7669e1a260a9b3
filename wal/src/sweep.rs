//! Going through a log once, block after block, for a caller that wants entries of many groups and
//! takes each where it comes: after a start all groups apply what the log holds. To read for each
//! group by itself ([`Log::read`]) would look up every entry of every block.
//!
//! Nobody is told of a block that can't be read: whoever needs an entry of it asks for that entry,
//! and is told then.

use crate::block::{Block, carried};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation, ReadFrom};
use crate::log::{Log, Purpose};
use crate::segment::Place;
use ringraft_types::record::{self, Record, RecordKind};
use ringraft_types::{GroupId, Index, Sequence};
use std::collections::VecDeque;
use std::ops::Range;

/// Reads on their way or waiting to be taken. Each is of blocks that lie side by side, as many as
/// are no longer together than the longest that is written.
const RUNS_AHEAD: usize = 4;
/// Buffers that the log keeps more of as long as a sweep goes on: those of the blocks that its
/// caller has taken.
const BUFFERS_MORE: usize = 16;

/// Some blocks of a sweep.
#[derive(Debug)]
pub struct Swept {
    buffer: Buffer,
    /// Where the records of each intact block lie.
    records: Vec<Range<usize>>,
}

impl Swept {
    /// Calls `each` with the intact entries of the blocks, carried ones among them, in the order in
    /// which they lie there, and where each lies. An entry may have been removed since, or be of
    /// another history: its term tells.
    pub fn entries(&self, mut each: impl FnMut(&Record<'_>, Range<u32>)) {
        for records in &self.records {
            let mut rest = &self.buffer[records.clone()];
            while let Ok(record) = record::decode(rest) {
                rest = &rest[record.bytes.len()..];
                let is_carried = record.header.kind == RecordKind::Carried;
                let inner = is_carried.then(|| carried(&record).ok());
                let entry = inner.unwrap_or(Some(record));
                if let Some(entry) = entry.filter(|entry| entry.header.kind.is_entry()) {
                    // It lies in the buffer, which is far shorter than 4 GiB.
                    let at = entry.bytes.as_ptr().addr() - self.buffer.as_ptr().addr();
                    each(&entry, at as u32..(at + entry.bytes.len()) as u32);
                }
            }
        }
    }

    /// The bytes of an entry that [`Swept::entries`] told of.
    pub fn entry(&self, at: &Range<u32>) -> &[u8] {
        &self.buffer[at.start as usize..at.end as usize]
    }

    /// Memory that it takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Where a sweep stands.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The newest block of the runs so far, or the one before the first.
    last: Sequence,
    /// The block that it ends with.
    end: Sequence,
    /// In order.
    ahead: VecDeque<Ahead>,
}

/// The segments that recovery read by way of the page cache, so that a sweep after it finds them
/// there: read once from the disk, as long as there is memory. What was swept is dropped, and all
/// when there is nothing more to be swept.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Ascending. They were written by former lives, and never are again.
    segments: VecDeque<u64>,
    /// Those below this one aren't read any more.
    done_below: u64,
}

impl Remembered {
    pub(crate) fn of(segments: impl Iterator<Item = u64>) -> Self {
        Self { segments: segments.collect(), done_below: 0 }
    }

    fn read_from(&self, segment: u64) -> ReadFrom {
        match self.segments.binary_search(&segment) {
            Ok(_) => ReadFrom::Cache,
            Err(_) => ReadFrom::Disk,
        }
    }
}

/// Blocks of a segment that lie side by side, one of them at least.
#[derive(Debug)]
struct Run {
    segment: u64,
    places: Vec<Place>,
}

#[derive(Debug)]
enum Ahead {
    /// To be read.
    Wanted(Run),
    /// Being read.
    Asked(Run),
    /// As far as it could be read.
    There(Option<Swept>),
}

impl Run {
    /// What it is known by.
    fn first(&self) -> Sequence {
        self.places[0].sequence
    }

    fn bytes(&self) -> usize {
        self.places.iter().map(Place::length).sum()
    }
}

impl Log {
    /// Begins to go through the log, from the oldest block that holds one of these entries to the
    /// newest one that is durable now. Nothing happens if no block holds any.
    ///
    /// # Panics
    /// If a sweep is under way.
    pub fn sweep(&mut self, entries: impl Iterator<Item = (GroupId, Index)>) {
        assert!(self.sweep.is_none(), "one sweep at a time");
        let spans = entries.filter_map(|(group, index)| {
            self.index.find_near(group, index, &mut 0).map(|span| span.sequence)
        });
        let Some(Sequence(first)) = spans.min() else {
            self.remembered.done_below = u64::MAX;
            return;
        };
        let last = Sequence(first.saturating_sub(1));
        self.sweep = Some(Sweep { last, end: self.durable, ahead: VecDeque::new() });
        self.pool.keep_more(BUFFERS_MORE);
    }

    /// Whether there are blocks to come.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// The next blocks, if they are there.
    pub fn take_swept(&mut self) -> Option<Swept> {
        let ahead = &mut self.sweep.as_mut()?.ahead;
        while let Some(Ahead::There(swept)) =
            ahead.pop_front_if(|next| matches!(next, Ahead::There(_)))
        {
            if swept.is_some() {
                return swept;
            }
        }
        None
    }

    /// Blocks that were taken aren't needed any more: others may be read into their memory.
    pub fn give_swept(&mut self, swept: Swept) {
        self.give_buffer(swept.buffer);
    }

    pub(crate) fn step_sweep<D: Device>(&mut self, device: &mut D) {
        self.forget_swept(device);
        let Some(mut sweep) = self.sweep.take() else { return };
        while sweep.ahead.len() < RUNS_AHEAD
            && let Some(run) = self.next_run(sweep.last, sweep.end)
        {
            sweep.last = run.places.last().expect("one at least").sequence;
            sweep.ahead.push_back(Ahead::Wanted(run));
        }
        if sweep.ahead.is_empty() {
            self.pool.keep_fewer(BUFFERS_MORE);
            self.remembered.done_below = u64::MAX;
            self.forget_swept(device);
            return;
        }
        for ahead in &mut sweep.ahead {
            *ahead = match std::mem::replace(ahead, Ahead::There(None)) {
                Ahead::Wanted(run) => {
                    self.read_run(device, &run);
                    Ahead::Asked(run)
                }
                other => other,
            };
        }
        let left = sweep.ahead.iter().filter_map(|ahead| match ahead {
            Ahead::Wanted(run) | Ahead::Asked(run) => Some(run.segment),
            Ahead::There(_) => None,
        });
        self.remembered.done_below = left.min().unwrap_or(self.remembered.done_below);
        self.sweep = Some(sweep);
    }

    /// Has the kernel drop what it remembers of segments that aren't read any more.
    fn forget_swept<D: Device>(&mut self, device: &mut D) {
        let below = self.remembered.done_below;
        while let Some(number) = self.remembered.segments.pop_front_if(|segment| *segment < below) {
            let forget = Operation::Forget(self.segments.file(number));
            self.operations.submit(device, Purpose::Forget, forget);
        }
    }

    /// The blocks behind this one, up to `end`, that one read gives.
    fn next_run(&self, last: Sequence, end: Sequence) -> Option<Run> {
        let within =
            |(segment, place): (u64, Place)| (place.sequence <= end).then_some((segment, place));
        let (segment, first) = self.segments.after(last).and_then(within)?;
        let (mut places, mut length) = (vec![first], first.length());
        while let Some((of, place)) =
            self.segments.after(places[places.len() - 1].sequence).and_then(within)
            && of == segment
            && place.offset() == first.offset() + length as u64
            && length + place.length() <= self.settings().block_bytes_max
        {
            length += place.length();
            places.push(place);
        }
        Some(Run { segment, places })
    }

    fn read_run<D: Device>(&mut self, device: &mut D, run: &Run) {
        self.stats.blocks_read += run.places.len() as u64;
        let (file, offset) = (self.segments.file(run.segment), run.places[0].offset());
        let buffer = self.read_buffer(run.bytes());
        let purpose = Purpose::Sweep(run.first());
        let from = self.remembered.read_from(run.segment);
        self.operations.submit(device, purpose, Operation::Read { file, offset, buffer, from });
    }

    pub(crate) fn sweep_completed(&mut self, first: Sequence, completion: Completion) {
        let sweep = self.sweep.as_mut().expect("a sweep ends when nothing of it is on its way");
        let is_it = |ahead: &Ahead| matches!(ahead, Ahead::Asked(run) if run.first() == first);
        let at = sweep.ahead.iter().position(is_it).expect("what completed was asked for");
        let there = std::mem::replace(&mut sweep.ahead[at], Ahead::There(None));
        let Ahead::Asked(run) = there else { unreachable!("just found") };
        let buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        if completion.result != buffer.len() as i32 {
            if run.places.len() > 1 {
                // One of them can't be read: the others can, each by itself.
                let segment = run.segment;
                let single = |place| Ahead::Wanted(Run { segment, places: vec![place] });
                let _ = sweep.ahead.remove(at);
                for place in run.places.into_iter().rev() {
                    sweep.ahead.insert(at, single(place));
                }
            }
            self.give_buffer(buffer);
            return;
        }
        let mut records = Vec::with_capacity(run.places.len());
        let mut offset = 0;
        for place in &run.places {
            let bytes = &buffer[offset..offset + place.length()];
            let block = Block::parse(bytes).ok().filter(|block| {
                let header = &block.header;
                header.is_at(self.identity, run.segment, place.offset(), place.sequence)
            });
            if let Some(Block { header, .. }) = block {
                records.push(offset + header.head()..offset + header.directory_at as usize);
            }
            offset += place.length();
        }
        sweep.ahead[at] = Ahead::There(Some(Swept { buffer, records }));
    }
}
