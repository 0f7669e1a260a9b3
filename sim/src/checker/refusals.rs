//! Whether calls that name a revision were rightly served or refused: a revision is compacted only
//! if it left the history, in the future only if nobody saw it, and never read after it left.
//!
//! Which history's length was set when isn't known to the call, so each judgement allows for the
//! shortest or longest that may have been set. What is called wrong here is wrong.

use ringraft_types::Status;
use ringraft_types::limits::HISTORY_REVISIONS_DEFAULT;

use super::plan::{boxed, may_change};
use super::violation::Violation;
use crate::history::{Ask, Call, Operation, Outcome, Range, Reason, Reply};

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
    for call in calls {
        match call.outcome() {
            Outcome::Done(answer) => {
                for range in ranges(&call.ask, Some(&answer.reply)) {
                    let (asked, revision) = (range.revision, answer.revision.0);
                    if asked > 0 && asked.saturating_add(windows.1) < revision {
                        let window = windows.1;
                        let call = boxed(call);
                        return Err(Violation::Compacted { call, asked, revision, window });
                    }
                }
            }
            Outcome::NotDone(Reason::Refused(status)) => {
                let is_wrong = |asked: u64| match status {
                    Status::Compacted => {
                        asked == 0 || asked.saturating_add(windows.0) >= revisions_max
                    }
                    Status::FutureRevision => asked <= seen_before(&seen, call),
                    _ => false,
                };
                // One of its ranges must deserve it.
                let why = match status {
                    Status::Compacted => "can't have left the history yet",
                    _ => "another call had seen before",
                };
                let ranges = ranges(&call.ask, None);
                let is_revision = matches!(status, Status::Compacted | Status::FutureRevision);
                if is_revision && ranges.iter().all(|range| is_wrong(range.revision)) {
                    let asked = ranges.first().map_or(0, |range| range.revision);
                    return Err(Violation::Refusal { call: boxed(call), asked, why });
                }
            }
            Outcome::NotDone(_) | Outcome::Unknown(_) => {}
        }
    }
    Ok(())
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
