//! One group's calls, sorted by what they claim: the writes that made a revision, the calls that
//! only saw one, and those of unknown fate.

use std::collections::BTreeMap;

use super::model::changes;
use super::violation::{By, Violation};
use crate::history::{Answer, Ask, Call, Consistency, Operation, Outcome, Reply};

/// "Never", among the places of events.
pub(super) const NEVER: u64 = u64::MAX;

/// A group's calls.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) calls: Vec<&'a Call>,
    /// The calls that made a revision.
    pub(super) claims: BTreeMap<u64, usize>,
    /// The calls that saw a revision and made none, by revision and index.
    pub(super) readers: Vec<(u64, usize)>,
    /// Calls of unknown fate that may have changed something, by their beginning.
    pub(super) unknown: Vec<usize>,
    /// The newest revision that anybody saw.
    pub(super) last: u64,
    /// Revisions, ascending, and the earliest end of a call at that revision or a later one.
    ends: Vec<(u64, u64)>,
}

/// A call in an order: its position, and the places between which it happened.
struct Span {
    position: u128,
    began: u64,
    ended: u64,
    call: usize,
}

impl<'a> Plan<'a> {
    /// Sorts a group's calls.
    ///
    /// # Errors
    /// If a reply isn't to its call, a revision was given twice, or no order of the calls agrees
    /// with revisions, indexes and real time.
    pub(super) fn new(calls: Vec<&'a Call>) -> Result<Self, Violation> {
        let mut claims = BTreeMap::new();
        let mut readers = Vec::new();
        let mut unknown = Vec::new();
        let mut ends = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            match call.outcome() {
                Outcome::NotDone(_) => {}
                Outcome::Unknown(_) => {
                    if may_change(&call.ask) {
                        unknown.push(at);
                    }
                }
                Outcome::Done(answer) => {
                    let Some(changed) = changed(&call.ask, &answer.reply) else {
                        return Err(Violation::Shape { call: boxed(call) });
                    };
                    let revision = answer.revision.0;
                    if changed && revision == 0 {
                        let call = boxed(call);
                        return Err(Violation::Change { revision, call, must_change: false });
                    }
                    ends.push((revision, ended(call)));
                    if !changed {
                        readers.push((revision, at));
                    } else if let Some(first) = claims.insert(revision, at) {
                        let (first, second) = (boxed(calls[first]), boxed(call));
                        return Err(Violation::RevisionTwice { revision, first, second });
                    }
                }
            }
        }
        readers.sort_by_key(|&(revision, at)| (revision, index(calls[at])));
        ends.sort_unstable();
        let mut earliest = NEVER;
        for (_, end) in ends.iter_mut().rev() {
            earliest = earliest.min(*end);
            *end = earliest;
        }
        let last = ends.last().map_or(0, |&(revision, _)| revision);
        let plan = Self { calls, claims, readers, unknown, last, ends };
        plan.check_order()?;
        Ok(plan)
    }

    /// The revisions that nobody claims; only to be asked if there can be few.
    pub(super) fn gaps(&self) -> u64 {
        self.last - (self.claims.len() as u64).min(self.last)
    }

    /// Whether a call that began then may have made a revision: none that ended before it began
    /// is at this revision or a later one.
    pub(super) fn may_make(&self, call: usize, revision: u64) -> bool {
        let from = self.ends.partition_point(|&(other, _)| other < revision);
        self.ends.get(from).is_none_or(|&(_, end)| end > self.calls[call].invoked.order)
    }

    /// Revisions, indexes and real time agree on an order.
    fn check_order(&self) -> Result<(), Violation> {
        let position = |revision: u64, after: u128| 2 * u128::from(revision) + after;
        let writers =
            self.claims.iter().map(|(&revision, &call)| self.span(position(revision, 0), call));
        let readers = self.readers.iter();
        let readers = readers.map(|&(revision, call)| self.span(position(revision, 1), call));
        let mut spans: Vec<Span> = writers.chain(readers).collect();
        self.check_real_time(By::Revision, &mut spans)?;
        let has_index = |span: &Span| index(self.calls[span.call]).is_some();
        spans.retain(has_index);
        for span in &mut spans {
            let is_read = self.calls[span.call].ask.is_read();
            let index = index(self.calls[span.call]).unwrap_or_default();
            span.position = position(index, u128::from(is_read));
        }
        self.check_real_time(By::Index, &mut spans)?;
        self.check_indexes(&spans)
    }

    /// By index, revisions rise, and between two calls there are places in the log for all the
    /// writes that there must be.
    fn check_indexes(&self, spans: &[Span]) -> Result<(), Violation> {
        let mut before = (0, 0, None);
        for span in spans {
            let call = self.calls[span.call];
            let (index, revision) = (index(call).unwrap_or_default(), revision(call));
            let is_claim = self.claims.get(&revision) == Some(&span.call);
            let revisions = revision.checked_sub(before.1 + u64::from(is_claim));
            let writes = revisions.map(|unknown| unknown + u64::from(!call.ask.is_read()));
            if writes.is_none_or(|writes| index - before.0 < writes) {
                let first = boxed(before.2.unwrap_or(call));
                let second = boxed(call);
                return Err(Violation::IndexAgainstRevision { first, second });
            }
            before = (index, revision, Some(call));
        }
        Ok(())
    }

    fn span(&self, position: u128, call: usize) -> Span {
        let is_stale = matches!(
            &self.calls[call].ask,
            Ask::Range(range) if range.consistency == Consistency::Stale
        );
        // A stale read may see what was current long before it began.
        let began = if is_stale { 0 } else { self.calls[call].invoked.order };
        Span { position, began, ended: ended(self.calls[call]), call }
    }

    /// No call ended before one began that stands before it. Sorts the spans by position; those
    /// of one position may be in any order.
    fn check_real_time(&self, by: By, spans: &mut [Span]) -> Result<(), Violation> {
        spans.sort_by_key(|span| span.position);
        // The call of a smaller position that began last.
        let mut latest: Option<&Span> = None;
        for same in spans.chunk_by(|a, b| a.position == b.position) {
            for span in same {
                if let Some(latest) = latest
                    && span.ended < latest.began
                {
                    let ended = boxed(self.calls[span.call]);
                    let began = boxed(self.calls[latest.call]);
                    return Err(Violation::RealTime { by, ended, began });
                }
            }
            let newest = same.iter().max_by_key(|span| span.began);
            if newest.map(|span| span.began) > latest.map(|span| span.began) {
                latest = newest;
            }
        }
        Ok(())
    }
}

