//! Who may use a data directory, and who may come back with which.

use crate::cluster::{Cluster, Node, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, Writer, check};
use crate::raw::Raw;
use ringraft_net::handshake::RefusalCode;
use ringraft_net::{Hello, Identity};
use ringraft_types::{GroupId, Incarnation, Lacked, Met, NodeId, ShardId, Start, Status};
use ringraft_wal::manifest::Manifest;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

const GROUP: GroupId = GroupId(1);
/// Exit codes, as `ringraft exit-codes` explains them.
const DATA_DIR: i32 = 8;
const ENVIRONMENT: i32 = 10;
/// What a start says of a directory that is known to be an older copy.
const OLDER_COPY: [&str; 2] = ["is an older copy: node", "put the newest directory back"];

#[track_caller]
fn assert_refused(output: &Output, code: i32, sentences: &[&str]) {
    let text = text_of(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for sentence in sentences {
        assert!(text.contains(sentence), "{sentence:?} is missing: {text}");
    }
}

/// Goal: a node refuses a directory that is missing, empty, another node's or another cluster's,
/// says which it is, and leaves it as it was.
#[test]
fn a_wrong_data_directory_is_refused() {
    let test = "a_wrong_data_directory_is_refused";
    let shape = Shape::default();
    let cluster = Cluster::configured(test, &shape);
    let other = Cluster::configured("a_wrong_data_directory_is_refused-other", &shape);
    let node = &cluster.nodes[0];
    let missing = node.run("node");
    assert_refused(&missing, DATA_DIR, &["is not formatted", "ringraft format"]);
    assert!(!node.data_dir.exists(), "a refusal makes nothing");

    std::fs::create_dir(&node.data_dir).expect("a directory");
    let empty = node.run("node");
    assert_refused(&empty, DATA_DIR, &["is not formatted", "ringraft format"]);
    let entries = std::fs::read_dir(&node.data_dir).expect("it is there").count();
    assert_eq!(entries, 0, "a refusal makes nothing");

    node.format();
    assert_refused(&node.run("format"), DATA_DIR, &["is formatted already"]);
    cluster.nodes[1].set("data_dir", &format!("{:?}", node.data_dir.display().to_string()));
    let foreign = cluster.nodes[1].run("node");
    assert_refused(&foreign, DATA_DIR, &["belongs to node 1, the configuration says 2"]);

    other.nodes[0].set("data_dir", &format!("{:?}", node.data_dir.display().to_string()));
    let foreign = other.nodes[0].run("node");
    assert_refused(&foreign, DATA_DIR, &["belongs to cluster", "the configuration says"]);
}

/// Goal: a second process on the same directory is refused, with the first one's number, and does
/// not disturb the first.
#[test]
fn a_directory_in_use_is_refused() {
    let shape = Shape { nodes: 1, ..Shape::default() };
    let cluster = Cluster::start("a_directory_in_use_is_refused", &shape);
    cluster.leader(GROUP);
    let load = Load::start(vec![Writer::new(&cluster, "w", GROUP, Duration::from_secs(30))]);
    load.wait_more(10);
    let second = cluster.nodes[0].run("node");
    let process = format!("is in use by process {}", cluster.nodes[0].id());
    assert_refused(&second, DATA_DIR, &[&process]);
    load.wait_more(10);
    check(&cluster, &load.stop());
}

/// Goal: each of a node's three ports that somebody else has is named, and the node doesn't start
/// without it.
#[test]
fn a_taken_port_is_refused_and_named() {
    let cluster = Cluster::configured("a_taken_port_is_refused_and_named", &Shape::default());
    let node = &cluster.nodes[0];
    node.format();
    for (what, port) in ["client", "peer", "http"].iter().zip(node.ports) {
        let taken = TcpListener::bind(("127.0.0.1", port)).expect("it was free");
        let sentence = format!("{what} port 127.0.0.1:{port} is taken");
        assert_refused(&node.run("node"), ENVIRONMENT, &[&sentence]);
        drop(taken);
    }
}

/// Goal: a log folder that is missing or empty under a directory that was in use is refused, by its
/// path and with the cure, and left as it is; so is one shard's log that is gone alone. Put back,
/// it is taken.
#[test]
fn a_lost_log_is_refused() {
    let shards = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let shape = Shape { nodes: 1, groups: 2, ..Shape::default() }.set("auto_count", shards);
    let mut cluster = Cluster::start("a_lost_log_is_refused", &shape);
    let serves = |cluster: &Cluster| {
        for group in [1, 2].map(GroupId) {
            cluster.leader(group);
        }
    };
    serves(&cluster);
    cluster.nodes[0].kill();
    let logs = cluster.nodes[0].data_dir.join("wal");
    let aside = logs.with_extension("aside");

    std::fs::rename(&logs, &aside).expect("moved away");
    let path = logs.display().to_string();
    let refused = cluster.nodes[0].run("node");
    assert_refused(&refused, DATA_DIR, &[&path, "is missing", "put it back"]);
    assert!(!logs.exists(), "a refusal makes nothing");

    std::fs::create_dir(&logs).expect("a directory");
    let refused = cluster.nodes[0].run("node");
    assert_refused(&refused, DATA_DIR, &[&path, "is missing", "put it back"]);
    assert_eq!(std::fs::read_dir(&logs).expect("it is there").count(), 0);

    let last = format!("wal-{shards:016x}-");
    let names = |from: &Path| -> Vec<String> {
        let names = std::fs::read_dir(from).expect("a directory");
        names.map(|it| it.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    let (others, of_last): (Vec<String>, Vec<String>) =
        names(&aside).into_iter().partition(|name| !name.starts_with(&last));
    assert!(!of_last.is_empty());
    for name in others {
        std::fs::rename(aside.join(&name), logs.join(&name)).expect("put back");
    }
    let refused = cluster.nodes[0].run("node");
    assert_refused(&refused, DATA_DIR, &[&format!("log {shards}"), &last, "is missing"]);
    for name in of_last {
        std::fs::rename(aside.join(&name), logs.join(&name)).expect("put back");
    }
    cluster.nodes[0].start();
    serves(&cluster);
}

/// A node loses its directory while the others go on; formatted anew it must not count.
fn a_node_formatted_anew(test: &'static str, anew: usize) {
    let mut cluster = Cluster::start(test, &Shape::default());
    cluster.leader(GROUP);
    let load = Load::start(vec![Writer::new(&cluster, "w", GROUP, Duration::from_secs(30))]);
    load.wait_more(50);
    // All three must know each other: then the identity of each is durable with the others.
    (0..3).for_each(|node| cluster.wait_caught_up(node, GROUP));
    cluster.nodes[anew].kill();
    std::fs::remove_dir_all(&cluster.nodes[anew].data_dir).expect("the directory is ours");
    cluster.nodes[anew].format();
    cluster.nodes[anew].start();
    let sentence = "its data directory was formatted anew, so it forgot its votes";
    for node in (0..3).filter(|&node| node != anew) {
        let what = format!("{} to say that it refused", cluster.nodes[node].name);
        wait_until(&what, || cluster.nodes[node].log().contains(sentence));
    }
    load.wait_more(50);
    // What it knows is what it was given: nothing.
    let reply = cluster.locate(anew, GROUP);
    assert_eq!(reply.applied.0, 0, "a node that nobody talks to applied something");
    assert!(!reply.ready, "it leads");
    check(&cluster, &load.stop());
    for node in (0..3).filter(|&node| node != anew) {
        let times = cluster.nodes[node].log().matches(sentence).count();
        assert_eq!(times, 1, "{} says it once, not at every dial", cluster.nodes[node].name);
    }
}

/// Goal: a node that comes back with a new directory, and is dialled by the others, is refused by
/// both with a sentence that says so, and the cluster goes on without it.
#[test]
fn a_dialled_node_formatted_anew_is_refused() {
    a_node_formatted_anew("a_dialled_node_formatted_anew_is_refused", 2);
}

/// Goal: the same of a node that dials the others.
#[test]
fn a_dialling_node_formatted_anew_is_refused() {
    a_node_formatted_anew("a_dialling_node_formatted_anew_is_refused", 0);
}

/// Copies a directory with the directories in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Gives a node that was killed another directory, and keeps its own elsewhere. A killed process
/// lets go of its ports when its last operation is done; its lock, which a start waits for, goes
/// away with its own directory.
fn swap(node: &Node, to: &Path, from: &Path) {
    std::fs::rename(&node.data_dir, to).expect("moved away");
    std::fs::rename(from, &node.data_dir).expect("put in its place");
    wait_until(&format!("the ports of {}", node.name), || {
        node.ports.iter().all(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    });
}

/// A node's directory is put back from a copy, which is told once what it is, and put right at last.
fn a_copy_put_back(test: &'static str, old: usize) {
    let mut cluster = Cluster::start(test, &Shape::default());
    cluster.leader(GROUP);
    let load = Load::start(vec![Writer::new(&cluster, "w", GROUP, Duration::from_secs(30))]);
    load.wait_more(50);
    (0..3).for_each(|node| cluster.wait_caught_up(node, GROUP));
    let data = cluster.nodes[old].data_dir.clone();
    let (copied, newest) = (data.with_extension("copied"), data.with_extension("newest"));
    cluster.nodes[old].kill();
    copy(&data, &copied);
    // Later starts, in which it promises more.
    for _ in 0..2 {
        cluster.nodes[old].start();
        load.wait_more(20);
        cluster.wait_caught_up(old, GROUP);
        cluster.nodes[old].kill();
    }
    swap(&cluster.nodes[old], &newest, &copied);

    let node = &mut cluster.nodes[old];
    node.start();
    wait_until("the copy to know what it is, and to write it down", || {
        let found = Manifest::load(&node.data_dir).expect("a copy of it is always whole");
        found.manifest.lacked.is_some()
    });
    let reply = cluster.locate(old, GROUP);
    assert_eq!((reply.status, reply.ready), (Status::Damaged, false));
    load.wait_more(50);
    assert_eq!(cluster.locate(old, GROUP).applied, reply.applied, "it takes no part");
    let output = ringraft(&["status", "--endpoints", &cluster.nodes[old].client]).output();
    let text = text_of(&output.expect("status runs"));
    assert!(text.contains("DAMAGED"), "{text}");
    let own = "this node's data directory is an older copy";
    wait_until("the copy to say what it is", || cluster.nodes[old].log().contains(own));
    let sentence = "peer refused: its data directory is an older copy";
    for other in (0..3).filter(|&node| node != old).map(|node| &cluster.nodes[node]) {
        wait_until(&format!("{} to say that it refused", other.name), || {
            other.log().contains(sentence)
        });
    }
    cluster.nodes[old].kill();
    // It needs nobody to tell it again.
    for _ in 0..2 {
        assert_refused(&cluster.nodes[old].run("node"), DATA_DIR, &OLDER_COPY);
    }
    swap(&cluster.nodes[old], &copied, &newest);
    cluster.nodes[old].start();
    load.wait_more(20);
    cluster.wait_caught_up(old, GROUP);
    check(&cluster, &load.stop());
    cluster.assert_replicas_agree();
}

/// Goal: a node that comes back with an older copy of its directory, and dials the others, is
/// refused by both and knows it; they go on without it, and it counts again with its newest one.
#[test]
fn an_older_copy_is_refused() {
    a_copy_put_back("an_older_copy_is_refused", 0);
}

/// Goal: the same of a node that is dialled.
#[test]
fn a_dialled_older_copy_is_refused() {
    a_copy_put_back("a_dialled_older_copy_is_refused", 2);
}

/// Goal: what one shard is told all shards act on, at once and at every later start: a peer that
/// greets one of them says that it met the node in a start that isn't in its directory.
#[test]
fn all_shards_hear_of_an_older_copy() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return;
    }
    let shape = Shape { groups: 2, ..Shape::default() }.set("auto_count", 2);
    let mut cluster = Cluster::configured("all_shards_hear_of_an_older_copy", &shape);
    let node = &mut cluster.nodes[0];
    node.format();
    node.start();
    let manifest = || Manifest::load(&cluster.nodes[0].data_dir).expect("just formatted").manifest;
    let (cluster_id, incarnation) = (manifest().cluster, manifest().incarnation);
    let groups = [1, 2].map(GroupId);
    for group in groups {
        assert_ne!(cluster.locate(0, group).status, Status::Damaged);
    }
    let peer = Identity { cluster: cluster_id, node: NodeId(2), incarnation: Incarnation(77) };
    let start = Start { number: 9, nonce: 9 };
    let shard = ShardId(0);
    let hello = Hello {
        met: Some(Met { incarnation, start }),
        ..Hello::from_peer(peer, Start { number: 1, nonce: 1 }, shard, NodeId(1), shard)
    };
    let address = format!("127.0.0.1:{}", cluster.nodes[0].ports[1]);
    let (_, welcome) = Raw::greet(&address, &hello).expect("an answer");
    assert_eq!(welcome.verdict, Err(RefusalCode::RolledBack));
    for group in groups {
        wait_until(&format!("the shard of group {group} to hear of it"), || {
            cluster.locate(0, group).status == Status::Damaged
        });
    }
    let lacked = Lacked { start, by: peer.node };
    wait_until("the node to write it down", || manifest().lacked == Some(lacked));
    cluster.nodes[0].kill();
    let sentences = ["is an older copy: node 2 met this node in start 9", OLDER_COPY[1]];
    assert_refused(&cluster.nodes[0].run("node"), DATA_DIR, &sentences);
}
