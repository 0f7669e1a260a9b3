//! Plays a group's calls back in order of revision, and finds places for calls of unknown fate.
//!
//! A revision that nobody claims is a choice among the calls that may have made it. When an answer
//! doesn't fit, or nobody is left to choose, only some of the choices before can be to blame: those
//! that may write the keys that the answer hangs on, those that took a call which would be wanted
//! now. The search goes back to the last of these, and hands the others on to it, for the case that
//! it runs out of calls itself. What is skipped can't have helped, so nothing is missed.

use std::collections::{BTreeMap, BTreeSet};

use ringraft_types::GroupId;

use super::facts::Facts;
use super::model::{Model, interval, is_answered};
use super::plan::{Plan, boxed};
use super::serial::Serial;
use super::violation::Violation;
use crate::history::{Ask, Call, KeySet, Operation};

/// Steps after which the search for the places of unknown calls is given up.
const STEPS_MAX: usize = 200_000;

/// Keys from the first up to, but not with, the second; no second has no end.
type Interval = (Vec<u8>, Option<Vec<u8>>);

/// A revision that a call of unknown fate was taken for.
struct Choice {
    revision: u64,
    /// The machine before it.
    before: Model,
    /// How long the order was then.
    length: usize,
    /// The calls still to be tried.
    left: Vec<usize>,
    /// The calls that were free then, whether they change anything at that place or not: after
    /// another choice before it they might.
    free: Vec<usize>,
    /// The choices before it that may be to blame for what failed after it.
    blamed: BTreeSet<usize>,
}

/// An answer that doesn't fit, or a revision that nobody can have made.
struct Failure<'a> {
    violation: Violation,
    /// What was asked, if it is about an answer.
    about: Option<&'a Ask>,
}

/// Where a call of unknown fate is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere yet.
    Free,
    /// It was taken by this choice.
    Chosen(usize),
    /// There was no choice.
    Given,
}

pub(super) struct Search<'p, 'a> {
    group: GroupId,
    plan: &'p Plan<'a>,
    facts: &'p Facts<'a>,
    applied: &'p BTreeMap<u64, &'p Ask>,
    /// By call: the keys that it may write, if its fate is unknown.
    written: Vec<Vec<Interval>>,
    model: Model,
    /// The calls played back so far.
    order: Vec<usize>,
    /// By call.
    places: Vec<Place>,
    choices: Vec<Choice>,
    /// The failure furthest on, and its revision.
    furthest: Option<(u64, Violation)>,
    steps: usize,
}

