//! The disk door of offline commands: what it writes is a log like any other, and one that only
//! looks changes nothing.

mod disk;

use disk::*;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, Term, Ticks};
use ringraft_wal::device::files::FilesDevice;
use ringraft_wal::device::{Device, FileId, Geometry, Operation};
use ringraft_wal::{Log, SnapshotHead, WalError};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Turns until everything is durable; with time enough for a seal and the next segment.
fn settle(log: &mut Log, device: &mut FilesDevice) {
    for turn in 1..200 {
        log.turn(Ticks(turn * 1_000), device).expect("the log goes on");
    }
    assert!(log.is_quiet());
}

/// A log with two groups and a snapshot.
fn written(directory: &Path) -> SnapshotHead {
    let mut device = FilesDevice::writing_to(directory, Geometry { align: 4096 });
    let (mut log, recovered) = try_recover(settings(), &mut device).expect("nothing is there yet");
    assert!(recovered.is_empty);
    for group in [1, 2] {
        let records = run(group, 1, 60, 2, 1_000);
        log.append_run(GroupId(group), Index(1), Index(60), Term(2), &records).expect("room");
    }
    log.append(&hard(1, 2, 1, 60)).expect("room");
    let number = log.begin_snapshot(
        GroupId(2),
        ringraft_types::LogId::new(Term(2), Index(60)),
        [0; ringraft_types::STRANDS],
    );
    log.add_to_snapshot(number, &[7; 300_000]);
    log.end_snapshot(number);
    settle(&mut log, &mut device);
    let written = log.take_snapshot_written().expect("it was written");
    written.result.expect("without an error");
    written.head
}

/// Names, contents and times of change.
fn state(directory: &Path) -> BTreeMap<String, (Vec<u8>, i64, i64)> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| {
        let entry = entry.expect("an entry");
        let (bytes, about) = (std::fs::read(entry.path()), entry.metadata().expect("its state"));
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, (bytes.expect("its bytes"), about.mtime(), about.mtime_nsec()))
    });
    entries.collect()
}

/// What was written is found, by one that writes and by one that looks.
#[test]
fn what_is_written_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let head = written(directory.path());
    let writing = FilesDevice::writing_to(directory.path(), Geometry { align: 4096 });
    for mut device in [FilesDevice::looking_at(directory.path()), writing] {
        let (mut log, recovered) = try_recover(settings(), &mut device).expect("a log");
        assert!(recovered.rot.is_empty(), "{recovered:?}");
        assert_eq!(recovered.snapshots, [head]);
        assert_eq!(recovered.groups[&GroupId(1)].hard, Some((Term(2), 1, Index(60))));
        for group in [1, 2] {
            let records = read(&mut log, &mut device, group, 1, 60).expect("held");
            assert!(records == run(group, 1, 60, 2, 1_000));
        }
        log.read_chunk(5, &head, 0);
        settle_looking(&mut log, &mut device);
        let chunk = log.take_chunk().expect("answered").result.expect("intact");
        assert!(chunk.bytes.iter().all(|&byte| byte == 7));
    }
}

fn settle_looking(log: &mut Log, device: &mut FilesDevice) {
    for turn in 1..20 {
        log.turn(Ticks(turn * 1_000), device).expect("the log goes on");
    }
}

/// A log on a device that only looks recovers, is read, and wants to write: nothing comes of that,
/// also where it finds files that it would remove.
#[test]
fn who_looks_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    written(path);
    let half_made = path.join("wal-0000000000000003-00000000000000ff.seg");
    std::fs::write(&half_made, b"").expect("written");
    let before = state(path);
    let mut device = FilesDevice::looking_at(path);
    let (mut log, _) = try_recover(settings(), &mut device).expect("a log");
    log.append(&record(RecordKind::Home, 0, 7, 0, b"")).expect("it takes it");
    settle_looking(&mut log, &mut device);
    assert!(log.space_exhausted(), "it would make a segment for later");
    log.begin_snapshot(
        GroupId(1),
        ringraft_types::LogId::new(Term(2), Index(60)),
        [0; ringraft_types::STRANDS],
    );
    settle_looking(&mut log, &mut device);
    assert!(log.take_snapshot_written().expect("it came to its end").result.is_err());
    let file = FileId::segment(3, 1);
    for operation in [Operation::Remove(file), Operation::Sync(file), Operation::SyncDirectory] {
        device.submit(ringraft_types::tag::Tag(0), operation);
    }
    let mut completions = Vec::new();
    device.poll(&mut completions);
    assert!(completions.iter().all(|completion| completion.result == 0), "{completions:?}");
    assert!(state(path) == before, "what is there stays as it is");
    let (_, recovered) = try_recover(settings(), &mut device).expect("a log");
    assert!(recovered.node_records.is_empty(), "it was never there");
    // One that writes does remove what is half made.
    let mut device = FilesDevice::writing_to(path, Geometry { align: 4096 });
    let (mut log, _) = try_recover(settings(), &mut device).expect("a log");
    log.append(&record(RecordKind::Home, 0, 7, 0, b"")).expect("there is room");
    settle(&mut log, &mut device);
    assert!(!half_made.exists());
}

/// What the system says is passed on: a missing directory, a file that is none.
#[test]
fn failures_are_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("missing");
    let failed = try_recover(settings(), &mut FilesDevice::looking_at(&missing));
    assert!(matches!(failed, Err(WalError::Io { what: "listing", errno: 2, .. })), "{failed:?}");
    let link = directory.path().join("wal-0000000000000003-0000000000000001.seg");
    std::os::unix::fs::symlink("/dev/null", link).expect("linked");
    let failed = try_recover(settings(), &mut FilesDevice::looking_at(directory.path()));
    assert!(matches!(failed, Err(WalError::Io { what: "listing", .. })), "{failed:?}");
}
