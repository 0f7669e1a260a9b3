//! Reading a log back after a start: step by step, through the device only.
//!
//! The heads of snapshots are read first. Then every segment is read whole and verified, and
//! `replay.rs` decides. A log in which something is wrong is read once more, from the first segment
//! on in which that may lie: what a read brought from elsewhere, or from earlier, is neither rot nor
//! a torn tail (S11). Before the result is handed over, the segments that hold blocks not known
//! as durable are synced: what is returned from here is durable.

use crate::buffer::{Buffer, BufferPool};
use crate::device::{Completion, Device, FileId, FileKind, Operation, ReadFrom};
use crate::error::{RotReport, WalError};
use crate::format::LIFE_GAP;
use crate::log::{Link, Log, Start};
use crate::operations::Operations;
pub use crate::replay::{EntryRun, Outline};
use crate::replay::{FLOOR_UNKNOWN, Outcome, replay, term_in};
use crate::scan::{ScannedSegment, Scanner};
use crate::segment::{Place, Segment};
use crate::settings::LogSettings;
use crate::snapshot::{HEAD_BYTES, SnapshotHead, SnapshotHeadError};
use crate::unreadable::{Unreadable, behind};
use ringraft_types::limits::BLOCK_ALIGN_MIN;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, LogId, Sequence, Term, Ticks};
use std::collections::{BTreeMap, VecDeque};

/// Bytes per read.
const CHUNK_BYTES: usize = 1 << 20;
/// How often a unit is read that fails or comes short.
const UNIT_READS_MAX: u32 = 4;
/// Reads in flight.
const READS_MAX: usize = 4;
/// Snapshots whose heads are read at once.
const HEADS_MAX: usize = 8;
/// Bytes scanned in one turn, more or less.
const TURN_BYTES: usize = 16 << 20;

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Every group that has a record in the log.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The node's own records, encoded; the newest of each kind and index.
    pub node_records: Vec<Vec<u8>>,
    /// Some of the node's own records were lost, or may have been: `unknown_damage` is among it.
    pub node_damaged: bool,
    /// Rot that can't be told to belong to certain groups: any group of this log, also one that
    /// isn't among `groups`, may have lost anything.
    pub unknown_damage: bool,
    /// Blocks that were cut because nobody can have been told of them.
    pub torn_blocks: u64,
    /// Blocks of another place or life, ignored.
    pub stale_blocks: u64,
    /// Everything that was good once and isn't now.
    pub rot: Vec<RotReport>,
    /// Whether there was no log at all.
    pub is_empty: bool,
    /// Segment files read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The last block kept.
    pub last: Sequence,
    /// Snapshots whose heads are intact, ascending by number.
    pub snapshots: Vec<SnapshotHead>,
    /// Files of snapshots that were durable once and whose heads can't be read.
    pub snapshots_lost: Vec<u64>,
}

/// What recovery found of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Term, vote (zero: none) and commit index; `None`: none was written, or see `hard_lost`.
    pub hard: Option<(Term, u32, Index)>,
    /// The newest hard state was lost. The term it had: in this term and below the node must not
    /// vote. `u64::MAX`: not known.
    pub hard_lost: Option<Term>,
    /// Where each term of the entries `first` to `last` starts.
    pub runs: Vec<(Index, Term)>,
    /// The first entry.
    pub first: Index,
    /// The last entry before the first damage; one less than `first` if there is none.
    pub last: Index,
    /// Entries were lost. The group must vote as if it held this one, and not campaign, until it
    /// is repaired. Term and index `u64::MAX`: what was lost isn't known.
    pub damaged: Option<LogId>,
    /// With damage: the intact entries behind the last hole, enough if a snapshot covers what is
    /// before them. They can be read too.
    pub tail: Option<EntryRun>,
    /// With damage: the whole log with its holes, if what is missing is known.
    pub outline: Option<Outline>,
    /// What the newest record says of a snapshot: the log needn't hold what is in it.
    pub named: Option<NamedSnapshot>,
    /// The payloads of the entries that hold configurations, of the run, the tail and the outline,
    /// by index, ascending.
    pub configurations: Vec<(Index, Vec<u8>)>,
}

