//! A machine simple enough to be believed: a full copy of all keys for every revision.

use std::collections::BTreeMap;

use ringraft_types::command::{
    Command, CommandError, Compare, DeleteCommand, Operand, Operation, RangeCommand, Relation,
    Target, TxnBuilder, TxnCommand,
};
use ringraft_types::reply::{PutReply, Reply};

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    value: Vec<u8>,
    create: u64,
    modified: u64,
    version: u64,
}

type Keyspace = BTreeMap<Vec<u8>, Value>;

#[derive(Clone)]
pub(super) struct Model {
    /// By revision, from zero.
    copies: Vec<Keyspace>,
    window: u64,
    oldest: u64,
}

/// What the model answers to one operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Put(Option<(Vec<u8>, Value)>),
    Delete(u64, Vec<(Vec<u8>, Value)>),
    Range { count: u64, more: bool, keys: Vec<(Vec<u8>, Value)> },
    Txn(bool, Vec<Answer>),
}

fn select(keyspace: &Keyspace, keys: &Keys<'_>) -> Vec<(Vec<u8>, Value)> {
    let all = keyspace.iter().filter(|(key, _)| keys.contains(key));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Model {
    pub(super) fn new() -> Self {
        Self { copies: vec![Keyspace::new()], window: 10_000, oldest: 0 }
    }

    /// How many keys there are, and the oldest revision that may be read.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.copies.last().expect("revision zero").len() as u64, self.oldest)
    }

    pub(super) fn revision(&self) -> u64 {
        self.copies.len() as u64 - 1
    }

    fn operation(
        &self,
        now: &mut Keyspace,
        changed: &mut bool,
        operation: Operation<'_>,
    ) -> Result<Answer, Status> {
        match operation {
            Operation::Put(put) => {
                *changed = true;
                let before = now.get(put.key).cloned();
                let value = Value {
                    value: put.value.to_vec(),
                    create: before.as_ref().map_or(self.revision() + 1, |value| value.create),
                    modified: self.revision() + 1,
                    version: before.as_ref().map_or(1, |value| value.version + 1),
                };
                now.insert(put.key.to_vec(), value);
                Ok(Answer::Put(before.filter(|_| put.previous).map(|b| (put.key.to_vec(), b))))
            }
            Operation::Delete(delete) => {
                let removed = select(now, &delete.keys);
                *changed |= !removed.is_empty();
                now.retain(|key, _| !delete.keys.contains(key));
                let count = removed.len() as u64;
                Ok(Answer::Delete(count, if delete.previous { removed } else { Vec::new() }))
            }
            Operation::Range(range) => self.range(now, &range),
        }
    }

    fn range(&self, now: &Keyspace, range: &RangeCommand<'_>) -> Result<Answer, Status> {
        let keyspace = match range.revision.0 {
            0 => now,
            revision if revision > self.revision() => return Err(Status::FutureRevision),
            revision if revision < self.oldest => return Err(Status::Compacted),
            revision => &self.copies[revision as usize],
        };
        let mut keys = select(keyspace, &range.keys);
        let count = keys.len() as u64;
        let mut more = false;
        if range.count_only {
            keys.clear();
        } else if range.limit > 0 && keys.len() > range.limit as usize {
            keys.truncate(range.limit as usize);
            more = true;
        }
        if range.keys_only {
            keys.iter_mut().for_each(|(_, value)| value.value.clear());
        }
        Ok(Answer::Range { count, more, keys })
    }

    fn holds(now: &Keyspace, compare: &Compare<'_>) -> bool {
        let value = now.get(compare.key);
        let ordering = match (compare.target, compare.operand) {
            (Target::Value, Operand::Value(operand)) => match value {
                Some(value) => value.value[..].cmp(operand),
                None => return false,
            },
            (target, Operand::Number(operand)) => {
                let number = value.map_or(0, |value| match target {
                    Target::Version => value.version,
                    Target::CreateRevision => value.create,
                    _ => value.modified,
                });
                number.cmp(&operand)
            }
            _ => unreachable!("decode pairs them"),
        };
        match compare.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }

    pub(super) fn apply(&mut self, command: Command<'_>) -> Result<Option<Answer>, Status> {
        let mut now = self.copies.last().expect("revision zero").clone();
        let mut changed = false;
        let answer = match command {
            Command::Put(put) => {
                Some(self.operation(&mut now, &mut changed, Operation::Put(put))?)
            }
            Command::Delete(delete) => {
                Some(self.operation(&mut now, &mut changed, Operation::Delete(delete))?)
            }
            Command::Range(range) => Some(self.range(&now, &range)?),
            Command::Txn(txn) => Some(self.txn(&mut now, &mut changed, &txn)?),
            Command::SetHistory { revisions } => {
                self.window = revisions;
                None
            }
            Command::Nothing => None,
            Command::Compact { revision } if revision.0 > self.revision() => {
                return Err(Status::FutureRevision);
            }
            Command::Compact { revision } if revision.0 < self.oldest => {
                return Err(Status::Compacted);
            }
            Command::Compact { revision } => {
                self.oldest = revision.0;
                None
            }
        };
        if changed {
            self.copies.push(now);
        }
        self.oldest = self.oldest.max(self.revision().saturating_sub(self.window));
        Ok(answer)
    }

    fn txn(
        &self,
        now: &mut Keyspace,
        changed: &mut bool,
        txn: &TxnCommand<'_>,
    ) -> Result<Answer, Status> {
        let succeeded = txn.compares().all(|compare| Self::holds(now, &compare));
        let branch = if succeeded { txn.then() } else { txn.otherwise() };
        let answers: Result<Vec<_>, _> =
            branch.map(|operation| self.operation(now, changed, operation)).collect();
        Ok(Answer::Txn(succeeded, answers?))
    }
}

