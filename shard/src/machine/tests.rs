//! The machine against a naive model that keeps a full copy of every revision, and the edges.

mod edges;
mod model;
mod snapshot;

use ringraft_types::command::{Command, Keys, PutCommand, RangeCommand};
use ringraft_types::reply::{RangeReply, Reply};
use ringraft_types::{Index, Revision, Status};

use super::{Applied, KvMachine, StateMachine};

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// A machine with a log position.
struct Runner {
    machine: KvMachine,
    index: Index,
    reply: Vec<u8>,
}

impl Runner {
    fn new() -> Self {
        Self { machine: KvMachine::new(), index: Index::ZERO, reply: Vec::new() }
    }

    fn apply_bytes(&mut self, command: &[u8]) -> Applied {
        self.index = self.index.next();
        self.reply.clear();
        self.machine.apply(self.index, command, &mut self.reply).expect("a known command")
    }

    fn apply(&mut self, command: Command<'_>) -> Applied {
        let mut bytes = Vec::new();
        command.encode(&mut bytes).expect("within limits");
        self.apply_bytes(&bytes)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Applied {
        self.apply(Command::Put(PutCommand { key, value, previous: false }))
    }

    fn query(&mut self, range: RangeCommand<'_>) -> (Status, RangeReply<'_>) {
        let mut bytes = Vec::new();
        range.encode(&mut bytes).expect("within limits");
        self.reply.clear();
        let applied = self.machine.query(&bytes, &mut self.reply);
        if applied.status != Status::Ok {
            assert!(self.reply.is_empty(), "a refusal has no body");
            self.reply.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        match Reply::decode(&self.reply) {
            Ok(Reply::Range(reply)) => (applied.status, reply),
            other => panic!("a range was answered by {other:?}"),
        }
    }

    /// The keys and values of a set, as of a revision.
    fn read(&mut self, keys: Keys<'_>, revision: u64) -> Result<Vec<Pair>, Status> {
        let range = RangeCommand { revision: Revision(revision), ..RangeCommand::current(keys) };
        let (status, reply) = self.query(range);
        if status != Status::Ok {
            return Err(status);
        }
        Ok(reply.keys.map(|kv| (kv.key.to_vec(), kv.value.to_vec())).collect())
    }
}

/// A small generator with a seed: every failure replays.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
