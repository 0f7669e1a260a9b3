//! Segments: which files there are, where in them blocks lie, and the next one in the making.
//!
//! A segment is made in the background, in chunks, and is zero-filled and synced before its
//! header is written, so that a crash at any step leaves a file that is told from a used one.

use crate::device::FileId;
use ringraft_types::{Sequence, Ticks};
use std::collections::VecDeque;

/// Bytes of zeros per write while a segment is made.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Chunks in flight while the log waits for the segment; one if it doesn't.
pub(crate) const CHUNKS_URGENT: usize = 4;
/// At most one chunk in this time while the log doesn't wait for the segment.
pub(crate) const CHUNK_PACE: Ticks = Ticks::from_millis(1);
/// After the disk was full: the time until the next attempt.
pub(crate) const RETRY_AFTER: Ticks = Ticks::from_millis(500);

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: Sequence,
    /// In units of 4096 bytes.
    pub(crate) offset_units: u32,
    /// In units of 4096 bytes.
    pub(crate) length_units: u32,
}

impl Place {
    /// Bytes from the beginning of the segment.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_units) * 4096
    }

    /// Bytes.
    pub(crate) fn length(&self) -> usize {
        self.length_units as usize * 4096
    }
}

/// A segment with blocks in it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) places: Vec<Place>,
}

/// Where the making of a segment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MakeStep {
    /// The file is being created.
    Create,
    /// Zeros are written up to `submitted`, `in_flight` chunks of them aren't done.
    Fill { submitted: u64, in_flight: usize },
    /// The zeros are being synced.
    SyncZeros,
    /// The header is being written.
    Header,
    /// The header is being synced.
    SyncHeader,
    /// The directory is being synced.
    SyncDirectory,
    /// The disk was full: chunks in flight are awaited, then the file is removed.
    Abandon { in_flight: usize },
    /// The file is being removed.
    Remove,
}

/// A segment in the making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    pub(crate) number: u64,
    pub(crate) step: MakeStep,
    /// When the next chunk may be written.
    pub(crate) next_chunk: Ticks,
}

/// The segments of a log.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) log_id: u64,
    /// Ascending; the last one is written to, unless it is from a former life.
    pub(crate) used: VecDeque<Segment>,
    /// Where the next block goes in the last of `used`; `None`: a new segment must be begun.
    pub(crate) write_offset: Option<u64>,
    /// Made, and never written to.
    pub(crate) spares: VecDeque<u64>,
    pub(crate) making: Option<Making>,
    pub(crate) next_number: u64,
    /// The disk was full at the last attempt to make a segment.
    pub(crate) exhausted: bool,
    pub(crate) retry_at: Ticks,
}

impl Segments {
    pub(crate) fn file(&self, number: u64) -> FileId {
        FileId::segment(self.log_id, number)
    }

    /// Reserves the place of a block: segment and offset. `None`: a segment must be made first.
    pub(crate) fn place(
        &mut self,
        sequence: Sequence,
        length: usize,
        segment_bytes: u64,
        first_offset: u64,
    ) -> Option<(u64, u64)> {
        let fits = self.write_offset.is_some_and(|at| at + length as u64 <= segment_bytes);
        if !fits {
            let number = self.spares.pop_front()?;
            assert!(self.used.back().is_none_or(|last| last.number < number));
            self.used.push_back(Segment { number, places: Vec::new() });
            self.write_offset = Some(first_offset);
        }
        let offset = self.write_offset.expect("a segment was begun if there was none");
        self.write_offset = Some(offset + length as u64);
        let segment = self.used.back_mut().expect("a segment was begun if there was none");
        assert!(segment.places.last().is_none_or(|last| last.sequence < sequence));
        segment.places.push(Place {
            sequence,
            offset_units: (offset / 4096) as u32,
            length_units: (length / 4096) as u32,
        });
        Some((segment.number, offset))
    }

    /// Segment, offset and length of a block.
    pub(crate) fn find(&self, sequence: Sequence) -> Option<(u64, u64, usize)> {
        let at = self.used.partition_point(|segment| {
            segment.places.last().is_none_or(|last| last.sequence < sequence)
        });
        let segment = self.used.get(at)?;
        let at = segment.places.binary_search_by_key(&sequence, |place| place.sequence).ok()?;
        let place = segment.places[at];
        Some((segment.number, place.offset(), place.length()))
    }

    /// The oldest block behind this one: its segment and place.
    pub(crate) fn after(&self, sequence: Sequence) -> Option<(u64, Place)> {
        self.used.iter().find_map(|segment| {
            let at = segment.places.partition_point(|place| place.sequence <= sequence);
            segment.places.get(at).map(|place| (segment.number, *place))
        })
    }

    /// Whether the log waits, or will soon wait, for the next segment.
    pub(crate) fn is_urgent(&self, segment_bytes: u64) -> bool {
        self.spares.is_empty() && self.write_offset.is_none_or(|at| at > segment_bytes / 4 * 3)
    }
}
