//! A transaction: compares, and the branch to run if all of them hold, or the other.

use super::reader::Reader;
use super::{
    CommandError, DeleteCommand, PutCommand, RangeCommand, TXN_COMPARES_MAX, TXN_OPERATIONS_MAX,
    check_key, check_value, delete, op, put, range,
};

/// A transaction, checked, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnCommand<'a> {
    compares: Compares<'a>,
    then: Operations<'a>,
    otherwise: Operations<'a>,
}

/// The compares of a transaction, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compares<'a> {
    bytes: &'a [u8],
    left: usize,
}

/// The operations of one branch, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations<'a> {
    bytes: &'a [u8],
    left: usize,
}

/// One operation of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Sets a key.
    Put(PutCommand<'a>),
    /// Removes keys.
    Delete(DeleteCommand<'a>),
    /// Reads keys; at the current revision it sees the branch's earlier writes.
    Range(RangeCommand<'a>),
}

/// What a compare looks at. Of a key that doesn't exist the numbers are zero, and no compare with
/// its value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Target {
    /// How often the key was set since it was made.
    Version = 0,
    /// The revision that made it.
    CreateRevision = 1,
    /// The revision that set it last.
    ModRevision = 2,
    /// Its value, as bytes.
    Value = 3,
}

/// How a key's target (left) must stand to the operand (right).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Relation {
    /// Equal.
    Equal = 0,
    /// Not equal.
    NotEqual = 1,
    /// Greater.
    Greater = 2,
    /// Less.
    Less = 3,
}

/// The right side of a compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand<'a> {
    /// For a version or revision.
    Number(u64),
    /// For a value.
    Value(&'a [u8]),
}

/// One compare of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare<'a> {
    /// What is looked at.
    pub target: Target,
    /// How it must stand to the operand.
    pub relation: Relation,
    /// Of which key.
    pub key: &'a [u8],
    /// The right side: a value for [`Target::Value`], a number for the others.
    pub operand: Operand<'a>,
}

impl<'a> TxnCommand<'a> {
    /// The compares; the first branch runs if all hold.
    pub const fn compares(&self) -> Compares<'a> {
        self.compares
    }

    /// The branch that runs if all compares hold.
    pub const fn then(&self) -> Operations<'a> {
        self.then
    }

    /// The branch that runs if a compare doesn't hold.
    pub const fn otherwise(&self) -> Operations<'a> {
        self.otherwise
    }

    /// Reads and checks a transaction behind its operation byte.
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        reader.zeros(1)?;
        let compares = usize::from(reader.u16("a transaction")?);
        let then = usize::from(reader.u16("a transaction")?);
        let otherwise = usize::from(reader.u16("a transaction")?);
        check_counts(compares, then, otherwise)?;
        let start = reader.at();
        for _ in 0..compares {
            Compare::decode(reader)?;
        }
        let compares = Compares { bytes: reader.since(start), left: compares };
        let then = Operations::decode(reader, then)?;
        let otherwise = Operations::decode(reader, otherwise)?;
        Ok(Self { compares, then, otherwise })
    }
}

/// Checks a transaction's counts against their limits.
pub(super) fn check_counts(
    compares: usize,
    then: usize,
    otherwise: usize,
) -> Result<(), CommandError> {
    if compares > TXN_COMPARES_MAX {
        return Err(CommandError::TooManyCompares { have: compares });
    }
    let have = then.max(otherwise);
    if have > TXN_OPERATIONS_MAX {
        return Err(CommandError::TooManyOperations { have });
    }
    Ok(())
}

impl<'a> Operations<'a> {
    fn decode(reader: &mut Reader<'a>, count: usize) -> Result<Self, CommandError> {
        let start = reader.at();
        for _ in 0..count {
            let bytes = reader.u32("an operation's length")? as usize;
            let at = reader.at();
            Operation::decode(reader)?;
            if reader.at() - at != bytes {
                let what = "an operation's length that is not the operation's";
                return Err(CommandError::Malformed { what, at: at - 4 });
            }
        }
        let operations = Self { bytes: reader.since(start), left: count };
        operations.check_duplicates()?;
        Ok(operations)
    }

    /// Refuses a branch that sets a key twice, or sets and removes it: which one comes to stand
    /// at the branch's one revision would hang on their order.
    fn check_duplicates(self) -> Result<(), CommandError> {
        let mut keys = [(&b""[..], 0usize); TXN_OPERATIONS_MAX];
        let mut puts = 0;
        for (operation, command) in self.enumerate() {
            if let Operation::Put(put) = command {
                keys[puts] = (put.key, operation);
                puts += 1;
            }
        }
        let keys = &mut keys[..puts];
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CommandError::DuplicateKey { operation: pair[1].1 });
        }
        for (operation, command) in self.enumerate() {
            if let Operation::Delete(delete) = command
                && keys.iter().any(|(key, _)| delete.keys.contains(key))
            {
                return Err(CommandError::DuplicateKey { operation });
            }
        }
        Ok(())
    }
}

impl<'a> Operation<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        let at = reader.at();
        Ok(match reader.u8("an operation")? {
            op::PUT => Self::Put(put(reader)?),
            op::DELETE => Self::Delete(delete(reader)?),
            op::RANGE => Self::Range(range(reader)?),
            op::TXN | op::SET_HISTORY | op::NOTHING | op::COMPACT => {
                let what = "an operation that can't stand in a transaction";
                return Err(CommandError::Malformed { what, at });
            }
            op => return Err(CommandError::UnknownOperation { op, at }),
        })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Operation<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.bytes.split_first_chunk().expect("checked by decode");
        let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.bytes = rest;
        Some(Operation::decode(&mut Reader::new(bytes)).expect("checked by decode"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Operations<'_> {}

impl<'a> Iterator for Compares<'a> {
    type Item = Compare<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let compare = Compare::decode(&mut reader).expect("checked by decode");
        self.bytes = &self.bytes[reader.at()..];
        Some(compare)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Compares<'_> {}

impl<'a> Compare<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        let at = reader.at();
        let target = match reader.u8("a compare")? {
            0 => Target::Version,
            1 => Target::CreateRevision,
            2 => Target::ModRevision,
            3 => Target::Value,
            op => return Err(CommandError::UnknownOperation { op, at }),
        };
        let relation = match reader.u8("a compare")? {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Greater,
            3 => Relation::Less,
            op => return Err(CommandError::UnknownOperation { op, at: at + 1 }),
        };
        let key_bytes = usize::from(reader.u16("a compare")?);
        let operand_bytes = reader.u32("a compare")? as usize;
        check_key(key_bytes)?;
        if key_bytes == 0 {
            return Err(CommandError::EmptyKey { at });
        }
        check_value(operand_bytes)?;
        let key = reader.take(key_bytes, "a compare's key")?;
        let bytes = reader.take(operand_bytes, "a compare's operand")?;
        let operand = match target {
            Target::Value => Operand::Value(bytes),
            Target::Version | Target::CreateRevision | Target::ModRevision => {
                let what = "a number that is not eight bytes";
                let number = bytes.try_into().map_err(|_| CommandError::Malformed { what, at })?;
                Operand::Number(u64::from_le_bytes(number))
            }
        };
        Ok(Self { target, relation, key, operand })
    }
}
