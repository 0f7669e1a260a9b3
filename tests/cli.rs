//! What the README promises to a new user, with real processes on loopback: `dev` and the commands
//! against it, a deployment by hand, and what is refused with which exit code.

#[path = "cli/no_uring.rs"]
mod no_uring;
#[path = "cli/quorum.rs"]
mod quorum;
#[path = "cli/snapshots.rs"]
mod snapshots;

use quorum::{
    Dev, Node, Process, free_ports, http_get, program, ringraft, run, signal, temp_dir, text, turn,
    wait_until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

/// For what may have to wait for an election.
const PATIENT: [&str; 2] = ["--timeout", "30s"];

/// Goal: three nodes in one command. They answer, stand a killed node, stop with Ctrl-C, come back
/// with their data, and leave a log that can be read.
#[test]
fn a_quorum_in_one_command() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path().join("quorum");
    let port = free_ports().to_string();
    let mut dev = Dev::start(&dir, &["--base-port", &port]);
    the_json_line_names_everything(&dev, &port);
    flags_go_anywhere(&dev);
    status_shows_all(&dev);
    http_answers(&dev);
    the_log_level_changes(&dev);
    consistencies(&dev);
    levels(&dev);
    loads_are_measured(&dev);
    a_second_one_is_refused(&dev);
    a_killed_node_is_missed_by_nobody(&mut dev);
    a_write_without_a_majority_is_unknown(&dev);
    dev.stop();
    other_flags_are_refused(&dir);
    let dev = Dev::start(&dir, &[]);
    assert_eq!(dev.ask(&["get", "still"]).exits(0).out, "here\n");
    dev.stop();
    the_log_can_be_read(&dir.join("a"));
}

fn the_json_line_names_everything(dev: &Dev, port: &str) {
    let first = format!("127.0.0.1:{port}");
    assert_eq!(dev.said["endpoints"].as_array().expect("a list").len(), 3);
    assert_eq!(dev.said["endpoints"][0], json!(first));
    let names: Vec<(u64, &str)> = dev.nodes.iter().map(|node| (node.id, &*node.name)).collect();
    assert_eq!(names, [(1, "a"), (2, "b"), (3, "c")]);
    for (node, said) in dev.nodes.iter().zip(dev.said["nodes"].as_array().expect("a list")) {
        assert!(Path::new("/proc").join(node.pid.to_string()).exists());
        assert_eq!(node.dir, dev.dir.join(&node.name));
        for address in ["client", "peer", "http"] {
            assert!(said[address].as_str().expect("text").starts_with("127.0.0.1:"), "{said}");
        }
    }
    // Ready means that every group has a leader.
    let status = dev.ask_json(&["status"]);
    assert_eq!(leaders(&status), [1, SYSTEM], "{status}");
}

/// The system group.
const SYSTEM: u64 = 1_000_000;

/// The groups that have a leader, in order.
fn leaders(status: &Value) -> Vec<u64> {
    let shards = status["shards"].as_array().expect("shards").iter();
    let groups = shards.flat_map(|shard| shard["groups"].as_array().expect("groups"));
    let led = groups.filter(|group| group["role"] == "leader");
    let mut led: Vec<u64> = led.map(|group| group["group"].as_u64().expect("a number")).collect();
    led.sort_unstable();
    led
}

fn flags_go_anywhere(dev: &Dev) {
    let endpoints = &dev.endpoints;
    assert_eq!(ringraft(&["--endpoints", endpoints, "put", "hello", "world"]).exits(0).out, "OK\n");
    assert_eq!(ringraft(&["get", "hello", "--endpoints", endpoints]).exits(0).out, "world\n");
    let line = ringraft(&["-o", "json", "--endpoints", endpoints, "get", "hello"]).exits(0).json();
    assert_eq!(line["kv"]["value"], "world", "{line}");
    // Any of them will do, and without a flag the environment tells.
    for endpoint in endpoints.split(',') {
        let mut command = program();
        command.env("RINGRAFT_ENDPOINTS", endpoint).args(["get", "hello"]);
        assert_eq!(run(&mut command).exits(0).out, "world\n");
    }
    let mut command = program();
    command.env("RINGRAFT_ENDPOINTS", "127.0.0.1:1").args(["get", "hello"]);
    assert_eq!(run(command.args(["--endpoints", endpoints])).exits(0).out, "world\n");
}

fn status_shows_all(dev: &Dev) {
    let status = dev.ask_json(&["status"]);
    assert_eq!(status["unreachable"], json!([]), "{status}");
    assert_eq!(status["shards"].as_array().expect("shards").len(), 3, "{status}");
    for shard in status["shards"].as_array().expect("shards") {
        assert!(shard["sync_us"]["p50"].is_u64() && shard["sync_us"]["p99"].is_u64(), "{shard}");
        let group = &shard["groups"][0];
        for field in ["group", "term", "commit", "applied", "lag_entries", "leader"] {
            assert!(group[field].is_u64(), "{field} in {shard}");
        }
    }
    let table = dev.ask(&["status"]).exits(0).out;
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 7, "a row of each of two groups on each node: {table}");
    assert!(table.starts_with("NODE   GROUP"), "{table}");
    assert_eq!(rows[0][..6], ["NODE", "GROUP", "ROLE", "TERM", "COMMIT", "APPLIED"]);
    assert_eq!(rows[0][6..], ["LAG", "LEADER", "SNAPSHOT", "SYNC", "us"]);
    let named: Vec<&str> = rows[1..].iter().map(|row| row[1]).collect();
    assert_eq!(named, ["(a)", "(a)", "(b)", "(b)", "(c)", "(c)"]);
    assert_eq!(table.matches("leader").count(), 2, "{table}");
    assert_eq!(table.matches("follower").count(), 4, "{table}");
}

