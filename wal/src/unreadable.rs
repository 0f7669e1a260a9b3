//! What can't be read behind the last block that is kept: may it hold a part of a block that was
//! acknowledged? Pure.
//!
//! Durable is a contiguous prefix, so nothing behind the last block was acknowledged unless the
//! very next one was. That one can only be at two kinds of places: right behind the last, or first
//! in a later segment. What is read at such a place decides:
//!
//! | At the place | Then |
//! |---|---|
//! | it can't be read, or the file was cut before it | refused: the next block may be there |
//! | zeros, or no start of a block | it isn't there; what can't be read farther on is no loss |
//! | a start of a block that ends before what can't be read | as above: all of it was read, and is bad |
//! | a start of a block that what can't be read is a part of | refused: it may be whole but for that |
//!
//! The length that a start names isn't believed, for no checksum covers it that matched. But if
//! the next block were whole but for what can't be read, its first unit would be as it was written.

use crate::device::FileId;
use crate::format::{BLOCK_MAGIC, BlockHeader, SEGMENT_HEADER_BYTES};
use crate::scan::ScannedSegment;
use crate::settings::ALIGN_MAX;
use ringraft_types::bytes::u32_at;
use ringraft_types::limits::{BLOCK_ALIGN_MIN, BLOCK_BYTES_MAX};

/// A unit of a segment that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unreadable {
    /// Where, bytes.
    pub(crate) offset: u64,
    /// How much, bytes.
    pub(crate) bytes: u64,
    /// As the kernel says; zero: it was cut short.
    pub(crate) errno: i32,
}

/// The length of the block that seems to start here, `None` if none does. One that names a length
/// which no block has is taken for the longest.
pub(crate) fn length_named(bytes: &[u8]) -> Option<u64> {
    if bytes.len() < BLOCK_ALIGN_MIN || bytes[..8] != BLOCK_MAGIC {
        return None;
    }
    let length = u32_at(bytes, 128) as usize;
    let is_possible = (1..=BLOCK_BYTES_MAX).contains(&length);
    Some(if is_possible { length } else { BLOCK_BYTES_MAX } as u64)
}

/// The first unit that may hold a part of the block after `last`, the last one kept.
pub(crate) fn behind(
    segments: &[ScannedSegment],
    last: Option<&BlockHeader>,
) -> Option<(FileId, Unreadable)> {
    segments.iter().find_map(|segment| {
        let number = segment.file.number;
        let unit = match last {
            Some(last) if number < last.segment => None,
            Some(last) if number == last.segment => {
                in_doubt(segment, last.offset + u64::from(last.length))
            }
            _ => first_places(segment).find_map(|place| in_doubt(segment, place)),
        };
        unit.map(|unit| (segment.file, unit))
    })
}

/// Where a segment's first block may be: the header says it; without one, every alignment that a
/// device may have gives a place.
fn first_places(segment: &ScannedSegment) -> impl Iterator<Item = u64> + use<> {
    let least = SEGMENT_HEADER_BYTES as u64;
    let (first, most) = match &segment.header {
        Ok(header) => {
            let place = u64::from(header.align).max(least);
            (place, place)
        }
        Err(_) => (least, (ALIGN_MAX as u64).min(segment.length.saturating_sub(1)).max(least)),
    };
    std::iter::successors(Some(first), |place| Some(place * 2)).take_while(move |&it| it <= most)
}

/// What can't be read of a block that may have been written at this place.
fn in_doubt(segment: &ScannedSegment, place: u64) -> Option<Unreadable> {
    let known = segment.blocks.iter().find(|block| block.header.offset == place);
    let named = segment.begun.iter().find(|begun| begun.0 == place).map(|begun| begun.1);
    let bytes = known.map(|block| u64::from(block.header.length)).or(named).unwrap_or(1);
    let end = place + bytes;
    let is_part = |unit: &&Unreadable| unit.offset < end && place < unit.offset + unit.bytes;
    let unit = segment.unreadable.iter().find(is_part).copied();
    // A header is written when the whole file is there, so a shorter one was cut.
    let is_cut = match &segment.header {
        Ok(header) => segment.length < header.length,
        Err(_) => segment.unreadable.first().is_some_and(|unit| unit.offset == 0),
    };
    let cut = Unreadable { offset: segment.length, bytes: 0, errno: 0 };
    unit.or((is_cut && segment.length < end).then_some(cut))
}