fn answer(reply: Reply<'_>) -> Answer {
    let owned = |kv: ringraft_types::reply::KeyValue<'_>| {
        let value = Value {
            value: kv.value.to_vec(),
            create: kv.create_revision.0,
            modified: kv.mod_revision.0,
            version: kv.version,
        };
        (kv.key.to_vec(), value)
    };
    match reply {
        Reply::Put(PutReply::Previous(previous)) => Answer::Put(Some(owned(previous))),
        Reply::Put(_) => Answer::Put(None),
        Reply::Delete(delete) => {
            assert!(!delete.more, "small replies have room");
            Answer::Delete(delete.deleted, delete.previous.map(owned).collect())
        }
        Reply::Range(range) => Answer::Range {
            count: range.count,
            more: range.more,
            keys: range.keys.map(owned).collect(),
        },
        Reply::Txn(txn) => Answer::Txn(txn.succeeded, txn.operations().map(answer).collect()),
    }
}

/// A key out of few, so that they meet; with 0xff bytes and common prefixes among them.
fn random_key(random: &mut Random) -> Vec<u8> {
    let letters = [0, b'a', b'b', 0xff];
    let length = 1 + random.below(3);
    (0..length).map(|_| letters[random.below(4) as usize]).collect()
}

fn random_keys<'a>(random: &mut Random, key: &'a [u8], end: &'a [u8]) -> Keys<'a> {
    match random.below(6) {
        0 => Keys::Prefix(&key[..key.len() - 1]),
        1 => Keys::Between { start: key, end },
        2 => Keys::Between { start: key, end: b"" },
        _ => Keys::One(key),
    }
}

fn random_operation<'a>(
    random: &mut Random,
    revision: u64,
    (key, other): &'a (Vec<u8>, Vec<u8>),
) -> Operation<'a> {
    let keys = random_keys(random, key, other);
    let previous = random.below(2) == 0;
    match random.below(8) {
        0..4 => Operation::Put(PutCommand { key, value: other, previous }),
        4 | 5 => Operation::Delete(DeleteCommand { keys, previous }),
        _ => Operation::Range(RangeCommand {
            keys,
            revision: Revision(match random.below(3) {
                0 => (revision + 2).saturating_sub(random.below(40)),
                _ => 0,
            }),
            limit: random.below(5) as u32,
            bytes_max: 0,
            keys_only: random.below(4) == 0,
            count_only: random.below(4) == 0,
        }),
    }
}

