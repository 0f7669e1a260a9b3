//! Snapshots: taken while the machine goes on, they are the machine as it was.

use super::model::{Model, check_all_revisions, random_command};
use super::*;
use crate::machine::{LoadError, StrandPieces};
use ringraft_types::StrandBytes;
use ringraft_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// A snapshot under way: its pieces so far, what it must come to, and the commands since.
struct Taking {
    pieces: Vec<Vec<u8>>,
    /// What came of each strand, and how long all of it is; `None`: there are none.
    strands: Option<(StrandPieces, StrandBytes)>,
    model: Model,
    index: Index,
    hash: u64,
    since: Vec<Vec<u8>>,
}

impl Taking {
    fn begin(runner: &mut Runner, model: &Model, is_in_strands: bool) -> Self {
        let strands = is_in_strands.then(|| (StrandPieces::default(), runner.machine.strands()));
        runner.machine.begin_snapshot();
        if is_in_strands {
            runner.machine.keep_strands();
        }
        let hash = runner.machine.state_hash();
        let (model, index) = (model.clone(), runner.index);
        Self { pieces: Vec::new(), strands, model, index, hash, since: Vec::new() }
    }

    /// Takes the next piece; whether it was the last.
    fn take(&mut self, runner: &mut Runner, bytes: usize) -> bool {
        let mut piece = Vec::new();
        let is_last = match &mut self.strands {
            None => runner.machine.snapshot(bytes, &mut piece),
            Some((strands, _)) => {
                let mut pieces = StrandPieces::default();
                let is_last = runner.machine.snapshot_strands(bytes, &mut piece, &mut pieces);
                for (strand, piece) in strands.iter_mut().zip(pieces) {
                    strand.extend(piece);
                }
                is_last
            }
        };
        self.pieces.push(piece);
        is_last
    }

    /// The machine that the pieces make, and then the commands since.
    fn check(&self, runner: &Runner, context: &str) {
        let none = StrandPieces::default();
        let strands = self.strands.as_ref().map_or(&none, |(strands, lengths)| {
            let found = strands.each_ref().map(|strand| strand.len() as u64);
            assert_eq!(found, *lengths, "{context}: strands are as long as was said");
            strands
        });
        let loaded = load_strands(strands, &self.pieces);
        let mut loaded = loaded.unwrap_or_else(|error| panic!("{context}: {error}"));
        if let Some((_, lengths)) = &self.strands {
            assert_eq!(loaded.machine.strands(), *lengths, "{context}: equal on every node");
        }
        loaded.index = self.index;
        assert_eq!(loaded.machine.state_hash(), self.hash, "{context}");
        let (keys, oldest) = self.model.extent();
        assert_eq!(loaded.machine.revision().0, self.model.revision(), "{context}");
        assert_eq!(loaded.machine.oldest_revision().0, oldest, "{context}");
        assert_eq!(loaded.machine.keys(), keys, "{context}");
        check_all_revisions(&mut loaded, &self.model);
        let mut model = self.model.clone();
        for command in &self.since {
            // Refused by both alike; what they answer is compared by `behaves_as_the_model`.
            let _ = model.apply(Command::decode(command).expect("just encoded"));
            loaded.apply_bytes(command);
        }
        assert_eq!(loaded.machine.state_hash(), runner.machine.state_hash(), "{context}");
        assert_eq!(loaded.machine.revision(), runner.machine.revision(), "{context}");
        check_all_revisions(&mut loaded, &model);
    }
}

fn load(pieces: &[Vec<u8>]) -> Result<Runner, LoadError> {
    load_strands(&StrandPieces::default(), pieces)
}

/// Strands come in portions that end anywhere.
fn load_strands(strands: &StrandPieces, pieces: &[Vec<u8>]) -> Result<Runner, LoadError> {
    let mut runner = Runner::new();
    for strand in strands {
        let mut held = Vec::new();
        for portion in strand.chunks(77) {
            held.extend_from_slice(portion);
            let taken = runner.machine.load_strand(&held)?;
            held.drain(..taken);
        }
        assert!(held.is_empty(), "strands hold whole items");
    }
    for piece in pieces {
        runner.machine.load(piece)?;
    }
    runner.machine.end_load()?;
    Ok(runner)
}

/// All pieces of a snapshot that nothing disturbs.
fn pieces_of(machine: &mut KvMachine, bytes: usize) -> Vec<Vec<u8>> {
    machine.begin_snapshot();
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::new();
        let is_last = machine.snapshot(bytes, &mut piece);
        pieces.push(piece);
        if is_last {
            machine.end_snapshot();
            return pieces;
        }
    }
}

