//! Snapshot files: what is written comes back, whatever happens on the way leaves nothing behind
//! but a log as it was, and what isn't intact is never taken for a snapshot.

mod disk;

use disk::{Bench, record, recover, settings, try_recover};
use ringraft_types::record::RecordKind;
use ringraft_types::{
    ClusterId, GroupId, Incarnation, Index, LogId, NodeId, STRANDS, StrandBytes, Term,
};
use ringraft_wal::device::memory::{Effect, Fault, MemoryDevice, OperationKind, Unflushed};
use ringraft_wal::device::{FileId, FileKind};
use ringraft_wal::snapshot::{CHUNK_BYTES, CHUNK_HEAD_BYTES, HEAD_BYTES, content_sum};
use ringraft_wal::{LogSettings, SnapshotError, SnapshotHead, SnapshotWritten, WalError};

const GROUP: GroupId = GroupId(7);
const ROOM: usize = CHUNK_BYTES - CHUNK_HEAD_BYTES;
const NO_STRANDS: StrandBytes = [0; STRANDS];

fn last(index: u64) -> LogId {
    LogId::new(Term(2), Index(index))
}

fn bytes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|at| ((at * 31 + seed * 7) >> 3) as u8 ^ at as u8).collect()
}

fn file(number: u64) -> FileId {
    FileId::snapshot(3, number)
}

/// Turns until a snapshot came to its end.
fn written(bench: &mut Bench) -> SnapshotWritten {
    for _ in 0..10_000 {
        bench.turn();
        if let Some(written) = bench.log.take_snapshot_written() {
            return written;
        }
    }
    panic!("the snapshot doesn't come to its end");
}

/// Gives a snapshot its bytes in pieces of this length, as far as there is room.
fn give(bench: &mut Bench, number: u64, content: &[u8], piece: usize) {
    for piece in content.chunks(piece) {
        while !bench.log.snapshot_has_room(number) {
            bench.turn();
        }
        bench.log.add_to_snapshot(number, piece);
    }
    bench.log.end_snapshot(number);
}

fn write(bench: &mut Bench, index: u64, content: &[u8]) -> SnapshotWritten {
    let number = bench.log.begin_snapshot(GROUP, last(index), NO_STRANDS);
    give(bench, number, content, 10_000);
    let written = written(bench);
    assert_eq!(written.head.number, number);
    written
}

/// Everything that a snapshot holds, read back by chunks.
fn read(bench: &mut Bench, head: &SnapshotHead) -> Result<Vec<u8>, u32> {
    let mut content = Vec::new();
    for chunk in 0..head.chunks {
        bench.log.read_chunk(u64::from(chunk), head, chunk);
        let done = (0..100).find_map(|_| {
            bench.turn();
            bench.log.take_chunk()
        });
        let done = done.expect("a chunk that was asked for is answered");
        let chunk = done.result.map_err(|error| error.chunk)?;
        content.extend_from_slice(&chunk.bytes);
    }
    let Bench { log, device, .. } = bench;
    log.close_snapshot(device, head.number);
    bench.turn();
    Ok(content)
}

/// Starts anew, and says which snapshots there are.
fn start_again(bench: &mut Bench) -> Vec<SnapshotHead> {
    let (log, recovered) = recover(&mut bench.device);
    bench.log = log;
    bench.settle();
    recovered.snapshots
}

/// What was given comes back, chunk by chunk, now and after a start, whatever its length.
#[test]
fn what_was_given_comes_back() {
    let mut bench = Bench::new(settings());
    let lengths = [1, 100, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM, 3 * ROOM + 5_000];
    let mut heads = Vec::new();
    for (seed, &length) in lengths.iter().enumerate() {
        let content = bytes(length, seed);
        let done = write(&mut bench, 10 + seed as u64, &content);
        assert_eq!(done.result, Ok(()));
        assert_eq!((done.head.group, done.head.last), (GROUP, last(10 + seed as u64)));
        assert_eq!(done.head.bytes, length as u64);
        assert!(read(&mut bench, &done.head) == Ok(content));
        heads.push(done.head);
    }
    bench.device.power_cut(|_| false);
    let found = start_again(&mut bench);
    assert_eq!(found, heads, "they were durable");
    for (seed, head) in found.iter().enumerate() {
        assert!(read(&mut bench, head) == Ok(bytes(lengths[seed], seed)));
    }
    assert_eq!(bench.log.begin_snapshot(GROUP, last(99), NO_STRANDS), 8, "numbers go on");
}

