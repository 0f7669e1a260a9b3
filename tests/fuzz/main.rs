//! The fuzz targets without a fuzzer: every kept input, and many changes of each, drawn from a
//! seed. `fuzz/` runs the same functions under libFuzzer for as long as one likes.
//!
//! ```text
//! RINGRAFT_FUZZ_ROUNDS=1000000 cargo test --release -p ringraft --test fuzz
//! ```

mod targets;

use fastrand::Rng;
use ringraft_net::client_wire::{BatchWriter, write_locate};
use ringraft_net::members_wire::{ChangeAsk, Member, MemberChange, Members, MembersReply, Peer};
use ringraft_net::{Hello, Identity, Kind, Outbox};
use ringraft_types::command::{Envelope, Keys, PutCommand, RangeCommand};
use ringraft_types::record::{self, RecordKind};
use ringraft_types::{
    ClientId, ClusterId, Configuration, GroupId, Incarnation, Index, NodeId, ShardId, Status, Term,
};
use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

/// Changed inputs for each target.
const ROUNDS: u64 = 3_000;
/// Inputs longer than this are not grown further.
const BYTES_MAX: usize = 64 << 10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected"))
    })
}

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// Inputs that are in order, to begin with.
fn sound(target: &str) -> Vec<Vec<u8>> {
    let mut put = Vec::new();
    PutCommand { key: b"key", value: b"value", previous: true }.encode(&mut put).expect("short");
    let mut range = Vec::new();
    RangeCommand::current(Keys::Prefix(b"k")).encode(&mut range).expect("short");
    let mut write = Vec::new();
    Envelope { client: ClientId(7), sequence: 1, received: 0, opened: Index::ZERO }
        .encode(&mut write);
    write.extend_from_slice(&put);
    let mut records = Vec::new();
    for index in 1..4 {
        let (kind, index) = (RecordKind::Command, Index(index));
        record::encode(&mut records, kind, GroupId(1), index, Term(1), [&put, b""]);
    }
    let mut outbox = Outbox::new(1 << 20);
    for (kind, payload) in [(Kind::Writes, &write), (Kind::Reads, &range)] {
        let mut batch = BatchWriter::begin(&mut outbox, kind, GroupId(1), Identity::default());
        batch.request(1, [payload, b""]);
        batch.request(2, [payload, b""]);
        batch.finish();
    }
    write_locate(&mut outbox, GroupId(1), Identity::default());
    let stream = outbox.take_for_send().expect("it was just filled").to_vec();
    match target {
        "frames" => [0, 63, 255].map(|piece| [&[piece][..], &stream].concat()).to_vec(),
        "messages" => {
            let kinds = (1..=u8::MAX).filter(|&kind| Kind::from_u8(kind).is_some());
            let all = kinds.flat_map(|kind| [vec![kind], [&[kind][..], &stream[64..]].concat()]);
            all.chain(members()).collect()
        }
        "handshakes" => {
            vec![
                Hello::from_client(ClientId(7), Some(ClusterId(9)), None, Some(ShardId(0)))
                    .encode()
                    .to_vec(),
            ]
        }
        "commands" => vec![put, range, write],
        "records" => vec![records],
        "recovery" => vec![vec![], vec![0; 5], vec![255; 20]],
        "configuration" => vec![b"[cluster]\nid = \"00\"\n[wal]\nsync = \"dsync\"\n".to_vec()],
        "blocks" => {
            let segment = targets::sound_segment();
            vec![segment[4096..8192].to_vec(), segment[8192..12288].to_vec()]
        }
        "segments" => vec![targets::sound_segment()[..20 << 10].to_vec()],
        other => unreachable!("{other} has no inputs"),
    }
}