impl RecoveredGroup {
    /// The term of the entry of this index, in the run, in the tail, or between them.
    fn term(&self, index: Index) -> Option<Term> {
        let run = term_in((self.first, self.last), &self.runs, index);
        let tail = || self.tail.as_ref().and_then(|it| it.term_at(index));
        let between = || self.outline.as_ref().and_then(|it| it.term_at(index));
        run.or_else(tail).or_else(between)
    }
}

/// What a log says of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// The newest entry in it.
    pub last: LogId,
    /// The file's number.
    pub number: u64,
}

/// Where recovery stands.
#[derive(Debug)]
pub enum RecoveryStep {
    /// Call again, at once or when the device has completed something.
    Working,
    /// Done.
    Done(Box<(Log, Recovered)>),
    /// Refused; nothing was changed.
    Failed(WalError),
}

#[derive(Debug)]
enum State {
    Begin,
    Listing,
    Snapshots { waiting: usize },
    Opening,
    Reading(Box<Reading>),
    Syncing { waiting: usize },
    Finished,
}

#[derive(Debug)]
struct Reading {
    scanner: Scanner,
    file: FileId,
    length: u64,
    /// Read requests go up to here.
    asked: u64,
    /// Bytes up to here were given to the scanner.
    fed: u64,
    in_flight: usize,
    unreadable: Vec<Unreadable>,
    arrived: BTreeMap<u64, Buffer>,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    List,
    OpenSnapshot(FileId, u64),
    ReopenSnapshot(FileId),
    SyncSnapshot(FileId),
    ReadHead(FileId, u64, u32),
    Close,
    Open(FileId),
    Read { offset: u64, bytes: usize, tries: u32 },
    Sync(Option<FileId>),
    Forget,
    Remove,
}

/// A recovery in progress.
#[derive(Debug)]
pub struct Recovery {
    settings: LogSettings,
    state: State,
    operations: Operations<Purpose>,
    buffers: BufferPool,
    files: VecDeque<(FileId, u64)>,
    snapshot_files: VecDeque<(FileId, u64)>,
    heads: BTreeMap<u64, Result<SnapshotHead, SnapshotHeadError>>,
    snapshots_lost: Vec<u64>,
    scanned: Vec<ScannedSegment>,
    /// The newest block before each of them.
    before: Vec<(Sequence, u32)>,
    last: (Sequence, u32),
    /// What is read is read for the second time.
    is_again: bool,
    bytes: u64,
    outcome: Option<Outcome>,
}

impl Recovery {
    /// A recovery with these settings. Nothing happens before the first turn.
    pub fn new(settings: LogSettings) -> Self {
        Self {
            settings,
            state: State::Begin,
            operations: Operations::new(0),
            buffers: BufferPool::new(CHUNK_BYTES, BLOCK_ALIGN_MIN, 0),
            files: VecDeque::new(),
            snapshot_files: VecDeque::new(),
            heads: BTreeMap::new(),
            snapshots_lost: Vec::new(),
            scanned: Vec::new(),
            before: Vec::new(),
            last: (Sequence::ZERO, 0),
            is_again: false,
            bytes: 0,
            outcome: None,
        }
    }

    /// Recovers a log from its beginning to its end, on a device that completes at once.
    ///
    /// # Errors
    /// If the log is refused; nothing was changed.
    pub fn run<D: Device>(
        settings: LogSettings,
        device: &mut D,
    ) -> Result<(Log, Recovered), WalError> {
        let mut recovery = Self::new(settings);
        loop {
            match recovery.turn(Ticks::ZERO, device) {
                RecoveryStep::Working => {}
                RecoveryStep::Done(done) => return Ok(*done),
                RecoveryStep::Failed(error) => return Err(error),
            }
        }
    }

