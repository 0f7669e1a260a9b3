//! A majority is lost for good: a new cluster goes on from what survived.

use crate::cluster::{Cluster, Node, Shape, ringraft, text_of, wait_until};
use crate::load::{Load, Writer, check};
use crate::raw::Raw;
use ringraft_net::handshake::RefusalCode;
use ringraft_net::{Hello, Identity};
use ringraft_types::record::RecordKind;
use ringraft_types::{GroupId, NodeId, ShardId, Start};
use ringraft_wal::manifest::Manifest;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];
/// Exit codes, as `ringraft exit-codes` explains them.
const NOT_DONE: i32 = 3;
const CONFIG: i32 = 6;
const DATA_DIR: i32 = 8;
const DAMAGED: i32 = 9;

fn shape() -> Shape {
    Shape { groups: GROUPS.len() as u64, ..Shape::default() }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn recover(arguments: &[&str]) -> Output {
    ringraft(&[&["recover"], arguments].concat()).output().expect("the command runs")
}

#[track_caller]
fn ends(output: &Output, code: i32, sentences: &[&str]) {
    let text = text_of(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for sentence in sentences {
        assert!(text.contains(sentence), "{sentence:?} is missing: {text}");
    }
}

fn json(output: &Output) -> Value {
    let out = String::from_utf8(output.stdout.clone()).expect("text");
    serde_json::from_str(out.lines().last().expect("a line")).expect("JSON")
}

/// Every file below a directory: its bytes, and when it was changed.
fn state(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, about) = (entry.path(), entry.metadata().expect("its state"));
        let bytes = if about.is_dir() {
            found.extend(state(&path));
            Vec::new()
        } else {
            std::fs::read(&path).expect("its bytes")
        };
        found.insert(path, (bytes, about.mtime(), about.mtime_nsec()));
    }
    found
}

/// Three nodes wrote, and were killed; of two the directories are gone. What the writers know, and
/// the one that is left, which holds all of it.
fn survivor(test: &'static str) -> (Cluster, Vec<Writer>, PathBuf) {
    let mut cluster = Cluster::start(test, &shape());
    // The system group too: one that nobody has led yet has nothing to be recovered.
    for group in GROUPS.into_iter().chain([GroupId::SYSTEM]) {
        cluster.leader(group);
        cluster.wait_caught_up(0, group);
    }
    let writers = GROUPS
        .iter()
        .map(|&group| Writer::new(&cluster, format!("w{group}"), group, Duration::from_secs(30)));
    let load = Load::start(writers.collect());
    load.wait_more(200);
    // So that one group's state is a snapshot and what followed it.
    let http = format!("127.0.0.1:{}", cluster.nodes[0].ports[2]);
    let saved = ["snapshot", "take", "--wait", "--group", "1", "--http", &http];
    ends(&ringraft(&saved).output().expect("it runs"), 0, &["taken"]);
    load.wait_more(200);
    let writers = load.stop();
    GROUPS.iter().for_each(|&group| cluster.wait_caught_up(0, group));
    cluster.nodes.iter_mut().for_each(Node::kill);
    for lost in &cluster.nodes[1..] {
        std::fs::remove_dir_all(&lost.data_dir).expect("removed");
    }
    let directory = cluster.nodes[0].data_dir.clone();
    (cluster, writers, directory)
}