fn http_answers(dev: &Dev) {
    for node in &dev.nodes {
        for path in ["/livez", "/readyz"] {
            let (status, body) = http_get(&node.http, path);
            assert_eq!(status, 200, "{body}");
            assert!(body.ends_with("ok\n"), "{body}");
        }
        let (status, metrics) = http_get(&node.http, "/metrics");
        assert_eq!(status, 200);
        for stage in ["queue", "append", "sync", "quorum", "apply", "reply"] {
            let label = format!("shard=\"0\",stage=\"{stage}\"}}");
            assert!(
                metrics.lines().any(|line| {
                    line.starts_with("ringraft_write_stage_seconds_bucket{le=")
                        && line.contains(&label)
                }),
                "{label} is missing in {metrics}"
            );
        }
        for gauge in ["groups", "groups_led", "groups_leaderless", "lag_entries_max"] {
            let line = format!("ringraft_{gauge}{{shard=\"0\"}} ");
            assert!(metrics.contains(&line), "{line} is missing in {metrics}");
        }
        assert!(metrics.ends_with("# EOF\n"));
    }
}

fn the_log_level_changes(dev: &Dev) {
    let said = dev.ask_json(&["log-level", "debug"]);
    assert_eq!(said["nodes"].as_array().expect("nodes").len(), 3, "{said}");
    for node in &dev.nodes {
        assert_eq!(http_get(&node.http, "/log-level"), (200, "debug\n".to_owned()));
    }
    let only = dev.nodes[1].http.as_str();
    let said = dev.ask(&["log-level", "info", "--http", only]).exits(0);
    assert_eq!(said.out, format!("{only}  info\n"));
    assert_eq!(http_get(only, "/log-level").1, "info\n");
    assert_eq!(http_get(&dev.nodes[0].http, "/log-level").1, "debug\n");
    dev.ask(&["log-level", "loud"]).complains(2, &["loud"]);
    let nowhere = ["log-level", "info", "--http", "127.0.0.1:1"];
    dev.ask(&nowhere).complains(5, &["no node answered over HTTP", "--http"]);
}

/// Holds a result to the shape that programs were promised.
#[track_caller]
fn has_the_shape_of_a_result(result: &Value, durable: bool) {
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(result), ["asked", "durable", "errors", "latency_us", "ops_per_s"]);
    assert_eq!(keys(&result["latency_us"]), ["max", "p50", "p90", "p99", "p999"]);
    assert_eq!(keys(&result["errors"]), ["busy", "other", "unknown"]);
    assert!(result["latency_us"].as_object().expect("object").values().all(Value::is_number));
    assert_eq!(result["errors"], json!({"busy": 0, "unknown": 0, "other": 0}), "{result}");
    assert!(result["ops_per_s"].as_u64().expect("a number") > 0, "{result}");
    assert_eq!(result["durable"], json!(durable), "{result}");
    assert_eq!(result["asked"]["seconds"], json!(0.5), "{result}");
}

fn loads_are_measured(dev: &Dev) {
    let short = ["--seconds", "0.5", "--warm-up-seconds", "0.1", "--outstanding", "8"];
    for verb in ["commit", "read"] {
        let result = dev.ask_json(&[&["bench", verb][..], &short].concat());
        has_the_shape_of_a_result(&result, true);
    }
    let table = dev.ask(&[&["bench", "commit"][..], &short].concat()).exits(0).out;
    assert!(table.contains("commit [DURABLE]"), "{table}");
    dev.ask(&["bench", "commit", "--outstanding", "0"]).complains(2, &["outstanding"]);
}

fn a_second_one_is_refused(dev: &Dev) {
    let said = ringraft(&["dev", "--dir", text(&dev.dir), "-o", "json"]);
    let said = said.complains(8, &["another `ringraft dev`", "runs in", "--dir"]);
    assert_eq!(said.json()["error"], "data_dir");
    // Another directory on the same ports: the ports are not shared.
    let port = dev.endpoints.split(',').next().and_then(|first| first.split(':').nth(1));
    let other = dev.dir.with_extension("other");
    let args = ["dev", "--dir", text(&other), "--base-port", port.expect("a port")];
    ringraft(&args).complains(10, &["client port", "is taken", "--base-port"]);
    assert!(!other.join("a").exists(), "a refused start leaves nothing behind");
}