/// Strands come back as they were given, each in chunks of its own, before the rest; so do chunks that
/// are put where another node has them, in any order, one in the place of another.
#[test]
fn strands_come_back() {
    let mut bench = Bench::new(settings());
    let lengths = [ROOM + 5, 0, 1, 2 * ROOM, 0, 0, 300, ROOM];
    let held: Vec<Vec<u8>> =
        lengths.iter().enumerate().map(|(seed, &length)| bytes(length, seed)).collect();
    let rest = bytes(ROOM + 70, 9);
    let all = [&held.concat()[..], &rest].concat();
    let strands: StrandBytes = lengths.map(|length| length as u64);
    let number = bench.log.begin_snapshot(GROUP, last(10), strands);
    // A piece of each in turn.
    for at in (0..2 * ROOM).step_by(40_000) {
        while !bench.log.snapshot_has_room(number) {
            bench.turn();
        }
        for (strand, held) in held.iter().enumerate() {
            let piece = &held[at.min(held.len())..(at + 40_000).min(held.len())];
            bench.log.add_to_strand(number, strand, piece);
        }
        let piece = &rest[at.min(rest.len())..(at + 40_000).min(rest.len())];
        bench.log.add_to_snapshot(number, piece);
    }
    bench.log.end_snapshot(number);
    let taken = written(&mut bench);
    assert_eq!((taken.result, taken.head.chunks), (Ok(()), 2 + 1 + 2 + 1 + 1 + 2));
    assert!(read(&mut bench, &taken.head) == Ok(all.clone()));

    let number = bench.log.begin_snapshot(GROUP, last(11), strands);
    let layout = taken.head.layout();
    let mut begins = vec![0];
    for chunk in 0..layout.chunks() {
        begins.push(begins[chunk as usize] + layout.room(chunk));
    }
    let order = (0..layout.chunks()).rev().chain([2, 7, 8]);
    for (at, chunk) in order.enumerate() {
        while !bench.log.snapshot_takes(number, chunk) {
            bench.turn();
        }
        let mut held = all[begins[chunk as usize]..begins[chunk as usize + 1]].to_vec();
        if at < layout.chunks() as usize && [2, 7, 8].contains(&chunk) {
            held.reverse();
        }
        bench.log.put_chunk(number, chunk, &held, content_sum(&held));
    }
    bench.log.end_snapshot(number);
    let put = written(&mut bench);
    assert_eq!((put.result, put.head.bytes), (Ok(()), all.len() as u64));
    assert!(read(&mut bench, &put.head) == Ok(all.clone()));
    bench.device.power_cut(|_| false);
    let found = start_again(&mut bench);
    assert_eq!(found, [taken.head, put.head], "they were durable");
    assert!(read(&mut bench, &found[1]) == Ok(all));
}

/// A snapshot is durable when it is told, and before that a cut leaves either all of it or nothing:
/// after every operation, with everything, nothing, and a part of what no sync covered.
#[test]
fn a_cut_leaves_all_or_nothing() {
    let content = bytes(ROOM + 300, 1);
    let mut outcomes = [0, 0];
    for finished in 0..40 {
        for keep in 0..4u64 {
            let mut bench = Bench::new(settings());
            write(&mut bench, 5, b"older");
            bench.device.hold(true);
            let number = bench.log.begin_snapshot(GROUP, last(9), NO_STRANDS);
            bench.log.add_to_snapshot(number, &content);
            bench.log.end_snapshot(number);
            for _ in 0..finished {
                bench.turn();
                if !bench.device.held().is_empty() {
                    bench.device.finish(0);
                }
            }
            bench.turn();
            let is_told = bench.log.take_snapshot_written().is_some_and(|it| it.result.is_ok());
            bench.device.power_cut(|unflushed| match (keep, unflushed) {
                (0, _) => false,
                (1, _) => true,
                (2, Unflushed::Sector(_, sector)) => sector % 3 != 0,
                (2, _) => true,
                (_, Unflushed::Sector(_, sector)) => sector < 8,
                (..) => true,
            });
            let found = start_again(&mut bench);
            assert!(!is_told || found.len() == 2, "step {finished}: it was durable");
            outcomes[found.len() - 1] += 1;
            assert_eq!(read(&mut bench, &found[0]), Ok(b"older".to_vec()));
            if let Some(head) = found.get(1) {
                let is_same = read(&mut bench, head) == Ok(content.clone());
                assert!(is_same, "step {finished}, {keep}");
            }
            // What wasn't finished is gone, and costs no room.
            let files = bench.device.files().into_iter();
            let files = files.filter(|(file, _)| file.kind == FileKind::Snapshot).count();
            assert_eq!(files, found.len(), "step {finished}, {keep}");
        }
    }
    assert!(outcomes.iter().all(|&count| count > 20), "both outcomes: {outcomes:?}");
}

