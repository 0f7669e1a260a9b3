//! Leadership that is handed over: by command, and by a node that is told to stop.

use crate::cluster::{Cluster, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, Writer, check, gaps};
use ringraft_types::GroupId;
use serde_json::Value;
use std::time::{Duration, Instant};

const GROUP: GroupId = GroupId(1);
/// Writes between two changes of leader.
const WRITES: u64 = 300;

fn ask(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, Value) {
    let endpoints = cluster.endpoints().join(",");
    let mut command = ringraft(arguments);
    let output = command.args(["--endpoints", &endpoints, "--output", "json"]);
    let output = output.output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let json = serde_json::from_str(last);
    (output.status.code(), json.unwrap_or_else(|error| panic!("{error}: {}", text_of(&output))))
}

/// Goal: under load, leadership goes where it is sent, from node to node, and a write that was
/// acknowledged is there once; a node that is paused leads nothing, and says so, until it is told
/// to again.
#[test]
fn leadership_goes_where_it_is_sent() {
    let cluster = Cluster::start("leadership_goes_where_it_is_sent", &Shape::default());
    cluster.leader(GROUP);
    let load = Load::start(vec![Writer::new(&cluster, "one", GROUP, Duration::from_secs(50))]);
    for round in 0..6 {
        load.wait_more(WRITES);
        let to = (cluster.leader(GROUP) + 1) % 3;
        let name = (to + 1).to_string();
        let planned = ask(&cluster, &["leader", "transfer", "--to", &name]);
        assert_eq!((planned.0, &planned.1["done"]), (Some(3), &Value::Bool(false)));
        assert_ne!(cluster.leader(GROUP), to, "a plan changes nothing");
        let (code, said) = ask(&cluster, &["leader", "transfer", "--to", &name, "--yes"]);
        assert_eq!(code, Some(0), "round {round}: {said}");
        assert_eq!(said["groups"][0]["to"], to as u64 + 1);
        assert_eq!(cluster.leader(GROUP), to);
    }
    let paused = cluster.leader(GROUP);
    let name = (paused + 1).to_string();
    assert_eq!(ask(&cluster, &["leader", "pause", &name, "--yes"]).0, Some(0));
    wait_until("another node leads", || cluster.leader(GROUP) != paused);
    load.wait_more(WRITES);
    let (_, listed) = ask(&cluster, &["leader", "ls"]);
    assert_eq!(listed["paused"], serde_json::json!([paused + 1]));
    let (code, refused) = ask(&cluster, &["leader", "transfer", "--to", &name, "--yes"]);
    assert_eq!(code, Some(3), "{refused}");
    assert_ne!(cluster.leader(GROUP), paused);
    assert_eq!(ask(&cluster, &["leader", "resume", &name, "--yes"]).0, Some(0));
    let (code, said) = ask(&cluster, &["leader", "transfer", "--to", &name, "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cluster.leader(GROUP), paused);
    let writers = load.stop();
    check(&cluster, &writers);
    cluster.assert_replicas_agree();
}

/// Goal: one command has all nodes lead about as many groups; a plan changes nothing, and what is even
/// stays as it is.
#[test]
fn leaders_are_balanced_by_command() {
    let shape = Shape { groups: 6, ..Shape::default() };
    let cluster = Cluster::start("leaders_are_balanced_by_command", &shape);
    for group in 1..=6 {
        cluster.leader(GroupId(group));
    }
    let leads = || {
        let (_, listed) = ask(&cluster, &["leader", "ls"]);
        let rows = listed["nodes"].as_array().expect("nodes").clone();
        rows.iter().map(|row| row["leads"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    // A voter that isn't up to date yet is refused: it soon is.
    wait_until("node 1 leads all", || {
        ask(&cluster, &["leader", "transfer", "--to", "1", "--yes"]);
        leads() == [7, 0, 0]
    });
    let (code, planned) = ask(&cluster, &["leader", "balance"]);
    assert_eq!((code, &planned["done"]), (Some(3), &Value::Bool(false)));
    assert_eq!(planned["groups"].as_array().map(Vec::len), Some(4), "{planned}");
    assert_eq!(leads(), [7, 0, 0], "a plan changes nothing");
    let (code, done) = ask(&cluster, &["leader", "balance", "--yes"]);
    assert_eq!(code, Some(0), "{done}");
    assert_eq!(leads(), [3, 2, 2]);
    let (code, rest) = ask(&cluster, &["leader", "balance"]);
    assert_eq!((code, rest["groups"].as_array().map(Vec::len)), (Some(0), Some(0)), "{rest}");
}

/// Goal: a leader that is told to stop hands over first, under load: the others needn't find out
/// that it is gone. The pause in acknowledgements is printed.
#[test]
fn a_terminated_leader_hands_over() {
    let mut cluster = Cluster::start("a_terminated_leader_hands_over", &Shape::default());
    cluster.leader(GROUP);
    let load = Load::start(vec![Writer::new(&cluster, "one", GROUP, Duration::from_secs(50))]);
    let mut stops = Vec::new();
    for _ in 0..6 {
        load.wait_more(WRITES);
        let leader = cluster.leader(GROUP);
        // In an earlier round the same nodes may have been seen to stop and to lead.
        let told: Vec<usize> = cluster.nodes.iter().map(|node| node.log().len()).collect();
        stops.push(Instant::now());
        assert!(cluster.nodes[leader].terminate().success());
        load.wait_more(WRITES);
        let next = cluster.leader(GROUP);
        let lost = format!("peer lost shard=0 peer={}", leader + 1);
        // Its lines are written a little later.
        let seen = |what: &str| cluster.nodes[next].log()[told[next]..].find(what);
        wait_until("both lines", || seen(&lost) > None && seen("leads group=1") > None);
        assert!(seen("leads group=1") < seen(&lost), "it leads before the other is gone");
        cluster.nodes[leader].start();
        cluster.wait_caught_up(leader, GROUP);
    }
    let writers = load.stop();
    let tally = check(&cluster, &writers);
    cluster.assert_replicas_agree();
    let mut gaps = gaps(&writers, &stops);
    gaps.sort_unstable();
    println!("{tally:?}; write gaps of hand-overs {gaps:?} (goal: p99 50 ms)");
}