    /// One step, of bounded work. With a device that completes at once a loop of turns finishes.
    ///
    /// # Panics
    /// If called again after [`RecoveryStep::Done`] or [`RecoveryStep::Failed`].
    pub fn turn<D: Device>(&mut self, _now: Ticks, device: &mut D) -> RecoveryStep {
        match self.advance(device) {
            Ok(None) => RecoveryStep::Working,
            Ok(Some(done)) => {
                self.state = State::Finished;
                RecoveryStep::Done(done)
            }
            Err(error) => {
                self.state = State::Finished;
                RecoveryStep::Failed(error)
            }
        }
    }

    fn advance<D: Device>(
        &mut self,
        device: &mut D,
    ) -> Result<Option<Box<(Log, Recovered)>>, WalError> {
        assert!(!matches!(self.state, State::Finished), "a recovery finishes once");
        if matches!(self.state, State::Begin) {
            let align = device.geometry().align;
            self.settings.validate(align)?;
            self.buffers = BufferPool::new(CHUNK_BYTES, align, READS_MAX);
            self.operations.submit(device, Purpose::List, Operation::List);
            self.state = State::Listing;
        }
        let until = self.bytes + TURN_BYTES as u64;
        loop {
            let completed = self.operations.poll(device);
            if completed.is_empty() {
                break;
            }
            for (purpose, completion) in completed {
                self.completed(device, purpose, completion)?;
            }
            if self.bytes >= until {
                break;
            }
        }
        match self.state {
            State::Syncing { waiting: 0 } if self.operations.is_empty() => {
                Ok(Some(self.finish(device.geometry().align)))
            }
            _ => Ok(None),
        }
    }

    fn completed<D: Device>(
        &mut self,
        device: &mut D,
        purpose: Purpose,
        completion: Completion,
    ) -> Result<(), WalError> {
        let result = completion.result;
        let failed = |what, file| Err(WalError::Io { what, file, errno: -result });
        match purpose {
            Purpose::List if result < 0 => failed("listing", None),
            Purpose::List => {
                let mut files = completion.files;
                files.retain(|(file, _)| file.owner == self.settings.log_id);
                files.sort_unstable();
                let is_segment = |(file, _): &(FileId, u64)| file.kind == FileKind::Segment;
                let (segments, snapshots) = files.into_iter().partition(is_segment);
                (self.files, self.snapshot_files) = (segments, snapshots);
                self.state = State::Snapshots { waiting: 0 };
                self.read_heads(device)
            }
            Purpose::OpenSnapshot(file, _) if result < 0 => failed("opening", Some(file)),
            Purpose::OpenSnapshot(file, length) => {
                self.read_head(device, file, length, 0);
                Ok(())
            }
            Purpose::ReadHead(file, length, tries) => {
                self.head_arrived(device, file, length, tries, &completion)
            }
            Purpose::ReopenSnapshot(file) if result < 0 => failed("opening", Some(file)),
            Purpose::ReopenSnapshot(file) => {
                let purpose = Purpose::SyncSnapshot(file);
                self.operations.submit(device, purpose, Operation::Sync(file));
                Ok(())
            }
            Purpose::SyncSnapshot(file) if result < 0 => failed("syncing", Some(file)),
            Purpose::SyncSnapshot(file) => {
                if let State::Syncing { waiting } = &mut self.state {
                    *waiting -= 1;
                }
                self.operations.submit(device, Purpose::Close, Operation::Close(file));
                Ok(())
            }
            // A file that can't be closed costs a descriptor, nothing else. Nothing is opened
            // again before it is closed.
            Purpose::Close => match &mut self.state {
                State::Snapshots { waiting } => {
                    *waiting -= 1;
                    self.read_heads(device)
                }
                _ => Ok(()),
            },
            Purpose::Open(file) if result < 0 => failed("opening", Some(file)),
            Purpose::Open(_) => self.read_next(device),
            Purpose::Read { offset, bytes, tries } => {
                self.read_arrived(device, (offset, bytes), tries, completion)
            }
            Purpose::Sync(file) if result < 0 => failed("syncing", file),
            // What can't be dropped costs memory for a while, nothing else.
            Purpose::Sync(_) | Purpose::Forget => {
                if let State::Syncing { waiting } = &mut self.state {
                    *waiting -= 1;
                }
                Ok(())
            }
            // A file that can't be removed costs space, nothing else.
            Purpose::Remove => Ok(()),
        }
    }