/// Whatever fails on the way ends the snapshot, not the log, and leaves no file; the next one goes
/// well.
#[test]
fn what_fails_ends_the_snapshot_alone() {
    let content = bytes(2 * ROOM + 300, 1);
    let full = Ok::<_, ()>(SnapshotError::Full);
    let cases = [
        (OperationKind::Create, Effect::Errno(libc::EMFILE), full),
        (OperationKind::Create, Effect::Errno(libc::EACCES), Err(())),
        (OperationKind::Write, Effect::Errno(libc::ENOSPC), full),
        (OperationKind::Write, Effect::Errno(libc::EIO), Err(())),
        (OperationKind::Sync, Effect::Errno(libc::EIO), Err(())),
        (OperationKind::SyncDirectory, Effect::Errno(libc::EIO), Err(())),
    ];
    for (on, effect, expected) in cases {
        for after in 0..3 {
            let mut bench = Bench::new(settings());
            bench.device.inject(Fault { on, after, count: 1, effect });
            let number = bench.log.begin_snapshot(GROUP, last(9), NO_STRANDS);
            for piece in content.chunks(100_000) {
                bench.log.add_to_snapshot(number, piece);
            }
            bench.log.end_snapshot(number);
            let done = written(&mut bench);
            let is_met = match on {
                OperationKind::Create | OperationKind::SyncDirectory => after == 0,
                OperationKind::Sync => after < 2,
                _ => true,
            };
            if !is_met {
                assert_eq!(done.result, Ok(()), "{on:?} {after}");
                continue;
            }
            let error = done.result.expect_err("it failed");
            match expected {
                Ok(expected) => assert_eq!(error, expected, "{on:?} {after}"),
                Err(()) => assert!(matches!(error, SnapshotError::Io { .. }), "{on:?}: {error}"),
            }
            bench.settle();
            let files = bench.device.files().into_iter();
            assert_eq!(files.filter(|(it, _)| it.kind == FileKind::Snapshot).count(), 0);
            bench.device.inject(Fault { on, after: 9, count: 1, effect });
            assert_eq!(write(&mut bench, 10, &content).result, Ok(()));
            bench.append_run(7, 1, 3, 2, 100);
            bench.flush();
        }
    }
}

/// Short writes and writes that are to be repeated go on to their end.
#[test]
fn short_writes_go_on() {
    let content = bytes(ROOM + 300, 1);
    for effect in [Effect::Short(4096), Effect::Short(0), Effect::Errno(libc::EAGAIN)] {
        let mut bench = Bench::new(settings());
        bench.device.inject(Fault { on: OperationKind::Write, after: 0, count: 5, effect });
        let done = write(&mut bench, 9, &content);
        assert_eq!(done.result, Ok(()));
        assert!(read(&mut bench, &done.head) == Ok(content.clone()), "{effect:?}");
    }
    let mut bench = Bench::new(settings());
    let effect = Effect::Short(0);
    bench.device.inject(Fault { on: OperationKind::Write, after: 0, count: 100, effect });
    let error = write(&mut bench, 9, &content).result.expect_err("no progress");
    assert!(matches!(error, SnapshotError::Io { what: "writing", errno: 0 }), "{error}");
}

/// A snapshot that is given up leaves nothing; one that can't be given up any more is told as it is.
#[test]
fn a_snapshot_is_given_up() {
    for turns in 0..12 {
        let mut bench = Bench::new(settings());
        bench.device.hold(true);
        let number = bench.log.begin_snapshot(GROUP, last(9), NO_STRANDS);
        bench.log.add_to_snapshot(number, &bytes(ROOM + 100, 1));
        bench.log.end_snapshot(number);
        for _ in 0..turns {
            bench.turn();
            if !bench.device.held().is_empty() {
                bench.device.finish(0);
            }
        }
        bench.log.drop_snapshot(number);
        bench.device.hold(false);
        let result = written(&mut bench).result;
        bench.settle();
        let is_there = bench.device.files().iter().any(|(it, _)| it.kind == FileKind::Snapshot);
        assert_eq!(is_there, result.is_ok(), "after {turns} turns: {result:?}");
        assert!(result.is_ok() || result == Err(SnapshotError::GivenUp));
        assert_eq!(start_again(&mut bench).len(), usize::from(is_there));
    }
}

