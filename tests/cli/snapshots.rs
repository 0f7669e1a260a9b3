//! Snapshots from the command line, against real nodes.

use super::quorum::{Dev, free_ports, temp_dir, turn, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Each group of each node, with what a command's JSON has of it.
fn rows(said: &Value, field: &str) -> Vec<(u64, u64, Value)> {
    let nodes = said["nodes"].as_array().expect("nodes").iter();
    let rows = nodes.flat_map(|node| {
        let groups = node["groups"].as_array().expect("groups").iter();
        groups.map(|group| (node["node"].clone(), group["group"].clone(), group[field].clone()))
    });
    rows.map(|(node, group, value)| (number(&node), number(&group), value)).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn log_dir(dev: &Dev, node: usize) -> PathBuf {
    dev.nodes[node].dir.join("data/wal")
}

/// What was applied by each node, group by group.
fn applied(dev: &Dev) -> Vec<Vec<u64>> {
    let status = dev.ask_json(&["status"]);
    let shards = status["shards"].as_array().expect("shards").iter();
    let groups = |shard: &Value| shard["groups"].as_array().expect("groups").clone();
    shards
        .map(|shard| groups(shard).iter().map(|group| number(&group["applied"])).collect())
        .collect()
}

/// Writes to group 1, and waits until every node has applied it.
fn put(dev: &Dev, key: &str) {
    dev.ask(&["put", key, "value"]).exits(0);
    wait_until("all nodes have applied the same", || {
        let applied = applied(dev);
        applied.iter().all(|groups| *groups == applied[0])
    });
}

/// Goal: groups are saved by one command, which tells what came of each; what is kept is listed,
/// and what can't be done is told with its cure.
#[test]
fn groups_are_saved_and_listed() {
    let _turn = turn();
    let temp = temp_dir();
    let port = free_ports().to_string();
    let flags = ["--base-port", &port, "--groups", "2"];
    let dev = Dev::start(&temp.path().join("quorum"), &flags);
    nothing_is_kept(&dev);
    put(&dev, "a");
    all_are_taken(&dev);
    they_are_listed(&dev);
    one_group_of_one_node_is_taken(&dev);
    what_fails_is_told(&dev);
    what_is_unknown_is_told(&dev);
    a_node_that_is_gone_is_told(&dev);
    dev.stop();
}

fn nothing_is_kept(dev: &Dev) {
    let kept = rows(&dev.ask_json(&["snapshot", "ls"]), "kept");
    assert_eq!(kept.len(), 9, "{kept:?}");
    assert!(kept.iter().all(|(.., kept)| *kept == json!([])), "{kept:?}");
    let table = dev.ask(&["snapshot", "ls"]).exits(0).out;
    assert_eq!(table.lines().count(), 10, "{table}");
    let status = dev.ask(&["status"]).exits(0).out;
    assert!(status.lines().next().is_some_and(|head| head.contains("SNAPSHOT")), "{status}");
}

fn all_are_taken(dev: &Dev) {
    let said = dev.ask_json(&["snapshot", "take", "--wait"]);
    assert_eq!(said["unreachable"], json!([]), "{said}");
    let results = rows(&said, "result");
    assert_eq!(results.len(), 9, "{said}");
    assert!(results.iter().all(|(.., result)| result == "taken"), "{said}");
    assert!(rows(&said, "bytes").iter().all(|(.., bytes)| number(bytes) > 4096), "{said}");
    let again = dev.ask_json(&["snapshot", "take", "--wait"]);
    assert_eq!(rows(&again, "index"), rows(&said, "index"), "{again}");
    let results = rows(&again, "result");
    assert!(results.iter().all(|(.., result)| result == "nothing_new"), "{again}");
}

fn they_are_listed(dev: &Dev) {
    let said = dev.ask_json(&["snapshot", "ls"]);
    for (node, group, kept) in rows(&said, "kept") {
        let [kept] = &kept.as_array().expect("a list")[..] else { panic!("{said}") };
        assert_eq!(kept["behind"], 0, "node {node}, group {group}: {said}");
        assert!(number(&kept["age_ms"]) < 60_000, "{said}");
        let dir = log_dir(dev, node as usize - 1);
        let file = fs::metadata(dir.join(kept["file"].as_str().expect("a name")));
        assert_eq!(file.expect("it is there").len(), number(&kept["bytes"]), "{said}");
    }
    let table = dev.ask(&["snapshot", "ls", "--group", "2", "--node", "b"]).exits(0).out;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[1].starts_with("2 (b)  2 "), "{table}");
    assert!(lines.iter().all(|line| line.len() <= 80), "{table}");
    // The column of `status` has the same entries.
    let status = dev.ask_json(&["status"]);
    let newest = &status["shards"][0]["groups"][0];
    assert_eq!((&newest["snapshot"], &newest["snapshots"]), (&newest["applied"], &json!("none")));
}

fn one_group_of_one_node_is_taken(dev: &Dev) {
    put(dev, "b");
    let said = dev.ask_json(&["snapshot", "take", "--group", "1", "--node", "2", "--wait"]);
    let results = rows(&said, "result");
    assert_eq!(results, [(2, 1, json!("taken"))], "{said}");
    let said = dev.ask_json(&["snapshot", "ls", "--group", "1"]);
    let behind =
        rows(&said, "kept").into_iter().map(|(node, _, kept)| (node, number(&kept[0]["behind"])));
    let behind: Vec<(u64, u64)> = behind.collect();
    assert_eq!(behind[1], (2, 0), "{said}");
    assert!(behind[0].1 > 0 && behind[2].1 > 0, "{said}");
    // Without waiting it is told that it was asked for; a look shows it in time.
    let table = dev.ask(&["snapshot", "take", "--group", "1,2", "--node", "a,c"]).exits(0).out;
    assert_eq!(table.matches("asked").count(), 2, "{table}");
    assert_eq!(table.matches("nothing new").count(), 2, "{table}");
    assert!(table.contains("`ringraft snapshot ls`"), "{table}");
    wait_until("all are taken", || {
        let said = dev.ask_json(&["snapshot", "ls", "--group", "1"]);
        rows(&said, "kept").iter().all(|(.., kept)| kept[0]["behind"] == 0)
    });
}

/// The file of the next snapshot is there already: it can't be made.
fn what_fails_is_told(dev: &Dev) {
    put(dev, "c");
    let said = dev.ask_json(&["snapshot", "ls", "--node", "a"]);
    let files = rows(&said, "kept").into_iter().map(|(.., kept)| {
        let name = kept[0]["file"].as_str().expect("a name").to_owned();
        let hex =
            name.strip_prefix("snap-0000000000000001-").and_then(|it| it.strip_suffix(".snp"));
        u64::from_str_radix(hex.expect("a snapshot of the first log"), 16).expect("a number")
    });
    let next = files.max().expect("two files") + 1;
    let taken = log_dir(dev, 0).join(format!("snap-0000000000000001-{next:016x}.snp"));
    fs::write(&taken, "in the way").expect("a file");
    let args = ["snapshot", "take", "--node", "a", "--group", "1", "--wait"];
    let said = dev.ask(&args).complains(3, &["not every group was saved", "tries again by itself"]);
    assert!(said.out.contains("FAILED"), "{said:#?}");
    assert!(said.out.contains("node 1 (a), group 1: creating failed with errno 17"), "{said:#?}");
    let table = dev.ask(&["snapshot", "ls", "--node", "a", "--group", "1"]).exits(0).out;
    assert!(table.contains("failed, tried again: creating failed"), "{table}");
    // It is: the next number is free.
    wait_until("it is taken after all", || {
        let said = dev.ask_json(&["snapshot", "ls", "--node", "a", "--group", "1"]);
        rows(&said, "kept")[0].2[0]["behind"] == 0
    });
}

fn what_is_unknown_is_told(dev: &Dev) {
    let said = dev.ask(&["snapshot", "take", "--group", "9", "--wait"]);
    let said =
        said.complains(3, &["not every group was saved", "`ringraft status` lists the groups"]);
    assert_eq!(said.out.matches("no such group").count(), 3, "{said:#?}");
    dev.ask(&["snapshot", "ls", "--group", "9"]).complains(3, &["group 9", "`ringraft status`"]);
    let nobody = dev.ask(&["snapshot", "ls", "--node", "d"]);
    nobody.complains(5, &["no node \"d\" answers", "1 (a), 2 (b), 3 (c)", "--http"]);
    dev.ask(&["get", "a", "--group", "1,2"]).complains(2, &["for one group", "one --group"]);
}

fn a_node_that_is_gone_is_told(dev: &Dev) {
    let gone = &dev.nodes[2];
    super::signal(gone.pid, super::Signal::KILL);
    wait_until("its port is closed", || std::net::TcpStream::connect(&gone.http).is_err());
    let said = dev.ask(&["snapshot", "take", "--wait"]);
    let said = said.complains(5, &["not every node told what came of it", "--http"]);
    assert!(said.out.contains(&format!("{} doesn't answer", gone.http)), "{said:#?}");
    assert_eq!(said.out.matches("nothing new").count() + said.out.matches("taken").count(), 6);
    let said = dev.ask_json(&["snapshot", "ls"]);
    assert_eq!(said["unreachable"][0]["http"], json!(gone.http), "{said}");
    let nowhere = ["snapshot", "ls", "--http", "127.0.0.1:1"];
    dev.ask(&nowhere).complains(5, &["no node answers over HTTP; 127.0.0.1:1", "--http"]);
    // What it kept is there when it is back.
    dev.ask(&["dev", "restart", "c", "--dir", super::text(&dev.dir)]).exits(0);
    wait_until("it is back", || {
        let said = dev.ask_json(&["snapshot", "ls"]);
        said["unreachable"] == json!([])
            && rows(&said, "kept").iter().all(|(.., kept)| kept[0]["index"].is_u64())
    });
}
