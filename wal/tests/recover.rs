//! Recovery: every row of the decision table is a case here.

mod disk;

use disk::*;
use ringraft_types::record::{RecordKind, encode};
use ringraft_types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Sequence, Term};
use ringraft_wal::device::memory::{Effect, Fault, MemoryDevice, OperationKind};
use ringraft_wal::error::RotKind;
use ringraft_wal::{LogSettings, ReadError, Recovered, WalError};

/// Group 1 in a block, group 2 in the next, group 1 again in the third, then the seal.
fn three_blocks() -> (Bench, [Sequence; 3]) {
    let mut bench = Bench::new(settings());
    let sequences = [bench.block(1, 1, 5, 1), bench.block(2, 1, 4, 1), bench.block(1, 6, 9, 2)];
    bench.settle();
    assert_eq!(blocks(&bench.device).len(), 5, "first of a life, three, seal");
    (bench, sequences)
}

fn flip(device: &mut MemoryDevice, sequence: Sequence, byte: u64) {
    let block = block_at(device, sequence);
    device.flip_bit(block.file, (block.offset + byte) * 8 + 3);
}

fn kinds(recovered: &Recovered) -> Vec<RotKind> {
    recovered.rot.iter().map(|rot| rot.kind).collect()
}

/// What was appended and made durable comes back, by recovery and by reading.
#[test]
fn a_chain_of_intact_blocks_is_kept() {
    let mut bench = Bench::new(settings());
    bench.append(&hard(7, 2, 1, 0));
    bench.append_run(7, 1, 100, 2, 300);
    bench.append(&record(RecordKind::Home, 0, 7, 0, b""));
    bench.append_run(8, 1, 3, 1, 10);
    bench.settle();
    bench.append_run(7, 51, 60, 3, 300);
    bench.append(&hard(7, 3, 2, 49));
    bench.settle();
    for _ in 0..2 {
        let expected = [run(7, 1, 50, 2, 300), run(7, 51, 60, 3, 300)].concat();
        assert!(bench.read(7, 1, 1000).expect("held") == expected);
        let expected = [run(7, 40, 50, 2, 300), run(7, 51, 55, 3, 300)].concat();
        assert!(bench.read(7, 40, 55).expect("held") == expected);
        assert!(bench.read(8, 1, 3).expect("held") == run(8, 1, 3, 1, 10));
        let recovered = bench.restart();
        assert!(recovered.rot.is_empty() && recovered.torn_blocks == 0, "{recovered:?}");
        let group = &recovered.groups[&GroupId(7)];
        assert_eq!(group.hard, Some((Term(3), 2, Index(49))));
        assert_eq!((group.first, group.last), (Index(1), Index(60)));
        assert_eq!(group.runs, [(Index(1), Term(2)), (Index(51), Term(3))]);
        assert_eq!(group.damaged, None);
        assert_eq!(recovered.groups[&GroupId(8)].last, Index(3));
        assert_eq!(recovered.node_records, [record(RecordKind::Home, 0, 7, 0, b"")]);
        bench.settle();
    }
}

/// An empty directory is an empty log, and the first sequence is 1.
#[test]
fn an_empty_directory_is_an_empty_log() {
    let mut device = MemoryDevice::new(4096);
    let (log, recovered) = recover(&mut device);
    assert!(recovered.is_empty && recovered.last == Sequence::ZERO);
    assert!(device.files().is_empty(), "recovery by itself makes nothing");
    assert_eq!(log.durable(), Sequence::ZERO);
    let bench = Bench::new(settings());
    assert_eq!(bench.log.durable(), Sequence(1));
}

/// Rot of a block with its header, newest sequence known: the next header repeats the directory,
/// so exactly its groups are damaged, with the floor that the directory names.
#[test]
fn a_rotten_block_is_named_by_the_next_header() {
    let (mut bench, [_, second, _]) = three_blocks();
    flip(&mut bench.device, second, 20);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::Block]);
    assert_eq!(recovered.rot[0].groups, [GroupId(2)]);
    let damaged = &recovered.groups[&GroupId(2)];
    assert_eq!(damaged.damaged, Some(LogId::new(Term(1), Index(4))));
    assert_eq!((damaged.first, damaged.last), (Index(1), Index(0)));
    let intact = &recovered.groups[&GroupId(1)];
    assert_eq!((intact.damaged, intact.last), (None, Index(9)));
    assert_eq!(bench.read(2, 1, 4), Err(ReadError::NotHeld));
    assert!(bench.read(1, 1, 9).is_ok(), "later blocks are kept");
    assert_eq!(recovered.torn_blocks, 0);
}

/// The last block with records is judged by the seal: rot, not torn.
#[test]
fn a_seal_tells_rot_of_the_last_block_from_a_torn_write() {
    let (mut bench, [.., third]) = three_blocks();
    flip(&mut bench.device, third, 20);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::Block]);
    let group = &recovered.groups[&GroupId(1)];
    assert_eq!(group.damaged, Some(LogId::new(Term(2), Index(9))));
    assert_eq!((group.first, group.last), (Index(1), Index(5)), "what is before the hole is kept");
}

/// Without a seal the last block's rot can't be told from a torn write: cut and counted.
#[test]
fn without_a_seal_the_last_block_counts_as_torn() {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    let last = bench.block(1, 6, 9, 1);
    flip(&mut bench.device, last, 20);
    let recovered = bench.restart();
    assert_eq!((recovered.torn_blocks, recovered.rot.len()), (1, 0));
    let group = &recovered.groups[&GroupId(1)];
    assert_eq!((group.last, group.damaged), (Index(5), None));
}

