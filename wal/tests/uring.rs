//! The device on a real ring and a real file system, and the offline tools on what it wrote.

mod disk;
mod ring;

use disk::*;
use ring::Ring;
use ringraft_types::record::RecordKind;
use ringraft_types::tag::{Owner, Tag};
use ringraft_types::{GroupId, Index, Term, Ticks};
use ringraft_wal::buffer::Buffer;
use ringraft_wal::device::geometry::{GeometryError, probe};
use ringraft_wal::device::uring::{file_name, parse_file_name};
use ringraft_wal::device::{Device, Durability, Operation};
use ringraft_wal::{Log, LogSettings, inspect};
use std::path::Path;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk")
}

fn flush(log: &mut Log, ring: &mut Ring) {
    for turn in 0..10_000u64 {
        log.turn(Ticks(turn * 100), ring).expect("goes on");
        if log.is_quiet() {
            return;
        }
    }
    panic!("the log doesn't become quiet");
}

/// A log on a real disk, in every way of syncing: appended, read back, recovered, removed.
#[test]
fn a_log_on_a_real_disk() {
    for durability in
        [Durability::Dsync, Durability::LinkedSync, Durability::Blocking, Durability::None]
    {
        let directory = directory();
        let settings = LogSettings {
            durability,
            inflight_max: 3,
            segment_bytes: 1 << 20,
            block_bytes_max: 256 << 10,
            unsubmitted_bytes_max: 4 << 20,
            ..settings()
        };
        let mut ring = Ring::new(directory.path());
        let (mut log, recovered) = try_recover(settings.clone(), &mut ring).expect("empty");
        assert!(recovered.is_empty);
        for round in 0..40u64 {
            let (first, last) = (1 + round * 50, 50 + round * 50);
            let records = run(1, first, last, 1, 600);
            let sequence = log
                .append_run(GroupId(1), Index(first), Index(last), Term(1), &records)
                .expect("room");
            log.append(&hard(2, 1 + round, 1, 0)).expect("room");
            if round % 4 == 0 {
                flush(&mut log, &mut ring);
                assert!(log.durable() >= sequence);
            }
        }
        flush(&mut log, &mut ring);
        assert!(log.segments() >= 2, "{} bytes", log.stats().bytes);
        assert!(log.stats().latency.len() > 10);
        assert!(read(&mut log, &mut ring, 1, 1, 2_000).expect("held") == run(1, 1, 2_000, 1, 600));
        assert_eq!(ring.device.in_flight(), 0);

        let (mut log, recovered) = try_recover(settings, &mut ring).expect("recovered");
        assert!(recovered.rot.is_empty() && recovered.torn_blocks == 0, "{recovered:?}");
        assert_eq!(recovered.groups[&GroupId(1)].last, Index(2_000));
        assert_eq!(recovered.groups[&GroupId(2)].hard, Some((Term(40), 1, Index(0))));
        assert!(read(&mut log, &mut ring, 1, 1_990, 2_000).is_ok());
        log.append(&hard(2, 50, 1, 0)).expect("room");
        log.append_run(GroupId(1), Index(2_001), Index(2_001), Term(1), &entry(1, 2_001, 1, 9))
            .expect("room");
        flush(&mut log, &mut ring);
        log.release(GroupId(1), Index(2_000));
        // The seal that says so takes some idle time.
        for turn in 0..100u64 {
            log.turn(Ticks(turn * 1_000), &mut ring).expect("goes on");
        }
        flush(&mut log, &mut ring);
        assert!(log.stats().segments_removed > 0, "{durability:?}");
        drop(log);

        let report = &inspect::verify(directory.path()).expect("verified")[0];
        assert!(report.is_intact(), "{report:?}");
        assert_eq!(report.groups.len(), 2);
        assert_eq!(report.groups[0].last, Index(2_001));
        let files = inspect::segments(directory.path()).expect("listed");
        let mut entries = 0;
        for file in &files {
            file.header().expect("intact");
            for found in file.blocks() {
                let inspect::Found::Block(block) = found else { panic!("{found:?}") };
                for (at, record) in inspect::records(&block) {
                    let (record, inner) = record.expect("intact");
                    assert!(at >= 136 && inner.is_none());
                    entries += u32::from(record.header.kind == RecordKind::Command);
                }
            }
        }
        assert!(entries >= 1);
        // A flipped byte is found offline as well.
        let path = &files[0].path;
        let mut bytes = std::fs::read(path).expect("read");
        drop(inspect::segments(directory.path()));
        let lived = bytes.chunks(4096).position(|unit| unit.starts_with(b"ringblok"));
        bytes[lived.expect("a block") * 4096 + 30] ^= 4;
        std::fs::write(path, &bytes).expect("written");
        let report = &inspect::verify(directory.path()).expect("verified")[0];
        assert!(!report.is_intact() || report.torn_blocks > 0, "{report:?}");
    }
}

