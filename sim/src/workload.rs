//! What clients ask for: registers, a counter, a list that grows, deletes, ranges, transactions.
//! Every value that is written is written once.

use std::collections::BTreeMap;

use ringraft_types::{GroupId, Revision};

use crate::history::{
    Ask, Bytes, Compare, CompareRelation, CompareTo, Delete, KeySet, KeyValue, Operation, Put,
    Range, Reply, Txn,
};
use crate::options::Options;
use crate::random::Random;

/// Registers of a group.
const REGISTERS: u64 = 6;
/// The counter's key.
const COUNTER: &str = "counter";
/// The list's key.
const LIST: &str = "list";
/// A list that is longer begins anew.
const LIST_BYTES_MAX: usize = 600;

/// What a client knows of a group.
#[derive(Debug, Default)]
struct Known {
    keys: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    revision: u64,
}

/// What one client does.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    known: BTreeMap<GroupId, Known>,
    next_value: u64,
}

fn register(random: &mut Random) -> Bytes {
    Bytes::from(format!("r{}", random.below(REGISTERS)).as_str())
}

fn one(key: Bytes) -> Range {
    Range::current(KeySet::One(key))
}

impl Workload {
    fn value(&mut self, random: &mut Random, client: u64, options: &Options) -> Bytes {
        self.next_value += 1;
        let mut value = format!("{client}.{}", self.next_value).into_bytes();
        if random.chance(100_000) {
            value.push(b' ');
            value.resize(random.between(32, options.value_bytes.max(32)) as usize, b'x');
        }
        Bytes(value)
    }

    /// The next thing to ask of a group.
    pub(crate) fn next(
        &mut self,
        random: &mut Random,
        group: GroupId,
        client: u64,
        options: &Options,
    ) -> Ask {
        let key = register(random);
        match random.below(100) {
            0..30 => {
                let value = self.value(random, client, options);
                Ask::Put(Put { key, value, previous: random.coin() })
            }
            30..50 => Ask::Range(one(key)),
            50..56 => {
                let mut range = Range::current(KeySet::Prefix(Bytes::from("r")));
                range.limit = random.pick(&[0, 0, 2]);
                range.keys_only = random.chance(100_000);
                range.count_only = random.chance(100_000);
                Ask::Range(range)
            }
            56..58 => {
                let mut range = Range::current(KeySet::Prefix(Bytes::from("")));
                let newest = self.known.entry(group).or_default().revision;
                range.revision = newest.saturating_sub(random.below(20));
                Ask::Range(range)
            }
            58..63 => Ask::Delete(Delete { keys: KeySet::One(key), previous: random.coin() }),
            63..64 => {
                let keys = KeySet::Between(Bytes::from("r2"), Bytes::from("r4"));
                Ask::Delete(Delete { keys, previous: true })
            }
            64..80 => self.count(group, random),
            80..90 => self.append(group, client),
            90..98 => self.swap(random, group, client, options),
            98..99 => {
                let newest = self.known.entry(group).or_default().revision;
                Ask::Compact(newest.saturating_sub(random.below(12)))
            }
            _ => Ask::Nothing,
        }
    }

    /// A write and a read that every group can serve.
    pub(crate) fn errand(&mut self, client: u64) -> (Ask, Ask) {
        self.next_value += 1;
        let value = Bytes::from(format!("{client}.{}", self.next_value).as_str());
        let key = Bytes::from("r0");
        let put = Put { key: key.clone(), value, previous: false };
        (Ask::Put(put), Ask::Range(one(key)))
    }

    /// The newest revision of a group that an answer told.
    pub(crate) fn known_revision(&self, group: GroupId) -> u64 {
        self.known.get(&group).map_or(0, |known| known.revision)
    }

    fn of(&self, group: GroupId, key: &str) -> (u64, Vec<u8>) {
        let known = self.known.get(&group).and_then(|known| known.keys.get(key.as_bytes()));
        known.cloned().unwrap_or_default()
    }