/// Entries of a term that no hard state knows: the one that did is lost, and with it whom the node
/// voted for, in a term that nobody can tell (V4). What damaged the log left no other trace: the block
/// and the repetition of its directory are gone (seed 126).
#[test]
fn a_term_without_its_hard_state_was_lost() {
    let mut bench = Bench::new(settings());
    for group in 1..=2 {
        bench.append(&hard(group, 1, 2, 0));
        bench.append_run(group, 1, 1, 1, 100);
    }
    bench.flush();
    bench.append_run(1, 2, 2, 2, 100);
    bench.append_run(2, 2, 2, 1, 100);
    bench.flush();
    bench.settle();
    bench.device.kill();
    let (_, recovered) = recover(&mut bench.device);
    let lost = |group| recovered.groups[&GroupId(group)].hard_lost;
    assert_eq!((lost(1), lost(2)), (Some(Term(u64::MAX)), None));
}

/// A rotten record under an intact header: only its group is damaged, its neighbours in the same
/// block aren't and can be read back, and a hard state that was lost is reported with its term.
#[test]
fn a_rotten_record_damages_only_its_group() {
    for hit in 0..4u64 {
        let mut bench = Bench::new(settings());
        let mut starts = Vec::new();
        let mut at = 136;
        for group in 1..=3 {
            let records = run(group, 1, 2, 1, 100);
            starts.push(at);
            at += records.len() as u64;
            bench.append_run(group, 1, 2, 1, 100);
        }
        starts.push(at);
        bench.append(&hard(4, 6, 2, 0));
        let sequence = bench.flush();
        bench.settle();
        let block = block_at(&bench.device, sequence);
        assert_eq!(block.header.head(), 136, "the first of a life repeats nothing");
        // In the payload, and in the length.
        for byte in [44, 5] {
            let mut copy = bench.device.clone();
            copy.kill();
            let at = block.offset + starts[hit as usize] + byte;
            copy.flip_bit(block.file, at * 8);
            let (mut log, recovered) = recover(&mut copy);
            assert_eq!(kinds(&recovered), [RotKind::Records]);
            for group in 1..=3u64 {
                let found = &recovered.groups[&GroupId(group)];
                if group == hit + 1 {
                    assert_eq!(found.damaged, Some(LogId::new(Term(1), Index(2))));
                } else if byte == 44 {
                    assert_eq!((found.damaged, found.last), (None, Index(2)), "group {group}");
                    let records = read(&mut log, &mut copy, group, 1, 2);
                    assert_eq!(records, Ok(run(group, 1, 2, 1, 100)), "and can be read back");
                }
            }
            let lost = recovered.groups[&GroupId(4)].hard_lost;
            if hit == 3 {
                assert_eq!(lost, Some(Term(6)));
            } else if byte == 44 {
                assert_eq!(lost, None);
            }
        }
    }
}

/// A record that is rotten above the newest durable sequence is a torn write.
#[test]
fn a_rotten_record_above_durable_is_torn() {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    let last = bench.block(1, 6, 9, 1);
    flip(&mut bench.device, last, 300);
    let recovered = bench.restart();
    assert_eq!((recovered.torn_blocks, recovered.rot.len()), (1, 0));
    assert_eq!(recovered.groups[&GroupId(1)].last, Index(5));
}

/// A later record overrules the damage: entries written again, and a newer hard state.
#[test]
fn what_was_written_again_is_not_damaged() {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    bench.append(&hard(1, 1, 1, 0));
    let rotten = bench.block(1, 6, 9, 1);
    bench.append(&hard(1, 2, 1, 0));
    bench.block(1, 6, 7, 2);
    bench.settle();
    flip(&mut bench.device, rotten, 20);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::Block]);
    let group = &recovered.groups[&GroupId(1)];
    assert_eq!((group.damaged, group.hard_lost, group.last), (None, None, Index(7)));
    assert_eq!(group.hard, Some((Term(2), 1, Index(0))));
}

/// A log whose group 1 holds entries 1 to 5 and 10 to 12, and a hole between them.
fn log_with_hole() -> (Bench, Recovered) {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    let rotten = bench.block(1, 6, 9, 1);
    bench.block(1, 10, 12, 2);
    bench.settle();
    flip(&mut bench.device, rotten, 20);
    let recovered = bench.restart();
    (bench, recovered)
}

/// Entries behind the hole are offered as the tail, and can be read.
#[test]
fn entries_behind_a_hole_are_offered_as_the_tail() {
    let (mut bench, recovered) = log_with_hole();
    let group = &recovered.groups[&GroupId(1)];
    assert_eq!((group.first, group.last), (Index(1), Index(5)));
    assert_eq!(group.damaged, Some(LogId::new(Term(2), Index(12))));
    let tail = group.tail.as_ref().expect("there are entries behind the hole");
    assert_eq!((tail.first, tail.last), (Index(10), Index(12)));
    assert_eq!(tail.terms, [(Index(10), Term(2))]);
    assert!(bench.read(1, 10, 12).expect("held") == run(1, 10, 12, 2, 100));
    assert_eq!(bench.read(1, 7, 7), Err(ReadError::NotHeld));
}

