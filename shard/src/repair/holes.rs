//! A log with holes, as its node promised it: what a start found missing, and what lies behind that.
//!
//! ```text
//!   index      1  2  3  4  5  6  7  8  9
//!   term       1  1  1  ?  2  2  2  2  3      ? is of term 1 or 2
//!   on disk    x  x  x        x  x     x      missing: 4 to 5, 8
//!   protocol   x  x  x                        the log that the group starts with
//! ```
//! Two logs that agree at one entry agree at all before it (I-05). So whoever holds the entry 2.5
//! tells which one the fourth was.

use crate::members::Members;
use ringraft_raft::EntryHead;
use ringraft_types::limits::RECORD_HEADER_BYTES;
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{Index, LogId, Term};
use ringraft_wal::recovery::Outline;
use std::collections::BTreeMap;

/// What lies behind the log of a group that lost entries.
#[derive(Debug)]
pub(crate) struct Holes {
    outline: Outline,
    /// The first entry behind the log of the group.
    begins: Index,
    /// Of entries whose terms the outline doesn't tell, those that came.
    learned: BTreeMap<Index, Term>,
    /// First and last, ascending; empty only when the last one came, or a snapshot that holds it.
    missing: Vec<(Index, Index)>,
    /// The configurations among the entries.
    members: BTreeMap<Index, Members>,
}

impl Holes {
    /// What is missing behind the entry `after`, which the log of the group ends with, and what is
    /// there of the configurations behind it.
    pub(crate) fn new(outline: Outline, after: Index, members: Vec<Members>) -> Option<Self> {
        let begins = after.next();
        let missing = cut_before(&outline.holes, begins);
        let members = members.into_iter().map(|members| (members.index, members)).collect();
        let is_any = !missing.is_empty();
        is_any.then_some(Self { outline, begins, learned: BTreeMap::new(), missing, members })
    }

    /// The newest entry.
    pub(crate) fn last(&self) -> LogId {
        let last = self.outline.run.last;
        let term = self.outline.term_at(last).expect("an outline ends with an entry of its own");
        LogId::new(term, last)
    }