    /// Opens the next snapshots, to read their heads.
    fn read_heads<D: Device>(&mut self, device: &mut D) -> Result<(), WalError> {
        let State::Snapshots { waiting } = &mut self.state else { return Ok(()) };
        while *waiting < HEADS_MAX
            && let Some((file, length)) = self.snapshot_files.pop_front()
        {
            *waiting += 1;
            let purpose = Purpose::OpenSnapshot(file, length);
            self.operations.submit(device, purpose, Operation::Open(file));
        }
        if *waiting == 0 { self.open_next(device) } else { Ok(()) }
    }

    fn read_head<D: Device>(&mut self, device: &mut D, file: FileId, length: u64, tries: u32) {
        let align = device.geometry().align;
        let buffer = Buffer::zeroed(crate::format::round_up(HEAD_BYTES, align), align);
        let purpose = Purpose::ReadHead(file, length, tries);
        let read = Operation::Read { file, offset: 0, buffer, from: ReadFrom::Disk };
        self.operations.submit(device, purpose, read);
    }

    fn head_arrived<D: Device>(
        &mut self,
        device: &mut D,
        file: FileId,
        length: u64,
        tries: u32,
        completion: &Completion,
    ) -> Result<(), WalError> {
        let buffer = completion.buffer.as_ref().expect("a device gives the buffer back (I-08)");
        let count = usize::try_from(completion.result).unwrap_or(0);
        let expected = (length.min(HEAD_BYTES as u64)) as usize;
        let head = if count < expected {
            Err(SnapshotHeadError::Bad)
        } else {
            SnapshotHead::decode(&buffer[..expected], file, length)
        };
        if head == Err(SnapshotHeadError::Bad) && tries < UNIT_READS_MAX {
            // What fails or misleads once may go well the next time.
            self.read_head(device, file, length, tries + 1);
            return Ok(());
        }
        if let Err(SnapshotHeadError::Version(version)) = head {
            return Err(WalError::Version { file, offset: 0, version });
        }
        if let Ok(head) = &head {
            let ours = self.settings.identity();
            crate::scan::check_identity(file, &head.identity, &ours, file.number)?;
        }
        self.heads.insert(file.number, head);
        self.operations.submit(device, Purpose::Close, Operation::Close(file));
        Ok(())
    }

    fn open_next<D: Device>(&mut self, device: &mut D) -> Result<(), WalError> {
        let Some(&(file, _)) = self.files.front() else { return self.decide(device) };
        if self.is_again {
            // It is open.
            return self.read_next(device);
        }
        self.state = State::Opening;
        self.operations.submit(device, Purpose::Open(file), Operation::Open(file));
        Ok(())
    }

    fn read_next<D: Device>(&mut self, device: &mut D) -> Result<(), WalError> {
        let (file, length) = self.files.pop_front().expect("a file that is open");
        let identity = self.settings.identity();
        self.before.push(self.last);
        self.state = State::Reading(Box::new(Reading {
            scanner: Scanner::new(identity, file, length, self.last),
            file,
            length,
            asked: 0,
            fed: 0,
            in_flight: 0,
            unreadable: Vec::new(),
            arrived: BTreeMap::new(),
        }));
        self.read_on(device)
    }

    /// From which segment on the log is to be read again; `None`: nothing is wrong, or it was read
    /// twice.
    fn to_be_read_again(&self, outcome: &Outcome) -> Option<usize> {
        if self.is_again || outcome.rot.is_empty() && outcome.torn_blocks == 0 {
            return None;
        }
        let is_odd = |segment: &ScannedSegment| {
            let is_bad = segment.header.is_err() || segment.blocks.iter().any(|it| it.is_rotten);
            is_bad || !segment.garbage.is_empty() || segment.stale > 0
        };
        // Where nothing is to be seen a block may be missing anywhere.
        Some(self.scanned.iter().position(is_odd).filter(|_| outcome.rot.is_empty()).unwrap_or(0))
    }