/// The whole log with its holes is told, with the terms of what is missing, as far as they follow
/// from what is there (S06).
#[test]
fn a_log_with_holes_is_outlined() {
    let outlined = |blocks: &[(u64, u64, u64)], lost: &[usize]| {
        let mut bench = Bench::new(settings());
        let mut sequences = Vec::new();
        for &(first, last, term) in blocks {
            sequences.push(bench.block(1, first, last, term));
            // Of another group, so that no two headers in a row are lost.
            bench.block(2, first, first, 1);
        }
        bench.settle();
        for &at in lost {
            flip(&mut bench.device, sequences[at], 20);
        }
        let recovered = bench.restart();
        let outline = recovered.groups[&GroupId(1)].outline.clone();
        outline.map(|it| {
            assert_eq!(it.run.first, Index(1));
            let terms = it.run.terms.iter().map(|&(first, term)| (first.0, term.0));
            let holes = it.holes.iter().map(|hole| (hole.0.0, hole.1.0));
            (it.run.last.0, terms.collect::<Vec<_>>(), holes.collect::<Vec<_>>())
        })
    };
    let ones = [(1, 5, 1), (6, 9, 1), (10, 12, 2), (13, 13, 3), (14, 16, 3)];
    assert_eq!(outlined(&ones, &[]), None, "nothing is missing");
    let terms = vec![(1, 1), (10, 2), (13, 3)];
    // Of one term all of them, or a single entry: there is no doubt.
    for (lost, holes) in [
        (&[0][..], &[(1, 5)][..]),
        (&[1], &[(6, 9)]),
        (&[3], &[(13, 13)]),
        (&[1, 3, 4], &[(6, 9), (13, 13), (14, 16)]),
        (&[0, 1], &[(1, 5), (6, 9)]),
    ] {
        assert_eq!(outlined(&ones, lost), Some((16, terms.clone(), holes.to_vec())), "{lost:?}");
    }
    // A new term begins somewhere in the hole, at its end at the latest.
    let doubt = vec![(1, 1), (10, 0), (12, 2), (13, 3)];
    assert_eq!(outlined(&ones, &[2]), Some((16, doubt, vec![(10, 12)])));
    let doubt = vec![(1, 1), (10, 0), (12, 2), (13, 0), (16, 4)];
    let fours = [ones[0], ones[1], ones[2], (13, 16, 4)];
    assert_eq!(outlined(&fours, &[2, 3]), Some((16, doubt, vec![(10, 12), (13, 16)])));
    // A newer leader removed a part of what is lost: of what is left only the bounds are known.
    let cut = [(1, 5, 1), (6, 9, 2), (8, 10, 3)];
    let doubt = vec![(1, 1), (6, 0), (8, 3)];
    assert_eq!(outlined(&cut, &[1]), Some((10, doubt, vec![(6, 7)])));
    // The end of the log isn't known: nothing is told of it.
    let cut = [(1, 5, 1), (6, 9, 2)];
    let mut bench = Bench::new(settings());
    let sequences = cut.map(|(first, last, term)| bench.block(1, first, last, term));
    bench.append(&record(RecordKind::Truncate, 1, 8, 3, b""));
    bench.settle();
    flip(&mut bench.device, sequences[1], 20);
    let group = &bench.restart().groups[&GroupId(1)];
    assert_eq!((group.last, &group.outline), (Index(5), &None));
    assert!(group.damaged.is_some());
}

/// A group that is filled up again after damage goes on voting as if it held what it lost, start
/// after start, until its log is as new (S05): what is behind the hole was promised too.
#[test]
fn a_group_half_filled_up_is_still_damaged() {
    let (mut bench, _) = log_with_hole();
    let floor = Some(LogId::new(Term(2), Index(12)));
    for (first, last, term, damaged) in
        [(6, 7, 1, floor), (8, 9, 1, floor), (10, 11, 2, floor), (12, 12, 2, None)]
    {
        bench.block(1, first, last, term);
        bench.settle();
        let recovered = bench.restart();
        let group = &recovered.groups[&GroupId(1)];
        assert_eq!((group.last, group.damaged), (Index(last), damaged));
    }
}

/// A group whose log was as new as what it lost is whole, and stays so when a newer leader removes
/// entries of it: they were never committed (decision 0013).
#[test]
fn a_group_filled_up_again_owes_nothing_any_more() {
    let (mut bench, _) = log_with_hole();
    bench.block(1, 6, 7, 1);
    // As new by its term, not as long.
    bench.block(1, 8, 8, 3);
    bench.settle();
    let group = &bench.restart().groups[&GroupId(1)];
    assert_eq!((group.last, group.damaged), (Index(8), None));
    bench.append(&record(RecordKind::Truncate, 1, 8, 4, b""));
    bench.settle();
    let group = &bench.restart().groups[&GroupId(1)];
    assert_eq!((group.last, group.damaged), (Index(7), None));
}

