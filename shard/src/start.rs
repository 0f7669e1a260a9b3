//! What a group starts from: its snapshot and its log, as far as they go together.

use ringraft_raft::LogShape;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, LogId, Term};
use ringraft_wal::RecoveredGroup;
use ringraft_wal::recovery::{EntryRun, Outline};

/// The log that a group starts with; what it must vote as if it held, if entries are missing; and
/// from where on what the log holds must be removed before anything is appended.
///
/// The entries of a log that reaches back to the first one are all kept, for followers that lack
/// them. Otherwise the log begins behind the snapshot: with what follows on it there, if the two
/// agree at the snapshot's last entry, else with nothing: a log that ends before the snapshot does,
/// or has another entry there, holds nothing that was ever committed and isn't in the snapshot.
///
/// `unloaded` is what the newest snapshot ends with of those that can't be loaded: the group may have
/// promised all of it, also if no record of the log names it yet, or any more.
pub(crate) fn shape(
    found: Option<&RecoveredGroup>,
    snapshot: Option<LogId>,
    unloaded: Option<LogId>,
) -> (LogShape, Option<LogId>, Option<Index>) {
    #[cfg(ringraft_plant)]
    let unloaded = unloaded.filter(|_| !planted(Plant::UnloadedForgotten));
    let (shape, floor, cut) = shape_of_loaded(found, snapshot);
    let held = shape.runs.last().map_or(shape.base, |run| LogId::new(run.1, shape.last));
    (shape, floor.max(unloaded.filter(|unloaded| *unloaded > held)), cut)
}

fn shape_of_loaded(
    found: Option<&RecoveredGroup>,
    snapshot: Option<LogId>,
) -> (LogShape, Option<LogId>, Option<Index>) {
    let behind = |last: LogId| LogShape { base: last, runs: Vec::new(), last: last.index };
    let Some(found) = found else {
        return (snapshot.map(behind).unwrap_or_default(), None, None);
    };
    let run = EntryRun { first: found.first, last: found.last, terms: found.runs.clone() };
    let is_from_the_first = found.named.is_none() && found.first <= Index(1);
    let newest = [Some(&run), found.tail.as_ref()].into_iter().flatten().filter_map(last_id).max();
    let newest = newest.unwrap_or_default().max(found.damaged.unwrap_or_default());
    let newest = newest.max(found.named.map_or(LogId::ZERO, |named| named.last));
    let Some(snapshot) = snapshot else {
        if is_from_the_first {
            return (shape_of(&run), found.damaged, None);
        }
        // What the log was freed of isn't to be had any more.
        return (LogShape::default(), Some(newest), None);
    };
    if is_from_the_first && run.term_at(snapshot.index) == Some(snapshot.term) {
        return (shape_of(&run), found.damaged, None);
    }
    // Behind the last hole everything is there, if the snapshot reaches up to it.
    let tail = found.tail.as_ref().filter(|tail| tail.first <= snapshot.index.next());
    match shape_of(tail.unwrap_or(&run)).after_snapshot(snapshot) {
        Ok((shape, cut)) => {
            let held = shape.runs.last().map_or(snapshot, |run| LogId::new(run.1, shape.last));
            (shape, found.damaged.filter(|floor| *floor > held), cut)
        }
        Err(_) => (behind(snapshot), Some(newest), None),
    }
}

/// The whole log as it was promised, with what is missing, if it goes on from the one that its group
/// starts with.
pub(crate) fn promised(found: &RecoveredGroup, shape: &LogShape) -> Option<Outline> {
    let outline = found.outline.as_ref()?;
    let term = shape.runs.last().map_or(shape.base.term, |run| run.1);
    let first = outline.run.first;
    let is_behind = outline.run.terms.iter().all(|run| run.1 == Term::ZERO || run.1 >= term);
    let follows = match shape.last >= first {
        true => outline.held(LogId::new(term, shape.last)),
        false => shape.last.next() == first && is_behind,
    };
    (follows && shape.last < outline.run.last).then(|| outline.clone())
}

/// Of a log that was read back only the index before its first entry is known.
fn shape_of(run: &EntryRun) -> LogShape {
    let base = LogId::new(Term::ZERO, run.first.previous());
    LogShape { base, runs: run.terms.clone(), last: run.last }
}

