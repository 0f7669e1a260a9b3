//! Nodes that come and go under load, by the command line: added, promoted, removed, replaced.

use crate::cluster::{Cluster, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, Writer, check, gaps};
use ringraft_net::client::ChangeError;
use ringraft_net::members_wire::{MemberChange, Refusal};
use ringraft_types::{GroupId, Index};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const GROUP: GroupId = GroupId(1);
pub(crate) const GROUPS: u64 = 3;
/// And the system group.
pub(crate) const ALL: u64 = GROUPS + 1;
/// Writes between two changes.
const WRITES: u64 = 300;

pub(crate) fn shape() -> Shape {
    Shape { groups: GROUPS, ..Shape::default() }.set("election_timeout_ms", 300)
}

/// `ringraft node`, as an operator types it.
pub(crate) fn node(cluster: &Cluster, words: &[&str]) -> Command {
    let endpoints = cluster.endpoints().join(",");
    ringraft(&[&["node"], words, &["--timeout", "20s", "--endpoints", &endpoints]].concat())
}

pub(crate) fn ask(cluster: &Cluster, words: &[&str]) -> Output {
    node(cluster, words).output().expect("the command runs")
}

/// The command's JSON, when it ended with this exit code.
pub(crate) fn json_of(cluster: &Cluster, words: &[&str], exit: i32) -> Value {
    let output = ask(cluster, &[words, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{words:?}: {}", text_of(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

/// Does it in every group, and checks that it is told so.
pub(crate) fn make(cluster: &Cluster, words: &[&str]) {
    let said = json_of(cluster, &[words, &["--yes"]].concat(), 0);
    let groups = said["groups"].as_array().expect("groups");
    assert_eq!(groups.len() as u64, ALL, "{said}");
    assert!(groups.iter().all(|group| group["result"] == "done"), "{said}");
}

/// Each member's number and role, of every group.
pub(crate) fn roles(cluster: &Cluster) -> Vec<Vec<(u64, String)>> {
    let output = ask(cluster, &["ls", "--output", "json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let groups = said["groups"].as_array().cloned().unwrap_or_default();
    let member = |member: &Value| {
        let role = member["role"].as_str().unwrap_or_default();
        (member["node"].as_u64().unwrap_or_default(), role.to_owned())
    };
    let members = |group: &Value| group["members"].as_array().cloned().unwrap_or_default();
    groups.iter().map(|group| members(group).iter().map(member).collect()).collect()
}

pub(crate) fn assert_roles(cluster: &Cluster, wanted: &[(u64, &str)]) {
    let wanted: Vec<(u64, String)> =
        wanted.iter().map(|&(node, role)| (node, role.to_owned())).collect();
    let found = roles(cluster);
    assert_eq!(found.len() as u64, ALL, "{found:?}");
    assert!(found.iter().all(|group| *group == wanted), "{found:?}");
}

/// Where the cluster's last node is, as `add` and `replace` are told.
pub(crate) fn place(cluster: &Cluster) -> [String; 4] {
    let last = cluster.nodes.last().expect("a node");
    let peer = format!("127.0.0.1:{}", last.ports[1]);
    ["--peer".into(), peer, "--client".into(), last.client.clone()]
}

/// These words, and where the last node is.
pub(crate) fn placed<'a>(words: &[&'a str], place: &'a [String; 4]) -> Vec<&'a str> {
    words.iter().copied().chain(place.iter().map(String::as_str)).collect()
}

pub(crate) fn writers(cluster: &Cluster) -> Vec<Writer> {
    let writer = |group| {
        Writer::new(cluster, format!("writer-{group}"), GroupId(group), Duration::from_secs(50))
    };
    (1..=GROUPS).map(writer).collect()
}

/// What `ringraft status` says of a node in each group.
pub(crate) fn says(cluster: &Cluster, number: u64) -> Vec<String> {
    let endpoints = cluster.endpoints().join(",");
    let words = ["status", "--output", "json", "--timeout", "20s", "--endpoints", &endpoints];
    let output = ringraft(&words).output().expect("the command runs");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let shards = said["shards"].as_array().cloned().unwrap_or_default();
    let of_node = shards.iter().filter(|shard| shard["node"] == number);
    let groups = of_node.flat_map(|shard| shard["groups"].as_array().cloned().unwrap_or_default());
    groups.map(|group| group["role"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Goal: under load a node is added, promoted, and the first one removed, in every group; nothing
/// that was acknowledged is lost, and who waits or left says so (A25).
#[test]
fn a_node_is_added_and_another_removed() {
    let mut cluster = Cluster::start("a_node_is_added_and_another_removed", &shape());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    cluster.join();
    let place = place(&cluster);
    let add = placed(&["add", "4"], &place);
    nothing_is_done_unasked(&cluster, &add);
    assert_eq!(says(&cluster, 4), ["no member"; ALL as usize], "it waits to be added");
    let mut changes = vec![Instant::now()];
    make(&cluster, &add);
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (3, "voter"), (4, "learner")]);
    let again = json_of(&cluster, &[&add[..], &["--yes"]].concat(), 0);
    assert_eq!(again["groups"][0]["result"], "already", "{again}");
    load.wait_more(WRITES);
    wait_until("node 4 to have caught up, and to be promoted everywhere", || {
        ask(&cluster, &["promote", "4", "--yes"]).status.success()
    });
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (3, "voter"), (4, "voter")]);
    load.wait_more(WRITES);
    changes.push(Instant::now());
    make(&cluster, &["remove", "1"]);
    load.wait_more(WRITES);
    assert_roles(&cluster, &[(2, "voter"), (3, "voter"), (4, "voter")]);
    wait_until("node 1 to know that it is no member", || {
        says(&cluster, 1) == ["no member"; ALL as usize]
    });
    assert!(cluster.nodes[0].terminate().success(), "it stops as any node does");
    let writers = load.stop();
    let tally = check(&cluster, &writers);
    cluster.assert_copies_agree(3);
    println!("{tally:?}; write gaps {:?}", gaps(&writers, &changes));
}

/// Without `--yes` the plan is shown, and that is all.
fn nothing_is_done_unasked(cluster: &Cluster, add: &[&str]) {
    let plan = ask(cluster, add);
    let text = text_of(&plan);
    assert_eq!(plan.status.code(), Some(3), "{text}");
    assert!(text.contains("1-3, 1000000  1, 2, 3  1, 2, 3 + 4  node 4 listens"), "{text}");
    assert!(text.contains("nothing was changed") && text.contains("--yes"), "{text}");
    let plan = json_of(cluster, add, 3);
    assert_eq!(plan["groups"][0]["result"], "planned", "{plan}");
    assert_eq!(plan["groups"][0]["to"]["learners"], json!([4]), "{plan}");
    assert_roles(cluster, &[(1, "voter"), (2, "voter"), (3, "voter")]);
}

/// Goal: a node that was killed under load is replaced by one command, in every group; nothing that
/// was acknowledged is lost, and the new node counts: another one may fail (A25).
#[test]
fn a_killed_node_is_replaced() {
    let mut cluster = Cluster::start("a_killed_node_is_replaced", &shape());
    let first = cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    let mut changes = vec![Instant::now()];
    cluster.nodes[first].kill();
    load.wait_more(WRITES);
    cluster.join();
    let (place, old) = (place(&cluster), (first + 1).to_string());
    changes.push(Instant::now());
    make(&cluster, &placed(&["replace", &old, "4"], &place));
    load.wait_more(WRITES);
    let left: Vec<(u64, &str)> =
        (1..=4).filter(|&node| node != first as u64 + 1).map(|node| (node, "voter")).collect();
    assert_roles(&cluster, &left);
    let again = json_of(&cluster, &["replace", &old, "4", "--yes"], 0);
    assert_eq!(again["groups"][0]["result"], "already", "{again}");
    cluster.assert_caught_up(3);
    let next = cluster.leader(GROUP);
    cluster.nodes[next].kill();
    load.wait_more(WRITES);
    cluster.nodes[next].start();
    let writers = load.stop();
    let tally = check(&cluster, &writers);
    cluster.assert_copies_agree(3);
    println!("{tally:?}; write gaps {:?}", gaps(&writers, &changes));
}

/// Goal: a node that is gone is replaced by one at its very addresses, with a number of its own: nobody
/// takes it for the one before, it waits to be added as any other, and then it counts (M07).
#[test]
fn m07_another_number_at_the_same_addresses() {
    let mut cluster = Cluster::start("m07_another_number_at_the_same_addresses", &shape());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    cluster.nodes[2].kill();
    let ports = cluster.nodes[2].ports;
    wait_until("its ports", || {
        ports.iter().all(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    });
    cluster.join_at(ports);
    cluster.nodes.remove(2);
    load.wait_more(WRITES);
    assert_eq!(says(&cluster, 4), ["no member"; ALL as usize], "it isn't who was there");
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (3, "voter")]);
    make(&cluster, &placed(&["replace", "3", "4"], &place(&cluster)));
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (4, "voter")]);
    cluster.assert_caught_up(3);
    // It is needed now.
    cluster.nodes[0].kill();
    load.wait_more(WRITES);
    cluster.nodes[0].start();
    let writers = load.stop();
    check(&cluster, &writers);
    cluster.assert_copies_agree(3);
}

