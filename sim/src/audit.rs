//! What the disks hold, looked at as a start would: by the production's own recovery, on a copy.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use ringraft_shard::node_record::NodeRecord;
use ringraft_types::bytes::{u16_at, u32_at};
use ringraft_types::command::{Command, Envelope};
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{ClientId, GroupId, Index, Met, NodeId, STRANDS, Term, Ticks};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::snapshot::CHUNK_HEAD_BYTES;
use ringraft_wal::{
    Log, LogSettings, ReadError, ReadRequest, Recovered, RecoveredGroup, Recovery, WalError,
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::checker::{Applied, Dump};
use crate::files;
use crate::witness::Step;

/// A log as a start would find it now.
pub(crate) struct Found {
    log: Log,
    device: MemoryDevice,
    pub(crate) recovered: Recovered,
}

/// Recovers a copy of a sound disk.
pub(crate) fn open(device: MemoryDevice, settings: LogSettings) -> Found {
    try_open(device, settings)
        .unwrap_or_else(|error| panic!("I-11: a sound log can't be recovered: {error}"))
}

/// Recovers a copy of a disk that may be damaged.
pub(crate) fn try_open(mut device: MemoryDevice, settings: LogSettings) -> Result<Found, WalError> {
    let (log, recovered) = Recovery::run(settings, &mut device)?;
    Ok(Found { log, device, recovered })
}

impl Found {
    /// As whom a peer was met last, if that is written down.
    pub(crate) fn met(&self, peer: NodeId) -> Option<Met> {
        let records = self.recovered.node_records.iter();
        let mut records = records.map(|it| record::decode(it).expect("V13: a sound record"));
        let record = records.find(|record| record.header.kind == RecordKind::Node)?;
        let found = NodeRecord::decode(&record).expect("V13: a record of the node");
        found.met.get(&peer).copied()
    }

    /// Whether an entry can be read, or is in a snapshot.
    pub(crate) fn holds(&mut self, group: GroupId, index: Index) -> bool {
        let (first, last) = (index, index);
        let one = ReadRequest { ticket: 1, group, first, last, bytes_max: 1 };
        self.read(one).is_ok() || index <= self.saved(group)
    }

    /// Reads entries back: all, or the first of them.
    fn read(&mut self, request: ReadRequest) -> Result<Vec<u8>, ReadError> {
        self.log.read(request);
        let mut now = 0;
        loop {
            if let Some(done) = self.log.take_read() {
                return done.result;
            }
            now += 1_000;
            self.log.turn(Ticks(now), &mut self.device).expect("the memory doesn't fail");
        }
    }

    /// The records of a group's entries, by index.
    fn records(&mut self, group: GroupId) -> BTreeMap<Index, Vec<u8>> {
        let mut records = BTreeMap::new();
        let found = self.recovered.groups.get(&group);
        let Some(found) = found else { return records };
        // A snapshot may reach up to what lies behind the last hole.
        let saved = self.saved(group);
        let tail = found.tail.as_ref().filter(|tail| tail.first <= saved.next());
        let (mut first, last) = tail.map_or((found.first, found.last), |it| (it.first, it.last));
        while first <= last {
            let bytes_max = 1 << 20;
            let bytes = self.read(ReadRequest { ticket: 1, group, first, last, bytes_max });
            let bytes = bytes.unwrap_or_else(|error| panic!("I-11: group {group}: {error}"));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let record = record::decode(rest).expect("V13: the log reads back sound records");
                assert_eq!(record.header.index, first, "V13: entries come in order");
                records.insert(first, record.bytes.to_vec());
                rest = &rest[record.bytes.len()..];
                first = first.next();
            }
        }
        records
    }

    /// The newest entry of a group that is in a snapshot.
    fn saved(&self, group: GroupId) -> Index {
        let heads = self.recovered.snapshots.iter().filter(|head| head.group == group);
        heads.map(|head| head.last.index).max().unwrap_or_default()
    }

    /// What a node applied for a group, from its log, for the checkers; of what the log gave up,
    /// because a snapshot holds it, from what was ever written anywhere.
    pub(crate) fn dump(
        &mut self,
        node: NodeId,
        group: GroupId,
        steps: &[Step],
        written: &LazyCell<Written, impl FnOnce() -> Written>,
    ) -> Dump {
        let records = self.records(group);
        let saved = self.saved(group);
        let mut applied = Vec::with_capacity(steps.len());
        let mut numbers: BTreeMap<ClientId, u64> = BTreeMap::new();
        for step in steps {
            let given_up = || written.find(group, step, &numbers).filter(|_| step.index <= saved);
            let bytes = records.get(&step.index).or_else(given_up).unwrap_or_else(|| {
                panic!(
                    "V5: node {node} applied entry {} of group {group}, and its disk hasn't it: \
                     there is a snapshot up to {saved}, and {:?}",
                    step.index,
                    self.recovered.groups.get(&group)
                )
            });
            let record = record::decode(bytes).expect("it was decoded before");
            assert_eq!(record.header.kind, RecordKind::Command, "V7: only commands are applied");
            let (envelope, command) =
                Envelope::decode(record.payload).expect("V13: a command of the log is sound");
            assert_eq!(
                xxh3_64(command),
                step.command,
                "V13: node {node} applied another command than its disk holds at entry {} of \
                 group {group}",
                step.index
            );
            numbers.insert(envelope.client, envelope.sequence);
            let ask = Command::decode(command).expect("V13: a command of the log is sound");
            applied.push(Applied {
                index: step.index,
                revision: step.revision,
                session: envelope.client,
                number: envelope.sequence,
                ask: ask.into(),
            });
        }
        Dump { node, group, applied }
    }
}

