//! The log while it runs: faults of the disk, order of completions, limits, reading.

mod disk;

use disk::*;
use ringraft_types::{GroupId, Index, Sequence, Term, Ticks};
use ringraft_wal::device::Durability;
use ringraft_wal::device::memory::{Effect, Fault, MemoryDevice, OperationKind};
use ringraft_wal::{AppendError, LogSettings, ReadError, ReadRequest, Wake, WalError, WalFatal};

const WAYS: [Durability; 3] = [Durability::Dsync, Durability::LinkedSync, Durability::Blocking];

fn fault(on: OperationKind, after: u32, count: u32, effect: Effect) -> Fault {
    Fault { on, after, count, effect }
}

fn with(durability: Durability) -> LogSettings {
    LogSettings { durability, ..settings() }
}

/// A failed write or sync stops the log for good; a second try is never made, nothing becomes
/// durable, and every later call says so.
#[test]
fn a_failed_write_or_sync_is_fatal() {
    for way in WAYS {
        for on in [OperationKind::Write, OperationKind::Sync] {
            if on == OperationKind::Sync && way == Durability::Dsync {
                continue;
            }
            let mut bench = Bench::new(with(way));
            let before = bench.block(1, 1, 5, 1);
            bench.append_run(1, 6, 7, 1, 100);
            bench.device.inject(fault(on, 0, 1, Effect::Errno(libc::EIO)));
            let fatal = bench.log.turn(bench.now, &mut bench.device).expect_err("EIO is fatal");
            match (on, &fatal) {
                (OperationKind::Write, WalFatal::Write { errno: libc::EIO, .. }) => {}
                (OperationKind::Sync, WalFatal::Sync { errno: libc::EIO, .. }) => {}
                other => panic!("{other:?}"),
            }
            let (writes, syncs) = (bench.device.writes(), bench.device.syncs());
            for _ in 0..5 {
                assert_eq!(bench.log.turn(bench.now, &mut bench.device), Err(fatal.clone()));
            }
            assert_eq!((bench.device.writes(), bench.device.syncs()), (writes, syncs));
            assert_eq!(bench.log.durable(), before);
            assert_eq!(bench.log.append(&hard(1, 1, 1, 1)), Err(AppendError::Stopped));
        }
    }
}

/// The remainder of a short write is written, and then a sync of its own covers all of it: the
/// sync of a part is not believed.
#[test]
fn a_short_write_is_finished_before_it_is_believed() {
    for way in WAYS {
        for short in [0, 1, 511, 4096, 5_000, 8_191] {
            let mut bench = Bench::new(with(way));
            bench.device.inject(fault(OperationKind::Write, 0, 1, Effect::Short(short)));
            bench.append_run(1, 1, 30, 1, 300);
            let sequence = bench.flush();
            assert!(bench.log.stats().short_writes + bench.log.stats().retries > 0);
            assert!(!bench.device.unflushed().iter().any(|unflushed| matches!(
                unflushed,
                ringraft_wal::device::memory::Unflushed::Sector(file, _) if file.number == 1
            )));
            bench.device.power_cut(|_| false);
            let (_, recovered) = recover(&mut bench.device);
            assert_eq!(recovered.last, sequence);
            assert_eq!(recovered.groups[&GroupId(1)].last, Index(30), "{way:?}, {short} bytes");
        }
    }
}

/// A sync that fails after a short write is as fatal as any.
#[test]
fn a_failed_sync_of_a_remainder_is_fatal() {
    let mut bench = Bench::new(settings());
    bench.device.inject(fault(OperationKind::Write, 0, 1, Effect::Short(4096)));
    bench.device.inject(fault(OperationKind::Sync, 0, 1, Effect::Errno(libc::EIO)));
    bench.append_run(1, 1, 30, 1, 300);
    let fatal = bench.log.turn(bench.now, &mut bench.device);
    assert!(matches!(fatal, Err(WalFatal::Sync { .. })), "{fatal:?}");
}

/// EAGAIN and EINTR are tried again, a bounded number of times.
#[test]
fn interrupted_writes_are_tried_again() {
    for way in WAYS {
        for errno in [libc::EAGAIN, libc::EINTR] {
            let mut bench = Bench::new(with(way));
            bench.device.inject(fault(OperationKind::Write, 0, 5, Effect::Errno(errno)));
            bench.block(1, 1, 5, 1);
            assert_eq!(bench.log.stats().retries, 5);
            bench.device.inject(fault(OperationKind::Write, 0, 1_000, Effect::Errno(errno)));
            bench.append_run(1, 6, 7, 1, 100);
            let fatal = bench.log.turn(bench.now, &mut bench.device);
            assert!(matches!(fatal, Err(WalFatal::Stuck { .. })), "{fatal:?}");
        }
    }
}