    fn read_again<D: Device>(&mut self, device: &mut D, from: usize) -> Result<(), WalError> {
        self.is_again = true;
        let files = self.scanned.drain(from..).map(|segment| (segment.file, segment.length));
        self.files = files.collect();
        self.last = self.before[from];
        self.before.truncate(from);
        self.open_next(device)
    }

    fn read_on<D: Device>(&mut self, device: &mut D) -> Result<(), WalError> {
        let State::Reading(reading) = &mut self.state else { return Ok(()) };
        let align = device.geometry().align;
        while reading.asked < reading.length
            && reading.in_flight < READS_MAX
            && reading.asked < reading.fed + (READS_MAX * CHUNK_BYTES) as u64
        {
            let left = reading.length - reading.asked;
            let bytes = left.min(CHUNK_BYTES as u64) as usize;
            // Zeroing memory costs: a small file gets a small buffer.
            let buffer = if bytes == CHUNK_BYTES {
                self.buffers.take()
            } else {
                Buffer::zeroed(crate::format::round_up(bytes, align), align)
            };
            let (file, offset) = (reading.file, reading.asked);
            reading.asked += bytes as u64;
            reading.in_flight += 1;
            let purpose = Purpose::Read { offset, bytes, tries: 0 };
            // It is read once more to be applied. What looked wrong is asked of the disk itself.
            let from = if self.is_again { ReadFrom::Disk } else { ReadFrom::Cache };
            let read = Operation::Read { file, offset, buffer, from };
            self.operations.submit(device, purpose, read);
        }
        if reading.fed < reading.length {
            return Ok(());
        }
        let State::Reading(mut reading) = std::mem::replace(&mut self.state, State::Opening) else {
            unreachable!("it was reading just now");
        };
        // Units are tried again beside each other, so they fail in any order.
        reading.unreadable.sort_unstable();
        reading.scanner.could_not_read(reading.unreadable);
        let (segment, last) = reading.scanner.finish()?;
        self.scanned.push(segment);
        self.last = last;
        self.open_next(device)
    }

    fn read_arrived<D: Device>(
        &mut self,
        device: &mut D,
        (offset, bytes): (u64, usize),
        tries: u32,
        completion: Completion,
    ) -> Result<(), WalError> {
        let align = device.geometry().align;
        let mut buffer = completion.buffer.expect("a device gives the buffer back (I-08)");
        let State::Reading(reading) = &mut self.state else {
            unreachable!("reads belong to the segment being read");
        };
        reading.in_flight -= 1;
        let count = usize::try_from(completion.result).unwrap_or(0).min(bytes);
        let is_whole = count == bytes;
        if !is_whole && (bytes > align || tries < UNIT_READS_MAX) {
            // Failed or short: by units, so that one bad sector doesn't hide its neighbours. What
            // fails once may go well the next time.
            for start in (0..bytes).step_by(align) {
                let unit = align.min(bytes - start);
                let (file, offset) = (reading.file, offset + start as u64);
                reading.in_flight += 1;
                let buffer = Buffer::zeroed(align, align);
                let purpose = Purpose::Read { offset, bytes: unit, tries: tries + 1 };
                let read = Operation::Read { file, offset, buffer, from: ReadFrom::Disk };
                self.operations.submit(device, purpose, read);
            }
            return Ok(());
        }
        if !is_whole {
            // Unreadable isn't empty: neither block nor zero.
            buffer[..bytes].fill(0xEE);
            let errno = -completion.result.min(0);
            reading.unreadable.push(Unreadable { offset, bytes: bytes as u64, errno });
        }
        buffer.set_window(bytes);
        reading.arrived.insert(offset, buffer);
        while let Some(buffer) = reading.arrived.remove(&reading.fed) {
            reading.fed += buffer.len() as u64;
            self.bytes += buffer.len() as u64;
            reading.scanner.feed(&buffer)?;
            if buffer.capacity() == CHUNK_BYTES {
                self.buffers.give(buffer);
            }
        }
        self.read_on(device)
    }

