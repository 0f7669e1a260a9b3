//! What is refused, word by word, and what the layers make of each other.

use super::*;

const CORES: usize = 4;

const GOOD: &str = r#"[cluster]
id = "00112233445566778899aabbccddeeff"

[node]
id = 1
data_dir = "data"

[[nodes]]
id = 1
name = "a"
peer = "127.0.0.1:7401"
client = "127.0.0.1:7400"
http = "127.0.0.1:7402"

[[nodes]]
id = 2
name = "b"
peer = "[::1]:7411"
client = "[::1]:7410"
http = "[::1]:7412"
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    let machine = Machine { cores: (0..CORES).collect() };
    Config::from_text(Path::new("dir/a.toml"), text, &machine)
}

fn good(more: &str) -> Config {
    read(&format!("{GOOD}{more}")).expect(more)
}

/// Goal: a minimal file gets every default, and paths relative to itself.
#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = good("");
    assert_eq!(config.node, NodeId(1));
    assert_eq!(config.name, "a");
    assert_eq!(config.data_dir, Path::new("dir/data"));
    assert_eq!(config.cluster, ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
    assert_eq!(config.nodes[1].addresses.peer.to_string(), "[::1]:7411");
    assert_eq!(config.listen, config.own().addresses);
    assert_eq!(config.peers().map(|peer| peer.id).collect::<Vec<_>>(), [NodeId(2)]);
    assert_eq!(config.groups, [GroupId(1)]);
    assert_eq!(config.cpu, Cpu { shards: vec![0], control: vec![3], spin: Ticks(0) });
    assert_eq!(config.wal.sync, SyncMethod::Dsync);
    assert_eq!(config.raft.heartbeat_interval, Ticks::from_millis(100));
    assert_eq!(config.raft.election_timeout, Ticks::from_millis(500));
    assert_eq!(config.log.level, LogLevel::Info);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

/// Goal: the worst write gap after a leader's death fits 1.2 s by default: the longest wait, then
/// one more heartbeat interval for the votes and the first commit.
#[test]
fn the_default_write_gap_is_bounded() {
    for more in ["", "[raft]"] {
        let raft = good(more).raft;
        assert!(2 * raft.election_timeout.get() + raft.heartbeat_interval.get() <= 1_200_000);
    }
}

/// Goal: a node leaves when it stops only if its file says so, and then within its time.
#[test]
fn nobody_leaves_unasked() {
    let leaves = |text: &str| good(text).leave_on_stop;
    assert_eq!(leaves(""), None);
    assert_eq!(leaves("[members]\nleave_limit_s = 5"), None);
    let default = Ticks::from_millis(30_000);
    assert_eq!(leaves("[members]\nleave_on_stop = true"), Some(default));
    let five = "[members]\nleave_on_stop = true\nleave_limit_s = 5";
    assert_eq!(leaves(five), Some(Ticks::from_millis(5_000)));
}

/// Goal: nobody is preferred and nothing is moved unless the file says so.
#[test]
fn nobody_is_preferred_unasked() {
    let lead = |text: &str| good(text).lead;
    assert_eq!(lead(""), LeadRules { priority: 0, spreads: false });
    let asked = lead("[leadership]\npriority = 255\nspread = true");
    assert_eq!(asked, LeadRules { priority: 255, spreads: true });
}

/// Goal: the node file overrides the profile, the profile overrides the defaults.
#[test]
fn the_layers_override_each_other() {
    let container = read(&format!("profile = \"container\"\n{GOOD}")).expect("container");
    assert_eq!(container.raft.election_timeout, Ticks::from_millis(1200));
    assert_eq!(container.wal.group_commit_wait, Ticks(100));
    assert_eq!(container.limits, good("").limits);
    let text = format!("profile = \"container\"\n{GOOD}[raft]\nelection_timeout_ms = 900\n");
    let both = read(&text).expect("both");
    assert_eq!(both.raft.election_timeout, Ticks::from_millis(900));
    assert_eq!(both.raft.heartbeat_interval, Ticks::from_millis(200));
    assert_eq!(both.profile.as_deref(), Some("container"));
}

/// Goal: every profile that is compiled in can be used.
#[test]
fn the_profiles_can_be_used() {
    for (name, _) in crate::config::PROFILES {
        let config = read(&format!("profile = \"{name}\"\n{GOOD}")).expect(name);
        assert_eq!(config.profile.as_deref(), Some(*name));
    }
    let low = read(&format!("profile = \"low-latency\"\n{GOOD}")).expect("low-latency");
    assert!(low.raft.election_timeout < good("").raft.election_timeout);
}

/// Goal: a profile may be a file of one's own, found relative to the node file.
#[test]
fn a_profile_is_read_from_a_path() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("mine.toml"), "[cpu]\nspin_us = 7\n").expect("write");
    let text = format!("profile = \"mine.toml\"\n{GOOD}");
    let machine = Machine { cores: vec![0] };
    let path = dir.path().join("a.toml");
    let config = Config::from_text(&path, &text, &machine).expect("config");
    assert_eq!(config.cpu.spin, Ticks(7));
    std::fs::write(dir.path().join("mine.toml"), "[node]\nid = 7\n").expect("write");
    let error = Config::from_text(&path, &text, &machine).expect_err("a profile with a node");
    assert!(error.to_string().contains("mine.toml:1:2: unknown key `node`"), "{error}");
    assert!(error.cure().contains("belongs in the node file"), "{}", error.cure());
}