/// Blocks that complete out of order become durable in order, in every order of four.
#[test]
fn durable_is_the_contiguous_prefix() {
    for order in 0..24usize {
        let mut bench = Bench::new(LogSettings { inflight_max: 4, ..settings() });
        bench.device.hold(true);
        let mut sequences = Vec::new();
        for index in 1..=4 {
            bench.append_run(1, index, index, 1, 100);
            bench.log.turn(bench.now, &mut bench.device).expect("goes on");
            sequences.push(bench.log.submitted());
        }
        let mut left: Vec<usize> = (0..4).collect();
        let mut done = [false; 4];
        let mut code = order;
        while !left.is_empty() {
            let pick = code % left.len();
            code /= left.len();
            bench.device.finish(pick);
            done[left.remove(pick)] = true;
            bench.log.turn(bench.now, &mut bench.device).expect("goes on");
            let prefix = done.iter().take_while(|done| **done).count();
            let expected = if prefix == 0 { Sequence(1) } else { sequences[prefix - 1] };
            assert_eq!(bench.log.durable(), expected, "order {order}");
        }
        bench.device.hold(false);
        assert!(bench.read(1, 1, 4).expect("held") == run(1, 1, 4, 1, 100));
    }
}

/// A full disk refuses nothing that is written already: the log says so, goes on in the room it
/// has, and heals when space returns.
#[test]
fn a_full_disk_heals() {
    let mut bench = Bench::new(settings());
    assert!(!bench.log.space_exhausted());
    bench.device.set_capacity(bench.device.files().iter().map(|(_, length)| length).sum());
    let mut index = 1;
    while bench.log.append(&entry(1, index, 1, 3_000)).is_ok() {
        index += 1;
        bench.turn();
        assert!(index < 1_000, "a full disk ends it");
    }
    assert!(bench.log.space_exhausted());
    assert!(bench.log.segments() == 2, "the reserve was used");
    let durable = bench.log.durable();
    let full = bench.log.append(&entry(1, index, 1, 3_000));
    assert!(matches!(full, Err(AppendError::Full { .. })), "{full:?}");
    assert_eq!(bench.device.files().len(), 2, "no half-made segment eats the room");
    assert!(bench.read(1, 1, 3).is_ok(), "reads go on");
    // A restart on the full disk works too, and shows what was durable.
    let mut device = bench.device.clone();
    device.kill();
    device.set_capacity(0);
    assert!(recover(&mut device).1.last >= durable);
    bench.device.set_capacity(u64::MAX);
    for _ in 0..2_000 {
        bench.turn();
    }
    assert!(!bench.log.space_exhausted() && bench.log.is_idle());
    let last = bench.read(1, index - 1, index - 1).expect("held");
    assert!(last == entry(1, index - 1, 1, 3_000));
}

/// A disk error while a segment is made is fatal too: nothing is known of that disk any more.
#[test]
fn a_failed_preparation_is_fatal() {
    for on in [OperationKind::Write, OperationKind::Sync, OperationKind::SyncDirectory] {
        let mut device = MemoryDevice::new(4096);
        let (mut log, _) = recover(&mut device);
        device.inject(fault(on, 0, 1, Effect::Errno(libc::EIO)));
        let fatal = log.turn(Ticks(1), &mut device);
        assert!(matches!(fatal, Err(WalFatal::Prepare { .. })), "{on:?}: {fatal:?}");
    }
}

/// More than the limit is refused whole; what fits no block is refused for ever.
#[test]
fn limits_refuse_whole_appends() {
    let mut bench = Bench::new(settings());
    bench.device.hold(true);
    let records = run(1, 1, 100, 1, 1_000);
    let append = |bench: &mut Bench, first: u64| {
        let records = run(1, first, first + 99, 1, 1_000);
        let (first, last) = (Index(first), Index(first + 99));
        bench.log.append_run(GroupId(1), first, last, Term(1), &records)
    };
    append(&mut bench, 1).expect("the first fits");
    append(&mut bench, 101).expect("the second fits");
    let waiting = bench.log.unsubmitted_bytes();
    assert!(waiting >= 2 * records.len());
    let refused = append(&mut bench, 201);
    assert!(matches!(refused, Err(AppendError::Full { limit: 262_144, .. })), "{refused:?}");
    assert_eq!(bench.log.unsubmitted_bytes(), waiting);
    assert_eq!(bench.log.held(GroupId(1)), Some((Index(1), Index(200))));
    bench.device.hold(false);
    bench.flush();
    let long = entry(1, 201, 1, 16 << 10);
    let refused = bench.log.append(&long);
    assert!(matches!(refused, Err(AppendError::TooLong { .. })), "{refused:?}");
    let limit = bench.log.record_bytes_max();
    bench.append(&entry(1, 201, 1, limit - 40));
    bench.flush();
    assert!(bench.read(1, 1, 200).expect("held") == run(1, 1, 200, 1, 1_000));
}