    /// All segments are known: decides, then syncs what isn't known as durable.
    fn decide<D: Device>(&mut self, device: &mut D) -> Result<(), WalError> {
        for segment in &self.scanned {
            if let (Err(_), true, Some(foreign)) =
                (&segment.header, segment.blocks.is_empty(), segment.foreign)
            {
                let ours = self.settings.identity();
                crate::scan::check_identity(segment.file, &foreign, &ours, segment.file.number)?;
            }
        }
        let outcome = replay(&self.scanned);
        if let Some(from) = self.to_be_read_again(&outcome) {
            return self.read_again(device, from);
        }
        let last = outcome.kept.last().map(|&(at, block)| &self.scanned[at].blocks[block].header);
        let unreadable = behind(&self.scanned, last);
        #[cfg(ringraft_plant)]
        let unreadable = unreadable.filter(|_| !planted(Plant::UnreadableCut));
        if let Some((file, Unreadable { offset, errno, .. })) = unreadable {
            return Err(WalError::Unreadable { file, offset, errno });
        }
        let is_lost = self.settings.is_begun && outcome.kept.is_empty();
        #[cfg(ringraft_plant)]
        let is_lost = is_lost && !planted(Plant::LostLogTaken);
        if is_lost {
            return Err(WalError::Lost { log_id: self.settings.log_id });
        }
        let mut waiting = 0;
        for (number, segment) in self.scanned.iter().enumerate() {
            let newest = outcome.kept.iter().rev().find(|kept| kept.0 == number);
            let newest = newest.map(|&(_, block)| segment.blocks[block].header.sequence);
            let is_new = newest.is_some_and(|newest| newest > outcome.durable);
            #[cfg(ringraft_plant)]
            let is_new = is_new && !planted(Plant::RecoveryUnsynced);
            if is_new {
                waiting += 1;
                let sync = Operation::Sync(segment.file);
                self.operations.submit(device, Purpose::Sync(Some(segment.file)), sync);
            }
        }
        let (spares, unused) = self.classify();
        // A process that was killed may have left a spare whose header or name isn't durable yet;
        // blocks must not be written to it before both are.
        for &number in &spares {
            waiting += 1;
            let file = FileId::segment(self.settings.log_id, number);
            self.operations.submit(device, Purpose::Sync(Some(file)), Operation::Sync(file));
            // It is to be written, and not to be read again.
            waiting += 1;
            self.operations.submit(device, Purpose::Forget, Operation::Forget(file));
        }
        // The same of a snapshot that no record names yet: its head or its name.
        let fresh = self.unnamed(&outcome);
        for &file in &fresh {
            waiting += 1;
            self.operations.submit(device, Purpose::ReopenSnapshot(file), Operation::Open(file));
        }
        if !spares.is_empty() || !fresh.is_empty() {
            waiting += 1;
            self.operations.submit(device, Purpose::Sync(None), Operation::SyncDirectory);
        }
        let (unfinished, lost) = self.judge_heads(&outcome);
        for file in unused.into_iter().chain(unfinished) {
            self.operations.submit(device, Purpose::Remove, Operation::Remove(file));
        }
        self.snapshots_lost = lost;
        self.outcome = Some(outcome);
        self.state = State::Syncing { waiting };
        Ok(())
    }

    /// Snapshots that no record of the log names, or names yet.
    fn unnamed(&self, outcome: &Outcome) -> Vec<FileId> {
        let is_named = |head: &&SnapshotHead| {
            let group = outcome.groups.get(&head.group);
            let named = group.and_then(|group| group.named);
            named.is_some_and(|named| named.number >= head.number)
        };
        let heads = self.heads.values().filter_map(|head| head.as_ref().ok());
        heads.filter(|head| !is_named(head)).map(|head| head.file()).collect()
    }