fn a_killed_node_is_missed_by_nobody(dev: &mut Dev) {
    let status = dev.ask_json(&["status"]);
    let leader = status["shards"][0]["groups"][0]["leader"].as_u64().expect("a leader");
    let killed = dev.nodes[leader as usize - 1].clone();
    signal(killed.pid, Signal::KILL);
    dev.ask(&[&["put", "still", "here"][..], &PATIENT].concat()).exits(0);
    let most = ["put", "still", "here", "--ack", "majority-committed"];
    dev.ask(&[&most[..], &PATIENT].concat()).exits(0);
    let all = ["put", "still", "here", "--ack", "all", "--timeout", "2s"];
    let behind = format!("node {} is the furthest behind", killed.id);
    let said = dev.ask(&all).complains(11, &["done and committed at entry", &behind]);
    assert_eq!(said.out, "OK\n");
    let line = dev.ask(&[&all[..], &["-o", "json"]].concat()).exits(11).json();
    assert_eq!(
        (&line["behind"], &line["is_reached"]),
        (&json!(killed.id), &json!(false)),
        "{line}"
    );
    assert!(line["index"].as_u64() > line["reached"].as_u64(), "{line}");
    let status = dev.ask_json(&[&["status"][..], &PATIENT].concat());
    assert_eq!(status["unreachable"][0]["node"], json!(killed.id), "{status}");
    let table = dev.ask(&[&["status"][..], &PATIENT].concat()).exits(0).out;
    assert!(table.contains("unreachable at 127.0.0.1:"), "{table}");

    // Nobody restarts it but who is asked to: by name, then by number.
    let dir = text(&dev.dir).to_owned();
    let by_name = dev.ask_json(&["dev", "restart", &killed.name, "--dir", &dir]);
    let again = is_restarted(dev, &killed, &by_name);
    let number = killed.id.to_string();
    let by_number = dev.ask_json(&["dev", "restart", &number, "--dir", &dir]);
    is_restarted(dev, &again, &by_number);
    dev.ask(&["dev", "restart", "nobody", "--dir", &dir]).complains(3, &["no node \"nobody\""]);
    let nowhere = dev.dir.with_extension("nowhere");
    ringraft(&["dev", "restart", "a", "--dir", text(&nowhere)]).complains(5, &["--dir"]);
}

/// Holds a restart's answer to the node, which then has all entries again.
fn is_restarted(dev: &mut Dev, before: &Node, said: &Value) -> Node {
    assert_eq!((&said["id"], &said["name"]), (&json!(before.id), &json!(before.name)));
    let pid = said["pid"].as_u64().expect("a pid") as u32;
    assert_ne!(pid, before.pid, "{said}");
    wait_until("the node has all entries again", || {
        let status = dev.ask_json(&[&["status"][..], &PATIENT].concat());
        let shards = status["shards"].as_array().expect("shards");
        let applied = |shard: &Value| shard["groups"][0]["applied"].clone();
        shards.len() == 3 && shards.iter().all(|shard| applied(shard) == applied(&shards[0]))
    });
    let node = &mut dev.nodes[before.id as usize - 1];
    node.pid = pid;
    node.clone()
}

/// What keys were before a revision is forgotten when that is asked for, with a plan first.
fn history_is_compacted(dev: &Dev) {
    for value in ["1", "2", "3"] {
        dev.ask(&["put", "short", value]).exits(0);
    }
    let newest = dev.ask_json(&["get", "short"])["revision"].as_u64().expect("a revision");
    let (past, future) = ((newest - 1).to_string(), (newest + 1).to_string());
    let plan = dev.ask(&["compact", &past]).exits(3).out;
    assert!(plan.contains(&format!("at revision {newest}")), "{plan}");
    assert!(plan.ends_with("nothing was done: say --yes to do it\n"), "{plan}");
    let plan = dev.ask(&["compact", "--keep", "1", "-o", "json"]).exits(3).json();
    assert_eq!((&plan["done"], &plan["oldest_kept"]), (&json!(false), &json!(newest - 1)));
    let older = (newest - 2).to_string();
    assert_eq!(dev.ask(&["get", "short", "--revision", &older]).exits(0).out, "1\n");
    let done = dev.ask(&["compact", &past, "--yes", "-o", "json"]).exits(0).json();
    assert_eq!((&done["done"], &done["revision"]), (&json!(true), &json!(newest)));
    dev.ask(&["get", "short", "--revision", &older]).complains(3, &["Compacted", "newer revision"]);
    assert_eq!(dev.ask(&["get", "short", "--revision", &past]).exits(0).out, "2\n");
    dev.ask(&["compact", &older, "--yes"]).complains(3, &["Compacted"]);
    dev.ask(&["compact", &future, "--yes"]).complains(3, &["there is no"]);
    let said = dev.ask(&["compact", "--yes"]).exits(0).out;
    assert!(said.contains(&format!("before revision {newest}")), "{said}");
}

/// A write that a leader took and no majority has: nobody may call it done, or not done.
fn a_write_without_a_majority_is_unknown(dev: &Dev) {
    let status = dev.ask_json(&["status"]);
    let leader = status["shards"][0]["groups"][0]["leader"].as_u64().expect("a leader");
    let others: Vec<&Node> = dev.nodes.iter().filter(|node| node.id != leader).collect();
    for node in &others {
        signal(node.pid, Signal::STOP);
    }
    let leader = dev.said["endpoints"][leader as usize - 1].as_str().expect("an address");
    let put = ["put", "perhaps", "x", "--endpoints", leader, "--timeout", "2s", "-o", "json"];
    let said = dev.ask(&put);
    for node in &others {
        signal(node.pid, Signal::CONT);
    }
    // A leader that has given up before the write came has refused it.
    let error = said.json()["error"].as_str().expect("text").to_owned();
    let expected = if error == "unknown" { (4, "read the key") } else { (5, "--endpoints") };
    said.complains(expected.0, &[expected.1]);
    // It heals by itself.
    dev.ask(&[&["put", "surely", "x"][..], &PATIENT].concat()).exits(0);
}

fn other_flags_are_refused(dir: &Path) {
    for (flag, value) in
        [("--nodes", "5"), ("--shards", "2"), ("--groups", "7"), ("--base-port", "9000")]
    {
        let said = ringraft(&["dev", "--dir", text(dir), flag, value]);
        said.complains(2, &[&format!("{flag} {value}, but"), "was made with"]);
    }
    let said = ringraft(&["dev", "--dir", text(dir), "--profile", "container"]);
    said.complains(2, &["--profile container, but", "dev-laptop"]);
}

