//! `ringraft status`: every node and group, also of nodes that don't answer, and of those that were
//! named and are no members.

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, Output};
use comfy_table::ColumnConstraint;
use ringraft_net::ClientError;
use ringraft_net::client::Client;
use ringraft_net::status::{GroupStatus, NodeStatus, SnapshotActivity};
use ringraft_types::{Index, MemoryLevel, NodeId, ShardId};
use serde_json::{Value, json};

/// A node that doesn't answer.
#[derive(Debug, PartialEq, Eq)]
struct Unreachable {
    node: Option<NodeId>,
    address: String,
}

pub(crate) fn run(global: &Global) -> Result<Exit, Failure> {
    let mut options = client::options(global);
    let mut client = Client::connect(options.clone()).map_err(client::failure)?;
    let located = client.locate(global.group());
    if let Ok(located) = &located
        && !located.members.is_empty()
    {
        let named = std::mem::take(&mut options.endpoints);
        options.endpoints = located.members.iter().map(|member| member.address.clone()).collect();
        options.endpoints.extend(named);
    }
    options.timeout = options.timeout.min(client::NODE_PATIENCE);
    let answers = Client::connect(options).map_err(client::failure)?.status_all();
    let mut found: Vec<NodeStatus> = Vec::new();
    let (mut first_error, mut silent) = (None, Vec::new());
    for answer in answers {
        match answer {
            Ok(status) => found.push(status),
            Err(error) => {
                if let ClientError::NoStatus { address, .. } = &error {
                    silent.push(address.clone());
                }
                first_error = first_error.or(Some(error));
            }
        }
    }
    if let (true, Some(error)) = (found.is_empty(), first_error) {
        return Err(client::failure(error));
    }
    found.sort_by_key(|status| (status.node, status.shard));
    let members = located.map(|located| located.members).unwrap_or_default();
    // An endpoint that doesn't answer may be any node.
    silent.dedup();
    silent.retain(|address| members.iter().all(|member| member.address != *address));
    let silent = silent.into_iter().map(|address| Unreachable { node: None, address });
    let missing: Vec<Unreachable> = members
        .into_iter()
        .filter(|member| found.iter().all(|status| status.node != member.node))
        .map(|member| Unreachable { node: Some(member.node), address: member.address })
        .chain(silent)
        .collect();
    match global.output {
        Output::Json => output::json(&to_json(&found, &missing))?,
        Output::Table => output::text(&to_table(&found, &missing))?,
    }
    Ok(Exit::Ok)
}

fn to_table(found: &[NodeStatus], missing: &[Unreachable]) -> String {
    let header = [
        "NODE", "GROUP", "SHARD", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "LEADER", "SNAPSHOT",
        "SYNC us",
    ];
    let mut table = output::table(&header);
    // Where every node has one shard, the column says nothing, and a terminal is narrow.
    if found.iter().all(|status| status.shard == ShardId(0))
        && let Some(column) = table.column_mut(2)
    {
        column.set_constraint(ColumnConstraint::Hidden);
    }
    for status in found {
        for group in &status.groups {
            let GroupStatus { term, commit, applied, leader, .. } = group;
            let role = group.role.name();
            let damaged = if group.damaged { ", DAMAGED" } else { "" };
            let paused = if status.is_paused { ", paused" } else { "" };
            let memory = match status.memory {
                MemoryLevel::Normal => "",
                MemoryLevel::Warning => ", memory nearly full",
                MemoryLevel::Full => ", MEMORY FULL",
            };
            table.add_row([
                node_name(found, status.node),
                group.group.to_string(),
                status.shard.to_string(),
                [role, damaged, paused, memory].concat(),
                term.to_string(),
                commit.to_string(),
                applied.to_string(),
                group.lag_entries.to_string(),
                if leader.get() == 0 { "-".into() } else { node_name(found, *leader) },
                snapshot(group),
                match status.durable {
                    true => format!("{}/{}", status.sync_p50_us, status.sync_p99_us),
                    false => "NOT DURABLE".to_owned(),
                },
            ]);
        }
        if status.groups.is_empty() {
            let shard = status.shard.to_string();
            table.add_row([node_name(found, status.node), "-".into(), shard, "no groups".into()]);
        }
    }
    for node in missing {
        let id = node.node.map_or("?".to_owned(), |node| node.to_string());
        table.add_row([id, "-".into(), "-".into(), format!("unreachable at {}", node.address)]);
    }
    output::table_text(&table)
}

/// The newest entry in a snapshot, and what is done for the next one.
fn snapshot(group: &GroupStatus) -> String {
    let newest = match group.snapshot {
        Index::ZERO => "-".to_owned(),
        index => index.to_string(),
    };
    match group.activity {
        SnapshotActivity::None | SnapshotActivity::Waiting => newest,
        activity => format!("{newest}, {}", activity.name()),
    }
}

