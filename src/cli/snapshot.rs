//! `ringraft snapshot`: what nodes keep of each group, and having one more taken.

mod take;

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::http;
use super::output::{self, Output};
use crate::config::Address;
use indicatif::{HumanBytes, HumanDuration};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
pub(crate) use take::TakeArgs;

/// What `ringraft snapshot` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List what each node keeps: of all groups, or of those that --group names
    Ls(NodesArgs),
    /// Have one taken, of all groups or of those that --group names, and tell what came of it
    Take(TakeArgs),
}

/// Which nodes are asked.
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// Ask only these of the nodes, by number or name
    #[arg(long, value_delimiter = ',', value_name = "NODE,…")]
    node: Vec<String>,
    /// HTTP addresses of the nodes; left out: two ports above each of the endpoints
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    http: Vec<Address>,
}

pub(crate) fn run(command: &SnapshotCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        SnapshotCommand::Ls(nodes) => list(nodes, global),
        SnapshotCommand::Take(args) => take::run(args, global),
    }
}

/// What a node says of its snapshots.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    node: u32,
    name: String,
    uptime_ms: u64,
    silent_shards: Vec<u16>,
    unknown_groups: Vec<u64>,
    groups: Vec<GroupReport>,
}

/// Of one group.
#[derive(Clone, Debug, Deserialize)]
struct GroupReport {
    group: u64,
    applied: u64,
    halted: bool,
    asked: Option<String>,
    activity: String,
    written_bytes: Option<u64>,
    install: Option<InstallReport>,
    attempts: u64,
    end: Option<EndReport>,
    kept: Vec<KeptReport>,
    unreadable: u64,
}

/// How far the one is that another node gives.
#[derive(Clone, Debug, Deserialize)]
struct InstallReport {
    from: u32,
    sources: usize,
    chunks_fetched: u32,
    chunks_loaded: u32,
    chunks: u32,
}

/// How the last attempt ended.
#[derive(Clone, Debug, Deserialize)]
struct EndReport {
    index: u64,
    bytes: u64,
    took_ms: u64,
    error: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug, Deserialize)]
struct KeptReport {
    index: u64,
    term: u64,
    behind: u64,
    bytes: u64,
    age_ms: Option<u64>,
    named: bool,
}

impl Report {
    /// The node as "1 (a)".
    fn title(&self) -> String {
        let Self { node, name, .. } = self;
        if name.is_empty() { node.to_string() } else { format!("{node} ({name})") }
    }
}

/// A node at an address, or why it says nothing.
struct Asked {
    http: Address,
    said: Result<(Report, Value), String>,
}

/// Asks one node.
fn ask(http: &Address, method: &str, body: &str, patience: Duration) -> Asked {
    let said = match http::ask(http, method, "/snapshots", body, patience) {
        Ok((200, body)) => {
            let parse = |body: &str| Some((serde_json::from_str(body).ok()?, body.parse().ok()?));
            parse(&body).ok_or_else(|| "it answers something else than snapshots".to_owned())
        }
        Ok((404, _)) => Err("it knows nothing of snapshots: it runs an older version".to_owned()),
        Ok((status, body)) => Err(format!("it answers {status}: {}", body.trim())),
        Err(error) => Err(error.to_string()),
    };
    Asked { http: http.clone(), said }
}

/// Asks every node how things stand, and keeps those that `--node` names.
fn ask_all(nodes: &NodesArgs, global: &Global) -> Result<Vec<Asked>, Failure> {
    let patience = global.timeout.min(client::NODE_PATIENCE);
    let addresses = http::of_nodes(&nodes.http, global);
    let mut all: Vec<Asked> = addresses.iter().map(|http| ask(http, "GET", "", patience)).collect();
    if let Some(first) = all.first()
        && let Err(error) = &first.said
        && all.iter().all(|asked| asked.said.is_err())
    {
        let message = format!("no node answers over HTTP; {}: {error}", first.http);
        let cure = "name the nodes' HTTP addresses with --http, or their client addresses with \
                    --endpoints";
        return Err(Failure::new(Exit::Unavailable, message).cure(cure));
    }
    let is_named = |asked: &Asked, name: &String| {
        let said = asked.said.as_ref();
        said.is_ok_and(|(report, _)| *name == report.name || *name == report.node.to_string())
    };
    if let Some(name) = nodes.node.iter().find(|name| !all.iter().any(|it| is_named(it, name))) {
        let there: Vec<String> = (all.iter())
            .map(|asked| match &asked.said {
                Ok((report, _)) => report.title(),
                Err(_) => format!("none at {}", asked.http),
            })
            .collect();
        let message =
            format!("no node {name:?} answers over HTTP; there are: {}", there.join(", "));
        let cure = "`ringraft status` shows the nodes; --http names their HTTP addresses";
        return Err(Failure::new(Exit::Unavailable, message).cure(cure));
    }
    if !nodes.node.is_empty() {
        all.retain(|asked| nodes.node.iter().any(|name| is_named(asked, name)));
    }
    Ok(all)
}

