//! Recovery: every row of the decision table is a case here.

mod common;

use common::*;
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, Index, LogId, Sequence, Term};

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
        let mut expected = run(7, 1, 50, 2, 300);
        expected.extend(run(7, 51, 60, 3, 300));
        assert!(bench.read(7, 1, 1000).expect("held") == expected);
        assert!(
            bench.read(7, 40, 55).expect("held")
                == run(7, 40, 50, 2, 300)
                    .into_iter()
                    .chain(run(7, 51, 55, 3, 300))
                    .collect::<Vec<_>>()
        );
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
    let _ = (LogId::ZERO, Sequence::ZERO);
}
