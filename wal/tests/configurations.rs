//! Entries that hold configurations: a recovery gives their payloads out, and of them exactly those
//! that the log still holds.

mod disk;

use disk::*;
use ringraft_types::record::{RecordKind, encode};
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};
use ringraft_wal::Recovered;

const GROUP: GroupId = GroupId(1);

/// Says which one it is, also with whom it was appended.
fn payload(index: u64, term: u64) -> Vec<u8> {
    format!("configuration {index} of term {term}").into_bytes()
}

fn configuration(index: u64, term: u64) -> Vec<u8> {
    record(RecordKind::Configuration, 1, index, term, &payload(index, term))
}

/// Appends these entries of group 1; the ones named hold configurations.
fn append(bench: &mut Bench, first: u64, last: u64, term: u64, held: &[u64]) {
    let records = records(first, last, term, held);
    let (first, last) = (Index(first), Index(last));
    bench.log.append_run(GROUP, first, last, Term(term), &records).expect("there is room");
}

/// The same in a block of its own.
fn block(bench: &mut Bench, first: u64, last: u64, term: u64, held: &[u64]) -> Sequence {
    append(bench, first, last, term, held);
    bench.flush()
}

fn records(first: u64, last: u64, term: u64, held: &[u64]) -> Vec<u8> {
    let one = |index| match held.contains(&index) {
        true => configuration(index, term),
        false => entry(1, index, term, 100),
    };
    (first..=last).flat_map(one).collect()
}

fn rot(bench: &mut Bench, sequence: Sequence) {
    let block = block_at(&bench.device, sequence);
    bench.device.flip_bit(block.file, (block.offset + 20) * 8 + 3);
}

fn assert_held(recovered: &Recovered, expected: &[(u64, u64)]) {
    let group = &recovered.groups[&GROUP];
    let expected: Vec<(Index, Vec<u8>)> =
        expected.iter().map(|&(index, term)| (Index(index), payload(index, term))).collect();
    assert_eq!(group.configurations, expected, "{group:?}");
}

/// What was appended comes back, ascending, each in its group, start after start; a group whose
/// entries hold none has none.
#[test]
fn configurations_come_back() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[2, 4]);
    bench.block(2, 1, 5, 1);
    block(&mut bench, 6, 9, 2, &[6, 9]);
    bench.settle();
    for _ in 0..2 {
        let recovered = bench.restart();
        assert_held(&recovered, &[(2, 1), (4, 1), (6, 2), (9, 2)]);
        assert!(recovered.groups[&GroupId(2)].configurations.is_empty());
        bench.settle();
    }
}

/// A truncation removes those from its index on, in the same block as in an earlier one.
#[test]
fn a_truncation_removes_them() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[2, 4, 5]);
    bench.append(&record(RecordKind::Truncate, 1, 5, 0, b""));
    bench.settle();
    assert_held(&bench.restart(), &[(2, 1), (4, 1)]);
    bench.settle();
    append(&mut bench, 5, 6, 1, &[5, 6]);
    bench.append(&record(RecordKind::Truncate, 1, 4, 0, b""));
    bench.settle();
    assert_held(&bench.restart(), &[(2, 1)]);
}

/// Entries of a newer term take the place of those from their index on: a configuration that an
/// ordinary entry took the place of is gone, one that another took the place of is the other one.
#[test]
fn a_newer_term_takes_their_place() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 9, 1, &[2, 5, 6, 8]);
    block(&mut bench, 5, 6, 2, &[6]);
    bench.settle();
    assert_held(&bench.restart(), &[(2, 1), (6, 2)]);
    bench.settle();
    // Also within a block.
    append(&mut bench, 7, 9, 2, &[7, 9]);
    append(&mut bench, 7, 8, 3, &[8]);
    bench.settle();
    assert_held(&bench.restart(), &[(2, 1), (6, 2), (8, 3)]);
}