/// A record of the node itself says all that the log says of it, so rot of one that has an intact
/// successor is no loss; rot of the newest, or of records of other kinds, is one for all groups.
/// What was written in a life that knew of the loss makes it good only if it is such a successor.
#[test]
fn a_superseded_record_of_the_node_is_no_loss() {
    let node = |bench: &mut Bench, kind, byte| {
        bench.append(&record(kind, 0, 0, 0, &[byte]));
        bench.flush()
    };
    let (kind, other) = (RecordKind::Node, RecordKind::Home);
    for (kinds, rotten, is_lost) in [
        ([kind, kind], 0, false),
        ([kind, kind], 1, true),
        ([other, kind], 0, true),
        ([kind, other], 0, true),
    ] {
        let mut bench = Bench::new(settings());
        let [first, second] = [0, 1].map(|at| node(&mut bench, kinds[at], at as u8));
        bench.block(1, 1, 5, 1);
        bench.settle();
        let rotten = [first, second][rotten];
        // The whole block, or the record only.
        let head = block_at(&bench.device, rotten).header.head() as u64;
        for (byte, rot) in [(20, RotKind::Block), (head + 40, RotKind::Records)] {
            let mut device = bench.device.clone();
            device.kill();
            flip(&mut device, rotten, byte);
            let (mut log, recovered) = recover(&mut device);
            let what = format!("{kinds:?}, {rotten:?}, {rot:?}");
            assert_eq!(self::kinds(&recovered), [rot], "{what}");
            assert_eq!(recovered.node_damaged, is_lost, "{what}: {recovered:?}");
            assert_eq!(recovered.groups[&GroupId(1)].damaged, None, "{what}");
            if !is_lost {
                assert_eq!(recovered.node_records, [record(kind, 0, 0, 0, &[1])], "{what}");
            }
            // No segment goes while records of the node are lost: what is kept of them would be
            // written again, and pass for the newest.
            log.append_run(GroupId(1), Index(6), Index(6), Term(1), &entry(1, 6, 1, 50))
                .expect("room");
            log.release(GroupId(1), Index(6));
            for turn in 0..200u64 {
                log.turn(ringraft_types::Ticks(turn * 1000), &mut device).expect("goes on");
            }
            let is_there = device.files().iter().any(|(file, _)| *file == segment(1));
            assert_eq!(is_there, is_lost, "{what}");
            device.kill();
            assert_eq!(recover(&mut device).1.node_damaged, is_lost, "{what}, again");
        }
    }
}

/// Two blocks in a row: what the first of them held isn't known any more, so every group votes
/// for nobody until it is repaired.
#[test]
fn two_rotten_blocks_in_a_row_damage_everyone() {
    let (mut bench, [first, second, _]) = three_blocks();
    flip(&mut bench.device, first, 20);
    flip(&mut bench.device, second, 20);
    let recovered = bench.restart();
    assert!(recovered.unknown_damage && recovered.node_damaged);
    for group in recovered.groups.values() {
        assert_eq!(group.damaged, Some(LogId::new(Term(u64::MAX), Index(u64::MAX))));
        assert_eq!(group.hard_lost, Some(Term(u64::MAX)));
    }
    assert!(kinds(&recovered).contains(&RotKind::Unknown));
}

/// Fills several segments with blocks of one group.
fn long_log() -> Bench {
    let mut bench = Bench::new(settings());
    for first in 0..120 {
        bench.block(1 + first % 3, 1 + first / 3 * 4, 4 + first / 3 * 4, 1);
        bench.turn();
    }
    bench.settle();
    assert!(bench.log.segments() >= 4);
    bench
}

/// A segment that is missing in the middle, or the oldest one, is rot, never a fresh start.
#[test]
fn a_missing_segment_is_noticed() {
    let bench = long_log();
    for number in 1..=3 {
        let mut device = bench.device.clone();
        device.kill();
        device.delete(segment(number));
        let (mut log, recovered) = recover(&mut device);
        assert!(recovered.unknown_damage, "segment {number}");
        assert!(recovered.groups.values().all(|group| group.damaged.is_some()));
        // The log goes on, and the next start sees the same.
        for _ in 0..20 {
            log.turn(ringraft_types::Ticks(5), &mut device).expect("the log goes on");
        }
        device.kill();
        assert!(recover(&mut device).1.unknown_damage, "segment {number}");
    }
}

/// A segment cut short by someone loses its blocks as if they were rotten.
#[test]
fn a_truncated_segment_is_noticed() {
    let mut bench = long_log();
    bench.device.set_length(segment(2), 9_000);
    let recovered = bench.restart();
    assert!(recovered.unknown_damage);
}

/// The newest segment, cut short from outside, may have held what was acknowledged: a start says
/// so and changes nothing, were it cut behind a block or to its bare header.
#[test]
fn a_newest_segment_that_was_cut_is_no_torn_tail() {
    for length in [4_096, 12_288] {
        let mut bench = Bench::new(settings());
        bench.block(1, 1, 5, 1);
        bench.block(1, 6, 9, 1);
        bench.device.kill();
        bench.device.set_length(segment(1), length);
        let before = bench.device.files();
        let refused = try_recover(settings(), &mut bench.device).map(|_| ()).expect_err("refused");
        let file = segment(1);
        assert_eq!(refused, WalError::Unreadable { file, offset: length, errno: 0 });
        assert_eq!(before, bench.device.files(), "nothing was removed");
    }
}

/// A rotten segment header alone loses nothing.
#[test]
fn a_rotten_segment_header_loses_nothing() {
    let (mut bench, _) = three_blocks();
    bench.device.flip_bit(segment(1), 35 * 8);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::SegmentHeader]);
    assert!(recovered.groups.values().all(|group| group.damaged.is_none()));
    assert_eq!(recovered.groups[&GroupId(1)].last, Index(9));
}

/// Padding is checked; losing it loses nothing.
#[test]
fn padding_that_is_not_zero_is_reported() {
    let (mut bench, [_, second, _]) = three_blocks();
    let used = block_at(&bench.device, second).header.used() as u64;
    flip(&mut bench.device, second, used + 10);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::Padding]);
    assert!(recovered.groups.values().all(|group| group.damaged.is_none()));
}

