//! Logs with holes whose beginning a snapshot takes the place of: a start after every record of such a
//! repair (decision 0023).

mod disk;

use disk::*;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};
use ringraft_wal::RecoveredGroup;

const GROUP: GroupId = GroupId(1);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// Blocks of the group, first and last entry and term of each; those at these places are rotten.
fn log(blocks: &[(u64, u64, u64)], rotten: &[usize]) -> Bench {
    let mut bench = Bench::new(settings());
    bench.append(&hard(GROUP.0, 3, 1, 0));
    let mut sequences: Vec<Sequence> = Vec::new();
    for &(first, last, term) in blocks {
        sequences.push(bench.block(GROUP.0, first, last, term));
        // Of another group, so that no two headers in a row are lost.
        bench.block(2, first, first, 1);
    }
    bench.settle();
    for &at in rotten {
        let block = block_at(&bench.device, sequences[at]);
        bench.device.flip_bit(block.file, (block.offset + 20) * 8);
    }
    bench.restart();
    bench.settle();
    bench
}

/// The record that names a snapshot.
fn name(bench: &mut Bench, index: u64, term: u64) {
    let number = 1u64.to_le_bytes();
    bench.append(&record(RecordKind::Snapshot, GROUP.0, index, term, &number));
}

fn carry(bench: &mut Bench, first: u64, last: u64, term: u64) {
    let records = run(GROUP.0, first, last, term, 100);
    bench.log.carry_run(GROUP, Index(first), &records).expect("there is room");
}

/// What the next start finds, and the one after that.
fn started(bench: &mut Bench) -> RecoveredGroup {
    bench.flush();
    bench.settle();
    let once = bench.restart().groups.remove(&GROUP).expect("it has a log");
    bench.settle();
    let again = bench.restart().groups.remove(&GROUP).expect("it has a log");
    bench.settle();
    assert_eq!((once.first, once.last, &once.tail), (again.first, again.last, &again.tail));
    assert_eq!((once.damaged, &once.outline), (again.damaged, &again.outline));
    once
}

/// Where a start has the log begin and end, the floor, and the holes of the outline.
#[track_caller]
fn assert_found(
    bench: &mut Bench,
    (first, last): (u64, u64),
    floor: Option<LogId>,
    holes: &[(u64, u64)],
) -> RecoveredGroup {
    let found = started(bench);
    assert_eq!((found.first, found.last), (Index(first), Index(last)), "{found:?}");
    assert_eq!(found.damaged, floor, "{found:?}");
    let told = found.outline.iter().flat_map(|it| &it.holes).map(|hole| (hole.0.0, hole.1.0));
    assert_eq!(told.collect::<Vec<_>>(), holes, "{found:?}");
    found
}

const BLOCKS: [(u64, u64, u64); 5] = [(1, 5, 1), (6, 9, 1), (10, 12, 2), (13, 13, 2), (14, 16, 3)];

/// Goal: whatever of a repair is durable, in both orders of its two halves, the rest is still known:
/// what the snapshot covers is missing no more, what it doesn't cover is, and nothing is owed from the
/// record on with which nothing is missing.
#[test]
fn each_step_of_a_repair_leaves_what_is_left() {
    let floor = Some(id(3, 16));
    for is_saved_first in [true, false] {
        let mut bench = log(&BLOCKS, &[1, 3]);
        assert_found(&mut bench, (1, 5), floor, &[(6, 9), (13, 13)]);
        bench.append(&hard(GROUP.0, 3, 1, 11));
        assert_found(&mut bench, (1, 5), floor, &[(6, 9), (13, 13)]);
        if is_saved_first {
            name(&mut bench, 11, 2);
            let found = assert_found(&mut bench, (12, 12), floor, &[(13, 13)]);
            let outline = found.outline.expect("there is a hole");
            assert_eq!((outline.run.first, outline.run.last), (Index(12), Index(16)));
            carry(&mut bench, 13, 13, 2);
        } else {
            carry(&mut bench, 13, 13, 2);
            assert_found(&mut bench, (1, 5), floor, &[(6, 9)]);
            name(&mut bench, 11, 2);
        }
        let found = assert_found(&mut bench, (12, 16), None, &[]);
        assert_eq!(found.runs, [(Index(12), Term(2)), (Index(14), Term(3))]);
        let entries = [run(GROUP.0, 12, 13, 2, 100), run(GROUP.0, 14, 16, 3, 100)].concat();
        assert!(bench.read(GROUP.0, 12, 16).expect("held") == entries);
    }
}

