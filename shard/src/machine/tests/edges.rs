//! The edges: windows of none and one, pruning, prefixes of 0xff, replies without room, and
//! commands of a newer version.

use ringraft_types::command::{CommandError, DeleteCommand, Operation, TxnBuilder};
use ringraft_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use ringraft_types::reply::{PutReply, REPLY_BYTES_MAX};

use super::super::{ApplyError, CommandKind};
use super::*;

fn delete(keys: Keys<'_>, previous: bool) -> Command<'_> {
    Command::Delete(DeleteCommand { keys, previous })
}

/// A delete of nothing and an empty transaction make no revision; a put of the same value does.
#[test]
fn only_changes_make_revisions() {
    let mut runner = Runner::new();
    assert_eq!(runner.apply(delete(Keys::Prefix(b""), true)).revision, Revision(0));
    assert_eq!(runner.put(b"k", b"v").revision, Revision(1));
    assert_eq!(runner.put(b"k", b"v").revision, Revision(2));
    assert_eq!(runner.apply(Command::Nothing).revision, Revision(2));
    assert_eq!(runner.apply(delete(Keys::One(b"x"), false)).revision, Revision(2));
    let mut bytes = Vec::new();
    TxnBuilder::default().encode(&mut bytes).expect("within limits");
    assert_eq!(runner.apply_bytes(&bytes).revision, Revision(2));
}

/// A window of zero keeps the current revision only, a window of one the one before it too; a
/// window that grows doesn't bring back what was left.
#[test]
fn small_windows() {
    let mut runner = Runner::new();
    runner.apply(Command::SetHistory { revisions: 0 });
    for value in [b"1", b"2", b"3"] {
        runner.put(b"k", value);
    }
    let pair = |value: &[u8]| Ok(vec![(b"k".to_vec(), value.to_vec())]);
    assert_eq!(runner.read(Keys::One(b"k"), 3), pair(b"3"));
    assert_eq!(runner.read(Keys::One(b"k"), 2), Err(Status::Compacted));
    assert_eq!(runner.machine.sizes(), (1, 0));
    runner.apply(Command::SetHistory { revisions: 1 });
    assert_eq!(runner.read(Keys::One(b"k"), 2), Err(Status::Compacted));
    runner.put(b"k", b"4");
    runner.put(b"k", b"5");
    assert_eq!(runner.read(Keys::One(b"k"), 4), pair(b"4"));
    assert_eq!(runner.read(Keys::One(b"k"), 3), Err(Status::Compacted));
    assert_eq!(runner.machine.sizes(), (1, 1));
}

/// Goal: a compaction forgets what keys were before its revision, that one stays; what it names must
/// exist and be kept. What it leaves behind is freed a piece at a time without another command.
#[test]
fn compaction() {
    let mut runner = Runner::new();
    let value = [7; 512];
    for _ in 0..5_000 {
        runner.put(b"k", &value);
    }
    let compact = |revision| Command::Compact { revision: Revision(revision) };
    assert_eq!(runner.apply(compact(5_001)).status, Status::FutureRevision);
    assert_eq!(runner.machine.sizes(), (1, 5_000));
    let (hash, bytes) = (runner.machine.state_hash(), runner.machine.memory_bytes());
    let done = runner.apply(compact(4_990));
    assert_eq!((done.status, done.revision), (Status::Ok, Revision(5_000)));
    assert_ne!(runner.machine.state_hash(), hash);
    assert!(runner.read(Keys::One(b"k"), 4_990).is_ok());
    assert_eq!(runner.read(Keys::One(b"k"), 4_989), Err(Status::Compacted));
    assert_eq!(runner.apply(compact(4_989)).status, Status::Compacted);
    assert_eq!(runner.apply(compact(4_990)).status, Status::Ok, "once more is the same");
    let mut pieces = 1;
    while runner.machine.tidy() {
        pieces += 1;
    }
    assert!(pieces > 3, "{pieces}: no turn is held up by all of it");
    assert_eq!(runner.machine.sizes(), (1, 10));
    assert!(runner.machine.memory_bytes() + 2_000_000 < bytes);
}

/// A removed key is gone with its slot once its removal leaves the window, and begins again at
/// version one.
#[test]
fn removed_keys_leave() {
    let mut runner = Runner::new();
    runner.apply(Command::SetHistory { revisions: 2 });
    runner.put(b"k", b"1");
    runner.apply(delete(Keys::One(b"k"), false));
    assert_eq!(runner.read(Keys::One(b"k"), 1).map(|keys| keys.len()), Ok(1));
    assert_eq!(runner.read(Keys::One(b"k"), 2), Ok(vec![]));
    assert_eq!(runner.machine.sizes().0, 1);
    runner.put(b"a", b"");
    runner.put(b"a", b"");
    assert_eq!(runner.machine.sizes().0, 1, "only `a` is left");
    runner.put(b"k", b"2");
    let (_, reply) = runner.query(RangeCommand::current(Keys::One(b"k")));
    let keys: Vec<_> = reply.keys.collect();
    assert_eq!((keys[0].version, keys[0].create_revision), (1, Revision(5)));
}

/// A large delete is pruned a bounded piece at a time, and is all gone in the end.
#[test]
fn pruning_is_incremental() {
    let mut runner = Runner::new();
    runner.apply(Command::SetHistory { revisions: 1 });
    for key in 0..5_000u32 {
        runner.put(&key.to_be_bytes(), &[7; 100]);
    }
    let full = runner.machine.memory_bytes();
    runner.apply(delete(Keys::Prefix(b""), false));
    runner.put(b"k", b"");
    let (slots, records) = runner.machine.sizes();
    assert!(slots > 4_000 && records > 4_000, "one command pruned {slots} {records}");
    for _ in 0..200 {
        runner.apply(Command::Nothing);
    }
    assert_eq!(runner.machine.sizes(), (1, 1));
    assert!(runner.machine.memory_bytes() < full);
    assert_eq!(runner.machine.keys(), 1);
}

/// Keys that lie in their slot and keys that don't behave alike, at the border between them.
#[test]
fn keys_of_every_length() {
    let mut runner = Runner::new();
    runner.apply(Command::SetHistory { revisions: 0 });
    let bytes = [b'k'; KEY_BYTES_MAX];
    let lengths = [1, 77, 78, 79, 80, 255, 256, 257, KEY_BYTES_MAX];
    for length in lengths {
        runner.put(&bytes[..length], &length.to_le_bytes());
    }
    for (left, length) in lengths.iter().enumerate() {
        let key = &bytes[..*length];
        let (_, reply) = runner.query(RangeCommand::current(Keys::One(key)));
        let keys: Vec<_> = reply.keys.collect();
        assert_eq!((keys[0].key, keys[0].value), (key, &length.to_le_bytes()[..]));
        runner.apply(delete(Keys::One(key), false));
        let (_, reply) = runner.query(RangeCommand::current(Keys::Prefix(b"")));
        assert_eq!(reply.count as usize, lengths.len() - left - 1);
    }
    assert_eq!(runner.machine.sizes(), (0, 0));
}

/// Prefixes that end in 0xff have no successor, and still hold what begins with them.
#[test]
fn prefixes_of_0xff() {
    let mut runner = Runner::new();
    for key in [&b"\xff"[..], b"\xff\xff", b"\xff\xff\0", b"\xfe\xff", b"a"] {
        runner.put(key, b"");
    }
    for (keys, count) in [
        (Keys::Prefix(b"\xff"), 3),
        (Keys::Prefix(b"\xff\xff"), 2),
        (Keys::Prefix(b"\xff\xff\xff"), 0),
        (Keys::Between { start: b"\xfe", end: b"" }, 4),
        (Keys::Between { start: b"\xff", end: b"a" }, 0),
        (Keys::Between { start: b"", end: b"b" }, 1),
        (Keys::Prefix(b""), 5),
    ] {
        let (_, reply) = runner.query(RangeCommand::current(keys));
        assert_eq!((reply.count, reply.keys.len()), (count, count as usize), "{keys:?}");
    }
}

/// A reply never outgrows its limit; what is left out is said, and asking on finds it.
#[test]
fn replies_are_bounded() {
    let mut runner = Runner::new();
    let value = vec![1; VALUE_BYTES_MAX];
    let keys = [[b'a'; KEY_BYTES_MAX], [b'b'; KEY_BYTES_MAX]];
    for key in &keys {
        runner.put(key, &value);
    }
    let (_, reply) = runner.query(RangeCommand::current(Keys::Prefix(b"")));
    assert_eq!((reply.count, reply.more, reply.keys.len()), (2, true, 1));
    let range = RangeCommand { bytes_max: 1, ..RangeCommand::current(Keys::Prefix(b"")) };
    let (_, reply) = runner.query(range);
    assert_eq!((reply.count, reply.more, reply.keys.len()), (2, true, 1));
    let range = RangeCommand { bytes_max: 1, ..RangeCommand::current(Keys::One(&keys[0])) };
    assert_eq!(runner.query(range).1.keys.len(), 1);

    let put = |key| Operation::Put(PutCommand { key, value: b"", previous: true });
    let read = Operation::Range(RangeCommand::current(Keys::Prefix(b"")));
    let mut bytes = Vec::new();
    let then = [put(&keys[0]), put(&keys[1]), read];
    TxnBuilder { then: &then, ..TxnBuilder::default() }.encode(&mut bytes).expect("fits");
    runner.apply_bytes(&bytes);
    assert!(runner.reply.len() <= REPLY_BYTES_MAX);
    let Ok(Reply::Txn(reply)) = Reply::decode(&runner.reply) else { panic!("not a transaction") };
    let replies: Vec<_> = reply.operations().collect();
    assert!(matches!(replies[0], Reply::Put(PutReply::Previous(_))));
    assert_eq!(replies[1], Reply::Put(PutReply::LeftOut));
    let Reply::Range(range) = replies[2] else { panic!("not a range") };
    assert_eq!((range.count, range.keys.len()), (2, 2));

    for key in &keys {
        runner.put(key, &value);
    }
    runner.apply(delete(Keys::Prefix(b""), true));
    let Ok(Reply::Delete(reply)) = Reply::decode(&runner.reply) else { panic!("not a delete") };
    assert_eq!((reply.deleted, reply.more, reply.previous.len()), (2, true, 1));
}

/// A committed command that this version doesn't know stops the group and changes nothing; at the
/// entrance it is refused.
#[test]
fn unknown_commands_stop_the_group() {
    let mut runner = Runner::new();
    runner.put(b"k", b"v");
    let hash = runner.machine.state_hash();
    let mut reply = Vec::new();
    let unknown = [9, 0, 0, 0, 0, 0, 0, 0];
    let error = CommandError::UnknownOperation { op: 9, at: 0 };
    assert_eq!(
        runner.machine.apply(Index(2), &unknown, &mut reply),
        Err(ApplyError::UnknownCommand { index: Index(2), error })
    );
    assert!(matches!(
        runner.machine.apply(Index(2), b"\x06", &mut reply),
        Err(ApplyError::Malformed { .. })
    ));
    assert_eq!((runner.machine.revision(), runner.machine.state_hash()), (Revision(1), hash));
    assert_eq!(runner.machine.check(&unknown), Err(Status::Unsupported));
    assert_eq!(runner.machine.check(b""), Err(Status::Invalid));
    assert_eq!(runner.machine.query(&unknown, &mut reply).status, Status::Unsupported);
    let nothing = [6, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(runner.machine.check(&nothing), Ok(CommandKind::Write));
    assert_eq!(runner.machine.query(&nothing, &mut reply).status, Status::Invalid);
    assert!(reply.is_empty());
}

/// The state hash of a known log is part of the format: replicas of different versions compare it.
#[test]
fn golden_hash() {
    let mut runner = Runner::new();
    runner.put(b"key", b"value");
    runner.apply(delete(Keys::One(b"key"), false));
    runner.apply(Command::SetHistory { revisions: 7 });
    assert_eq!(runner.machine.state_hash(), 7_639_758_773_338_257_931);
}