/// Several blocks in flight, an early one torn and a later one whole: the hole and everything
/// above it is cut, stays cut after the next start, and its sequences are not used again.
#[test]
fn a_hole_above_durable_cuts_what_is_behind_it() {
    let mut bench = Bench::new(LogSettings { inflight_max: 4, ..settings() });
    bench.block(1, 1, 5, 1);
    bench.device.hold(true);
    let mut sequences = Vec::new();
    for block in 0..4u64 {
        bench.append_run(1, 6 + block, 6 + block, 1, 100);
        bench.log.turn(bench.now, &mut bench.device).expect("goes on");
        sequences.push(bench.log.submitted());
    }
    assert_eq!(bench.device.held().len(), 4);
    // The second and the fourth reach the disk.
    bench.device.finish(3);
    bench.device.finish(1);
    bench.log.turn(bench.now, &mut bench.device).expect("goes on");
    assert!(bench.log.durable() < sequences[0], "durable is the contiguous prefix");
    bench.device.power_cut(|_| false);
    for round in 0..2 {
        let (log, recovered) = recover(&mut bench.device);
        bench.log = log;
        let group = &recovered.groups[&GroupId(1)];
        assert_eq!((group.last, group.damaged), (Index(5), None), "round {round}");
        if round == 0 {
            assert_eq!(recovered.torn_blocks, 2);
            bench.settle();
            bench.block(2, 1, 1, 1);
            assert!(bench.log.durable() > sequences[3]);
            bench.device.kill();
        }
    }
}

/// Blocks of another place, as in a file used again without zeros, are ignored.
#[test]
fn stale_blocks_are_ignored() {
    let (mut bench, [first, second, third]) = three_blocks();
    let (from, to) = (block_at(&bench.device, first), block_at(&bench.device, third));
    let bytes = bench.device.content(from.file);
    let at = from.offset as usize;
    // Behind the end of the log: a whole old block at a place that isn't its own.
    bench.device.corrupt(from.file, to.offset + 3 * 4096, &bytes[at..at + 4096]);
    let recovered = bench.restart();
    assert_eq!((recovered.stale_blocks, recovered.rot.len()), (1, 0));
    assert_eq!(recovered.groups[&GroupId(1)].last, Index(9));
    // In the place of a block that is needed: rot.
    let (mut bench, _) = three_blocks();
    let to = block_at(&bench.device, second);
    bench.device.corrupt(to.file, to.offset, &bytes[at..at + 4096]);
    let recovered = bench.restart();
    assert_eq!(recovered.stale_blocks, 1);
    assert_eq!(recovered.groups[&GroupId(2)].damaged, Some(LogId::new(Term(1), Index(4))));
}

/// A whole old segment under a new name is refused by its header.
#[test]
fn a_renamed_segment_is_refused() {
    let (mut bench, _) = three_blocks();
    let bytes = bench.device.content(segment(1));
    bench.device.corrupt(segment(2), 0, &bytes);
    bench.device.kill();
    let refused = try_recover(settings(), &mut bench.device).map(|_| ());
    assert!(matches!(refused, Err(WalError::Foreign { what: "segment", .. })), "{refused:?}");
}

/// Another life's log with the same content has other blocks: the chain tells.
#[test]
fn a_lost_write_that_left_an_older_block_is_noticed() {
    let (mut bench, [_, second, _]) = three_blocks();
    // The same place and sequence, written by a fork of this log.
    let mut fork = Bench::new(settings());
    fork.block(1, 1, 5, 1);
    fork.block(2, 1, 3, 1);
    let old = block_at(&fork.device, second);
    let bytes = fork.device.content(old.file);
    let at = old.offset as usize;
    bench.device.corrupt(old.file, old.offset, &bytes[at..at + old.header.length as usize]);
    let recovered = bench.restart();
    assert_eq!(kinds(&recovered), [RotKind::Block]);
    assert_eq!(recovered.groups[&GroupId(2)].damaged, Some(LogId::new(Term(1), Index(4))));
}

/// A log of another cluster, node, life or number is refused, and nothing is changed.
#[test]
fn a_foreign_log_is_refused() {
    let (mut bench, _) = three_blocks();
    bench.device.kill();
    let before = bench.device.files();
    let wrong = [
        ("cluster", LogSettings { cluster: ClusterId(9), ..settings() }),
        ("node", LogSettings { node: NodeId(9), ..settings() }),
        ("incarnation", LogSettings { incarnation: Incarnation(9), ..settings() }),
    ];
    for (expected, settings) in wrong {
        match try_recover(settings, &mut bench.device).map(|_| ()) {
            Err(WalError::Foreign { what, .. }) => assert_eq!(what, expected),
            other => panic!("expected a refusal, got {other:?}"),
        }
        assert_eq!(bench.device.files(), before);
    }
    // Also with a rotten segment header.
    bench.device.delete(segment(2));
    bench.device.corrupt(segment(1), 0, &[9; 64]);
    let other = LogSettings { cluster: ClusterId(9), ..settings() };
    let refused = try_recover(other, &mut bench.device).map(|_| ());
    assert!(matches!(refused, Err(WalError::Foreign { .. })), "{refused:?}");
}

