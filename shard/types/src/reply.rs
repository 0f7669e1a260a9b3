//! The bodies of replies: what the key-value machine answers to a command that went well.
//!
//! ```text
//! Put         nothing, if there is no previous key to tell; else
//!             u8 1, u8 flags (1 previous, 2 previous left out), 6 bytes of 0, [KeyValue]
//! Delete      u8 2, u8 flags (1 more), u16 0, u32 listed, u64 deleted, KeyValues
//! Txn         u8 3, u8 flags (1 succeeded), u16 operations, u32 0,
//!             then for every operation: u32 bytes, its reply
//! Range       u8 4, u8 flags (1 more), u16 0, u32 listed, u64 count, KeyValues
//!
//! KeyValue    u16 key bytes, u16 0, u32 value bytes, u64 create revision, u64 mod revision,
//!             u64 version, key, value
//! ```
//! All numbers are little-endian. SetHistory, Nothing and Compact are answered by an empty body. Status and
//! revision travel beside the body. Decoders are bounded, allocate nothing and never panic.

#[cfg(test)]
mod tests;
mod write;

pub use write::{ListWriter, TxnWriter, write_put};

use crate::command::CommandError;
use crate::command::reader::Reader;
use crate::command::{TXN_OPERATIONS_MAX, op};
use crate::ids::Revision;
use crate::limits::{FRAME_BODY_BYTES_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX};

/// The longest body of a reply, bytes. What doesn't fit is left out, and the reply says so.
pub const REPLY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;
/// What a key with its value takes beside key and value, bytes.
pub const KEY_VALUE_BYTES: usize = 32;

// A reply with the largest key and value fits, inside a transaction too.
const _: () =
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + KEY_VALUE_BYTES + 64 * 1024 <= REPLY_BYTES_MAX);
// The longest reply fits a frame.
const _: () = assert!(REPLY_BYTES_MAX + 64 * 1024 <= FRAME_BODY_BYTES_MAX);

const FLAG_PREVIOUS: u8 = 1;
const FLAG_LEFT_OUT: u8 = 2;
const FLAG_MORE: u8 = 1;
const FLAG_SUCCEEDED: u8 = 1;

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is damaged in {what} at byte {at}; the server may be of another version")]
pub struct ReplyError {
    /// What is wrong.
    pub what: &'static str,
    /// Where, counted from the reply's first byte.
    pub at: usize,
}

impl From<CommandError> for ReplyError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Short { what, at, .. } | CommandError::Malformed { what, at } => {
                Self { what, at }
            }
            CommandError::UnknownFlags { at, .. } => Self { what: "the flags", at },
            _ => Self { what: "its layout", at: 0 },
        }
    }
}

/// A key as it is or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value; empty if only keys were asked for.
    pub value: &'a [u8],
    /// The revision that made it.
    pub create_revision: Revision,
    /// The revision that set it last.
    pub mod_revision: Revision,
    /// How often it was set since it was made, from 1.
    pub version: u64,
}

/// Keys with their values, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValues<'a> {
    bytes: &'a [u8],
    left: usize,
}

/// A reply, checked, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// To a put; also what an empty body means.
    Put(PutReply<'a>),
    /// To a delete.
    Delete(DeleteReply<'a>),
    /// To a transaction.
    Txn(TxnReply<'a>),
    /// To a range.
    Range(RangeReply<'a>),
}

/// What a put answers about the key as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutReply<'a> {
    /// It was not asked for, or there was none.
    None,
    /// The key as it was.
    Previous(KeyValue<'a>),
    /// There was one, but the reply had no room for it.
    LeftOut,
}

/// What a delete answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteReply<'a> {
    /// Keys that were removed.
    pub deleted: u64,
    /// Whether removed keys that were asked for are missing for want of room.
    pub more: bool,
    /// The keys as they were, if asked for.
    pub previous: KeyValues<'a>,
}

/// What a range answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeReply<'a> {
    /// Keys in the range, listed or not.
    pub count: u64,
    /// Whether the limit, or want of room, kept keys from being listed.
    pub more: bool,
    /// The keys.
    pub keys: KeyValues<'a>,
}

/// What a transaction answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnReply<'a> {
    /// Whether all compares held, so that the first branch ran.
    pub succeeded: bool,
    operations: Replies<'a>,
}

/// The replies to a branch's operations, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replies<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> TxnReply<'a> {
    /// The replies to the operations of the branch that ran.
    pub const fn operations(&self) -> Replies<'a> {
        self.operations
    }
}

impl<'a> Reply<'a> {
    /// Reads and checks a reply; it must fill `bytes` exactly.
    ///
    /// # Errors
    /// If the bytes are no reply that this version knows.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ReplyError> {
        if bytes.is_empty() {
            return Ok(Self::Put(PutReply::None));
        }
        let mut reader = Reader::new(bytes);
        let reply = match bytes[0] {
            op::TXN => Self::Txn(txn(&mut reader)?),
            _ => single(&mut reader)?,
        };
        reader.finish()?;
        Ok(reply)
    }
}