/// Encodes a random command; `None` if it came out with a key written twice.
pub(super) fn random_command(random: &mut Random, revision: u64) -> Option<Vec<u8>> {
    let pairs: Vec<_> = (0..8).map(|_| (random_key(random), random_key(random))).collect();
    let mut bytes = Vec::new();
    let operations: Vec<_> =
        pairs.iter().map(|pair| random_operation(random, revision, pair)).collect();
    let single = match operations[0] {
        Operation::Put(put) => Command::Put(put),
        Operation::Delete(delete) => Command::Delete(delete),
        Operation::Range(range) => Command::Range(range),
    };
    match random.below(40) {
        0 => Command::SetHistory { revisions: random.below(30) }.encode(&mut bytes).expect("fits"),
        1 => Command::Nothing.encode(&mut bytes).expect("fits"),
        2 => {
            let revision = Revision((revision + 2).saturating_sub(random.below(30)));
            Command::Compact { revision }.encode(&mut bytes).expect("fits");
        }
        3..20 => single.encode(&mut bytes).expect("fits"),
        _ => {
            let mut compares = Vec::new();
            for (key, other) in &pairs[..random.below(3) as usize] {
                let (target, operand) = match random.below(4) {
                    0 => (Target::Version, Operand::Number(random.below(3))),
                    1 => (Target::CreateRevision, Operand::Number(random.below(revision + 1))),
                    2 => (Target::ModRevision, Operand::Number(0)),
                    _ => (Target::Value, Operand::Value(other)),
                };
                let relations =
                    [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
                let relation = relations[random.below(4) as usize];
                compares.push(Compare { target, relation, key, operand });
            }
            let (then, otherwise) = operations.split_at(random.below(6) as usize);
            let otherwise = &otherwise[..random.below(3) as usize];
            let builder = TxnBuilder { compares: &compares, then, otherwise };
            if let Err(error) = builder.encode(&mut bytes) {
                assert!(matches!(error, CommandError::DuplicateKey { .. }), "{error}");
                return None;
            }
        }
    }
    Some(bytes)
}

/// Every command of long random logs is answered as the model answers it, every kept revision
/// reads as the model's copy, and a second machine comes to the same hash.
#[test]
fn behaves_as_the_model() {
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut runner = Runner::new();
        let mut twin = Runner::new();
        let mut model = Model::new();
        for step in 0..2_500 {
            let Some(bytes) = random_command(&mut random, model.revision()) else { continue };
            let command = Command::decode(&bytes).expect("just encoded");
            let (before, hash) = (model.revision(), runner.machine.state_hash());
            let oldest = model.oldest;
            let expected = model.apply(command);
            let applied = runner.apply_bytes(&bytes);
            let context = format!("seed {seed} step {step} {command:?}");
            assert_eq!(applied.revision.0, model.revision(), "{context}");
            assert_eq!(runner.machine.oldest_revision().0, model.oldest, "{context}");
            match expected {
                Ok(Some(expected)) => {
                    assert_eq!(applied.status, Status::Ok, "{context}");
                    let reply = Reply::decode(&runner.reply).expect("just written");
                    assert_eq!(answer(reply), expected, "{context}");
                }
                Ok(None) => assert!(runner.reply.is_empty(), "{context}"),
                Err(status) => {
                    assert_eq!(applied.status, status, "{context}");
                    assert!(runner.reply.is_empty(), "{context}");
                }
            }
            let is_set = match command {
                Command::SetHistory { .. } => true,
                Command::Compact { .. } => model.oldest > oldest,
                _ => false,
            };
            let changed = model.revision() > before || is_set;
            if random.below(10) == 0 {
                while runner.machine.tidy() {}
            }
            assert_eq!(runner.machine.state_hash() != hash, changed, "{context}");
            assert_eq!(runner.machine.keys(), model.copies.last().expect("one").len() as u64);
            twin.apply_bytes(&bytes);
            assert_eq!(twin.machine.state_hash(), runner.machine.state_hash(), "{context}");
            if step % 100 == 0 {
                check_all_revisions(&mut runner, &model);
            }
        }
        check_all_revisions(&mut runner, &model);
    }
}

pub(super) fn check_all_revisions(runner: &mut Runner, model: &Model) {
    for revision in model.oldest.max(1)..=model.revision() {
        let expected: Vec<_> = model.copies[revision as usize]
            .iter()
            .map(|(key, value)| (key.clone(), value.value.clone()))
            .collect();
        assert_eq!(runner.read(Keys::Prefix(b""), revision), Ok(expected));
    }
    if model.oldest > 1 {
        assert_eq!(runner.read(Keys::Prefix(b""), model.oldest - 1), Err(Status::Compacted));
    }
    let next = model.revision() + 1;
    assert_eq!(runner.read(Keys::Prefix(b""), next), Err(Status::FutureRevision));
}
