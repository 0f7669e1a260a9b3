//! The client library: finds leaders, keeps sessions, retries what may be retried, and says of
//! every call whether it was done, was not done, or can't be known.
//!
//! [`Core`] holds all decisions and does no I/O: time and bytes come in as arguments, so that a
//! simulator can run it. [`Client`] is a thin driver of it on non-blocking sockets.
//!
//! # Sessions
//! The writes of one client to one group form a session: a random name, and numbers from 1 without
//! gaps. A server applies a number once, and only after the one before it. So:
//! - A number is given when a write is first sent; one that never was can be dropped at will.
//! - A write whose attempt may lie in a log (its connection broke, or the server said `Unknown`) is
//!   *in doubt*. It is sent again under its number until it is answered, also after its deadline,
//!   when its outcome was reported as unknown: it may have to fill the gap before its successors.
//! - A write whose every attempt was refused is *definitely not done*; when it is given up (its
//!   deadline passed, or the refusal is final), its number becomes a *hole*. No successor can have
//!   been applied. If no attempt of a successor is in doubt, the numbers from the hole on are given
//!   anew; otherwise, once all before the hole are answered, the successors move to a new session:
//!   a late attempt of one then finds the gap that nobody fills any more.
//! - A write in doubt that is refused for what it is (`Invalid`, say) is unknown, and its number a
//!   hole too; then successors in doubt are unknown as well, and the others move to a new session.
//! - A refusal that carries a log index was logged: its number is used up.
//! - An evicted session: writes in doubt become unknown, all others move to a new session.

mod asks;
mod barrier;
mod calls;
mod change;
mod core;
mod driver;
mod group;
mod lead;
mod link;
mod placement;
mod receive;
mod session;

use std::fmt;

use ringraft_types::{ConfigurationError, Index, Revision, Status};

pub use self::barrier::{BarrierError, Reached, Shortfall};
pub use self::calls::{Completed, Completions};
pub use self::change::{ChangeError, Changed, GroupMembers};
pub use self::core::{Core, CoreOptions};
pub use self::driver::{Client, ClientOptions, Response};
pub use self::lead::{HandedOver, TransferError};
pub use self::link::{LinkId, Trouble};
pub use self::placement::GroupError;

/// Names a call of one client, from submission to completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Done, with this answer.
    Done(Answer<'a>),
    /// A write that was done, with this answer: it is committed and stays so. The level that was
    /// asked for wasn't seen reached in time.
    Below(Answer<'a>, Shortfall),
    /// Definitely not done, and never will be.
    NotDone(Reason),
    /// Done, not done, or yet to be done: a write whose fate didn't become known in time.
    Unknown(Reason),
}

/// A server's answer to a call that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The machine's own word about the result.
    pub flags: u8,
    /// The machine's revision after the write, or that the read saw.
    pub revision: Revision,
    /// The Raft index of the write, or that the read saw.
    pub index: Index,
    /// The machine's result.
    pub body: &'a [u8],
}

/// Why a call was not done, or why that isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The deadline passed before an answer came.
    Deadline,
    /// A server said so.
    Refused(Status),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str(
                "no answer before the deadline: check that a majority of the nodes runs and can be \
                 reached, or allow more time",
            ),
            Self::Refused(status) => {
                let cure = match status {
                    Status::NoSuchGroup => "check the group's number",
                    Status::Invalid => "correct the command, or keep it under the limits",
                    Status::SessionExpired | Status::AlreadyAnswered => {
                        "read the state before writing again"
                    }
                    Status::Compacted => "ask for a newer revision",
                    Status::FutureRevision => "ask for an older revision, or wait",
                    Status::Damaged => "repair the node's log",
                    Status::MemoryFull => {
                        "delete keys, or compact their history: `ringraft status` shows which node is full"
                    }
                    Status::NoSpace => "free space on the node's disk",
                    Status::Unsupported => "upgrade the servers",
                    Status::TooStale => {
                        "ask another node, or for an older state; this one hasn't heard of a leader"
                    }
                    Status::NotYet => "ask another node, or allow more time",
                    Status::Refused => "read who the members are before changing them again",
                    Status::Transferring => "another node is about to lead: try again",
                    _ => "try again",
                };
                write!(f, "the server answered {status:?}: {cure}")
            }
        }
    }
}

/// Why a call was not even taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many calls are under way as the options allow: poll for completions first.
    #[error("{limit} calls are under way already: poll for completions before submitting more")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The command is over the limit.
    #[error("a command of {length} bytes is over the limit of {limit}: split it")]
    TooLong {
        /// What it has.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// No group can have such members.
    #[error("no group can have these members: {error}")]
    Members {
        /// Why.
        error: ConfigurationError,
    },
    /// Group zero is nobody's.
    #[error("group 0 doesn't exist: groups count from 1")]
    NoGroup,
    /// A local read is a node's own, and none was named.
    #[error("a local read needs the address of the node that answers it")]
    NoNode,
}