/// Goal: a snapshot may end anywhere: before a hole, in it, at its end, behind it, and behind
/// everything.
#[test]
fn a_snapshot_ends_anywhere() {
    let floor = Some(id(3, 16));
    for (index, term, range, floor, holes) in [
        (3, 1, (4, 5), floor, &[(6, 9), (13, 13)][..]),
        (5, 1, (6, 5), floor, &[(6, 9), (13, 13)]),
        (7, 1, (8, 7), floor, &[(8, 9), (13, 13)]),
        (9, 1, (10, 12), floor, &[(13, 13)]),
        (12, 2, (13, 12), floor, &[(13, 13)]),
        (13, 2, (14, 16), None, &[]),
        (15, 3, (16, 16), None, &[]),
        (16, 3, (17, 16), None, &[]),
        (20, 3, (21, 20), None, &[]),
    ] {
        let mut bench = log(&BLOCKS, &[1, 3]);
        name(&mut bench, index, term);
        assert_found(&mut bench, range, floor, holes);
    }
}

/// Goal: a leader that removes what lies behind such a snapshot before the rest is there doesn't make
/// a start forget that it was promised, until the log is as new.
#[test]
fn what_is_removed_behind_the_snapshot_is_owed() {
    for rotten in [&[1, 3][..], &[1]] {
        let mut bench = log(&BLOCKS, rotten);
        name(&mut bench, 11, 2);
        bench.append_run(GROUP.0, 12, 12, 2, 100);
        assert_found(&mut bench, (12, 12), Some(id(3, 16)), &[]);
        bench.append_run(GROUP.0, 13, 14, 3, 100);
        assert_found(&mut bench, (12, 14), Some(id(3, 16)), &[]);
        bench.append_run(GROUP.0, 15, 15, 4, 100);
        bench.append(&hard(GROUP.0, 4, 1, 12));
        assert_found(&mut bench, (12, 15), None, &[]);
    }
}

/// Goal: in a hole in which a term began, an entry was held for sure if it is of the term that is known
/// behind it: no other may be taken for one that was.
#[test]
fn a_log_knows_what_it_held() {
    let mut bench = log(&[(1, 5, 1), (6, 9, 2), (10, 12, 3)], &[1]);
    let outline = started(&mut bench).outline.expect("there is a hole");
    let held: Vec<Vec<u64>> = (0..=13)
        .map(|index| (1..=4).filter(|&term| outline.held(id(term, index))).collect())
        .collect();
    let (one, two, three) = (vec![1], vec![2], vec![3]);
    let known = [vec![vec![]], vec![one; 5], vec![two; 4], vec![three; 3], vec![vec![]]];
    assert_eq!(held, known.concat());
    assert_eq!(outline.told_from(Index(6)), id(2, 9));
    // From the snapshot on the term is known: none is older than its, none newer than the next.
    name(&mut bench, 7, 2);
    let outline = started(&mut bench).outline.expect("there is a hole");
    assert_eq!(outline.run.terms, [(Index(8), Term(2)), (Index(10), Term(3))]);
}

/// Goal: nothing is removed that alone tells of a loss, however much of other groups is given up, and
/// however often the log is started, until the group has it again.
#[test]
fn what_tells_of_a_loss_is_kept() {
    let mut bench = log(&[(1, 5, 1), (6, 9, 2)], &[1]);
    // Nothing of the group is left that would pin a segment.
    name(&mut bench, 5, 1);
    let floor = Some(id(2, 9));
    let grow = |bench: &mut Bench, first: u64| {
        for part in 0..30 {
            let first = first + part * 10;
            bench.append_run(3, first, first + 9, 1, 1_000);
            bench.flush();
            bench.settle();
            bench.log.release(GroupId(3), Index(first + 9));
            bench.log.release(GROUP, Index(5));
            bench.log.release(GroupId(2), Index(9));
        }
        bench.settle();
    };
    for round in 0..3 {
        grow(&mut bench, round * 300 + 1);
        assert!(bench.log.segments() > 3 * (round as usize + 1), "round {round}");
        assert_found(&mut bench, (6, 5), floor, &[(6, 9)]);
    }
    // It has something, and lacks the rest.
    bench.append_run(GROUP.0, 6, 7, 1, 100);
    grow(&mut bench, 901);
    assert_found(&mut bench, (6, 7), floor, &[]);
    bench.append_run(GROUP.0, 8, 9, 2, 100);
    assert_found(&mut bench, (6, 9), None, &[]);
    name(&mut bench, 9, 2);
    bench.flush();
    bench.log.release(GROUP, Index(9));
    let before = bench.log.segments();
    grow(&mut bench, 1_201);
    assert!(bench.log.segments() < before, "{} of {before} segments", bench.log.segments());
    assert_found(&mut bench, (10, 9), None, &[]);
}