/// A node as "1 (a)", if its name is known.
fn node_name(found: &[NodeStatus], node: NodeId) -> String {
    match found.iter().find(|status| status.node == node) {
        Some(status) if !status.name.is_empty() => format!("{node} ({})", status.name),
        _ => node.to_string(),
    }
}

fn to_json(found: &[NodeStatus], missing: &[Unreachable]) -> Value {
    let shard = |status: &NodeStatus| {
        json!({
            "node": status.node.get(),
            "name": status.name,
            "shard": status.shard.get(),
            "uptime_ms": status.uptime.get() / 1000,
            "durable": status.durable,
            "elections_paused": status.is_paused,
            "priority": status.priority,
            "spreads_leaders": status.spreads,
            "data_bytes": status.data_bytes,
            "data_bytes_max": (status.data_bytes_max > 0).then_some(status.data_bytes_max),
            "memory": status.memory.name(),
            "sync_us": {"p50": status.sync_p50_us, "p99": status.sync_p99_us},
            "groups": status.groups.iter().map(group_json).collect::<Vec<_>>(),
        })
    };
    let unreachable = |node: &Unreachable| json!({"node": node.node.map(|node| node.get()), "client": node.address});
    json!({
        "shards": found.iter().map(shard).collect::<Vec<_>>(),
        "unreachable": missing.iter().map(unreachable).collect::<Vec<_>>(),
    })
}

fn group_json(group: &GroupStatus) -> Value {
    json!({
        "group": group.group.get(),
        "role": group.role.name(),
        "term": group.term.get(),
        "leader": (group.leader.get() != 0).then_some(group.leader.get()),
        "last": group.last.get(),
        "commit": group.commit.get(),
        "applied": group.applied.get(),
        "lag_entries": group.lag_entries,
        "revision": group.revision.get(),
        "state_hash": format!("{:016x}", group.state_hash),
        "damaged": group.damaged,
        "data_bytes": group.data_bytes,
        "snapshot": group.snapshot.get(),
        "snapshots": group.activity.name(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_net::status::GroupRole;
    use ringraft_types::{GroupId, Revision, Term, Ticks};

    fn status(node: u32, name: &str, role: GroupRole) -> NodeStatus {
        let group = GroupStatus {
            group: GroupId(1),
            role,
            term: Term(3),
            leader: NodeId(1),
            commit: Index(41),
            applied: Index(40),
            last: Index(42),
            revision: Revision(38),
            state_hash: 7,
            lag_entries: 1,
            damaged: node == 2,
            snapshot: Index(30),
            activity: if node == 1 { SnapshotActivity::Taking } else { SnapshotActivity::None },
            data_bytes: 11,
        };
        NodeStatus {
            node: NodeId(node),
            shard: ShardId(0),
            name: name.into(),
            uptime: Ticks(9_000),
            sync_p50_us: 98,
            sync_p99_us: 189,
            durable: node == 1,
            is_paused: node == 2,
            priority: 7,
            spreads: true,
            data_bytes: 1 << 20,
            data_bytes_max: 2 << 20,
            memory: if node == 2 { MemoryLevel::Full } else { MemoryLevel::Normal },
            groups: vec![group],
        }
    }

    /// Goal: a person sees who leads, who lags, who is damaged and who is gone.
    #[test]
    fn the_table_shows_everyone() {
        let found = [status(1, "a", GroupRole::Leader), status(2, "b", GroupRole::Follower)];
        let missing = [Unreachable { node: Some(NodeId(3)), address: "h:7420".into() }];
        let table = to_table(&found, &missing);
        let words: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words.len(), 4, "{table}");
        let leader = "1 (a) 1 leader 3 41 40 1 1 (a) 30, taking 98/189";
        assert_eq!(words[1].join(" "), leader, "{table}");
        assert!(table.contains("follower, DAMAGED, paused, MEMORY FULL"), "{table}");
        assert!(!table.contains("SHARD"), "all have one: {table}");
        let other = NodeStatus { shard: ShardId(1), ..found[0].clone() };
        assert!(to_table(&[other], &[]).contains("SHARD"), "there are several: {table}");
        assert_eq!(table.matches("NOT DURABLE").count(), 1, "{table}");
        assert!(table.contains("unreachable at h:7420"), "{table}");
        let json = to_json(&found, &missing);
        assert_eq!(json["shards"][0]["groups"][0]["role"], "leader");
        assert_eq!([&json["shards"][0]["durable"], &json["shards"][1]["durable"]], [true, false]);
        assert_eq!(json["unreachable"][0]["client"], "h:7420");
    }
}
