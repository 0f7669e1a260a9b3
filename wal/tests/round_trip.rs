//! Whatever is appended comes back: property tests of packing, replay and reading.

mod disk;

use disk::*;
use proptest::prelude::*;
use ringraft_types::{GroupId, Sequence};
use ringraft_wal::LogSettings;

#[derive(Clone, Debug)]
enum Act {
    Run { group: u64, back: u64, count: u64, newer: bool, bytes: usize },
    Hard { group: u64, vote: u32 },
    Truncate { group: u64, back: u64 },
    Flush,
    Restart,
    Idle,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..5u64, 0..4u64, 1..30u64, any::<bool>(), 0..2_000usize).prop_map(
            |(group, back, count, newer, bytes)| Act::Run { group, back, count, newer, bytes }
        ),
        2 => (1..5u64, 0..4u32).prop_map(|(group, vote)| Act::Hard { group, vote }),
        1 => (1..5u64, 0..6u64).prop_map(|(group, back)| Act::Truncate { group, back }),
        3 => Just(Act::Flush),
        1 => Just(Act::Restart),
        1 => Just(Act::Idle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any history, with restarts in between, recovery gives exactly what was appended, and
    /// reading gives its bytes.
    #[test]
    fn what_goes_in_comes_out(
        acts in prop::collection::vec(act(), 1..40),
        inflight_max in 1..4usize,
    ) {
        let settings = LogSettings { inflight_max, ..settings() };
        let mut bench = Bench::new(settings.clone());
        let mut model = Model::default();
        let mut term = 1;
        let mut sizes = std::collections::BTreeMap::new();
        for act in acts {
            let state = model.at(Sequence(u64::MAX));
            let last = |group: u64| {
                let entries = state.get(&GroupId(group)).map(|group| &group.entries);
                entries.and_then(|entries| entries.last_key_value()).map_or(0, |(&last, _)| last)
            };
            match act {
                Act::Run { group, back, count, newer, bytes } => {
                    term += u64::from(newer || back > 0);
                    let first = (last(group) + 1).saturating_sub(back).max(1);
                    let last = first + count - 1;
                    sizes.extend((first..=last).map(|index| ((group, index), bytes)));
                    bench.act(&mut model, Done::Run { group, first, last, term }, bytes);
                    if bench.log.unsubmitted_bytes() > 100 << 10 {
                        bench.flush();
                    }
                }
                Act::Hard { group, vote } => {
                    bench.act(&mut model, Done::Hard { group, term, vote, commit: term }, 0);
                }
                Act::Truncate { group, back } => {
                    let from = (last(group) + 1).saturating_sub(back).max(1);
                    bench.act(&mut model, Done::Truncate { group, from }, 0);
                }
                Act::Flush => {
                    bench.flush();
                }
                Act::Idle => bench.settle(),
                Act::Restart => {
                    bench.flush();
                    bench.device.power_cut(|_| false);
                    let (log, recovered) =
                        try_recover(settings.clone(), &mut bench.device).expect("recovered");
                    bench.log = log;
                    prop_assert!(recovered.rot.is_empty() && recovered.torn_blocks == 0);
                    assert_exact(&recovered, &model.at(Sequence(u64::MAX)), "restart");
                }
            }
        }
        bench.flush();
        let expected = model.at(Sequence(u64::MAX));
        for (group, expected) in &expected {
            let (Some((&first, _)), Some((&last, _))) =
                (expected.entries.first_key_value(), expected.entries.last_key_value())
            else {
                continue;
            };
            let bytes: Vec<u8> = expected
                .entries
                .iter()
                .flat_map(|(&index, &term)| entry(group.0, index, term, sizes[&(group.0, index)]))
                .collect();
            prop_assert!(bench.read(group.0, first, last) == Ok(bytes));
        }
        bench.device.power_cut(|_| false);
        let (_, recovered) = try_recover(settings, &mut bench.device).expect("recovered");
        assert_exact(&recovered, &expected, "at the end");
    }

    /// Recovery of arbitrary bytes in the place of a segment doesn't panic.
    #[test]
    fn arbitrary_bytes_are_no_log(
        bytes in prop::collection::vec(any::<u8>(), 0..20_000),
        magic in any::<bool>(),
    ) {
        let mut bench = Bench::new(settings());
        bench.block(1, 1, 5, 1);
        bench.settle();
        let end = bench.log.durable();
        let seal = block_at(&bench.device, end);
        let mut bytes = bytes;
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"ringblok");
        }
        bench.device.corrupt(seal.file, seal.offset + 4096, &bytes);
        let recovered = bench.restart();
        prop_assert_eq!(recovered.groups[&GroupId(1)].last.0, 5);
        prop_assert!(recovered.rot.is_empty());
    }
}
