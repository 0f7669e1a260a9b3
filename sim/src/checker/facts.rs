//! What the answers of a group say about keys, whatever the order of its calls: which value was
//! set at which revision, and between which revisions a key was left alone. It names the writers
//! of unknown fate whose values were ever seen, and finds values that nobody can have written.

use std::collections::BTreeMap;

use super::plan::{Plan, boxed};
use super::violation::Violation;
use crate::history::{
    Answer, Ask, Bytes, Call, KeySet, KeyValue, Operation, Outcome, Put, PutReply, Range, Reply,
};

/// What is known of keys.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// Keys set at a revision, with their value where it is known.
    set: BTreeMap<u64, BTreeMap<&'a Bytes, Option<&'a Bytes>>>,
    /// Keys with the revisions from which, and up to which, they were left alone: after the first,
    /// up to and with the second.
    alone: BTreeMap<&'a Bytes, Vec<(u64, u64)>>,
}

/// A key seen in an answer.
struct Seen<'a> {
    key_value: &'a KeyValue,
    /// The revision as of which it was seen.
    at: u64,
    has_value: bool,
}

impl<'a> Facts<'a> {
    /// Collects the facts.
    ///
    /// # Errors
    /// If a value was seen that no call can have written, or only one that was definitely not done.
    pub(super) fn new(plan: &Plan<'a>) -> Result<Self, Violation> {
        let writers = Writers::new(&plan.calls);
        let mut facts = Self::default();
        let mut seen = Vec::new();
        for call in &plan.calls {
            let Some(answer) = call.answer() else { continue };
            let is_claim = plan
                .claims
                .get(&answer.revision.0)
                .is_some_and(|&claim| std::ptr::eq(plan.calls[claim], *call));
            see(call, answer, is_claim, &mut seen);
            for seen in seen.drain(..) {
                if seen.has_value {
                    writers.check(call, seen.key_value)?;
                }
                facts.add(&seen);
            }
        }
        Ok(facts)
    }

    fn add(&mut self, seen: &Seen<'a>) {
        let KeyValue { key, value, modified, .. } = seen.key_value;
        let set = self.set.entry(*modified).or_default().entry(key).or_default();
        if seen.has_value {
            *set = Some(value);
        }
        if *modified < seen.at {
            self.alone.entry(key).or_default().push((*modified, seen.at));
        }
    }

    /// Whether a call may have made a revision, as far as the facts go.
    pub(super) fn allow(&self, ask: &Ask, revision: u64) -> bool {
        let is_alone = |key: &Bytes| {
            let spans = self.alone.get(key).into_iter().flatten();
            spans.into_iter().any(|&(from, until)| from < revision && revision <= until)
        };
        let sets_what_was_seen = self.set.get(&revision).is_none_or(|set| {
            set.iter().all(|(key, value)| {
                puts(ask)
                    .any(|put| put.key == **key && value.is_none_or(|value| put.value == *value))
            })
        });
        sets_what_was_seen
            && match ask {
                Ask::Put(put) => !is_alone(&put.key),
                Ask::Delete(delete) => match &delete.keys {
                    KeySet::One(key) => !is_alone(key),
                    KeySet::Prefix(_) | KeySet::Between(..) => true,
                },
                // What a transaction does hangs on the state.
                _ => true,
            }
    }
}

/// All puts that a call may come to.
fn puts(ask: &Ask) -> impl Iterator<Item = &Put> {
    let (alone, operations) = match ask {
        Ask::Put(put) => (Some(put), [&[][..], &[][..]]),
        Ask::Txn(txn) => (None, [&txn.then[..], &txn.otherwise[..]]),
        _ => (None, [&[][..], &[][..]]),
    };
    let inside = operations.into_iter().flatten().filter_map(|operation| match operation {
        Operation::Put(put) => Some(put),
        Operation::Delete(_) | Operation::Range(_) => None,
    });
    alone.into_iter().chain(inside)
}

/// Lists the keys in a call's answer.
fn see<'a>(call: &'a Call, answer: &'a Answer, is_claim: bool, seen: &mut Vec<Seen<'a>>) {
    let revision = answer.revision.0;
    // A call that changed something answers from the state before it, but for its own changes.
    let now = if is_claim { revision.saturating_sub(1) } else { revision };
    match (&call.ask, &answer.reply) {
        (Ask::Range(range), Reply::Range(list)) => see_range(range, &list.keys, now, seen),
        (Ask::Put(_), reply) | (Ask::Delete(_), reply) => see_previous(reply, now, seen),
        (Ask::Txn(txn), Reply::Txn(reply)) => {
            let branch = if reply.succeeded { &txn.then } else { &txn.otherwise };
            for (operation, reply) in branch.iter().zip(&reply.operations) {
                match (operation, reply) {
                    (Operation::Range(range), Reply::Range(list)) => {
                        see_range(range, &list.keys, now, seen);
                    }
                    _ => see_previous(reply, now, seen),
                }
            }
        }
        _ => {}
    }
}

fn see_range<'a>(range: &Range, keys: &'a [KeyValue], now: u64, seen: &mut Vec<Seen<'a>>) {
    let at = if range.revision == 0 { now } else { range.revision };
    let has_value = !range.keys_only;
    seen.extend(keys.iter().map(|key_value| Seen { key_value, at, has_value }));
}

fn see_previous<'a>(reply: &'a Reply, at: u64, seen: &mut Vec<Seen<'a>>) {
    let keys = match reply {
        Reply::Put(PutReply::Previous(previous)) => std::slice::from_ref(previous),
        Reply::Delete(list) => &list.keys[..],
        _ => &[],
    };
    seen.extend(keys.iter().map(|key_value| Seen { key_value, at, has_value: true }));
}

/// Who writes which value.
struct Writers<'a> {
    /// The best of the outcomes of a value's writers: a call that may have been done, or one that
    /// wasn't.
    by_value: BTreeMap<(&'a Bytes, &'a Bytes), &'a Call>,
}

impl<'a> Writers<'a> {
    fn new(calls: &[&'a Call]) -> Self {
        let mut by_value: BTreeMap<_, &Call> = BTreeMap::new();
        for call in calls {
            for put in puts(&call.ask) {
                let writer = by_value.entry((&put.key, &put.value)).or_insert(call);
                if matches!(writer.outcome(), Outcome::NotDone(_)) {
                    *writer = call;
                }
            }
        }
        Self { by_value }
    }

    fn check(&self, reader: &Call, seen: &KeyValue) -> Result<(), Violation> {
        let (reader, boxed_seen) = (|| boxed(reader), || Box::new(seen.clone()));
        match self.by_value.get(&(&seen.key, &seen.value)) {
            None => Err(Violation::FromNowhere { reader: reader(), seen: boxed_seen() }),
            Some(writer) if matches!(writer.outcome(), Outcome::NotDone(_)) => {
                let writer = boxed(writer);
                Err(Violation::NotDoneSeen { writer, reader: reader(), seen: boxed_seen() })
            }
            Some(_) => Ok(()),
        }
    }
}
