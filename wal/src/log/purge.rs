//! Freeing old segments. A segment is removed when nothing in it is needed, and only after a
//! durable block has said so: a missing old segment is then told from a lost one.
//!
//! The newest of each local record (term and vote, snapshot, peers, homes, feature level) is kept in
//! memory and written again when it alone would pin a segment. Entries pin a segment until the
//! caller releases them or carries them. What is lost pins all of them: nothing but the place where it
//! was says so.

use super::{Log, Purpose};
use crate::device::{Device, Operation};
use crate::scan::gone;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::record::{self, HomeState, Record, RecordHeader, RecordKind};
use ringraft_types::{GroupId, Index, Sequence};
use std::collections::BTreeMap;

/// Local records written again per turn at most.
const REWRITTEN_MAX: usize = 64;

/// The newest of each local record.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    records: BTreeMap<(GroupId, u8, Index), (Sequence, Vec<u8>)>,
}

impl Locals {
    /// A local record was appended in this block. Returns the group that isn't here any more, if it
    /// says that of one.
    pub(crate) fn note(
        &mut self,
        header: &RecordHeader,
        bytes: &[u8],
        sequence: Sequence,
    ) -> Option<GroupId> {
        let gone = (header.kind == RecordKind::Home).then(|| gone(&read(bytes))).flatten();
        if let Some(gone) = gone {
            self.forget(gone);
        }
        let is_one = matches!(header.kind, RecordKind::HardState | RecordKind::Snapshot);
        let index = if is_one { Index::ZERO } else { header.index };
        let place = self
            .records
            .entry((header.group, header.kind as u8, index))
            .or_insert_with(|| (sequence, Vec::with_capacity(bytes.len())));
        place.0 = sequence;
        place.1.clear();
        place.1.extend_from_slice(bytes);
        gone
    }

    /// A group isn't here any more: nothing of it is kept but its home.
    fn forget(&mut self, group: GroupId) {
        let first = (group, 0, Index::ZERO);
        let end = (group, u8::MAX, Index(u64::MAX));
        let old: Vec<_> = self.records.range(first..=end).map(|(key, _)| *key).collect();
        old.iter().for_each(|key| drop(self.records.remove(key)));
    }

    /// What says that a group was deleted is of no more use without the blocks up to this one: all
    /// that the log held of it lies in them as well.
    fn outlive(&mut self, last: Sequence) {
        self.records.retain(|(_, kind, _), (sequence, bytes)| {
            let is_home = *kind == RecordKind::Home as u8;
            let is_of_no_use =
                || is_home && HomeState::of(read(bytes).payload) == Ok(HomeState::Deleted);
            *sequence > last || !is_of_no_use()
        });
    }

    fn oldest(&self) -> Option<Sequence> {
        self.records.values().map(|(sequence, _)| *sequence).min()
    }

    fn within(&self, sequence: Sequence) -> Vec<Vec<u8>> {
        let there = self.records.values().filter(|(at, _)| *at == sequence);
        there.map(|(_, bytes)| bytes.clone()).collect()
    }

    fn up_to(&self, sequence: Sequence) -> Vec<Vec<u8>> {
        let old = self.records.values().filter(|(at, _)| *at <= sequence);
        old.take(REWRITTEN_MAX).map(|(_, bytes)| bytes.clone()).collect()
    }
}

fn read(bytes: &[u8]) -> Record<'_> {
    record::decode(bytes).expect("what is kept was verified")
}

