//! What can't be read behind the last block that is kept: may it hold a block that was
//! acknowledged? Pure.
//!
//! The block after the last one can only be at two kinds of places: right behind it, or first in a
//! later segment. Where such a place was read and holds zeros, no block was begun there, and
//! whatever can't be read farther on in that segment holds none either: blocks lie side by side.

use crate::device::FileId;
use crate::format::{BlockHeader, SEGMENT_HEADER_BYTES};
use crate::scan::ScannedSegment;

/// A unit of a segment that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unreadable {
    /// Where, bytes.
    pub(crate) offset: u64,
    /// As the kernel says; zero: it was cut short.
    pub(crate) errno: i32,
}

/// The first unit that may hold a part of the block after `last`, the last one kept.
pub(crate) fn behind(
    segments: &[ScannedSegment],
    last: Option<&BlockHeader>,
) -> Option<(FileId, Unreadable)> {
    segments.iter().find_map(|segment| {
        let number = segment.file.number;
        let place = match last {
            Some(last) if number < last.segment => return None,
            Some(last) if number == last.segment => Some(last.offset + u64::from(last.length)),
            _ => segment.header.ok().map(|it| u64::from(it.align).max(SEGMENT_HEADER_BYTES as u64)),
        };
        // A segment whose header can't be read has its first place nobody knows where.
        let from = place.unwrap_or(0);
        let is_zero = |&(start, length): &(u64, u64)| start <= from && from < start + length;
        if place.is_some() && segment.zeros.iter().any(is_zero) {
            return None;
        }
        let unit = segment.unreadable.iter().find(|unit| unit.offset >= from).copied();
        // A header is written when the whole file is there, so a shorter one was cut.
        let is_cut = segment.header.is_ok_and(|header| segment.length < header.length);
        let unit = unit.or(is_cut.then_some(Unreadable { offset: segment.length, errno: 0 }));
        unit.map(|unit| (segment.file, unit))
    })
}