/// Reads a reply that can stand in a transaction's.
fn single<'a>(reader: &mut Reader<'a>) -> Result<Reply<'a>, ReplyError> {
    let at = reader.at();
    match reader.u8("a reply")? {
        op::PUT => {
            let flags = reader.flags(FLAG_PREVIOUS | FLAG_LEFT_OUT)?;
            reader.zeros(6)?;
            Ok(Reply::Put(match flags {
                FLAG_PREVIOUS => PutReply::Previous(KeyValue::decode(reader)?),
                FLAG_LEFT_OUT => PutReply::LeftOut,
                _ => return Err(ReplyError { what: "the flags of a put's reply", at: at + 1 }),
            }))
        }
        op::DELETE => {
            let (more, deleted, previous) = list(reader)?;
            Ok(Reply::Delete(DeleteReply { deleted, more, previous }))
        }
        op::RANGE => {
            let (more, count, keys) = list(reader)?;
            Ok(Reply::Range(RangeReply { count, more, keys }))
        }
        _ => Err(ReplyError { what: "the kind of a reply", at }),
    }
}

/// Reads the body that replies to delete and range share.
fn list<'a>(reader: &mut Reader<'a>) -> Result<(bool, u64, KeyValues<'a>), ReplyError> {
    let flags = reader.flags(FLAG_MORE)?;
    reader.zeros(2)?;
    let listed = reader.u32("a list")? as usize;
    let count = reader.u64("a list")?;
    let start = reader.at();
    for _ in 0..listed {
        KeyValue::decode(reader)?;
    }
    Ok((flags & FLAG_MORE != 0, count, KeyValues { bytes: reader.since(start), left: listed }))
}

fn txn<'a>(reader: &mut Reader<'a>) -> Result<TxnReply<'a>, ReplyError> {
    reader.u8("a reply")?;
    let flags = reader.flags(FLAG_SUCCEEDED)?;
    let count = usize::from(reader.u16("a transaction's reply")?);
    reader.zeros(4)?;
    if count > TXN_OPERATIONS_MAX {
        return Err(ReplyError { what: "the number of operations", at: 2 });
    }
    let start = reader.at();
    for _ in 0..count {
        let length = reader.u32("an operation's reply")? as usize;
        let at = reader.at();
        if length != 0 {
            single(reader)?;
        }
        if reader.at() - at != length {
            return Err(ReplyError { what: "the length of an operation's reply", at: at - 4 });
        }
    }
    let operations = Replies { bytes: reader.since(start), left: count };
    Ok(TxnReply { succeeded: flags & FLAG_SUCCEEDED != 0, operations })
}

impl<'a> Iterator for Replies<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.bytes.split_first_chunk().expect("checked by decode");
        let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.bytes = rest;
        Some(Reply::decode(bytes).expect("checked by decode"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Replies<'_> {}

impl<'a> Iterator for KeyValues<'a> {
    type Item = KeyValue<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let key_value = KeyValue::decode(&mut reader).expect("checked by decode");
        self.bytes = &self.bytes[reader.at()..];
        Some(key_value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for KeyValues<'_> {}

impl<'a> KeyValue<'a> {
    /// Bytes it takes in a reply.
    pub const fn encoded_bytes(&self) -> usize {
        KEY_VALUE_BYTES + self.key.len() + self.value.len()
    }

    /// Appends it.
    ///
    /// # Panics
    /// If the key or value is over its limit: no machine may hold one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.key.len() <= KEY_BYTES_MAX, "a key of {} bytes", self.key.len());
        assert!(self.value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", self.value.len());
        let mut header = [0u8; KEY_VALUE_BYTES];
        header[..2].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        header[4..8].copy_from_slice(&(self.value.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&self.create_revision.0.to_le_bytes());
        header[16..24].copy_from_slice(&self.mod_revision.0.to_le_bytes());
        header[24..].copy_from_slice(&self.version.to_le_bytes());
        out.reserve(self.encoded_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value);
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, CommandError> {
        let at = reader.at();
        let key_bytes = usize::from(reader.u16("a key with its value")?);
        reader.zeros(2)?;
        let value_bytes = reader.u32("a key with its value")? as usize;
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(CommandError::Malformed { what: "a key or value over its limit", at });
        }
        Ok(Self {
            create_revision: Revision(reader.u64("a key with its value")?),
            mod_revision: Revision(reader.u64("a key with its value")?),
            version: reader.u64("a key with its value")?,
            key: reader.take(key_bytes, "a key")?,
            value: reader.take(value_bytes, "a value")?,
        })
    }
}
