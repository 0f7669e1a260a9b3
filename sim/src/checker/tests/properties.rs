//! By chance: what is right passes, what is broken is judged alike by both checkers, and the model
//! is the machine.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_types::Index;

use super::world::{BUGS, Bug, GROUP, World};
use crate::checker::general::UNKNOWN_MAX;
use crate::checker::{Violation, agree, check, serial};
use crate::history::{Call, History, Reply};

fn calls(history: &History) -> Vec<&Call> {
    history.calls().iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::default()
    })]

    /// A history of a right world passes both checkers.
    #[test]
    fn right_histories_pass(numbers in prop::collection::vec(any::<u16>(), 2..320)) {
        let world = World::run(&numbers, UNKNOWN_MAX, Bug::None);
        let searched = agree::check(GROUP, calls(&world.history), &BTreeMap::new());
        prop_assert!(searched.is_ok(), "{}", searched.expect_err("it failed"));
        let verdict = check(&world.history, &[world.dump]);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
    }

    /// A long history of a right world passes, with what the nodes applied and without.
    #[test]
    fn long_right_histories_pass(numbers in prop::collection::vec(any::<u16>(), 1000..3000)) {
        let world = World::run(&numbers, 60, Bug::None);
        let verdict = check(&world.history, &[]);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
        let verdict = check(&world.history, &[world.dump]);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
    }

    /// Of a broken world both checkers say the same, whatever it is.
    #[test]
    fn broken_histories_are_judged_alike(
        numbers in prop::collection::vec(any::<u16>(), 2..320),
        bug in prop::sample::select(&BUGS[..]),
    ) {
        let world = World::run(&numbers, UNKNOWN_MAX, bug);
        if let Err(violation) = agree::check(GROUP, calls(&world.history), &BTreeMap::new()) {
            let is_clear = !matches!(
                violation,
                Violation::Disagree { .. } | Violation::Undecided { .. }
            );
            prop_assert!(is_clear, "{violation}");
        }
    }

    /// What is written as lines is read as it was.
    #[test]
    fn histories_survive_their_format(numbers in prop::collection::vec(any::<u16>(), 2..320)) {
        let world = World::run(&numbers, UNKNOWN_MAX, Bug::None);
        let mut lines = Vec::new();
        world.history.write(&mut lines).expect("memory takes everything");
        let read = History::read(&lines[..]).expect("just written");
        prop_assert_eq!(read.calls(), world.history.calls());
    }

    /// The model answers as the machine does, command by command.
    #[test]
    fn the_model_is_the_machine(numbers in prop::collection::vec(any::<u16>(), 2..600)) {
        let world = World::run(&numbers, 0, Bug::None);
        let (mut model, mut machine) = (super::super::model::Model::default(), KvMachine::new());
        for (call, index) in world.history.calls().iter().zip(1..) {
            let (mut command, mut body) = (Vec::new(), Vec::new());
            call.ask.encode(&mut command).expect("within limits");
            let applied = machine.apply(Index(index), &command, &mut body).expect("known");
            match model.step(&call.ask) {
                Ok(step) => prop_assert_eq!(&step.reply, &Reply::decode(&body).expect("a reply")),
                Err(status) => prop_assert_eq!(status, applied.status),
            }
            prop_assert_eq!(model.revision(), applied.revision.0);
        }
    }
}

/// Every kind of bug is found by the checker by revisions, in most of its runs.
#[test]
fn every_bug_is_found() {
    for bug in BUGS {
        let mut found = 0;
        for seed in 0..50u64 {
            let mut random = seed + 1;
            let mut next = || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 24) as u16
            };
            let numbers: Vec<u16> = (0..1_000).map(|_| next()).collect();
            let world = World::run(&numbers, 3, bug);
            let is_broken = serial::check(GROUP, calls(&world.history), &BTreeMap::new()).is_err();
            found += u32::from(is_broken);
        }
        assert!(found >= 25, "{bug:?} was found in {found} of 50 runs");
    }
}