    /// Of the snapshots without a head: those that were never finished, and the numbers of those
    /// that were durable once, or may have been. Nothing is released from a log before a record of
    /// it names the snapshot.
    fn judge_heads(&self, outcome: &Outcome) -> (Vec<FileId>, Vec<u64>) {
        let groups = || outcome.groups.values();
        let is_unknown = outcome.unknown_damage || groups().any(|group| group.name_lost);
        let (mut unfinished, mut lost) = (Vec::new(), Vec::new());
        for (&number, _) in self.heads.iter().filter(|(_, head)| head.is_err()) {
            let is_named = groups().any(|group| group.named.is_some_and(|it| it.number == number));
            if is_named || is_unknown {
                lost.push(number);
            } else {
                unfinished.push(FileId::snapshot(self.settings.log_id, number));
            }
        }
        (unfinished, lost)
    }

    /// Spares to go on with, and files that were never used and are of no use.
    fn classify(&self) -> (VecDeque<u64>, Vec<FileId>) {
        let is_written = |segment: &ScannedSegment| {
            !segment.blocks.is_empty() || !segment.garbage.is_empty() || segment.stale > 0
        };
        let last_written = self.scanned.iter().rev().find(|segment| is_written(segment));
        let last_written = last_written.map(|segment| segment.file.number);
        let mut spares = VecDeque::new();
        let mut unused = Vec::new();
        for segment in &self.scanned {
            let number = segment.file.number;
            if is_written(segment) || last_written.is_some_and(|last| number < last) {
                continue;
            }
            let is_made = segment.header.is_ok_and(|header| {
                header.length == self.settings.segment_bytes && segment.length == header.length
            });
            if is_made {
                spares.push_back(number);
            } else {
                unused.push(segment.file);
            }
        }
        (spares, unused)
    }

