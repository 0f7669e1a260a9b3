//! What the tests share: a small log on a disk in memory, and records to fill it with.
#![allow(dead_code, unreachable_pub, missing_docs)]

use ringraft_types::record::{RecordKind, encode};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, NodeId, Sequence, Term, Ticks};
use ringraft_wal::block::Block;
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::device::{Device, Durability, FileId};
use ringraft_wal::format::{BlockHeader, DirectoryItem};
use ringraft_wal::{
    Log, LogSettings, ReadError, ReadRequest, Recovered, RecoveredGroup, Recovery, RecoveryStep,
    WalError,
};
use std::collections::BTreeMap;

pub const CLUSTER: ClusterId = ClusterId(0xC1);
pub const NODE: NodeId = NodeId(1);
pub const INCARNATION: Incarnation = Incarnation(0x17);

pub fn settings() -> LogSettings {
    LogSettings {
        segment_bytes: 64 << 10,
        block_bytes_max: 16 << 10,
        unsubmitted_bytes_max: 256 << 10,
        durability: Durability::Dsync,
        ..LogSettings::new(CLUSTER, NODE, INCARNATION, 3)
    }
}

pub fn segment(number: u64) -> FileId {
    FileId::segment(3, number)
}

pub fn record(kind: RecordKind, group: u64, index: u64, term: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, kind, GroupId(group), Index(index), Term(term), [payload, b""]);
    out
}

/// The entry's payload says what it is, so that a wrong one is noticed.
pub fn entry(group: u64, index: u64, term: u64, bytes: usize) -> Vec<u8> {
    let mut payload = format!("{group}/{index}/{term}/").into_bytes();
    while payload.len() < bytes {
        payload.push((index as u8).wrapping_mul(31) ^ payload.len() as u8);
    }
    record(RecordKind::Command, group, index, term, &payload)
}

pub fn run(group: u64, first: u64, last: u64, term: u64, bytes: usize) -> Vec<u8> {
    (first..=last).flat_map(|index| entry(group, index, term, bytes)).collect()
}

pub fn hard(group: u64, term: u64, vote: u32, commit: u64) -> Vec<u8> {
    let mut payload = vote.to_le_bytes().to_vec();
    payload.extend_from_slice(&[0; 4]);
    record(RecordKind::HardState, group, commit, term, &payload)
}

pub fn try_recover<D: Device>(
    settings: LogSettings,
    device: &mut D,
) -> Result<(Log, Recovered), WalError> {
    let mut recovery = Recovery::new(settings);
    for _ in 0..10_000 {
        match recovery.turn(Ticks(0), device) {
            RecoveryStep::Working => {}
            RecoveryStep::Done(done) => return Ok(*done),
            RecoveryStep::Failed(error) => return Err(error),
        }
    }
    panic!("recovery doesn't finish");
}

pub fn recover(device: &mut MemoryDevice) -> (Log, Recovered) {
    try_recover(settings(), device).expect("the log is recovered")
}

/// A log, its disk, and a clock that goes on by itself.
pub struct Bench {
    pub log: Log,
    pub device: MemoryDevice,
    pub now: Ticks,
}

impl Bench {
    pub fn new(settings: LogSettings) -> Self {
        let mut device = MemoryDevice::new(4096);
        let (log, recovered) = try_recover(settings, &mut device).expect("an empty disk is a log");
        assert!(recovered.is_empty && recovered.groups.is_empty() && recovered.rot.is_empty());
        let mut bench = Self { log, device, now: Ticks(1_000) };
        bench.settle();
        bench
    }

    pub fn turn(&mut self) {
        self.now = self.now.after(Ticks(1_000));
        self.log.turn(self.now, &mut self.device).expect("the log goes on");
    }

    /// Turns until everything is durable and a segment is in reserve; no time for a seal.
    pub fn flush(&mut self) -> Sequence {
        for _ in 0..10_000 {
            self.log.turn(self.now, &mut self.device).expect("the log goes on");
            if self.log.is_idle() {
                return self.log.durable();
            }
            self.now = self.now.after(Ticks(1));
        }
        panic!("the log doesn't become idle");
    }

    /// Turns until even the seal is written and the next segment made.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.turn();
        }
        assert!(self.log.is_quiet());
    }

    pub fn append(&mut self, bytes: &[u8]) -> Sequence {
        self.log.append(bytes).expect("there is room")
    }

    pub fn append_run(&mut self, group: u64, first: u64, last: u64, term: u64, bytes: usize) {
        let records = run(group, first, last, term, bytes);
        self.log
            .append_run(GroupId(group), Index(first), Index(last), Term(term), &records)
            .expect("there is room");
    }

    /// A block of its own with these entries.
    pub fn block(&mut self, group: u64, first: u64, last: u64, term: u64) -> Sequence {
        self.append_run(group, first, last, term, 100);
        self.flush()
    }

    pub fn read(&mut self, group: u64, first: u64, last: u64) -> Result<Vec<u8>, ReadError> {
        read(&mut self.log, &mut self.device, group, first, last)
    }

    pub fn restart(&mut self) -> Recovered {
        self.device.kill();
        let (log, recovered) = recover(&mut self.device);
        self.log = log;
        recovered
    }
}

