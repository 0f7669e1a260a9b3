//! Groups that are made, moved and deleted while nodes run, come and go, by the command line.

use crate::cluster::{Cluster, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, Writer, check};
use crate::members::{ask as ask_node, place, placed};
use ringraft_net::client::GroupError;
use ringraft_types::{GroupId, NodeId};
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;

fn ask(cluster: &Cluster, words: &[&str]) -> Output {
    let endpoints = cluster.endpoints().join(",");
    let words = [words, &["--timeout", "20s", "--endpoints", &endpoints]].concat();
    ringraft(&words).output().expect("the command runs")
}

/// The command's JSON, when it ended with this exit code.
fn json_of(cluster: &Cluster, words: &[&str], exit: i32) -> Value {
    let output = ask(cluster, &[words, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {}", text_of(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

/// Whether a running node has a group.
fn has(cluster: &Cluster, node: usize, group: GroupId) -> bool {
    let statuses = crate::cluster::client(vec![cluster.nodes[node].client.clone()]).status_all();
    let id = NodeId(node as u32 + 1);
    let mut own = statuses.iter().flatten().filter(|status| status.node == id);
    own.any(|status| status.groups.iter().any(|row| row.group == group))
}

fn shape() -> Shape {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shape = Shape::default();
    if cores >= 2 { shape.set("auto_count", 2) } else { shape }
}

/// Goal, MG-02: groups are made by name, written under load, moved to a node that joined, and deleted
/// also where a node was away; nothing of it comes back with starts.
#[test]
fn groups_are_made_moved_and_deleted() {
    let mut cluster = Cluster::start("groups_are_made_moved_and_deleted", &shape());
    cluster.leader(GroupId::SYSTEM);
    let planned = json_of(&cluster, &["group", "create", "orders"], 3);
    assert_eq!(planned, json!({"done": false, "name": "orders"}));
    let made = json_of(&cluster, &["group", "create", "orders", "--yes"], 0);
    let orders = GroupId(made["group"].as_u64().expect("a number"));
    assert_eq!(orders, GroupId::FIRST_CREATED);
    json_of(&cluster, &["group", "create", "orders", "--yes"], 3);
    json_of(&cluster, &["group", "create", "1", "--yes"], 2);
    let other = json_of(&cluster, &["group", "create", "other", "--voters", "1,2", "--yes"], 0);
    let other = GroupId(other["group"].as_u64().expect("a number"));
    assert_eq!(other.0, orders.0 + 1);
    json_of(&cluster, &["group", "create", "far", "--voters", "1,9", "--yes"], 3);
    assert!(ask(&cluster, &["put", "--group", "orders", "a", "1"]).status.success());
    assert_eq!(json_of(&cluster, &["get", "--group", "orders", "a"], 0)["kv"]["value"], "1");
    assert!(!ask(&cluster, &["get", "--group", "nobody", "a"]).status.success());
    assert!(has(&cluster, 0, other) && !has(&cluster, 2, other));

    let load = Load::start(vec![Writer::new(&cluster, "one", orders, Duration::from_secs(50))]);
    load.wait_more(300);
    cluster.join();
    let place = place(&cluster);
    let add = placed(&["add", "4", "--yes"], &place);
    assert!(ask_node(&cluster, &add).status.success());
    let listed = json_of(&cluster, &["group", "ls"], 0);
    let row = |id: GroupId, name: Option<&str>, voters: &[u64]| {
        let rows = listed["groups"].as_array().expect("rows");
        let found = rows.iter().find(|row| row["group"] == id.0).expect("it is listed");
        assert_eq!((found["name"].as_str(), &found["voters"]), (name, &json!(voters)), "{listed}");
    };
    row(GroupId(1), None, &[1, 2, 3]);
    row(GroupId::SYSTEM, Some("system"), &[1, 2, 3]);
    row(orders, Some("orders"), &[1, 2, 3]);
    row(other, Some("other"), &[1, 2]);
    let go = ["group", "move", "orders", "--from", "3", "--to", "4"];
    json_of(&cluster, &go, 3);
    json_of(&cluster, &[&go[..], &["--yes"]].concat(), 0);
    load.wait_more(300);
    let shown = json_of(&cluster, &["group", "describe", "orders"], 0);
    assert_eq!(shown["voters"], json!([1, 2, 4]), "{shown}");
    wait_until("node 3 to give it up", || !has(&cluster, 2, orders));
    assert!(has(&cluster, 3, orders));
    let writers = load.stop();
    check(&cluster, &writers);

    cluster.nodes[0].kill();
    json_of(&cluster, &["group", "delete", "orders"], 3);
    json_of(&cluster, &["group", "delete", "orders", "--yes"], 0);
    wait_until("the others to delete it", || {
        !has(&cluster, 1, orders) && !has(&cluster, 3, orders)
    });
    json_of(&cluster, &["group", "describe", "orders"], 3);
    cluster.nodes[0].start();
    wait_until("the one that was away to delete it", || !has(&cluster, 0, orders));
    for node in &mut cluster.nodes {
        node.kill();
        node.start();
    }
    cluster.leader(other);
    cluster.leader(GroupId::SYSTEM);
    // What a node gave up just before it was killed may not be in its log: it gives it up again, as
    // soon as it has read the system group.
    for node in 0..4 {
        wait_until("every node to be without it", || !has(&cluster, node, orders));
    }
    assert!(ask(&cluster, &["put", "--group", "other", "b", "2"]).status.success());
    let again = json_of(&cluster, &["group", "create", "orders", "--yes"], 0);
    assert_eq!(again["group"], other.0 + 1, "no number is given twice");
    let found = json_of(&cluster, &["get", "--group", "orders", "a"], 1);
    assert!(found["kv"].is_null(), "it is another one: {found}");
}

/// Goal: of those who create the same at once one does, and each gets a number of its own.
#[test]
fn who_creates_at_once_gets_different_groups() {
    let cluster = Cluster::start("who_creates_at_once_gets_different_groups", &shape());
    cluster.leader(GroupId::SYSTEM);
    let made: Vec<Result<GroupId, GroupError>> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|maker| {
                let mut client = cluster.client();
                scope.spawn(move || {
                    let same = client.create_group("same", None);
                    let own = client.create_group(&format!("own{maker}"), None);
                    [same, own]
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().expect("it ends")).collect()
    });
    let mut ids: Vec<GroupId> = made.iter().filter_map(|one| one.as_ref().ok().copied()).collect();
    ids.sort_unstable();
    let wanted: Vec<GroupId> = (0..5).map(|at| GroupId(GroupId::FIRST_CREATED.0 + at)).collect();
    assert_eq!(ids, wanted);
    let taken = made.iter().filter(|one| matches!(one, Err(GroupError::Taken(_)))).count();
    assert_eq!(taken, 3, "{made:?}");
    let mut client = cluster.client();
    let records = client.group_records().expect("it is read");
    assert_eq!(records.len(), 5);
    for group in ids {
        cluster.leader(group);
        client.delete_group(group).expect("it is there");
    }
    assert!(client.group_records().expect("it is read").is_empty());
}

/// A40: a thousand groups are made while nodes run, written and deleted while each node is killed in its
/// turn: none is lost, none is left over, all copies are alike, and a process has as many threads as
/// before.
#[test]
fn a40_a_thousand_groups_come_and_go_under_kills() {
    const GROUPS: usize = 1_000;
    let mut cluster = Cluster::start("a40_a_thousand_groups", &shape());
    cluster.leader(GroupId::SYSTEM);
    let threads = |cluster: &Cluster| -> Vec<usize> {
        // The kernel's own, which carry out I/O, come and go.
        let is_ours = |task: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            !name.is_empty() && !name.starts_with("iou-")
        };
        let of = |id| {
            let tasks = std::fs::read_dir(format!("/proc/{id}/task")).expect("our own child");
            tasks.flatten().filter(is_ours).count()
        };
        cluster.nodes.iter().map(|node| of(node.id())).collect()
    };
    let before = threads(&cluster);
    let made: Vec<GroupId> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|maker| {
                let mut client = cluster.client();
                scope.spawn(move || -> Vec<GroupId> {
                    let each = |at| client.create_group(&format!("of{maker}.{at}"), None);
                    (0..GROUPS / 4).map(each).collect::<Result<_, _>>().expect("it is made")
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().expect("it ends")).collect()
    });
    assert_eq!(made.len(), GROUPS);
    let count = |cluster: &Cluster| -> Vec<usize> {
        let of = |at: usize| crate::cluster::client(vec![cluster.nodes[at].client.clone()]);
        let groups = |at: usize| {
            let statuses = of(at).status_all();
            let own = statuses.iter().flatten().filter(|it| it.node == NodeId(at as u32 + 1));
            let rows = own.flat_map(|status| &status.groups);
            rows.filter(|row| row.group >= GroupId::FIRST_CREATED).count()
        };
        (0..cluster.nodes.len()).map(groups).collect()
    };
    wait_until("all nodes to have all groups", || count(&cluster) == [GROUPS; 3]);

    // Every other one goes, while others are written and nodes are killed.
    let written = [0, 250, 500, 750].map(|at| made[at]);
    let writer =
        |group: GroupId| Writer::new(&cluster, format!("{group}"), group, Duration::from_secs(50));
    let load = Load::start(written.map(writer).into());
    let mut doomed = made.iter().copied().filter(|group| !written.contains(group)).step_by(2);
    let mut gone = 0;
    for node in 0..3 {
        load.wait_more(100);
        cluster.nodes[node].kill();
        let mut client = cluster.client();
        for group in doomed.by_ref().take(GROUPS / 6) {
            client.delete_group(group).expect("it is there");
            gone += 1;
        }
        load.wait_more(100);
        cluster.nodes[node].start();
    }
    load.wait_more(100);
    let writers = load.stop();
    wait_until("what was deleted to be gone", || count(&cluster) == [GROUPS - gone; 3]);
    check(&cluster, &writers);
    cluster.assert_replicas_agree();
    assert_eq!(threads(&cluster), before, "a group takes no thread");
    for node in &cluster.nodes {
        let peak = node.memory_peak();
        assert!(peak < 512 << 20, "a node held {peak} bytes for {GROUPS} groups");
    }
}