/// A change of members and the answer to it, each behind its kind.
fn members() -> [Vec<u8>; 2] {
    let member = |node| Member {
        node,
        incarnation: Incarnation(17),
        peer: format!("p{node}:1"),
        client: format!("c{node}:2"),
    };
    let voters = (1..4).map(NodeId).collect();
    let configuration = Configuration::first(voters, vec![NodeId(4)]).expect("sound");
    let members = configuration.members().map(member).collect();
    let target = Members { configuration, members };
    let payload = target.encode().expect("short addresses");
    let (is_held, allow_majority, allow_unready) = (true, false, false);
    let change = MemberChange::To { target, is_held, allow_majority, allow_unready };
    let mut ask = vec![Kind::Change as u8];
    ChangeAsk { call: 1, expected: Index(1), change }.encode(&mut ask).expect("short addresses");
    let reply = MembersReply {
        is_leader: true,
        peers: vec![Peer::default(); 2],
        members: &payload,
        ..MembersReply::refusal(1, Status::Ok, NodeId(1))
    };
    let mut outbox = Outbox::new(1 << 20);
    reply.write(&mut outbox, GroupId(1), Identity::default());
    let sent = outbox.take_for_send().expect("it was just filled");
    [ask, [&[Kind::MembersReply as u8][..], &sent[64..]].concat()]
}

fn change(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..=input.len());
        match rng.u32(..7) {
            0 if at < input.len() => input[at] ^= 1 << rng.u32(..8),
            1 if at < input.len() => input[at] = [0, 1, 127, 128, 255][rng.usize(..5)],
            2 => input.truncate(at),
            3 if input.len() < BYTES_MAX => {
                let count = rng.usize(1..9);
                let bytes: Vec<u8> = (0..count).map(|_| rng.u8(..)).collect();
                input.splice(at..at, bytes);
            }
            4 if at + 4 <= input.len() => {
                let number = [0, 1, 0x7fff_ffff, u32::MAX, input.len() as u32][rng.usize(..5)];
                input[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            5 if !other.is_empty() && input.len() < BYTES_MAX => {
                let from = rng.usize(..other.len());
                let to = rng.usize(from..=other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ if at < input.len() => {
                let end = (at + rng.usize(1..9)).min(input.len());
                input.drain(at..end);
            }
            _ => {}
        }
    }
}

/// Goal: no input makes a border panic, hang or reserve what it only promises: every kept input,
/// and changes of each.
#[test]
fn no_bytes_break_a_border() {
    let rounds = number("RINGRAFT_FUZZ_ROUNDS", ROUNDS);
    let seed = number("RINGRAFT_FUZZ_SEED", 1);
    for target in TARGETS {
        let mut inputs = sound(target.name);
        let mut kept: Vec<PathBuf> = std::fs::read_dir(folder(target))
            .unwrap_or_else(|error| panic!("{}: {error}", folder(target).display()))
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        kept.sort();
        if target.name == "configuration" {
            // Not kept: it changes with every setting.
            inputs.push(include_bytes!("../../src/config/defaults.toml").to_vec());
        }
        inputs.extend(kept.iter().map(|path| std::fs::read(path).expect("a readable file")));
        for input in &inputs {
            (target.run)(input);
        }
        let mut rng = Rng::with_seed(seed);
        for round in 0..rounds {
            let mut input = inputs[rng.usize(..inputs.len())].clone();
            let other = &inputs[rng.usize(..inputs.len())];
            change(&mut input, other, &mut rng);
            let caught = std::panic::catch_unwind(|| (target.run)(&input));
            if let Err(panic) = caught {
                let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
                    .join(format!("{}-{seed}-{round}", target.name));
                std::fs::write(&file, &input).expect("a disk with room");
                eprintln!(
                    "{}: seed {seed}, round {round}; keep {} in {}",
                    target.name,
                    file.display(),
                    folder(target).display()
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Goal: the fuzzer begins with inputs that are in order: they are kept beside those that once
/// broke something.
#[test]
fn the_corpora_hold_what_is_sound() {
    let rewrite = std::env::var_os("RINGRAFT_REWRITE").is_some();
    for target in TARGETS {
        let folder = folder(target);
        for (number, input) in sound(target.name).iter().enumerate() {
            let file = folder.join(format!("sound-{number}"));
            if rewrite {
                std::fs::create_dir_all(&folder).expect("a folder");
                std::fs::write(&file, input).expect("a disk with room");
            }
            let kept = std::fs::read(&file).unwrap_or_default();
            assert!(kept == *input, "{} is old: RINGRAFT_REWRITE=1 writes it", file.display());
        }
    }
}