/// Goal: every profile that is compiled in works, alone and on a machine with a single core.
#[test]
fn every_profile_is_valid() {
    for (name, _) in PROFILES {
        let text = format!("profile = \"{name}\"\n{GOOD}");
        for cores in [vec![0], vec![3, 5], (0..64).collect()] {
            let config = Config::from_text(Path::new("a.toml"), &text, &Machine { cores });
            config.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}

/// Goal: several nodes on one machine spread over its cores, around the end.
#[test]
fn auto_spreads_over_the_cores() {
    let cores = |start: usize, count: usize| {
        let config = good(&format!("[cpu]\nauto_start = {start}\nauto_count = {count}\n"));
        (config.cpu.shards, config.cpu.control, config.warnings.len())
    };
    assert_eq!(cores(0, 2), (vec![0, 1], vec![3], 0));
    assert_eq!(cores(2, 2), (vec![2, 3], vec![1], 0));
    assert_eq!(cores(3, 2), (vec![3, 0], vec![2], 0));
    assert_eq!(cores(8, 4), (vec![0, 1, 2, 3], vec![3], 1));
}

/// Goal: groups are a count or a list, and come out ascending.
#[test]
fn groups_are_a_count_or_a_list() {
    assert_eq!(good("[groups]\ninitial = 3\n").groups, [GroupId(1), GroupId(2), GroupId(3)]);
    assert_eq!(good("[groups]\ninitial = [9, 4]\n").groups, [GroupId(4), GroupId(9)]);
}

/// Goal: listening elsewhere than where one is reached works; the rest of the row stays.
#[test]
fn listening_and_advertising_differ() {
    let config = good("[listen]\npeer = \"0.0.0.0:9000\"\n");
    assert_eq!(config.listen.peer.to_string(), "0.0.0.0:9000");
    assert_eq!(config.own().addresses.peer.to_string(), "127.0.0.1:7401");
    assert_eq!(config.listen.client.to_string(), "127.0.0.1:7400");
}

/// Goal: what works but is not meant is said.
#[test]
fn warnings_are_given() {
    let config = good("[cpu]\nshards = [0, 1]\ncontrol = [1]\n[wal]\nsync = \"none\"\n");
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("core 1 is also a shard's"));
    assert!(config.warnings[1].contains("NOT DURABLE"));
}

/// Goal: each refusal names its line, its value and its cure, word by word.
#[test]
fn refusals_word_by_word() {
    // What is appended (or replaced), the message after the file's name, the cure.
    let appended = [
        ("[wal]\ninflght = 2", "23:1: unknown key `wal.inflght`", "did you mean `inflight`?"),
        ("[wall]\ninflight = 2", "22:2: unknown key `wall`", "did you mean `wal`?"),
        (
            "[wal]\nspin_us = 2",
            "23:1: unknown key `wal.spin_us`",
            "`spin_us` belongs in the section [cpu]",
        ),
        (
            "[wal]\nxyz = 2",
            "23:1: unknown key `wal.xyz`",
            "known in [wal]: group_commit_wait_us, inflight, segment_bytes, stuck_limit_ms, sync",
        ),
        (
            "[cpu]\nshards = [0, 1, 0]",
            "23:17: cpu.shards: core 0 is listed twice",
            "give each core once: two shards can't share a core",
        ),
        (
            "[cpu]\nshards = [0, 9]",
            "23:14: cpu.shards: core 9 is not one that this process may use",
            "choose among core 0, 1, 2, 3",
        ),
        (
            "[cpu]\nauto_count = 5",
            "23:14: cpu.auto_count: 5 shards need a core each, this process may use 4 (core 0, 1, 2, 3)",
            "choose at most 4",
        ),
        (
            "[cpu]\nshards = \"all\"",
            "23:10: shards: invalid value: string \"all\", expected \"auto\" or a list of core numbers",
            "shards is given in core numbers: see tuning/README.md",
        ),
        (
            "[cpu]\nspin_us = \"50\"",
            "23:11: spin_us: invalid type: string \"50\", expected u64",
            "spin_us is given in microseconds: see tuning/README.md",
        ),
        (
            "[cpu]\nspin_us = 2000000",
            "23:11: cpu.spin_us: 2000000 is outside 0 to 1000000",
            "choose a value from 0 to 1000000",
        ),
        (
            "[raft]\nheartbeat_ms = 300",
            "23:16: raft.heartbeat_ms: a heartbeat every 300 ms is more than a third of the \
             election timeout of 500 ms: one late heartbeat would depose a healthy leader",
            "set heartbeat_ms to at most 166, or election_timeout_ms to at least 900",
        ),
        (
            "[raft]\nelection_timeout_ms = 200",
            "23:23: raft.election_timeout_ms: a heartbeat every 100 ms is more than a third of \
             the election timeout of 200 ms: one late heartbeat would depose a healthy leader",
            "set heartbeat_ms to at most 66, or election_timeout_ms to at least 300",
        ),
        (
            "[raft]\ninflight_bytes_max = 5000",
            "23:22: raft.inflight_bytes_max: 5000 is less than one append of 1048576",
            "set it to at least raft.append_bytes_max",
        ),
        (
            "[wal]\nsync = \"fsync\"",
            "23:8: wal.sync: \"fsync\" is not a method",
            "choose one of dsync, fdatasync, blocking, none",
        ),
        (
            "[wal]\nsegment_bytes = 8388609",
            "23:17: wal.segment_bytes: 8388609 is not a multiple of 4096",
            "set it to 8392704",
        ),
        (
            "[wal]\nsync = \"blocking\"\ninflight = 2",
            "24:12: wal.inflight: 2 with sync = \"blocking\", which has no second one",
            "set wal.inflight to 1",
        ),
        (
            "[wal]\ngroup_commit_wait_us = 60000",
            "23:24: wal.group_commit_wait_us: 60000 us is more than half of raft.heartbeat_ms \
             (100000 us)",
            "set it to at most 50000",
        ),
        (
            "[wal]\nstuck_limit_ms = 900",
            "23:18: wal.stuck_limit_ms: 900 ms is outside 1000 (twice raft.election_timeout_ms) \
             to 3600000",
            "set it to 20000",
        ),
        (
            "[snapshot]\nlog_bytes = 100000000",
            "23:13: snapshot.log_bytes: 100000000 is less than two segments (wal.segment_bytes)",
            "set it to at least 134217728, or to 0",
        ),
        (
            "[snapshot]\nlag_bytes = 100000000",
            "23:13: snapshot.lag_bytes: 100000000 is less than snapshot.log_bytes, 268435456",
            "set it to at least 268435456",
        ),
        (
            "[snapshot]\nbytes_per_second = 1000",
            "23:20: snapshot.bytes_per_second: 1000 is outside 1048576 to 68719476736",
            "choose a value from 1048576 to 68719476736",
        ),
        (
            "[snapshot]\nkept = 0",
            "23:8: snapshot.kept: 0 is outside 1 to 16",
            "choose a value from 1 to 16",
        ),
        (
            "[snapshot]\non_stop = 1",
            "23:11: on_stop: invalid type: integer `1`, expected a boolean",
            "on_stop is given in true or false: see tuning/README.md",
        ),
        (
            "[members]\nleave_on_stop = true\nleave_limit_s = 0",
            "24:17: members.leave_limit_s: 0 is outside 1 to 3600",
            "choose a value from 1 to 3600",
        ),
        (
            "[leadership]\npriority = 256",
            "23:12: leadership.priority: 256 is outside 0 to 255",
            "choose a value from 0 to 255",
        ),
        (
            "[limits]\npending_write_bytes_max = 100",
            "23:27: limits.pending_write_bytes_max: 100 is outside 1572944 to 4294967296",
            "choose a value from 1572944 to 4294967296",
        ),
        (
            "[limits]\ndata_bytes_max = 1000",
            "23:18: limits.data_bytes_max: 1000 is too little to be of use",
            "choose at least 16777216, or 0 for no limit",
        ),
        (
            "[limits]\nnode_pending_writes_max = 100",
            "23:27: limits.node_pending_writes_max: 100 is outside 4096 to 16777216",
            "choose a value from 4096 to 16777216",
        ),
        (
            "[limits]\nnode_pending_read_bytes_max = 100",
            "23:31: limits.node_pending_read_bytes_max: 100 is outside 16777216 to 68719476736",
            "choose a value from 16777216 to 68719476736",
        ),
        (
            "[groups]\ninitial = [1, 2, 1]",
            "23:18: groups.initial: group 1 is listed twice",
            "list each group once",
        ),
        ("[groups]\ninitial = [0]", "23:12: groups.initial: 0 is not an id", "count groups from 1"),
        (
            "[groups]\ninitial = -1",
            "23:11: initial: invalid value: integer `-1`, expected a count of groups or a list of \
             group ids",
            "initial is given in groups: see tuning/README.md",
        ),
        (
            "[log]\nlevel = \"loud\"",
            "23:9: log.level: \"loud\" is not a level",
            "choose one of error, warn, info, debug, trace",
        ),
        (
            "[listen]\npeer = \"0.0.0.0\"",
            "23:8: listen.peer: \"0.0.0.0\" has no port: write HOST:PORT, as in 10.0.0.1:7400 or \
             [::1]:7400",
            "write HOST:PORT, as in \"10.0.0.1:7400\" or \"[::1]:7400\"",
        ),
        (
            "[listen]\npeer = \"127.0.0.1:7400\"",
            "23:8: listen: 127.0.0.1:7400 is given twice",
            "use three different ports",
        ),
        ("x = = 1", "22:5: not TOML: ", "correct the line; a text value needs quotes"),
    ];
    for (more, message, cure) in appended {
        check(&format!("{GOOD}\n{more}\n"), more, message, cure);
    }
    let replaced = [
        (
            "id = \"0011",
            "id = \"x011",
            "2:6: cluster.id: \"x0112233445566778899aabbccddeeff\" is not 32 hexadecimal digits",
            "use the id that `ringraft init` made, the same in every node's file",
        ),
        (
            "id = 1\ndata_dir",
            "id = 3\ndata_dir",
            "5:6: node.id: 3 is not in [[nodes]]",
            "use one of the ids in [[nodes]]: 1, 2",
        ),
        (
            "id = 1\ndata_dir",
            "id = 1\nname = \"b\"\ndata_dir",
            "6:8: node.name: \"b\", but [[nodes]] calls node 1 \"a\"",
            "make the two names equal, or check node.id",
        ),
        (
            "data_dir = \"data\"",
            "",
            "4:1: node.data_dir: is missing",
            "`ringraft init` writes files that have it",
        ),
        (
            "id = 2\nname",
            "id = 1\nname",
            "16:6: nodes.id: 1 is also the id of node \"a\"",
            "give each node its own id",
        ),
        (
            "[::1]:7411",
            "127.0.0.1:7401",
            "15:1: nodes: 127.0.0.1:7401 is given twice",
            "give each port of each node its own address",
        ),
        (
            "[cluster]",
            "profile = \"laptop\"\n[cluster]",
            "1:11: profile \"laptop\" is not known",
            "use one of dev-laptop, container, low-latency, or the path of a TOML file",
        ),
    ];
    for (old, new, message, cure) in replaced {
        assert!(GOOD.contains(old), "{old}");
        check(&GOOD.replacen(old, new, 1), new, message, cure);
    }
}

fn check(text: &str, what: &str, message: &str, cure: &str) {
    let error = read(text).expect_err(what);
    let shown = error.to_string();
    let shown = shown.strip_prefix("dir/a.toml:").unwrap_or(&shown);
    assert!(shown.starts_with(message), "{what}\n shown: {shown}\nwanted: {message}");
    assert!(error.cure().starts_with(cure), "{what}\n cure: {}\nwanted: {cure}", error.cure());
}

/// Goal: a file that isn't there is a plain sentence with a cure.
#[test]
fn a_missing_file_is_a_plain_sentence() {
    let error = Config::load(Path::new("/nowhere/a.toml")).expect_err("missing");
    assert!(error.to_string().starts_with("/nowhere/a.toml: cannot be read: No such file"));
    assert!(error.cure().contains("ringraft init"));
    assert_eq!(error.line_and_column(), None);
}

/// Goal: the profiles' README has a row for every setting.
#[test]
fn the_readme_explains_every_setting() {
    let readme = include_str!("../../tuning/README.md");
    for line in DEFAULTS_TEXT.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, _)) = line.split_once(" = ") {
            assert!(readme.contains(&format!("| `{key}` |")), "tuning/README.md lacks {key}");
        }
    }
    for (name, _) in PROFILES {
        assert!(readme.contains(&format!("| `{name}` |")), "tuning/README.md lacks {name}");
    }
}