    /// The term of an entry, zero if it isn't known yet; `None`: there was no such entry.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let term = self.outline.term_at(index)?;
        let learned = || self.learned.get(&index).copied().unwrap_or_default();
        Some(if term == Term::ZERO { learned() } else { term })
    }

    /// The first entry from this one on whose term the outline tells.
    pub(crate) fn told_from(&self, index: Index) -> LogId {
        self.outline.told_from(index)
    }

    /// Whether this log held an entry for sure, which some log of its group holds.
    pub(crate) fn held(&self, entry: LogId) -> bool {
        match self.learned.get(&entry.index) {
            Some(&term) => term == entry.term,
            None => self.outline.held(entry),
        }
    }

    /// What lies behind an entry that this log held, and that a snapshot ends with.
    pub(crate) fn behind(mut self, entry: LogId) -> Self {
        self.begins = self.begins.max(entry.index.next());
        self.missing = cut_before(&self.missing, self.begins);
        self.members = self.members.split_off(&self.begins);
        if self.outline.term_at(entry.index) == Some(Term::ZERO) {
            self.learned.insert(entry.index, entry.term);
        }
        self
    }

    /// What is missing still.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (Index, Index)> + '_ {
        self.missing.iter().copied()
    }

    /// Whether nothing is.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    pub(crate) fn is_missing(&self, index: Index) -> bool {
        self.missing.iter().any(|&(first, last)| first <= index && index <= last)
    }

    /// How many of these entries, which a peer holds, are those of this log: of one term, or of one
    /// that isn't known and fits between its neighbours'.
    pub(crate) fn agrees(&self, first: Index, heads: &[EntryHead]) -> usize {
        let mut before = self.term_at(first.previous()).unwrap_or_default();
        let is_same = |&(index, head): &(Index, &EntryHead)| {
            let is_same = match self.term_at(index) {
                Some(Term::ZERO) => (before..=self.told_from(index).term).contains(&head.term),
                known => known == Some(head.term),
            };
            before = head.term;
            is_same && head.term > Term::ZERO
        };
        (first.0..).map(Index).zip(heads).take_while(is_same).count()
    }

    /// These entries, which agree, are in the log again; whether nothing is missing any more.
    pub(crate) fn fill(&mut self, first: Index, mut records: &[u8]) -> bool {
        let mut index = first;
        while !records.is_empty() {
            let header = record::peek(records).expect("records are verified where they enter");
            let payload = &records[RECORD_HEADER_BYTES..][..header.length as usize];
            if self.outline.term_at(index) == Some(Term::ZERO) {
                self.learned.insert(index, header.term);
            }
            if header.kind == RecordKind::Configuration && index >= self.begins {
                let members = Members::decode(index, payload);
                self.members.insert(index, members.expect("it was decoded where it entered"));
            }
            records = &records[record::encoded_bytes(header.length as usize)..];
            index = index.next();
        }
        let left = |(from, to): (Index, Index)| {
            let before = (from, to.min(first.previous()));
            let behind = (from.max(index), to);
            [before, behind].into_iter().filter(|hole| hole.0 <= hole.1)
        };
        self.missing = std::mem::take(&mut self.missing).into_iter().flat_map(left).collect();
        self.is_whole()
    }

    /// Where each term of the entries behind the log starts, when nothing is missing.
    pub(crate) fn runs(&self) -> Vec<(Index, Term)> {
        assert!(self.is_whole(), "a term may not be known");
        let mut runs: Vec<(Index, Term)> = Vec::new();
        for index in (self.begins.0..=self.outline.run.last.0).map(Index) {
            let term = self.term_at(index).expect("it was held");
            if runs.last().is_none_or(|run| run.1 != term) {
                runs.push((index, term));
            }
        }
        runs
    }

    /// The configurations among the entries, ascending.
    pub(crate) fn into_members(self) -> impl Iterator<Item = Members> {
        self.members.into_values()
    }
}