/// A carried record puts one back that rot took, and it goes like any other afterwards.
#[test]
fn a_carried_record_puts_them_back() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[2]);
    let middle = block(&mut bench, 6, 9, 1, &[7, 8]);
    block(&mut bench, 10, 14, 2, &[11]);
    bench.settle();
    rot(&mut bench, middle);
    assert_held(&bench.restart(), &[(2, 1), (11, 2)]);
    for _ in 0..2 {
        let carried = records(6, 9, 1, &[7, 8]);
        bench.log.carry_run(GROUP, Index(6), &carried).expect("there is room");
        bench.settle();
        let recovered = bench.restart();
        assert_eq!(recovered.groups[&GROUP].damaged, None);
        assert_held(&recovered, &[(2, 1), (7, 1), (8, 1), (11, 2)]);
        bench.settle();
    }
    block(&mut bench, 8, 8, 3, &[]);
    bench.settle();
    assert_held(&bench.restart(), &[(2, 1), (7, 1)]);
}

/// With holes, those before, between and behind them are given out, like the entries.
#[test]
fn a_hole_takes_those_that_were_in_it() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[3]);
    let first = block(&mut bench, 6, 9, 1, &[7]);
    block(&mut bench, 10, 12, 1, &[11]);
    let second = block(&mut bench, 13, 15, 1, &[14]);
    block(&mut bench, 16, 18, 2, &[17]);
    bench.settle();
    rot(&mut bench, first);
    let recovered = bench.restart();
    assert_eq!(recovered.groups[&GROUP].damaged, Some(LogId::new(Term(2), Index(18))));
    assert_held(&recovered, &[(3, 1), (11, 1), (14, 1), (17, 2)]);
    bench.settle();
    rot(&mut bench, second);
    assert_held(&bench.restart(), &[(3, 1), (11, 1), (17, 2)]);
}

/// Rot of a single record takes the entries of its group in that block; what can still be read of
/// configurations there is given out, and comes again with the entries.
#[test]
fn rot_of_a_record_takes_those_beside_it() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[3]);
    let middle = block(&mut bench, 6, 9, 1, &[6]);
    block(&mut bench, 10, 12, 1, &[11]);
    bench.settle();
    let at = block_at(&bench.device, middle);
    let inside = at.offset + u64::from(at.header.directory_at) - 20;
    bench.device.flip_bit(at.file, inside * 8);
    assert_held(&bench.restart(), &[(3, 1), (6, 1), (11, 1)]);
}

/// What the record of a snapshot covers goes, and stays gone when it is carried.
#[test]
fn a_snapshot_takes_those_that_it_covers() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 9, 1, &[2, 5, 6, 9]);
    let number = 1u64.to_le_bytes();
    bench.append(&record(RecordKind::Snapshot, 1, 5, 1, &number));
    bench.settle();
    assert_held(&bench.restart(), &[(6, 1), (9, 1)]);
    bench.settle();
    let mut carried = Vec::new();
    let inner = record(RecordKind::Snapshot, 1, 5, 1, &number);
    encode(&mut carried, RecordKind::Carried, GROUP, Index(5), Term(1), [&inner, b""]);
    bench.append(&carried);
    bench.settle();
    assert_held(&bench.restart(), &[(6, 1), (9, 1)]);
    bench.settle();
    bench.append(&record(RecordKind::Snapshot, 1, 9, 1, &number));
    bench.settle();
    assert_held(&bench.restart(), &[]);
}

/// A torn block holds nothing.
#[test]
fn a_torn_tail_takes_its_own() {
    let mut bench = Bench::new(settings());
    block(&mut bench, 1, 5, 1, &[3]);
    let last = block(&mut bench, 6, 9, 1, &[8]);
    rot(&mut bench, last);
    let recovered = bench.restart();
    assert_eq!((recovered.torn_blocks, recovered.rot.len()), (1, 0));
    assert_held(&recovered, &[(3, 1)]);
}