/// Every byte of a head and of a chunk counts: what is rotten is an error, never other bytes. A
/// head that no record names is taken for one that was never finished; one that is named isn't.
#[test]
fn rot_is_noticed() {
    let content = bytes(ROOM + 5_000, 1);
    let mut bench = Bench::new(settings());
    let done = write(&mut bench, 9, &content);
    let name = record(RecordKind::Snapshot, 7, 9, 2, &done.head.number.to_le_bytes());
    let second = HEAD_BYTES + CHUNK_BYTES;
    let places = [HEAD_BYTES, HEAD_BYTES + 63, HEAD_BYTES + 64, second - 1, second + 5_000];
    for place in places {
        bench.device.flip_bit(file(1), place as u64 * 8 + 3);
        let chunk = u32::from(place >= second);
        assert_eq!(read(&mut bench, &done.head), Err(chunk), "byte {place}");
        bench.device.flip_bit(file(1), place as u64 * 8 + 3);
    }
    for errno in [libc::EIO, 0] {
        let mut bench = Bench::new(settings());
        let done = write(&mut bench, 9, &content);
        let effect = if errno == 0 { Effect::Short(512) } else { Effect::Errno(errno) };
        bench.device.inject(Fault { on: OperationKind::Read, after: 0, count: 1, effect });
        assert!(read(&mut bench, &done.head) == Ok(content.clone()), "once is nothing");
        bench.device.inject(Fault { on: OperationKind::Read, after: 0, count: 100, effect });
        assert_eq!(read(&mut bench, &done.head), Err(0));
    }
    for named in [false, true] {
        let mut bench = Bench::new(settings());
        write(&mut bench, 9, &content);
        if named {
            bench.append(&name);
            bench.flush();
        }
        bench.device.flip_bit(file(1), 700);
        let (_, recovered) = recover(&mut bench.device);
        assert_eq!(recovered.snapshots, []);
        assert_eq!(recovered.snapshots_lost, if named { vec![1] } else { vec![] });
        let is_there = bench.device.files().iter().any(|(it, _)| *it == file(1));
        assert_eq!(is_there, named, "what was never finished is removed");
    }
}

/// A file that is cut anywhere, another snapshot's file under its name, or a chunk of another place is
/// no snapshot: its head is refused, or the chunk is; one of another cluster, node or life stops the
/// start (S30).
#[test]
fn s30_a_file_of_another_place_is_no_snapshot() {
    let mut bench = Bench::new(settings());
    let (first, second) = (bytes(ROOM + 5_000, 1), bytes(ROOM + 5_000, 2));
    let heads = [write(&mut bench, 9, &first).head, write(&mut bench, 12, &second).head];
    bench.settle();
    let whole = bench.device.content(file(1));
    let start = |device: &mut MemoryDevice| {
        device.kill();
        try_recover(settings(), device).map(|(_, recovered)| recovered.snapshots)
    };
    for length in (0..whole.len()).step_by(512) {
        let mut device = bench.device.clone();
        device.set_length(file(1), length as u64);
        assert_eq!(start(&mut device), Ok(vec![heads[1]]), "cut at {length}");
    }
    let mut device = bench.device.clone();
    device.corrupt(file(1), 0, &bench.device.content(file(2)));
    assert_eq!(start(&mut device), Ok(vec![heads[1]]), "the second under the first one's name");
    // Whole chunks in the wrong place: of the same file, of another file, of another node's.
    let chunk = |content: &[u8], at: u32| {
        let start = HEAD_BYTES + at as usize * CHUNK_BYTES;
        content[start..content.len().min(start + CHUNK_BYTES)].to_vec()
    };
    let other_node = LogSettings { node: NodeId(9), ..settings() };
    let mut other = Bench::new(other_node);
    write(&mut other, 9, &first);
    let of_others = [
        chunk(&whole, 1),
        chunk(&bench.device.content(file(2)), 0),
        chunk(&other.device.content(file(1)), 0),
    ];
    for (case, chunk) in of_others.iter().enumerate() {
        let before = bench.device.clone();
        bench.device.corrupt(file(1), HEAD_BYTES as u64, chunk);
        assert_eq!(read(&mut bench, &heads[0]), Err(0), "case {case}");
        bench.device = before;
    }
    assert!(read(&mut bench, &heads[0]) == Ok(first.clone()), "it is as it was");
    for foreign in [
        LogSettings { cluster: ClusterId(0xBAD), ..settings() },
        LogSettings { node: NodeId(9), ..settings() },
        LogSettings { incarnation: Incarnation(0xBAD), ..settings() },
    ] {
        let mut other = Bench::new(foreign);
        write(&mut other, 9, &first);
        let mut device = bench.device.clone();
        device.corrupt(file(1), 0, &other.device.content(file(1)));
        let refused = start(&mut device);
        assert!(matches!(refused, Err(WalError::Foreign { .. })), "{refused:?}");
    }
}

