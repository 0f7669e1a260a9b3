//! `ringraft node refresh`: the files of nodes follow the members, and nodes that start with them
//! are what they were.

use crate::cluster::{Cluster, Node, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, check};
use crate::members::{ALL, ask, assert_roles, json_of, make, place, placed, says, shape, writers};
use ringraft::config::Config;
use ringraft_types::GroupId;
use serde_json::Value;

const GROUP: GroupId = GroupId(1);
/// Writes between two steps.
const WRITES: u64 = 300;

fn file(node: &Node) -> String {
    std::fs::read_to_string(&node.config).expect("the node's file")
}

fn path(node: &Node) -> String {
    node.config.display().to_string()
}

/// What is to become of each node of a file.
fn changes(said: &Value) -> Vec<(u64, &str)> {
    let rows = said["nodes"].as_array().expect("nodes");
    let row = |row: &'_ Value| row["node"].as_u64().expect("a number");
    rows.iter().map(|it| (row(it), it["change"].as_str().expect("a word"))).collect()
}

/// The numbers of the nodes that a file names, as a start reads it.
fn named(node: &Node) -> Vec<u32> {
    let config = Config::load(&node.config).expect("a sound file");
    config.nodes.iter().map(|node| node.id.get()).collect()
}

/// Goal: after a node came and another left, the files are brought in line with that, and nothing
/// is written unasked; nodes that start with these files are members as before, are found and find the
/// others, and who left is no member; nothing that was acknowledged is lost (MB-17).
#[test]
fn a_refreshed_file_changes_no_member() {
    let mut cluster = Cluster::start("a_refreshed_file_changes_no_member", &shape());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    cluster.join();
    let place = place(&cluster);
    make(&cluster, &placed(&["add", "4"], &place));
    wait_until("node 4 to be promoted everywhere", || {
        ask(&cluster, &["promote", "4", "--yes"]).status.success()
    });
    make(&cluster, &["remove", "1"]);
    let members = [(2, "voter"), (3, "voter"), (4, "voter")];
    assert_roles(&cluster, &members);
    a_plan_is_only_shown(&cluster);
    for node in &cluster.nodes {
        let said = json_of(&cluster, &["refresh", &path(node), "--yes"], 0);
        assert_eq!(said["result"], "done", "{said}");
        let written = file(node);
        let again = json_of(&cluster, &["refresh", &path(node), "--yes"], 0);
        assert_eq!((&again["result"], file(node)), (&Value::from("already"), written), "{again}");
    }
    let all: Vec<Vec<u32>> = cluster.nodes.iter().map(named).collect();
    assert_eq!(all[0], [1, 2, 3, 4], "node 1's own file");
    assert!(all[1..].iter().all(|nodes| *nodes == [2, 3, 4]), "{all:?}");
    let four = |node: &Node| Config::load(&node.config).expect("a sound file").nodes[2].clone();
    assert_eq!(four(&cluster.nodes[1]), four(&cluster.nodes[3]), "as node 4 itself has it");
    for node in [1, 2, 3] {
        load.wait_more(WRITES);
        assert!(cluster.nodes[node].terminate().success());
        cluster.nodes[node].start();
        cluster.wait_caught_up(node, GROUP);
    }
    assert!(cluster.nodes[0].terminate().success());
    cluster.nodes[0].start();
    // What it says of a group may lag: it needn't have on its disk that its removal is committed.
    wait_until("node 1 to answer", || says(&cluster, 1).len() as u64 == ALL);
    load.wait_more(WRITES);
    assert_roles(&cluster, &members);
    // Without node 4 the other two must have found each other.
    cluster.assert_caught_up(3);
    cluster.nodes[3].kill();
    load.wait_more(WRITES);
    cluster.nodes[3].start();
    let writers = load.stop();
    check(&cluster, &writers);
    cluster.assert_copies_agree(3);
    assert_roles(&cluster, &members);
}

/// Without `--yes` the plan is shown, and that is all.
fn a_plan_is_only_shown(cluster: &Cluster) {
    let node = &cluster.nodes[1];
    let before = file(node);
    let plan = json_of(cluster, &["refresh", &path(node)], 3);
    assert_eq!(plan["result"], "planned", "{plan}");
    assert_eq!(changes(&plan), [(1, "remove"), (2, "none"), (3, "none"), (4, "add")]);
    let shown = ask(cluster, &["refresh", &path(node)]);
    let text = text_of(&shown);
    assert_eq!(shown.status.code(), Some(3), "{text}");
    assert!(text.contains("to be removed") && text.contains("to be added"), "{text}");
    assert!(text.contains("nothing was changed") && text.contains("--yes"), "{text}");
    let own = json_of(cluster, &["refresh", &path(&cluster.nodes[0])], 3);
    assert_eq!(changes(&own), [(1, "kept"), (2, "none"), (3, "none"), (4, "add")]);
    assert_eq!(file(node), before);
}

/// Goal: a file is written only if it is of this cluster, if it can be read, and if every group
/// answers; whatever is refused leaves it as it was, and says what to do (MB-17).
#[test]
fn a_file_is_refreshed_by_its_own_cluster_only() {
    let mut cluster = Cluster::start("a_file_is_refreshed_by_its_own_cluster_only", &shape());
    cluster.leader(GROUP);
    let endpoints = cluster.endpoints().join(",");
    let refused = |node: &Node, words: &[&str], exit: i32, says: &[&str]| {
        let before = file(node);
        let file_name = path(node);
        let all = ["node", "refresh", &file_name, "--yes", "--endpoints", &endpoints];
        let output = ringraft(&[&all, words].concat()).output().expect("the command runs");
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(exit), "{text}");
        assert!(says.iter().all(|word| text.contains(word)), "{says:?}: {text}");
        assert_eq!(file(node), before);
    };
    let said = json_of(&cluster, &["refresh", &path(&cluster.nodes[0])], 0);
    assert_eq!(said["result"], "already", "{said}");
    refused(&cluster.nodes[0], &["--group", "1"], 2, &["leave --group out"]);
    let other = Cluster::configured("another_cluster", &Shape { nodes: 1, ..Shape::default() });
    let foreign = ["is of another cluster than", "--endpoints"];
    refused(&other.nodes[0], &["--timeout", "3s"], 3, &foreign);
    let broken = &other.nodes[0];
    std::fs::write(&broken.config, "id = \n").expect("written");
    refused(broken, &[], 6, &["not TOML"]);
    for node in [0, 1] {
        cluster.nodes[node].kill();
    }
    let silent = ["the file is as it was", "ringraft status"];
    refused(&cluster.nodes[2], &["--timeout", "2s"], 5, &silent);
}
