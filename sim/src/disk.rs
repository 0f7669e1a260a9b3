//! The disk of one shard: sectors in memory that outlive their node, and operations that take
//! time, come back in any order, and go wrong.
//!
//! The device only keeps what it is told to do; the world draws how long each operation takes and
//! what becomes of it, and lets it finish.

use std::collections::BTreeMap;

use ringraft_types::tag::Tag;
use ringraft_wal::device::memory::{Effect, Fault, MemoryDevice, OperationKind, SECTOR_BYTES};
use ringraft_wal::device::{Completion, Device, Durability, FileKind, Geometry, Operation};

use crate::random::Random;

/// What an operation does, as far as it matters to how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    List,
    Create,
    Open,
    Write,
    SyncedWrite,
    Read,
    Forget,
    Sync,
    SyncDirectory,
    Close,
    Remove,
}

impl Work {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::List => Self::List,
            Operation::Create(_) => Self::Create,
            Operation::Open(_) => Self::Open,
            Operation::Write { durability: Durability::None, .. } => Self::Write,
            Operation::Write { .. } => Self::SyncedWrite,
            Operation::Read { .. } => Self::Read,
            Operation::Forget(_) => Self::Forget,
            Operation::Sync(_) => Self::Sync,
            Operation::SyncDirectory => Self::SyncDirectory,
            Operation::Close(_) => Self::Close,
            Operation::Remove(_) => Self::Remove,
        }
    }

    fn kind(self) -> OperationKind {
        match self {
            Self::List => OperationKind::List,
            Self::Create => OperationKind::Create,
            Self::Open => OperationKind::Open,
            Self::Write | Self::SyncedWrite => OperationKind::Write,
            Self::Read => OperationKind::Read,
            Self::Forget => OperationKind::Forget,
            Self::Sync => OperationKind::Sync,
            Self::SyncDirectory => OperationKind::SyncDirectory,
            Self::Close => OperationKind::Close,
            Self::Remove => OperationKind::Remove,
        }
    }
}

/// What becomes of an operation, other than that it goes well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It fails with this errno; of a write so many bytes reach the disk all the same.
    Fails { errno: i32, written: usize },
    /// The write goes well and the sync behind it fails; or the sync fails. What wasn't durable is
    /// lost in part, and the next sync says that all is well.
    SyncFails,
    /// A read or write stops after so many bytes.
    Short(usize),
    /// A read sees what was there before, in one page of it: so many bytes from its start.
    Stale(usize),
}

/// An operation on its way.
#[derive(Debug)]
struct Flying {
    tag: Tag,
    work: Work,
    trouble: Option<Trouble>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waits(Operation),
    /// Carried out, and not yet told.
    Done(Completion),
}

/// An operation that was just submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    /// Its number.
    pub(crate) number: u64,
    /// What it does.
    pub(crate) work: Work,
    /// Bytes that it reads or writes.
    pub(crate) bytes: usize,
}

/// The disk of one shard.
#[derive(Debug)]
pub(crate) struct SimDisk {
    memory: MemoryDevice,
    flying: BTreeMap<u64, Flying>,
    next: u64,
    fresh: Vec<Fresh>,
    /// Complete, and not yet seen by the log.
    told: Vec<Completion>,
    /// Operations that a fault made fail since the process began.
    errors: u64,
    /// Something of what was durable isn't any more.
    pub(crate) is_damaged: bool,
    /// How often that happened.
    pub(crate) damages: u64,
    /// What the segments held that were removed.
    removed: Vec<Vec<u8>>,
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(align: usize) -> Self {
        Self::of(MemoryDevice::new(align))
    }

    /// A disk that holds what another one held.
    pub(crate) fn of(mut memory: MemoryDevice) -> Self {
        memory.set_capacity(u64::MAX);
        Self {
            memory,
            flying: BTreeMap::new(),
            next: 0,
            fresh: Vec::new(),
            told: Vec::new(),
            errors: 0,
            is_damaged: false,
            damages: 0,
            removed: Vec::new(),
        }
    }

    /// What lies on it, flushed or not.
    pub(crate) fn memory(&self) -> &MemoryDevice {
        &self.memory
    }

    /// What lies on it, to be changed behind everyone's back.
    pub(crate) fn memory_mut(&mut self) -> &mut MemoryDevice {
        &mut self.memory
    }

    /// What would be left if the power went now and nothing but what is flushed stayed.
    pub(crate) fn flushed(&self) -> MemoryDevice {
        let mut memory = self.memory.clone();
        memory.power_cut(|_| false);
        memory
    }

    /// What all segments hold and held that there are or ever were.
    pub(crate) fn segments_ever(&self) -> Vec<Vec<u8>> {
        let files = self.memory.files().into_iter();
        let segments = files.filter(|(file, _)| file.kind == FileKind::Segment);
        let present = segments.map(|(file, _)| self.memory.content(file));
        present.chain(self.removed.iter().cloned()).collect()
    }