/// A record names a snapshot: the log begins behind it from then on, and after a start too, and the
/// segments before it go.
#[test]
fn a_log_begins_behind_its_snapshot() {
    let mut bench = Bench::new(settings());
    for part in 0..40u64 {
        bench.append_run(7, part * 10 + 1, part * 10 + 10, 2, 1_000);
        bench.flush();
        bench.settle();
    }
    let before = bench.log.segments();
    assert!(before > 5);
    let done = write(&mut bench, 395, b"state");
    bench.append(&record(RecordKind::Snapshot, 7, 395, 2, &done.head.number.to_le_bytes()));
    bench.flush();
    bench.log.release(GROUP, Index(395));
    bench.settle();
    assert!(bench.log.segments() <= 2, "{} segments of {before}", bench.log.segments());
    assert_eq!(bench.log.held(GROUP), Some((Index(396), Index(400))));
    let (log, recovered) = recover(&mut bench.device);
    let group = &recovered.groups[&GROUP];
    assert_eq!((group.first, group.last), (Index(396), Index(400)));
    assert_eq!(
        group.named.map(|named| (named.last, named.number)),
        Some((last(395), done.head.number))
    );
    assert_eq!((group.damaged, recovered.rot), (None, vec![]));
    bench.log = log;
    bench.settle();

    // The record goes along when its segment goes.
    let mut next = 401;
    for _ in 0..40 {
        bench.append_run(7, next, next + 9, 2, 1_000);
        bench.flush();
        bench.settle();
        bench.log.release(GROUP, Index(next + 9));
        next += 10;
    }
    let (_, recovered) = recover(&mut bench.device);
    assert_eq!(recovered.groups[&GROUP].named.map(|named| named.number), Some(done.head.number));
}

/// A log that begins anew below its snapshot's end, because the snapshot was lost, still owes what
/// it held, until it is as new again.
#[test]
fn what_a_lost_snapshot_held_is_owed() {
    let mut bench = Bench::new(settings());
    bench.append_run(7, 1, 12, 2, 100);
    bench.append(&record(RecordKind::Snapshot, 7, 10, 2, &1u64.to_le_bytes()));
    bench.append_run(7, 1, 4, 2, 100);
    bench.flush();
    let floor = |bench: &mut Bench| recover(&mut bench.device).1.groups[&GROUP].damaged;
    assert_eq!(floor(&mut bench), Some(last(12)));
    bench.append_run(7, 5, 12, 2, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), None);
}

/// Goal: a log that begins anew where it was given up, or below a snapshot that was named, owes what
/// it held, in every way in which that comes about; one that a newer leader replaces owes nothing.
#[test]
fn a_log_that_begins_anew_owes_what_it_held() {
    let named =
        |index: u64, number: u64| record(RecordKind::Snapshot, 7, index, 2, &number.to_le_bytes());
    let floor = |bench: &mut Bench| recover(&mut bench.device).1.groups[&GROUP].damaged;
    let begun = || {
        let mut bench = Bench::new(settings());
        bench.append_run(7, 1, 10, 2, 100);
        bench.append(&named(10, 1));
        bench
    };
    // Its snapshot couldn't be read, so the log was given up for one of a peer's.
    let mut bench = begun();
    bench.append_run(7, 11, 15, 2, 100);
    bench.append(&named(12, 2));
    bench.append_run(7, 13, 13, 2, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), Some(last(15)));
    bench.append_run(7, 14, 15, 2, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), None);
    // The peer's is older than the one that can't be read, and the log goes on behind it.
    let mut bench = begun();
    bench.append(&named(9, 2));
    bench.flush();
    assert_eq!(floor(&mut bench), Some(last(10)));
    bench.append_run(7, 10, 10, 2, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), None);
    // It goes on behind an older one of its own, and nothing stood behind the newer one.
    let mut bench = begun();
    bench.append_run(7, 9, 9, 2, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), Some(last(10)));
    // A newer leader removed what was never committed.
    let mut bench = begun();
    bench.append_run(7, 11, 15, 2, 100);
    bench.append_run(7, 11, 12, 3, 100);
    bench.flush();
    assert_eq!(floor(&mut bench), None);
}
