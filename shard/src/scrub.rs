//! The scrubber: reads the whole log in the background, and then the snapshots that are kept, a
//! block or a chunk at a time and never faster than it may, so that rot is found while there is
//! another copy of what it hit, and not when it is needed: with the peers, or in the machine.

use crate::event::ShardEvent;
use crate::links::Links;
use crate::shard::Shard;
use crate::snapshots::{LoadFailure, MIXED};
use ringraft_types::Ticks;
use ringraft_wal::device::Device;
use ringraft_wal::snapshot::HEAD_BYTES;
use ringraft_wal::{ChunkDone, ChunkSums, SnapshotHead};

/// The ticket of the chunk that the scrubber asks for; those of others are numbers, or marked by
/// the bit above (`snapshots/loader.rs`).
const TICKET: u64 = 1 << 62;

/// How often the log and the snapshots are read through, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubRules {
    /// From the beginning of one pass to that of the next; a pass that takes longer goes on first.
    /// Zero: never.
    pub interval: Ticks,
    /// Bytes that are read in a second at most.
    pub bytes_per_second: u64,
}

impl Default for ScrubRules {
    /// Once a day, at 8 MiB a second: no disk notices it, and a log of 100 GiB is through in four
    /// hours.
    fn default() -> Self {
        Self { interval: Ticks::from_millis(24 * 60 * 60 * 1_000), bytes_per_second: 8 << 20 }
    }
}

/// Where the scrubber stands.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// When the next block is due, of a pass or the first of the next one; `None`: since the shard
    /// doesn't turn yet.
    next_at: Option<Ticks>,
    /// The pass under way.
    pass: Option<Pass>,
}

/// One reading of the log, and of the snapshots after it.
#[derive(Debug)]
struct Pass {
    began: Ticks,
    bytes: u64,
    /// Blocks and snapshots that aren't what they were.
    rotten: u64,
    rotten_snapshots: u64,
    is_log_read: bool,
    /// The snapshot that is being read, or was read last, with its group's place.
    reading: Option<Reading>,
}

/// A snapshot, chunk by chunk.
#[derive(Debug)]
struct Reading {
    slot: usize,
    head: SnapshotHead,
    /// Its head was looked at.
    is_head_read: bool,
    /// The chunk that is asked for, or the next one.
    chunk: u32,
    /// It, or the head, is on its way.
    is_asked: bool,
    sums: ChunkSums,
    done: Option<ChunkDone>,
}

impl Scrubbing {
    /// Whether a chunk that was read is the scrubber's.
    pub(crate) fn is_for(ticket: u64) -> bool {
        ticket == TICKET
    }

    /// A chunk was read.
    pub(crate) fn chunk_read(&mut self, done: ChunkDone) {
        self.reading_mut().expect("it was asked for").done = Some(done);
    }

    /// Whether this file is being read.
    pub(crate) fn reads(&self, number: u64) -> bool {
        let reading = self.pass.as_ref().and_then(|pass| pass.reading.as_ref());
        reading.is_some_and(|reading| reading.is_asked && reading.head.number == number)
    }

    /// Whether the snapshot that is being read, or was read last, is of this group (by slot).
    pub(crate) fn is_at(&self, slot: usize) -> bool {
        let reading = self.pass.as_ref().and_then(|pass| pass.reading.as_ref());
        reading.is_some_and(|reading| reading.slot == slot)
    }

    fn reading_mut(&mut self) -> Option<&mut Reading> {
        self.pass.as_mut()?.reading.as_mut().filter(|reading| reading.is_asked)
    }

