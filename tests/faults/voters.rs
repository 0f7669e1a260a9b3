//! With whom a cluster begins: the nodes of the file at the moment of `format`, whatever becomes of
//! the file later; or nobody, for a node that is to join.

use crate::cluster::{Cluster, Node, Shape, ringraft, text_of, wait_until};
use ringraft_types::command::PutCommand;
use ringraft_types::{GroupId, NodeId};
use ringraft_wal::manifest::Manifest;
use std::io::Write as _;

const GROUP: GroupId = GroupId(1);

fn manifest(node: &Node) -> Manifest {
    Manifest::load(&node.data_dir).expect("a formatted directory").manifest
}

fn three() -> Option<Vec<NodeId>> {
    Some([1, 2, 3].map(NodeId).to_vec())
}

/// Names a fourth node in the files of all others.
fn name_a_fourth(cluster: &Cluster) {
    for node in &cluster.nodes {
        let mut file = std::fs::File::options().append(true).open(&node.config).expect("a file");
        let table = "\n[[nodes]]\nid = 4\nname = \"n4\"\npeer = \"127.0.0.1:2\"\n\
                     client = \"127.0.0.1:3\"\nhttp = \"127.0.0.1:4\"\n";
        file.write_all(table.as_bytes()).expect("written");
    }
}

/// Two nodes decide: they do with three voters, and can't with four.
fn assert_two_decide(cluster: &mut Cluster, key: &[u8]) {
    cluster.nodes[..2].iter_mut().for_each(Node::start);
    let leader = cluster.leader(GROUP);
    assert!(leader < 2);
    let mut command = Vec::new();
    let put = PutCommand { key, value: b"decided", previous: false };
    put.encode(&mut command).expect("under the limits");
    cluster.client().write(GROUP, &command).expect("two are a majority");
    cluster.nodes[..2].iter_mut().for_each(Node::kill);
}

/// Goal: what a cluster begins with is decided when its directories are formatted: a node that the
/// files name later votes in nothing.
#[test]
fn a_file_that_names_another_node_changes_no_voter() {
    let mut cluster = Cluster::configured("a_file_that_names_another_node", &Shape::default());
    for node in &cluster.nodes {
        node.format();
        assert_eq!(manifest(node).first, three());
    }
    name_a_fourth(&cluster);
    for key in [b"one", b"two"] {
        assert_two_decide(&mut cluster, key);
        assert_eq!(manifest(&cluster.nodes[0]).first, three());
    }
}

/// Goal: a directory that was formatted before voters were remembered takes them from the file, once:
/// what it is started with first counts.
#[test]
fn an_older_directory_learns_its_voters_once() {
    let mut cluster =
        Cluster::configured("an_older_directory_learns_its_voters", &Shape::default());
    for node in &cluster.nodes {
        node.format();
        let old = Manifest { first: None, ..manifest(node) };
        old.store(&node.data_dir, 2).expect("stored");
    }
    assert_two_decide(&mut cluster, b"one");
    assert_eq!(manifest(&cluster.nodes[0]).first, three());
    assert_eq!(manifest(&cluster.nodes[2]).first, None, "it was never started");
    name_a_fourth(&cluster);
    assert_two_decide(&mut cluster, b"two");
    assert_eq!(manifest(&cluster.nodes[1]).first, three());
}

/// Goal: a node that is to join votes nowhere, also not for itself, and says that it waits.
#[test]
fn a_node_that_joins_waits_to_be_added() {
    let shape = Shape { nodes: 1, groups: 2, ..Shape::default() };
    let mut cluster = Cluster::configured("a_node_that_joins_waits", &shape);
    let node = &mut cluster.nodes[0];
    let config = node.config.display().to_string();
    let format = ["format", "--join", "--config", &config];
    let output = ringraft(&format).output().expect("it runs");
    let text = text_of(&output);
    assert!(output.status.success() && text.contains("to join its cluster"), "{text}");
    std::fs::remove_dir_all(&node.data_dir).expect("removed");
    let output = ringraft(&[&format[..], &["-o", "json"]].concat()).output().expect("it runs");
    let text = text_of(&output);
    assert!(output.status.success() && text.contains("\"joins\":true"), "{text}");
    assert_eq!(manifest(node).first, Some(Vec::new()));
    for start in 1..=2 {
        node.start();
        wait_until("the node to say that it waits", || {
            node.log().matches("waits to be added to its groups").count() == start
        });
        // Long enough to stand, if it did.
        wait_until("the node to answer", || node.http_get("/status").contains("\"groups\""));
        node.kill();
    }
    assert!(!node.log().contains("stands for election"), "{}", node.log());
    assert_eq!(manifest(node).first, Some(Vec::new()));
}