/// A command that runs, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Goal: a replacement whose command was killed goes on where it stood, when it is started again;
/// meanwhile its learner counts for nothing.
#[test]
fn a_replacement_goes_on_where_it_was_killed() {
    let mut cluster = Cluster::start("a_replacement_goes_on_where_it_was_killed", &shape());
    cluster.leader(GROUP);
    let load = Load::start(writers(&cluster));
    load.wait_more(WRITES);
    cluster.join();
    cluster.nodes[3].kill();
    let place = place(&cluster);
    let replace = placed(&["replace", "3", "4"], &place);
    let mut command = node(&cluster, &[&replace[..], &["--yes"]].concat());
    let running = Running(
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command runs"),
    );
    wait_until("node 4 to be a learner of the first group", || {
        roles(&cluster).first().is_some_and(|group| group.contains(&(4, "learner".to_owned())))
    });
    load.wait_more(WRITES);
    drop(running);
    let found = roles(&cluster);
    assert!(!found[0].contains(&(4, "voter".to_owned())), "it doesn't run: {found:?}");
    cluster.nodes[3].start();
    make(&cluster, &placed(&["replace", "3", "4"], &place));
    load.wait_more(WRITES);
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (4, "voter")]);
    let writers = load.stop();
    let tally = check(&cluster, &writers);
    println!("{tally:?}");
}

