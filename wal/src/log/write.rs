//! Blocks on their way to the disk: submission, short writes, completion out of order, seals.

use super::{ATTEMPTS_MAX, Link, Log, Purpose};
use crate::buffer::Buffer;
use crate::device::{Completion, Device, Durability, FileId, Operation};
use crate::error::WalFatal;
use crate::format::{BlockHeader, Directory, FLAG_LIFE, FLAG_SEAL, SEGMENT_HEADER_BYTES};
use crate::pack::Filling;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Sequence, Ticks};

/// The longest wait for company, however slow the disk is.
const COMPANY_MAX: Ticks = Ticks(200);

/// A block in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    sequence: Sequence,
    file: FileId,
    offset: u64,
    length: usize,
    records: u32,
    directory: Option<Directory>,
    submitted: Ticks,
    attempts: u32,
    /// Written in parts: the sync of a part is not believed, a sync of its own covers all of it.
    is_split: bool,
    is_done: bool,
}

impl Flight {
    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(crate) fn bytes(&self) -> usize {
        self.length
    }
}

impl Log {
    /// Submits blocks while there are some and the bound on those in flight allows it.
    pub(super) fn write<D: Device>(&mut self, now: Ticks, device: &mut D) {
        if let Some(filling) = self.filling.as_mut().filter(|f| !f.is_empty() && f.since.is_none())
        {
            filling.since = Some(now);
        }
        while self.flights.len() < self.settings.inflight_max {
            if self.queue.is_empty() && !self.queue_filling(now) {
                return;
            }
            let first_offset = SEGMENT_HEADER_BYTES.max(self.align) as u64;
            let front = self.queue.front().expect("queued just now if there was none");
            let place = self.segments.place(
                front.sequence,
                front.buffer.len(),
                self.settings.segment_bytes,
                first_offset,
            );
            let Some(place) = place else { return };
            self.submit_front(now, device, place);
        }
    }

    /// Until when the filling block waits for company: while it is less than half as long as the
    /// block before it, and no longer than a quarter of that one's time to the disk. Under load a
    /// batch's writers come back one after the other; a block that leaves with the first of them
    /// makes all others wait for another sync. A lone writer's blocks are alike, and never wait.
    pub(crate) fn company_until(&self) -> Ticks {
        let filling = self.filling.as_ref().map_or(0, Filling::bytes);
        if filling * 2 >= self.sealed_bytes {
            return Ticks::ZERO;
        }
        self.idle_since.after(Ticks((self.stats.latency_newest.0 / 4).min(COMPANY_MAX.0)))
    }

    fn awaits_company(&self, now: Ticks) -> bool {
        now < self.company_until()
    }

    /// Queues the filling block if it is time for it, or a seal. False: nothing to write now.
    fn queue_filling(&mut self, now: Ticks) -> bool {
        let filling = self.filling.as_ref().filter(|filling| !filling.is_empty());
        if let Some(since) = filling.and_then(|filling| filling.since) {
            if now.since(since) < self.settings.group_commit_wait || self.awaits_company(now) {
                return false;
            }
            self.seal();
            return true;
        }
        let is_first = !self.life_begun && !self.segments.spares.is_empty();
        let is_idle =
            self.flights.is_empty() && now.since(self.idle_since) >= self.settings.seal_after;
        if is_first || (self.needs_seal && is_idle) {
            if self.filling.is_none() {
                self.begin_block();
            }
            self.seal();
            return true;
        }
        false
    }

    fn submit_front<D: Device>(&mut self, now: Ticks, device: &mut D, place: (u64, u64)) {
        let (number, offset) = place;
        let mut sealed = self.queue.pop_front().expect("placed just now");
        self.queue_bytes -= sealed.buffer.len();
        assert!(sealed.sequence > self.last.sequence, "blocks are submitted in order");
        let is_seal = sealed.records == 0;
        let life = if self.life_begun { 0 } else { FLAG_LIFE };
        let flags = life | if is_seal { FLAG_SEAL } else { 0 };
        let durable = self.durable;
        #[cfg(ringraft_plant)]
        let durable = if planted(Plant::DurableOverstated) { self.last.sequence } else { durable };
        let checksum = sealed.stamp(BlockHeader {
            identity: self.identity,
            flags,
            segment: number,
            offset,
            previous: self.last.sequence,
            before: self.last.previous,
            durable,
            oldest: self.oldest,
            chain: self.last.checksum,
            // The block fills in the rest itself.
            directory_at: 0,
            items: 0,
            repeated: 0,
            sequence: sealed.sequence,
            records: 0,
            length: 0,
        });
        self.life_begun = true;
        // A first block names what recovery kept as durable, so an empty one needs no seal.
        self.needs_seal = !is_seal;
        self.last = Link { sequence: sealed.sequence, previous: self.last.sequence, checksum };
        self.submitted = sealed.sequence;
        let file = self.segments.file(number);
        #[cfg(ringraft_plant)]
        if planted(Plant::BufferReused)
            && let Some(flight) = self.flights.back()
        {
            // The kernel comes to read that block's buffer now, and finds this block in it.
            let mut buffer = sealed.buffer.clone();
            buffer.set_window(flight.length.min(sealed.buffer.len()));
            let (file, offset, durability) = (flight.file, flight.offset, Durability::None);
            let late = Operation::Write { file, offset, buffer, durability };
            self.operations.submit(device, Purpose::Remove, late);
        }
        self.flights.push_back(Flight {
            sequence: sealed.sequence,
            file,
            offset,
            length: sealed.buffer.len(),
            records: sealed.records,
            directory: Some(sealed.directory),
            submitted: now,
            attempts: 0,
            is_split: false,
            is_done: false,
        });
        let durability = self.settings.durability;
        #[cfg(ringraft_plant)]
        let durability = if planted(Plant::SyncUnordered) { Durability::None } else { durability };
        let operation = Operation::Write { file, offset, buffer: sealed.buffer, durability };
        self.operations.submit(device, Purpose::Block(sealed.sequence), operation);
        #[cfg(ringraft_plant)]
        if planted(Plant::SyncUnordered) {
            let purpose = Purpose::BlockSync(sealed.sequence);
            self.operations.submit(device, purpose, Operation::Sync(file));
        }
    }

