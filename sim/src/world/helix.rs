//! Rot on every node at once, each entry hit on one of them only (S06): the cluster has to be as if
//! nothing had been, and nobody is left who could lead before.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_types::record;
use ringraft_types::{GroupId, Index, Sequence};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::device::{FileId, FileKind};
use ringraft_wal::format::{BlockHeader, ITEM_CARRIED, ITEM_SNAPSHOT};

use super::World;
use crate::audit::{self, Found};
use crate::faults::FaultKind;
use crate::files;
use crate::random::Random;

/// Blocks that are hit on one disk at most.
const HITS_MAX: u64 = 4;

/// A record that may rot: its place, and the entries that go with it, all those of its group in its
/// block.
struct Hit {
    group: GroupId,
    first: Index,
    last: Index,
    file: FileId,
    /// Of the block in its file.
    block: usize,
    offset: u64,
    bytes: usize,
}

impl World {
    /// Processes end, and a little of what each of them wrote rots. Only entries that are committed,
    /// that the node needs of its log, and that every other one holds, in its log or in a snapshot.
    pub(super) fn helix(&mut self) {
        // From a generator of its own: without it, all is as it was.
        let mut random = Random::new(self.base.random.peek() ^ 0x4e11);
        let nodes = self.nodes.len();
        let changes = self.options.faults.contains_key(&FaultKind::Members);
        if random.below(3) == 0 || nodes == 1 || changes || !self.options.doomed.is_empty() {
            return;
        }
        for node in 0..nodes {
            if self.nodes[node].is_up {
                self.end(node, None, "something of its log rots");
            }
        }
        for lane in 0..usize::from(self.options.shards) {
            let mut found = Vec::new();
            for node in &self.nodes {
                let opened = audit::try_open(node.disk(lane).flushed(), node.log_settings(lane));
                // A start may be refused as long as the disk gives errors; such a one isn't hit.
                let Ok(one) = opened else { return };
                found.push(one);
            }
            let mut taken: BTreeMap<GroupId, BTreeSet<Index>> = BTreeMap::new();
            for node in 0..nodes {
                let mut hits = hits(&self.nodes[node].disk(lane).flushed());
                random.shuffle(&mut hits);
                let most = random.between(1, HITS_MAX) as usize;
                let mut struck = BTreeSet::new();
                for hit in hits {
                    let taken = taken.entry(hit.group).or_default();
                    let range = hit.first..=hit.last;
                    let is_free = taken.range(range.clone()).next().is_none();
                    // Behind the second rotten record of a block nothing of it is believed.
                    let is_full = struck.len() == most || struck.contains(&(hit.file, hit.block));
                    let held = found.iter().map(|found| held(found, &hit)).collect::<Vec<_>>();
                    let is_everywhere = held.iter().all(Option::is_some);
                    let is_needed = held[node] == Some(Held::Log);
                    if is_full || !is_free || !is_everywhere || !is_needed {
                        continue;
                    }
                    if !is_committed(&found, &hit) {
                        continue;
                    }
                    let elsewhere = held.iter().enumerate().filter(|(other, _)| *other != node);
                    if elsewhere.clone().all(|(_, held)| *held == Some(Held::Snapshot)) {
                        self.base.count("entries that rotted and are in snapshots only");
                    }
                    struck.insert((hit.file, hit.block));
                    taken.extend((range.start().0..=range.end().0).map(Index));
                    // Neither the length, which says where the next record is, nor a bit outside.
                    let bit = (hit.offset + 8) * 8 + random.below((hit.bytes as u64 - 8) * 8);
                    let disk = self.nodes[node].disk_mut(lane);
                    disk.memory_mut().flip_bit(hit.file, bit);
                    disk.is_damaged = true;
                    disk.damages += 1;
                    let Hit { group, first, last, .. } = hit;
                    self.damaged.insert(node);
                    self.repairs.mending.insert(node);
                    self.base.count("entries that rotted, each on one node");
                    self.say(format!(
                        "disk {}/{lane}: entries {first} to {last} of group {group} rot",
                        node + 1
                    ));
                }
            }
        }
    }
}

/// Where a node holds entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// In its log; its snapshot ends before them.
    Log,
    /// In its snapshot, and perhaps in its log.
    Snapshot,
}

/// Where a node holds all of these entries, if it does and is sound.
fn held(found: &Found, hit: &Hit) -> Option<Held> {
    let heads = found.recovered.snapshots.iter().filter(|head| head.group == hit.group);
    let saved = heads.map(|head| head.last.index).max().unwrap_or_default();
    let group = found.recovered.groups.get(&hit.group)?;
    if group.damaged.is_some() || found.recovered.unknown_damage {
        return None;
    }
    if hit.last <= saved {
        return Some(Held::Snapshot);
    }
    let begins = group.first.previous().max(saved);
    (begins < hit.first && hit.last <= group.last).then_some(Held::Log)
}

/// Whether these entries are known to be committed.
fn is_committed(found: &[Found], hit: &Hit) -> bool {
    let groups = found.iter().filter_map(|found| found.recovered.groups.get(&hit.group));
    let commit = groups.filter_map(|group| group.hard).map(|hard| hard.2).max();
    commit.is_some_and(|commit| hit.last <= commit)
}

/// What may rot: a record in a block that a newer one proves to have been durable.
fn hits(flushed: &MemoryDevice) -> Vec<Hit> {
    let segments = flushed.files().into_iter().filter(|(file, _)| file.kind == FileKind::Segment);
    let contents: Vec<_> = segments.map(|(file, _)| (file, flushed.content(file))).collect();
    let mut newest: Option<BlockHeader> = None;
    let mut durable = Sequence::ZERO;
    for (file, content) in &contents {
        for (at, block) in files::blocks(content) {
            let header = block.header;
            if (header.segment, header.offset) == (file.number, at as u64) {
                durable = durable.max(header.durable);
                if newest.is_none_or(|newest| header.sequence > newest.sequence) {
                    newest = Some(header);
                }
            }
        }
    }
    let mut hits = Vec::new();
    let Some(newest) = newest else { return hits };
    for (file, content) in &contents {
        for (at, block) in files::blocks(content) {
            let header = block.header;
            let is_placed = (header.segment, header.offset) == (file.number, at as u64);
            let is_proven = header.sequence < newest.sequence && header.sequence <= durable;
            if !is_placed || !is_proven || header.sequence < newest.oldest {
                continue;
            }
            let items = block.directory();
            let is_plain = |group: GroupId| {
                let mut items = items.iter().filter(|item| item.group == group);
                items.all(|item| !item.has(ITEM_CARRIED) && !item.has(ITEM_SNAPSHOT))
            };
            let records = block.records();
            let mut offset = header.head();
            let mut of_group: BTreeMap<GroupId, Hit> = BTreeMap::new();
            while offset < header.head() + records.len() {
                let Ok(record) = record::decode(&records[offset - header.head()..]) else { break };
                let (group, index) = (record.header.group, record.header.index);
                if record.header.kind.is_entry() && is_plain(group) {
                    let place = (at + offset) as u64;
                    let bytes = record.bytes.len();
                    let hit = of_group.entry(group).or_insert(Hit {
                        group,
                        first: index,
                        last: index,
                        file: *file,
                        block: at,
                        offset: place,
                        bytes,
                    });
                    hit.first = hit.first.min(index);
                    hit.last = hit.last.max(index);
                }
                offset += record.bytes.len();
            }
            hits.extend(of_group.into_values());
        }
    }
    hits
}
