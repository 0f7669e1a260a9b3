//! Nodes that leave when they are told to stop (`members.leave_on_stop`).

use crate::cluster::{Cluster, Node, Shape, wait_until};
use crate::load::{Load, Writer, check};
use crate::members::{ALL, ask, assert_roles, roles, says, shape, writers};
use ringraft_types::GroupId;
use rustix::process::Signal;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
/// Writes between two steps.
const WRITES: u64 = 300;

fn leaving() -> Shape {
    shape().set("leave_on_stop", true)
}

/// SIGTERM, the end that follows, and what the node said.
fn told_to_stop(node: &mut Node) -> String {
    let status = node.terminate();
    let log = node.log();
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

/// Goal: under load a node that leads is told to stop, and leaves every group before it does; one
/// that is killed stays a member. Who left comes back as no member, and counts again once it is
/// added; nothing that was acknowledged is lost (MB-18, MB-11).
#[test]
fn a_node_leaves_when_it_is_told_to_stop() {
    let shape = Shape { nodes: 4, ..leaving() };
    let mut cluster = Cluster::start("a_node_leaves_when_it_is_told_to_stop", &shape);
    let first = cluster.leader(GROUP);
    let number = first as u64 + 1;
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    let log = told_to_stop(&mut cluster.nodes[first]);
    assert!(log.contains("left the groups groups=4"), "{log}");
    assert!(!log.contains("not left"), "{log}");
    let left: Vec<(u64, &str)> =
        (1..=4).filter(|&node| node != number).map(|node| (node, "voter")).collect();
    assert_roles(&cluster, &left);
    load.wait_more(WRITES);
    // Three vote now: one of them may fail, and stays a member.
    let next = cluster.leader(GROUP);
    cluster.nodes[next].kill();
    load.wait_more(WRITES);
    assert_roles(&cluster, &left);
    cluster.nodes[next].start();
    cluster.nodes[first].start();
    // What it says of a group may lag: it needn't have on its disk that its removal is committed.
    wait_until("the node that left to answer", || says(&cluster, number).len() as u64 == ALL);
    load.wait_more(WRITES);
    assert_roles(&cluster, &left);
    let (name, node) = (number.to_string(), &cluster.nodes[first]);
    let peer = format!("127.0.0.1:{}", node.ports[1]);
    let add = ["add", &name, "--peer", &peer, "--client", &node.client, "--yes"];
    // Nobody dials it any more: it is known again when it has dialled every leader.
    wait_until("it to be added everywhere", || ask(&cluster, &add).status.success());
    wait_until("it to be promoted everywhere", || {
        ask(&cluster, &["promote", &name, "--yes"]).status.success()
    });
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]);
    let writers = load.stop();
    check(&cluster, &writers);
    cluster.assert_copies_agree(4);
}

/// Goal: the only voter of its groups stops without leaving them, and says so; it comes back with
/// all that it had (MB-18).
#[test]
fn the_only_voter_stays_a_member() {
    let shape = Shape { nodes: 1, ..leaving() };
    let mut cluster = Cluster::start("the_only_voter_stays_a_member", &shape);
    let load = Load::start(vec![Writer::new(&cluster, "w", GROUP, Duration::from_secs(50))]);
    load.wait_more(WRITES);
    let writers = load.stop();
    let log = told_to_stop(&mut cluster.nodes[0]);
    assert!(log.contains("this node is its only voter"), "{log}");
    assert!(log.contains("1-3") && log.contains("stops without having left"), "{log}");
    cluster.nodes[0].start();
    cluster.leader(GROUP);
    assert_roles(&cluster, &[(1, "voter")]);
    check(&cluster, &writers);
}

/// Goal: however many leave at once, each group keeps somebody who votes, and all that was
/// acknowledged: the next start serves it (MB-18).
#[test]
fn all_may_be_told_to_stop_at_once() {
    let mut cluster = Cluster::start("all_may_be_told_to_stop_at_once", &leaving());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    let writers = load.stop();
    for node in &cluster.nodes {
        node.signal(Signal::TERM);
    }
    for node in &mut cluster.nodes {
        assert!(node.wait().success(), "{}", node.log());
    }
    let stays = |log: &str| {
        ["stops without having left", "leaving took too long"].iter().any(|it| log.contains(it))
    };
    assert!(cluster.nodes.iter().any(|node| stays(&node.log())), "somebody votes alone");
    for node in &mut cluster.nodes {
        node.start();
    }
    check(&cluster, &writers);
    let found = roles(&cluster);
    assert!(found.iter().all(|group| !group.is_empty()), "{found:?}");
}

/// Goal: without a majority nobody leaves: the node says so, with what to do, and stops all the
/// same, at a second signal too; then all are members as before (MB-18).
#[test]
fn without_a_majority_a_node_stops_as_a_member() {
    let mut cluster = Cluster::start("without_a_majority_a_node_stops_as_a_member", &leaving());
    cluster.leader(GROUP);
    let all = [(1, "voter"), (2, "voter"), (3, "voter")];
    for node in [0, 1] {
        cluster.nodes[node].kill();
    }
    let log = told_to_stop(&mut cluster.nodes[2]);
    assert!(log.contains("stops without having left"), "{log}");
    assert!(log.contains("`ringraft node remove 3 --yes`"), "{log}");
    cluster.nodes[2].start();
    let runs = "it to serve its clients";
    wait_until(runs, || says(&cluster, 3).len() as u64 == ALL);
    for _ in 0..2 {
        cluster.nodes[2].signal(Signal::TERM);
    }
    assert!(cluster.nodes[2].wait().success(), "{}", cluster.nodes[2].log());
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.leader(GROUP);
    wait_until("every group to be led", || roles(&cluster).len() as u64 == ALL);
    assert_roles(&cluster, &all);
}
