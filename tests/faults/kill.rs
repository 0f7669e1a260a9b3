//! kill -9 of a leader, and of everybody.

use crate::cluster::{Cluster, Shape};
use crate::load::{Load, Writer, check, gaps};
use ringraft_types::GroupId;
use std::time::{Duration, Instant};

const GROUP: GroupId = GroupId(1);
/// Writes between two faults.
const WRITES: u64 = 300;

/// One patient writer, whose client brings every write to its end, and one that gives up early and
/// leaves writes in doubt behind.
fn writers(cluster: &Cluster) -> Vec<Writer> {
    let patient = Writer::new(cluster, "patient", GROUP, Duration::from_secs(50));
    let hasty = Writer::new(cluster, "hasty", GROUP, Duration::from_millis(400));
    vec![patient, hasty]
}

/// Goal: when the leader is killed under load, again and again, every acknowledged write is there
/// once and none is there twice; the pause in acknowledgements is printed.
#[test]
fn kill_of_the_leader_loses_nothing() {
    let mut cluster = Cluster::start("kill_of_the_leader_loses_nothing", &Shape::default());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    let mut kills = Vec::new();
    for _ in 0..6 {
        load.wait_more(WRITES);
        let leader = cluster.leader(GROUP);
        kills.push(Instant::now());
        cluster.nodes[leader].kill();
        load.wait_more(WRITES);
        cluster.nodes[leader].start();
        cluster.wait_caught_up(leader, GROUP);
    }
    load.wait_more(WRITES);
    let writers = load.stop();
    let tally = check(&cluster, &writers);
    cluster.assert_replicas_agree();
    let mut gaps = gaps(&writers, &kills);
    gaps.sort_unstable();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("{tally:?}; write gap p50 {median:?} max {longest:?} of {gaps:?} (goal: 1.5 s)");
    assert!(longest < Duration::from_secs(10), "a kill of the leader stopped the writes: {gaps:?}");
}

/// Goal: when all nodes are killed at once under load, twenty times in a row, every acknowledged
/// write is there once and none is there twice, each time.
#[test]
fn kill_of_all_three_twenty_times() {
    let shape = Shape::default().set("election_timeout_ms", 300);
    let mut cluster = Cluster::start("kill_of_all_three_twenty_times", &shape);
    let mut writers = writers(&cluster);
    let begun = Instant::now();
    let mut kills = Vec::new();
    for round in 1..=20 {
        let load = Load::start(writers);
        load.wait_more(WRITES);
        kills.push(Instant::now());
        for node in &mut cluster.nodes {
            node.kill();
        }
        for node in &mut cluster.nodes {
            node.start();
        }
        load.wait_more(WRITES);
        writers = load.stop();
        let tally = check(&cluster, &writers);
        println!("round {round}, after {:?}: {tally:?}", begun.elapsed());
    }
    cluster.assert_replicas_agree();
    println!("write gaps: {:?}", gaps(&writers, &kills));
}
