//! The log without its bytes: terms by runs, and the record lengths of the tail that the owner
//! still caches.
//!
//! ```text
//!   index    base  1   2   3   4   5   6   7
//!   term       0   1   1   1   2   2   5   5      runs = [(1, t1), (4, t2), (6, t5)]
//!   bytes                          48  56  48     cached = [48, 56, 48], first_cached = 5
//! ```

use crate::input::EntryHead;
use crate::settings::LogShape;
use ringraft_types::{Index, LogId, Term};
use std::collections::VecDeque;

/// One group's log.
#[derive(Debug)]
pub(crate) struct Log {
    /// The entry before the first one held.
    base: LogId,
    /// First index and term of each run; both ascend.
    runs: Vec<(Index, Term)>,
    /// The newest entry's index; `base.index` if there is none.
    last: Index,
    /// Record bytes of the newest entries, as many as the owner caches.
    cached: VecDeque<u32>,
}

impl Log {
    pub(crate) fn new(shape: LogShape) -> Self {
        let LogShape { base, runs, last } = shape;
        assert!(last >= base.index);
        assert_eq!(runs.is_empty(), last == base.index, "runs cover what is held");
        assert!(runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "runs ascend");
        if let (Some(first), Some(newest)) = (runs.first(), runs.last()) {
            assert_eq!(first.0, base.index.next(), "no gap after the base");
            assert!(first.1 >= base.term);
            assert!(newest.0 <= last);
        }
        Self { base, runs, last, cached: VecDeque::new() }
    }

    pub(crate) fn base(&self) -> LogId {
        self.base
    }

    pub(crate) fn last(&self) -> Index {
        self.last
    }

    pub(crate) fn last_id(&self) -> LogId {
        let term = self.runs.last().map_or(self.base.term, |&(_, term)| term);
        LogId::new(term, self.last)
    }

    /// The first index whose record the owner caches; after `last` if none.
    pub(crate) fn first_cached(&self) -> Index {
        Index(self.last.0 + 1 - self.cached.len() as u64)
    }