/// Taken in pieces of any length between the commands of long random logs, a snapshot is the
/// machine as it was when the snapshot began, every kept revision included; the commands since
/// bring it to where the machine is.
#[test]
fn a_snapshot_is_the_machine_as_it_was() {
    let mut taken = 0;
    for seed in 1..=6 {
        let mut random = Random(seed);
        let mut runner = Runner::new();
        let mut model = Model::new();
        let mut taking: Option<Taking> = None;
        for step in 0..2_500 {
            let Some(bytes) = random_command(&mut random, model.revision()) else { continue };
            let _ = model.apply(Command::decode(&bytes).expect("just encoded"));
            runner.apply_bytes(&bytes);
            let Some(under_way) = &mut taking else {
                if random.below(20) == 0 {
                    taking = Some(Taking::begin(&mut runner, &model, taken % 2 == 1));
                }
                continue;
            };
            under_way.since.push(bytes);
            if random.below(3) > 0 {
                continue;
            }
            let is_last = under_way.take(&mut runner, random.below(400) as usize);
            if is_last {
                runner.machine.end_snapshot();
                under_way.check(&runner, &format!("seed {seed} step {step}"));
                taken += 1;
                taking = None;
            }
        }
    }
    assert!(taken > 60, "only {taken} snapshots were taken");
}

/// A piece is as long as it was asked to be, and at most one item longer; one piece looks at a
/// bounded number of slots.
#[test]
fn pieces_are_bounded() {
    let mut runner = Runner::new();
    let value = vec![7; 1_000];
    for number in 0..2_000u64 {
        runner.put(&number.to_be_bytes(), &value);
    }
    for bytes in [1, 10_000, 1_000_000] {
        let pieces = pieces_of(&mut runner.machine, bytes);
        let longest = pieces.iter().map(Vec::len).max().expect("there is one");
        assert!((bytes..bytes + 2_000).contains(&longest), "{longest} of {bytes}");
        assert_eq!(load(&pieces).expect("whole").machine.state_hash(), runner.machine.state_hash());
    }
    let prune = Command::SetHistory { revisions: 0 };
    runner.apply(prune);
    let all = Command::Delete(ringraft_types::command::DeleteCommand {
        keys: Keys::Prefix(b""),
        previous: false,
    });
    runner.apply(all);
    for _ in 0..5_000 {
        runner.apply(Command::Nothing);
    }
    assert_eq!(pieces_of(&mut runner.machine, 100).len(), 1, "a head, and 2,000 free slots");
    for number in 0..10_000u64 {
        runner.put(&number.to_be_bytes(), b"");
    }
    runner.apply(all);
    for _ in 0..5_000 {
        runner.apply(Command::Nothing);
    }
    assert_eq!(pieces_of(&mut runner.machine, 100).len(), 3, "10,000 free slots");
}

/// What isn't a whole snapshot is refused, wherever it was cut and whatever was changed in it, and
/// never breaks anything.
#[test]
fn what_is_no_snapshot_is_refused() {
    let mut runner = Runner::new();
    for number in 0..20u64 {
        runner.put(&[b'a' + (number % 7) as u8], &number.to_le_bytes());
    }
    runner.apply(Command::Delete(ringraft_types::command::DeleteCommand {
        keys: Keys::One(b"c"),
        previous: false,
    }));
    let pieces = pieces_of(&mut runner.machine, 200);
    assert!(pieces.len() > 3);
    for missing in 0..pieces.len() {
        let mut some = pieces.clone();
        some.remove(missing);
        assert!(load(&some).is_err(), "piece {missing} is missing");
        let mut doubled = pieces.clone();
        doubled.insert(missing, pieces[missing].clone());
        assert!(load(&doubled).is_err(), "piece {missing} comes twice");
    }
    let whole: Vec<u8> = pieces.concat();
    for end in 0..whole.len() {
        assert!(load(&[whole[..end].to_vec()]).is_err(), "cut at {end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // Much of it is values, whose checksum is the chunk's: only nothing may break.
        let _ = load(&[changed]);
    }
    let mut last = whole.clone();
    last[8..24].fill(0xff);
    assert!(load(&[last]).is_err(), "nothing comes after the last revision that there is");
    let mut longer = pieces.clone();
    longer.push(vec![9; ITEM]);
    assert_eq!(load(&longer).err().map(|error| error.at), Some(0));
}

/// The longest key with the longest value is saved in one piece and comes back, also when it is
/// overwritten while the snapshot is taken (A21).
#[test]
fn a21_the_largest_key_and_value() {
    let mut runner = Runner::new();
    let keys: Vec<Vec<u8>> = (0..3).map(|number| vec![number; KEY_BYTES_MAX]).collect();
    for key in &keys {
        runner.put(key, &vec![key[0]; VALUE_BYTES_MAX]);
    }
    let hash = runner.machine.state_hash();
    runner.machine.begin_snapshot();
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::new();
        let is_last = runner.machine.snapshot(1, &mut piece);
        assert!(piece.len() < KEY_BYTES_MAX + VALUE_BYTES_MAX + 1_000, "{} bytes", piece.len());
        pieces.push(piece);
        runner.put(&keys[2], &vec![9; VALUE_BYTES_MAX]);
        if is_last {
            break;
        }
    }
    runner.machine.end_snapshot();
    let mut loaded = load(&pieces).expect("whole");
    assert_eq!(loaded.machine.state_hash(), hash);
    for key in &keys {
        let found = loaded.read(Keys::One(key), 0).expect("the newest");
        assert!(found == [(key.clone(), vec![key[0]; VALUE_BYTES_MAX])], "key {}", key[0]);
    }
}

