//! Writing entries that the log has already once more, in another place: what lay in the old one is
//! rotten, or keeps a segment from being removed.
//!
//! A carried record never removes anything. When its block is durable, the entry is read from
//! there, and a replay that finds a hole in the old place finds the entry in the new one.

use super::{Log, lengths};
use crate::error::AppendError;
use crate::index::Span;
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{GroupId, Index, Sequence};

impl Log {
    /// Appends entries of a group once more, which this log holds: `records` are consecutive ones
    /// from `first` on, encoded, verified by the caller. Returns the sequence of the last block that
    /// will carry some of them, and how many there are; reads find them in their new place from now
    /// on, and wait until it is durable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    ///
    /// # Panics
    /// If the records aren't consecutive entries of the group.
    pub fn carry_run(
        &mut self,
        group: GroupId,
        first: Index,
        records: &[u8],
    ) -> Result<(Sequence, u64), AppendError> {
        let (count, largest) = lengths(records)
            .fold((0, 0), |(count, largest), length| (count + 1, length.max(largest)));
        assert!(count > 0, "a run holds at least one entry");
        let bytes = records.len() + count * RECORD_HEADER_BYTES;
        self.admit(bytes, largest + RECORD_HEADER_BYTES)?;
        let mut carried = Vec::with_capacity(largest + RECORD_HEADER_BYTES);
        let (mut rest, mut index) = (records, first);
        let mut placed: Option<Span> = None;
        for length in lengths(records) {
            let (entry, behind) = rest.split_at(length);
            let header = record::peek(entry).expect("the caller carries verified records");
            assert!(header.kind.is_entry(), "a run holds entries");
            assert_eq!((header.group, header.index), (group, index), "consecutive entries");
            carried.clear();
            let (kind, term) = (RecordKind::Carried, header.term);
            record::encode(&mut carried, kind, group, index, term, [entry, b""]);
            let header = record::peek(&carried).expect("it was just encoded");
            let filling = self.filling_with_room(group, true, carried.len());
            filling.push(&header, &carried);
            let sequence = filling.sequence;
            match &mut placed {
                Some(span) if span.sequence == sequence => span.last = index,
                span => {
                    let new = Span { first: index, last: index, sequence };
                    if let Some(before) = span.replace(new) {
                        self.index.place(group, before);
                    }
                }
            }
            (rest, index) = (behind, index.next());
        }
        let last = placed.expect("there was one entry at least");
        self.index.place(group, last);
        Ok((last.sequence, count as u64))
    }

    /// The entries of a group that lie in this block, as runs: first and last.
    pub fn held_in(&self, group: GroupId, sequence: Sequence) -> Vec<(Index, Index)> {
        self.index.within(group, sequence).collect()
    }
}