    /// So much was read: the next is due when that would have taken as long as it may.
    fn spend(&mut self, now: Ticks, bytes: u64, rules: ScrubRules) {
        let takes = bytes.saturating_mul(1_000_000) / rules.bytes_per_second;
        let next_at = self.next_at.unwrap_or(now);
        self.next_at = Some(next_at.max(now).after(Ticks(takes)));
        self.pass.as_mut().expect("it is read in a pass").bytes += bytes;
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Takes what was looked at, and has the next block looked at if it is due. Returns when to come
    /// back.
    pub(crate) fn scrub(&mut self, now: Ticks) -> Ticks {
        if self.scrubbing.pass.is_none()
            && let Some(next_at) = self.scrubbing.next_at.filter(|&next_at| now < next_at)
        {
            return next_at;
        }
        let rules = self.settings.scrub;
        if rules.interval == Ticks::ZERO || rules.bytes_per_second == 0 {
            return Ticks::NEVER;
        }
        self.scrubbing.next_at.get_or_insert(now.after(rules.interval));
        self.take_scrubbed_block(now, rules);
        self.take_scrubbed_chunk(now, rules);
        let is_waiting = self.log.is_scrubbing() || self.scrubbing.reading_mut().is_some();
        let next_at = self.scrubbing.next_at.expect("set if it wasn't");
        if is_waiting || now < next_at {
            return if is_waiting { Ticks::NEVER } else { next_at };
        }
        let pass = self.scrubbing.pass.get_or_insert(Pass::begun(now));
        if !pass.is_log_read {
            pass.is_log_read = !self.log.scrub_next();
        }
        if !pass.is_log_read || self.read_next_chunk() {
            self.fetch_asked = true;
            return Ticks::NEVER;
        }
        let pass = self.scrubbing.pass.take().expect("it is under way");
        self.metrics.scrub_passes += 1;
        let Pass { began, bytes, rotten, rotten_snapshots, .. } = pass;
        let took = now.since(began);
        self.events.push(ShardEvent::Scrubbed { bytes, rotten, rotten_snapshots, took });
        let next_at = began.after(rules.interval).max(now.after(Ticks(1)));
        self.scrubbing.next_at = Some(next_at);
        next_at
    }

    fn take_scrubbed_block(&mut self, now: Ticks, rules: ScrubRules) {
        let Some(scrubbed) = self.log.take_scrubbed() else { return };
        self.metrics.scrubbed_bytes += scrubbed.bytes;
        self.scrubbing.spend(now, scrubbed.bytes, rules);
        let Some(error) = scrubbed.rot else { return };
        self.metrics.scrubbed_rotten += 1;
        self.scrubbing.pass.as_mut().expect("it is read in a pass").rotten += 1;
        // Nobody waits for what they lost: they lead and serve while they have it again.
        for group in scrubbed.groups {
            if let Some(&slot) = self.slots.get(&group) {
                self.unreadable(now, slot, error);
            }
        }
    }

    fn take_scrubbed_chunk(&mut self, now: Ticks, rules: ScrubRules) {
        let Some(reading) = self.scrubbing.reading_mut() else { return };
        let Some(done) = reading.done.take() else { return };
        reading.is_asked = false;
        let Reading { slot, head, ref mut is_head_read, ref mut chunk, ref mut sums, .. } =
            *reading;
        let is_of_head = !std::mem::replace(is_head_read, true);
        let rot: Option<LoadFailure> = match &done.result {
            Ok(_) if is_of_head => None,
            Ok(chunk_read) => {
                sums.add(chunk_read.checksum);
                let is_last = *chunk + 1 == head.chunks;
                (is_last && sums.sum() != head.sum).then(|| MIXED.into())
            }
            Err(error) => Some((*error).into()),
        };
        let bytes = if is_of_head { HEAD_BYTES } else { head.used(*chunk).1 } as u64;
        *chunk += u32::from(!is_of_head);
        self.metrics.scrubbed_bytes += bytes;
        self.scrubbing.spend(now, bytes, rules);
        let Some(why) = rot else { return };
        self.scrubbing.pass.as_mut().expect("it is read in a pass").rotten_snapshots += 1;
        self.metrics.scrubbed_rotten_snapshots += 1;
        let group = self.groups[slot].id;
        self.snapshot_unreadable(group, head.number, why);
    }

    /// Has the next chunk or head of the snapshots that are kept read; whether there is one.
    fn read_next_chunk(&mut self) -> bool {
        let Self { scrubbing, groups, log, .. } = self;
        let pass = scrubbing.pass.as_mut().expect("it is under way");
        let is_kept =
            |slot: usize, number: u64| groups[slot].kept.iter().any(|head| head.number == number);
        let mut last = None;
        if let Some(reading) = &mut pass.reading {
            let Reading { slot, head, chunk, is_asked, .. } = reading;
            if *chunk < head.chunks && is_kept(*slot, head.number) {
                log.read_chunk(TICKET, head, *chunk);
                *is_asked = true;
                return true;
            }
            last = Some((*slot, head.number));
        }
        let first_slot = last.map_or(0, |(slot, _)| slot);
        let next = (first_slot..groups.len()).find_map(|slot| {
            let mut kept = groups[slot].kept.iter();
            let is_next = |head: &&SnapshotHead| last.is_none_or(|it| (slot, head.number) > it);
            kept.find(is_next).map(|head| (slot, *head))
        });
        pass.reading = next.map(|(slot, head)| {
            log.read_head(TICKET, &head);
            let sums = ChunkSums::default();
            Reading { slot, head, is_head_read: false, chunk: 0, is_asked: true, sums, done: None }
        });
        let is_there = pass.reading.is_some();
        if let Some((_, number)) = last {
            self.let_go(number);
        }
        is_there
    }
}

impl Pass {
    fn begun(now: Ticks) -> Self {
        Self {
            began: now,
            bytes: 0,
            rotten: 0,
            rotten_snapshots: 0,
            is_log_read: false,
            reading: None,
        }
    }
}
