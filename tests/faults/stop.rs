//! Stopping in good order, and coming back.

use crate::cluster::{Cluster, Node, Shape};
use crate::load::{Load, Writer, check};
use ringraft_types::GroupId;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);

fn writer(cluster: &Cluster) -> Writer {
    Writer::new(cluster, "w", GROUP, Duration::from_secs(50))
}

/// SIGTERM, and the end that follows: exit code 0, and not for want of time.
fn stops_quietly(node: &mut Node) {
    let status = node.terminate();
    let log = node.log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("stopped before all that was taken on"), "{log}");
}

/// Goal: SIGTERM under load ends a lone node with exit code 0, and what it acknowledged is there
/// when it comes back, also after a kill.
#[test]
fn a_single_node_stops_and_keeps_its_data() {
    let shape = Shape { nodes: 1, ..Shape::default() };
    let mut cluster = Cluster::start("a_single_node_stops_and_keeps_its_data", &shape);
    let mut writers = vec![writer(&cluster)];
    for round in 0..4 {
        let load = Load::start(writers);
        load.wait_more(200);
        if round % 2 == 0 {
            stops_quietly(&mut cluster.nodes[0]);
        } else {
            cluster.nodes[0].kill();
        }
        cluster.nodes[0].start();
        load.wait_more(200);
        writers = load.stop();
        check(&cluster, &writers);
    }
}

/// Goal: every node of a cluster can be stopped and started in turn under load, then all at once,
/// each with exit code 0, and nothing is lost.
#[test]
fn a_cluster_stops_and_keeps_its_data() {
    let mut cluster = Cluster::start("a_cluster_stops_and_keeps_its_data", &Shape::default());
    let load = Load::start(vec![writer(&cluster)]);
    for node in 0..3 {
        load.wait_more(100);
        stops_quietly(&mut cluster.nodes[node]);
        load.wait_more(100);
        cluster.nodes[node].start();
        cluster.wait_caught_up(node, GROUP);
    }
    let writers = load.stop();
    check(&cluster, &writers);
    for node in &mut cluster.nodes {
        stops_quietly(node);
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    check(&cluster, &writers);
    cluster.assert_replicas_agree();
}
