//! `ringraft snapshot take`: asks nodes to save groups, and tells what came of it, group by group.

use super::{Asked, GroupReport, NodesArgs, Report, ask, ask_all};
use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use crate::config::Address;
use indicatif::{HumanBytes, ProgressBar};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// Between two looks at how far nodes are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What `ringraft snapshot take` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct TakeArgs {
    #[command(flatten)]
    nodes: NodesArgs,
    /// Wait until each is taken or has failed, as long as the nodes answer within --timeout
    #[arg(long)]
    wait: bool,
}

/// What came of one group on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It will be taken, or is being taken.
    Asked,
    /// It is taken, up to this entry.
    Taken { index: u64, bytes: u64, took_ms: u64 },
    /// The last one holds everything that is applied.
    NothingNew { index: u64 },
    /// It could not be written, for this reason.
    Failed(String),
    /// The group refuses to serve.
    Halted,
    /// The node has no such group.
    Unknown,
    /// Nobody knows, for this reason.
    Lost(String),
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Taken { .. } => "taken",
            Self::NothingNew { .. } => "nothing_new",
            Self::Failed(_) => "failed",
            Self::Halted => "halted",
            Self::Unknown => "unknown_group",
            Self::Lost(_) => "unreachable",
        }
    }
}

/// A node that was asked.
struct Node {
    http: Address,
    title: String,
    number: u32,
    /// When it was asked, by its own age.
    uptime_ms: u64,
    /// By group, with the attempts that had ended before.
    groups: BTreeMap<u64, (Outcome, u64)>,
    /// When it answered last.
    heard: Instant,
}

impl Node {
    fn new(http: Address, report: &Report) -> Self {
        let mut groups = BTreeMap::new();
        for row in &report.groups {
            let outcome = match row.asked.as_deref() {
                Some("wanted") => Outcome::Asked,
                Some("halted") => Outcome::Halted,
                _ => nothing_new(row),
            };
            groups.insert(row.group, (outcome, row.attempts));
        }
        groups.extend(report.unknown_groups.iter().map(|&group| (group, (Outcome::Unknown, 0))));
        Self {
            http,
            title: report.title(),
            number: report.node,
            uptime_ms: report.uptime_ms,
            groups,
            heard: Instant::now(),
        }
    }

    fn is_waiting(&self) -> bool {
        self.groups.values().any(|(outcome, _)| *outcome == Outcome::Asked)
    }

    /// Learns from what the node says now.
    fn learn(&mut self, report: &Report) {
        self.heard = Instant::now();
        if report.uptime_ms < self.uptime_ms {
            self.lose("the node was started again meanwhile");
            return;
        }
        for row in &report.groups {
            if let Some((outcome, before)) = self.groups.get_mut(&row.group)
                && *outcome == Outcome::Asked
            {
                *outcome = judge(row, *before);
            }
        }
    }

    /// Nothing more will be heard of what it was asked for.
    fn lose(&mut self, why: &str) {
        for (outcome, _) in self.groups.values_mut().filter(|(it, _)| *it == Outcome::Asked) {
            *outcome = Outcome::Lost(why.to_owned());
        }
    }
}

/// What came of a group of which so many attempts had ended when it was asked.
fn judge(row: &GroupReport, before: u64) -> Outcome {
    if row.attempts > before
        && let Some(end) = &row.end
    {
        return match &end.error {
            None => Outcome::Taken { index: end.index, bytes: end.bytes, took_ms: end.took_ms },
            Some(error) => Outcome::Failed(error.clone()),
        };
    }
    match row.activity.as_str() {
        "waiting" | "taking" => Outcome::Asked,
        _ if row.halted => Outcome::Halted,
        "installing" => Outcome::Failed("the group is given another node's".to_owned()),
        _ => nothing_new(row),
    }
}

fn nothing_new(row: &GroupReport) -> Outcome {
    Outcome::NothingNew { index: row.kept.last().map_or(0, |kept| kept.index) }
}