fn last_id(run: &EntryRun) -> Option<LogId> {
    Some(LogId::new(run.term_at(run.last)?, run.last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_wal::NamedSnapshot;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(Term(term), Index(index))
    }

    fn run(first: u64, terms: &[u64]) -> EntryRun {
        let mut run = EntryRun { first: Index(first), last: Index(first - 1), terms: Vec::new() };
        for &term in terms {
            run.last = run.last.next();
            if run.terms.last().is_none_or(|last| last.1 != Term(term)) {
                run.terms.push((run.last, Term(term)));
            }
        }
        run
    }

    fn found(first: u64, terms: &[u64], named: Option<LogId>) -> RecoveredGroup {
        let EntryRun { first, last, terms } = run(first, terms);
        let named = named.map(|last| NamedSnapshot { last, number: 1 });
        RecoveredGroup { first, last, runs: terms, named, ..RecoveredGroup::default() }
    }

    fn held(shape: &LogShape) -> (LogId, Vec<u64>) {
        let first = shape.base.index.next();
        let run = EntryRun { first, last: shape.last, terms: shape.runs.clone() };
        let terms = (first.0..=shape.last.0).map(|at| run.term_at(Index(at)).expect("held").0);
        (shape.base, terms.collect())
    }

    /// Every way in which a log and a snapshot can stand to each other.
    #[test]
    fn a_log_and_a_snapshot() {
        let check = |found: Option<RecoveredGroup>, snapshot, base, terms: &[u64], floor| {
            let (shape, found_floor, cut) = shape(found.as_ref(), snapshot, None);
            let is_other = |found: &RecoveredGroup| {
                let is_held = found.first <= Index(3) && found.last >= Index(3);
                is_held && shape.last == Index(3) && found.last != Index(3)
            };
            // What the log holds from the snapshot's end on is another's.
            let is_cut = snapshot.is_some() && found.as_ref().is_some_and(is_other);
            assert_eq!(cut, is_cut.then_some(Index(3)), "{found:?} {snapshot:?}");
            assert_eq!(held(&shape), (base, terms.to_vec()), "{found:?} {snapshot:?}");
            assert_eq!(found_floor, floor, "{found:?} {snapshot:?}");
        };
        let zero = LogId::ZERO;
        let at = Some(id(2, 3));
        check(None, None, zero, &[], None);
        check(None, at, id(2, 3), &[], None);
        // The whole log stays, if it agrees.
        check(Some(found(1, &[1, 1, 2, 2, 4], None)), None, zero, &[1, 1, 2, 2, 4], None);
        check(Some(found(1, &[1, 1, 2, 2, 4], None)), at, zero, &[1, 1, 2, 2, 4], None);
        check(Some(found(1, &[1, 1, 2], None)), at, zero, &[1, 1, 2], None);
        // It ends before the snapshot, or differs there: it has nothing that counts.
        check(Some(found(1, &[1, 1], None)), at, id(2, 3), &[], None);
        check(Some(found(1, &[], None)), at, id(2, 3), &[], None);
        check(Some(found(1, &[1, 1, 1, 1, 1], None)), at, id(2, 3), &[], None);
        // It was freed: what follows on the snapshot stays.
        check(Some(found(3, &[2, 2, 4], Some(id(1, 2)))), at, id(2, 3), &[2, 4], None);
        check(Some(found(4, &[2, 4], at)), at, id(2, 3), &[2, 4], None);
        check(Some(found(4, &[], at)), at, id(2, 3), &[], None);
        check(Some(found(4, &[3, 3], None)), at, id(2, 3), &[3, 3], None);
        // Entries, or the snapshot that covers them, are missing.
        check(Some(found(5, &[2, 4], Some(id(2, 4)))), at, id(2, 3), &[], Some(id(4, 6)));
        check(Some(found(4, &[2, 4], at)), None, zero, &[], Some(id(4, 5)));
        check(Some(found(4, &[], at)), None, zero, &[], at);
    }

    /// A snapshot that ends in a hole, and isn't named: what lies behind it is still known, if the log
    /// held for sure what the snapshot ends with.
    #[test]
    fn what_was_promised_goes_on_behind_a_snapshot() {
        let terms = [(1, 1), (4, 0), (8, 2), (9, 3)];
        let terms = terms.map(|(first, term)| (Index(first), Term(term))).to_vec();
        let run = EntryRun { first: Index(1), last: Index(9), terms };
        let holes = vec![(Index(4), Index(8))];
        let outline = Some(Outline { run, holes });
        let floor = id(3, 9);
        let found = RecoveredGroup { damaged: Some(floor), outline, ..found(1, &[1; 3], None) };
        for (snapshot, is_held) in [
            (id(2, 4), true),
            (id(2, 6), true),
            (id(1, 6), false),
            (id(3, 6), false),
            (id(1, 3), true),
            (id(2, 3), false),
        ] {
            let (shape, owed, _) = shape(Some(&found), Some(snapshot), None);
            assert_eq!(owed, Some(floor), "{snapshot:?}");
            let goes_on = promised(&found, &shape).is_some();
            assert_eq!((shape.last, goes_on), (snapshot.index, is_held), "{snapshot:?}");
        }
    }

    /// What a snapshot held that can't be loaded is owed, whether a record names it or not, unless the
    /// log holds it as well.
    #[test]
    fn what_can_not_be_loaded_is_owed() {
        let lost = Some(id(1, 49));
        let owed = |found: Option<RecoveredGroup>, snapshot, lost| {
            let (shape, floor, _) = shape(found.as_ref(), snapshot, lost);
            (shape.last, floor)
        };
        let older = found(18, &[], Some(id(1, 17)));
        assert_eq!(owed(Some(older.clone()), None, lost), (Index(0), lost));
        assert_eq!(owed(Some(older), Some(id(1, 17)), lost), (Index(17), lost));
        assert_eq!(owed(None, None, lost), (Index(0), lost));
        assert_eq!(owed(Some(found(1, &[1; 20], None)), None, lost), (Index(20), lost));
        // The log holds it, or a newer one that nothing of it is missing in.
        assert_eq!(owed(Some(found(1, &[1; 60], None)), None, lost), (Index(60), None));
        assert_eq!(owed(Some(found(1, &[1; 49], None)), None, lost), (Index(49), None));
        // What was lost besides is owed too.
        let damaged = |floor| RecoveredGroup { damaged: Some(floor), ..found(1, &[1; 20], None) };
        assert_eq!(owed(Some(damaged(id(1, 60))), None, lost).1, Some(id(1, 60)));
        assert_eq!(owed(Some(damaged(id(1, 30))), None, lost).1, lost);
    }

    /// What an older leader left behind the snapshot's end counts for nothing, and is removed: a
    /// snapshot that was installed leaves it there.
    #[test]
    fn a_tail_of_an_older_term_goes() {
        let (shape, floor, cut) = shape(Some(&found(4, &[1, 1], None)), Some(id(2, 3)), None);
        assert_eq!((held(&shape), floor), ((id(2, 3), vec![]), None));
        assert_eq!(cut, Some(Index(4)));
    }

    /// A snapshot that reaches up to what lies behind the last hole heals it, unless more was held.
    #[test]
    fn a_snapshot_heals_a_hole() {
        let damaged = |first: u64, tail: &[u64], floor| RecoveredGroup {
            tail: Some(run(first, tail)),
            damaged: Some(floor),
            ..found(1, &[1, 1], None)
        };
        let heal = |found: &RecoveredGroup| {
            let (shape, floor, _) = shape(Some(found), Some(id(2, 6)), None);
            (held(&shape), floor)
        };
        let healed = ((id(2, 6), vec![2, 4]), None);
        assert_eq!(heal(&damaged(5, &[2, 2, 2, 4], id(4, 8))), healed);
        assert_eq!(heal(&damaged(7, &[2, 4], id(4, 8))), healed);
        let owed = damaged(7, &[2, 4], id(4, 9));
        assert_eq!(heal(&owed), ((id(2, 6), vec![2, 4]), Some(id(4, 9))));
        // The tail begins farther on, or was another log's: it stays damaged.
        assert_eq!(heal(&damaged(8, &[4], id(4, 8))), ((id(2, 6), vec![]), Some(id(4, 8))));
        let other = damaged(5, &[3, 3, 3, 3], id(3, 8));
        assert_eq!(heal(&other), ((id(2, 6), vec![]), Some(id(3, 8))));
        let unknown = id(u64::MAX, u64::MAX);
        let (_, floor) = heal(&damaged(7, &[2, 4], unknown));
        assert_eq!(floor, Some(unknown));
    }
}
