//! A disk in memory, for tests and the simulator.
//!
//! It knows sectors: a write that no sync covered may survive a power cut in any subset of its
//! sectors, as on a real disk. A write with RWF_DSYNC covers its own range only; a sync covers
//! what was carried out on its file before it. It has no time: operations are carried out at
//! once, or, while [`MemoryDevice::hold`] is on, when and in the order in which the owner says.

use super::{Completion, Device, Durability, FileId, Geometry, Operation};
use crate::buffer::Buffer;
use ringraft_types::tag::Tag;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// Bytes that survive a power cut together.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

type Sector = [u8; SECTOR_BYTES];

/// Kinds of operation, to aim faults at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// [`Operation::List`].
    List,
    /// [`Operation::Create`].
    Create,
    /// [`Operation::Open`].
    Open,
    /// [`Operation::Write`].
    Write,
    /// [`Operation::Read`].
    Read,
    /// [`Operation::Forget`].
    Forget,
    /// [`Operation::Sync`], and the sync of a linked or blocking write.
    Sync,
    /// [`Operation::SyncDirectory`].
    SyncDirectory,
    /// [`Operation::Close`].
    Close,
    /// [`Operation::Remove`].
    Remove,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The operation fails with this errno (positive) and does nothing.
    Errno(i32),
    /// A read or write stops after this many bytes.
    Short(usize),
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Operations of this kind ...
    pub on: OperationKind,
    /// ... after this many of them went well ...
    pub after: u32,
    /// ... this many of them ...
    pub count: u32,
    /// ... go wrong like this.
    pub effect: Effect,
}

/// Something that a power cut may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// A sector of a file, written and not synced; counted from the file's start.
    Sector(FileId, u64),
    /// That a file was created.
    Creation(FileId),
    /// That a file was removed.
    Removal(FileId),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// As a read sees it; absent pages are zeros.
    /// Shared with the copies of the disk that are taken to look at it.
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
    length: u64,
    stable_length: u64,
    /// Per unsynced sector: what is stable, then everything written since.
    dirty: BTreeMap<u64, Vec<Sector>>,
    open: bool,
    entry_stable: bool,
}

impl File {
    fn sector(&self, sector: u64) -> Sector {
        let mut out = [0; SECTOR_BYTES];
        let at = sector * SECTOR_BYTES as u64;
        if let Some(page) = self.pages.get(&(at / PAGE_BYTES as u64)) {
            let start = (at % PAGE_BYTES as u64) as usize;
            out.copy_from_slice(&page[start..start + SECTOR_BYTES]);
        }
        out
    }

    fn set_sector(&mut self, sector: u64, bytes: &[u8]) {
        let at = sector * SECTOR_BYTES as u64;
        let number = at / PAGE_BYTES as u64;
        let start = (at % PAGE_BYTES as u64) as usize;
        if bytes.iter().any(|&byte| byte != 0) || self.pages.contains_key(&number) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[start..start + SECTOR_BYTES].copy_from_slice(bytes);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        for (number, new) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let sector = offset / SECTOR_BYTES as u64 + number as u64;
            let mut now = self.sector(sector);
            let versions = self.dirty.get_mut(&sector);
            if versions.is_none() && now[..new.len()] == *new {
                continue;
            }
            let before = now;
            now[..new.len()].copy_from_slice(new);
            self.dirty.entry(sector).or_insert_with(|| vec![before]).push(now);
            self.set_sector(sector, &now);
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let end = self.length.min(offset + out.len() as u64);
        let count = end.saturating_sub(offset) as usize;
        let mut at = 0;
        while at < count {
            let position = offset + at as u64;
            let start = (position % PAGE_BYTES as u64) as usize;
            let step = (PAGE_BYTES - start).min(count - at);
            match self.pages.get(&(position / PAGE_BYTES as u64)) {
                Some(page) => out[at..at + step].copy_from_slice(&page[start..start + step]),
                None => out[at..at + step].fill(0),
            }
            at += step;
        }
        count
    }

    fn sync(&mut self) {
        self.dirty.clear();
        self.stable_length = self.length;
    }

    fn sync_range(&mut self, offset: u64, bytes: usize) {
        let first = offset / SECTOR_BYTES as u64;
        let end = (offset + bytes as u64).div_ceil(SECTOR_BYTES as u64);
        self.dirty.retain(|&sector, _| sector < first || sector >= end);
        self.stable_length = self.stable_length.max(self.length.min(offset + bytes as u64));
    }
}

/// An operation that waits to be carried out.
#[derive(Clone, Debug)]
struct Held {
    tag: Tag,
    operation: Operation,
}

