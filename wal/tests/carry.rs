//! Entries that are written once more, in the place of what rot took (decision 0013).

mod disk;

use disk::*;
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};
use ringraft_wal::device::memory::MemoryDevice;
use ringraft_wal::{AppendError, LogSettings, ReadError};

const GROUP: GroupId = GroupId(1);

/// Three blocks of group 1, the middle one with two entries of group 2 as well, settled.
fn written() -> (Bench, Sequence) {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    bench.append_run(2, 1, 2, 1, 100);
    let middle = bench.block(1, 6, 9, 1);
    bench.block(1, 10, 14, 2);
    bench.settle();
    (bench, middle)
}

/// A bit of a block's records flips: in the middle, where those of group 1 are.
fn rot(device: &mut MemoryDevice, sequence: Sequence) {
    let block = block_at(device, sequence);
    let at = block.offset + u64::from(block.header.directory_at) - 100;
    device.flip_bit(block.file, at * 8);
}

fn carry(bench: &mut Bench, first: u64, last: u64) -> Sequence {
    let records = run(1, first, last, 1, 100);
    let (sequence, entries) = bench.log.carry_run(GROUP, Index(first), &records).expect("room");
    assert_eq!(entries, last - first + 1);
    sequence
}

fn whole() -> Vec<u8> {
    [run(1, 1, 9, 1, 100), run(1, 10, 14, 2, 100)].concat()
}

/// S05, A13: what can't be read is read from its new place when that is durable, and not before; a
/// start finds nothing missing, as often as it is carried and started.
#[test]
fn s05_what_is_carried_takes_the_place_of_rot() {
    let (mut bench, middle) = written();
    rot(&mut bench.device, middle);
    let Err(ReadError::Rot { sequence, .. }) = bench.read(1, 6, 9) else { panic!("it is rotten") };
    assert_eq!(bench.log.held_in(GROUP, sequence), [(Index(6), Index(9))]);
    for _ in 0..3 {
        bench.device.hold(true);
        let carried = carry(&mut bench, 6, 9);
        bench.turn();
        assert!(bench.log.durable() < carried);
        bench.device.hold(false);
        bench.flush();
        assert_eq!(bench.log.held_in(GROUP, carried), [(Index(6), Index(9))]);
        assert!(bench.log.held_in(GROUP, middle).is_empty());
        assert!(bench.read(1, 1, 14).expect("held") == whole());
        assert_eq!(bench.log.held(GROUP), Some((Index(1), Index(14))));
        let recovered = bench.restart();
        assert_eq!(recovered.rot.len(), 1, "the old place is as it was");
        let group = &recovered.groups[&GROUP];
        assert_eq!((group.first, group.last, group.damaged), (Index(1), Index(14), None));
        assert_eq!(group.runs, [(Index(1), Term(1)), (Index(10), Term(2))]);
        assert!(bench.read(1, 1, 14).expect("held") == whole());
        bench.settle();
    }
}

/// S05: power fails at every step while rot is repaired: each entry is there again or missing, the
/// group is damaged until none is missing, and what is missing can be carried by the next life.
#[test]
fn s05_a_crash_at_any_step_of_a_repair_loses_nothing_more() {
    let small = LogSettings { inflight_max: 2, block_bytes_max: 8 << 10, ..settings() };
    let mut seen = [0u32; 3];
    for steps in 0..12usize {
        for (keep, newest) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bench = Bench::new(small.clone());
            bench.append_run(1, 1, 40, 1, 600);
            bench.settle();
            let rotten: Vec<Sequence> = (2..=4)
                .map(Sequence)
                .filter(|&at| !bench.log.held_in(GROUP, at).is_empty())
                .collect();
            // One in two, so that what the next block repeats says what was lost.
            let hit = rotten[1];
            rot(&mut bench.device, hit);
            let (first, last) = bench.log.held_in(GROUP, hit)[0];
            bench.device.hold(true);
            let records = run(1, first.0, last.0, 1, 600);
            bench.log.carry_run(GROUP, first, &records).expect("there is room");
            bench.append_run(1, 41, 60, 1, 600);
            let mut done = 0;
            for _ in 0..200 {
                bench.turn();
                let held = bench.device.held().len();
                if done < steps && held > 0 {
                    bench.device.finish(if newest { held - 1 } else { 0 });
                    done += 1;
                    bench.turn();
                }
            }
            bench.device.power_cut(|_| keep);
            bench.device.hold(false);
            let (log, recovered) =
                try_recover(small.clone(), &mut bench.device).expect("recovered");
            bench.log = log;
            let group = &recovered.groups[&GROUP];
            let what = format!("{steps} steps, kept: {keep}: {group:?}");
            assert!(group.last >= first.previous(), "{what}");
            if group.damaged.is_some() {
                assert!(group.last < last, "{what}");
                let from = group.last.next();
                seen[usize::from(from > first)] += 1;
                let records = run(1, from.0, last.0, 1, 600);
                bench.log.carry_run(GROUP, from, &records).expect("there is room");
                bench.flush();
            } else {
                assert!(group.last >= Index(40), "{what}");
                seen[2] += 1;
            }
            bench.settle();
            assert!(bench.read(1, 1, 40).expect("held") == run(1, 1, 40, 1, 600), "{what}");
            bench.device.kill();
            let again = try_recover(small.clone(), &mut bench.device).expect("recovered").1;
            assert_eq!(again.groups[&GROUP].damaged, None, "{what}");
        }
    }
    assert!(seen.iter().all(|&times| times > 0), "nothing, a part and all was there: {seen:?}");
}

