//! Which chunk of a snapshot holds what: the strands in their order, each in chunks of its own, then
//! the rest. All chunks of a stretch but its last are full, and one follows the other in the file.

use super::format::{CHUNK_HEAD_BYTES, CHUNK_ROOM, chunk_stride, first_offset};
use crate::format::round_up;
use ringraft_types::{STRANDS, StrandBytes};
use std::ops::Range;

/// The longest snapshot, bytes: its chunks and their places can be counted.
const BYTES_MAX: u64 = 1 << 48;

/// How the bytes of a snapshot are laid out in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    strands: StrandBytes,
    /// Of all together, the rest included.
    bytes: u64,
}

/// Consecutive chunks that hold one strand, or the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The chunks; none if it holds nothing.
    pub chunks: Range<u32>,
    /// What they hold together, bytes.
    pub bytes: u64,
}

impl Stretch {
    /// What a chunk of it holds, bytes.
    fn room(&self, chunk: u32) -> usize {
        let before = u64::from(chunk - self.chunks.start) * CHUNK_ROOM as u64;
        (self.bytes - before).min(CHUNK_ROOM as u64) as usize
    }

    /// What it takes in the file, bytes.
    fn length(&self, align: usize) -> u64 {
        let Some(last) = self.chunks.end.checked_sub(1).filter(|_| !self.chunks.is_empty()) else {
            return 0;
        };
        let full = u64::from(last - self.chunks.start) * chunk_stride(align) as u64;
        full + round_up(CHUNK_HEAD_BYTES + self.room(last), align) as u64
    }
}

impl Layout {
    /// That of a snapshot of so many bytes, so many of them in each strand; `None` if no snapshot is
    /// of that.
    pub fn new(strands: StrandBytes, bytes: u64) -> Option<Self> {
        let mut before = 0u64;
        for strand in strands {
            before = before.checked_add(strand)?;
        }
        (before <= bytes && bytes <= BYTES_MAX).then_some(Self { strands, bytes })
    }

    /// The stretches: the strands, then the rest.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> + use<> {
        let rest = self.bytes - self.strands.iter().sum::<u64>();
        let mut first = 0;
        self.strands.into_iter().chain([rest]).map(move |bytes| {
            let end = first + bytes.div_ceil(CHUNK_ROOM as u64) as u32;
            Stretch { chunks: std::mem::replace(&mut first, end)..end, bytes }
        })
    }

    /// The stretch of a chunk, and where that begins in the file.
    fn stretch_of(&self, chunk: u32, align: usize) -> (Stretch, u64) {
        let mut offset = first_offset(align);
        for stretch in self.stretches() {
            if stretch.chunks.contains(&chunk) {
                return (stretch, offset);
            }
            offset += stretch.length(align);
        }
        panic!("there is no chunk {chunk}")
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u32 {
        self.stretches().last().map_or(0, |rest| rest.chunks.end)
    }

    /// How many chunks the strands take; the rest begins behind them.
    pub fn strand_chunks(&self) -> u32 {
        self.stretches().nth(STRANDS).map_or(0, |rest| rest.chunks.start)
    }

    /// Whether a chunk is the last of its strand.
    pub fn ends_strand(&self, chunk: u32) -> bool {
        chunk < self.strand_chunks() && self.stretches().any(|it| it.chunks.end == chunk + 1)
    }

    /// What a chunk holds, bytes.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn room(&self, chunk: u32) -> usize {
        self.stretch_of(chunk, 1).0.room(chunk)
    }

    /// Where a chunk lies in a file of this alignment.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub(super) fn offset(&self, chunk: u32, align: usize) -> u64 {
        let (stretch, offset) = self.stretch_of(chunk, align);
        offset + u64::from(chunk - stretch.chunks.start) * chunk_stride(align) as u64
    }

    /// The length of a file of this alignment, bytes.
    pub(super) fn length(&self, align: usize) -> u64 {
        self.stretches().fold(first_offset(align), |at, stretch| at + stretch.length(align))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = CHUNK_ROOM as u64;

    /// Chunks follow one another in the file, and hold together what the layout is of.
    #[test]
    fn chunks_follow_one_another() {
        for strands in [[0; STRANDS], [1, 0, ROOM, ROOM + 1, 3 * ROOM, 5, 0, 2 * ROOM - 1]] {
            for rest in [0, 1, ROOM, 2 * ROOM + 7] {
                let bytes = strands.iter().sum::<u64>() + rest;
                let layout = Layout::new(strands, bytes).expect("it is one");
                let (mut offset, mut held) = (first_offset(4096), 0);
                for chunk in 0..layout.chunks() {
                    assert_eq!(layout.offset(chunk, 4096), offset);
                    let room = layout.room(chunk);
                    assert!(0 < room && room <= CHUNK_ROOM);
                    offset += round_up(CHUNK_HEAD_BYTES + room, 4096) as u64;
                    held += room as u64;
                }
                assert_eq!((held, offset), (bytes, layout.length(4096)));
                let ends = (0..layout.chunks()).filter(|&chunk| layout.ends_strand(chunk));
                assert_eq!(ends.count(), strands.iter().filter(|&&bytes| bytes > 0).count());
            }
        }
    }

    /// Numbers that no snapshot is of are refused, and nothing overflows.
    #[test]
    fn what_is_no_layout_is_refused() {
        assert_eq!(Layout::new([1; STRANDS], STRANDS as u64 - 1), None);
        assert_eq!(Layout::new([u64::MAX; STRANDS], u64::MAX), None);
        assert_eq!(Layout::new([0; STRANDS], u64::MAX), None);
        let long = Layout::new([BYTES_MAX / 16; STRANDS], BYTES_MAX).expect("it is one");
        assert!(long.chunks() > 1 << 29 && long.length(4096) > BYTES_MAX);
    }
}
