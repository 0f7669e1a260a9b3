//! A client's command as it travels, lies in the log and reaches the machine: one flat layout,
//! checked by hand, read in place.
//!
//! A payload of the log is an [`Envelope`] and a command:
//! ```text
//!  0  u128 client id    16 u64 sequence, from 1    24 u64 received mark    32 u64 opened
//! 40  the command, by its first byte:
//!
//! Put         u8 1, u8 flags (1 previous), u16 key bytes, u32 value bytes, key, value
//! Delete      u8 2, u8 flags (1 prefix, 2 end, 4 previous), u16 key bytes, u16 end bytes, u16 0,
//!             key, end
//! Txn         u8 3, u8 0, u16 compares, u16 then, u16 otherwise, the compares,
//!             then every operation as: u32 bytes, a Put, Delete or Range
//! Range       u8 4, u8 flags (1 prefix, 2 end, 4 keys only, 8 count only), u16 key bytes,
//!             u16 end bytes, u16 0, u64 revision, u32 limit, u32 bytes at most, key, end
//! SetHistory  u8 5, 7 bytes of 0, u64 revisions
//! Nothing     u8 6, 7 bytes of 0
//! Compact     u8 7, 7 bytes of 0, u64 revision
//!
//! Compare     u8 target, u8 relation, u16 key bytes, u32 operand bytes, key, operand
//! ```
//! All numbers are little-endian, nothing is aligned, nothing follows the last byte named. A
//! command that decodes keeps every limit of `limits.rs`; decoding never allocates or panics.

mod encode;
mod error;
pub(crate) mod reader;
#[cfg(test)]
pub(crate) mod tests;
mod txn;

pub use encode::TxnBuilder;
pub use error::CommandError;
pub use txn::{Compare, Compares, Operand, Operation, Operations, Relation, Target, TxnCommand};

use crate::ids::{ClientId, Index, Revision};
use crate::limits::{COMMAND_BYTES_MAX, ENVELOPE_BYTES, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use reader::Reader;

/// Operations in one branch of a transaction, at most.
pub const TXN_OPERATIONS_MAX: usize = 128;
/// Compares in one transaction, at most.
pub const TXN_COMPARES_MAX: usize = 128;

/// The operations' numbers. They are the format's: never reuse one.
pub(crate) mod op {
    pub(crate) const PUT: u8 = 1;
    pub(crate) const DELETE: u8 = 2;
    pub(crate) const TXN: u8 = 3;
    pub(crate) const RANGE: u8 = 4;
    pub(crate) const SET_HISTORY: u8 = 5;
    pub(crate) const NOTHING: u8 = 6;
    pub(crate) const COMPACT: u8 = 7;
}

/// The flags' bits, by operation.
pub(crate) mod flag {
    pub(crate) const PUT_PREVIOUS: u8 = 1;
    pub(crate) const PREFIX: u8 = 1;
    pub(crate) const END: u8 = 2;
    pub(crate) const DELETE_PREVIOUS: u8 = 4;
    pub(crate) const RANGE_KEYS_ONLY: u8 = 4;
    pub(crate) const RANGE_COUNT_ONLY: u8 = 8;
}

/// Who sent a command, and what makes a retry of it recognisable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The session.
    pub client: ClientId,
    /// The command's number in its session, from 1, without gaps.
    pub sequence: u64,
    /// The client has the answers to every number up to this; always below `sequence`.
    pub received: u64,
    /// The newest Raft index the client knew of when it opened its session.
    pub opened: Index,
}

impl Envelope {
    /// The envelope as it travels; the command follows it.
    #[inline]
    pub fn to_bytes(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[0..16].copy_from_slice(&self.client.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.received.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.opened.0.to_le_bytes());
        bytes
    }

    /// Appends the envelope; the command follows it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    /// Splits a payload into its envelope and the command's bytes, which are not looked at.
    ///
    /// # Errors
    /// If the payload is shorter than an envelope, or the numbers contradict each other.
    #[inline]
    pub fn decode(payload: &[u8]) -> Result<(Self, &[u8]), CommandError> {
        let mut reader = Reader::new(payload);
        let envelope = Self {
            client: ClientId(reader.u128("the envelope")?),
            sequence: reader.u64("the envelope")?,
            received: reader.u64("the envelope")?,
            opened: Index(reader.u64("the envelope")?),
        };
        if envelope.sequence == 0 {
            return Err(CommandError::Malformed { what: "a sequence number of zero", at: 16 });
        }
        if envelope.received >= envelope.sequence {
            let what = "a received mark that is not below the sequence number";
            return Err(CommandError::Malformed { what, at: 24 });
        }
        Ok((envelope, &payload[ENVELOPE_BYTES..]))
    }
}