/// A crash at any step of making a segment leaves a file that is removed or used, and never taken
/// for a lost one.
#[test]
fn a_half_made_segment_is_removed() {
    for steps in 0..40 {
        for keep in [false, true] {
            let mut device = MemoryDevice::new(4096);
            let (mut log, _) = recover(&mut device);
            device.hold(true);
            for step in 0..steps {
                log.turn(ringraft_types::Ticks(step * 1000), &mut device).expect("goes on");
                if !device.held().is_empty() {
                    device.finish(0);
                }
            }
            device.power_cut(|_| keep);
            let (mut log, recovered) = recover(&mut device);
            assert!(recovered.rot.is_empty() && !recovered.unknown_damage, "step {steps}");
            assert!(recovered.groups.is_empty());
            for turn in 0..200u64 {
                log.turn(ringraft_types::Ticks(turn * 1000), &mut device).expect("goes on");
            }
            assert!(device.files().len() <= 3, "step {steps}: {:?}", device.files());
            assert!(log.durable() > Sequence::ZERO);
        }
    }
}

/// An intact record of an unknown kind, or an intact block or segment of an unknown version, is
/// refused, never skipped.
#[test]
fn a_newer_format_is_refused() {
    let (mut bench, [_, second, _]) = three_blocks();
    bench.device.kill();
    let block = block_at(&bench.device, second);
    let bytes = bench.device.content(block.file);
    let at = block.offset as usize;

    let mut newer = bytes[at..at + block.header.length as usize].to_vec();
    let head = block.header.head();
    let length = u32::from_le_bytes(newer[head + 4..head + 8].try_into().expect("four")) as usize;
    newer[head + 8] = 77;
    let checksum = crc32fast::hash(&newer[head + 4..head + 40 + length]);
    newer[head..head + 4].copy_from_slice(&checksum.to_le_bytes());
    let mut device = bench.device.clone();
    device.corrupt(block.file, block.offset, &newer);
    let refused = try_recover(settings(), &mut device).map(|_| ());
    assert!(matches!(refused, Err(WalError::Kind { kind: 77, .. })), "{refused:?}");

    let mut newer = bytes[at..at + block.header.length as usize].to_vec();
    newer[16] = 2;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&newer[..8]);
    hasher.update(&newer[12..head]);
    hasher.update(&newer[block.header.directory_at as usize..block.header.used()]);
    newer[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    let mut device = bench.device.clone();
    device.corrupt(block.file, block.offset, &newer);
    let refused = try_recover(settings(), &mut device).map(|_| ());
    assert!(matches!(refused, Err(WalError::Version { version: 2, .. })), "{refused:?}");

    let mut newer = bytes[..4096].to_vec();
    newer[16] = 3;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&newer[..8]);
    hasher.update(&newer[12..80]);
    newer[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    bench.device.corrupt(block.file, 0, &newer);
    let refused = try_recover(settings(), &mut bench.device).map(|_| ());
    assert!(matches!(refused, Err(WalError::Version { version: 3, .. })), "{refused:?}");
}

/// An unreadable unit of what is kept is as rot of that unit; one that fails a few times is read
/// again.
#[test]
fn an_unreadable_unit_is_rot() {
    let (mut bench, [first, second, _]) = three_blocks();
    bench.device.kill();
    let effect = Effect::Errno(libc::EIO);
    for count in [1, 2, 4] {
        let mut transient = bench.device.clone();
        transient.inject(Fault { on: OperationKind::Read, after: 0, count, effect });
        let (_, recovered) = recover(&mut transient);
        assert!(recovered.rot.is_empty() && recovered.torn_blocks == 0, "{recovered:?}");
    }
    let block = block_at(&bench.device, second);
    bench.device.spoil(block.file, block.offset, 1);
    let (_, recovered) = recover(&mut bench.device);
    assert_eq!(kinds(&recovered), [RotKind::Block]);
    assert_eq!(recovered.groups[&GroupId(2)].damaged, Some(LogId::new(Term(1), Index(4))));
    let block = block_at(&bench.device, first);
    bench.device.spoil(block.file, 0, 1);
    let (_, recovered) = recover(&mut bench.device);
    assert_eq!(kinds(&recovered), [RotKind::SegmentHeader, RotKind::Block]);
}

/// A unit that can't be read where the newest block is, or may be, isn't a torn tail: it may have
/// been acknowledged (S18). Nothing is changed, and what can be read again is there.
#[test]
fn an_unreadable_tail_is_never_cut() {
    let acknowledged = |bench: &mut Bench| {
        bench.block(1, 1, 5, 1);
        // Longer than a unit, and no block after it says that it was durable.
        bench.append_run(1, 6, 9, 1, 3_000);
        let sequence = bench.flush();
        bench.device.kill();
        block_at(&bench.device, sequence)
    };
    let mut bench = Bench::new(settings());
    let block = acknowledged(&mut bench);
    let units = u64::from(block.header.length) / 4096;
    assert!(units >= 3, "{units} units");
    for unit in 0..units {
        let offset = block.offset + unit * 4096;
        let mut device = bench.device.clone();
        device.spoil(block.file, offset, 512);
        let before = (device.files(), device.content(block.file));
        let refused = try_recover(settings(), &mut device).map(|_| ());
        let expected = WalError::Unreadable { file: block.file, offset, errno: libc::EIO };
        assert_eq!(refused.expect_err("refused"), expected, "unit {unit}");
        assert!(before == (device.files(), device.content(block.file)), "nothing was changed");
    }
    let recovered = bench.restart();
    assert_eq!((recovered.groups[&GroupId(1)].last, recovered.torn_blocks), (Index(9), 0));
}