/// One sync for many groups; a thousand groups in one block, the next starts another.
#[test]
fn one_sync_commits_many_groups() {
    let mut settings = settings();
    settings.block_bytes_max = 1 << 20;
    settings.segment_bytes = 4 << 20;
    settings.unsubmitted_bytes_max = 4 << 20;
    let mut bench = Bench::new(settings.clone());
    let before = bench.log.stats().blocks;
    for group in 1..=1_500 {
        bench.append(&entry(group, 1, 1, 20));
    }
    bench.flush();
    assert_eq!(bench.log.stats().blocks - before, 2, "1,024 groups, then the others");
    assert!(bench.log.stats().records_per_sync() > 400.0);
    bench.device.power_cut(|_| false);
    let (_, recovered) = try_recover(settings, &mut bench.device).expect("recovered");
    assert_eq!(recovered.groups.len(), 1_500);
}

/// A block waits for company as long as the settings say, and the log says when to come back.
#[test]
fn group_commit_waits_and_wakes() {
    let wait = Ticks(300);
    let mut bench = Bench::new(LogSettings { group_commit_wait: wait, ..settings() });
    let now = bench.now;
    let sequence = bench.append(&entry(1, 1, 1, 10));
    let wake = bench.log.turn(now, &mut bench.device).expect("goes on");
    assert_eq!(wake, Wake::At(now.after(wait)));
    bench.append(&entry(2, 1, 1, 10));
    bench.log.turn(now.after(Ticks(299)), &mut bench.device).expect("goes on");
    assert!(bench.log.durable() < sequence);
    let now = now.after(wait);
    let wake = bench.log.turn(now, &mut bench.device).expect("goes on");
    assert_eq!(bench.log.durable(), sequence);
    // Then the seal, after some idleness, and then nothing at all.
    let seal = now.after(Ticks::from_millis(5));
    assert_eq!(wake, Wake::At(seal));
    let wake = bench.log.turn(seal, &mut bench.device).expect("goes on");
    assert_eq!((bench.log.durable(), wake), (sequence.next(), Wake::OnEvent));
    assert_eq!(bench.log.turn(seal.after(seal), &mut bench.device), Ok(Wake::OnEvent));
    assert_eq!(bench.log.durable(), sequence.next(), "one seal is enough");
}

/// A block much shorter than the one before it waits for company, a quarter of that one's time to
/// the disk; one like the one before it leaves at once.
#[test]
fn a_short_block_after_a_long_one_waits_for_company() {
    let mut bench = Bench::new(settings());
    bench.flush();
    bench.device.hold(true);
    bench.append_run(1, 1, 100, 1, 100);
    let began = bench.now;
    bench.log.turn(began, &mut bench.device).expect("goes on");
    bench.device.hold(false);
    let now = began.after(Ticks(400));
    bench.log.turn(now, &mut bench.device).expect("goes on");
    let short = bench.append(&entry(1, 101, 1, 10));
    let until = now.after(Ticks(100));
    assert_eq!(bench.log.turn(now, &mut bench.device), Ok(Wake::At(until)));
    assert!(bench.log.durable() < short);
    bench.log.turn(until, &mut bench.device).expect("goes on");
    assert_eq!(bench.log.durable(), short);
    let alike = bench.append(&entry(1, 102, 1, 10));
    bench.log.turn(until, &mut bench.device).expect("goes on");
    assert_eq!(bench.log.durable(), alike);
}