/// Names are exact; everything else in the directory is left alone.
#[test]
fn file_names_round_trip() {
    let file = segment(0xABC);
    assert_eq!(file_name(file), "wal-0000000000000003-0000000000000abc.seg");
    assert_eq!(parse_file_name(&file_name(file)), Some(file));
    for name in [
        "wal-3-abc.seg",
        "wal-0000000000000003-0000000000000ABC.seg",
        "wal-0000000000000003-+000000000000abc.seg",
        "wal-0000000000000003-0000000000000abc.seg.old",
        "manifest-a",
    ] {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
}

/// The disk under test is taken; memory file systems are refused by name, unless allowed.
#[test]
fn the_geometry_is_probed() {
    let directory = directory();
    let probed = probe(directory.path(), false).expect("direct I/O");
    assert!(probed.geometry.align >= 4096 && !probed.is_buffered);
    assert!(std::fs::read_dir(directory.path()).expect("listed").next().is_none());
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        match probe(memory, false) {
            Err(GeometryError::NoDirectIo { file_system, .. }) => assert_eq!(file_system, "tmpfs"),
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert!(probe(memory, true).expect("allowed").is_buffered);
    }
    let missing = probe(&directory.path().join("missing"), false);
    assert!(matches!(missing, Err(GeometryError::Io { .. })));
}

/// A link in the place of a segment is refused, not followed.
#[test]
fn a_link_is_not_followed() {
    let directory = directory();
    let link = directory.path().join(file_name(segment(1)));
    std::os::unix::fs::symlink("/etc/hostname", link).expect("linked");
    let mut ring = Ring::new(directory.path());
    assert!(try_recover(settings(), &mut ring).is_err());
}

/// What the device says to an operation.
fn outcome(ring: &mut Ring, operation: Operation) -> i32 {
    ring.submit(Tag::new(Owner::Device, 1), operation);
    let mut completions = Vec::new();
    while completions.is_empty() {
        ring.poll(&mut completions);
    }
    completions.pop().expect("just seen").result
}

/// How many pages of a segment the kernel remembers. To ask by reading would make it read.
fn pages_remembered(directory: &Path, number: u64) -> usize {
    let file = std::fs::File::open(directory.join(file_name(segment(number)))).expect("there");
    // SAFETY: nothing is read through the map.
    let map = unsafe { memmap2::Mmap::map(&file) }.expect("mapped");
    let mut pages = vec![0u8; map.len().div_ceil(4096)];
    // SAFETY: the map is as long as said, and there is a byte for each of its pages.
    let result =
        unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
    assert_eq!(result, 0);
    pages.iter().filter(|page| **page & 1 == 1).count()
}

/// Goal: a start reads the log once from the disk. The kernel remembers what recovery read of the
/// segments that were written, until it was swept, and nothing of those that are to be written; what
/// isn't swept it remembers no longer than that is known.
#[test]
fn a_log_is_read_once() {
    let settings =
        LogSettings { segment_bytes: 256 << 10, block_bytes_max: 64 << 10, ..settings() };
    for is_swept in [true, false] {
        let directory = directory();
        let mut ring = Ring::new(directory.path());
        let mut log = try_recover(settings.clone(), &mut ring).expect("empty").0;
        for first in (1..=1_600u64).step_by(40) {
            let last = first + 39;
            let records = run(1, first, last, 1, 600);
            log.append_run(GroupId(1), Index(first), Index(last), Term(1), &records).expect("room");
            flush(&mut log, &mut ring);
        }
        let number = |file: &inspect::SegmentFile| {
            let name = file.path.file_name().and_then(|name| name.to_str()).expect("a name");
            parse_file_name(name).expect("a segment").number
        };
        let segments = inspect::segments(directory.path()).expect("listed");
        let numbers: Vec<u64> = segments.iter().map(number).collect();
        let written = segments.iter().filter(|segment| segment.blocks().next().is_some());
        let written: Vec<u64> = written.map(number).collect();
        assert!(written.len() >= 4 && written.len() < numbers.len(), "{written:?}, {numbers:?}");
        drop(segments);
        let remembered = || -> Vec<u64> {
            let pages = |number: &u64| pages_remembered(directory.path(), *number);
            numbers.iter().copied().filter(|number| pages(number) > 0).collect()
        };
        drop((log, ring));
        let mut ring = Ring::new(directory.path());
        let mut log = try_recover(settings.clone(), &mut ring).expect("recovered").0;
        assert_eq!(remembered(), written);
        let wanted = is_swept.then_some((GroupId(1), Index(1)));
        log.sweep(wanted.into_iter());
        let mut swept = 0;
        while log.is_sweeping() {
            log.turn(Ticks(1), &mut ring).expect("goes on");
            while let Some(blocks) = log.take_swept() {
                blocks.entries(|_, _| swept += 1);
                log.give_swept(blocks);
            }
        }
        flush(&mut log, &mut ring);
        assert_eq!(swept, if is_swept { 1_600 } else { 0 });
        assert_eq!(remembered(), [0; 0]);
    }
}

/// A file that is removed has no name as soon as that is told, and its room goes afterwards, in steps;
/// whether it was open or not. A second name, as of a copy that somebody keeps, keeps all of it.
#[test]
fn a_removed_file_goes_in_steps() {
    let directory = directory();
    for (number, is_open) in [(1, true), (2, false), (3, true)] {
        let mut ring = Ring::new(directory.path());
        let (file, is_linked) = (segment(number), number == 3);
        let path = directory.path().join(file_name(file));
        assert_eq!(outcome(&mut ring, Operation::Create(file)), 0);
        for offset in [0, 2 << 20] {
            let buffer = Buffer::zeroed(2 << 20, ring.geometry().align);
            let durability = Durability::Dsync;
            let write = Operation::Write { file, offset, buffer, durability };
            assert_eq!(outcome(&mut ring, write), 2 << 20);
        }
        if !is_open {
            assert_eq!(outcome(&mut ring, Operation::Close(file)), 0);
        }
        if is_linked {
            std::fs::hard_link(&path, directory.path().join("copy")).expect("linked");
        }
        let watched = std::fs::File::open(&path).expect("it has its name");
        let length = || watched.metadata().expect("open").len();
        assert_eq!(outcome(&mut ring, Operation::Remove(file)), 0);
        assert!(!path.exists());
        assert_eq!(length(), 4 << 20, "not a byte before the name is gone");
        let mut lengths = vec![4];
        while ring.device.in_flight() > 0 {
            ring.poll(&mut Vec::new());
            lengths.push(length() >> 20);
        }
        assert!(lengths.windows(2).all(|two| two[0] <= two[1] + 1), "{lengths:?}");
        assert_eq!(lengths.last(), Some(if is_linked { &4 } else { &0 }), "number {number}");
    }
    assert!(std::fs::read(directory.path().join("copy")).expect("kept").len() == 4 << 20);
}

/// Goal: a device that is dropped while it gives a file's room back cuts nothing that is opened
/// afterwards: the kernel looks up a descriptor's number as late as when a linked request begins.
#[test]
fn a_dropped_device_cuts_no_other_file() {
    let directory = directory();
    let mut ring = Ring::new(directory.path());
    let file = segment(1);
    assert_eq!(outcome(&mut ring, Operation::Create(file)), 0);
    let buffer = Buffer::zeroed(2 << 20, ring.geometry().align);
    let write = Operation::Write { file, offset: 0, buffer, durability: Durability::Dsync };
    assert_eq!(outcome(&mut ring, write), 2 << 20);
    assert_eq!(outcome(&mut ring, Operation::Remove(file)), 0);
    let Ring { mut device, mut ring, .. } = ring;
    assert_eq!(device.in_flight(), 1, "it is given back in steps");
    let mut submission = ring.submission();
    let given = device.drain(8, &mut |entry| {
        // SAFETY: the device keeps, and on drop leaks, what the entry points to (I-08).
        unsafe { submission.push(&entry).expect("there is room") };
    });
    drop(submission);
    ring.submit().expect("submitted");
    drop(device);
    // One of them has the number of the file that is gone, if its descriptor was closed.
    let others: Vec<_> =
        (0..8).map(|_| tempfile::tempfile_in(directory.path()).expect("a file")).collect();
    for other in &others {
        other.set_len(4 << 20).expect("it is ours");
    }
    let mut ended = 0;
    while ended < given {
        ring.submit_and_wait(1).expect("it goes on");
        ended += ring.completion().count();
    }
    assert_eq!(ended, 2, "a pause, and a step");
    for other in &others {
        assert_eq!(other.metadata().expect("open").len(), 4 << 20);
    }
}

/// Buffers of operations in flight outlive the device that is dropped: the kernel may still write
/// to them (I-08). A thousand rounds with reads, writes and drops in between.
#[test]
fn a_dropped_device_leaves_no_dangling_buffer() {
    let directory = directory();
    let settings = LogSettings { segment_bytes: 64 << 10, ..settings() };
    let mut ring = Ring::new(directory.path());
    let (mut log, _) = try_recover(settings.clone(), &mut ring).expect("empty");
    log.append_run(GroupId(1), Index(1), Index(20), Term(1), &run(1, 1, 20, 1, 600)).expect("room");
    flush(&mut log, &mut ring);
    for round in 0..50u64 {
        let mut ring = Ring::new(directory.path());
        let (mut log, recovered) = try_recover(settings.clone(), &mut ring).expect("recovered");
        assert_eq!(recovered.groups[&GroupId(1)].last, Index(20), "round {round}: {recovered:?}");
        log.read(ringraft_wal::ReadRequest {
            ticket: round,
            group: GroupId(1),
            first: Index(1),
            last: Index(20),
            bytes_max: 1 << 20,
        });
        // Submitted, and not waited for.
        let mut completions = Vec::new();
        let turn = log.turn(Ticks(round), &mut ring.device);
        turn.expect("goes on");
        let mut submission = ring.ring.submission();
        ring.device.drain(8, &mut |entry| {
            // SAFETY: the device keeps, and on drop leaks, what the entry points to (I-08).
            unsafe { submission.push(&entry).expect("there is room") };
        });
        drop(submission);
        ring.ring.submit().expect("submitted");
        ring.device.poll(&mut completions);
        let Ring { device, ring, .. } = ring;
        drop(device);
        drop(ring);
    }
}