fn the_log_can_be_read(node: &Path) {
    let data = node.join("data");
    let (dir, config) = (text(&data), node.join("node.toml"));
    let list = ringraft(&["wal", "ls", "--dir", dir, "-o", "json"]).exits(0).json();
    let segments = list["segments"].as_array().expect("segments");
    assert!(segments.iter().any(|segment| segment["records"].as_u64() > Some(0)), "{list}");
    let table = ringraft(&["wal", "ls", "--config", text(&config)]).exits(0).out;
    assert_eq!(table.lines().count(), segments.len() + 1, "{table}");
    // One line of JSON for each segment, block and record.
    let dump = ringraft(&["wal", "dump", "--dir", dir, "-o", "json"]).exits(0);
    let items = dump.out.lines().map(serde_json::from_str::<Value>);
    let items: Vec<Value> = items.map(|item| item.expect("JSON")).collect();
    let hello = "68656c6c6f";
    let is_hello = |item: &Value| item.to_string().contains(hello);
    let record = items.iter().position(is_hello).expect("the first key is in the log");
    let dump = ringraft(&["wal", "dump", "--dir", dir]).exits(0).out;
    assert!(dump.lines().any(|line| line.contains("block") && line.contains("records")));
    let intact = ringraft(&["wal", "verify", "--dir", dir, "-o", "json"]).exits(0).json();
    assert_eq!(intact["intact"], json!(true), "{intact}");
    let said = ringraft(&["wal", "verify", "--dir", dir]).exits(0).out;
    assert!(said.ends_with("intact: nothing that was acknowledged is lost\n"), "{said}");

    // One bit of an old record.
    let block = items[..record].iter().rfind(|item| item["sequence"].is_u64()).expect("a block");
    let segment = items[..record].iter().rfind(|item| item["path"].is_string()).expect("a segment");
    let path = segment["path"].as_str().expect("a path");
    let mut bytes = fs::read(path).expect("read");
    let start = block["offset"].as_u64().expect("an offset") as usize;
    let key = bytes[start..].windows(5).position(|window| window == b"hello").expect("the key");
    bytes[start + key] ^= 1;
    fs::write(path, &bytes).expect("write");
    let said = ringraft(&["wal", "verify", "--dir", dir, "-o", "json"]).exits(9);
    assert_eq!(said.json()["intact"], json!(false));
    assert_ne!(said.json()["logs"][0]["rot"], json!([]), "{said:?}");
    let said = ringraft(&["wal", "verify", "--dir", dir]).exits(9).out;
    assert!(said.contains("rot: ") && said.contains("DAMAGED"), "{said}");
    let nowhere = node.join("nowhere");
    ringraft(&["wal", "ls", "--dir", text(&nowhere)]).complains(8, &["is not a directory"]);
    ringraft(&["wal", "ls"]).complains(2, &["--dir", "--config"]);
}

/// Goal: every way to write and read keys, in both outputs, with the documented exit codes; on one
/// node, which is a quorum too.
#[test]
fn keys_from_the_shell() {
    let _turn = turn();
    let temp = temp_dir();
    let port = free_ports().to_string();
    let dev = Dev::start(&temp.path().join("one"), &["--nodes", "1", "--base-port", &port]);
    assert_eq!(dev.nodes.len(), 1);
    put_and_get(&dev);
    ranges(&dev);
    deletes(&dev);
    transactions(&dev);
    history_is_compacted(&dev);
    requests_that_are_not_done(&dev);
    dev.stop();
}

fn put_and_get(dev: &Dev) {
    assert_eq!(dev.ask(&["put", "k", "one"]).exits(0).out, "OK\n");
    assert_eq!(dev.ask(&["put", "k", "two", "--prev"]).exits(0).out, "OK\nk\none\n");
    assert_eq!(dev.ask(&["get", "k"]).exits(0).out, "two\n");
    assert_eq!(dev.ask(&["get", "k", "--revision", "1"]).exits(0).out, "one\n");
    let line = dev.ask_json(&["get", "k"]);
    let expected = json!({"key": "k", "value": "two", "create_revision": 1, "mod_revision": 2,
        "version": 2});
    assert_eq!((&line["kv"], &line["revision"]), (&expected, &json!(2)), "{line}");
    assert!(line["index"].as_u64() > Some(2), "{line}");
    let said = dev.ask(&["get", "nosuch"]).complains(1, &["no such key: nosuch"]);
    assert_eq!(said.out, "");
    let said = dev.ask(&["get", "nosuch", "-o", "json"]).exits(1);
    assert_eq!(said.json()["kv"], Value::Null);
    // Bytes that are no text: as they are for people, in hexadecimal in JSON.
    dev.ask_with(&["put", "bytes", "-"], b"from stdin".to_vec()).exits(0);
    assert_eq!(dev.ask(&["get", "bytes"]).exits(0).out, "from stdin\n");
    dev.ask_with(&["put", "bytes", "-"], vec![0xff, 0]).exits(0);
    assert_eq!(dev.ask_json(&["get", "bytes"])["kv"]["value_hex"], "ff00");
    // The largest value there may be; a key that looks like a flag.
    dev.ask_with(&["put", "large", "-"], vec![b'x'; 1 << 20]).exits(0);
    assert_eq!(dev.ask(&["get", "large"]).exits(0).out.len(), (1 << 20) + 1);
    dev.ask(&["put", "-k", "--v"]).exits(0);
    assert_eq!(dev.ask(&["get", "-k"]).exits(0).out, "--v\n");
}

