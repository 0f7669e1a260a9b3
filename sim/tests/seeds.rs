//! Whole runs of the simulator: a few seeds on every change, and every seed that ever broke.

use ringraft_sim::faults::FaultKind;
use ringraft_sim::options::Asked;
use ringraft_sim::run::{Order, Outcome, run};
use ringraft_sim::world::Ran;
use ringraft_types::Ticks;

fn pass(order: &Order) -> Ran {
    match run(order) {
        Outcome::Passed(ran) => ran,
        Outcome::Failed(violation) => panic!(
            "seed {} broke: {}\nagain: cargo run --release -p ringraft-sim -- --seed {}\n{}",
            order.seed,
            violation.what,
            order.seed,
            violation.events.join("\n")
        ),
    }
}

/// A shorter run of a seed, for every change.
fn short(seed: u64) -> Order {
    let safety_max = Some(Ticks::from_millis(1_500));
    let asked = Asked { safety_max, groups_max: Some(4), ..Asked::default() };
    Order { seed, asked, ..Order::default() }
}

/// Some seeds go through, faults and all; faults that answer to what happens do strike.
#[test]
fn seeds_go_through() {
    let mut struck = [("ping-pong", 0), ("lonely-leader", 0), ("net: old answers again", 0)];
    for seed in 100_000..100_024 {
        let ran = pass(&short(seed));
        assert!(ran.calls > 0, "seed {seed} asked for nothing");
        for (name, count) in &mut struck {
            *count += ran.counts.get(name).copied().unwrap_or_default();
        }
    }
    assert!(struck.iter().all(|(_, count)| *count > 0), "{struck:?}");
}

/// The same seed gives the same run, to the last byte on the wire (I-12).
#[test]
fn a_seed_replays() {
    for seed in 200_000..200_004 {
        let (first, again) = (pass(&short(seed)), pass(&short(seed)));
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert_eq!(first.counts, again.counts, "seed {seed}");
    }
    assert_ne!(pass(&short(200_000)).hash, pass(&short(200_001)).hash);
}

/// What is left out doesn't strike.
#[test]
fn a_kind_that_is_left_out_does_not_strike() {
    let mut order = short(300_000);
    order.asked.without = FaultKind::ALL.to_vec();
    let ran = pass(&order);
    for kind in FaultKind::ALL {
        assert_eq!(ran.counts.get(kind.name()), None, "{kind}");
    }
}

/// Seeds that broke once, each with what it was.
mod broken {
    use super::*;

    /// A node was away while another one was added, and that one led: it was refused as nobody's
    /// peer, and nobody else could have told of it.
    #[test]
    fn who_leads_is_let_in() {
        for seed in [189, 891, 942] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// Where such a leader is reached was known from the node's file, but nobody that isn't named is
    /// dialled, so it couldn't be asked for the snapshot that would have named it.
    #[test]
    fn who_leads_is_asked_for_a_snapshot() {
        pass(&Order { seed: 195, ..Order::default() });
    }

    /// Rot of one record hid from the checker what was ever written behind it in its block.
    #[test]
    fn what_is_behind_rot_was_written() {
        pass(&Order { seed: 1_623, ..Order::default() });
    }

    /// A leader that was the only voter committed its first entry before a frame showed it, and the
    /// check took that for an entry of an older term.
    #[test]
    fn a_sole_voter_commits_unseen() {
        for seed in [409, 665] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// Four interrupted reads of a block in a row made its group refuse to serve as damaged.
    #[test]
    fn interrupted_reads_are_no_rot() {
        for seed in [14, 1_008, 1_018] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// The only client of the run began anew shortly before the calm, and the only node it was told
    /// of stayed down: nobody asked the groups for anything. The run now tells such a client of
    /// others, as its operator would.
    #[test]
    fn a_client_is_told_of_nodes_that_live() {
        pass(&Order { seed: 896, ..Order::default() });
    }

    /// After a stale read the same block's next read was interrupted more than sixteen times in a
    /// row, because faults that wait for an operation had piled up; then the log gave it up as rot,
    /// as it may.
    #[test]
    fn interruptions_end() {
        pass(&Order { seed: 11_009, ..Order::default() });
    }

    /// A group was filled up again after damage, and a start in the midst of it forgot what the
    /// group had promised: in seed 19066 a candidate without committed entries was elected.
    #[test]
    fn what_is_filled_up_is_still_owed() {
        for seed in [16_719, 17_060, 17_696, 19_066] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// Hundreds of entries, one in each append and one append under way, over links that take up to
    /// 40 ms: the run gave them too little time.
    #[test]
    fn slow_progress_is_progress() {
        pass(&Order { seed: 15_982, ..Order::default() });
    }

    /// One operation of a slow disk took longer than the calm lasts, or than a node waits for its
    /// disk. No disk of a run is that slow any more.
    #[test]
    fn a_slow_disk_ends_what_it_began() {
        for seed in [10_916, 15_057, 17_032] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// Two writes of a disk went to other places, and then the newest block, which alone proved that
    /// they had been durable, couldn't be read. Nobody can notice that, so the run must not do it.
    #[test]
    fn the_proof_of_damage_stays() {
        pass(&Order { seed: 54_075, ..Order::default() });
    }

    /// A node was killed when its log's second block was on the disk and the first one wasn't; the
    /// run took the log for begun, though nothing of it was ever durable.
    #[test]
    fn a_log_is_begun_by_its_first_block() {
        pass(&Order { seed: 46_745, ..Order::default() });
    }

    /// What rot took was in the snapshots of the others only, and nobody could lead, and have it
    /// installed, before it was there again.
    #[test]
    fn what_is_in_snapshots_only_is_had_again() {
        for seed in [310_745, 313_814] {
            pass(&Order { seed, ..Order::default() });
        }
    }

    /// The newest snapshot was rotten, and an older one of another node took its place. The record that
    /// named the newest was written again, from an old segment, and covered what had come since.
    #[test]
    fn a_name_that_is_written_again_covers_nothing_new() {
        pass(&Order { seed: 1_369, ..Order::default() });
    }

    /// A log removed the segment that alone told of what rot had taken from one of its groups, because
    /// another group needed it no more: the next start owed nothing, and knew of no vote.
    #[test]
    fn what_tells_of_a_loss_is_kept() {
        pass(&Order { seed: 160, ..Order::default() });
    }

    /// A vote was lost to rot, so the node took its own for given, and wrote that down with a later
    /// commit index; the check at the second start knew only the first vote.
    #[test]
    fn a_lost_vote_is_the_own() {
        for seed in [31_274, 32_266, 34_493, 37_286] {
            pass(&Order { seed, ..Order::default() });
        }
    }
}
