//! Rot on every node of a quorum at once, each entry hit on one of them only (S06): the cluster has to
//! be as if nothing had been, and nobody may be left who could lead before.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_types::record;
use ringraft_types::{GroupId, Index, Sequence, Term};
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
    /// that the node needs of its log, and that every other one of the quorum holds, in its log or in a
    /// snapshot.
    pub(super) fn helix(&mut self, quorum: &[usize]) {
        // From a generator of its own: without it, all is as it was.
        let mut random = Random::new(self.base.random.peek() ^ 0x4e11);
        let changes = self.options.faults.contains_key(&FaultKind::Members);
        if random.below(3) == 0 || quorum.len() == 1 || changes || !self.options.doomed.is_empty() {
            return;
        }
        for &node in quorum {
            if self.nodes[node].is_up {
                self.end(node, None, "something of its log rots");
            }
        }
        for lane in 0..usize::from(self.options.shards) {
            let mut found = Vec::new();
            for node in quorum.iter().map(|&node| &self.nodes[node]) {
                let opened = audit::try_open(node.disk(lane).flushed(), node.log_settings(lane));
                // A start may be refused as long as the disk gives errors; such a one isn't hit.
                let Ok(one) = opened else { return };
                found.push(one);
            }
            let mut taken: BTreeMap<GroupId, BTreeSet<Index>> = BTreeMap::new();
            for (at, &node) in quorum.iter().enumerate() {
                let mut hits = hits(&self.nodes[node].disk(lane).flushed());
                random.shuffle(&mut hits);
                if random.coin() {
                    hits.sort_by_key(|hit| !is_saved_elsewhere(&found, at, hit));
                }
                let most = random.between(1, HITS_MAX) as usize;
                let mut struck = BTreeSet::new();
                for hit in hits {
                    let taken = taken.entry(hit.group).or_default();
                    let range = hit.first..=hit.last;
                    let is_free = taken.range(range.clone()).next().is_none();
                    // Behind the second rotten record of a block nothing of it is believed.
                    let is_full = struck.len() == most || struck.contains(&(hit.file, hit.block));
                    if is_full || !is_free || !may_rot(&found, at, &hit) {
                        continue;
                    }
                    if is_saved_elsewhere(&found, at, &hit) {
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

/// Whether entries are known to be committed, all nodes hold them, and this one needs them of its log.
/// At their indexes a log may hold others, which were never committed: two that agree at one entry
/// agree at all before it (I-05).
fn may_rot(found: &[Found], node: usize, hit: &Hit) -> bool {
    let groups = found.iter().filter_map(|found| found.recovered.groups.get(&hit.group));
    let commit = groups.filter_map(|group| group.hard).map(|hard| hard.2).max();
    commit.is_some_and(|commit| hit.last <= commit)
        && held(&found[node], hit) == Some(Held::Log)
        && found.iter().all(|other| match held(other, hit) {
            None => false,
            Some(Held::Snapshot) => true,
            Some(Held::Log) => term_of_last(other, hit) == term_of_last(&found[node], hit),
        })
}

/// The term of the last of these entries, as a log has it.
fn term_of_last(found: &Found, hit: &Hit) -> Option<Term> {
    audit::term_at(found.recovered.groups.get(&hit.group)?, hit.last)
}

/// Whether all other nodes hold these entries in snapshots.
fn is_saved_elsewhere(found: &[Found], node: usize, hit: &Hit) -> bool {
    let mut others = found.iter().enumerate().filter(|(at, _)| *at != node);
    others.all(|(_, found)| held(found, hit) == Some(Held::Snapshot))
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