    fn finish(&mut self, align: usize) -> Box<(Log, Recovered)> {
        let outcome = self.outcome.take().expect("decided before");
        let (spares, unused) = self.classify();
        let mut recovered = Recovered {
            node_damaged: outcome.node_damaged(),
            unknown_damage: outcome.unknown_damage,
            torn_blocks: outcome.torn_blocks,
            stale_blocks: outcome.stale_blocks,
            is_empty: self.scanned.iter().all(|segment| segment.blocks.is_empty()),
            segments: self.scanned.len() as u64,
            bytes: self.bytes,
            ..Recovered::default()
        };
        for (&group, replay) in &outcome.groups {
            let (run, floor, tail) = replay.result();
            let is_unknown = outcome.unknown_damage;
            // The snapshot that it names may be one of those, and newer than all that is known.
            let is_owed = replay.name_lost && !self.snapshots_lost.is_empty();
            let is_unsure = is_unknown || is_owed;
            // A term is durable before its entries: a newer one was, and nothing is left of it (V4).
            let terms = run.terms.iter().chain(tail.iter().flat_map(|tail| &tail.terms));
            let newest = terms.map(|&(_, term)| term).max().unwrap_or_default();
            let is_term_lost = replay.hard.is_some_and(|(term, ..)| term < newest);
            let is_hard_unknown = is_unknown || is_term_lost && replay.hard_lost.is_none();
            recovered.groups.insert(
                group,
                RecoveredGroup {
                    hard: replay.hard,
                    hard_lost: match is_hard_unknown {
                        true => Some(FLOOR_UNKNOWN.term),
                        false => replay.hard_lost,
                    },
                    runs: run.terms,
                    first: run.first,
                    last: run.last,
                    damaged: if is_unsure { Some(FLOOR_UNKNOWN) } else { floor },
                    tail,
                    outline: if is_unsure { None } else { replay.outline() },
                    named: replay.named,
                    configurations: Vec::new(),
                },
            );
        }
        let mut used: VecDeque<Segment> = VecDeque::new();
        let mut locals = crate::log::Locals::default();
        let mut node: BTreeMap<(u8, Index), Vec<u8>> = BTreeMap::new();
        let mut configurations: BTreeMap<(GroupId, Index), Vec<u8>> = BTreeMap::new();
        let mut last = Link::default();
        let mut repeat = Vec::new();
        for &(segment, block) in &outcome.kept {
            let number = self.scanned[segment].file.number;
            let block = &mut self.scanned[segment].blocks[block];
            let header = block.header;
            if used.back().is_none_or(|last| last.number != number) {
                used.push_back(Segment { number, places: Vec::new() });
            }
            used.back_mut().expect("pushed if there was none").places.push(Place {
                sequence: header.sequence,
                offset_units: (header.offset / 4096) as u32,
                length_units: header.length / 4096,
            });
            for bytes in std::mem::take(&mut block.locals) {
                let record = record::peek(&bytes).expect("verified by the scan");
                if record.group == GroupId::ZERO && record.kind != RecordKind::HardState {
                    node.insert((record.kind as u8, record.index), bytes.clone());
                }
                locals.note(&record, &bytes, header.sequence);
            }
            for found in std::mem::take(&mut block.configurations) {
                // Index and term say which entry it is: what became of entries became of these.
                let group = recovered.groups.get(&found.group);
                if group.and_then(|group| group.term(found.id.index)) == Some(found.id.term) {
                    configurations.insert((found.group, found.id.index), found.payload);
                }
            }
            last = Link {
                sequence: header.sequence,
                previous: header.previous,
                checksum: block.checksum,
            };
            repeat = std::mem::take(&mut block.directory);
        }
        recovered.node_records = node.into_values().collect();
        for ((group, index), payload) in configurations {
            let group = recovered.groups.get_mut(&group).expect("one that holds an entry");
            group.configurations.push((index, payload));
        }
        recovered.last = last.sequence;
        // Written, but nothing kept: torn, stale, or left of an interrupted removal. An old file
        // that may be evidence of rot stays.
        let is_damaged = outcome.unknown_damage;
        let leftovers = self
            .scanned
            .iter()
            .filter(|segment| {
                let number = segment.file.number;
                let is_used = used.iter().any(|used| used.number == number);
                let is_spare = spares.contains(&number) || unused.contains(&segment.file);
                !is_used && !is_spare && !is_damaged
            })
            .map(|segment| segment.file)
            .collect();
        let next_number =
            self.scanned.iter().map(|segment| segment.file.number + 1).max().unwrap_or(1);
        let gap = if self.scanned.is_empty() { 1 } else { LIFE_GAP };
        let next_sequence = Sequence(outcome.newest_seen.0.max(last.sequence.0) + gap);
        let index = outcome.index();
        recovered.rot = outcome.rot;
        recovered.snapshots_lost = std::mem::take(&mut self.snapshots_lost);
        recovered.snapshots = self.heads.values().filter_map(|head| head.ok()).collect();
        let next_snapshot = self.heads.keys().next_back().map_or(1, |newest| newest + 1);
        let is_owing = |group: &RecoveredGroup| {
            group.damaged.is_some() || group.hard_lost == Some(FLOOR_UNKNOWN.term)
        };
        let owing = recovered.groups.iter().filter(|(_, found)| is_owing(found));
        let owing = owing.map(|(&group, _)| group).collect();
        let mut log = Log::start(Start {
            settings: self.settings.clone(),
            align,
            last,
            repeat,
            next_sequence,
            oldest: outcome.oldest,
            used,
            spares,
            next_number,
            index,
            locals,
            leftovers,
            keeps_all: recovered.node_damaged,
            owing,
            next_operation: self.operations.next(),
            next_snapshot,
        });
        // What the former life didn't come to remove: nobody asks for that again. What may be evidence
        // of rot can wait for the next who does.
        log.purge_asked = recovered.rot.is_empty();
        Box::new((log, recovered))
    }
}