/// What an operation does, as far as it matters to who holds it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldOperation {
    /// Its tag.
    pub tag: Tag,
    /// Its kind.
    pub kind: OperationKind,
    /// Bytes that it reads or writes.
    pub bytes: usize,
    /// Whether it makes something durable.
    pub syncs: bool,
}

/// A disk in memory.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    geometry: Geometry,
    files: BTreeMap<FileId, File>,
    /// Removed, and the directory not synced since.
    removed: BTreeMap<FileId, File>,
    holding: bool,
    held: Vec<Held>,
    completions: Vec<Completion>,
    faults: Vec<Fault>,
    /// Bytes that can't be read: file, start, end.
    unreadable: Vec<(FileId, u64, u64)>,
    capacity_bytes: u64,
    writes: u64,
    syncs: u64,
}

impl MemoryDevice {
    /// An empty disk without limits that demands this alignment, bytes.
    ///
    /// # Panics
    /// If the alignment isn't a power of two of at least a sector.
    pub fn new(align: usize) -> Self {
        assert!(align.is_power_of_two() && align >= SECTOR_BYTES);
        Self {
            geometry: Geometry { align },
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            holding: false,
            held: Vec::new(),
            completions: Vec::new(),
            faults: Vec::new(),
            unreadable: Vec::new(),
            capacity_bytes: u64::MAX,
            writes: 0,
            syncs: 0,
        }
    }

    /// Sets the disk's size: writes that would make the files longer than this fail with ENOSPC.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// From now on operations wait (`true`), or are carried out at once (`false`; those that
    /// waited are carried out now, in order).
    pub fn hold(&mut self, holding: bool) {
        self.holding = holding;
        while !holding && !self.held.is_empty() {
            self.finish(0);
        }
    }

    /// The operations that wait, in the order in which they were submitted.
    pub fn held(&self) -> Vec<HeldOperation> {
        self.held
            .iter()
            .map(|held| {
                let (bytes, syncs) = match &held.operation {
                    Operation::Write { buffer, durability, .. } => {
                        (buffer.len(), *durability != Durability::None)
                    }
                    Operation::Read { buffer, .. } => (buffer.len(), false),
                    Operation::Sync(_) | Operation::SyncDirectory => (0, true),
                    _ => (0, false),
                };
                HeldOperation { tag: held.tag, kind: kind(&held.operation), bytes, syncs }
            })
            .collect()
    }

    /// Carries out the waiting operation at this position.
    ///
    /// # Panics
    /// If there is none.
    pub fn finish(&mut self, position: usize) {
        let held = self.held.remove(position);
        self.carry_out(held.tag, held.operation);
    }

    /// Adds a fault.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// From now on a read that meets one of these bytes fails with EIO.
    pub fn spoil(&mut self, file: FileId, offset: u64, bytes: u64) {
        self.unreadable.push((file, offset, offset + bytes));
    }

    /// Whether none of these bytes was made unreadable by [`MemoryDevice::spoil`].
    pub fn is_readable(&self, file: FileId, offset: u64, bytes: u64) -> bool {
        let mut spoiled = self.unreadable.iter();
        !spoiled.any(|&(other, start, end)| other == file && offset < end && start < offset + bytes)
    }