/// The newest snapshot of a group at this entry: the file's number, and a hash of what its owner gave
/// it, as it lies there now. The items of a strand have no order: nodes give the same in another one.
pub(crate) fn saved_hash(disk: &MemoryDevice, group: GroupId, last: Index) -> Option<(u64, u64)> {
    let heads = files::snapshots(disk).into_iter();
    let newest = heads.filter(|head| (head.group, head.last.index) == (group, last));
    let newest = newest.max_by_key(|head| head.number)?;
    let content = disk.content(newest.file());
    let held = |chunk| {
        let (at, bytes) = newest.used(chunk);
        &content[at as usize..at as usize + bytes][CHUNK_HEAD_BYTES..]
    };
    let mut hash = 0;
    for (place, stretch) in newest.layout().stretches().enumerate() {
        let bytes = stretch.chunks.map(held).collect::<Vec<_>>().concat();
        let parts = if place < STRANDS { items(&bytes) } else { vec![&bytes[..]] };
        hash = parts.into_iter().fold(hash, |hash, part| xxh3_64_with_seed(part, hash));
    }
    Some((newest.number, hash))
}

/// The items of a strand, sorted. What is cut short, or isn't one, is taken as it is.
fn items(mut bytes: &[u8]) -> Vec<&[u8]> {
    /// Before the key and the value of each.
    const HEAD_BYTES: usize = 40;
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.first_chunk::<HEAD_BYTES>().map_or(bytes.len(), |head| {
            HEAD_BYTES + usize::from(u16_at(head, 2)) + u32_at(head, 4) as usize
        });
        let (item, rest) = bytes.split_at(length.min(bytes.len()));
        items.push(item);
        bytes = rest;
    }
    items.sort_unstable();
    items
}

/// The records of entries that some disks ever held.
pub(crate) struct Written(BTreeMap<(GroupId, Index), BTreeMap<Vec<u8>, BTreeSet<NodeId>>>);

impl Written {
    /// Everything in the intact blocks of these nodes' segments.
    pub(crate) fn of(segments: impl IntoIterator<Item = (NodeId, Vec<u8>)>) -> Self {
        let mut written = Self(BTreeMap::new());
        for (node, segment) in segments {
            for (_, block) in files::blocks(&segment) {
                let mut rest =
                    &block.bytes[block.header.head()..block.header.directory_at as usize];
                while rest.len() >= RECORD_HEADER_BYTES {
                    let Ok(record) = record::decode(rest) else {
                        // Rot took one of them, and not what says where the next one is.
                        let length = record::encoded_bytes(u32_at(rest, 4) as usize);
                        rest = rest.get(length..).unwrap_or_default();
                        continue;
                    };
                    let header = record.header;
                    if header.kind.is_entry() {
                        let place = (header.group, header.index);
                        let of_place = written.0.entry(place).or_default();
                        of_place.entry(record.bytes.to_vec()).or_default().insert(node);
                    }
                    rest = &rest[record.bytes.len()..];
                }
            }
        }
        written
    }

    /// The record of the command that was applied in this step. Entries of several leaders at one
    /// index may hold the same command under different numbers: the one that follows on those
    /// before is meant, of several the one that most nodes wrote.
    fn find(
        &self,
        group: GroupId,
        step: &Step,
        numbers: &BTreeMap<ClientId, u64>,
    ) -> Option<&Vec<u8>> {
        let envelope = |bytes: &[u8]| {
            let record = record::decode(bytes).expect("it was decoded before");
            let (envelope, command) = Envelope::decode(record.payload).ok()?;
            (xxh3_64(command) == step.command).then_some(envelope)
        };
        let records = self.0.get(&(group, step.index))?;
        let fits = records.iter().filter_map(|(bytes, by)| Some((by, bytes, envelope(bytes)?)));
        let follows = |envelope: &Envelope| {
            let before = numbers.get(&envelope.client).copied().unwrap_or_default();
            envelope.sequence == before + 1
        };
        let best = fits.max_by_key(|(by, _, envelope)| (follows(envelope), by.len()))?;
        Some(best.1)
    }
}

/// The term of an entry that a log holds.
pub(crate) fn term_at(group: &RecoveredGroup, index: Index) -> Option<Term> {
    if index < group.first || index > group.last {
        return None;
    }
    let run = group.runs.iter().rev().find(|run| run.0 <= index);
    run.map(|run| run.1)
}