/// A torn tail is cut though a unit behind it can't be read: the next block would be where the
/// torn one is. Only what may be a part of that one stands in the way of a start.
#[test]
fn an_unreadable_unit_behind_a_torn_block_is_no_loss() {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 5, 1);
    bench.append_run(1, 6, 9, 1, 3_000);
    let newest = bench.flush();
    bench.device.kill();
    let block = block_at(&bench.device, newest);
    let end = block.offset + u64::from(block.header.length);
    let header = bench.device.content(block.file)[block.offset as usize..][..512].to_vec();
    // A write of which one sector isn't there: the first, so that nothing says what it was, the
    // one with the directory, or one between.
    for sector in [0, 3, block.header.used() as u64 / 512 - 1] {
        let mut torn = bench.device.clone();
        torn.corrupt(block.file, block.offset + sector * 512, &[0; 512]);
        for offset in (block.offset + 4096..end + 4096).step_by(4096) {
            let mut device = torn.clone();
            device.spoil(block.file, offset, 1);
            let found = try_recover(settings(), &mut device).map(|(_, recovered)| recovered);
            let is_part = sector != 0 && offset < end;
            let errno = libc::EIO;
            let refusal =
                is_part.then_some(WalError::Unreadable { file: block.file, offset, errno });
            assert_eq!(found.as_ref().err(), refusal.as_ref(), "sector {sector}, {offset}");
            if let Ok(recovered) = found {
                let group = &recovered.groups[&GroupId(1)];
                assert_eq!((group.last, group.damaged), (Index(5), None), "{recovered:?}");
                assert!(recovered.torn_blocks > 0 && recovered.rot.is_empty(), "{recovered:?}");
            }
        }
    }
    // A length that no block has isn't believed.
    let mut device = bench.device.clone();
    let mut senseless = header;
    senseless[128..132].copy_from_slice(&u32::MAX.to_le_bytes());
    device.corrupt(block.file, block.offset, &senseless);
    device.spoil(block.file, end + 4096, 1);
    assert!(try_recover(settings(), &mut device).is_err());
}

/// The next block may also be the first of a later segment. Where its place was read and no block
/// starts there, there is none, and what can't be read elsewhere in that segment is no loss: not
/// behind that place, and not the header.
#[test]
fn an_unreadable_unit_behind_zeros_is_no_loss() {
    let (bench, [_, _, third]) = three_blocks();
    let block = block_at(&bench.device, third);
    let seal = blocks(&bench.device).pop().expect("the seal");
    let place = seal.offset + u64::from(seal.header.length);
    let spare = segment(block.file.number + 1);
    let without = |file, offset| {
        let mut device = bench.device.clone();
        device.kill();
        device.spoil(file, offset, 1);
        device
    };
    for (file, offset) in [(block.file, place), (spare, 4096)] {
        let refused = try_recover(settings(), &mut without(file, offset)).map(|_| ());
        let expected = WalError::Unreadable { file, offset, errno: libc::EIO };
        assert_eq!(refused.expect_err("refused"), expected);
    }
    for (file, offset) in [(block.file, place + 4096), (spare, 8192), (spare, 0)] {
        let mut device = without(file, offset);
        let (mut log, recovered) = recover(&mut device);
        assert!(recovered.rot.is_empty(), "{recovered:?}");
        assert_eq!(recovered.groups[&GroupId(1)].last, Index(9));
        // The log goes on elsewhere, and what it acknowledges there comes back.
        log.append(&entry(1, 10, 2, 50)).expect("room");
        for turn in 0..200u64 {
            log.turn(ringraft_types::Ticks(turn * 1000), &mut device).expect("goes on");
        }
        assert!(log.is_idle());
        device.power_cut(|_| false);
        assert_eq!(recover(&mut device).1.groups[&GroupId(1)].last, Index(10));
    }
}

/// The first block of a life may be the newest that was acknowledged: one that can't be read is
/// never taken for a spare segment, whether its header can be read or not.
#[test]
fn an_unreadable_first_block_is_no_spare() {
    let (mut bench, _) = three_blocks();
    bench.restart();
    bench.block(1, 10, 12, 2);
    bench.device.kill();
    let file = segment(2);
    assert!(blocks(&bench.device).iter().any(|block| block.file == file && block.offset == 4096));
    for header_too in [false, true] {
        let mut device = bench.device.clone();
        let from = if header_too { 0 } else { 4096 };
        device.spoil(file, from, 8192 - from);
        let refused = try_recover(settings(), &mut device).map(|_| ());
        let expected = WalError::Unreadable { file, offset: 4096, errno: libc::EIO };
        assert_eq!(refused.expect_err("refused"), expected);
    }
    // Without its header, and shorter than a header with blocks is: what was cut off isn't known.
    let mut device = bench.device.clone();
    device.spoil(file, 0, 1);
    device.set_length(file, 4096);
    let refused = try_recover(settings(), &mut device).map(|_| ());
    let expected = WalError::Unreadable { file, offset: 4096, errno: 0 };
    assert_eq!(refused.expect_err("refused"), expected);
}

/// A log that was begun and has no block left is refused, files or none; one that was never begun
/// starts, and so does one with blocks.
#[test]
fn a_lost_log_is_refused() {
    let begun = LogSettings { is_begun: true, ..settings() };
    let try_on = |device: &MemoryDevice| {
        let mut device = device.clone();
        device.kill();
        try_recover(begun.clone(), &mut device).map(|(_, recovered)| recovered.is_empty)
    };
    let lost = Err(WalError::Lost { log_id: begun.log_id });
    let empty = MemoryDevice::new(4096);
    assert_eq!(try_on(&empty), lost);
    assert!(try_recover(settings(), &mut empty.clone()).expect("new").1.is_empty);

    let (mut bench, _) = three_blocks();
    assert_eq!(try_on(&bench.device), Ok(false));
    for block in blocks(&bench.device) {
        let zeros = vec![0; block.header.length as usize];
        bench.device.corrupt(block.file, block.offset, &zeros);
    }
    assert_eq!(try_on(&bench.device), lost, "zeroed");
}

