//! Going through a log once, block after block, for a caller that wants entries of many groups and
//! takes each where it comes: after a start all groups apply what the log holds. To read for each
//! group by itself ([`Log::read`]) would look up every entry of every block.
//!
//! Nobody is told of a block that can't be read: whoever needs an entry of it asks for that entry,
//! and is told then.

use crate::block::{Block, carried};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Operation};
use crate::log::{Log, Purpose};
use crate::segment::Place;
use ringraft_types::record::{self, Record, RecordKind};
use ringraft_types::{GroupId, Index, Sequence};
use std::collections::VecDeque;
use std::ops::Range;

/// Blocks that are read, or wait to be taken.
const BLOCKS_AHEAD: usize = 4;

/// A block of a sweep.
#[derive(Debug)]
pub struct Swept {
    buffer: Buffer,
    /// Where its records lie.
    records: Range<usize>,
}

impl Swept {
    /// Calls `each` with the intact entries of the block, carried ones among them, in the order in
    /// which they lie there. An entry may have been removed since, or be of another history: its
    /// term tells.
    pub fn entries(&self, mut each: impl FnMut(&Record<'_>)) {
        let mut rest = &self.buffer[self.records.clone()];
        while let Ok(record) = record::decode(rest) {
            rest = &rest[record.bytes.len()..];
            let is_carried = record.header.kind == RecordKind::Carried;
            let inner = is_carried.then(|| carried(&record).ok());
            let entry = inner.unwrap_or(Some(record));
            if let Some(entry) = entry.filter(|entry| entry.header.kind.is_entry()) {
                each(&entry);
            }
        }
    }
}

/// Where a sweep stands.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The block that was asked for last, or the one before the first.
    last_asked: Sequence,
    /// The block that it ends with.
    end: Sequence,
    /// In order.
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
enum Ahead {
    /// Of a segment.
    Asked(u64, Place),
    /// If it could be read.
    There(Option<Swept>),
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
        let Some(Sequence(first)) = spans.min() else { return };
        let last_asked = Sequence(first.saturating_sub(1));
        self.sweep = Some(Sweep { last_asked, end: self.durable, ahead: VecDeque::new() });
    }

    /// Whether there are blocks to come.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// The next block, if it is there.
    pub fn take_swept(&mut self) -> Option<Swept> {
        let sweep = self.sweep.as_mut()?;
        while let Some(Ahead::There(_)) = sweep.ahead.front() {
            if let Some(Ahead::There(Some(swept))) = sweep.ahead.pop_front() {
                return Some(swept);
            }
        }
        None
    }

    /// A block that was taken isn't needed any more: another one may be read into its memory.
    pub fn give_swept(&mut self, swept: Swept) {
        self.give_buffer(swept.buffer);
    }

    pub(crate) fn step_sweep<D: Device>(&mut self, device: &mut D) {
        while let Some(sweep) = &mut self.sweep
            && sweep.ahead.len() < BLOCKS_AHEAD
        {
            let next = self.segments.after(sweep.last_asked);
            let Some((segment, place)) = next.filter(|(_, place)| place.sequence <= sweep.end)
            else {
                if sweep.ahead.is_empty() {
                    self.sweep = None;
                }
                return;
            };
            sweep.last_asked = place.sequence;
            sweep.ahead.push_back(Ahead::Asked(segment, place));
            self.stats.blocks_read += 1;
            let (file, offset) = (self.segments.file(segment), place.offset());
            let buffer = self.read_buffer(place.length());
            let purpose = Purpose::Sweep(place.sequence);
            self.operations.submit(device, purpose, Operation::Read { file, offset, buffer });
        }
    }

    pub(crate) fn sweep_completed(&mut self, sequence: Sequence, completion: Completion) {
        let sweep = self.sweep.as_mut().expect("a sweep ends when nothing of it is on its way");
        let is_it =
            |it: &&mut Ahead| matches!(it, Ahead::Asked(_, place) if place.sequence == sequence);
        let ahead = sweep.ahead.iter_mut().find(is_it).expect("what completed was asked for");
        let Ahead::Asked(segment, place) = *ahead else { unreachable!("just found") };
        let buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        let is_whole = completion.result == buffer.len() as i32;
        let block = Block::parse(&buffer).ok().filter(|block| {
            is_whole && block.header.is_at(self.identity, segment, place.offset(), sequence)
        });
        match block.map(|block| block.header) {
            Some(header) => {
                let records = header.head()..header.directory_at as usize;
                *ahead = Ahead::There(Some(Swept { buffer, records }));
            }
            None => {
                *ahead = Ahead::There(None);
                self.give_buffer(buffer);
            }
        }
    }
}