/// While a snapshot is taken and everything is overwritten, again and again, a machine keeps at most
/// its state once more (A21).
#[test]
fn a21_what_writers_save_is_bounded() {
    let mut runner = Runner::new();
    runner.apply(Command::SetHistory { revisions: 0 });
    let overwrite = |runner: &mut Runner, byte: u8| {
        for number in 0..500u64 {
            runner.put(&number.to_be_bytes(), &[byte; 4_000]);
        }
    };
    (0..2).for_each(|byte| overwrite(&mut runner, byte));
    let before = runner.machine.memory_bytes();
    runner.machine.begin_snapshot();
    for byte in 2..6 {
        overwrite(&mut runner, byte);
        let now = runner.machine.memory_bytes();
        assert!(now < before * 2 + before / 4, "{before} bytes before, {now} now");
    }
    runner.machine.end_snapshot();
    assert!(runner.machine.memory_bytes() < before + before / 4, "it is let go");
}

/// Strands of which one is missing, comes twice, is cut or was changed are refused, or load to
/// something, and never break anything.
#[test]
fn what_is_no_strand_is_refused() {
    let mut runner = Runner::new();
    for number in 0..40u64 {
        runner.put(&number.to_be_bytes(), &number.to_le_bytes());
    }
    runner.machine.begin_snapshot();
    runner.machine.keep_strands();
    let (mut rest, mut strands) = (Vec::new(), StrandPieces::default());
    assert!(runner.machine.snapshot_strands(1 << 20, &mut rest, &mut strands));
    let rest = [rest];
    let whole = load_strands(&strands, &rest).expect("whole");
    assert_eq!(whole.machine.state_hash(), runner.machine.state_hash());
    assert!(load(&rest).is_err(), "there are no keys");
    assert!(load_strands(&strands, &[]).is_err(), "there is no head");
    for strand in 0..strands.len() {
        assert!(!strands[strand].is_empty(), "40 keys are in all strands");
        let mut missing = strands.clone();
        missing[strand].clear();
        assert!(load_strands(&missing, &rest).is_err(), "strand {strand} is missing");
        let mut doubled = strands.clone();
        doubled[strand].extend_from_slice(&strands[strand]);
        assert!(load_strands(&doubled, &rest).is_err(), "strand {strand} comes twice");
        let mut machine = KvMachine::new();
        let cut = &strands[strand][..strands[strand].len() - 1];
        assert!(machine.load_strand(cut).is_ok_and(|taken| taken < cut.len()));
        for bit in 0..strands[strand].len() * 8 {
            let mut changed = strands[strand].clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = KvMachine::new().load_strand(&changed);
        }
    }
    let mut newer = strands.clone();
    let first = newer.iter_mut().find(|strand| !strand.is_empty()).expect("there are keys");
    first[24..32].copy_from_slice(&1_000u64.to_le_bytes());
    assert!(load_strands(&newer, &rest).is_err(), "no key is newer than the head");
}

/// Bytes of an item without key and value.
const ITEM: usize = 40;

/// A snapshot that is given up, or begun again, leaves nothing behind.
#[test]
fn a_snapshot_can_be_given_up() {
    let mut runner = Runner::new();
    for number in 0..100u64 {
        runner.put(&number.to_be_bytes(), &[1; 100]);
    }
    runner.machine.begin_snapshot();
    let mut piece = Vec::new();
    assert!(!runner.machine.snapshot(500, &mut piece));
    for number in 0..100u64 {
        runner.put(&number.to_be_bytes(), &[2; 100]);
    }
    let saving = runner.machine.memory_bytes();
    runner.machine.end_snapshot();
    assert!(runner.machine.memory_bytes() < saving, "what was saved is let go");
    let pieces = pieces_of(&mut runner.machine, 500);
    assert_eq!(load(&pieces).expect("whole").machine.state_hash(), runner.machine.state_hash());
    runner.machine.begin_snapshot();
    runner.put(b"new", b"value");
    let pieces = pieces_of(&mut runner.machine, 500);
    assert_eq!(load(&pieces).expect("whole").machine.keys(), 101);
}