/// A command, checked, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Sets a key.
    Put(PutCommand<'a>),
    /// Removes keys.
    Delete(DeleteCommand<'a>),
    /// Compares, then runs one of two branches, all at one revision.
    Txn(TxnCommand<'a>),
    /// Reads keys.
    Range(RangeCommand<'a>),
    /// Changes how many revisions of history the group keeps.
    SetHistory {
        /// Revisions before the current one that stay readable.
        revisions: u64,
    },
    /// Changes nothing: a barrier, or the opening of a session.
    Nothing,
    /// Forgets what keys were before a revision, however long the history is otherwise kept.
    Compact {
        /// The oldest revision that stays readable, 1 up to the current one.
        revision: Revision,
    },
}

/// Sets a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutCommand<'a> {
    /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The value, up to [`VALUE_BYTES_MAX`] bytes.
    pub value: &'a [u8],
    /// Whether the reply is to hold what the key was before.
    pub previous: bool,
}

/// Removes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteCommand<'a> {
    /// Which keys.
    pub keys: Keys<'a>,
    /// Whether the reply is to hold what the keys were before.
    pub previous: bool,
}

/// Reads keys in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeCommand<'a> {
    /// Which keys.
    pub keys: Keys<'a>,
    /// As of which revision; zero is the current one.
    pub revision: Revision,
    /// How many keys at most; zero is no limit.
    pub limit: u32,
    /// How long the reply may become, bytes; zero is the reply's own limit.
    pub bytes_max: u32,
    /// Whether values are left out.
    pub keys_only: bool,
    /// Whether keys are only counted.
    pub count_only: bool,
}

/// A set of keys that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys<'a> {
    /// One key, 1 to [`KEY_BYTES_MAX`] bytes.
    One(&'a [u8]),
    /// All keys that begin so; empty means all keys.
    Prefix(&'a [u8]),
    /// All keys from `start` up to, but not with, `end`.
    Between {
        /// The first key; empty means from the first there is.
        start: &'a [u8],
        /// The first key no longer meant; empty means to the last there is.
        end: &'a [u8],
    },
}

impl<'a> Keys<'a> {
    /// The smallest key that can be in the set.
    pub const fn start(&self) -> &'a [u8] {
        match *self {
            Self::One(start) | Self::Prefix(start) | Self::Between { start, .. } => start,
        }
    }

    /// Whether a key that is not below [`Keys::start`] is still in the set.
    #[inline]
    pub fn holds(&self, key: &[u8]) -> bool {
        match *self {
            Self::One(only) => key == only,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Between { end, .. } => end.is_empty() || key < end,
        }
    }

    /// Whether a key is in the set.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start() && self.holds(key)
    }

    fn decode(key: &'a [u8], end: &'a [u8], flags: u8, at: usize) -> Result<Self, CommandError> {
        if flags & flag::END == 0 && !end.is_empty() {
            return Err(CommandError::Malformed { what: "a range end without its flag", at });
        }
        match (flags & flag::PREFIX != 0, flags & flag::END != 0) {
            (true, true) => Err(CommandError::Malformed { what: "both a prefix and an end", at }),
            (true, false) => Ok(Self::Prefix(key)),
            (false, true) => Ok(Self::Between { start: key, end }),
            (false, false) if key.is_empty() => Err(CommandError::EmptyKey { at }),
            (false, false) => Ok(Self::One(key)),
        }
    }
}