pub fn read<D: Device>(
    log: &mut Log,
    device: &mut D,
    group: u64,
    first: u64,
    last: u64,
) -> Result<Vec<u8>, ReadError> {
    log.read(ReadRequest {
        ticket: 9,
        group: GroupId(group),
        first: Index(first),
        last: Index(last),
        bytes_max: 1 << 30,
    });
    for _ in 0..1_000 {
        log.turn(Ticks(0), device).expect("the log goes on");
        if let Some(done) = log.take_read() {
            assert_eq!(done.ticket, 9);
            return done.result;
        }
    }
    panic!("a read isn't answered");
}

/// A block on the disk.
#[derive(Clone, Debug)]
pub struct OnDisk {
    pub file: FileId,
    pub offset: u64,
    pub header: BlockHeader,
    pub directory: Vec<DirectoryItem>,
}

/// The intact blocks of all segments, in the order of their places.
pub fn blocks(device: &MemoryDevice) -> Vec<OnDisk> {
    let mut found = Vec::new();
    for (file, _) in device.files() {
        let content = device.content(file);
        let mut at = 4096;
        while at < content.len() {
            match Block::parse(&content[at..]) {
                Ok(block) => {
                    let (header, directory) = (block.header, block.directory());
                    found.push(OnDisk { file, offset: at as u64, header, directory });
                    at += block.bytes.len();
                }
                Err(_) => at += 4096,
            }
        }
    }
    found
}

/// The block with this sequence.
pub fn block_at(device: &MemoryDevice, sequence: Sequence) -> OnDisk {
    let all = blocks(device);
    all.into_iter().find(|block| block.header.sequence == sequence).expect("it is on the disk")
}

/// Something appended.
#[derive(Clone, Debug)]
pub enum Done {
    Run { group: u64, first: u64, last: u64, term: u64 },
    Hard { group: u64, term: u64, vote: u32, commit: u64 },
    Truncate { group: u64, from: u64 },
}

/// A group as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub hard: Option<(Term, u32, Index)>,
    /// Index to term.
    pub entries: BTreeMap<u64, u64>,
}

/// What was appended, by the block that carries the last of it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub done: Vec<(Sequence, Done)>,
}

impl Model {
    /// The state after every block up to this one.
    pub fn at(&self, last: Sequence) -> BTreeMap<GroupId, Expected> {
        let mut groups: BTreeMap<GroupId, Expected> = BTreeMap::new();
        for (_, done) in self.done.iter().filter(|(sequence, _)| *sequence <= last) {
            match *done {
                Done::Run { group, first, last, term } => {
                    let group = groups.entry(GroupId(group)).or_default();
                    group.entries.retain(|&index, _| index < first);
                    if group.entries.last_key_value().is_some_and(|(&old, _)| old + 1 < first) {
                        group.entries.clear();
                    }
                    group.entries.extend((first..=last).map(|index| (index, term)));
                }
                Done::Hard { group, term, vote, commit } => {
                    let group = groups.entry(GroupId(group)).or_default();
                    group.hard = Some((Term(term), vote, Index(commit)));
                }
                Done::Truncate { group, from } => {
                    let group = groups.entry(GroupId(group)).or_default();
                    group.entries.retain(|&index, _| index < from);
                }
            }
        }
        groups
    }
}

/// The entries of a recovered group, index to term.
pub fn entries(group: &RecoveredGroup) -> BTreeMap<u64, u64> {
    let mut terms = group.runs.iter().rev();
    let mut entries = BTreeMap::new();
    let mut index = group.last.0;
    for (start, term) in terms.by_ref() {
        while index >= start.0 {
            entries.insert(index, term.0);
            index -= 1;
        }
    }
    assert_eq!(index + 1, group.first.0, "the runs cover first to last: {group:?}");
    entries
}

/// The recovered groups are exactly these.
pub fn assert_exact(recovered: &Recovered, expected: &BTreeMap<GroupId, Expected>, what: &str) {
    for (id, expected) in expected {
        let empty = RecoveredGroup { first: Index(1), ..RecoveredGroup::default() };
        let group = recovered.groups.get(id).unwrap_or(&empty);
        assert_eq!(group.damaged, None, "{what}: group {id}: {recovered:?}");
        assert_eq!(group.hard, expected.hard, "{what}: group {id}");
        assert_eq!(entries(group), expected.entries, "{what}: group {id}");
    }
    for id in recovered.groups.keys() {
        assert!(expected.contains_key(id), "{what}: group {id} comes from nowhere");
    }
}

impl Bench {
    pub fn act(&mut self, model: &mut Model, done: Done, bytes: usize) {
        let sequence = match done {
            Done::Run { group, first, last, term } => {
                let records = run(group, first, last, term, bytes);
                let (first, last) = (Index(first), Index(last));
                self.log
                    .append_run(GroupId(group), first, last, Term(term), &records)
                    .expect("there is room")
            }
            Done::Hard { group, term, vote, commit } => {
                self.append(&hard(group, term, vote, commit))
            }
            Done::Truncate { group, from } => {
                self.append(&record(RecordKind::Truncate, group, from, 0, b""))
            }
        };
        model.done.push((sequence, done));
    }
}
