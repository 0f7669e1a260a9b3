//! Faults on real processes while clients record what they ask and what they are told; then the
//! checkers look for one order that explains it all.
//!
//! Each test does every fault a few times. A campaign is the same with more rounds and a seed:
//!
//! ```text
//! RINGRAFT_FAULT_ROUNDS=500 RINGRAFT_FAULT_SEED=7 RINGRAFT_HISTORIES=/tmp/histories \
//!     cargo test --release -p ringraft --test faults -- histories --nocapture --test-threads 1
//! ```

use crate::cluster::{Cluster, Shape};
use crate::network::Network;
use crate::recorder::{Recorder, Recording};
use fastrand::Rng;
use ringraft_types::GroupId;
use rustix::process::Signal;
use std::fmt::Debug;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
/// Calls between two faults.
const CALLS: u64 = 200;
/// Rounds on one cluster; then a fresh one, whose history is small again.
const ROUNDS_EACH: u64 = 25;
/// Longer than two election timeouts.
const PAUSE: Duration = Duration::from_millis(1_200);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected"))
    })
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Leader,
    Follower,
    Minority,
    Majority,
    All,
}

impl Whom {
    /// Numbers of nodes; the leader is among them wherever there is a choice, half of the times.
    fn draw(self, cluster: &Cluster, rng: &mut Rng) -> Vec<usize> {
        let leader = cluster.leader(GROUP);
        let mut all: Vec<usize> = (0..cluster.nodes.len()).collect();
        rng.shuffle(&mut all);
        let majority = all.len() / 2 + 1;
        match self {
            Self::Leader => vec![leader],
            Self::Follower => {
                all.retain(|&node| node != leader);
                all.truncate(1);
                all
            }
            Self::Minority => {
                all.truncate(cluster.nodes.len() - majority);
                all
            }
            Self::Majority => {
                all.truncate(majority);
                all
            }
            Self::All => all,
        }
    }
}

/// Runs rounds of faults under load, on one cluster after another, and judges each history.
fn campaign<Fault: Copy + Debug>(
    test: &'static str,
    shape: &Shape,
    faults: &[Fault],
    network: Option<&Network>,
    mut strike: impl FnMut(&mut Cluster, Fault, &Recording, &mut Rng),
) {
    let seed = number("RINGRAFT_FAULT_SEED", 1);
    let rounds = number("RINGRAFT_FAULT_ROUNDS", faults.len() as u64);
    println!("{test}: {rounds} rounds, seed {seed}");
    let mut done = 0;
    while done < rounds {
        let mut rng = Rng::with_seed(seed.wrapping_add(done));
        let mut cluster = match network {
            Some(network) => Cluster::start_in(test, shape, network),
            None => Cluster::start(test, shape),
        };
        cluster.leader(GROUP);
        let recorder = Recorder::new();
        let recording = Recording::start(&recorder, &cluster.endpoints(), GROUP, 0..4, rng.u64(..));
        for _ in 0..ROUNDS_EACH.min(rounds - done) {
            let fault = faults[(done % faults.len() as u64) as usize];
            recording.wait_more(CALLS);
            strike(&mut cluster, fault, &recording, &mut rng);
            done += 1;
        }
        recording.wait_more(CALLS);
        recording.stop();
        recorder.look_back(&cluster.endpoints(), GROUP);
        cluster.assert_replicas_agree();
        let verdict = recorder.judge(test);
        println!("{test}: {done} of {rounds} rounds, {verdict}");
    }
}

/// Goal: whoever is killed with kill -9, and however many at once, the history stays linearizable:
/// nothing acknowledged is lost, nothing is done twice.
#[test]
fn histories_under_kill() {
    let shape = Shape { nodes: 5, ..Shape::default() }.set("election_timeout_ms", 300);
    let faults = [Whom::Leader, Whom::Minority, Whom::Majority, Whom::All, Whom::Follower];
    campaign("histories_under_kill", &shape, &faults, None, |cluster, whom, recording, rng| {
        let nodes = whom.draw(cluster, rng);
        let is_quorum_left = nodes.len() <= cluster.nodes.len() / 2;
        for &node in &nodes {
            cluster.nodes[node].kill();
        }
        if is_quorum_left {
            recording.wait_more(CALLS);
        }
        for &node in &nodes {
            cluster.nodes[node].start();
        }
    });
}

/// Goal: a node, or a majority, that is stopped for longer than an election takes and goes on
/// neither serves what is old nor forgets what is new.
#[test]
fn histories_under_pauses() {
    let shape = Shape::default().set("election_timeout_ms", 300);
    let faults = [Whom::Leader, Whom::Follower, Whom::Majority, Whom::Leader];
    campaign("histories_under_pauses", &shape, &faults, None, |cluster, whom, _, rng| {
        let nodes = whom.draw(cluster, rng);
        for &node in &nodes {
            cluster.nodes[node].signal(Signal::STOP);
        }
        std::thread::sleep(PAUSE);
        for &node in &nodes {
            cluster.nodes[node].signal(Signal::CONT);
        }
    });
}

/// How a network is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The leader from the others, both ways.
    Leader,
    /// What the leader says doesn't arrive.
    LeaderIsMute,
    /// What the leader is told doesn't arrive.
    LeaderIsDeaf,
    /// One link between two followers.
    Followers,
    /// A follower from the others.
    Follower,
}

/// Goal: whichever links are cut, in one direction or both, the history stays linearizable, and
/// while a quorum can talk it goes on.
#[test]
fn histories_under_partitions() {
    let Some(network) = Network::new(3) else { return };
    let shape = Shape::default().set("election_timeout_ms", 300);
    let faults = [Cut::Leader, Cut::LeaderIsMute, Cut::LeaderIsDeaf, Cut::Followers, Cut::Follower];
    let test = "histories_under_partitions";
    campaign(test, &shape, &faults, Some(&network), |cluster, cut, recording, _| {
        let leader = cluster.leader(GROUP);
        let others: Vec<usize> = (0..3).filter(|&node| node != leader).collect();
        match cut {
            Cut::Leader => others.iter().for_each(|&node| network.cut(leader, node)),
            Cut::LeaderIsMute => {
                others.iter().for_each(|&node| network.cut_one_way(leader, node));
            }
            Cut::LeaderIsDeaf => {
                others.iter().for_each(|&node| network.cut_one_way(node, leader));
            }
            Cut::Followers => network.cut(others[0], others[1]),
            Cut::Follower => {
                network.cut(leader, others[0]);
                network.cut(others[1], others[0]);
            }
        }
        recording.wait_more(CALLS);
        network.mend();
        recording.wait_more(CALLS);
    });
}

/// Goal: a node that is killed and comes back with a boot clock of another origin, a day ahead or
/// an hour behind, compares no instant of its former life with one of its new one.
#[test]
fn histories_under_clocks_of_other_origins() {
    let shape = Shape::default().set("election_timeout_ms", 300);
    // The kernel takes no clock below zero: behind the machine's is only possible where it has run
    // that long.
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let faults = [86_400, -(uptime / 2).min(3_600), 0];
    let test = "histories_under_clocks_of_other_origins";
    let unshared =
        std::process::Command::new("unshare").args(["--time", "--boottime", "1", "true"]).output();
    if !unshared.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no time namespaces here; run it as root");
        return;
    }
    campaign(test, &shape, &faults, None, |cluster, ahead, _, rng| {
        let node = Whom::Minority.draw(cluster, rng)[0];
        cluster.nodes[node].kill();
        cluster.nodes[node].move_clock(ahead);
        cluster.nodes[node].start();
        cluster.wait_caught_up(node, GROUP);
    });
}
