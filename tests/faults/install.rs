//! A node that was away for longer than the others' logs reach back.

use crate::cluster::{Cluster, Shape, wait_until};
use crate::load::{Load, Writer, check};
use ringraft_types::GroupId;
use ringraft_types::command::PutCommand;
use std::fs;
use std::path::Path;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
const SEGMENT_BYTES: u64 = 8 << 20;
/// Keys that are written again and again, and what one of their values is long.
const KEYS: u64 = 100;
const VALUE_BYTES: usize = 64 << 10;

/// The bytes of a node's segments.
fn log_bytes(data_dir: &Path) -> u64 {
    let entries = fs::read_dir(data_dir.join("wal")).expect("a log folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let segments = paths.filter(|path| path.extension().is_some_and(|it| it == "seg"));
    // One may be removed meanwhile.
    segments.map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
}

/// Goal: while writes go on for several times what a log may hold, the logs end behind snapshots; a
/// node that was away meanwhile gets one and goes on from it, under load, and nothing is lost.
#[test]
fn a_node_that_was_away_for_long_installs_a_snapshot() {
    let shape =
        Shape::default().set("log_bytes", 2 * SEGMENT_BYTES).set("lag_bytes", 2 * SEGMENT_BYTES);
    let mut cluster = Cluster::start("a_node_that_was_away_for_long_installs", &shape);
    let leader = cluster.leader(GROUP);
    let away = (leader + 1) % 3;
    let writers = vec![Writer::new(&cluster, "w", GROUP, Duration::from_secs(50))];
    let load = Load::start(writers);
    load.wait_more(100);
    cluster.nodes[away].kill();
    let mut client = cluster.client();
    let mut command = Vec::new();
    for number in 0..12 * KEYS {
        let value = vec![number as u8; VALUE_BYTES];
        let key = format!("large-{}", number % KEYS);
        let put = PutCommand { key: key.as_bytes(), value: &value, previous: false };
        command.clear();
        put.encode(&mut command).expect("under the limits");
        client.write(GROUP, &command).expect("a majority is there");
    }
    let longest = cluster.nodes.iter().map(|node| log_bytes(&node.data_dir)).max();
    let longest = longest.expect("there are three");
    assert!(longest > 0 && longest < 7 * SEGMENT_BYTES, "{longest} bytes of log");
    cluster.nodes[away].start();
    wait_until("a snapshot is installed", || {
        cluster.nodes[away].log().contains("snapshot installed")
    });
    load.wait_more(300);
    cluster.wait_caught_up(away, GROUP);
    // And again from its own disk.
    cluster.nodes[away].kill();
    cluster.nodes[away].start();
    load.wait_more(100);
    cluster.wait_caught_up(away, GROUP);
    let writers = load.stop();
    check(&cluster, &writers);
    cluster.assert_replicas_agree();
}