/// What of some holes lies at this entry or behind it.
fn cut_before(holes: &[(Index, Index)], begins: Index) -> Vec<(Index, Index)> {
    let behind = holes.iter().map(|&(first, last)| (first.max(begins), last));
    behind.filter(|hole| hole.0 <= hole.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::GroupId;
    use ringraft_wal::recovery::EntryRun;

    /// The log of the picture above.
    fn holes() -> Holes {
        let terms = [(1, 1), (4, 0), (5, 2), (9, 3)];
        let terms = terms.map(|(first, term)| (Index(first), Term(term))).to_vec();
        let run = EntryRun { first: Index(1), last: Index(9), terms };
        let holes = vec![(Index(4), Index(5)), (Index(8), Index(8))];
        Holes::new(Outline { run, holes }, Index(3), Vec::new()).expect("something is missing")
    }

    fn heads(terms: &[u64]) -> Vec<EntryHead> {
        terms.iter().map(|&term| EntryHead { term: Term(term), bytes: 48 }).collect()
    }

    fn records(first: u64, terms: &[u64]) -> Vec<u8> {
        let mut records = Vec::new();
        for (index, &term) in (first..).zip(terms) {
            let (kind, group) = (RecordKind::Command, GroupId(1));
            record::encode(&mut records, kind, group, Index(index), Term(term), [b"", b""]);
        }
        records
    }

    /// An entry is taken whose term is known, or may be the one that isn't.
    #[test]
    fn what_a_peer_holds_is_compared() {
        let holes = holes();
        assert_eq!(holes.last(), LogId::new(Term(3), Index(9)));
        for (first, terms, count) in [
            (4, &[1, 2, 2][..], 3),
            (4, &[2, 2, 2, 2, 2, 3, 3], 6),
            (4, &[1, 1], 1),
            (4, &[3, 2], 0),
            (4, &[0, 2], 0),
            (5, &[2, 2], 2),
            (5, &[1], 0),
            (8, &[2, 3], 2),
            (8, &[3], 0),
            (10, &[3], 0),
        ] {
            assert_eq!(holes.agrees(Index(first), &heads(terms)), count, "{first} {terms:?}");
        }
        assert_eq!(holes.told_from(Index(4)), LogId::new(Term(2), Index(5)));
        assert_eq!(holes.told_from(Index(7)), LogId::new(Term(2), Index(7)));
        assert_eq!(holes.told_from(Index(50)), LogId::new(Term(3), Index(9)));
    }

    /// What comes, in whatever order and pieces, is missing no more; what it tells is remembered.
    #[test]
    fn holes_are_filled() {
        let mut holes = holes();
        assert!(!holes.fill(Index(5), &records(5, &[2, 2, 2])));
        assert_eq!(
            holes.missing().collect::<Vec<_>>(),
            [(Index(4), Index(4)), (Index(8), Index(8))]
        );
        assert!(holes.is_missing(Index(8)) && !holes.is_missing(Index(5)));
        assert!(!holes.fill(Index(8), &records(8, &[2])));
        assert_eq!(holes.term_at(Index(4)), Some(Term::ZERO));
        assert!(holes.fill(Index(4), &records(4, &[1])));
        assert_eq!(holes.term_at(Index(4)), Some(Term(1)));
        let runs = [(4, 1), (5, 2), (9, 3)].map(|(first, term)| (Index(first), Term(term)));
        assert_eq!(holes.runs(), runs);
    }

    /// Which entries this log held for sure, if some log holds them: where a term isn't known, only
    /// what the leader of the next known term had, until an entry comes that tells.
    #[test]
    fn what_was_held_is_told() {
        let mut holes = holes();
        let held = |holes: &Holes| -> Vec<Vec<u64>> {
            let is_held = |at, term| holes.held(LogId::new(Term(term), Index(at)));
            (1..=10).map(|at| (1..=4).filter(|&term| is_held(at, term)).collect()).collect()
        };
        let known = [&[1], &[1], &[1], &[2], &[2], &[2], &[2], &[2], &[3], &[][..]];
        assert_eq!(held(&holes), known);
        assert!(!holes.fill(Index(4), &records(4, &[1])));
        assert_eq!(held(&holes)[3], [1], "it was an entry of the older term");
    }

    /// A snapshot takes along the holes up to its end, and no more.
    #[test]
    fn what_lies_behind_a_snapshot_stays() {
        let at = |after, term| {
            let entry = LogId::new(Term(term), Index(after));
            let holes = holes().behind(entry);
            assert!(holes.held(entry) && holes.last() == LogId::new(Term(3), Index(9)));
            holes.missing().collect::<Vec<_>>()
        };
        assert_eq!(at(2, 1), [(Index(4), Index(5)), (Index(8), Index(8))]);
        assert_eq!(at(4, 2), [(Index(5), Index(5)), (Index(8), Index(8))]);
        assert_eq!(at(6, 2), [(Index(8), Index(8))]);
        assert_eq!(at(8, 2), []);
        let holes = holes().behind(LogId::new(Term(2), Index(8)));
        assert!(holes.is_whole());
        assert_eq!(holes.runs(), [(Index(9), Term(3))]);
    }

    /// What lies before the log's end, because a snapshot holds it, isn't missing.
    #[test]
    fn what_a_snapshot_holds_is_not_missing() {
        let outline = holes().outline;
        let behind = |after| {
            let holes = Holes::new(outline.clone(), Index(after), Vec::new());
            holes.map(|holes| holes.missing().collect::<Vec<_>>())
        };
        assert_eq!(behind(4), Some(vec![(Index(5), Index(5)), (Index(8), Index(8))]));
        assert_eq!(behind(6), Some(vec![(Index(8), Index(8))]));
        assert_eq!(behind(8), None);
    }
}
