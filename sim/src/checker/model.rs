//! The key-value machine as its users understand it, written to be read: every key with all that
//! ever became of it. Shares no code with the machine that it judges.
//!
//! It forgets nothing, so it never answers "compacted"; whether such a refusal is right is judged
//! by [`refusals`](super::refusals).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_types::Status;
use ringraft_types::reply::{KEY_VALUE_BYTES, REPLY_BYTES_MAX};

use crate::history::{
    Ask, Bytes, Compare, CompareRelation, CompareTo, Delete, KeySet, KeyValue, ListReply,
    Operation, Put, PutReply, Range, Reply, Txn, TxnReply,
};

/// "As it is now, with the running transaction's changes."
const NOW: u64 = u64::MAX;

/// A reply shorter than this never lacks room, bytes.
const ROOM_SURE_BYTES: usize = REPLY_BYTES_MAX - 64 * 1024;

/// What became of a key at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    revision: u64,
    /// `None`: it was removed.
    version: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    value: Arc<Bytes>,
    create: u64,
    modified: u64,
    number: u64,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    revision: u64,
    /// Every key's changes, oldest first; shared between copies until they differ.
    keys: BTreeMap<Bytes, Arc<Vec<Change>>>,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The reply.
    pub reply: Reply,
    /// Whether the machine went on to the next revision.
    pub changed: bool,
}

impl Model {
    /// The same machine without what its keys were before a revision.
    pub fn since(&self, revision: u64) -> Self {
        let mut since = Self { revision: self.revision, keys: BTreeMap::new() };
        for (key, changes) in &self.keys {
            let until = changes.partition_point(|change| change.revision <= revision);
            let kept = changes[until.saturating_sub(1)..].to_vec();
            since.keys.insert(key.clone(), Arc::new(kept));
        }
        since
    }

    /// The newest revision.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Runs a command.
    ///
    /// # Errors
    /// If it reads a revision that doesn't exist yet; nothing changed then.
    pub fn step(&mut self, ask: &Ask) -> Result<Step, Status> {
        let next = self.revision + 1;
        let reply = match ask {
            Ask::Put(put) => self.put(put, next),
            Ask::Delete(delete) => self.delete(delete, next),
            Ask::Txn(txn) => self.txn(txn, next)?,
            Ask::Range(range) => {
                self.check(range)?;
                self.range(range)
            }
            Ask::Compact(revision) if *revision > self.revision => {
                return Err(Status::FutureRevision);
            }
            Ask::SetHistory(_) | Ask::Nothing | Ask::Compact(_) => Reply::Put(PutReply::None),
        };
        let changed = match (ask, &reply) {
            (Ask::Put(_), _) => true,
            (Ask::Txn(txn), Reply::Txn(answer)) => changes(txn, answer),
            (Ask::Delete(_), Reply::Delete(list)) => list.count > 0,
            _ => false,
        };
        if changed {
            self.revision = next;
        }
        Ok(Step { reply, changed })
    }

    fn get(&self, key: &Bytes, at: u64) -> Option<&Version> {
        let changes = self.keys.get(key)?;
        let until = changes.partition_point(|change| change.revision <= at);
        changes[..until].last()?.version.as_ref()
    }

    /// The keys of a set that exist, in order.
    fn list(&self, keys: &KeySet, at: u64) -> Vec<KeyValue> {
        let (start, end) = interval(keys);
        let from_start = self.keys.range(Bytes(start)..).map(|(key, _)| key);
        let inside = from_start.take_while(|key| end.as_ref().is_none_or(|end| key.0 < *end));
        let found = inside.filter_map(|key| Some(key_value(key, self.get(key, at)?)));
        found.collect()
    }

    fn change(&mut self, key: &Bytes, revision: u64, version: Option<Version>) {
        let change = Change { revision, version };
        match self.keys.get_mut(key) {
            Some(changes) => Arc::make_mut(changes).push(change),
            None => drop(self.keys.insert(key.clone(), Arc::new(vec![change]))),
        }
    }

    fn put(&mut self, put: &Put, revision: u64) -> Reply {
        let before = self.get(&put.key, NOW);
        let reply = match before {
            Some(version) if put.previous => PutReply::Previous(key_value(&put.key, version)),
            _ => PutReply::None,
        };
        let (create, number) =
            before.map_or((revision, 1), |version| (version.create, version.number + 1));
        let value = Arc::new(put.value.clone());
        self.change(
            &put.key,
            revision,
            Some(Version { value, create, modified: revision, number }),
        );
        Reply::Put(reply)
    }

    fn delete(&mut self, delete: &Delete, revision: u64) -> Reply {
        let found = self.list(&delete.keys, NOW);
        for key_value in &found {
            self.change(&key_value.key, revision, None);
        }
        let count = found.len() as u64;
        let keys = if delete.previous { found } else { Vec::new() };
        Reply::Delete(ListReply { count, more: false, keys })
    }

    fn check(&self, range: &Range) -> Result<(), Status> {
        if range.revision > self.revision { Err(Status::FutureRevision) } else { Ok(()) }
    }

