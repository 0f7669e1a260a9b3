//! Strict serializability of one group, by revisions.
//!
//! Whatever changes the machine makes one revision, and says which. So the order of a group's
//! calls is known, and one pass decides: play the writes back in order of revision, compare every
//! answer with the model's at its place, and see that no call stands before one that had ended when
//! it began. Time is that of sorting.
//!
//! Calls of unknown fate have no revision. Where nobody who was done has one, one of them must have
//! made it; values that were seen, and commands that a node applied, say which. Where they don't,
//! the pass tries, and comes back when an answer doesn't fit: to the last choice that matters to
//! this answer.

use std::collections::BTreeMap;

use ringraft_types::GroupId;

use super::facts::Facts;
use super::model::{Model, interval, is_answered};
use super::plan::{Plan, boxed};
use super::violation::Violation;
use crate::history::{Ask, Call, KeySet, Operation};

/// Steps after which the search for the places of unknown calls is given up.
const STEPS_MAX: usize = 200_000;

/// A group's calls in order.
#[derive(Debug)]
pub struct Serial<'a> {
    /// The calls that were done, and those of unknown fate that must have been, in order.
    pub order: Vec<&'a Call>,
    /// The machine at the end.
    pub model: Model,
    /// Calls of unknown fate that have a place in the order.
    pub placed: usize,
}

/// Checks a group's calls. `applied` are the commands that made revisions, as the nodes say, if
/// that is known; they only say which call of unknown fate made which.
///
/// # Errors
/// The first violation in the order of revisions; if calls of unknown fate can be placed in several
/// ways, that of the way that went furthest.
pub fn check<'a>(
    group: GroupId,
    calls: Vec<&'a Call>,
    applied: &BTreeMap<u64, &Ask>,
) -> Result<Serial<'a>, Violation> {
    let plan = Plan::new(calls)?;
    let facts = Facts::new(&plan)?;
    let unknown = plan.unknown.len();
    if plan.gaps() > unknown as u64 {
        let revision = (1..).find(|revision| !plan.claims.contains_key(revision));
        let revision = revision.expect("there are fewer claims than numbers");
        return Err(Violation::Gap { revision, unknown });
    }
    Search::new(group, &plan, &facts, applied).run()
}

/// A revision that a call of unknown fate was taken for.
struct Choice {
    /// The machine before it.
    before: Model,
    /// How long the order was then.
    length: usize,
    /// The calls still to be tried.
    left: Vec<usize>,
    /// The calls that were free then, whether they change anything at that place or not: after
    /// another choice before it they might.
    free: Vec<usize>,
}

/// An answer that doesn't fit, or a revision that nobody can have made.
struct Failure<'a> {
    violation: Violation,
    /// What was asked, if it is about an answer.
    about: Option<&'a Ask>,
}

struct Search<'p, 'a> {
    group: GroupId,
    plan: &'p Plan<'a>,
    facts: &'p Facts<'a>,
    applied: &'p BTreeMap<u64, &'p Ask>,
    model: Model,
    /// The calls played back so far.
    order: Vec<usize>,
    /// By call: whether it is one of unknown fate that has its place.
    placed: Vec<bool>,
    choices: Vec<Choice>,
    /// The failure furthest on, and its revision.
    furthest: Option<(u64, Violation)>,
    steps: usize,
}

impl<'p, 'a> Search<'p, 'a> {
    fn new(
        group: GroupId,
        plan: &'p Plan<'a>,
        facts: &'p Facts<'a>,
        applied: &'p BTreeMap<u64, &'p Ask>,
    ) -> Self {
        Self {
            group,
            plan,
            facts,
            applied,
            model: Model::default(),
            order: Vec::new(),
            placed: vec![false; plan.calls.len()],
            choices: Vec::new(),
            furthest: None,
            steps: 0,
        }
    }

