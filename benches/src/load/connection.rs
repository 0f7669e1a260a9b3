//! What the load generator needs of a connection: submit and poll.

use std::time::Duration;

use ringraft_types::GroupId;

/// One operation, for a connection to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Put a value.
    Write {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Get a value, linearizably.
    Read {
        /// The key.
        key: &'a [u8],
        /// Whether the leader may answer under its lease.
        lease: bool,
    },
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Definitely not done: there was no room.
    Busy,
    /// Definitely not done, for any other reason.
    Refused,
    /// Perhaps done, perhaps not.
    Unknown,
}

/// An operation that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What [`Connection::submit`] called it.
    pub call: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// An operation that was not even taken: definitely not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room for another.
    Busy,
    /// Any other reason.
    Other,
}

/// One connection to a quorum, used by one thread.
pub trait Connection {
    /// Takes an operation and names it with a number that no other operation in flight has. It may
    /// merely queue it.
    ///
    /// # Errors
    /// If it was not taken.
    fn submit(&mut self, group: GroupId, operation: Operation<'_>) -> Result<u64, Refused>;

    /// Sends what is queued, sleeps until something ended or `timeout` is over, and adds
    /// everything that has ended to `ended`.
    ///
    /// # Errors
    /// If the connection is of no use any more, and no other can take its place.
    fn poll(&mut self, timeout: Duration, ended: &mut Vec<Completed>) -> std::io::Result<()>;
}
