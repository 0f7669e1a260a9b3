//! Groups that come to a log and leave it (`RecordKind::Home`).

mod disk;

use disk::*;
use ringraft_types::record::{self, HomeState, RecordKind};
use ringraft_types::{GroupId, Index, LogId, Term};

const GROUP: GroupId = GroupId(7);

fn home(group: u64, state: HomeState, term: u64) -> Vec<u8> {
    match state {
        HomeState::Left => {
            let payload = state.with_owed(LogId::new(Term(term), Index(9)));
            record(RecordKind::Home, 0, group, term, &payload)
        }
        _ => record(RecordKind::Home, 0, group, term, &state.head()),
    }
}

/// What a start finds of homes: group and state.
fn homes(recovered: &ringraft_wal::Recovered) -> Vec<(u64, HomeState)> {
    let records = recovered.node_records.iter().map(|bytes| record::decode(bytes).expect("read"));
    let homes = records.filter(|record| record.header.kind == RecordKind::Home);
    homes.map(|it| (it.header.index.0, HomeState::of(it.payload).expect("known"))).collect()
}

/// Entries and a hard state of a group, in segments of which another group needs nothing.
fn filled() -> Bench {
    let mut bench = Bench::new(settings());
    bench.append(&home(GROUP.0, HomeState::Here, 0));
    bench.append(&home(9, HomeState::Here, 0));
    bench.append(&hard(GROUP.0, 3, 1, 0));
    let mut next = 1;
    while bench.log.segments() < 3 {
        bench.append_run(GROUP.0, next, next + 9, 3, 500);
        bench.flush();
        next += 10;
    }
    bench.settle();
    bench
}

/// Writes of another group, released at once, until the oldest segments go.
fn write_on(bench: &mut Bench, first: u64) {
    for at in 0..200 {
        let index = first + at * 10;
        bench.append_run(2, index, index + 9, 3, 500);
        bench.flush();
        bench.log.release(GroupId(2), Index(index + 9));
    }
    bench.settle();
}

/// M12: a group that was deleted pins nothing, and a start finds that it is gone as long as it finds
/// anything of it; then nothing is left of either. Who only left is remembered for good, and so is
/// who is here.
#[test]
fn m12_what_is_deleted_leaves_nothing() {
    for state in [HomeState::Deleted, HomeState::Left] {
        let mut bench = filled();
        let before = bench.log.segments();
        bench.append(&home(GROUP.0, state, 3));
        assert_eq!(bench.log.held(GROUP), None);
        bench.flush();
        // Power fails at once: what was written of it is found again, and that it is gone.
        let recovered = bench.restart();
        assert_eq!(homes(&recovered), [(7, state), (9, HomeState::Here)]);
        assert!(!recovered.groups.contains_key(&GROUP));
        bench.settle();
        write_on(&mut bench, 1);
        assert!(bench.log.segments() < before, "{} of {before} segments", bench.log.segments());
        let recovered = bench.restart();
        let left = match state {
            HomeState::Deleted => vec![(9, HomeState::Here)],
            _ => vec![(7, HomeState::Left), (9, HomeState::Here)],
        };
        assert_eq!(homes(&recovered), left);
        assert!(!recovered.groups.contains_key(&GROUP), "no entry and no hard state is left");
        assert!(recovered.rot.is_empty() && !recovered.node_damaged);
    }
}

/// A group that comes again is another one to the log: reads of the one before end, and nothing of
/// it is found.
#[test]
fn a_group_that_comes_again_begins_anew() {
    let mut bench = filled();
    bench.append(&home(GROUP.0, HomeState::Left, 3));
    bench.append(&home(GROUP.0, HomeState::Here, 0));
    bench.append(&hard(GROUP.0, 4, 0, 0));
    bench.append_run(GROUP.0, 1, 3, 4, 50);
    bench.settle();
    assert!(bench.read(GROUP.0, 1, 3).expect("held") == run(GROUP.0, 1, 3, 4, 50));
    let held = bench.log.held(GROUP);
    assert_eq!(held, Some((Index(1), Index(3))));
    let recovered = bench.restart();
    assert_eq!(recovered.groups[&GROUP].hard, Some((Term(4), 0, Index(0))));
    assert_eq!(bench.log.held(GROUP), held, "a start finds the same");
}