fn list(nodes: &NodesArgs, global: &Global) -> Result<Exit, Failure> {
    let mut all = ask_all(nodes, global)?;
    let named: Vec<u64> = global.group_ids().map(ringraft_types::GroupId::get).collect();
    let is_wanted = |group: u64| named.is_empty() || named.contains(&group);
    let mut found = Vec::new();
    for (report, json) in all.iter_mut().filter_map(|asked| asked.said.as_mut().ok()) {
        found.extend(report.groups.iter().map(|row| row.group));
        report.groups.retain(|row| is_wanted(row.group));
        if let Some(rows) = json["groups"].as_array_mut() {
            rows.retain(|row| row["group"].as_u64().is_some_and(is_wanted));
        }
    }
    if let Some(group) = named.iter().find(|group| !found.contains(group)) {
        let failure =
            Failure::new(Exit::NotDone, format!("no node that answers has group {group}"));
        return Err(failure.cure("`ringraft status` lists the groups"));
    }
    match global.output {
        Output::Json => output::json(&to_json(&all))?,
        Output::Table => output::text(&to_table(&all))?,
    }
    Ok(Exit::Ok)
}

fn to_json(all: &[Asked]) -> Value {
    let nodes = all.iter().filter_map(|asked| Some(&asked.said.as_ref().ok()?.1));
    json!({ "nodes": nodes.collect::<Vec<_>>(), "unreachable": unreachable(all) })
}

fn unreachable(all: &[Asked]) -> Vec<Value> {
    let silent = all.iter().filter_map(|asked| Some((asked, asked.said.as_ref().err()?)));
    let row = |(asked, error): (&Asked, &String)| json!({ "http": asked.http.to_string(), "error": error });
    silent.map(row).collect()
}

fn to_table(all: &[Asked]) -> String {
    let mut table = output::table(&[
        "NODE", "GROUP", "ENTRY", "TERM", "SIZE", "TAKEN", "BEHIND", "NAMED", "NOW",
    ]);
    let mut notes = Vec::new();
    for asked in all {
        let report = match &asked.said {
            Ok((report, _)) => report,
            Err(error) => {
                notes.push(format!("{} doesn't answer: {error}", asked.http));
                continue;
            }
        };
        for shard in &report.silent_shards {
            notes.push(format!("shard {shard} of node {} doesn't answer", report.title()));
        }
        for row in &report.groups {
            let (node, group) = (report.title(), row.group.to_string());
            for (at, kept) in row.kept.iter().enumerate() {
                let is_newest = at + 1 == row.kept.len();
                table.add_row([
                    node.clone(),
                    group.clone(),
                    kept.index.to_string(),
                    kept.term.to_string(),
                    HumanBytes(kept.bytes).to_string(),
                    kept.age_ms.map_or("-".into(), age),
                    kept.behind.to_string(),
                    if kept.named { "yes".into() } else { "-".into() },
                    if is_newest { now(row) } else { String::new() },
                ]);
            }
            if row.kept.is_empty() {
                let none = || "-".to_owned();
                let behind = row.applied.to_string();
                let cells = [node, group, none(), none(), none(), none(), behind, none(), now(row)];
                table.add_row(cells);
            }
        }
    }
    std::iter::once(output::table_text(&table)).chain(notes).collect::<Vec<_>>().join("\n")
}

/// How long ago.
fn age(ms: u64) -> String {
    match ms {
        0..1_000 => "just now".to_owned(),
        _ => format!("{:#} ago", HumanDuration(Duration::from_millis(ms))),
    }
}

/// What is done for a group's snapshots now, or what went wrong.
fn now(row: &GroupReport) -> String {
    let failed = || row.end.as_ref().and_then(|end| end.error.as_ref());
    let doing = match (row.activity.as_str(), failed()) {
        ("taking", _) => {
            format!("being taken, {}", HumanBytes(row.written_bytes.unwrap_or(0)))
        }
        ("installing", _) => installed(row.install.as_ref()),
        _ if row.halted => "group halted".to_owned(),
        ("waiting", Some(error)) => format!("failed, tried again: {error}"),
        ("waiting", None) => "waits for others".to_owned(),
        _ => String::new(),
    };
    let unreadable = match row.unreadable {
        0 => return doing,
        count => format!("{count} unreadable"),
    };
    if doing.is_empty() { unreadable } else { format!("{doing}; {unreadable}") }
}

/// How far another node's snapshot is.
fn installed(install: Option<&InstallReport>) -> String {
    match install {
        None | Some(InstallReport { chunks: 0, .. }) => "asks for one".to_owned(),
        Some(report) => {
            let InstallReport { from, sources, chunks_fetched, chunks_loaded, chunks } = report;
            // It is fetched, then loaded: each is half of the way.
            let percent = u64::from(chunks_fetched + chunks_loaded) * 50 / u64::from(*chunks);
            let others = match sources.saturating_sub(1) {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            format!("being installed from {from}{others}, {percent} %")
        }
    }
}

#[cfg(test)]
mod tests;
