//! Building commands: what a client does. A limit is checked before a byte is written, so a
//! command that was built decodes everywhere.

use super::txn::check_counts;
use super::{
    Command, CommandError, Compare, DeleteCommand, Keys, Operand, Operation, PutCommand,
    RangeCommand, Target, check_key, check_value, flag, op,
};
use crate::limits::COMMAND_BYTES_MAX;

impl PutCommand<'_> {
    /// Appends the command.
    ///
    /// # Errors
    /// If the key is empty, or key or value is over its limit; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        check_key(self.key.len())?;
        if self.key.is_empty() {
            return Err(CommandError::EmptyKey { at: 1 });
        }
        check_value(self.value.len())?;
        out.reserve(8 + self.key.len() + self.value.len());
        out.extend_from_slice(&[op::PUT, if self.previous { flag::PUT_PREVIOUS } else { 0 }]);
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.value.len() as u32).to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
        Ok(())
    }
}

impl Keys<'_> {
    /// The flags, the key and the end that say the set.
    fn parts(&self) -> Result<(u8, &[u8], &[u8]), CommandError> {
        let (flags, key, end) = match *self {
            Self::One(b"") => return Err(CommandError::EmptyKey { at: 1 }),
            Self::One(key) => (0, key, &b""[..]),
            Self::Prefix(prefix) => (flag::PREFIX, prefix, &b""[..]),
            Self::Between { start, end } => (flag::END, start, end),
        };
        check_key(key.len())?;
        check_key(end.len())?;
        Ok((flags, key, end))
    }
}

impl DeleteCommand<'_> {
    /// Appends the command.
    ///
    /// # Errors
    /// If a single key is empty, or a key is over its limit; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let (mut flags, key, end) = self.keys.parts()?;
        if self.previous {
            flags |= flag::DELETE_PREVIOUS;
        }
        out.extend_from_slice(&[op::DELETE, flags]);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(end.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(key);
        out.extend_from_slice(end);
        Ok(())
    }
}

impl<'a> RangeCommand<'a> {
    /// Reads all of these keys as they are now, values included.
    pub const fn current(keys: Keys<'a>) -> Self {
        let revision = crate::ids::Revision::ZERO;
        Self { keys, revision, limit: 0, bytes_max: 0, keys_only: false, count_only: false }
    }

    /// Appends the command.
    ///
    /// # Errors
    /// If a single key is empty, or a key is over its limit; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let (mut flags, key, end) = self.keys.parts()?;
        if self.keys_only {
            flags |= flag::RANGE_KEYS_ONLY;
        }
        if self.count_only {
            flags |= flag::RANGE_COUNT_ONLY;
        }
        out.extend_from_slice(&[op::RANGE, flags]);
        out.extend_from_slice(&(key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(end.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.revision.0.to_le_bytes());
        out.extend_from_slice(&self.limit.to_le_bytes());
        out.extend_from_slice(&self.bytes_max.to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(end);
        Ok(())
    }
}

/// The parts of a transaction to be encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct TxnBuilder<'a> {
    /// All must hold for `then` to run; none means that it runs.
    pub compares: &'a [Compare<'a>],
    /// Runs if all compares hold.
    pub then: &'a [Operation<'a>],
    /// Runs if a compare doesn't hold.
    pub otherwise: &'a [Operation<'a>],
}

impl TxnBuilder<'_> {
    /// Appends the command.
    ///
    /// # Errors
    /// If a part or the whole is over a limit, a compare's operand isn't its target's, or a branch
    /// writes a key twice; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let start = out.len();
        let result = self.append(out).and_then(|()| {
            // What the parts can't see: the whole length and the keys' relations.
            Command::decode(&out[start..]).map(|_| ())
        });
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn append(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        let start = out.len();
        check_counts(self.compares.len(), self.then.len(), self.otherwise.len())?;
        out.extend_from_slice(&[op::TXN, 0]);
        for count in [self.compares.len(), self.then.len(), self.otherwise.len()] {
            out.extend_from_slice(&(count as u16).to_le_bytes());
        }
        for compare in self.compares {
            compare.append(out)?;
        }
        for operation in self.then.iter().chain(self.otherwise) {
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            match operation {
                Operation::Put(put) => put.encode(out)?,
                Operation::Delete(delete) => delete.encode(out)?,
                Operation::Range(range) => range.encode(out)?,
            }
            let bytes = (out.len() - at - 4) as u32;
            out[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
            if out.len() - start > COMMAND_BYTES_MAX {
                return Err(CommandError::CommandTooLong { have: out.len() - start });
            }
        }
        Ok(())
    }
}

impl Compare<'_> {
    fn append(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        check_key(self.key.len())?;
        let number;
        let operand = match self.operand {
            Operand::Number(value) if self.target != Target::Value => {
                number = value.to_le_bytes();
                &number[..]
            }
            Operand::Value(value) if self.target == Target::Value => value,
            Operand::Number(_) | Operand::Value(_) => {
                let what = "an operand that is not its target's";
                return Err(CommandError::Malformed { what, at: 0 });
            }
        };
        check_value(operand.len())?;
        out.extend_from_slice(&[self.target as u8, self.relation as u8]);
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(&(operand.len() as u32).to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(operand);
        Ok(())
    }
}

/// Appends the command that changes how many revisions of history the group keeps.
fn set_history(revisions: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[op::SET_HISTORY, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&revisions.to_le_bytes());
}

/// Appends the command that changes nothing.
fn nothing(out: &mut Vec<u8>) {
    out.extend_from_slice(&[op::NOTHING, 0, 0, 0, 0, 0, 0, 0]);
}

/// Appends the command that forgets what keys were before a revision.
fn compact(revision: crate::Revision, out: &mut Vec<u8>) {
    out.extend_from_slice(&[op::COMPACT, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&revision.0.to_le_bytes());
}

impl Command<'_> {
    /// Appends the command, whichever it is; a checked transaction is copied.
    ///
    /// # Errors
    /// As the commands' own `encode`; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        match self {
            Self::Put(put) => put.encode(out),
            Self::Delete(delete) => delete.encode(out),
            Self::Range(range) => range.encode(out),
            Self::Txn(txn) => {
                let compares: Vec<_> = txn.compares().collect();
                let then: Vec<_> = txn.then().collect();
                let otherwise: Vec<_> = txn.otherwise().collect();
                TxnBuilder { compares: &compares, then: &then, otherwise: &otherwise }.encode(out)
            }
            Self::SetHistory { revisions } => {
                set_history(*revisions, out);
                Ok(())
            }
            Self::Nothing => {
                nothing(out);
                Ok(())
            }
            Self::Compact { revision } => {
                compact(*revision, out);
                Ok(())
            }
        }
    }
}