    fn run(mut self) -> Result<Serial<'a>, Violation> {
        loop {
            let result = self.play_readers().and_then(|()| {
                if self.model.revision() == self.plan.last {
                    return Ok(true);
                }
                self.play_next().map(|()| false)
            });
            match result {
                Ok(false) => {}
                Ok(true) => break,
                Err(failure) => self.go_back(failure)?,
            }
        }
        let placed = self.placed.iter().filter(|placed| **placed).count();
        let order = self.order.iter().map(|&call| self.plan.calls[call]).collect();
        Ok(Serial { order, model: self.model, placed })
    }

    /// Plays back the calls that saw the current revision and made none.
    fn play_readers(&mut self) -> Result<(), Failure<'a>> {
        let (revision, readers) = (self.model.revision(), &self.plan.readers);
        let from = readers.partition_point(|&(other, _)| other < revision);
        for &(_, call) in readers[from..].iter().take_while(|&&(other, _)| other == revision) {
            self.play_done(call, false)?;
        }
        Ok(())
    }

    /// Plays back the call that made the next revision.
    fn play_next(&mut self) -> Result<(), Failure<'a>> {
        let next = self.model.revision() + 1;
        if let Some(&call) = self.plan.claims.get(&next) {
            return self.play_done(call, true);
        }
        let candidates = self.candidates(next);
        let mut left = Vec::new();
        let mut first = None;
        for &call in &candidates {
            let mut after = self.model.clone();
            let step = after.step(&self.plan.calls[call].ask);
            if step.is_ok_and(|step| step.changed) {
                match first {
                    None => first = Some((call, after)),
                    Some(_) => left.push(call),
                }
            }
        }
        let Some((call, after)) = first else {
            let unknown = self.plan.unknown.len();
            let violation = Violation::Gap { revision: next, unknown };
            return Err(Failure { violation, about: None });
        };
        // Taken from the end, the earliest first.
        left.reverse();
        let before = std::mem::replace(&mut self.model, after);
        if !self.applied.contains_key(&next) || !left.is_empty() {
            let length = self.order.len();
            self.choices.push(Choice { before, length, left, free: candidates });
        }
        self.place(call);
        Ok(())
    }

    /// The calls of unknown fate that may have made a revision, as far as is known before the
    /// state is looked at. Of equal ones, the first is enough.
    fn candidates(&self, revision: u64) -> Vec<usize> {
        let mut candidates: Vec<usize> = Vec::new();
        for &call in &self.plan.unknown {
            let ask = &self.plan.calls[call].ask;
            if !self.placed[call]
                && self.applied.get(&revision).is_none_or(|applied| *applied == ask)
                && self.plan.may_make(call, revision)
                && self.facts.allow(ask, revision)
                && candidates.iter().all(|&other| self.plan.calls[other].ask != *ask)
            {
                candidates.push(call);
            }
        }
        candidates
    }

    fn place(&mut self, call: usize) {
        self.placed[call] = true;
        self.order.push(call);
    }

    /// Plays back a call that was done, and compares its answer.
    fn play_done(&mut self, at: usize, must_change: bool) -> Result<(), Failure<'a>> {
        let call: &'a Call = self.plan.calls[at];
        let answer = call.answer().expect("it was done");
        let revision = self.model.revision();
        // Only what may have to be played again counts.
        self.steps += usize::from(!self.choices.is_empty());
        let fail = |violation| Err(Failure { violation, about: Some(&call.ask) });
        match self.model.step(&call.ask) {
            Ok(step) if !is_answered(&step.reply, &answer.reply) => {
                let expected = Box::new(step.reply);
                fail(Violation::Answer { revision, call: boxed(call), expected })
            }
            Ok(step) if step.changed == must_change => {
                self.order.push(at);
                Ok(())
            }
            Ok(_) | Err(_) => {
                fail(Violation::Change { revision, call: boxed(call), must_change: !must_change })
            }
        }
    }

    /// Goes back to the last choice that matters to a failure.
    fn go_back(&mut self, failure: Failure<'a>) -> Result<(), Violation> {
        let revision = self.model.revision();
        if self.furthest.as_ref().is_none_or(|&(furthest, _)| furthest < revision) {
            self.furthest = Some((revision, failure.violation));
        }
        if self.steps > STEPS_MAX {
            return Err(Violation::Undecided {
                group: self.group,
                unknown: self.plan.unknown.len(),
                gaps: self.plan.gaps() as usize,
                steps: self.steps,
            });
        }
        let mut about = failure.about;
        while let Some(mut choice) = self.choices.pop() {
            let calls = &self.plan.calls;
            let matters = about.is_none_or(|about| {
                choice.free.iter().any(|&call| touches(&calls[call].ask, about))
            });
            for call in self.order.drain(choice.length..) {
                self.placed[call] = false;
            }
            if !matters {
                continue;
            }
            // From here on no choice before it may be skipped: the calls it tried are free again.
            about = None;
            let Some(tried) = choice.left.pop() else { continue };
            self.steps += 1;
            self.model = choice.before.clone();
            let step = self.model.step(&self.plan.calls[tried].ask);
            assert!(step.is_ok_and(|step| step.changed), "only calls that change are tried");
            self.choices.push(choice);
            self.place(tried);
            return Ok(());
        }
        Err(self.furthest.take().expect("it was just set").1)
    }
}

/// Whether what one call may write lies in what the answer to another hangs on.
fn touches(writer: &Ask, reader: &Ask) -> bool {
    let written = key_sets(writer, true);
    let read = key_sets(reader, false);
    written.iter().any(|written| read.iter().any(|read| is_shared(written, read)))
}

/// The keys that a call may write, or all that it names.
fn key_sets(ask: &Ask, only_written: bool) -> Vec<KeySet> {
    match ask {
        Ask::Put(put) => vec![KeySet::One(put.key.clone())],
        Ask::Delete(delete) => vec![delete.keys.clone()],
        Ask::Range(range) if !only_written => vec![range.keys.clone()],
        Ask::Range(_) | Ask::SetHistory(_) | Ask::Nothing => Vec::new(),
        Ask::Txn(txn) => {
            let mut sets = Vec::new();
            for operation in txn.then.iter().chain(&txn.otherwise) {
                match operation {
                    Operation::Put(put) => sets.push(KeySet::One(put.key.clone())),
                    Operation::Delete(delete) => sets.push(delete.keys.clone()),
                    Operation::Range(range) if !only_written => sets.push(range.keys.clone()),
                    Operation::Range(_) => {}
                }
            }
            if !only_written {
                sets.extend(txn.compares.iter().map(|compare| KeySet::One(compare.key.clone())));
            }
            sets
        }
    }
}

fn is_shared(a: &KeySet, b: &KeySet) -> bool {
    let ((start_a, end_a), (start_b, end_b)) = (interval(a), interval(b));
    let ends_after =
        |end: &Option<Vec<u8>>, start: &Vec<u8>| end.as_ref().is_none_or(|end| end > start);
    ends_after(&end_a, &start_b) && ends_after(&end_b, &start_a)
}
