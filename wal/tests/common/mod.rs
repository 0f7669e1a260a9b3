//! What the tests share: a small log on a disk in memory, and records to fill it with.
#![allow(dead_code, unreachable_pub, missing_docs)]

use ringraft_types::record::{RecordKind, encode};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, NodeId, Sequence, Term, Ticks};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::device::{Device, Durability, FileId, FileKind};
use ringraft_wal::{
    Log, LogSettings, ReadError, ReadRequest, Recovered, Recovery, RecoveryStep, WalError,
};

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
    FileId { kind: FileKind::Segment, owner: 3, number }
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