    fn flight(&mut self, sequence: Sequence) -> &mut Flight {
        self.flights
            .iter_mut()
            .find(|flight| flight.sequence == sequence)
            .expect("a block is in flight until it is done")
    }

    pub(super) fn block_written<D: Device>(
        &mut self,
        now: Ticks,
        device: &mut D,
        sequence: Sequence,
        completion: Completion,
    ) -> Result<(), WalFatal> {
        let durability = self.settings.durability;
        let align = self.align;
        let mut buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        #[cfg(ringraft_plant)]
        if planted(Plant::SyncUnordered) && completion.result == buffer.len() as i32 {
            self.recycle(buffer);
            return Ok(());
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::HoleIgnored)
            && !self.flights.iter().any(|flight| flight.sequence == sequence && !flight.is_done)
        {
            self.recycle(buffer);
            return Ok(());
        }
        let flight = self.flight(sequence);
        let (file, offset) = (flight.file, flight.offset);
        // A sync that ran and failed is final, whatever became of the write. One that was
        // cancelled, because the write before it was short, never ran.
        let sync = completion.sync_result.unwrap_or(0);
        #[cfg(ringraft_plant)]
        let sync = if planted(Plant::SyncRetried) { 0 } else { sync };
        if sync < 0 && sync != -libc::ECANCELED && completion.result >= 0 {
            return Err(WalFatal::Sync { file: Some(file), errno: -sync });
        }
        let written = match completion.result {
            errno if errno < 0 => {
                let errno = -errno;
                if !matches!(errno, libc::EAGAIN | libc::EINTR | libc::ECANCELED) {
                    return Err(WalFatal::Write { file, offset, errno });
                }
                0
            }
            written => written as usize,
        };
        assert!(written <= buffer.len(), "a device writes no more than it was given");
        #[cfg(ringraft_plant)]
        let written =
            if planted(Plant::ShortWriteIgnored) && written > 0 { buffer.len() } else { written };
        if written == buffer.len() {
            let is_synced = match durability {
                Durability::None => true,
                Durability::Dsync => !flight.is_split,
                Durability::LinkedSync | Durability::Blocking => {
                    !flight.is_split && completion.sync_result == Some(0)
                }
            };
            #[cfg(ringraft_plant)]
            let is_synced = is_synced || planted(Plant::SplitUnsynced);
            if is_synced {
                self.block_done(now, sequence);
            } else {
                self.stats.syncs += 1;
                self.operations.submit(device, Purpose::BlockSync(sequence), Operation::Sync(file));
            }
            self.recycle(buffer);
            return Ok(());
        }
        let whole = written & !(align - 1);
        flight.attempts = if whole > 0 { 0 } else { flight.attempts + 1 };
        if flight.attempts > ATTEMPTS_MAX {
            return Err(WalFatal::Stuck { file, offset });
        }
        flight.is_split |= written > 0;
        let durability = if flight.is_split { Durability::None } else { durability };
        if written > 0 {
            self.stats.short_writes += 1;
        } else {
            self.stats.retries += 1;
        }
        buffer.advance(whole);
        let offset = offset + buffer.start() as u64;
        let rest = Operation::Write { file, offset, buffer, durability };
        self.operations.submit(device, Purpose::Block(sequence), rest);
        Ok(())
    }

    pub(super) fn block_synced(
        &mut self,
        now: Ticks,
        sequence: Sequence,
        completion: &Completion,
    ) -> Result<(), WalFatal> {
        if completion.result < 0 {
            let file = Some(self.flight(sequence).file);
            return Err(WalFatal::Sync { file, errno: -completion.result });
        }
        self.block_done(now, sequence);
        Ok(())
    }

    fn block_done(&mut self, now: Ticks, sequence: Sequence) {
        let flight = self.flight(sequence);
        assert!(!flight.is_done, "a block is done once");
        flight.is_done = true;
        let latency = now.since(flight.submitted);
        self.stats.note_latency(latency);
        self.stats.syncs += u64::from(self.settings.durability != Durability::None);
        self.idle_since = now;
        #[cfg(ringraft_plant)]
        if planted(Plant::HoleIgnored) {
            let earlier = self.flights.iter_mut().filter(|flight| flight.sequence < sequence);
            earlier.for_each(|flight| flight.is_done = true);
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    /// Durable is the contiguous prefix: a block that overtook another one waits for it.
    pub(super) fn advance_durable(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.is_done) {
            let mut flight = self.flights.pop_front().expect("looked at just now");
            assert!(flight.sequence > self.durable, "durable only grows");
            self.durable = flight.sequence;
            self.stats.blocks += 1;
            self.stats.seals += u64::from(flight.records == 0);
            self.stats.records += u64::from(flight.records);
            self.stats.bytes += flight.length as u64;
            if let Some(directory) = flight.directory.take() {
                self.directories.push(directory);
            }
        }
        assert!(self.durable <= self.submitted, "nothing is durable that wasn't submitted");
    }
}