fn ranges(dev: &Dev) {
    for (key, value) in [("p/1", "a"), ("p/2", "b"), ("p/3", "c"), ("q", "d")] {
        dev.ask(&["put", key, value]).exits(0);
    }
    let before = dev.ask_json(&["get", "q"])["revision"].to_string();
    dev.ask(&["put", "p/2", "B"]).exits(0);
    assert_eq!(dev.ask(&["range", "p/2", "q"]).exits(0).out, "p/2\nB\np/3\nc\n");
    let said = dev.ask(&["range", "p/", "--prefix", "--revision", &before]).exits(0).out;
    assert_eq!(said, "p/1\na\np/2\nb\np/3\nc\n");
    let said = dev.ask(&["range", "p/", "--prefix", "--limit", "1"]);
    assert_eq!(said.complains(0, &["3 keys in all"]).out, "p/1\na\n");
    let line = dev.ask_json(&["range", "p/", "--prefix", "--limit", "2"]);
    assert_eq!((&line["count"], &line["more"]), (&json!(3), &json!(true)), "{line}");
    assert_eq!(line["kvs"].as_array().expect("a list").len(), 2, "{line}");
    assert_eq!(line["kvs"][1]["value"], "B", "{line}");
    assert_eq!(dev.ask(&["range", "p/", "--prefix", "--keys-only"]).out, "p/1\np/2\np/3\n");
    assert_eq!(dev.ask(&["range", "p/", "--prefix", "--count-only"]).out, "3\n");
    let all = dev.ask_json(&["range", ""]);
    assert_eq!(all["kvs"].as_array().expect("a list").len() as u64, all["count"]);
    assert_eq!(dev.ask(&["range", "z"]).exits(0).out, "");
    dev.ask(&["range", "p", "q", "--prefix"]).complains(2, &["--prefix"]);
}

/// Who answers a read, and what it may see.
fn consistencies(dev: &Dev) {
    let index = dev.ask_json(&["put", "c", "seen"])["index"].as_u64().expect("an index");
    assert_eq!(dev.ask(&["get", "c", "--consistency", "lease"]).exits(0).out, "seen\n");
    let index = index.to_string();
    for node in ["1", "2", "3"] {
        assert_eq!(dev.ask(&["get", "c", "--node", node]).exits(0).out, "seen\n");
        let stale = ["--consistency", "stale=10000", "--min-index", &index, "--node", node];
        assert_eq!(dev.ask(&[&["get", "c"], &stale[..]].concat()).exits(0).out, "seen\n");
        let said = dev.ask(&[&["range", "c", "--prefix"], &stale[..]].concat()).exits(0).out;
        assert_eq!(said, "c\nseen\n");
    }
    let never = ["get", "c", "--consistency", "stale", "--min-index", "9999999", "--wait", "1"];
    dev.ask(&never).complains(3, &["NotYet", "allow more time"]);
    dev.ask(&["get", "c", "--min-index", "7"]).complains(2, &["--min-index", "stale"]);
    dev.ask(&["get", "c", "--consistency", "strong"]).complains(2, &["\"strong\"", "lease"]);
    dev.ask(&["get", "c", "--node", "9"]).complains(2, &["node 9 is no member", "node ls"]);
}

/// How far a write or what was written is to come before the command ends.
fn levels(dev: &Dev) {
    for level in ["majority", "all", "majority-committed", "all-committed"] {
        assert_eq!(dev.ask(&["put", "l", "one", "--ack", level]).exits(0).out, "OK\n");
        let line = dev.ask_json(&["del", "l", "--ack", level]);
        let index = line["index"].as_u64().expect("an index");
        let named = index.to_string();
        let line = dev.ask_json(&["barrier", "--index", &named, "--level", level]);
        assert_eq!((&line["index"], &line["is_reached"]), (&json!(index), &json!(true)), "{line}");
        let line = dev.ask_json(&["barrier", "--level", level]);
        assert!(line["index"].as_u64() >= Some(index), "{line}");
        let txn = ["txn", "--then", "put l two", "--ack", level];
        assert_eq!(dev.ask(&txn).exits(0).out, "then\nOK\n");
    }
    let said = dev.ask(&["barrier"]).exits(0).out;
    assert!(said.contains("is at level all"), "{said}");
    let far = ["barrier", "--index", "9999999", "--timeout", "100ms"];
    dev.ask(&far).complains(11, &["entry 9999999 isn't at level all yet", "ringraft status"]);
    let line = dev.ask(&[&far[..], &["-o", "json"]].concat()).exits(11).json();
    assert_eq!((&line["is_reached"], &line["group"]), (&json!(false), &json!(1)), "{line}");
    dev.ask(&["put", "l", "one", "--ack", "some"]).complains(2, &["majority-committed"]);
    dev.ask(&["barrier", "--index", "0"]).complains(2, &["--index"]);
}

fn deletes(dev: &Dev) {
    assert_eq!(dev.ask(&["del", "q", "--prev"]).exits(0).out, "1\nq\nd\n");
    assert_eq!(dev.ask(&["del", "q"]).exits(0).out, "0\n");
    let line = dev.ask_json(&["del", "p/1", "p/3"]);
    assert_eq!(line["deleted"], json!(2), "{line}");
    let line = dev.ask_json(&["del", "p/", "--prefix", "--prev"]);
    assert_eq!(line["prev"][0]["key"], "p/3", "{line}");
}