    /// Sets a key to what it should become if it is still what is known of it; reads it else.
    fn replace(&self, key: &str, modified: u64, value: Vec<u8>) -> Ask {
        let key = Bytes::from(key);
        let compare = Compare {
            key: key.clone(),
            relation: CompareRelation::Equal,
            to: CompareTo::Modified(modified),
        };
        let put = Put { key: key.clone(), value: Bytes(value), previous: true };
        let read = Operation::Range(one(key));
        Ask::Txn(Txn {
            compares: vec![compare],
            then: vec![Operation::Put(put), read.clone()],
            otherwise: vec![read],
        })
    }

    fn count(&self, group: GroupId, random: &mut Random) -> Ask {
        if random.chance(150_000) {
            return Ask::Range(one(Bytes::from(COUNTER)));
        }
        let (modified, value) = self.of(group, COUNTER);
        let count: u64 = String::from_utf8_lossy(&value).parse().unwrap_or_default();
        self.replace(COUNTER, modified, (count + 1).to_string().into_bytes())
    }

    fn append(&mut self, group: GroupId, client: u64) -> Ask {
        let (modified, mut value) = self.of(group, LIST);
        if value.len() > LIST_BYTES_MAX {
            return Ask::Delete(Delete { keys: KeySet::One(Bytes::from(LIST)), previous: true });
        }
        self.next_value += 1;
        value.extend_from_slice(format!(",{client}.{}", self.next_value).as_bytes());
        self.replace(LIST, modified, value)
    }

    /// Several keys at once, under a condition.
    fn swap(&mut self, random: &mut Random, group: GroupId, client: u64, options: &Options) -> Ask {
        let mut compares = Vec::new();
        for _ in 0..random.below(3) {
            let key = register(random);
            let known = self.known.get(&group).and_then(|known| known.keys.get(&key.0)).cloned();
            let (modified, value) = known.unwrap_or_default();
            let to = match random.below(3) {
                0 => CompareTo::Modified(modified),
                1 => CompareTo::Version(random.below(4)),
                _ => CompareTo::Value(Bytes(value)),
            };
            let relation = random.pick(&[CompareRelation::Equal, CompareRelation::Less]);
            compares.push(Compare { key, relation, to });
        }
        // A transaction writes a key once.
        let mut keys: Vec<Bytes> =
            (0..REGISTERS).map(|number| Bytes::from(format!("r{number}").as_str())).collect();
        random.shuffle(&mut keys);
        let mut then = Vec::new();
        for key in keys.drain(..random.between(1, 3) as usize) {
            let value = self.value(random, client, options);
            then.push(Operation::Put(Put { key, value, previous: false }));
        }
        if random.coin() {
            let keys = KeySet::One(keys.swap_remove(0));
            then.push(Operation::Delete(Delete { keys, previous: true }));
        }
        then.push(Operation::Range(one(register(random))));
        let otherwise = vec![Operation::Range(one(register(random)))];
        Ask::Txn(Txn { compares, then, otherwise })
    }

    /// An answer came: what it says of keys is known now.
    pub(crate) fn heard(&mut self, group: GroupId, reply: &Reply, revision: Revision) {
        let known = self.known.entry(group).or_default();
        known.revision = known.revision.max(revision.0);
        let learn = |known: &mut Known, key: &KeyValue| {
            known.keys.insert(key.key.0.clone(), (key.modified, key.value.0.clone()));
        };
        match reply {
            Reply::Range(list) => list.keys.iter().for_each(|key| learn(known, key)),
            Reply::Txn(txn) => {
                for operation in &txn.operations {
                    if let Reply::Range(list) = operation {
                        list.keys.iter().for_each(|key| learn(known, key));
                        if list.keys.is_empty() {
                            known.keys.remove(LIST.as_bytes());
                        }
                    }
                }
            }
            Reply::Delete(_) => {
                known.keys.remove(LIST.as_bytes());
            }
            Reply::Put(_) => {}
        }
    }
}