    fn range(&self, range: &Range) -> Reply {
        let at = if range.revision == 0 { NOW } else { range.revision };
        let mut keys = self.list(&range.keys, at);
        let count = keys.len() as u64;
        if range.count_only {
            return Reply::Range(ListReply { count, more: false, keys: Vec::new() });
        }
        if range.keys_only {
            keys.iter_mut().for_each(|key_value| key_value.value = Bytes::default());
        }
        let mut listed = keys.len();
        if range.limit > 0 && !matches!(range.keys, KeySet::One(_)) {
            listed = listed.min(range.limit as usize);
        }
        if range.bytes_max > 0 {
            // The first key is listed, however long it is.
            let mut bytes = 0;
            let fit = keys.iter().take_while(|key_value| {
                bytes += encoded_bytes(key_value);
                bytes <= range.bytes_max as usize
            });
            listed = listed.min(fit.count().max(1));
        }
        let more = listed < keys.len();
        keys.truncate(listed);
        Reply::Range(ListReply { count, more, keys })
    }

    fn txn(&mut self, txn: &Txn, revision: u64) -> Result<Reply, Status> {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.then } else { &txn.otherwise };
        for operation in branch {
            if let Operation::Range(range) = operation {
                self.check(range)?;
            }
        }
        let run = |operation: &Operation| match operation {
            Operation::Put(put) => self.put(put, revision),
            Operation::Delete(delete) => self.delete(delete, revision),
            Operation::Range(range) => self.range(range),
        };
        let operations = branch.iter().map(run).collect();
        Ok(Reply::Txn(TxnReply { succeeded, operations }))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let version = self.get(&compare.key, NOW);
        let number = |of: fn(&Version) -> u64| version.map_or(0, of);
        let ordering = match &compare.to {
            CompareTo::Version(operand) => number(|version| version.number).cmp(operand),
            CompareTo::Create(operand) => number(|version| version.create).cmp(operand),
            CompareTo::Modified(operand) => number(|version| version.modified).cmp(operand),
            CompareTo::Value(operand) => match version {
                Some(version) => (*version.value).cmp(operand),
                None => return false,
            },
        };
        match compare.relation {
            CompareRelation::Equal => ordering.is_eq(),
            CompareRelation::NotEqual => ordering.is_ne(),
            CompareRelation::Greater => ordering.is_gt(),
            CompareRelation::Less => ordering.is_lt(),
        }
    }
}

/// Whether a transaction changed something, by its own reply.
pub(super) fn changes(txn: &Txn, reply: &TxnReply) -> bool {
    let branch = if reply.succeeded { &txn.then } else { &txn.otherwise };
    branch.iter().zip(&reply.operations).any(|pair| match pair {
        (Operation::Put(_), _) => true,
        (Operation::Delete(_), Reply::Delete(list)) => list.count > 0,
        _ => false,
    })
}

/// Whether a reply is the one expected. One that is longer than a reply may be is cut where the
/// machine ran out of room: then what is there must be right, and say that there is more.
pub(super) fn is_answered(expected: &Reply, actual: &Reply) -> bool {
    expected == actual || (reply_bytes(expected) > ROOM_SURE_BYTES && is_cut(expected, actual))
}

fn is_cut(expected: &Reply, actual: &Reply) -> bool {
    match (expected, actual) {
        (Reply::Put(PutReply::Previous(_)), Reply::Put(PutReply::LeftOut)) => true,
        (Reply::Delete(expected), Reply::Delete(actual))
        | (Reply::Range(expected), Reply::Range(actual)) => {
            let is_start = expected.keys.starts_with(&actual.keys);
            let is_shorter = actual.keys.len() < expected.keys.len();
            expected.count == actual.count && is_start && (!is_shorter || actual.more)
        }
        (Reply::Txn(expected), Reply::Txn(actual)) => {
            let mut pairs = expected.operations.iter().zip(&actual.operations);
            expected.succeeded == actual.succeeded
                && expected.operations.len() == actual.operations.len()
                && pairs.all(|(expected, actual)| expected == actual || is_cut(expected, actual))
        }
        _ => expected == actual,
    }
}

fn reply_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Put(PutReply::Previous(previous)) => encoded_bytes(previous),
        Reply::Put(PutReply::None | PutReply::LeftOut) => 0,
        Reply::Delete(list) | Reply::Range(list) => list.keys.iter().map(encoded_bytes).sum(),
        Reply::Txn(txn) => txn.operations.iter().map(reply_bytes).sum(),
    }
}

fn encoded_bytes(key_value: &KeyValue) -> usize {
    KEY_VALUE_BYTES + key_value.key.0.len() + key_value.value.0.len()
}

fn key_value(key: &Bytes, version: &Version) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: (*version.value).clone(),
        create: version.create,
        modified: version.modified,
        version: version.number,
    }
}

/// A set of keys from the first up to, but not with, the second; no second has no end.
pub(super) fn interval(keys: &KeySet) -> (Vec<u8>, Option<Vec<u8>>) {
    match keys {
        KeySet::One(key) => (key.0.clone(), Some([&key.0[..], &[0]].concat())),
        KeySet::Between(start, end) => {
            (start.0.clone(), (!end.0.is_empty()).then(|| end.0.clone()))
        }
        KeySet::Prefix(prefix) => {
            // The first key that no longer begins so.
            let mut end = prefix.0.clone();
            while end.last() == Some(&u8::MAX) {
                end.pop();
            }
            let last = end.last_mut().map(|last| *last += 1);
            (prefix.0.clone(), last.map(|()| end))
        }
    }
}