/// Answers hold at least one entry and respect the limit; entries not durable are waited for;
/// entries of two histories are never joined; rot is reported.
#[test]
fn reads_are_bounded_and_verified() {
    let mut bench = Bench::new(settings());
    bench.append_run(1, 1, 100, 1, 500);
    bench.flush();
    let ask = |bench: &mut Bench, first: u64, bytes_max| {
        let (ticket, group, last) = (1, GroupId(1), Index(100));
        let first = Index(first);
        bench.log.read(ReadRequest { ticket, group, first, last, bytes_max });
        loop {
            bench.turn();
            if let Some(done) = bench.log.take_read() {
                return done.result;
            }
        }
    };
    let one = entry(1, 7, 1, 500);
    assert!(ask(&mut bench, 7, 1).expect("held") == one);
    assert!(ask(&mut bench, 7, one.len() * 3 + 1).expect("held") == run(1, 7, 9, 1, 500));
    assert_eq!(ask(&mut bench, 101, 1), Err(ReadError::NotHeld));
    assert_eq!(bench.read(5, 1, 1), Err(ReadError::NotHeld));

    // Asked for while in flight, overwritten while being read.
    bench.device.hold(true);
    bench.append_run(1, 101, 101, 1, 500);
    let (ticket, group, bytes_max) = (2, GroupId(1), 1 << 20);
    let (first, last) = (Index(99), Index(101));
    bench.log.read(ReadRequest { ticket, group, first, last, bytes_max });
    bench.turn();
    assert!(bench.log.take_read().is_none(), "not durable yet");
    bench.append_run(1, 100, 101, 2, 500);
    bench.device.hold(false);
    for _ in 0..10 {
        bench.turn();
    }
    let done = bench.log.take_read().expect("durable now").result.expect("held");
    assert!(done == [entry(1, 99, 1, 500), run(1, 100, 101, 2, 500)].concat());

    let last = block_at(&bench.device, bench.log.durable());
    let rotten = block_at(&bench.device, Sequence(last.header.sequence.0 - 1));
    bench.settle();
    let at = last.offset + last.header.head() as u64 + 50;
    let is_seal = last.header.records == 0;
    let hit = if is_seal { rotten.offset + rotten.header.head() as u64 + 50 } else { at };
    bench.device.flip_bit(last.file, hit * 8);
    assert!(matches!(bench.read(1, 101, 101), Err(ReadError::Rot { errno: 0, .. })));
    // A read that fails or misleads once is cured by the next.
    bench.device.flip_bit(last.file, hit * 8);
    let effect = Effect::Errno(libc::EIO);
    bench.device.inject(fault(OperationKind::Read, 0, 1, effect));
    assert!(bench.read(1, 101, 101).is_ok());
}

/// Reads that the system wants repeated, or cuts short, are repeated: they say nothing of what lies
/// on the disk, and a group must not be called damaged for them. Not for ever.
#[test]
fn interrupted_and_short_reads_are_repeated() {
    let mut bench = Bench::new(settings());
    bench.append_run(1, 1, 3, 1, 500);
    bench.flush();
    let read = OperationKind::Read;
    for effect in [Effect::Errno(libc::EINTR), Effect::Errno(libc::EAGAIN), Effect::Short(512)] {
        bench.device.inject(fault(read, 0, 5, effect));
        assert_eq!(bench.read(1, 1, 3), Ok(run(1, 1, 3, 1, 500)), "{effect:?}");
    }
    bench.device.inject(fault(read, 0, u32::MAX, Effect::Short(512)));
    assert!(matches!(bench.read(1, 1, 3), Err(ReadError::Rot { .. })));
}

/// Settings that contradict each other are refused with both values.
#[test]
fn contradicting_settings_are_refused() {
    let mut device = MemoryDevice::new(4096);
    let wrong = [
        LogSettings { block_bytes_max: 5_000, ..settings() },
        LogSettings { block_bytes_max: 4 << 20, ..settings() },
        LogSettings { segment_bytes: 16 << 10, ..settings() },
        LogSettings { inflight_max: 0, ..settings() },
        LogSettings { unsubmitted_bytes_max: 4096, ..settings() },
    ];
    for settings in wrong {
        let refused = try_recover(settings, &mut device).map(|_| ());
        assert!(matches!(refused, Err(WalError::Settings(_))), "{refused:?}");
    }
    assert!(device.files().is_empty());
}

/// A device with larger blocks gets larger blocks.
#[test]
fn a_larger_alignment_is_respected() {
    let mut device = MemoryDevice::new(16 << 10);
    let settings = LogSettings { segment_bytes: 256 << 10, ..settings() };
    let (mut log, _) = try_recover(settings.clone(), &mut device).expect("empty");
    for index in 1..=40 {
        log.append(&entry(1, index, 1, 700)).expect("room");
        log.turn(Ticks(index * 1000), &mut device).expect("the device would refuse");
    }
    device.power_cut(|_| false);
    let (_, recovered) = try_recover(settings, &mut device).expect("recovered");
    assert_eq!(recovered.groups[&GroupId(1)].last, Index(40));
}

