//! Damage to what was durable: bit rot, writes that never reached the medium, and writes that went
//! to another place.
//!
//! Nobody can notice the loss of the newest block: it looks like a torn tail (`docs/ASSUMPTIONS.md`).
//! So only what a newer block on the same disk proves to have been durable is damaged, and of that
//! everything: a start, or a read, must notice it. What can't be read proves nothing, and on a disk
//! that was damaged the proof stays.

use std::fmt;

use ringraft_types::Sequence;
use ringraft_wal::device::memory::{MemoryDevice, SECTOR_BYTES};
use ringraft_wal::device::{FileId, FileKind};
use ringraft_wal::format::SEGMENT_HEADER_BYTES;

use crate::disk::SimDisk;
use crate::faults::FaultKind;
use crate::files;
use crate::random::Random;

/// A part of a disk that may be damaged.
#[derive(Clone, Copy, Debug)]
struct Part {
    file: FileId,
    offset: u64,
    bytes: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes } = self;
        write!(f, "{bytes} bytes at {offset} of {:?} {}", file.kind, file.number)
    }
}

/// Makes a sector of the newest block unreadable; where that is, if there is a block, and it proves
/// no damage.
pub(crate) fn spoil_newest(disk: &mut SimDisk, random: &mut Random) -> Option<String> {
    if disk.is_damaged {
        return None;
    }
    let newest = blocks(&disk.flushed()).into_iter().max_by_key(|(sequence, ..)| *sequence);
    let part = newest?.2;
    spoil(disk, part, random);
    disk.is_damaged = true;
    disk.damages += 1;
    Some(part.to_string())
}

fn spoil(disk: &mut SimDisk, Part { file, offset, bytes }: Part, random: &mut Random) {
    let sector = random.below((bytes as u64).div_ceil(SECTOR_BYTES as u64));
    let at = offset + sector * SECTOR_BYTES as u64;
    disk.memory_mut().spoil(file, at, SECTOR_BYTES as u64);
}

/// Damages a disk; what was done, or `None` if there is nothing yet whose loss could be noticed.
pub(crate) fn inflict(disk: &mut SimDisk, kind: FaultKind, random: &mut Random) -> Option<String> {
    let flushed = disk.flushed();
    // A removal that isn't flushed would be undone by a power cut; until then the file is gone.
    let there: Vec<FileId> = disk.memory().files().into_iter().map(|(file, _)| file).collect();
    let mut parts = match kind {
        // What can't be read is noticed wherever it is, the newest block included; and a segment
        // without a block must not be taken for one with it.
        FaultKind::BadSector if !disk.is_damaged => {
            let mut parts: Vec<Part> = blocks(&flushed).into_iter().map(|block| block.2).collect();
            let headers = flushed.files().into_iter();
            parts.extend(headers.map(|(file, _)| Part {
                file,
                offset: 0,
                bytes: SEGMENT_HEADER_BYTES,
            }));
            parts
        }
        _ => parts(&flushed),
    };
    parts.retain(|part| there.contains(&part.file));
    if parts.is_empty() {
        return None;
    }
    // There are many more blocks than chunks: each third time it is a chunk, if there is one.
    let chunks: Vec<Part> =
        parts.iter().filter(|part| part.file.kind == FileKind::Snapshot).copied().collect();
    let part = if kind == FaultKind::BitRot && !chunks.is_empty() && random.below(3) == 0 {
        random.pick(&chunks)
    } else {
        random.pick(&parts)
    };
    let Part { file, offset, bytes } = part;
    let memory = disk.memory_mut();
    match kind {
        FaultKind::BitRot => {
            for _ in 0..random.between(1, 3) {
                let bit = offset * 8 + random.below(bytes as u64 * 8);
                memory.flip_bit(file, bit);
            }
        }
        FaultKind::BadSector => spoil(disk, part, random),
        FaultKind::LostWrite => memory.corrupt(file, offset, &vec![0; bytes]),
        FaultKind::MisdirectedWrite => {
            let other = random.pick(&parts);
            if (other.file, other.offset) == (file, offset) {
                return None;
            }
            let start = offset as usize;
            let content = &flushed.content(file)[start..start + bytes.min(other.bytes)];
            memory.corrupt(other.file, other.offset, content);
            memory.corrupt(file, offset, &vec![0; bytes]);
        }
        _ => unreachable!("{kind} damages nothing that was durable"),
    }
    disk.is_damaged = true;
    disk.damages += 1;
    Some(part.to_string())
}

/// Removes all files of a disk.
pub(crate) fn empty(disk: &mut SimDisk) {
    for (file, _) in disk.memory_mut().files() {
        disk.memory_mut().delete(file);
    }
}

/// The blocks at their own places that can be read: sequence, what each proves to be durable, and
/// where it is.
fn blocks(flushed: &MemoryDevice) -> Vec<(Sequence, Sequence, Part)> {
    let mut blocks = Vec::new();
    let all = flushed.files().into_iter();
    for (file, _) in all.filter(|(file, _)| file.kind == FileKind::Segment) {
        for (at, block) in files::blocks(&flushed.content(file)) {
            let (header, offset, bytes) = (&block.header, at as u64, block.bytes.len());
            let is_placed = (header.segment, header.offset) == (file.number, offset);
            if is_placed && flushed.is_readable(file, offset, bytes as u64) {
                let part = Part { file, offset, bytes };
                blocks.push((header.sequence, header.durable, part));
            }
        }
    }
    blocks
}

/// The blocks that a newer one proves to have been durable, and the headers of segments with blocks.
fn parts(flushed: &MemoryDevice) -> Vec<Part> {
    let blocks = blocks(flushed);
    let mut files: Vec<FileId> = blocks.iter().map(|(.., part)| part.file).collect();
    files.dedup();
    let mut parts: Vec<Part> =
        files.into_iter().map(|file| Part { file, offset: 0, bytes: 80 }).collect();
    let newest = blocks.iter().max_by_key(|(sequence, ..)| *sequence);
    let Some(&(newest, durable, _)) = newest else { return Vec::new() };
    let is_proven = |sequence: Sequence| sequence < newest && sequence <= durable;
    parts.extend(blocks.iter().filter(|block| is_proven(block.0)).map(|block| block.2));
    parts.extend(chunks(flushed));
    parts
}

/// The chunks of snapshots that are finished.
fn chunks(flushed: &MemoryDevice) -> impl Iterator<Item = Part> {
    files::snapshots(flushed).into_iter().flat_map(|head| {
        (0..head.chunks).map(move |chunk| {
            let (offset, bytes) = head.used(chunk);
            Part { file: head.file(), offset, bytes }
        })
    })
}