impl<'a> Command<'a> {
    /// Reads and checks a command; it must fill `bytes` exactly.
    ///
    /// # Errors
    /// [`CommandError::is_unknown`] tells an operation or flag this version doesn't know, which a
    /// replica must refuse to apply and never skip, from bytes that no version understands.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(CommandError::CommandTooLong { have: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let command = match reader.u8("the operation")? {
            op::PUT => Self::Put(put(&mut reader)?),
            op::DELETE => Self::Delete(delete(&mut reader)?),
            op::TXN => Self::Txn(TxnCommand::decode(&mut reader)?),
            op::RANGE => Self::Range(range(&mut reader)?),
            op::SET_HISTORY => {
                reader.zeros(7)?;
                Self::SetHistory { revisions: reader.u64("the revisions")? }
            }
            op::NOTHING => {
                reader.zeros(7)?;
                Self::Nothing
            }
            op::COMPACT => {
                reader.zeros(7)?;
                Self::Compact { revision: Revision(reader.u64("the revision")?) }
            }
            op => return Err(CommandError::UnknownOperation { op, at: 0 }),
        };
        reader.finish()?;
        Ok(command)
    }

    /// Whether the command never changes the machine, so that it needs no place in the log.
    pub const fn is_read_only(&self) -> bool {
        matches!(self, Self::Range(_))
    }
}

/// Reads a put behind its operation byte.
#[inline]
fn put<'a>(reader: &mut Reader<'a>) -> Result<PutCommand<'a>, CommandError> {
    let at = reader.at();
    let flags = reader.flags(flag::PUT_PREVIOUS)?;
    let key_bytes = usize::from(reader.u16("a put")?);
    let value_bytes = reader.u32("a put")? as usize;
    check_key(key_bytes)?;
    if key_bytes == 0 {
        return Err(CommandError::EmptyKey { at });
    }
    check_value(value_bytes)?;
    let key = reader.take(key_bytes, "a put's key")?;
    let value = reader.take(value_bytes, "a put's value")?;
    Ok(PutCommand { key, value, previous: flags & flag::PUT_PREVIOUS != 0 })
}

/// Reads a delete behind its operation byte.
fn delete<'a>(reader: &mut Reader<'a>) -> Result<DeleteCommand<'a>, CommandError> {
    let at = reader.at();
    let flags = reader.flags(flag::PREFIX | flag::END | flag::DELETE_PREVIOUS)?;
    let key_bytes = usize::from(reader.u16("a delete")?);
    let end_bytes = usize::from(reader.u16("a delete")?);
    reader.zeros(2)?;
    check_key(key_bytes)?;
    check_key(end_bytes)?;
    let key = reader.take(key_bytes, "a delete's key")?;
    let end = reader.take(end_bytes, "a delete's range end")?;
    let keys = Keys::decode(key, end, flags, at)?;
    Ok(DeleteCommand { keys, previous: flags & flag::DELETE_PREVIOUS != 0 })
}

/// Reads a range behind its operation byte.
fn range<'a>(reader: &mut Reader<'a>) -> Result<RangeCommand<'a>, CommandError> {
    let at = reader.at();
    let flags =
        reader.flags(flag::PREFIX | flag::END | flag::RANGE_KEYS_ONLY | flag::RANGE_COUNT_ONLY)?;
    let key_bytes = usize::from(reader.u16("a range")?);
    let end_bytes = usize::from(reader.u16("a range")?);
    reader.zeros(2)?;
    let revision = Revision(reader.u64("a range")?);
    let limit = reader.u32("a range")?;
    let bytes_max = reader.u32("a range")?;
    check_key(key_bytes)?;
    check_key(end_bytes)?;
    let key = reader.take(key_bytes, "a range's key")?;
    let end = reader.take(end_bytes, "a range's end")?;
    Ok(RangeCommand {
        keys: Keys::decode(key, end, flags, at)?,
        revision,
        limit,
        bytes_max,
        keys_only: flags & flag::RANGE_KEYS_ONLY != 0,
        count_only: flags & flag::RANGE_COUNT_ONLY != 0,
    })
}

#[inline]
fn check_key(have: usize) -> Result<(), CommandError> {
    if have > KEY_BYTES_MAX {
        return Err(CommandError::KeyTooLong { have, limit: KEY_BYTES_MAX });
    }
    Ok(())
}

#[inline]
fn check_value(have: usize) -> Result<(), CommandError> {
    if have > VALUE_BYTES_MAX {
        return Err(CommandError::ValueTooLong { have, limit: VALUE_BYTES_MAX });
    }
    Ok(())
}