    /// Bytes of all files.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.memory.files().iter().map(|(_, length)| length).sum()
    }

    /// Operations that failed in this process's life.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Whether no operation is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.flying.is_empty() && self.fresh.is_empty() && self.told.is_empty()
    }

    /// The operations submitted since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<Fresh> {
        std::mem::take(&mut self.fresh)
    }

    /// An operation will go wrong.
    pub(crate) fn trouble(&mut self, number: u64, trouble: Trouble) {
        if let Some(flying) = self.flying.get_mut(&number) {
            flying.trouble = Some(trouble);
        }
    }

    /// Carries an operation out; its completion is told later.
    pub(crate) fn carry_out(&mut self, number: u64, random: &mut Random) {
        let Some(mut flying) = self.flying.remove(&number) else { return };
        if let State::Waits(operation) = flying.state {
            let completion =
                self.perform(flying.tag, flying.work, operation, flying.trouble, random);
            flying.state = State::Done(completion);
        }
        self.flying.insert(number, flying);
    }

    /// Completes an operation. Returns what it was and came to; `None` if it is gone.
    pub(crate) fn finish(&mut self, number: u64, random: &mut Random) -> Option<(Work, i32)> {
        self.carry_out(number, random);
        let flying = self.flying.remove(&number)?;
        let State::Done(completion) = flying.state else { unreachable!("just carried out") };
        let result = completion.result;
        self.told.push(completion);
        Some((flying.work, result))
    }

    fn perform(
        &mut self,
        tag: Tag,
        work: Work,
        operation: Operation,
        trouble: Option<Trouble>,
        random: &mut Random,
    ) -> Completion {
        let mut stale = None;
        match trouble {
            None => {}
            Some(Trouble::Short(bytes)) => {
                // A log may give up a disk that makes no whole unit of progress, many times in a row.
                self.errors += 1;
                self.strike(work.kind(), Effect::Short(bytes));
            }
            Some(Trouble::Stale(at)) => stale = Some(at),
            Some(Trouble::Fails { errno, written }) => {
                self.errors += 1;
                if let Operation::Write { file, offset, ref buffer, .. } = operation {
                    let (buffer, durability) = (buffer.clone(), Durability::None);
                    let part = Operation::Write { file, offset, buffer, durability };
                    self.strike(OperationKind::Write, Effect::Short(written));
                    self.memory.submit(tag, part);
                    self.completion();
                }
                self.strike(work.kind(), Effect::Errno(errno));
            }
            Some(Trouble::SyncFails) => {
                self.errors += 1;
                self.strike(OperationKind::Sync, Effect::Errno(EIO));
            }
        }
        if let Operation::Remove(file) = operation
            && file.kind == FileKind::Segment
            && self.memory.files().iter().any(|(there, _)| *there == file)
        {
            self.removed.push(self.memory.content(file));
        }
        let synced = match &operation {
            Operation::Sync(file) | Operation::Write { file, .. } => Some(*file),
            _ => None,
        };
        self.memory.submit(tag, operation);
        let mut completion = self.completion();
        if let (Some(Trouble::SyncFails), Some(file)) = (trouble, synced) {
            self.memory.lose_unflushed(file, |_| random.coin());
        }
        if let (Some(at), Some(buffer)) = (stale, completion.buffer.as_mut()) {
            let end = (at + 4096).min(buffer.len());
            buffer[at.min(end)..end].fill(0);
        }
        completion
    }

    fn strike(&mut self, on: OperationKind, effect: Effect) {
        self.memory.inject(Fault { on, after: 0, count: 1, effect });
    }

    fn completion(&mut self) -> Completion {
        let mut completions = Vec::new();
        self.memory.poll(&mut completions);
        assert_eq!(completions.len(), 1, "the memory completes at once (V15)");
        completions.pop().expect("just counted")
    }

    /// The process ends, the machine doesn't: what is on its way is carried out or not.
    pub(crate) fn kill(&mut self, random: &mut Random) {
        let mut numbers: Vec<u64> = self.flying.keys().copied().collect();
        random.shuffle(&mut numbers);
        for number in numbers {
            if random.chance(800_000) {
                self.carry_out(number, random);
            }
        }
        self.forget();
        self.memory.kill();
    }

    /// The power goes: of what isn't flushed each part stays in so many of a million cases.
    pub(crate) fn power_cut(&mut self, random: &mut Random, keep_per_million: u32) {
        self.memory.hold(true);
        for flying in std::mem::take(&mut self.flying).into_values() {
            if let State::Waits(operation) = flying.state {
                self.memory.submit(flying.tag, operation);
            }
        }
        self.memory.power_cut(|_| random.chance(keep_per_million));
        self.forget();
    }

    fn forget(&mut self) {
        self.flying.clear();
        self.fresh.clear();
        self.told.clear();
        self.errors = 0;
    }
}

/// "Input/output error".
const EIO: i32 = 5;

impl Device for SimDisk {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    fn submit(&mut self, tag: Tag, operation: Operation) {
        let number = self.next;
        self.next += 1;
        let work = Work::of(&operation);
        let bytes = match &operation {
            Operation::Write { buffer, .. } | Operation::Read { buffer, .. } => buffer.len(),
            _ => 0,
        };
        assert!(bytes.is_multiple_of(SECTOR_BYTES), "direct I/O moves whole sectors");
        self.fresh.push(Fresh { number, work, bytes });
        let state = State::Waits(operation);
        let flying = Flying { tag, work, trouble: None, state };
        self.flying.insert(number, flying);
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.told);
    }
}
