//! Whether calls that name a revision were rightly served or refused: a revision is compacted only
//! if it left the history or was compacted away, in the future only if nobody saw it, and never read
//! after it left.
//!
//! Which history's length was set when isn't known to the call, so each judgement allows for the
//! shortest or longest that may have been set. What is called wrong here is wrong.

use ringraft_types::Status;
use ringraft_types::limits::HISTORY_REVISIONS_DEFAULT;

use super::plan::{boxed, may_change};
use super::violation::Violation;
use crate::history::{Ask, Call, Consistency, Operation, Outcome, Range, Reason, Reply};

/// Checks a group's calls.
///
/// # Errors
/// The first call that was wrongly served or refused.
pub fn check(calls: &[&Call]) -> Result<(), Violation> {
    // What every call that began earlier may have done: lengths set, changes.
    let mut windows = (HISTORY_REVISIONS_DEFAULT, HISTORY_REVISIONS_DEFAULT);
    for call in calls.iter().filter(|call| !matches!(call.outcome(), Outcome::NotDone(_))) {
        if let Ask::SetHistory(revisions) = call.ask {
            windows = (windows.0.min(revisions), windows.1.max(revisions));
        }
    }
    let changes = calls
        .iter()
        .filter(|call| may_change(&call.ask) && !matches!(call.outcome(), Outcome::NotDone(_)));
    let revisions_max = changes.count() as u64;
    let seen = seen(calls);
    let compactions = compactions(calls);
    for call in calls {
        match call.outcome() {
            Outcome::Done(answer) => {
                for (asked, is_stale) in revisions(&call.ask, Some(&answer.reply)) {
                    let revision = answer.revision.0;
                    let is_left = |one: &&Compaction| {
                        let is_before = one.done.is_some_and(|end| end < call.invoked.order);
                        asked > 0 && asked < one.revision && is_before && !is_stale
                    };
                    if let Some(compaction) = compactions.iter().find(is_left) {
                        let (call, to) = (boxed(call), compaction.revision);
                        return Err(Violation::Forgotten { call, asked, to });
                    }
                    if asked > 0 && asked.saturating_add(windows.1) < revision {
                        let window = windows.1;
                        let call = boxed(call);
                        return Err(Violation::Compacted { call, asked, revision, window });
                    }
                }
            }
            Outcome::NotDone(Reason::Refused(status)) => {
                let ended = call.ended.as_ref().map_or(u64::MAX, |(moment, _)| moment.order);
                let is_forgotten = |asked: u64| {
                    let may_be = |one: &Compaction| asked < one.revision && one.began < ended;
                    compactions.iter().any(may_be)
                };
                let is_wrong = |asked: u64| match status {
                    Status::Compacted => {
                        let is_kept = asked.saturating_add(windows.0) >= revisions_max;
                        asked == 0 && call.ask.is_read() || is_kept && !is_forgotten(asked)
                    }
                    Status::FutureRevision => asked <= seen_before(&seen, call),
                    _ => false,
                };
                // One of its ranges must deserve it.
                let why = match status {
                    Status::Compacted => "can't have left the history yet",
                    _ => "another call had seen before",
                };
                let asked = revisions(&call.ask, None);
                let is_revision = matches!(status, Status::Compacted | Status::FutureRevision);
                if is_revision && asked.iter().all(|&(asked, _)| is_wrong(asked)) {
                    let asked = asked.first().map_or(0, |&(asked, _)| asked);
                    return Err(Violation::Refusal { call: boxed(call), asked, why });
                }
            }
            Outcome::NotDone(_) | Outcome::Unknown(_) => {}
        }
    }
    Ok(())
}

/// A compaction that was done, or may have been.
struct Compaction {
    /// The oldest revision that it kept.
    revision: u64,
    /// The order of its beginning.
    began: u64,
    /// That of its end, if it was done for sure.
    done: Option<u64>,
}

fn compactions(calls: &[&Call]) -> Vec<Compaction> {
    let found = calls.iter().filter_map(|call| {
        let Ask::Compact(revision) = call.ask else { return None };
        let done = match call.outcome() {
            Outcome::NotDone(_) => return None,
            Outcome::Done(_) => call.ended.as_ref().map(|(moment, _)| moment.order),
            Outcome::Unknown(_) => None,
        };
        Some(Compaction { revision, began: call.invoked.order, done })
    });
    found.collect()
}

/// The revisions that a call names, by what it came to or may come to, and whether it may see an
/// older state. A compaction names one as well: what left the history can't be kept.
fn revisions(ask: &Ask, reply: Option<&Reply>) -> Vec<(u64, bool)> {
    if let Ask::Compact(revision) = *ask {
        return vec![(revision, false)];
    }
    let ranges = ranges(ask, reply).into_iter();
    ranges.map(|range| (range.revision, range.consistency == Consistency::Stale)).collect()
}

/// The ends of calls in order, and the newest revision that any had seen by then.
fn seen(calls: &[&Call]) -> Vec<(u64, u64)> {
    let mut seen: Vec<(u64, u64)> = Vec::new();
    for call in calls {
        if let (Some((moment, _)), Some(answer)) = (&call.ended, call.answer()) {
            seen.push((moment.order, answer.revision.0));
        }
    }
    seen.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut seen {
        newest = newest.max(*revision);
        *revision = newest;
    }
    seen
}

/// The newest revision seen by a call that ended before this one began.
fn seen_before(seen: &[(u64, u64)], call: &Call) -> u64 {
    let until = seen.partition_point(|&(end, _)| end < call.invoked.order);
    until.checked_sub(1).map_or(0, |last| seen[last].1)
}

/// The ranges that a call came to by its reply, or may come to.
fn ranges<'a>(ask: &'a Ask, reply: Option<&Reply>) -> Vec<&'a Range> {
    let (then, otherwise) = match (ask, reply) {
        (Ask::Range(range), _) => return vec![range],
        (Ask::Txn(txn), Some(Reply::Txn(reply))) if reply.succeeded => (&txn.then[..], &[][..]),
        (Ask::Txn(txn), Some(_)) => (&[][..], &txn.otherwise[..]),
        (Ask::Txn(txn), None) => (&txn.then[..], &txn.otherwise[..]),
        _ => return Vec::new(),
    };
    let ranges = then.iter().chain(otherwise).filter_map(|operation| match operation {
        Operation::Range(range) => Some(range),
        Operation::Put(_) | Operation::Delete(_) => None,
    });
    ranges.collect()
}