fn transactions(dev: &Dev) {
    let swap = ["txn", "--if", "value(k)=two", "--then", "put k three", "--then", "get k"];
    let swap = [&swap[..], &["--else", "get k"]].concat();
    assert_eq!(dev.ask(&swap).exits(0).out, "then\nOK\nk\nthree\n");
    assert_eq!(dev.ask(&swap).exits(1).out, "else\nk\nthree\n");
    let said = dev.ask(&[&swap[..], &["-o", "json"]].concat()).exits(1).json();
    assert_eq!(said["succeeded"], json!(false), "{said}");
    assert_eq!(said["replies"][0]["kvs"][0]["value"], "three", "{said}");
    // All or nothing, at one revision.
    let both = dev.ask_json(&["txn", "--then", "put x 1", "--then", "put y 2"]);
    for key in ["x", "y"] {
        assert_eq!(dev.ask_json(&["get", key])["kv"]["mod_revision"], both["revision"]);
    }
    let stdin = br#"{"if":["version(new)=0"],"then":["put new \"a value\""]}"#;
    dev.ask_with(&["txn", "--stdin"], stdin.to_vec()).exits(0);
    dev.ask_with(&["txn", "--stdin"], stdin.to_vec()).exits(1);
    dev.ask_with(&["txn", "--stdin"], b"{]".to_vec()).complains(2, &["stdin is not"]);
    dev.ask(&["txn"]).complains(2, &["an empty transaction"]);
    dev.ask(&["txn", "--if", "nonsense"]).complains(2, &["nonsense", "help txn"]);
}

fn requests_that_are_not_done(dev: &Dev) {
    let revision = dev.ask_json(&["get", "k"])["revision"].clone();
    let said = dev.ask_with(&["put", "k", "-", "-o", "json"], vec![b'x'; (1 << 20) + 1]);
    let said = said.complains(3, &["a value has 1048577 bytes, the limit is 1048576"]);
    assert_eq!(said.json()["error"], "not_done");
    dev.ask(&["put", &"k".repeat(8193), "v"]).complains(3, &["8193 bytes", "8192"]);
    dev.ask(&["put", "", "v"]).complains(3, &["empty"]);
    dev.ask(&["--group", "9", "put", "k", "v"]).complains(3, &["NoSuchGroup"]);
    dev.ask(&["--group", "9", "get", "k"]).complains(3, &["NoSuchGroup"]);
    dev.ask(&["get", "k", "--revision", "999"]).complains(3, &["FutureRevision"]);
    assert_eq!(dev.ask_json(&["get", "k"])["revision"], revision, "nothing was written");
}

/// Goal: several shards with many groups each, every one a quorum with keys of its own.
#[test]
fn many_groups_on_two_shards() {
    let _turn = turn();
    if std::thread::available_parallelism().map_or(1, |cores| cores.get()) < 2 {
        // Two shards on one core are refused: see below.
        return;
    }
    let temp = temp_dir();
    let port = free_ports().to_string();
    let dir = temp.path().join("many");
    let flags = ["--base-port", &port, "--shards", "2", "--groups", "16"];
    let dev = Dev::start(&dir, &flags);
    let status = dev.ask_json(&["status"]);
    assert_eq!(leaders(&status), (1..=16).chain([SYSTEM]).collect::<Vec<u64>>(), "{status}");
    assert_eq!(status["shards"].as_array().expect("shards").len(), 6, "{status}");
    dev.ask(&["--group", "5", "put", "k", "five"]).exits(0);
    dev.ask(&["put", "k", "sixteen", "--group", "16"]).exits(0);
    dev.ask(&["get", "k"]).exits(1);
    assert_eq!(dev.ask(&["get", "k", "--group", "5"]).exits(0).out, "five\n");
    dev.ask(&["--group", "17", "get", "k"]).exits(3);
    let bench = ["bench", "commit", "--groups", "16", "--outstanding", "32", "--seconds", "0.5"];
    let result = dev.ask_json(&[&bench[..], &["--warm-up-seconds", "0.1"]].concat());
    has_the_shape_of_a_result(&result, true);
    dev.stop();
    // The same flags are no contradiction.
    let dev = Dev::start(&dir, &flags);
    assert_eq!(dev.ask(&["get", "k", "--group", "16"]).exits(0).out, "sixteen\n");
    dev.stop();
}

/// Goal: init, format and node, as on servers; and a plain refusal of what can't be right.
#[test]
fn a_deployment_by_hand() {
    let _turn = turn();
    let temp = temp_dir();
    let base = free_ports();
    let (dir, nodes) = (temp.path(), format!("a=127.0.0.1:{base},b=127.0.0.1:{}", base + 10));
    let init = ["init", "--nodes", &nodes, "--out", text(dir), "-o", "json"];
    let said = ringraft(&init).exits(0).json();
    assert_eq!(said["cluster"].as_str().map(str::len), Some(32), "{said}");
    ringraft(&init).complains(10, &["exists already", "no file was written"]);
    let (a, b) = (dir.join("a.toml"), dir.join("b.toml"));
    every_default_is_visible(&a);
    for file in [&a, &b] {
        // A small log is made faster.
        let text = fs::read_to_string(file).expect("read");
        let small = text.replace("#segment_bytes = 67108864", "segment_bytes = 16777216");
        assert_ne!(text, small);
        fs::write(file, small).expect("write");
    }
    ringraft(&["node", "--config", text(&a)]).complains(8, &["a-data", "format"]);
    fs::create_dir(dir.join("a-data")).expect("mkdir");
    ringraft(&["node", "--config", text(&a)])
        .complains(8, &["a-data", "is not formatted", "ringraft format"]);
    let said = ringraft(&["format", "--config", text(&a), "-o", "json"]).exits(0).json();
    assert_eq!((&said["node"], said["incarnation"].is_string()), (&json!(1), true), "{said}");
    assert_eq!(said["joins"], json!(false), "{said}");
    ringraft(&["format", "--config", text(&a)]).complains(8, &["formatted already"]);
    fs::create_dir(dir.join("b-data")).expect("mkdir");
    fs::write(dir.join("b-data/precious"), "x").expect("write");
    ringraft(&["format", "--config", text(&b)]).complains(8, &["not empty", "precious"]);
    fs::remove_file(dir.join("b-data/precious")).expect("remove");
    let said = ringraft(&["format", "--config", text(&b)]).exits(0).out;
    assert!(said.contains("node 2 (b)") && said.contains("ringraft node --config"), "{said}");
    wrong_directories_are_refused(dir);
    nodes_run_and_stop(dir, base);
}