/// A read that is under way when the entries move is answered from their new place, not with the
/// rot of the old one.
#[test]
fn a_read_under_way_follows_what_is_carried() {
    let (mut bench, middle) = written();
    rot(&mut bench.device, middle);
    bench.device.hold(true);
    let request = ringraft_wal::ReadRequest {
        ticket: 9,
        group: GROUP,
        first: Index(6),
        last: Index(14),
        bytes_max: 1 << 20,
    };
    bench.log.read(request);
    bench.turn();
    let held = bench.device.held().len();
    bench.device.finish(held - 1);
    bench.turn();
    assert!(bench.log.take_read().is_none(), "one bad read proves nothing");
    carry(&mut bench, 6, 9);
    bench.device.hold(false);
    bench.flush();
    bench.turn();
    let done = bench.log.take_read().expect("answered").result.expect("it is there again");
    assert!(done == [run(1, 6, 9, 1, 100), run(1, 10, 14, 2, 100)].concat());
}

/// One block holds entries, carried ones of before them, and entries that remove some of the first.
#[test]
fn carried_and_new_entries_share_a_block() {
    let (mut bench, _) = written();
    bench.append_run(1, 15, 20, 2, 100);
    carry(&mut bench, 3, 4);
    bench.append_run(1, 17, 18, 3, 100);
    carry(&mut bench, 3, 3);
    bench.append_run(1, 19, 21, 3, 100);
    bench.flush();
    let expected = [whole(), run(1, 15, 16, 2, 100), run(1, 17, 21, 3, 100)].concat();
    for _ in 0..2 {
        assert!(bench.read(1, 1, 21).expect("held") == expected);
        let recovered = bench.restart();
        assert!(recovered.rot.is_empty(), "{recovered:?}");
        assert_eq!(recovered.groups[&GROUP].last, Index(21));
        bench.settle();
    }
}

/// A carried record rots beside new entries of its group: a start doesn't use these either, and says
/// that they are missing.
#[test]
fn rot_of_what_is_carried_names_the_new_entries_beside_it() {
    for is_first in [false, true] {
        let (mut bench, _) = written();
        if is_first {
            carry(&mut bench, 3, 3);
        }
        bench.append_run(1, 15, 16, 2, 100);
        if !is_first {
            carry(&mut bench, 3, 3);
        }
        let sequence = bench.flush();
        bench.settle();
        let block = block_at(&bench.device, sequence);
        let bytes = bench.device.content(block.file);
        let bytes = &bytes[block.offset as usize..][..block.header.length as usize];
        let inner = entry(1, 3, 1, 100);
        let at = bytes.windows(inner.len()).position(|part| part == inner).expect("carried");
        bench.device.flip_bit(block.file, (block.offset + at as u64 + 60) * 8);
        let recovered = bench.restart();
        let group = &recovered.groups[&GROUP];
        assert_eq!((group.last, group.damaged), (Index(14), Some(LogId::new(Term(2), Index(16)))));
        let outline = group.outline.as_ref().expect("what is missing is known");
        assert_eq!(outline.holes, [(Index(15), Index(16))]);
    }
}

/// Entries that were carried and are removed afterwards stay removed.
#[test]
fn what_is_carried_is_removed_like_any_other() {
    let (mut bench, middle) = written();
    rot(&mut bench.device, middle);
    carry(&mut bench, 6, 9);
    bench.append_run(1, 8, 8, 3, 100);
    bench.settle();
    let expected = [run(1, 1, 7, 1, 100), run(1, 8, 8, 3, 100)].concat();
    for _ in 0..2 {
        assert!(bench.read(1, 1, 99).expect("held") == expected);
        let recovered = bench.restart();
        let group = &recovered.groups[&GROUP];
        assert_eq!((group.first, group.last, group.damaged), (Index(1), Index(8), None));
        bench.settle();
    }
}

/// A log that is full, or whose blocks are too short, takes nothing of a run.
#[test]
fn a_full_log_carries_nothing() {
    let (mut bench, _) = written();
    bench.device.hold(true);
    while bench
        .log
        .append_run(GroupId(3), Index(1), Index(1), Term(1), &entry(3, 1, 1, 9_000))
        .is_ok()
    {}
    let before = bench.log.unsubmitted_bytes();
    let records = run(1, 6, 9, 1, 9_000);
    let refused = bench.log.carry_run(GROUP, Index(6), &records);
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    bench.device.hold(false);
    bench.flush();
    let limit = bench.log.record_bytes_max();
    let refused = bench.log.carry_run(GROUP, Index(6), &entry(1, 6, 1, limit - 40));
    assert!(matches!(refused, Err(AppendError::TooLong { .. })), "{refused:?}");
    assert!(before > 0 && bench.log.unsubmitted_bytes() == 0);
    assert!(bench.read(1, 1, 14).expect("held") == whole());
}