    /// The term of the entry here; `None` if it isn't held (the base's term is known).
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last || index < self.base.index {
            return None;
        }
        if index == self.base.index {
            return Some(self.base.term);
        }
        // Nearly every question is about the newest run.
        let &(first, term) = self.runs.last().expect("index is between base and last");
        if index >= first {
            return Some(term);
        }
        let after = self.runs.partition_point(|&(first, _)| first <= index);
        Some(self.runs[after - 1].1)
    }

    /// The newest entry at or before `index` whose term is at most `term`; the base if none.
    pub(crate) fn newest_at_most(&self, index: Index, term: Term) -> LogId {
        let index = index.min(self.last);
        let after = self.runs.partition_point(|run| run.0 <= index && run.1 <= term);
        if after == 0 {
            return self.base;
        }
        let end = self.runs.get(after).map_or(self.last, |next| next.0.previous());
        LogId::new(self.runs[after - 1].1, end.min(index))
    }

    /// Gives up the entries up to `through`, which is held: the log begins after it from now on.
    pub(crate) fn release(&mut self, through: Index) {
        assert!(through > self.base.index, "what was given up doesn't come back (I-02)");
        let term = self.term_at(through).expect("a log gives up what it holds");
        self.base = LogId::new(term, through);
        let after = self.runs.partition_point(|run| run.0 <= through);
        self.runs.drain(..after.saturating_sub(1));
        if after > 0 {
            let end = self.runs.get(1).map_or(self.last, |next| next.0.previous());
            if end == through {
                self.runs.remove(0);
            } else {
                self.runs[0].0 = through.next();
            }
        }
        self.trim(through.next());
    }

    /// A snapshot takes the place of everything up to `snapshot`, which is behind the base: what
    /// follows it stays if the log holds it. Else nothing stays, and of the entries that were
    /// appended those from the one returned on, if any, must not stand before what is appended
    /// next: without them there is a gap between the two.
    pub(crate) fn install(&mut self, snapshot: LogId) -> Option<Index> {
        assert!(snapshot.index > self.base.index && snapshot.term >= self.base.term, "I-02");
        if self.term_at(snapshot.index) == Some(snapshot.term) {
            self.release(snapshot.index);
            return None;
        }
        let differs = snapshot.index <= self.last;
        *self = Self {
            base: snapshot,
            runs: Vec::new(),
            last: snapshot.index,
            cached: VecDeque::new(),
        };
        differs.then_some(snapshot.index)
    }

    pub(crate) fn shape(self) -> LogShape {
        let Self { base, runs, last, cached: _ } = self;
        LogShape { base, runs, last }
    }

    /// Appends entries of one term.
    #[inline]
    pub(crate) fn append_run(&mut self, term: Term, bytes: &[u32]) {
        if bytes.is_empty() {
            return;
        }
        self.open_run(self.last.next(), term);
        self.cached.extend(bytes);
        self.last = Index(self.last.0 + bytes.len() as u64);
    }

    /// Appends entries as a leader sent them.
    #[inline]
    pub(crate) fn append_heads(&mut self, heads: &[EntryHead]) {
        let (Some(first), Some(newest)) = (heads.first(), heads.last()) else { return };
        debug_assert!(heads.is_sorted_by_key(|head| head.term), "terms in a log don't descend");
        if first.term == newest.term {
            self.open_run(self.last.next(), first.term);
        } else {
            for (index, head) in (self.last.0 + 1..).zip(heads) {
                self.open_run(Index(index), head.term);
            }
        }
        self.cached.extend(heads.iter().map(|head| head.bytes));
        self.last = Index(self.last.0 + heads.len() as u64);
    }

    /// Entries behind the newest one are held again, none of them in the owner's cache.
    pub(crate) fn refill(&mut self, runs: &[(Index, Term)], last: Index) {
        assert!(self.cached.is_empty(), "nothing was appended since the start");
        assert_eq!(runs.first().map(|run| run.0), Some(self.last.next()), "no gap in a log");
        assert!(runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "runs ascend");
        assert!(runs.last().is_some_and(|run| run.0 <= last));
        for &(first, term) in runs {
            self.open_run(first, term);
        }
        self.last = last;
    }

    fn open_run(&mut self, index: Index, term: Term) {
        let newest = self.runs.last().map_or(self.base.term, |&(_, term)| term);
        assert!(newest <= term, "term {term} after term {newest}: terms in a log don't descend");
        if newest < term || self.runs.is_empty() {
            self.runs.push((index, term));
        }
    }

    /// Removes the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        assert!(index > self.base.index && index <= self.last);
        let kept = index.0.saturating_sub(self.first_cached().0) as usize;
        self.cached.truncate(kept);
        self.runs.truncate(self.runs.partition_point(|run| run.0 < index));
        self.last = index.previous();
    }

    /// The owner's cache begins at `first` now.
    pub(crate) fn trim(&mut self, first: Index) {
        let gone = first.0.saturating_sub(self.first_cached().0) as usize;
        self.cached.drain(..gone.min(self.cached.len()));
    }

    /// How many cached entries from `first` on make one append, and their bytes: at least one,
    /// then as many as both limits allow. None if nothing is there.
    pub(crate) fn batch(&self, first: Index, entries_max: u32, bytes_max: u64) -> (u32, u64) {
        let offset = (first.0 - self.first_cached().0) as usize;
        let (mut count, mut total) = (0, 0);
        for &bytes in self.cached.range(offset..) {
            let with = total + u64::from(bytes);
            if count > 0 && (count >= entries_max || with > bytes_max) {
                break;
            }
            count += 1;
            total = with;
        }
        (count, total)
    }

    /// Walks everything; for debug assertions.
    pub(crate) fn is_sound(&self) -> bool {
        self.runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1)
            && self.runs.is_empty() == (self.last == self.base.index)
            && self
                .runs
                .first()
                .is_none_or(|run| run.0 == self.base.index.next() && run.1 >= self.base.term)
            && self.runs.last().is_none_or(|run| run.0 <= self.last)
            && self.cached.len() as u64 <= self.last.0 - self.base.index.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        let mut log = Log::new(LogShape::default());
        log.append_run(Term(1), &[48; 3]);
        log.append_run(Term(2), &[56; 2]);
        log.append_heads(&[
            EntryHead { term: Term(5), bytes: 64 },
            EntryHead { term: Term(5), bytes: 72 },
            EntryHead { term: Term(6), bytes: 80 },
        ]);
        log
    }

    /// Terms are found in every run and nowhere else.
    #[test]
    fn terms_are_found() {
        let log = log();
        let terms: Vec<_> = (0..=9).map(|index| log.term_at(Index(index)).map(Term::get)).collect();
        let expected = [0, 1, 1, 1, 2, 2, 5, 5, 6].map(Some);
        assert_eq!(terms[..9], expected);
        assert_eq!(terms[9], None);
        assert!(log.is_sound());
    }

    /// The newest entry within both bounds, compared with a plain walk.
    #[test]
    fn newest_at_most_is_as_a_walk_says() {
        let log = log();
        for index in 0..=9u64 {
            for term in 0..=7u64 {
                let walk = (0..=index.min(8))
                    .rev()
                    .map(|at| LogId::new(log.term_at(Index(at)).expect("held"), Index(at)))
                    .find(|id| id.term.0 <= term)
                    .expect("the base has term zero");
                assert_eq!(log.newest_at_most(Index(index), Term(term)), walk);
            }
        }
    }

    /// A log that gave up its beginning says the same of what is left, and goes on as before.
    #[test]
    fn releasing_changes_nothing_behind_it() {
        for first_cached in 1..=9u64 {
            for through in 1..=8u64 {
                let mut whole = log();
                whole.trim(Index(first_cached));
                let mut rest = log();
                rest.trim(Index(first_cached));
                rest.release(Index(through));
                assert!(rest.is_sound());
                assert_eq!(rest.base().index, Index(through));
                assert_eq!((rest.last_id(), rest.last()), (whole.last_id(), whole.last()));
                assert_eq!(rest.first_cached(), whole.first_cached().max(Index(through + 1)));
                for index in 0..=9 {
                    let held = whole.term_at(Index(index)).filter(|_| index >= through);
                    assert_eq!(rest.term_at(Index(index)), held, "{index} after {through}");
                }
                for index in through..=9 {
                    for term in rest.base().term.0..=7 {
                        let (index, term) = (Index(index), Term(term));
                        let newest = whole.newest_at_most(index, term).index.max(Index(through));
                        assert_eq!(rest.newest_at_most(index, term).index, newest);
                    }
                }
                rest.append_run(Term(6), &[48]);
                rest.append_run(Term(7), &[48]);
                assert_eq!(rest.term_at(Index(9)), Some(Term(6)));
                assert_eq!(rest.last_id(), LogId::new(Term(7), Index(10)));
                assert!(rest.is_sound());
            }
        }
    }

    /// Every snapshot beside this log: the log keeps what follows an entry that it holds; else it
    /// goes on after the snapshot, and what was appended is cut where it would touch what follows.
    #[test]
    fn a_snapshot_takes_the_place_of_what_it_covers() {
        for index in 1..=10u64 {
            for term in 1..=7u64 {
                let whole = log();
                let snapshot = LogId::new(Term(term), Index(index));
                let is_held = whole.term_at(snapshot.index) == Some(snapshot.term);
                let mut rest = log();
                let cut = rest.install(snapshot);
                assert_eq!(rest.base(), snapshot);
                assert!(rest.is_sound());
                if is_held {
                    assert_eq!((cut, rest.last_id()), (None, whole.last_id()));
                } else {
                    let differs = snapshot.index <= whole.last();
                    assert_eq!(cut, differs.then_some(snapshot.index));
                    assert_eq!(rest.last_id(), snapshot);
                    assert_eq!(rest.first_cached(), snapshot.index.next());
                }
                rest.append_run(Term(7), &[48; 2]);
                let last = rest.last();
                assert_eq!(rest.term_at(last), Some(Term(7)));
                assert_eq!(rest.batch(last.previous(), 10, 1000), (2, 96));
                assert!(rest.is_sound());
            }
        }
    }

    /// A log that is started short and refilled is the log that it was.
    #[test]
    fn refilled_it_is_the_same() {
        let whole = log();
        for last in 0..8u64 {
            let terms = |at: u64| whole.term_at(Index(at)).expect("held");
            let runs = |first: u64, last: u64| {
                let mut runs: Vec<(Index, Term)> = Vec::new();
                for at in first..=last {
                    if runs.last().is_none_or(|run| run.1 < terms(at)) {
                        runs.push((Index(at), terms(at)));
                    }
                }
                runs
            };
            let shape = LogShape { base: LogId::ZERO, runs: runs(1, last), last: Index(last) };
            let mut rest = Log::new(shape);
            rest.refill(&runs(last + 1, 8), Index(8));
            assert!(rest.is_sound());
            assert_eq!((rest.last_id(), rest.first_cached()), (whole.last_id(), Index(9)));
            for index in (0..=9).map(Index) {
                assert_eq!(rest.term_at(index), whole.term_at(index));
            }
            rest.append_run(Term(6), &[48]);
            assert_eq!(rest.batch(Index(9), 10, 1000), (1, 48));
        }
    }

    /// Truncation and trimming keep runs and lengths aligned.
    #[test]
    fn truncate_and_trim() {
        let mut log = log();
        log.trim(Index(5));
        assert_eq!(log.first_cached(), Index(5));
        assert_eq!(log.batch(Index(6), 10, 1000), (3, 64 + 72 + 80));
        assert_eq!(log.batch(Index(6), 10, 100), (1, 64));
        assert_eq!(log.batch(Index(6), 2, 1000), (2, 64 + 72));
        assert_eq!(log.batch(Index(6), 2, 1), (1, 64));
        log.truncate_from(Index(7));
        assert_eq!((log.last(), log.first_cached()), (Index(6), Index(5)));
        log.truncate_from(Index(3));
        assert_eq!((log.last_id(), log.first_cached()), (LogId::new(Term(1), Index(2)), Index(3)));
        log.append_run(Term(7), &[40]);
        assert_eq!(log.last_id(), LogId::new(Term(7), Index(3)));
        log.trim(Index(100));
        assert_eq!(log.first_cached(), Index(4));
        assert!(log.is_sound());
    }
}
