//! The layout's golden bytes, its round trips, and that no bytes make it panic.

use super::*;

/// A small generator with a seed: every failure replays.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

fn encoded(command: Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes).expect("within limits");
    bytes
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> PutCommand<'a> {
    PutCommand { key, value, previous: false }
}

fn txn(then: &[Operation<'_>]) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    TxnBuilder { then, ..TxnBuilder::default() }.encode(&mut bytes).map(|()| bytes)
}

/// The bytes of the envelope and of every command are the format's and never change.
#[test]
fn golden_bytes() {
    let envelope =
        Envelope { client: ClientId(0x0102), sequence: 4, received: 3, opened: Index(9) };
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    let mut golden = [0u8; ENVELOPE_BYTES];
    (golden[0], golden[1], golden[16], golden[24], golden[32]) = (2, 1, 4, 3, 9);
    assert_eq!(bytes, golden);

    let command = PutCommand { key: b"k", value: b"vw", previous: true };
    assert_eq!(encoded(Command::Put(command)), b"\x01\x01\x01\0\x02\0\0\0kvw");
    let command = DeleteCommand { keys: Keys::Prefix(b"k"), previous: true };
    assert_eq!(encoded(Command::Delete(command)), b"\x02\x05\x01\0\0\0\0\0k");
    let command =
        DeleteCommand { keys: Keys::Between { start: b"a", end: b"cd" }, previous: false };
    assert_eq!(encoded(Command::Delete(command)), b"\x02\x02\x01\0\x02\0\0\0acd");
    let command = RangeCommand {
        revision: Revision(7),
        limit: 8,
        bytes_max: 9,
        keys_only: true,
        count_only: true,
        ..RangeCommand::current(Keys::One(b"k"))
    };
    assert_eq!(
        encoded(Command::Range(command)),
        b"\x04\x0c\x01\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\x09\0\0\0k"
    );
    assert_eq!(
        encoded(Command::SetHistory { revisions: 258 }),
        b"\x05\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"
    );
    assert_eq!(encoded(Command::Nothing), b"\x06\0\0\0\0\0\0\0");
    assert_eq!(
        encoded(Command::Compact { revision: Revision(258) }),
        b"\x07\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"
    );
    let mut bytes = Vec::new();
    let compare = Compare {
        target: Target::ModRevision,
        relation: Relation::Greater,
        key: b"c",
        operand: Operand::Number(5),
    };
    TxnBuilder { compares: &[compare], then: &[Operation::Put(put(b"k", b"v"))], otherwise: &[] }
        .encode(&mut bytes)
        .expect("within limits");
    assert_eq!(
        bytes,
        b"\x03\0\x01\0\x01\0\0\0\x02\x02\x01\0\x08\0\0\0c\x05\0\0\0\0\0\0\0\
          \x0a\0\0\0\x01\0\x01\0\x01\0\0\0kv"
    );
}

fn random_keys<'a>(random: &mut Random, key: &'a [u8], end: &'a [u8]) -> Keys<'a> {
    match random.below(3) {
        0 if !key.is_empty() => Keys::One(key),
        1 => Keys::Between { start: key, end },
        _ => Keys::Prefix(key),
    }
}

/// Calls `check` with many commands of all kinds, made of random bytes.
fn for_random_commands(seed: u64, mut check: impl FnMut(&[u8], Command<'_>)) {
    let mut random = Random(seed);
    for _ in 0..3_000 {
        let pool: Vec<Vec<u8>> = (0..12).map(|_| random.bytes(40)).collect();
        let mut operations = Vec::new();
        let mut compares = Vec::new();
        for pair in pool.chunks(2) {
            let (key, other) = (&pair[0][..], &pair[1][..]);
            let keys = random_keys(&mut random, key, other);
            let previous = random.below(2) == 0;
            operations.push(match random.below(3) {
                0 if !key.is_empty() => Operation::Put(PutCommand { key, value: other, previous }),
                1 => Operation::Delete(DeleteCommand { keys, previous }),
                _ => Operation::Range(RangeCommand {
                    revision: Revision(random.next()),
                    limit: random.next() as u32,
                    bytes_max: random.next() as u32,
                    keys_only: previous,
                    count_only: random.below(2) == 0,
                    keys,
                }),
            });
            if !key.is_empty() {
                let (target, operand) = match random.below(4) {
                    0 => (Target::Version, Operand::Number(random.next())),
                    1 => (Target::CreateRevision, Operand::Number(random.next())),
                    2 => (Target::ModRevision, Operand::Number(random.next())),
                    _ => (Target::Value, Operand::Value(other)),
                };
                let relation = [Relation::Equal, Relation::NotEqual, Relation::Greater]
                    [random.below(3) as usize];
                compares.push(Compare { target, relation, key, operand });
            }
        }
        let mut bytes = Vec::new();
        for operation in &operations {
            let command = match *operation {
                Operation::Put(put) => Command::Put(put),
                Operation::Delete(delete) => Command::Delete(delete),
                Operation::Range(range) => Command::Range(range),
            };
            bytes.clear();
            command.encode(&mut bytes).expect("within limits");
            check(&bytes, command);
        }
        bytes.clear();
        let (then, otherwise) = operations.split_at(random.below(7) as usize);
        let builder = TxnBuilder { compares: &compares, then, otherwise };
        match builder.encode(&mut bytes) {
            Ok(()) => {
                let command = Command::decode(&bytes).expect("just encoded");
                let Command::Txn(txn) = command else { panic!("a transaction became {command:?}") };
                assert!(txn.compares().eq(compares.iter().copied()));
                assert!(txn.then().eq(then.iter().copied()));
                assert!(txn.otherwise().eq(otherwise.iter().copied()));
                check(&bytes, command);
            }
            Err(error) => {
                assert!(matches!(error, CommandError::DuplicateKey { .. }), "{error}");
                assert!(bytes.is_empty());
            }
        }
    }
}

/// What is encoded decodes to the same, and encodes to the same bytes again.
#[test]
fn round_trips() {
    for_random_commands(1, |bytes, command| {
        assert_eq!(Command::decode(bytes), Ok(command));
        assert_eq!(encoded(command), bytes);
        assert_eq!(command.is_read_only(), matches!(command, Command::Range(_)));
    });
}

/// Every truncation and every extension of a command is refused.
#[test]
fn every_truncation_is_refused() {
    let mut count = 0;
    for_random_commands(2, |bytes, _| {
        count += 1;
        if count % 16 == 0 {
            for length in 0..bytes.len() {
                assert!(Command::decode(&bytes[..length]).is_err());
            }
            assert!(Command::decode(&[bytes, b"x"].concat()).is_err());
        }
    });
    for length in 0..ENVELOPE_BYTES {
        assert!(Envelope::decode(&[1; ENVELOPE_BYTES][..length]).is_err());
    }
}

/// No bytes make a decoder panic: random ones, and commands with one byte changed. What decodes
/// can be walked to its end.
#[test]
fn no_bytes_panic() {
    let mut random = Random(3);
    let walk = |bytes: &[u8]| {
        if let Ok(Command::Txn(txn)) = Command::decode(bytes) {
            assert!(txn.compares().count() + txn.then().count() + txn.otherwise().count() < 400);
        }
    };
    for _ in 0..50_000 {
        let mut bytes = random.bytes(64);
        if let Some(first) = bytes.first_mut() {
            *first %= 8;
        }
        walk(&bytes);
        let _ = Envelope::decode(&bytes);
    }
    for_random_commands(4, |bytes, _| {
        let mut bytes = bytes.to_vec();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next() as u8;
        walk(&bytes);
    });
}

/// Every limit is refused one above and accepted on it, by builders and decoder alike.
#[test]
fn limits() {
    let key = vec![b'k'; KEY_BYTES_MAX + 1];
    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    let mut bytes = Vec::new();
    let error = put(&key, b"").encode(&mut bytes).expect_err("too long");
    assert_eq!(error, CommandError::KeyTooLong { have: KEY_BYTES_MAX + 1, limit: KEY_BYTES_MAX });
    let error = put(b"k", &value).encode(&mut bytes).expect_err("too long");
    let have = VALUE_BYTES_MAX + 1;
    assert_eq!(error, CommandError::ValueTooLong { have, limit: VALUE_BYTES_MAX });
    assert!(put(b"", b"").encode(&mut bytes).is_err());
    assert!(RangeCommand::current(Keys::One(b"")).encode(&mut bytes).is_err());
    assert!(RangeCommand::current(Keys::Prefix(&key)).encode(&mut bytes).is_err());
    assert!(bytes.is_empty(), "a refused command leaves nothing behind");
    put(&key[1..], &value[1..]).encode(&mut bytes).expect("on the limit");
    assert!(Command::decode(&bytes).is_ok());

    let key_bytes = (KEY_BYTES_MAX as u16 + 1).to_le_bytes();
    let raw = [&[1, 0, key_bytes[0], key_bytes[1], 0, 0, 0, 0], &key[..]].concat();
    assert!(matches!(Command::decode(&raw), Err(CommandError::KeyTooLong { .. })));
    assert!(matches!(
        Command::decode(b"\x01\0\x01\0\xff\xff\xff\xffk"),
        Err(CommandError::ValueTooLong { .. })
    ));
    assert!(matches!(Command::decode(b"\x01\0\0\0\0\0\0\0"), Err(CommandError::EmptyKey { .. })));
    let long = vec![6; COMMAND_BYTES_MAX + 1];
    assert!(matches!(Command::decode(&long), Err(CommandError::CommandTooLong { .. })));

    let keys: Vec<[u8; 2]> = (0..=TXN_OPERATIONS_MAX as u16).map(u16::to_be_bytes).collect();
    let puts: Vec<_> = keys.iter().map(|key| Operation::Put(put(key, b""))).collect();
    assert!(txn(&puts[1..]).is_ok());
    assert_eq!(txn(&puts), Err(CommandError::TooManyOperations { have: 129 }));
    let halves: Vec<_> = [b"a", b"b"].map(|key| Operation::Put(put(key, &value[1..]))).into();
    assert!(matches!(txn(&halves), Err(CommandError::CommandTooLong { .. })));
}

/// A branch may not write a key twice; deletes may overlap, and branches don't touch each other.
#[test]
fn a_key_is_written_once() {
    let (a, b) = (Operation::Put(put(b"a", b"1")), Operation::Put(put(b"b", b"1")));
    let delete = |keys| Operation::Delete(DeleteCommand { keys, previous: false });
    assert_eq!(txn(&[a, b, a]), Err(CommandError::DuplicateKey { operation: 2 }));
    let prefix = delete(Keys::Prefix(b""));
    assert_eq!(txn(&[prefix, a]), Err(CommandError::DuplicateKey { operation: 0 }));
    assert!(txn(&[prefix, prefix]).is_ok());
    assert!(txn(&[a, delete(Keys::Between { start: b"b", end: b"" })]).is_ok());
    let mut bytes = Vec::new();
    assert!(TxnBuilder { compares: &[], then: &[a], otherwise: &[a] }.encode(&mut bytes).is_ok());
}

/// What a newer version may know is told from what none does.
#[test]
fn unknown_is_not_malformed() {
    for (bytes, unknown) in [
        (&b"\x08\0\0\0\0\0\0\0"[..], true),
        (b"\x01\x02\x01\0\0\0\0\0k", true),
        (b"\x03\0\x01\0\0\0\0\0\x04\0\x01\0\x08\0\0\0k\0\0\0\0\0\0\0\0", true),
        (b"\x03\0\0\0\x01\0\0\0\x08\0\0\0\x09\0\0\0\0\0\0\0", true),
        (b"\x03\0\0\0\x01\0\0\0\x08\0\0\0\x06\0\0\0\0\0\0\0", false),
        (b"\x06\0\0\0\0\0\0\x01", false),
        (b"\x07\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0\0", false),
        (b"", false),
    ] {
        let error = Command::decode(bytes).expect_err("not a command");
        assert_eq!(error.is_unknown(), unknown, "{error}");
    }
}

/// A set of keys contains what it says, at its edges too.
#[test]
fn key_sets() {
    let between = Keys::Between { start: b"b", end: b"d" };
    assert!(between.contains(b"b") && between.contains(b"c\xff"));
    assert!(!between.contains(b"a\xff") && !between.contains(b"d"));
    assert!(Keys::Between { start: b"b", end: b"" }.contains(b"\xff\xff"));
    assert!(!Keys::Between { start: b"d", end: b"b" }.contains(b"c"));
    assert!(Keys::Prefix(b"\xff").contains(b"\xff\xff") && Keys::Prefix(b"").contains(b"x"));
    assert!(!Keys::One(b"a").contains(b"a\0"));
}
