//! The built-in machine: a multi-version key-value store with etcd's data model.
//!
//! A command that changes something makes one revision, counted from 1, however many keys it
//! touches; one that changes nothing makes none. A key has the revision that made it, the one that
//! set it last, and a version that counts its sets from 1 and begins again after a removal. The
//! last revisions stay readable: as many as the group's log says, and none before the one to which
//! it was compacted.

use ringraft_types::command::{Command, CommandError, Operation};
use ringraft_types::reply::REPLY_BYTES_MAX;
use ringraft_types::{Index, Revision, Status, StrandBytes};

use super::store::Store;
use super::{Applied, ApplyError, CommandKind, LoadError, StateMachine, StrandPieces, read, txn};

/// The key-value machine. Commands and replies are laid out in `ringraft_types`.
#[derive(Debug)]
pub struct KvMachine {
    store: Store,
    /// The newest entry applied.
    applied: Index,
}

impl KvMachine {
    /// An empty machine, at revision zero.
    pub fn new() -> Self {
        Self { store: Store::new(), applied: Index::ZERO }
    }

    /// The oldest revision that can still be read; below it a range is answered
    /// [`Status::Compacted`].
    pub const fn oldest_revision(&self) -> Revision {
        Revision(self.store.oldest())
    }

    /// Keys that exist now.
    pub const fn keys(&self) -> u64 {
        self.store.live()
    }

    /// Slots in use and records kept.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.store.sizes()
    }

    fn done(&self, status: Status) -> Applied {
        Applied { status, revision: Revision(self.store.revision()) }
    }
}

impl Default for KvMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for KvMachine {
    fn check(&self, command: &[u8]) -> Result<CommandKind, Status> {
        match Command::decode(command) {
            Ok(command) if command.is_read_only() => Ok(CommandKind::Read),
            Ok(_) => Ok(CommandKind::Write),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn apply(
        &mut self,
        index: Index,
        command: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<Applied, ApplyError> {
        assert!(index > self.applied, "entry {index} was applied already");
        let end = reply.len() + REPLY_BYTES_MAX;
        let command = Command::decode(command).map_err(|error| {
            if error.is_unknown() {
                ApplyError::UnknownCommand { index, error }
            } else {
                ApplyError::Malformed { index, error }
            }
        })?;
        let result = match command {
            Command::Put(put) => {
                txn::put(&mut self.store, &put, reply, end);
                Ok(())
            }
            Command::Delete(delete) => {
                txn::delete(&mut self.store, &delete, reply, end);
                Ok(())
            }
            Command::Txn(txn) => txn::txn(&mut self.store, &txn, reply),
            Command::Range(range) => read::check_revision(&self.store, &range)
                .map(|()| read::range(&self.store, &range, reply, end)),
            Command::SetHistory { revisions } => {
                self.store.set_window(revisions);
                Ok(())
            }
            Command::Nothing => Ok(()),
            Command::Compact { revision } => self.store.compact(revision.0),
        };
        self.store.commit();
        self.applied = index;
        Ok(self.done(result.err().unwrap_or(Status::Ok)))
    }

    fn query(&self, command: &[u8], reply: &mut Vec<u8>) -> Applied {
        let end = reply.len() + REPLY_BYTES_MAX;
        let range = match Command::decode(command) {
            Ok(Command::Range(range)) => range,
            Ok(_) => return self.done(Status::Invalid),
            Err(error) => return self.done(refusal(&error)),
        };
        if let Err(status) = read::check_revision(&self.store, &range) {
            return self.done(status);
        }
        read::range(&self.store, &range, reply, end);
        self.done(Status::Ok)
    }

    fn revision(&self) -> Revision {
        Revision(self.store.revision())
    }

    fn state_hash(&self) -> u64 {
        self.store.hash()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }

    fn data_bytes(&self) -> u64 {
        self.store.data_bytes() as u64
    }

    fn grows(&self, command: &[u8]) -> bool {
        match Command::decode(command) {
            Ok(Command::Txn(txn)) => {
                let is_put = |one| matches!(one, Operation::Put(_));
                txn.then().any(is_put) || txn.otherwise().any(is_put)
            }
            Ok(Command::Put(_)) | Err(_) => true,
            Ok(_) => false,
        }
    }

    fn tidy(&mut self) -> bool {
        self.store.tidy()
    }

    fn begin_snapshot(&mut self) {
        self.store.begin_snapshot(self.applied);
    }

    fn strands(&self) -> StrandBytes {
        self.store.strands()
    }

    fn keep_strands(&mut self) {
        self.store.keep_strands();
    }

    fn snapshot(&mut self, bytes: usize, piece: &mut Vec<u8>) -> bool {
        self.store.snapshot_piece(bytes, piece, None)
    }

    fn snapshot_strands(
        &mut self,
        bytes: usize,
        piece: &mut Vec<u8>,
        strands: &mut StrandPieces,
    ) -> bool {
        self.store.snapshot_piece(bytes, piece, Some(strands))
    }

    fn load_strand(&mut self, bytes: &[u8]) -> Result<usize, LoadError> {
        assert!(self.applied == Index::ZERO, "only a new machine is loaded");
        self.store.load_strand(bytes)
    }

    fn end_snapshot(&mut self) {
        self.store.end_snapshot();
    }

    fn load(&mut self, piece: &[u8]) -> Result<(), LoadError> {
        assert!(self.applied == Index::ZERO, "only a new machine is loaded");
        self.store.load(piece)
    }

    fn end_load(&mut self) -> Result<(), LoadError> {
        self.applied = self.store.end_load()?;
        Ok(())
    }
}

/// The status that refuses a command that doesn't decode.
const fn refusal(error: &CommandError) -> Status {
    if error.is_unknown() { Status::Unsupported } else { Status::Invalid }
}