pub(super) fn run(args: &TakeArgs, global: &Global) -> Result<Exit, Failure> {
    let groups: Vec<String> = global.group_ids().map(|group| group.to_string()).collect();
    let body = groups.join(",");
    let mut nodes = Vec::new();
    let mut silent = Vec::new();
    for found in ask_all(&args.nodes, global)? {
        let asked = match found.said {
            Ok(_) => ask(&found.http, "POST", &body, global.timeout),
            Err(_) => found,
        };
        match &asked.said {
            Ok((report, _)) => {
                nodes.push(Node::new(asked.http.clone(), report));
                silent.extend(report.silent_shards.iter().map(|shard| {
                    let said = Err(format!("shard {shard} of node {} is silent", report.title()));
                    Asked { http: asked.http.clone(), said }
                }));
            }
            Err(_) => silent.push(asked),
        }
    }
    if args.wait {
        wait(&mut nodes, global.timeout);
    }
    let exit = exit_code(&nodes, &silent);
    match global.output {
        Output::Json => output::json(&to_json(&nodes, &silent))?,
        Output::Table => {
            output::text(&to_table(&nodes, &silent))?;
            if let Some(failure) = failure(exit, &nodes) {
                return Err(failure);
            }
        }
    }
    Ok(exit)
}

/// Looks at the nodes until nothing is on its way, or one is silent for too long.
fn wait(nodes: &mut [Node], patience: Duration) {
    let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
    while nodes.iter().any(Node::is_waiting) {
        std::thread::sleep(LOOK_EVERY);
        for node in nodes.iter_mut().filter(|node| node.is_waiting()) {
            match ask(&node.http, "GET", "", patience).said {
                Ok((report, _)) => {
                    node.learn(&report);
                    let taking = report.groups.iter().find(|row| row.activity == "taking");
                    if let (Some(bar), Some(row)) = (&bar, taking) {
                        let written = HumanBytes(row.written_bytes.unwrap_or(0));
                        bar.set_message(format!(
                            "node {}: group {}, {written}",
                            node.title, row.group
                        ));
                        bar.tick();
                    }
                }
                Err(error) if node.heard.elapsed() > patience => {
                    node.lose(&format!("the node doesn't answer any more: {error}"));
                }
                Err(_) => {}
            }
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// A group that wasn't saved is worse than a node that says nothing.
fn exit_code(nodes: &[Node], silent: &[Asked]) -> Exit {
    let outcomes =
        || nodes.iter().flat_map(|node| node.groups.values().map(|(outcome, _)| outcome));
    let is_refused =
        |it: &Outcome| matches!(it, Outcome::Failed(_) | Outcome::Halted | Outcome::Unknown);
    if outcomes().any(is_refused) {
        Exit::NotDone
    } else if !silent.is_empty() || outcomes().any(|it| matches!(it, Outcome::Lost(_))) {
        Exit::Unavailable
    } else {
        Exit::Ok
    }
}

/// What to do about the first thing that went wrong.
fn failure(exit: Exit, nodes: &[Node]) -> Option<Failure> {
    let mut outcomes =
        nodes.iter().flat_map(|node| node.groups.values().map(|(outcome, _)| outcome));
    let (message, cure) = match exit {
        Exit::Ok => return None,
        Exit::NotDone => {
            let cure = outcomes.find_map(|outcome| match outcome {
                Outcome::Failed(_) => {
                    Some("the node's log says more; it tries again by itself every five seconds")
                }
                Outcome::Halted => Some("docs/OPERATING.md says under \"Damage\" what cures it"),
                Outcome::Unknown => Some("`ringraft status` lists the groups"),
                _ => None,
            });
            ("not every group was saved", cure)
        }
        _ => {
            let cure =
                "`ringraft status` shows which nodes answer; --http names their HTTP addresses";
            ("not every node told what came of it", Some(cure))
        }
    };
    let failure = Failure::new(exit, message);
    Some(match cure {
        Some(cure) => failure.cure(cure),
        None => failure,
    })
}

fn to_json(nodes: &[Node], silent: &[Asked]) -> Value {
    let group = |(group, (outcome, _)): (&u64, &(Outcome, u64))| {
        let mut row = json!({ "group": group, "result": outcome.name() });
        match outcome {
            Outcome::Taken { index, bytes, took_ms } => {
                row["index"] = (*index).into();
                row["bytes"] = (*bytes).into();
                row["took_ms"] = (*took_ms).into();
            }
            Outcome::NothingNew { index } => row["index"] = (*index).into(),
            Outcome::Failed(why) | Outcome::Lost(why) => row["error"] = why.as_str().into(),
            Outcome::Asked | Outcome::Halted | Outcome::Unknown => {}
        }
        row
    };
    let node = |node: &Node| {
        let groups: Vec<Value> = node.groups.iter().map(group).collect();
        json!({ "node": node.number, "groups": groups })
    };
    json!({
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
        "unreachable": super::unreachable(silent),
    })
}

fn to_table(nodes: &[Node], silent: &[Asked]) -> String {
    let mut table = output::table(&["NODE", "GROUP", "SNAPSHOT", "ENTRY", "SIZE", "TOOK"]);
    let mut notes = Vec::new();
    for node in nodes {
        for (group, (outcome, _)) in &node.groups {
            let mut cells = vec![node.title.clone(), group.to_string()];
            match outcome {
                Outcome::Asked => cells.push("asked".to_owned()),
                Outcome::Taken { index, bytes, took_ms } => cells.extend([
                    "taken".to_owned(),
                    index.to_string(),
                    HumanBytes(*bytes).to_string(),
                    format!("{took_ms} ms"),
                ]),
                Outcome::NothingNew { index } => {
                    cells.extend(["nothing new".to_owned(), index.to_string()]);
                }
                Outcome::Failed(why) => {
                    cells.push("FAILED".to_owned());
                    notes.push(format!("node {}, group {group}: {why}", node.title));
                }
                Outcome::Halted => cells.push("group halted".to_owned()),
                Outcome::Unknown => cells.push("no such group".to_owned()),
                Outcome::Lost(why) => {
                    cells.push("not known".to_owned());
                    notes.push(format!("node {}, group {group}: {why}", node.title));
                }
            }
            table.add_row(cells);
        }
    }
    notes.extend(silent.iter().filter_map(|asked| {
        let error = asked.said.as_ref().err()?;
        Some(format!("{} doesn't answer: {error}", asked.http))
    }));
    if nodes.iter().any(Node::is_waiting) {
        notes.push("`ringraft snapshot ls` shows what comes of it; --wait waits for it".to_owned());
    }
    std::iter::once(output::table_text(&table)).chain(notes).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshot::{EndReport, KeptReport};

    fn row(activity: &str, halted: bool, attempts: u64, error: Option<&str>) -> GroupReport {
        let error = error.map(str::to_owned);
        let age_ms = None;
        GroupReport {
            group: 7,
            applied: 90,
            halted,
            asked: Some("wanted".to_owned()),
            activity: activity.to_owned(),
            written_bytes: None,
            install: None,
            attempts,
            end: Some(EndReport { index: 80, bytes: 8192, took_ms: 3, error }),
            kept: vec![KeptReport {
                index: 80,
                term: 1,
                behind: 10,
                bytes: 1,
                age_ms,
                named: true,
            }],
            unreadable: 0,
        }
    }

    /// Goal: what a node says later is told apart, with or without an end of the attempt asked for.
    #[test]
    fn each_end_is_told_apart() {
        let taken = Outcome::Taken { index: 80, bytes: 8192, took_ms: 3 };
        let failed = Outcome::Failed("the disk is full".to_owned());
        let given = Outcome::Failed("the group is given another node's".to_owned());
        for (row, outcome) in [
            (row("taking", false, 2, None), Outcome::Asked),
            (row("waiting", false, 2, Some("of the last one")), Outcome::Asked),
            (row("none", false, 3, None), taken.clone()),
            (row("taking", false, 3, None), taken),
            (row("waiting", false, 3, Some("the disk is full")), failed),
            (row("none", true, 2, None), Outcome::Halted),
            (row("installing", false, 2, None), given),
            (row("none", false, 2, None), Outcome::NothingNew { index: 80 }),
        ] {
            assert_eq!(judge(&row, 2), outcome, "{row:?}");
        }
    }

    /// Goal: a node that was started again, or is silent, leaves nothing waiting; what isn't known
    /// is told as such, and what was refused counts more.
    #[test]
    fn a_restart_ends_the_wait() {
        let http: Address = "h:7402".parse().expect("an address");
        let report = |uptime_ms, halted| Report {
            node: 1,
            name: "a".to_owned(),
            uptime_ms,
            silent_shards: Vec::new(),
            unknown_groups: if halted { vec![9] } else { Vec::new() },
            groups: vec![row("taking", false, 2, None)],
        };
        let mut node = Node::new(http.clone(), &report(500, false));
        node.learn(&report(600, false));
        assert!(node.is_waiting());
        node.learn(&report(10, false));
        assert!(!node.is_waiting());
        let nodes = [node];
        assert_eq!(exit_code(&nodes, &[]), Exit::Unavailable);
        let table = to_table(&nodes, &[]);
        assert!(table.contains("not known") && table.contains("started again"), "{table}");
        assert_eq!(to_json(&nodes, &[])["nodes"][0]["groups"][0]["result"], "unreachable");
        let nodes = [Node::new(http, &report(500, true))];
        assert_eq!(exit_code(&nodes, &[]), Exit::NotDone);
    }
}