/// `Truncate` only removes; an entry removes from its index on; carried records never remove.
#[test]
fn records_replay_in_the_order_of_sequences() {
    let mut bench = Bench::new(settings());
    bench.block(1, 1, 9, 1);
    bench.append(&record(RecordKind::Truncate, 1, 7, 0, b""));
    bench.flush();
    assert_eq!(bench.log.held(GroupId(1)), Some((Index(1), Index(6))));
    assert_eq!(bench.read(1, 7, 7), Err(ReadError::NotHeld));
    let recovered = bench.restart();
    assert_eq!(recovered.groups[&GroupId(1)].last, Index(6));
    for index in 1..=3 {
        let mut carried = Vec::new();
        let inner = entry(1, index, 1, 100);
        let group = GroupId(1);
        encode(&mut carried, RecordKind::Carried, group, Index(index), Term(1), [&inner, b""]);
        bench.append(&carried);
    }
    bench.settle();
    for _ in 0..2 {
        assert_eq!(bench.log.held(GroupId(1)), Some((Index(1), Index(6))));
        assert!(bench.read(1, 1, 6).expect("held") == run(1, 1, 6, 1, 100));
        let recovered = bench.restart();
        let group = &recovered.groups[&GroupId(1)];
        assert_eq!((group.first, group.last, group.damaged), (Index(1), Index(6), None));
    }
    // After a snapshot was installed the log goes on above a gap.
    bench.block(1, 50, 51, 4);
    let group = bench.restart().groups.remove(&GroupId(1)).expect("there");
    assert_eq!((group.first, group.last), (Index(50), Index(51)));
}

/// Old segments go when nothing in them is needed; live local records and carried entries keep
/// their group alive; a crash at any point of it is harmless.
#[test]
fn old_segments_are_removed_and_not_missed() {
    let mut bench = long_log();
    bench.append(&hard(9, 5, 1, 0));
    bench.settle();
    let before = bench.log.segments();
    for group in 1..=3 {
        let pins: Vec<GroupId> = (group..=3).map(GroupId).collect();
        assert_eq!(bench.log.oldest_pins(), pins, "those that were released don't pin it");
        bench.log.release(GroupId(group), Index(120));
    }
    bench.settle();
    assert!(bench.log.segments() < before && bench.log.stats().segments_removed > 0);
    let recovered = bench.restart();
    assert!(recovered.rot.is_empty() && !recovered.unknown_damage, "{recovered:?}");
    assert_eq!(recovered.groups[&GroupId(9)].hard, Some((Term(5), 1, Index(0))));
    for group in 1..=3 {
        assert_eq!(recovered.groups[&GroupId(group)].last, Index(160));
        let found = bench.read(group, 121, 160).expect("held");
        assert!(found == run(group, 121, 160, 1, 100));
    }
}

/// Two blocks with one sequence, in two segments: the one that fits the chain is kept.
#[test]
fn of_two_blocks_with_one_sequence_the_chained_one_is_kept() {
    let (mut bench, [.., third]) = three_blocks();
    let seal = block_at(&bench.device, bench.log.durable());
    let mut fork = Bench::new(settings());
    fork.block(1, 1, 2, 1);
    fork.block(2, 1, 2, 1);
    fork.block(1, 3, 4, 2);
    let other = block_at(&fork.device, third);
    let start = other.offset as usize;
    let mut bytes = fork.device.content(other.file)[start..start + 4096].to_vec();
    // The fork's block as it would lie behind the seal.
    bytes[72..80].copy_from_slice(&(seal.offset + 4096).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..8]);
    hasher.update(&bytes[12..other.header.head()]);
    hasher.update(&bytes[other.header.directory_at as usize..other.header.used()]);
    bytes[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    bench.device.corrupt(seal.file, seal.offset + 4096, &bytes);
    let recovered = bench.restart();
    assert_eq!((recovered.stale_blocks, recovered.rot.len()), (1, 0), "{recovered:?}");
    let group = &recovered.groups[&GroupId(1)];
    assert_eq!((group.last, group.damaged), (Index(9), None));
}

/// A process killed at any step of making a segment, and a power cut in the next life: what was
/// acknowledged in the adopted segment is there, its file's name included.
#[test]
fn an_adopted_segment_is_made_durable_first() {
    for steps in 0..40 {
        let mut device = MemoryDevice::new(4096);
        let (mut log, _) = recover(&mut device);
        device.hold(true);
        for step in 0..steps {
            log.turn(ringraft_types::Ticks(step * 1000), &mut device).expect("goes on");
            if !device.held().is_empty() {
                device.finish(0);
            }
        }
        device.kill();
        let (mut log, _) = recover(&mut device);
        log.append(&entry(1, 1, 1, 50)).expect("room");
        for turn in 0..200u64 {
            log.turn(ringraft_types::Ticks(turn * 1000), &mut device).expect("goes on");
        }
        assert!(log.is_idle());
        device.power_cut(|_| false);
        let (_, recovered) = recover(&mut device);
        assert_eq!(recovered.groups[&GroupId(1)].last, Index(1), "step {steps}");
    }
}