/// Goal: everything that was acknowledged and that the survivor holds is served by a new cluster, in
/// which no node of the old one counts; the survivor stays as it was, and the break is written down
/// (M13).
#[test]
fn m13_a_new_cluster_goes_on_from_a_survivor() {
    let test = "m13_a_new_cluster_goes_on";
    let (old, writers, survivor) = survivor(test);
    let before = state(&survivor);
    let from = text(&survivor);
    let plan = recover(&["plan", "--data-dir", &from, "-o", "json"]);
    ends(&plan, 0, &[]);
    let plan = json(&plan);
    for (at, group) in GROUPS.iter().enumerate() {
        let best = &plan["best"][at];
        assert_eq!((&best["group"], &best["node"]), (&group.get().into(), &1.into()), "{plan}");
        assert_eq!((&best["whole"], &best["majority"]), (&true.into(), &false.into()), "{plan}");
        let holding = &plan["survivors"][0]["groups"][at];
        assert_eq!(holding["voters"], serde_json::json!([1, 2, 3]), "{plan}");
        assert_eq!(holding["snapshot"].is_object(), at == 0, "{plan}");
    }
    ends(&recover(&["plan", "--data-dir", &from]), 0, &["whole", "holds the most"]);

    let mut new = Cluster::configured("m13_a_new_cluster_goes_on-new", &shape());
    let config = text(&new.nodes[0].config);
    let apply = ["apply", "--config", &config, "--from", &from];
    ends(&recover(&apply), 0, &["Nothing was done"]);
    assert!(!new.nodes[0].data_dir.exists());
    let own = text(&old.nodes[1].config);
    let same = recover(&["apply", "--config", &own, "--from", &from, "--yes"]);
    ends(&same, CONFIG, &["the cluster id of the old cluster", "ringraft init"]);
    assert!(!old.nodes[1].data_dir.exists());
    let yes = [&apply[..], &["--yes"]].concat();
    ends(&recover(&yes), 0, &["formed cluster", "holds 3 groups", "votes alone"]);
    ends(&recover(&yes), DATA_DIR, &["is formatted already"]);
    assert!(state(&survivor) == before, "a survivor is never changed");

    let (was, is): (Manifest, Manifest) = [&survivor, &new.nodes[0].data_dir]
        .map(|directory| Manifest::load(directory).expect("formatted").manifest)
        .into();
    assert_ne!((was.cluster, was.incarnation), (is.cluster, is.incarnation));
    assert_eq!(is.first, Some(vec![NodeId(1)]));
    let audit = std::fs::read_to_string(new.nodes[0].data_dir.join("recovered.jsonl"));
    let audit: Value = serde_json::from_str(&audit.expect("an audit")).expect("one line of JSON");
    assert_eq!(audit["old_cluster"], format!("{:032x}", was.cluster.get()));
    assert_eq!(audit["groups"].as_array().map(Vec::len), Some(GROUPS.len() + 1));

    new.nodes[0].start();
    for group in GROUPS {
        assert_eq!(new.leader(group), 0);
    }
    let tally = check(&new, &writers);
    assert!(tally.done >= 400 && tally.unknown == 0, "{tally:?}");
    for (group, row) in GROUPS.iter().zip(plan["survivors"][0]["groups"].as_array().expect("rows"))
    {
        let at = row["last"]["index"].as_u64().expect("a number");
        assert!(new.locate(0, *group).applied.get() > at, "it goes on behind the old log");
    }
    the_old_ones_are_strangers(&new, &was);
    // And again from its own disk, with more.
    let load = Load::start(vec![Writer::new(&new, "after", GROUPS[1], Duration::from_secs(30))]);
    load.wait_more(50);
    new.nodes[0].kill();
    new.nodes[0].start();
    load.wait_more(50);
    let all: Vec<Writer> = writers.into_iter().chain(load.stop()).collect();
    check(&new, &all);
    the_others_join(&mut new);
    new.nodes[0].kill();
    for group in GROUPS {
        new.leader(group);
    }
    check(&new, &all);
}

/// Two nodes that were formatted to join get what the first one has, and vote.
fn the_others_join(new: &mut Cluster) {
    let endpoint = new.nodes[0].client.clone();
    let change = |arguments: &[&str]| {
        let arguments =
            [&["node"], arguments, &["--yes", "--timeout", "30s", "--endpoints", &endpoint]]
                .concat();
        ends(&ringraft(&arguments).output().expect("it runs"), 0, &[]);
    };
    for number in [2, 3] {
        let node = &mut new.nodes[number - 1];
        let join = ["format", "--join", "--config", &text(&node.config)].map(String::from);
        let join: Vec<&str> = join.iter().map(String::as_str).collect();
        ends(&ringraft(&join).output().expect("it runs"), 0, &["to join its cluster"]);
        node.start();
        let (number, peer) = (number.to_string(), format!("127.0.0.1:{}", node.ports[1]));
        change(&["add", &number, "--peer", &peer, "--client", &node.client]);
        change(&["promote", &number]);
    }
    for group in GROUPS {
        [1, 2].iter().for_each(|&node| new.wait_caught_up(node, group));
    }
}

