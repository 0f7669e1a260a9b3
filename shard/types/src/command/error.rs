//! Why bytes are not a command.

use super::{TXN_COMPARES_MAX, TXN_OPERATIONS_MAX};
use crate::limits::COMMAND_BYTES_MAX;

/// Why bytes are not a command; `at` counts bytes from the command's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A key or range end is over its limit.
    #[error("a key has {have} bytes, the limit is {limit}; use a shorter key")]
    KeyTooLong {
        /// Its bytes.
        have: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// A value is over its limit.
    #[error("a value has {have} bytes, the limit is {limit}; split it over several keys")]
    ValueTooLong {
        /// Its bytes.
        have: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// A single key is empty.
    #[error("the key at byte {at} is empty; name a key, or ask for a prefix or a range")]
    EmptyKey {
        /// Where.
        at: usize,
    },
    /// A branch of a transaction has too many operations.
    #[error(
        "a branch has {have} operations, the limit is {TXN_OPERATIONS_MAX}; split the transaction"
    )]
    TooManyOperations {
        /// Its operations.
        have: usize,
    },
    /// A transaction has too many compares.
    #[error(
        "a transaction has {have} compares, the limit is {TXN_COMPARES_MAX}; split the transaction"
    )]
    TooManyCompares {
        /// Its compares.
        have: usize,
    },
    /// One branch of a transaction writes a key twice.
    #[error("operation {operation} writes a key that its branch writes too; write each key once")]
    DuplicateKey {
        /// Its place in the branch, from zero.
        operation: usize,
    },
    /// The whole is over the limit.
    #[error("a command has {have} bytes, the limit is {COMMAND_BYTES_MAX}; split it")]
    CommandTooLong {
        /// Its bytes.
        have: usize,
    },
    /// The bytes end too early.
    #[error("the command ends inside {what}, {missing} bytes short at byte {at}; send it whole")]
    Short {
        /// Inside of what.
        what: &'static str,
        /// Where that begins.
        at: usize,
        /// Bytes that are missing.
        missing: usize,
    },
    /// The bytes contradict the layout or each other.
    #[error("the command has {what} at byte {at}; build it with the client library")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The operation (or a compare's target or relation) is unknown to this version.
    #[error("operation {op} at byte {at} is unknown to this version; upgrade the server")]
    UnknownOperation {
        /// Its number.
        op: u8,
        /// Where.
        at: usize,
    },
    /// A flag is unknown to this version.
    #[error("flags {flags:#04x} at byte {at} are unknown to this version; upgrade the server")]
    UnknownFlags {
        /// The unknown bits.
        flags: u8,
        /// Where.
        at: usize,
    },
}

impl CommandError {
    /// Whether a newer version may well understand the command.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::UnknownOperation { .. } | Self::UnknownFlags { .. })
    }
}
