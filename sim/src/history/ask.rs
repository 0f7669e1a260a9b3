//! What a call asks for: commands that own their bytes, and how they go to and from the wire's.

use ringraft_types::Revision;
use ringraft_types::command::{
    self, Command, CommandError, DeleteCommand, Keys, Operand, PutCommand, RangeCommand, Relation,
    Target, TxnBuilder,
};
use serde::{Deserialize, Serialize};

use super::Bytes;

/// What a call asks of its group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Sets a key.
    Put(Put),
    /// Removes keys.
    Delete(Delete),
    /// Compares, then runs one of two branches.
    Txn(Txn),
    /// Reads keys.
    Range(Range),
    /// Changes how many revisions of history the group keeps.
    SetHistory(u64),
    /// Changes nothing: a barrier in the log.
    Nothing,
    /// Forgets what keys were before a revision.
    Compact(u64),
}

/// Sets a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Whether the reply is to hold what the key was before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub previous: bool,
}

/// Removes keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Which keys.
    pub keys: KeySet,
    /// Whether the reply is to hold what the keys were before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub previous: bool,
}

/// Reads keys in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Which keys.
    pub keys: KeySet,
    /// As of which revision; zero is the current one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revision: u64,
    /// How many keys at most; zero is no limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limit: u32,
    /// How long the reply may become, bytes; zero is the reply's own limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bytes_max: u32,
    /// Whether values are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keys_only: bool,
    /// Whether keys are only counted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub count_only: bool,
    /// What the read promises. Inside a transaction it has no meaning.
    #[serde(default, skip_serializing_if = "is_default")]
    pub consistency: Consistency,
}

/// What a read promises.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// It sees a state that was current at some time between its beginning and its end.
    #[default]
    Linearizable,
    /// It sees a state that was current at some time before its end.
    Stale,
}

/// A set of keys that lie side by side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySet {
    /// One key.
    One(Bytes),
    /// All keys that begin so; empty means all keys.
    Prefix(Bytes),
    /// All keys from the first up to, but not with, the second; an empty second has no end.
    Between(Bytes, Bytes),
}

/// Compares, then runs one of two branches, all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Txn {
    /// All must hold for `then` to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compares: Vec<Compare>,
    /// Runs if all compares hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Operation>,
    /// Runs if a compare doesn't hold.
    #[serde(default, rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<Operation>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Sets a key.
    Put(Put),
    /// Removes keys.
    Delete(Delete),
    /// Reads keys.
    Range(Range),
}

/// One compare of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// Of which key.
    pub key: Bytes,
    /// How the key's target must stand to the operand.
    pub relation: CompareRelation,
    /// What is looked at, and the operand.
    pub to: CompareTo,
}

/// How a compare's target (left) must stand to its operand (right).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareRelation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Greater.
    Greater,
    /// Less.
    Less,
}

/// What a compare looks at, with its operand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareTo {
    /// How often the key was set since it was made.
    Version(u64),
    /// The revision that made it.
    Create(u64),
    /// The revision that set it last.
    Modified(u64),
    /// Its value.
    Value(Bytes),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Ask {
    /// Whether it is asked as a read, outside of the log.
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Range(_))
    }

    /// Whether it could set a key.
    pub fn grows(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Txn(txn) => {
                let mut all = txn.then.iter().chain(&txn.otherwise);
                all.any(|one| matches!(one, Operation::Put(_)))
            }
            _ => false,
        }
    }

    /// Appends the command as the wire and the log have it.
    ///
    /// # Errors
    /// If the command is over a limit, or contradicts itself; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        match self {
            Self::Put(put) => put.command().encode(out),
            Self::Delete(delete) => delete.command().encode(out),
            Self::Range(range) => range.command().encode(out),
            Self::SetHistory(revisions) => {
                Command::SetHistory { revisions: *revisions }.encode(out)
            }
            Self::Nothing => Command::Nothing.encode(out),
            Self::Compact(revision) => {
                Command::Compact { revision: Revision(*revision) }.encode(out)
            }
            Self::Txn(txn) => {
                let compares: Vec<_> = txn.compares.iter().map(Compare::command).collect();
                let then: Vec<_> = txn.then.iter().map(Operation::command).collect();
                let otherwise: Vec<_> = txn.otherwise.iter().map(Operation::command).collect();
                TxnBuilder { compares: &compares, then: &then, otherwise: &otherwise }.encode(out)
            }
        }
    }
}

impl From<Command<'_>> for Ask {
    fn from(command: Command<'_>) -> Self {
        match command {
            Command::Put(put) => Self::Put(put.into()),
            Command::Delete(delete) => Self::Delete(delete.into()),
            Command::Range(range) => Self::Range(range.into()),
            Command::SetHistory { revisions } => Self::SetHistory(revisions),
            Command::Nothing => Self::Nothing,
            Command::Compact { revision } => Self::Compact(revision.0),
            Command::Txn(txn) => Self::Txn(Txn {
                compares: txn.compares().map(Into::into).collect(),
                then: txn.then().map(Into::into).collect(),
                otherwise: txn.otherwise().map(Into::into).collect(),
            }),
        }
    }
}