/// The file shows every setting with its default, commented out, and is TOML either way.
fn every_default_is_visible(file: &Path) {
    let text = fs::read_to_string(file).expect("read");
    toml::from_str::<toml::Table>(&text).expect("TOML");
    let uncommented = |line: &str| {
        let key = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        format!("{}\n", key.unwrap_or(line))
    };
    let shown: String = text.lines().map(uncommented).collect();
    let shown: toml::Table = toml::from_str(&shown).expect("TOML with every default");
    let defaults = include_str!("../src/config/defaults.toml");
    let defaults: toml::Table = toml::from_str(defaults).expect("TOML");
    for (section, settings) in &defaults {
        for (key, value) in settings.as_table().expect("a section") {
            assert_eq!(shown[section].get(key), Some(value), "{section}.{key}");
        }
    }
}

fn wrong_directories_are_refused(dir: &Path) {
    let with = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(dir.join("a.toml")).expect("read");
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed);
        let path = dir.join(name);
        fs::write(&path, changed).expect("write");
        path
    };
    let node = |path: &Path| ringraft(&["node", "--config", text(path)]);
    node(&with("other-node.toml", "\"a-data\"", "\"b-data\"")).complains(8, &["b-data", "node"]);
    let old = fs::read_to_string(dir.join("a.toml")).expect("read");
    let id = old.lines().find(|line| line.starts_with("id = \"")).expect("the cluster's id");
    let other = format!("id = \"{:032x}\"", 7);
    node(&with("other-cluster.toml", id, &other)).complains(8, &["belongs to cluster"]);
    let misspelt = with("misspelt.toml", "segment_bytes =", "segment_byts =");
    let line = fs::read_to_string(&misspelt).expect("read");
    let line = 1 + line.lines().position(|line| line.starts_with("segment_byts")).expect("there");
    node(&misspelt).complains(
        6,
        &["unknown key `wal.segment_byts`", "did you mean `segment_bytes`?", &format!(":{line}:")],
    );
    let cores = with("cores.toml", "#shards = \"auto\"", "shards = [0, 0]");
    node(&cores).complains(6, &["cores.toml:", "cpu.shards", "core 0"]);
    node(&with("number.toml", "segment_bytes = 16777216", "segment_bytes = \"16 MiB\""))
        .complains(6, &["segment_bytes", "bytes"]);
    node(&dir.join("nowhere.toml")).complains(6, &["nowhere.toml"]);
    ringraft(&["wal", "ls", "--config", text(&misspelt)]).exits(6);
}

fn nodes_run_and_stop(dir: &Path, base: u16) {
    for (offset, what) in [(0, "client port"), (1, "peer port"), (2, "http port")] {
        let _taken = TcpListener::bind(("127.0.0.1", base + offset)).expect("bind");
        let config = dir.join("a.toml");
        ringraft(&["node", "--config", text(&config)]).complains(10, &[what, "is taken"]);
    }
    let start = |name: &str| {
        let mut command = program();
        command.args(["node", "--config", text(&dir.join(format!("{name}.toml")))]);
        let log = fs::File::create(dir.join(format!("{name}.log"))).expect("a file");
        Process(command.stdout(Stdio::null()).stderr(log).spawn().expect("spawn"))
    };
    let (mut a, mut b) = (start("a"), start("b"));
    let endpoints = format!("127.0.0.1:{base},127.0.0.1:{}", base + 10);
    let put = ["put", "k", "v", "--endpoints", &endpoints, "--timeout", "30s"];
    ringraft(&put).exits(0);
    assert_eq!((a.end(Signal::TERM), b.end(Signal::INT)), (Some(0), Some(0)));
    let data = dir.join("a-data");
    ringraft(&["wal", "verify", "--dir", text(&data)]).exits(0);
}

/// Goal: no quorum and no command line that makes sense have exit codes of their own.
#[test]
fn refusals_without_a_quorum() {
    let nobody = ["--endpoints", "127.0.0.1:1", "--timeout", "300ms"];
    for verb in [&["get", "k"][..], &["put", "k", "v"], &["status"], &["bench", "read"]] {
        let said = ringraft(&[verb, &nobody, &["-o", "json"]].concat());
        let said = said.complains(5, &["no answer before the deadline", "--endpoints"]);
        assert_eq!(
            (&said.json()["error"], &said.json()["exit"]),
            (&json!("unavailable"), &json!(5))
        );
    }
    for args in [
        &["get"][..],
        &["gett", "k"],
        &["get", "k", "--nonsense"],
        &["get", "k", "--group", "0"],
        &["get", "k", "--endpoints", "nonsense"],
        &["get", "k", "--timeout", "5h"],
        &["dev", "--nodes", "0"],
        &["init"],
        &["init", "--nodes", "a"],
        &["init", "--nodes", "a=h:1,a=h:9"],
        &["init", "--nodes", "a=h:7400,b=h:7401"],
        &["init", "--nodes", "a=h:7400", "--join", "b=h:7410"],
        &["init", "--nodes", "a=h:7400", "--number", "4"],
    ] {
        let said = ringraft(args).exits(2);
        assert!(said.err.starts_with("error: "), "{said:?}");
        let said = ringraft(&[args, &["-o", "json"]].concat()).exits(2);
        assert_eq!(said.json()["error"], "usage", "{said:?}");
    }
    ringraft(&["get", "k", "--output", "yaml"]).complains(2, &["yaml", "json"]);
    let table = ringraft(&["exit-codes"]).exits(0).out;
    assert_eq!(table.lines().count(), 13, "{table}");
    assert!(ringraft(&["--help"]).exits(0).out.contains("Start a whole quorum on this machine"));
    assert!(ringraft(&["--version"]).exits(0).out.starts_with("ringraft "));
}