    /// Everything that a power cut could lose now, in the order in which
    /// [`MemoryDevice::power_cut`] asks for it. A sector written several times is listed once per
    /// write.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        let mut all = Vec::new();
        self.clone().power_cut(|unflushed| {
            all.push(unflushed);
            true
        });
        all
    }

    /// Cuts the power: of everything that no sync covered, only what `keep` says survives.
    /// Operations in flight are gone, the sectors of a write among them are asked for too. All
    /// files are closed.
    pub fn power_cut(&mut self, mut keep: impl FnMut(Unflushed) -> bool) {
        for held in std::mem::take(&mut self.held) {
            if let Operation::Write { file, offset, buffer, .. } = held.operation
                && let Some(found) = self.files.get_mut(&file)
                && found.open
            {
                found.write(offset, &buffer);
            }
        }
        self.completions.clear();
        self.faults.clear();
        self.holding = false;
        for (id, file) in std::mem::take(&mut self.removed) {
            if !keep(Unflushed::Removal(id)) {
                self.files.entry(id).or_insert(file);
            }
        }
        let mut lost = Vec::new();
        for (&id, file) in &mut self.files {
            file.open = false;
            if !file.entry_stable && !keep(Unflushed::Creation(id)) {
                lost.push(id);
                continue;
            }
            file.entry_stable = true;
            let mut length = file.stable_length;
            for (sector, versions) in std::mem::take(&mut file.dirty) {
                let mut versions = versions.into_iter();
                let mut content = versions.next().expect("the stable content comes first");
                for version in versions {
                    if keep(Unflushed::Sector(id, sector)) {
                        content = version;
                        length = length.max((sector + 1) * SECTOR_BYTES as u64);
                    }
                }
                file.set_sector(sector, &content);
            }
            file.length = length.min(file.length);
            file.stable_length = file.length;
        }
        for id in lost {
            self.files.remove(&id);
        }
    }

    /// Kills the process, not the machine: what was carried out stays, and stays unsynced;
    /// operations in flight are carried out, as the kernel would. All files are closed.
    pub fn kill(&mut self) {
        self.hold(false);
        self.completions.clear();
        for file in self.files.values_mut() {
            file.open = false;
        }
    }

    /// A sync of a file failed and dropped what it was to write: of the sectors that no sync
    /// covered, those that `keep` doesn't want are what they were before, and the next sync says
    /// that all is well.
    pub fn lose_unflushed(&mut self, id: FileId, mut keep: impl FnMut(u64) -> bool) {
        let Some(file) = self.files.get_mut(&id) else { return };
        for (sector, versions) in std::mem::take(&mut file.dirty) {
            if keep(sector) {
                file.dirty.insert(sector, versions);
            } else {
                file.set_sector(sector, &versions[0]);
            }
        }
    }

    /// The files and their lengths, bytes.
    pub fn files(&self) -> Vec<(FileId, u64)> {
        self.files.iter().map(|(&id, file)| (id, file.length)).collect()
    }

    /// A file's content, as a read would see it.
    pub fn content(&self, id: FileId) -> Vec<u8> {
        let file = &self.files[&id];
        let mut out = vec![0; file.length as usize];
        file.read(0, &mut out);
        out
    }

    /// Overwrites a part of a file behind everyone's back.
    pub fn corrupt(&mut self, id: FileId, offset: u64, bytes: &[u8]) {
        let file = self.files.get_mut(&id).expect("the file to corrupt exists");
        let end = offset + bytes.len() as u64;
        let first = offset / SECTOR_BYTES as u64;
        for sector in first..end.div_ceil(SECTOR_BYTES as u64) {
            let mut content = file.sector(sector);
            for (at, byte) in content.iter_mut().enumerate() {
                let position = sector * SECTOR_BYTES as u64 + at as u64;
                if position >= offset && position < end {
                    *byte = bytes[(position - offset) as usize];
                }
            }
            file.set_sector(sector, &content);
            file.dirty.remove(&sector);
        }
        file.length = file.length.max(end);
        file.stable_length = file.length;
    }

    /// Flips one bit of a file, counted from the file's start, behind everyone's back.
    pub fn flip_bit(&mut self, id: FileId, bit: u64) {
        let file = self.files.get_mut(&id).expect("the file to corrupt exists");
        let sector = bit / 8 / SECTOR_BYTES as u64;
        let mut content = file.sector(sector);
        content[(bit / 8) as usize % SECTOR_BYTES] ^= 1 << (bit % 8);
        file.set_sector(sector, &content);
        file.dirty.remove(&sector);
    }

    /// Makes a file shorter behind everyone's back; it comes to exist if it didn't.
    pub fn set_length(&mut self, id: FileId, length: u64) {
        let file = self.files.entry(id).or_default();
        file.entry_stable = true;
        let keep = length.div_ceil(PAGE_BYTES as u64);
        file.pages.retain(|&page, _| page < keep);
        file.dirty.clear();
        file.length = length;
        file.stable_length = length;
    }

    /// Removes a file behind everyone's back.
    pub fn delete(&mut self, id: FileId) {
        self.files.remove(&id);
    }

    /// Writes carried out so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Syncs carried out so far, those of writes included.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// The effect of the fault that strikes an operation of this kind, if one does.
    fn strike(&mut self, kind: OperationKind) -> Option<Effect> {
        let mut struck = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.on == kind) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.count > 0 && struck.is_none() {
                fault.count -= 1;
                struck = Some(fault.effect);
            }
        }
        self.faults.retain(|fault| fault.count > 0);
        struck
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.length).sum()
    }

    fn carry_out(&mut self, tag: Tag, operation: Operation) {
        let effect = self.strike(kind(&operation));
        let mut sync_result = None;
        let mut files = Vec::new();
        let mut returned = None;
        let mut result = match effect {
            Some(Effect::Errno(errno)) => -errno,
            _ => 0,
        };
        let limit = match effect {
            Some(Effect::Short(bytes)) => bytes,
            _ => usize::MAX,
        };
        match operation {
            Operation::List if result == 0 => files = self.files(),
            Operation::Create(id) if result == 0 => match self.files.entry(id) {
                Entry::Occupied(_) => result = -libc::EEXIST,
                Entry::Vacant(place) => {
                    place.insert(File { open: true, ..File::default() });
                }
            },
            Operation::Open(id) if result == 0 => match self.files.get_mut(&id) {
                Some(file) => file.open = true,
                None => result = -libc::ENOENT,
            },
            Operation::Write { file, offset, buffer, durability } => {
                if result == 0 {
                    (result, sync_result) = self.write(file, offset, &buffer, durability, limit);
                }
                returned = Some(buffer);
            }
            // Nothing is remembered: a kernel may have dropped all of it, too.
            Operation::Read { file, offset, mut buffer, from: _ } => {
                let end = offset + buffer.len() as u64;
                let meets = |&(bad, from, to): &(FileId, u64, u64)| {
                    bad == file && from < end && offset < to
                };
                if self.unreadable.iter().any(meets) {
                    result = -libc::EIO;
                }
                if result == 0 {
                    let count = buffer.len().min(limit);
                    result = match self.files.get(&file).filter(|file| file.open) {
                        Some(file) => file.read(offset, &mut buffer[..count]) as i32,
                        None => -libc::EBADF,
                    };
                }
                returned = Some(buffer);
            }
            Operation::Sync(id) if result == 0 => result = self.sync(id),
            Operation::SyncDirectory if result == 0 => {
                self.syncs += 1;
                self.removed.clear();
                for file in self.files.values_mut() {
                    file.entry_stable = true;
                }
            }
            Operation::Close(id) if result == 0 => match self.files.get_mut(&id) {
                Some(file) => file.open = false,
                None => result = -libc::EBADF,
            },
            Operation::Remove(id) if result == 0 => match self.files.remove(&id) {
                Some(file) if file.entry_stable => {
                    self.removed.insert(id, file);
                }
                Some(_) => {}
                None => result = -libc::ENOENT,
            },
            _ => {}
        }
        self.completions.push(Completion { tag, result, sync_result, buffer: returned, files });
    }

    fn write(
        &mut self,
        id: FileId,
        offset: u64,
        buffer: &Buffer,
        durability: Durability,
        limit: usize,
    ) -> (i32, Option<i32>) {
        let align = self.geometry.align;
        if !offset.is_multiple_of(align as u64)
            || !buffer.len().is_multiple_of(align)
            || !(buffer.as_ptr() as usize).is_multiple_of(align)
        {
            return (-libc::EINVAL, None);
        }
        let others = self.used_bytes();
        let capacity = self.capacity_bytes;
        let Some(file) = self.files.get_mut(&id).filter(|file| file.open) else {
            return (-libc::EBADF, None);
        };
        let end = offset + buffer.len() as u64;
        if end > file.length && others - file.length + end > capacity {
            return (-libc::ENOSPC, None);
        }
        self.writes += 1;
        let count = buffer.len().min(limit);
        file.write(offset, &buffer[..count]);
        let is_short = count < buffer.len();
        let sync_result = match durability {
            Durability::None => None,
            Durability::Dsync => {
                file.sync_range(offset, count);
                self.syncs += 1;
                None
            }
            Durability::LinkedSync if is_short => Some(-libc::ECANCELED),
            Durability::LinkedSync | Durability::Blocking => {
                Some(match self.strike(OperationKind::Sync) {
                    Some(Effect::Errno(errno)) => -errno,
                    _ => self.sync(id),
                })
            }
        };
        (count as i32, sync_result)
    }

    fn sync(&mut self, id: FileId) -> i32 {
        self.syncs += 1;
        match self.files.get_mut(&id).filter(|file| file.open) {
            Some(file) => {
                file.sync();
                0
            }
            None => -libc::EBADF,
        }
    }
}

fn kind(operation: &Operation) -> OperationKind {
    match operation {
        Operation::List => OperationKind::List,
        Operation::Create(_) => OperationKind::Create,
        Operation::Open(_) => OperationKind::Open,
        Operation::Write { .. } => OperationKind::Write,
        Operation::Read { .. } => OperationKind::Read,
        Operation::Forget(_) => OperationKind::Forget,
        Operation::Sync(_) => OperationKind::Sync,
        Operation::SyncDirectory => OperationKind::SyncDirectory,
        Operation::Close(_) => OperationKind::Close,
        Operation::Remove(_) => OperationKind::Remove,
    }
}

impl Device for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, tag: Tag, operation: Operation) {
        if self.holding {
            self.held.push(Held { tag, operation });
        } else {
            self.carry_out(tag, operation);
        }
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.completions);
    }
}