impl Put {
    fn command(&self) -> PutCommand<'_> {
        PutCommand { key: &self.key.0, value: &self.value.0, previous: self.previous }
    }
}

impl From<PutCommand<'_>> for Put {
    fn from(put: PutCommand<'_>) -> Self {
        Self { key: put.key.into(), value: put.value.into(), previous: put.previous }
    }
}

impl Delete {
    fn command(&self) -> DeleteCommand<'_> {
        DeleteCommand { keys: self.keys.command(), previous: self.previous }
    }
}

impl From<DeleteCommand<'_>> for Delete {
    fn from(delete: DeleteCommand<'_>) -> Self {
        Self { keys: delete.keys.into(), previous: delete.previous }
    }
}

impl Range {
    /// Reads all of these keys as they are now, values included.
    pub fn current(keys: KeySet) -> Self {
        Self {
            keys,
            revision: 0,
            limit: 0,
            bytes_max: 0,
            keys_only: false,
            count_only: false,
            consistency: Consistency::Linearizable,
        }
    }

    fn command(&self) -> RangeCommand<'_> {
        RangeCommand {
            keys: self.keys.command(),
            revision: Revision(self.revision),
            limit: self.limit,
            bytes_max: self.bytes_max,
            keys_only: self.keys_only,
            count_only: self.count_only,
        }
    }
}

impl From<RangeCommand<'_>> for Range {
    fn from(range: RangeCommand<'_>) -> Self {
        Self {
            keys: range.keys.into(),
            revision: range.revision.0,
            limit: range.limit,
            bytes_max: range.bytes_max,
            keys_only: range.keys_only,
            count_only: range.count_only,
            consistency: Consistency::Linearizable,
        }
    }
}

impl KeySet {
    fn command(&self) -> Keys<'_> {
        match self {
            Self::One(key) => Keys::One(&key.0),
            Self::Prefix(prefix) => Keys::Prefix(&prefix.0),
            Self::Between(start, end) => Keys::Between { start: &start.0, end: &end.0 },
        }
    }
}

impl From<Keys<'_>> for KeySet {
    fn from(keys: Keys<'_>) -> Self {
        match keys {
            Keys::One(key) => Self::One(key.into()),
            Keys::Prefix(prefix) => Self::Prefix(prefix.into()),
            Keys::Between { start, end } => Self::Between(start.into(), end.into()),
        }
    }
}

impl Operation {
    fn command(&self) -> command::Operation<'_> {
        match self {
            Self::Put(put) => command::Operation::Put(put.command()),
            Self::Delete(delete) => command::Operation::Delete(delete.command()),
            Self::Range(range) => command::Operation::Range(range.command()),
        }
    }
}

impl From<command::Operation<'_>> for Operation {
    fn from(operation: command::Operation<'_>) -> Self {
        match operation {
            command::Operation::Put(put) => Self::Put(put.into()),
            command::Operation::Delete(delete) => Self::Delete(delete.into()),
            command::Operation::Range(range) => Self::Range(range.into()),
        }
    }
}

impl Compare {
    fn command(&self) -> command::Compare<'_> {
        let (target, operand) = match &self.to {
            CompareTo::Version(number) => (Target::Version, Operand::Number(*number)),
            CompareTo::Create(number) => (Target::CreateRevision, Operand::Number(*number)),
            CompareTo::Modified(number) => (Target::ModRevision, Operand::Number(*number)),
            CompareTo::Value(value) => (Target::Value, Operand::Value(&value.0)),
        };
        let relation = match self.relation {
            CompareRelation::Equal => Relation::Equal,
            CompareRelation::NotEqual => Relation::NotEqual,
            CompareRelation::Greater => Relation::Greater,
            CompareRelation::Less => Relation::Less,
        };
        command::Compare { target, relation, key: &self.key.0, operand }
    }
}

impl From<command::Compare<'_>> for Compare {
    fn from(compare: command::Compare<'_>) -> Self {
        let to = match (compare.target, compare.operand) {
            (_, Operand::Value(value)) => CompareTo::Value(value.into()),
            (Target::CreateRevision, Operand::Number(number)) => CompareTo::Create(number),
            (Target::ModRevision, Operand::Number(number)) => CompareTo::Modified(number),
            (Target::Version | Target::Value, Operand::Number(number)) => {
                CompareTo::Version(number)
            }
        };
        let relation = match compare.relation {
            Relation::Equal => CompareRelation::Equal,
            Relation::NotEqual => CompareRelation::NotEqual,
            Relation::Greater => CompareRelation::Greater,
            Relation::Less => CompareRelation::Less,
        };
        Self { key: compare.key.into(), relation, to }
    }
}