pub(super) fn boxed(call: &Call) -> Box<Call> {
    Box::new(call.clone())
}

fn ended(call: &Call) -> u64 {
    match &call.ended {
        Some((moment, Outcome::Done(_))) => moment.order,
        _ => NEVER,
    }
}

fn index(call: &Call) -> Option<u64> {
    call.answer().and_then(|answer| answer.index).map(|index| index.0)
}

fn revision(call: &Call) -> u64 {
    call.answer().map_or(0, |answer: &Answer| answer.revision.0)
}

/// Whether a call that was asked so could change something.
pub(super) fn may_change(ask: &Ask) -> bool {
    match ask {
        Ask::Put(_) | Ask::Delete(_) => true,
        Ask::Txn(txn) => {
            let mut operations = txn.then.iter().chain(&txn.otherwise);
            operations.any(|operation| !matches!(operation, Operation::Range(_)))
        }
        Ask::Range(_) | Ask::SetHistory(_) | Ask::Nothing | Ask::Compact(_) => false,
    }
}

/// Whether a call changed something, by its reply; `None` if the reply isn't to what was asked.
fn changed(ask: &Ask, reply: &Reply) -> Option<bool> {
    match (ask, reply) {
        (Ask::Put(_), Reply::Put(_)) => Some(true),
        (Ask::Delete(_), Reply::Delete(list)) => Some(list.count > 0),
        (Ask::Range(_), Reply::Range(_))
        | (Ask::SetHistory(_) | Ask::Nothing | Ask::Compact(_), Reply::Put(_)) => Some(false),
        (Ask::Txn(txn), Reply::Txn(answer)) => {
            let branch = if answer.succeeded { &txn.then } else { &txn.otherwise };
            let mut pairs = branch.iter().zip(&answer.operations);
            let is_answer = branch.len() == answer.operations.len()
                && pairs.all(|pair| {
                    matches!(
                        pair,
                        (Operation::Put(_), Reply::Put(_))
                            | (Operation::Delete(_), Reply::Delete(_))
                            | (Operation::Range(_), Reply::Range(_))
                    )
                });
            is_answer.then(|| changes(txn, answer))
        }
        _ => None,
    }
}