impl<'p, 'a> Search<'p, 'a> {
    pub(super) fn new(
        group: GroupId,
        plan: &'p Plan<'a>,
        facts: &'p Facts<'a>,
        applied: &'p BTreeMap<u64, &'p Ask>,
    ) -> Self {
        let mut written = vec![Vec::new(); plan.calls.len()];
        for &call in &plan.unknown {
            written[call] = keys_of(&plan.calls[call].ask, true);
        }
        Self {
            group,
            plan,
            facts,
            applied,
            written,
            model: Model::default(),
            order: Vec::new(),
            places: vec![Place::Free; plan.calls.len()],
            choices: Vec::new(),
            furthest: None,
            steps: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<Serial<'a>, Violation> {
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
        let placed = self.places.iter().filter(|place| **place != Place::Free).count();
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
        let revision = self.model.revision() + 1;
        if let Some(&call) = self.plan.claims.get(&revision) {
            return self.play_done(call, true);
        }
        let mut free: Vec<usize> = Vec::new();
        for call in self.candidates(revision) {
            let ask = &self.plan.calls[call].ask;
            // Of equal ones, the first is enough.
            if self.places[call] == Place::Free
                && free.iter().all(|&other| self.plan.calls[other].ask != *ask)
            {
                free.push(call);
            }
        }
        // Taken from the end, the latest first: what takes effect does so soon, as a rule.
        let left = free.clone();
        if self.applied.contains_key(&revision) && left.len() == 1 {
            // What is given needs no way back.
            if self.take(left[0], Place::Given) {
                return Ok(());
            }
        }
        self.choices.push(Choice {
            revision,
            before: self.model.clone(),
            length: self.order.len(),
            left,
            free,
            blamed: BTreeSet::new(),
        });
        if self.take_next() {
            return Ok(());
        }
        let unknown = self.plan.unknown.len();
        Err(Failure { violation: Violation::Gap { revision, unknown }, about: None })
    }

    /// The calls of unknown fate that may have made a revision, free or not, as far as is known
    /// without looking at the state.
    fn candidates(&self, revision: u64) -> impl Iterator<Item = usize> {
        let applied = self.applied.get(&revision);
        self.plan.unknown.iter().copied().filter(move |&call| {
            let ask = &self.plan.calls[call].ask;
            applied.is_none_or(|applied| *applied == ask)
                && self.plan.may_make(call, revision)
                && self.facts.allow(ask, revision)
        })
    }

    /// Lets the newest choice take its next call that changes something, if there is one.
    fn take_next(&mut self) -> bool {
        let newest = self.choices.len() - 1;
        while let Some(call) = self.choices[newest].left.pop() {
            if self.take(call, Place::Chosen(newest)) {
                return true;
            }
        }
        false
    }

    /// Plays back a call of unknown fate, if it changes something.
    fn take(&mut self, call: usize, place: Place) -> bool {
        self.steps += 1;
        let changed = self.model.step(&self.plan.calls[call].ask).is_ok_and(|step| step.changed);
        if changed {
            self.places[call] = place;
            self.order.push(call);
        }
        changed
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

    /// Goes back to the last choice that may be to blame for a failure, and chooses anew.
    fn go_back(&mut self, failure: Failure<'a>) -> Result<(), Violation> {
        let revision = self.model.revision();
        if self.furthest.as_ref().is_none_or(|&(furthest, _)| furthest < revision) {
            self.furthest = Some((revision, failure.violation));
        }
        let mut blamed = match failure.about {
            Some(about) => self.who_writes(&keys_of(about, false), self.choices.len()),
            // The newest choice had nobody to take.
            None => BTreeSet::from([self.choices.len() - 1]),
        };
        while let Some(last) = blamed.pop_last() {
            if self.steps > STEPS_MAX {
                return Err(Violation::Undecided {
                    group: self.group,
                    unknown: self.plan.unknown.len(),
                    gaps: self.plan.gaps() as usize,
                    steps: self.steps,
                });
            }
            self.choices.truncate(last + 1);
            let choice = &mut self.choices[last];
            for call in self.order.drain(choice.length..) {
                self.places[call] = Place::Free;
            }
            choice.blamed.append(&mut blamed);
            self.model = choice.before.clone();
            if self.take_next() {
                return Ok(());
            }
            blamed = self.who_left_nobody(last);
            self.choices.truncate(last);
        }
        Err(self.furthest.take().expect("it was just set").1)
    }

    /// The choices before this one that may be to blame that it has no calls left.
    fn who_left_nobody(&mut self, last: usize) -> BTreeSet<usize> {
        let mut blamed = std::mem::take(&mut self.choices[last].blamed);
        for call in self.candidates(self.choices[last].revision) {
            match self.places[call] {
                Place::Chosen(other) => drop(blamed.insert(other)),
                Place::Given | Place::Free => {}
            }
            // What a put does hangs on nothing. Others may do something else in another state.
            let ask = &self.plan.calls[call].ask;
            if !matches!(ask, Ask::Put(_)) {
                blamed.append(&mut self.who_writes(&keys_of(ask, false), last));
            }
        }
        blamed
    }

    /// The choices, of so many, that may write one of these keys.
    fn who_writes(&self, keys: &[Interval], choices: usize) -> BTreeSet<usize> {
        let may_write = |call: &usize| {
            self.written[*call].iter().any(|written| keys.iter().any(|keys| meet(written, keys)))
        };
        (0..choices).filter(|&at| self.choices[at].free.iter().any(may_write)).collect()
    }
}

/// The keys that a call may write, or all that it names.
fn keys_of(ask: &Ask, only_written: bool) -> Vec<Interval> {
    let one = |key: &crate::history::Bytes| interval(&KeySet::One(key.clone()));
    match ask {
        Ask::Put(put) => vec![one(&put.key)],
        Ask::Delete(delete) => vec![interval(&delete.keys)],
        Ask::Range(range) if !only_written => vec![interval(&range.keys)],
        Ask::Range(_) | Ask::SetHistory(_) | Ask::Nothing | Ask::Compact(_) => Vec::new(),
        Ask::Txn(txn) => {
            let mut keys = Vec::new();
            for operation in txn.then.iter().chain(&txn.otherwise) {
                match operation {
                    Operation::Put(put) => keys.push(one(&put.key)),
                    Operation::Delete(delete) => keys.push(interval(&delete.keys)),
                    Operation::Range(range) if !only_written => keys.push(interval(&range.keys)),
                    Operation::Range(_) => {}
                }
            }
            if !only_written {
                keys.extend(txn.compares.iter().map(|compare| one(&compare.key)));
            }
            keys
        }
    }
}

/// Whether two intervals have a key in common.
fn meet(a: &Interval, b: &Interval) -> bool {
    let ends_after =
        |end: &Option<Vec<u8>>, start: &Vec<u8>| end.as_ref().is_none_or(|end| end > start);
    ends_after(&a.1, &b.0) && ends_after(&b.1, &a.0)
}
