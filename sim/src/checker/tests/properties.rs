//! By chance: what is right passes, what is broken is judged alike by both checkers, and the model
//! is the machine.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringraft_shard::machine::{KvMachine, StateMachine};
use ringraft_types::Index;

use super::world::{BUGS, Bug, GROUP, World};
use crate::checker::{Effort, Violation, agree, check, serial};
use crate::history::lines::{self, Event};
use crate::history::{Call, History, Reply};

fn calls(history: &History) -> Vec<&Call> {
    history.calls().iter().collect()
}

/// The history with one number of one answer changed, up or down; or as it is, if the answer
/// chosen has no such number.
fn scratched(history: &History, which: usize, part: usize, up: bool) -> History {
    let mut written = Vec::new();
    history.write(&mut written).expect("memory takes everything");
    let mut lines = lines::parse(&written[..]).expect("just written");
    let answers: Vec<usize> =
        (0..lines.len()).filter(|&at| matches!(lines[at].event, Event::Done { .. })).collect();
    let change = |number: &mut u64| {
        *number = if up { *number + 1 } else { number.saturating_sub(1) };
    };
    if !answers.is_empty()
        && let Event::Done { revision, index, reply } =
            &mut lines[answers[which % answers.len()]].event
    {
        let list = match reply {
            Reply::Range(list) | Reply::Delete(list) => Some(list),
            Reply::Put(_) | Reply::Txn(_) => None,
        };
        match (part, list, index) {
            (0, _, _) => change(revision),
            (1, _, Some(index)) => change(index),
            (2, Some(list), _) => change(&mut list.count),
            (3, Some(list), _) => list.keys.iter_mut().for_each(|key| change(&mut key.modified)),
            (4, Some(list), _) => list.keys.iter_mut().for_each(|key| change(&mut key.version)),
            (5, Some(list), _) => drop(list.keys.pop()),
            _ => {}
        }
    }
    History::together(vec![lines]).expect("only answers changed")
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::default()
    })]

    /// A history of a right world passes both checkers.
    #[test]
    fn right_histories_pass(numbers in prop::collection::vec(any::<u16>(), 2..320)) {
        let world = World::run(&numbers, Effort::All.whole().1, Bug::None);
        let searched = agree::check(GROUP, calls(&world.history), &BTreeMap::new(), Effort::All);
        prop_assert!(searched.is_ok(), "{}", searched.expect_err("it failed"));
        let verdict = check(&world.history, &[world.dump], Effort::All);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
    }

    /// A long history of a right world passes, with what the nodes applied and without.
    #[test]
    fn long_right_histories_pass(numbers in prop::collection::vec(any::<u16>(), 1000..3000)) {
        let world = World::run(&numbers, 60, Bug::None);
        let verdict = check(&world.history, &[], Effort::All);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
        let verdict = check(&world.history, &[world.dump], Effort::All);
        prop_assert!(verdict.is_ok(), "{}", verdict.expect_err("it failed"));
    }

    /// Of a broken world both checkers say the same, whatever it is.
    #[test]
    fn broken_histories_are_judged_alike(
        numbers in prop::collection::vec(any::<u16>(), 2..320),
        bug in prop::sample::select(&BUGS[..]),
    ) {
        let world = World::run(&numbers, Effort::All.whole().1, bug);
        if let Err(violation) = agree::check(GROUP, calls(&world.history), &BTreeMap::new(), Effort::All) {
            let is_clear = !matches!(
                violation,
                Violation::Disagree { .. } | Violation::Undecided { .. }
            );
            prop_assert!(is_clear, "{violation}");
        }
    }

    /// Of an answer with one number changed both checkers say the same, and mostly that it broke.
    #[test]
    fn scratched_answers_are_judged_alike(
        numbers in prop::collection::vec(any::<u16>(), 100..320),
        (which, part, up) in (any::<usize>(), 0..6usize, any::<bool>()),
    ) {
        let world = World::run(&numbers, Effort::All.whole().1, Bug::None);
        let history = scratched(&world.history, which, part, up);
        let found = agree::check(GROUP, calls(&history), &BTreeMap::new(), Effort::All);
        if let Err(violation) = found {
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
        let world = World::run(&numbers, Effort::All.whole().1, Bug::None);
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

/// Numbers for a world, by seed.
fn numbers(seed: u64, count: usize) -> Vec<u16> {
    let mut random = seed + 1;
    let next = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 24) as u16
    };
    (0..count).map(next).collect()
}

/// Every kind of bug is found by the checker by revisions, in most of its runs.
#[test]
fn every_bug_is_found() {
    for bug in BUGS {
        let is_found = |seed: &u64| {
            let numbers = numbers(*seed, 1_000);
            let world = World::run(&numbers, 3, bug);
            serial::check(GROUP, calls(&world.history), &BTreeMap::new()).is_err()
        };
        let found = (0..50).filter(is_found).count();
        assert!(found >= 25, "{bug:?} was found in {found} of 50 runs");
    }
}

/// A number that was changed is found, whichever it is, in most of the answers that have it.
#[test]
fn every_scratch_is_found() {
    for part in 0..6 {
        let (mut scratches, mut found) = (0, 0);
        for seed in 0..100 {
            let numbers = numbers(seed, 1_000);
            let world = World::run(&numbers, 3, Bug::None);
            let history = scratched(&world.history, seed as usize, part, seed % 2 == 0);
            scratches += usize::from(history.calls() != world.history.calls());
            let result = serial::check(GROUP, calls(&history), &BTreeMap::new());
            found += usize::from(result.is_err());
        }
        assert!(scratches >= 10, "part {part} was scratched {scratches} times");
        let is_most = found * 4 >= scratches * 3;
        assert!(is_most, "part {part} was found in {found} of {scratches} answers");
    }
}
