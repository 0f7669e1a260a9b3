//! What people are shown of snapshots.

use super::*;

fn kept(index: u64, named: bool) -> KeptReport {
    KeptReport {
        index,
        term: 12,
        behind: 1_234_567,
        bytes: 123 << 20,
        age_ms: Some(59 * 60_000),
        named,
    }
}

fn row(group: u64, activity: &str) -> GroupReport {
    GroupReport {
        group,
        applied: 9_999_999,
        halted: false,
        asked: None,
        activity: activity.to_owned(),
        written_bytes: (activity == "taking").then_some(456 << 20),
        install: (activity == "installing").then_some(InstallReport {
            from: 2,
            sources: 1,
            chunks_fetched: 20,
            chunks_loaded: 5,
            chunks: 20,
        }),
        attempts: 3,
        end: None,
        kept: vec![kept(7_777_777, false), kept(8_765_432, true)],
        unreadable: 0,
    }
}

fn said(rows: Vec<GroupReport>, silent_shards: Vec<u16>) -> Asked {
    let report = Report {
        node: 1,
        name: "a".to_owned(),
        uptime_ms: 1,
        silent_shards,
        unknown_groups: Vec::new(),
        groups: rows,
    };
    let http = "h:7402".parse().expect("an address");
    Asked { http, said: Ok((report, json!({}))) }
}

/// Goal: every snapshot has a row, with what is done now beside the newest; large numbers fit a
/// terminal of 80 columns, but for a reason in words.
#[test]
fn the_table_shows_all_that_is_kept() {
    let end = EndReport { index: 1, bytes: 1, took_ms: 1, error: Some("the disk is full".into()) };
    let failed = GroupReport { end: Some(end), ..row(2, "waiting") };
    let halted = GroupReport { halted: true, kept: Vec::new(), ..row(3, "none") };
    let rows = vec![row(1, "taking"), failed, halted, row(4, "installing"), row(5, "waiting")];
    let silent = Asked { http: "h:7412".parse().expect("an address"), said: Err("refused".into()) };
    let table = to_table(&[said(rows, vec![1]), silent]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + 9 + 2, "{table}");
    assert!(lines[1].ends_with('-'), "the older one: {table}");
    assert!(lines[2].ends_with("yes    being taken, 456.00 MiB"), "{table}");
    assert!(lines[4].ends_with("failed, tried again: the disk is full"), "{table}");
    assert!(lines[5].ends_with("group halted"), "{table}");
    assert!(lines[7].ends_with("being installed from 2, 62 %"), "{table}");
    assert!(lines[9].ends_with("waits for others"), "{table}");
    assert_eq!(lines[10], "shard 1 of node 1 (a) doesn't answer");
    assert_eq!(lines[11], "h:7412 doesn't answer: refused");
}

/// Goal: a group that waits for another node's snapshot says so.
#[test]
fn who_asks_for_one_says_so() {
    let asking =
        InstallReport { from: 2, sources: 0, chunks_fetched: 0, chunks_loaded: 0, chunks: 0 };
    assert_eq!([installed(None), installed(Some(&asking))], ["asks for one", "asks for one"]);
    let given = InstallReport { sources: 3, chunks_fetched: 5, chunks: 10, ..asking };
    assert_eq!(installed(Some(&given)), "being installed from 2 and 2 more, 25 %");
}

/// Goal: an age is told as a person would.
#[test]
fn ages_are_told_shortly() {
    assert_eq!([age(999), age(1_000), age(59 * 60_000)], ["just now", "1s ago", "59m ago"]);
}
