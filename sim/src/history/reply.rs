//! What a call was answered: replies that own their bytes.

use ringraft_types::reply::{self, KeyValues, ReplyError};
use serde::{Deserialize, Serialize};

use super::Bytes;

/// The reply to a call that was done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To a put; what has nothing to tell is answered so too: a barrier, a change of the history's
    /// length.
    Put(PutReply),
    /// To a delete: how many keys there were, and the keys as they were.
    Delete(ListReply),
    /// To a range.
    Range(ListReply),
    /// To a transaction.
    Txn(TxnReply),
}

/// What a put answers about the key as it was before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutReply {
    /// It was not asked for, or there was none.
    None,
    /// The key as it was.
    Previous(KeyValue),
    /// There was one, but the reply had no room for it.
    LeftOut,
}

/// Keys with their values in ascending order, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListReply {
    /// Keys in the set, listed or not.
    pub count: u64,
    /// Whether a limit, or want of room, kept keys from being listed.
    #[serde(default)]
    pub more: bool,
    /// The keys listed.
    #[serde(default)]
    pub keys: Vec<KeyValue>,
}

/// What a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TxnReply {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The replies to the operations of the branch that ran; none is a transaction's.
    #[serde(default)]
    pub operations: Vec<Reply>,
}

/// A key as it is or was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty if only keys were asked for.
    pub value: Bytes,
    /// The revision that made it.
    pub create: u64,
    /// The revision that set it last.
    pub modified: u64,
    /// How often it was set since it was made, from 1.
    pub version: u64,
}

impl Reply {
    /// Reads the body of a reply as it travelled.
    ///
    /// # Errors
    /// If the bytes are no reply.
    pub fn decode(body: &[u8]) -> Result<Self, ReplyError> {
        reply::Reply::decode(body).map(Self::from)
    }
}

impl From<reply::Reply<'_>> for Reply {
    fn from(reply: reply::Reply<'_>) -> Self {
        match reply {
            reply::Reply::Put(put) => Self::Put(match put {
                reply::PutReply::None => PutReply::None,
                reply::PutReply::Previous(previous) => PutReply::Previous(previous.into()),
                reply::PutReply::LeftOut => PutReply::LeftOut,
            }),
            reply::Reply::Delete(delete) => {
                Self::Delete(list(delete.deleted, delete.more, delete.previous))
            }
            reply::Reply::Range(range) => Self::Range(list(range.count, range.more, range.keys)),
            reply::Reply::Txn(txn) => Self::Txn(TxnReply {
                succeeded: txn.succeeded,
                operations: txn.operations().map(Self::from).collect(),
            }),
        }
    }
}

fn list(count: u64, more: bool, keys: KeyValues<'_>) -> ListReply {
    ListReply { count, more, keys: keys.map(KeyValue::from).collect() }
}

impl From<reply::KeyValue<'_>> for KeyValue {
    fn from(key_value: reply::KeyValue<'_>) -> Self {
        Self {
            key: key_value.key.into(),
            value: key_value.value.into(),
            create: key_value.create_revision.0,
            modified: key_value.mod_revision.0,
            version: key_value.version,
        }
    }
}