/// Goal: what is wrong with a file is one line in a log, however long the file's name is: who
/// searches for the sentence finds it.
#[test]
fn a_refused_file_is_found_by_its_sentence() {
    let temp = temp_dir();
    for letters in 1..=90 {
        let path = temp.path().join(format!("{}.toml", "n".repeat(letters)));
        fs::write(&path, "id = \n").expect("written");
        let said = ringraft(&["node", "--config", text(&path)]).exits(6);
        assert!(said.err.contains(": not TOML: string values must be quoted"), "{said:?}");
    }
}

/// Goal: a `dev` that is refused leaves nothing behind that would spoil the next try.
#[test]
fn a_refused_dev_can_be_tried_again() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path().join("again");
    let port = free_ports().to_string();
    let dev = ["dev", "--dir", text(&dir), "--base-port", &port];
    let with = |flags: &[&str]| ringraft(&[&dev[..], flags].concat());
    with(&["--shards", "256"]).complains(2, &["256 shards", "a core each"]);
    with(&["--profile", "nosuch"]).complains(2, &["nosuch"]);
    let dev = Dev::start(&dir, &["--base-port", &port, "--nodes", "1"]);
    dev.stop();
}

/// Goal: the mode without syncs says so wherever a figure or an answer could be taken for more.
#[test]
fn a_mode_without_syncs_labels_itself() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path().join("unsynced");
    let port = free_ports().to_string();
    Dev::start(&dir, &["--base-port", &port, "--nodes", "1"]).stop();
    let file = dir.join("a/node.toml");
    let config = fs::read_to_string(&file).expect("a file");
    assert!(config.contains("#sync = \"dsync\""), "{config}");
    let config = config.replace("#sync = \"dsync\"", "sync = \"none\"");
    fs::write(&file, config).expect("writable");
    let dev = Dev::start(&dir, &[]);
    assert!(dev.ask(&["status"]).exits(0).out.contains("NOT DURABLE"));
    assert_eq!(dev.ask_json(&["status"])["shards"][0]["durable"], json!(false));
    let bench = ["bench", "commit", "--seconds", "0.5", "--warm-up-seconds", "0"];
    has_the_shape_of_a_result(&dev.ask_json(&bench), false);
    assert!(dev.ask(&bench).exits(0).out.contains("NOT DURABLE"));
    let metrics = http_get(&dev.nodes[0].http, "/metrics").1;
    assert!(metrics.contains("ringraft_wal_durable{shard=\"0\"} 0"), "{metrics}");
    dev.stop();
}

/// Goal: a directory whose path is longer than a socket's address serves like any other.
#[test]
fn a_dev_in_a_deep_directory() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = temp.path().join("a-directory-with-a-long-name".repeat(4));
    let port = free_ports().to_string();
    let dev = Dev::start(&dir, &["--base-port", &port, "--nodes", "1"]);
    let said = ringraft(&["dev", "restart", "a", "--dir", text(&dir), "-o", "json"]).exits(0);
    assert_ne!(said.json()["pid"], json!(dev.nodes[0].pid));
    dev.stop();
}

/// Goal: what measures the disk and the floor runs for everyone, and says what it measured.
#[test]
fn the_disk_and_the_floor_are_measured() {
    let _turn = turn();
    let temp = temp_dir();
    let dir = text(temp.path());
    let floor = ["bench", "floor", "--seconds", "0.5", "--dir", dir];
    let result = ringraft(&[&floor[..], &["--no-sync", "-o", "json"]].concat()).exits(0);
    has_the_shape_of_a_result(&result.last_json(), false);
    let result = ringraft(&[&floor[..], &["-o", "json"]].concat()).exits(0);
    has_the_shape_of_a_result(&result.last_json(), true);
    let table = ringraft(&["bench", "floor", "--no-sync", "--seconds", "0.3"]).exits(0).out;
    assert!(table.contains("NOT DURABLE"), "{table}");
    let tiny = ["bench", "fsync", "--dir", dir, "--seconds", "0.05", "--sizes", "4096"];
    let tiny = [&tiny[..], &["--depths", "1", "--spaces", "zeroed"]].concat();
    let line = ringraft(&[&tiny[..], &["-o", "json"]].concat()).exits(0).json();
    assert!(line.to_string().contains("dsync"), "{line}");
    let table = ringraft(&tiny).exits(0).out;
    assert!(["linked", "dsync", "blocking"].iter().all(|method| table.contains(method)), "{table}");
    ringraft(&[&tiny[..], &["--sizes", "100"]].concat()).exits(2);
    assert_eq!(fs::read_dir(dir).expect("list").count(), 0, "files are left");
}