/// A node of the old cluster, whichever it says it is, is let in by nobody.
fn the_old_ones_are_strangers(new: &Cluster, was: &Manifest) {
    let address = format!("127.0.0.1:{}", new.nodes[0].ports[1]);
    let (start, shard) = (Start { number: 1, nonce: 1 }, ShardId(0));
    for node in [1, 2, 3].map(NodeId) {
        let old = Identity { cluster: was.cluster, node, incarnation: was.incarnation };
        let hello = Hello::from_peer(old, start, shard, NodeId(1), shard);
        let (_, welcome) = Raw::greet(&address, &hello).expect("an answer");
        assert_eq!(welcome.verdict, Err(RefusalCode::WrongCluster));
    }
}

/// Goal: a directory that a node runs on isn't looked at; one whose log has rot is taken only by who
/// accepts that, up to what rot took.
#[test]
fn m13_what_is_in_use_or_damaged_is_refused() {
    let (mut old, _, survivor) = survivor("m13_what_is_in_use_or_damaged");
    let from = text(&survivor);
    old.nodes[0].start();
    wait_until("the survivor to run", || {
        let held = recover(&["plan", "--data-dir", &from]);
        held.status.code() == Some(DATA_DIR)
    });
    let held = recover(&["plan", "--data-dir", &from]);
    ends(&held, DATA_DIR, &["is in use by process"]);
    old.nodes[0].kill();

    flip_a_bit_of_group_two(&survivor);
    let plan = recover(&["plan", "--data-dir", &from, "-o", "json"]);
    ends(&plan, 0, &[]);
    let best = &json(&plan)["best"];
    assert_eq!((&best[0]["whole"], &best[1]["whole"]), (&true.into(), &false.into()), "{best}");
    ends(&recover(&["plan", "--data-dir", &from]), 0, &["DAMAGED: had promised"]);
    let mut new = Cluster::configured("m13_what_is_in_use_or_damaged-new", &shape());
    let config = text(&new.nodes[0].config);
    let apply = ["apply", "--config", &config, "--from", &from, "--yes"];
    ends(&recover(&apply), DAMAGED, &["rot took entries of group 2", "--accept-loss"]);
    assert!(!new.nodes[0].data_dir.exists());
    ends(&recover(&[&apply[..], &["--accept-loss"]].concat()), 0, &["formed cluster"]);
    new.nodes[0].start();
    for group in GROUPS {
        assert_eq!(new.leader(group), 0);
    }
}

/// Goal: where a majority is left, nothing need be given up, and nothing is.
#[test]
fn m13_a_majority_is_started_instead() {
    let alone = Shape { nodes: 1, ..Shape::default() };
    let mut old = Cluster::start("m13_a_majority_is_started_instead", &alone);
    old.leader(GROUPS[0]);
    old.nodes[0].kill();
    let from = text(&old.nodes[0].data_dir);
    ends(&recover(&["plan", "--data-dir", &from]), 0, &["A MAJORITY OF ITS VOTERS IS HERE"]);
    let new = Cluster::configured("m13_a_majority_is_started_instead-new", &alone);
    let config = text(&new.nodes[0].config);
    let apply = recover(&["apply", "--config", &config, "--from", &from, "--yes"]);
    ends(&apply, NOT_DONE, &["a majority of the voters of group 1 is here"]);
    assert!(!new.nodes[0].data_dir.exists());
}

/// Rot in the middle of what the log holds of group 2 and of nothing else.
fn flip_a_bit_of_group_two(directory: &Path) {
    let folder = directory.join("wal");
    let segments = ringraft_wal::inspect::segments(&folder).expect("readable");
    let mut places = Vec::new();
    for segment in &segments {
        for found in segment.blocks() {
            let ringraft_wal::inspect::Found::Block(block) = found else { continue };
            let records = ringraft_wal::inspect::records(&block);
            let of_two = records.filter_map(|(at, record)| {
                let (record, _) = record.ok()?;
                let is_it =
                    record.header.group == GROUPS[1] && record.header.kind == RecordKind::Command;
                is_it.then_some(at)
            });
            places.extend(of_two.map(|at| (segment.path.clone(), block.header.offset + at as u64)));
        }
    }
    let (path, at) = places[places.len() / 2].clone();
    drop(segments);
    let mut bytes = std::fs::read(&path).expect("a segment");
    bytes[at as usize + 50] ^= 1;
    std::fs::write(&path, bytes).expect("written");
}