/// Goal: while a change is held no other one is made, and each refusal says what to do; it is given
/// up, or carried through, by whoever says which entry is meant (A27).
#[test]
fn overlapping_changes_are_refused() {
    let cluster = Cluster::start("overlapping_changes_are_refused", &shape());
    cluster.leader(GROUP);
    make(&cluster, &["prepare", "--voters", "1,2"]);
    let held = [(1, "voter"), (2, "voter"), (3, "voter, leaving")];
    assert_roles(&cluster, &held);
    let table = text_of(&ask(&cluster, &["ls"]));
    assert!(table.contains("groups 1-3, 1000000 (1, 2, 3 and 1, 2): a change is held"), "{table}");
    let remove = ask(&cluster, &["remove", "2", "--yes"]);
    let text = text_of(&remove);
    assert_eq!(remove.status.code(), Some(3), "{text}");
    assert!(text.contains("a change is held at entry"), "{text}");
    assert!(text.contains("`ringraft node commit` or `abort`"), "{text}");

    let mut client = cluster.client();
    let found = client.members(GROUP).expect("a leader answers");
    let (is_held, allow_majority, allow_unready) = (false, false, false);
    let target = client.members(GROUP).expect("a leader answers").members;
    let voters = target.configuration.voters().to_vec();
    let first = ringraft_types::Configuration::first(voters, Vec::new()).expect("sound");
    let target = ringraft_net::members_wire::Members { configuration: first, ..target };
    let to = MemberChange::To { target, is_held, allow_majority, allow_unready };
    for (expected, change, why) in [
        (found.index, &to, Refusal::UnderWay),
        (Index(found.index.0 + 1), &to, Refusal::Conflict),
        (Index(found.index.0 + 1), &MemberChange::Commit, Refusal::Conflict),
    ] {
        match client.change_members(GROUP, expected, change) {
            Err(ChangeError::Refused { refusal, .. }) => assert_eq!(refusal, why),
            other => panic!("{other:?}"),
        }
    }
    let other = (found.index.0 + 1).to_string();
    let meant = ["abort", "--group", "1", "--yes", "--expected", &other];
    let refused = ask(&cluster, &meant);
    assert_eq!(refused.status.code(), Some(3), "{}", text_of(&refused));
    assert_roles(&cluster, &held);
    make(&cluster, &["abort"]);
    assert_roles(&cluster, &[(1, "voter"), (2, "voter"), (3, "voter")]);
    let none = json_of(&cluster, &["commit", "--yes"], 0);
    assert_eq!(none["groups"][0]["result"], "already", "{none}");
    make(&cluster, &["prepare", "--voters", "1,2"]);
    make(&cluster, &["commit"]);
    assert_roles(&cluster, &[(1, "voter"), (2, "voter")]);
}
