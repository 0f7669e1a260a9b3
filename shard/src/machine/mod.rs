//! State machines: what a group's log is applied to.
//!
//! The built-in one is [`KvMachine`], a multi-version key-value store with etcd's data model.
//! Embedders register their own under a name. A machine is a pure function of its log: it has no
//! clock, no randomness, no thread, and nothing here opens a file.
#![forbid(unsafe_code)]

mod hash;
mod history;
pub(crate) mod index;
pub(crate) mod items;
mod key;
mod kv;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod txn;

pub use kv::KvMachine;

use ringraft_types::command::CommandError;
use ringraft_types::{Index, Revision, STRANDS, Status, StrandBytes};

/// What a command came to; the reply's body travels beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How it went. Anything but [`Status::Ok`] changed nothing.
    pub status: Status,
    /// The machine's revision right after the command.
    pub revision: Revision,
}

/// How a command that may be proposed wants to be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// It changes the machine: it needs a place in the log.
    Write,
    /// It changes nothing: [`StateMachine::query`] answers it.
    Read,
}

/// Why a committed command can't be applied. The group must stop applying there: a replica that
/// skipped a command others apply would differ from them for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A newer version wrote it.
    #[error("entry {index} holds a command this version doesn't know ({error}); the group stops")]
    UnknownCommand {
        /// The entry.
        index: Index,
        /// What is unknown.
        error: CommandError,
    },
    /// No version should have let it into the log.
    #[error("entry {index} holds a command that is no command ({error}); the group stops")]
    Malformed {
        /// The entry.
        index: Index,
        /// What is wrong.
        error: CommandError,
    },
}

/// Why a piece of a snapshot can't be loaded. Nothing of the machine is of use then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot can't be loaded, at byte {at} of the piece: {what}")]
pub struct LoadError {
    /// Where in the piece; zero if it isn't at one place.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// The next bytes of each strand of a snapshot.
pub type StrandPieces = [Vec<u8>; STRANDS];

/// A replicated state machine. Owned by one core; equal logs make equal machines.
pub trait StateMachine {
    /// Judges a command where it enters, before it is proposed or queried. What passes here must
    /// apply on every replica of this version.
    ///
    /// # Errors
    /// The status to refuse it with: [`Status::Invalid`] or [`Status::Unsupported`].
    fn check(&self, command: &[u8]) -> Result<CommandKind, Status>;

    /// Applies the committed command at `index`; its reply's body is appended to `reply`.
    ///
    /// # Errors
    /// If this version can't apply it: nothing changed, and nothing later may be applied.
    fn apply(
        &mut self,
        index: Index,
        command: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Applied, ApplyError>;

    /// Answers a read-only command from the machine as it is; the body is appended to `reply`.
    fn query(&self, command: &[u8], reply: &mut Vec<u8>) -> Applied;

    /// The machine's own counter of changes.
    fn revision(&self) -> Revision;

    /// A hash over everything that was applied: equal on two replicas that applied the same log.
    fn state_hash(&self) -> u64;

    /// Memory the machine takes, bytes, to within a tenth or so. Not replicated.
    fn memory_bytes(&self) -> usize;

    /// What the data in the machine takes, bytes, without memory that is kept for more of it: what
    /// the node's limit bounds. Asked after every turn that applied something: it answers at once.
    /// Not replicated.
    fn data_bytes(&self) -> u64 {
        self.memory_bytes() as u64
    }

    /// Whether a write, which passed [`StateMachine::check`], could make the data larger: it is
    /// refused while the node's memory is full. Asked only then.
    fn grows(&self, _command: &[u8]) -> bool {
        true
    }

    /// Frees a bounded piece of what no reader can see any more, in well under a millisecond, and
    /// returns whether there is more: then it is called again in the next turn. Called between
    /// commands, after every turn that applied something; what it frees must show nowhere but in
    /// [`StateMachine::data_bytes`].
    fn tidy(&mut self) -> bool {
        false
    }

    /// Begins a snapshot of the machine as it is now, whatever is applied from here on. One that
    /// was under way is given up. It should take little time, however large the machine is.
    fn begin_snapshot(&mut self);

    /// What a snapshot that is begun now would hold of each strand, bytes: the same on every replica
    /// that applied the same log. All zeros: it isn't kept in strands.
    fn strands(&self) -> StrandBytes {
        [0; STRANDS]
    }

    /// Keeps the snapshot that was just begun in strands: its pieces come by
    /// [`StateMachine::snapshot_strands`].
    fn keep_strands(&mut self) {}

    /// Appends the next bytes of the strands of the snapshot, and the next piece of what is in none
    /// of them, together about `bytes` long; returns whether it is the last. A strand is one stream,
    /// which may be cut anywhere; all of it has the length that [`StateMachine::strands`] gave.
    ///
    /// # Panics
    /// If none is under way that is kept in strands.
    fn snapshot_strands(
        &mut self,
        _bytes: usize,
        _piece: &mut Vec<u8>,
        _strands: &mut StrandPieces,
    ) -> bool {
        unreachable!("a machine without strands keeps none")
    }

    /// Adds the next bytes of a strand to a machine to which nothing was applied. Strands come before
    /// the first piece, one after the other. Returns how many bytes were taken; what is left comes
    /// again, with more behind it.
    ///
    /// # Errors
    /// If they are none, or of a version that this one doesn't know. The machine is of no use then.
    fn load_strand(&mut self, _bytes: &[u8]) -> Result<usize, LoadError> {
        Err(LoadError { at: 0, what: "this machine has no strands" })
    }

    /// Appends the next piece of the snapshot, about `bytes` long; returns whether it is the last.
    /// A piece may be empty. What is in it is the machine's own affair; it is kept and sent whole.
    ///
    /// # Panics
    /// If none is under way.
    fn snapshot(&mut self, bytes: usize, piece: &mut Vec<u8>) -> bool;

    /// Ends the snapshot that is under way, finished or not, if one is.
    fn end_snapshot(&mut self);

    /// Adds the next piece of a snapshot to a machine to which nothing was applied.
    ///
    /// # Errors
    /// If it is none, or of a version that this one doesn't know. The machine is of no use then.
    fn load(&mut self, piece: &[u8]) -> Result<(), LoadError>;

    /// The last piece is loaded: from here on the machine is the one whose snapshot it was, but for
    /// what [`StateMachine::fetch`] still fetches.
    ///
    /// # Errors
    /// If something is missing. The machine is of no use then.
    fn end_load(&mut self) -> Result<(), LoadError>;

    /// For a machine that keeps what is large elsewhere, and in its snapshots only where: called
    /// after [`StateMachine::end_load`], again and again, 10 ms apart or less, until it has fetched
    /// everything. It runs on the shard's thread, as everything here, and answers at once: the work
    /// is for a thread of the machine's own. Nothing is applied to it or asked of it before it is
    /// [`Fetched::Whole`]. Until then the shard takes in no other snapshot, and at a start it serves
    /// nothing: how long to try is for the machine to bound. It may be dropped meanwhile, if it
    /// isn't needed any more.
    ///
    /// # Errors
    /// If it can't be fetched. The machine is of no use then: at a start an older snapshot is tried,
    /// on a running node the snapshot of another one.
    fn fetch(&mut self) -> Result<Fetched, LoadError> {
        Ok(Fetched::Whole)
    }
}

/// How far a machine is with what its snapshot doesn't hold itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// All of it is here.
    Whole,
    /// It is on its way.
    Working,
}