/// Blocks that hold entries of many groups are read about once for all who ask, not once for each;
/// and who asked first for something new doesn't wait until all others have read the old.
#[test]
fn one_pass_serves_all_groups() {
    const GROUPS: u64 = 20;
    const BLOCKS: u64 = 30;
    let mut bench = Bench::new(settings());
    for index in 1..=BLOCKS {
        for group in 1..=GROUPS {
            bench.append(&entry(group, index, 1, 300));
        }
        bench.flush();
    }
    let before = bench.log.stats().blocks_read;
    let mut ask = |group, first, ticket| {
        let (group, first, last, bytes_max) =
            (GroupId(group), Index(first), Index(BLOCKS), 1 << 20);
        bench.log.read(ReadRequest { ticket, group, first, last, bytes_max });
    };
    ask(1, BLOCKS, 0);
    (1..=GROUPS).for_each(|group| ask(group, 1, group));
    let mut answers = Vec::new();
    for _ in 0..1_000 {
        bench.turn();
        answers.extend(std::iter::from_fn(|| bench.log.take_read()));
    }
    assert_eq!(answers.len() as u64, GROUPS + 1);
    assert_eq!(answers[0].ticket, 0, "it asked first");
    assert_eq!(answers[0].result, Ok(entry(1, BLOCKS, 1, 300)));
    for answer in &answers[1..] {
        assert_eq!(answer.result, Ok(run(answer.ticket, 1, BLOCKS, 1, 300)));
    }
    let blocks = bench.log.stats().blocks_read - before;
    assert!((BLOCKS..2 * BLOCKS).contains(&blocks), "{blocks} blocks were read");
}

/// Goal: a sweep reads every block once, from the oldest that is wanted to the newest that was
/// durable when it began, in order, with the entries of all groups; a block that can't be read is
/// left out, and so is a record that isn't intact, with what follows it.
#[test]
fn a_sweep_reads_every_block_once() {
    const GROUPS: u64 = 5;
    const BLOCKS: u64 = 12;
    let mut bench = Bench::new(settings());
    let mut sequences = Vec::new();
    for index in 1..=BLOCKS {
        for group in 1..=GROUPS {
            bench.append(&entry(group, index, 1, 300));
        }
        sequences.push(bench.flush());
    }
    let sweep = |bench: &mut Bench, from: u64| {
        let before = bench.log.stats().blocks_read;
        bench.log.sweep((1..=GROUPS).map(|group| (GroupId(group), Index(from + group))));
        // Written meanwhile: not of this sweep.
        bench.append(&entry(9, 1, 2, 100));
        bench.flush();
        let (mut found, mut turns) = (Vec::new(), 0);
        while bench.log.is_sweeping() {
            bench.turn();
            while let Some(swept) = bench.log.take_swept() {
                swept.entries(|it, _| found.push((it.header.index.0, it.header.group.0)));
                bench.log.give_swept(swept);
            }
            turns += 1;
            assert!(turns < 1_000, "it ends");
        }
        (found, bench.log.stats().blocks_read - before)
    };
    let all = |from: u64| -> Vec<(u64, u64)> {
        (from..=BLOCKS).flat_map(|index| (1..=GROUPS).map(move |group| (index, group))).collect()
    };
    // The oldest entry that is wanted lies in the fifth block.
    assert_eq!(sweep(&mut bench, 4).0[..], all(5)[..]);
    let begun = BLOCKS - 4 + 1;
    let (found, blocks) = sweep(&mut bench, 4);
    assert_eq!((found.len() as u64, blocks), ((BLOCKS - 4) * GROUPS + 1, begun));

    let (sixth, eighth) =
        (block_at(&bench.device, sequences[5]), block_at(&bench.device, sequences[7]));
    bench.device.spoil(segment(sixth.header.segment), sixth.header.offset, 4096);
    let third = eighth.header.offset + u64::from(eighth.header.length) / 2;
    bench.device.flip_bit(segment(eighth.header.segment), third * 8);
    let (found, _) = sweep(&mut bench, 4);
    let of = |index| found.iter().filter(|(at, _)| *at == index).count() as u64;
    assert_eq!((of(6), of(7), of(9)), (0, GROUPS, GROUPS));
    assert!((1..GROUPS).contains(&of(8)), "those before the rotten one: {}", of(8));
    // Nothing of which any block holds an entry: nothing is read.
    bench.log.sweep([(GroupId(77), Index(1))].into_iter());
    assert!(!bench.log.is_sweeping());
}