impl Log {
    /// A group isn't here any more, as its home says, which is appended just now: its entries are
    /// needed no more.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.index.forget(group);
        self.owing.remove(&group);
        self.purge_asked = true;
    }

    /// A durable snapshot covers the group's entries up to `through`: they are not needed here.
    pub fn release(&mut self, group: GroupId, through: Index) {
        self.index.release(group, through);
        self.purge_asked = true;
    }

    /// A group that lost entries, as a start found, has all that it promised and that counts, or will
    /// have it with what was appended so far: the log needn't tell the next start of that loss any more.
    /// Until then it gives up no segment, for that of one group may be what tells of another's.
    pub fn repaired(&mut self, group: GroupId) {
        self.purge_asked |= self.owing.remove(&group);
    }

    /// The groups that keep the oldest segment from being removed: release their entries after a
    /// snapshot, or read them and append them as carried records.
    pub fn oldest_pins(&self) -> Vec<GroupId> {
        let second = self.segments.used.get(1).and_then(|segment| segment.places.first());
        second.map_or_else(Vec::new, |place| self.index.groups_below(place.sequence))
    }

    /// What the segments with blocks in them take on the disk, bytes.
    pub fn used_bytes(&self) -> u64 {
        self.segments.used.len() as u64 * self.settings.segment_bytes
    }

    /// Segments with blocks in them.
    pub fn segments(&self) -> usize {
        self.segments.used.len()
    }

    /// The newest local records that lie in this block are written again: it can't be read. A full
    /// log is asked again when the block is looked at the next time.
    pub(crate) fn renew_locals(&mut self, sequence: Sequence) {
        if self.keeps_all {
            return;
        }
        for bytes in self.locals.within(sequence) {
            if self.append(&bytes).is_err() {
                return;
            }
        }
    }

    pub(super) fn purge<D: Device>(&mut self, device: &mut D) {
        if let Some(after) = self.purge_after {
            if self.durable < after {
                return;
            }
            self.purge_after = None;
            self.remove_old(device);
        }
        if let Some((oldest, after)) = self.oldest_next {
            if self.durable < after {
                return;
            }
            self.oldest_next = None;
            self.oldest = oldest;
            // The next block says it; if there is none, a seal does.
            self.purge_after = Some(self.submitted.next());
            self.needs_seal = true;
            return;
        }
        if !self.life_begun || (!self.purge_asked && self.leftovers.is_empty()) {
            return;
        }
        if !self.leftovers.is_empty() && self.durable < self.submitted {
            return;
        }
        for file in std::mem::take(&mut self.leftovers) {
            self.operations.submit(device, Purpose::Remove, Operation::Remove(file));
        }
        let is_owing = !self.owing.is_empty();
        #[cfg(ringraft_plant)]
        let is_owing = is_owing && !planted(Plant::LossPurged);
        if !std::mem::take(&mut self.purge_asked) || self.keeps_all || is_owing {
            return;
        }
        // The last segment stays: it is written to, or holds the end of the chain.
        let mut oldest = self.oldest;
        for at in 1..self.segments.used.len() {
            let last = self.segments.used[at - 1].places.last().map(|place| place.sequence);
            let last = last.expect("a segment in use holds a block");
            if self.index.needs_up_to(last) {
                break;
            }
            if self.locals.oldest().is_some_and(|local| local <= last) {
                self.locals.outlive(last);
            }
            if self.locals.oldest().is_some_and(|local| local <= last) {
                for bytes in self.locals.up_to(last) {
                    // A full log is asked again at the next release.
                    if self.append(&bytes).is_err() {
                        break;
                    }
                }
                self.purge_asked = true;
                break;
            }
            let next = self.segments.used[at].places.first().map(|place| place.sequence);
            oldest = next.expect("a segment in use holds a block");
        }
        if oldest > self.oldest {
            // A block that says so before what was moved is durable would disown the old place of
            // it while the new one can still be lost.
            self.oldest_next = Some((oldest, self.newest_block()));
        }
    }

    /// The newest block with something in it, durable or not.
    fn newest_block(&self) -> Sequence {
        let filling = self.filling.as_ref().filter(|filling| !filling.is_empty());
        let queued = || self.queue.back().map(|sealed| sealed.sequence);
        filling.map(|filling| filling.sequence).or_else(queued).unwrap_or(self.submitted)
    }

    fn remove_old<D: Device>(&mut self, device: &mut D) {
        while let Some(segment) = self.segments.used.front() {
            let last = segment.places.last().expect("a segment in use holds a block");
            if last.sequence >= self.oldest || self.segments.used.len() == 1 {
                return;
            }
            let file = self.segments.file(segment.number);
            self.operations.submit(device, Purpose::Remove, Operation::Remove(file));
            self.segments.used.pop_front();
        }
    }
}
