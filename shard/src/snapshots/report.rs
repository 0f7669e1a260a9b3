//! What people are told of the snapshots of a shard, and how they ask for one.

use ringraft_net::status::SnapshotActivity;
use ringraft_types::{GroupId, Index, LogId, Ticks};
use ringraft_wal::SnapshotError;
use ringraft_wal::device::{Device, FileId};

use super::{InstallProgress, SnapshotReason};
use crate::links::Links;
use crate::shard::Shard;

/// A snapshot that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    /// Its file.
    pub file: FileId,
    /// The newest entry in it.
    pub last: LogId,
    /// The file, bytes.
    pub bytes: u64,
    /// The log begins behind it, or is about to.
    pub is_named: bool,
}

/// How an attempt to take one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// The newest entry in it.
    pub last: LogId,
    /// The file, or what there was of it, bytes.
    pub bytes: u64,
    /// From its beginning.
    pub took: Ticks,
    /// Why it failed; `None`: it is kept.
    pub error: Option<SnapshotError>,
}

/// What is known here of the snapshots of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSnapshots {
    /// The group.
    pub group: GroupId,
    /// Its applied index.
    pub applied: Index,
    /// It refuses to serve: what it holds is not saved.
    pub is_halted: bool,
    /// What is kept, the oldest first.
    pub kept: Vec<KeptSnapshot>,
    /// Files that can't be read, and stay until there is another one.
    pub unreadable: usize,
    /// What is done now.
    pub activity: SnapshotActivity,
    /// Bytes that there are of the one that is being taken.
    pub written: u64,
    /// How far the one is that another node gives.
    pub install: Option<InstallProgress>,
    /// Attempts that ended, since the start.
    pub attempts: u64,
    /// How the last of them ended.
    pub end: Option<SnapshotEnd>,
}

/// What is said to who asks for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAsked {
    /// It will be taken, or is being taken already.
    Wanted,
    /// The last one holds everything that is applied.
    NothingNew,
    /// The group refuses to serve: what it holds is not saved.
    Halted,
}

impl SnapshotAsked {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::NothingNew => "nothing_new",
            Self::Halted => "halted",
        }
    }
}

impl<D: Device, L: Links> Shard<D, L> {
    /// Somebody asks for a snapshot of a group; `None` if it isn't here.
    pub fn ask_snapshot(&mut self, group: GroupId) -> Option<SnapshotAsked> {
        let &slot = self.slots.get(&group)?;
        self.want_snapshot(slot, SnapshotReason::Asked);
        let group = &self.groups[slot];
        Some(match self.snapshot_activity(slot) {
            _ if group.halt.is_some() => SnapshotAsked::Halted,
            SnapshotActivity::Waiting | SnapshotActivity::Taking => SnapshotAsked::Wanted,
            _ => SnapshotAsked::NothingNew,
        })
    }

    /// What is known of the snapshots of every group here.
    pub fn group_snapshots(&self) -> impl Iterator<Item = GroupSnapshots> + '_ {
        let groups = self.slots.values().map(|&slot| (slot, &self.groups[slot]));
        groups.map(|(slot, group)| {
            let kept = group.kept.iter().map(|head| KeptSnapshot {
                file: head.file(),
                last: head.last,
                bytes: head.length,
                is_named: group.named.is_some_and(|named| named.number == head.number),
            });
            let taking = self.snapshots.taking.as_ref().filter(|taking| taking.slot == slot);
            let ended = self.snapshots.ends.get(&slot);
            GroupSnapshots {
                group: group.id,
                applied: group.applied,
                is_halted: group.halt.is_some(),
                kept: kept.collect(),
                unreadable: group.unreadable.len(),
                activity: self.snapshot_activity(slot),
                written: taking.map_or(0, |taking| self.log.snapshot_bytes(taking.number)),
                install: self.install_progress().filter(|it| it.group == group.id),
                attempts: ended.map_or(0, |(attempts, _)| *attempts),
                end: ended.map(|(_, end)| *end),
            }
        })
    }

    pub(crate) fn snapshot_activity(&self, slot: usize) -> SnapshotActivity {
        let (snapshots, group) = (&self.snapshots, &self.groups[slot]);
        let is_told = group.install.is_some_and(|need| need.least() > group.applied);
        if snapshots.taking.as_ref().is_some_and(|taking| taking.slot == slot) {
            SnapshotActivity::Taking
        } else if is_told || self.fetching.is_under(slot) {
            SnapshotActivity::Installing
        } else if snapshots.wanted.contains(slot) || snapshots.awaited == Some(slot) {
            SnapshotActivity::Waiting
        } else {
            SnapshotActivity::None
        }
    }
}
