//! Whole groups in memory under every fault the protocol claims to survive: delay, loss,
//! duplication, reordering, partitions, slow disks, crashes that lose what isn't durable, rot
//! that takes what was from a minority. One
//! seed replays everything. `RINGRAFT_SEED=n` runs one seed, `RINGRAFT_SEEDS=n` more of them.
//!
//! Members change as well, in most worlds: nodes join, are promoted, demoted and removed, one or
//! many at once, held and aborted.
//!
//! Nodes take snapshots and give up their logs at random, and whoever falls behind gets one from
//! whoever has one; a snapshot is the entries that it covers, so that states can be compared.
//!
//! Leadership is handed over at random, and nodes are paused.
//!
//! After every step: I-01, I-02, I-03, I-04, I-05, leader completeness, committed entries durable
//! on a majority of those who vote (V5) and never changed, configurations as the logs say, the
//! majorities of each meeting those of the one before (V6), equal states, what is promised would be found by a start, reads
//! no older than what was committed when they came. After healing: a leader whom nobody disturbs,
//! and everything proposed reaches every member.

mod disk;
mod members;
mod node;
mod random;
mod snapshots;
mod stamps;
mod transfers;
mod world;

use world::World;

const SEEDS: u64 = 400;
const EVENTS: usize = 3000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Prints how to run a seed again if it panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay: RINGRAFT_SEED={seed} cargo test -p ringraft-raft --test random");
        }
    }
}

/// Runs one seed: faults, then healing; says what was reached.
fn run(seed: u64) -> world::Reached {
    let _replay = Replay(seed);
    let mut world = World::new(seed);
    for _ in 0..EVENTS {
        world.disturb();
        world.advance();
    }
    world.heal_and_check();
    world.reached
}

/// Safety under faults and liveness after them, for some hundred seeds; and the seeds do reach
/// the states that they are meant to reach.
#[test]
fn safe_under_faults_and_live_after() {
    if let Some(seed) = number("RINGRAFT_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let mut total = world::Reached::default();
    for seed in 0..number("RINGRAFT_SEEDS").unwrap_or(SEEDS) {
        total.add(run(seed));
    }
    println!("{total:?}");
    assert!(total.leaders > 1000 && total.committed > 10_000, "{total:?}");
    assert!(total.truncations > 100 && total.crashes > 1000, "{total:?}");
    assert!(total.reads > 1000 && total.reads_lost > 10 && total.fetches > 100, "{total:?}");
    assert!(total.reads_elsewhere > 1000, "{total:?}");
    assert!(total.rots > 100 && total.repairs > 100, "{total:?}");
    assert!(total.releases > 1000 && total.offers > 500 && total.late > 20, "{total:?}");
    assert!(total.configured > 1000 && total.completed > 250, "{total:?}");
    assert!(total.joint_leaders > 300 && total.leaving_leaders > 10, "{total:?}");
    assert!(total.changes_refused > 1000 && total.forgotten > 20, "{total:?}");
    assert!(total.transfers > 1000 && total.transfers_done > 150, "{total:?}");
    assert!(total.transfers_refused > 1000, "{total:?}");
    assert!(total.leases > 10_000 && total.no_leases > 10_000, "{total:?}");
    assert!(total.rests > 10_000 && total.woken > 200, "{total:?}");
    assert!(total.emptied > 100 && total.cut > 5 && total.kept > 20, "{total:?}");
}

/// One seed, one history (I-12).
#[test]
fn a_seed_repeats() {
    assert_eq!(run(42), run(42));
}

/// Each bug that is planted in what this crate does about members is found by some of the seeds.
#[cfg(ringraft_plant)]
#[test]
fn planted_bugs_of_members_are_found() {
    use ringraft_types::plant::Plant;
    let bugs = [
        Plant::NewMajorityOnly,
        Plant::OldMajorityOnly,
        Plant::ConfigurationKept,
        Plant::ConfigurationWhenCommitted,
        Plant::SnapshotConfigurationIgnored,
        Plant::ChangeBeforeCommit,
        Plant::TwoChanges,
        Plant::JointLeftEarly,
        Plant::JointStuck,
        Plant::LearnerCounted,
        Plant::RemovedLeaderCounted,
        Plant::TransferBlind,
    ];
    find(&bugs);
}

/// Each bug that is planted in leases is found by some of the seeds.
#[cfg(ringraft_plant)]
#[test]
fn planted_bugs_of_leases_are_found() {
    use ringraft_types::plant::Plant;
    find(&[Plant::LeaseFromAnswer, Plant::LeaseWithoutMargin, Plant::PromiseForgotten]);
}

/// An answer to an earlier question that serves a later read is found by some of the seeds.
#[cfg(ringraft_plant)]
#[test]
fn planted_bugs_of_reads_are_found() {
    use ringraft_types::plant::Plant;
    find(&[Plant::FollowerReadOldAnswer]);
}

#[cfg(ringraft_plant)]
fn find(bugs: &[ringraft_types::plant::Plant]) {
    use ringraft_types::plant::plant;
    let mut missed = Vec::new();
    for &bug in bugs {
        plant(Some(bug));
        let seeds = 0..number("RINGRAFT_SEEDS").unwrap_or(SEEDS);
        let found = seeds.into_iter().find(|&seed| std::panic::catch_unwind(|| run(seed)).is_err());
        println!("{}: {found:?}", bug.name());
        if found.is_none() {
            missed.push(bug.name());
        }
    }
    plant(None);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
