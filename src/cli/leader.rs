//! `ringraft leader`: who leads each group, handing that over, and keeping a node from leading.

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::node::groups;
use super::output::{self, Output};
use ringraft_net::client::{Client, TransferError};
use ringraft_net::lead_wire::LeadRefusal;
use ringraft_net::status::{GroupRole, GroupStatus, NodeStatus};
use ringraft_types::{GroupId, NodeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What `ringraft leader` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LeaderCommand {
    /// List who leads each group, whose elections are paused, and who is preferred
    Ls,
    /// Have another node lead each group: the one named by --to, or the one that fits best
    ///
    /// Clients notice a short wait: what was under way is answered first, and the library sends the
    /// rest to the next leader. A group whose transfer fails is led on by who led it.
    Transfer(TransferArgs),
    /// Have each node lead about as many groups as the others, once
    ///
    /// Only sound voters get any, those that have caught up, of the priority of who leads. Nothing is
    /// moved back later: `leadership.spread` in the nodes' files keeps leaders even all the time.
    Balance(BalanceArgs),
    /// Keep a node from leading: it hands over what it leads, and stands in no election
    ///
    /// It votes and replicates as before. It stays so until `ringraft leader resume`, or until the
    /// node starts anew. Don't pause all nodes: without a leader nobody would stand.
    Pause(NodeArg),
    /// Let a node lead again; nothing is moved back unless priorities or `leadership.spread` say so
    Resume(NodeArg),
    /// Have a node preferred as leader of all groups in which it votes, or less than others
    ///
    /// Whoever leads hands over to the sound voter of the highest priority, after ten election
    /// timeouts or so of calm. It stays so until the node starts anew: then `leadership.priority` of
    /// its file counts, so change that as well.
    Priority(PriorityArgs),
}

/// What `ringraft leader transfer` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct TransferArgs {
    /// The node that is to lead [default: of each group, the voter that holds most]
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u32).range(1..))]
    to: Option<u32>,
    /// Do it; without this, only the plan is shown
    #[arg(long)]
    yes: bool,
}

/// What `ringraft leader balance` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct BalanceArgs {
    /// Do it; without this, only the plan is shown
    #[arg(long)]
    yes: bool,
}

/// A node.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArg {
    /// The node's number
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    node: u32,
    /// Do it; without this, only the plan is shown
    #[arg(long)]
    yes: bool,
}

/// What `ringraft leader priority` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct PriorityArgs {
    #[command(flatten)]
    node: NodeArg,
    /// The priority, 0 to 255; the highest is preferred, equal ones aren't told apart
    #[arg(value_name = "PRIORITY")]
    priority: u8,
}

pub(crate) fn run(command: &LeaderCommand, global: &Global) -> Result<Exit, Failure> {
    let mut client = Client::connect(client::options(global)).map_err(client::failure)?;
    match command {
        LeaderCommand::Ls => list(&mut client, global),
        LeaderCommand::Transfer(args) => transfer(&mut client, args, global),
        LeaderCommand::Balance(args) => balance(&mut client, args, global),
        LeaderCommand::Pause(one) => pause(&mut client, one, true, global),
        LeaderCommand::Resume(one) => pause(&mut client, one, false, global),
        LeaderCommand::Priority(args) => priority(&mut client, args, global),
    }
}

/// A group and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Led {
    group: GroupId,
    leader: Option<NodeId>,
    term: u64,
}

/// Who leads each of these groups, as who leads it in the newest term says.
fn led(statuses: &[NodeStatus], groups: &[GroupId]) -> Vec<Led> {
    let newest = |&group: &GroupId| {
        let rows = statuses
            .iter()
            .flat_map(|status| status.groups.iter().map(move |row| (status.node, row)));
        let leaders = rows.filter(|(_, row)| row.group == group && row.role == GroupRole::Leader);
        let newest = leaders.max_by_key(|(_, row)| row.term);
        let (leader, term) = newest.map_or((None, 0), |(node, row)| (Some(node), row.term.0));
        Led { group, leader, term }
    };
    groups.iter().map(newest).collect()
}

fn list(client: &mut Client, global: &Global) -> Result<Exit, Failure> {
    let groups = groups(client, global)?;
    let statuses: Vec<NodeStatus> = client.status_all().into_iter().flatten().collect();
    let found = led(&statuses, &groups);
    let mut paused: Vec<NodeId> =
        statuses.iter().filter(|status| status.is_paused).map(|status| status.node).collect();
    paused.dedup();
    match global.output {
        Output::Json => {
            let rows: Vec<Value> = found.iter().map(led_json).collect();
            let paused: Vec<u32> = paused.iter().map(|node| node.0).collect();
            let nodes: Vec<Value> = preferences(&statuses).iter().map(Preference::json).collect();
            output::json(&json!({"groups": rows, "paused": paused, "nodes": nodes}))?;
        }
        Output::Table => {
            let mut table = output::table(&["GROUP", "LEADER", "TERM"]);
            for one in &found {
                let leader = one.leader.map_or("-".to_owned(), |node| node.to_string());
                table.add_row([one.group.to_string(), leader, one.term.to_string()]);
            }
            let mut text = output::table_text(&table);
            for node in paused {
                text += &format!("\nelections are paused on node {node}");
            }
            for one in preferences(&statuses).iter().filter(|one| one.says_something()) {
                text += &format!("\n{}", one.text());
            }
            output::text(&text)?;
        }
    }
    let are_all_led = found.iter().all(|one| one.leader.is_some());
    Ok(if are_all_led { Exit::Ok } else { Exit::Unavailable })
}

/// How a node is set to lead, and how much it does.
#[derive(Debug, PartialEq, Eq)]
struct Preference {
    node: NodeId,
    priority: u8,
    spreads: bool,
    leads: usize,
}

impl Preference {
    fn says_something(&self) -> bool {
        self.priority > 0 || self.spreads
    }

    fn text(&self) -> String {
        let Self { node, priority, spreads, leads } = self;
        let spreads = if *spreads { ", spreads leaders" } else { "" };
        format!("node {node} leads {leads}, priority {priority}{spreads}")
    }

    fn json(&self) -> Value {
        let Self { node, priority, spreads, leads } = self;
        json!({"node": node.0, "priority": priority, "spreads": spreads, "leads": leads})
    }
}

/// A row for each node; its shards are set alike.
fn preferences(statuses: &[NodeStatus]) -> Vec<Preference> {
    let mut found: Vec<Preference> = Vec::new();
    for status in statuses {
        let leads = status.groups.iter().filter(|row| row.role == GroupRole::Leader).count();
        let NodeStatus { node, priority, spreads, .. } = *status;
        match found.iter_mut().find(|one| one.node == node) {
            Some(one) => one.leads += leads,
            None => found.push(Preference { node, priority, spreads, leads }),
        }
    }
    found.sort_by_key(|one| one.node);
    found
}

fn led_json(one: &Led) -> Value {
    json!({
        "group": one.group.get(),
        "leader": one.leader.map(|node| node.0),
        "term": one.term,
    })
}

/// What came of a group.
struct Moved {
    from: Led,
    outcome: Result<&'static str, Failure>,
    leader: Option<NodeId>,
}

fn transfer(client: &mut Client, args: &TransferArgs, global: &Global) -> Result<Exit, Failure> {
    let groups = groups(client, global)?;
    let statuses: Vec<NodeStatus> = client.status_all().into_iter().flatten().collect();
    let to = args.to.map(NodeId);
    let plan = led(&statuses, &groups).into_iter().map(|from| (from, to)).collect();
    hand_over(client, plan, args.yes, global)
}

fn balance(client: &mut Client, args: &BalanceArgs, global: &Global) -> Result<Exit, Failure> {
    let groups = groups(client, global)?;
    let statuses: Vec<NodeStatus> = client.status_all().into_iter().flatten().collect();
    let plan = balanced(&statuses, led(&statuses, &groups));
    let is_even = plan.is_empty();
    let plan = plan.into_iter().map(|(from, to)| (from, Some(to))).collect();
    let exit = hand_over(client, plan, args.yes, global)?;
    // There is nothing to say yes to.
    Ok(if is_even { Exit::Ok } else { exit })
}

/// Which of these groups somebody else is to lead, so that all nodes lead about as many: as few as can
/// be, in the order of their numbers.
fn balanced(statuses: &[NodeStatus], groups: Vec<Led>) -> Vec<(Led, NodeId)> {
    let leads = |node: NodeId| groups.iter().filter(|one| one.leader == Some(node)).count();
    let nodes = preferences(statuses);
    let mut counts: BTreeMap<NodeId, usize> =
        nodes.iter().map(|one| (one.node, leads(one.node))).collect();
    let priority = |node: NodeId| nodes.iter().find(|one| one.node == node).map(|it| it.priority);
    // Who could lead a group as well as who does.
    let could = |group: GroupId, leader: NodeId| {
        let rows = statuses.iter().filter(|status| !status.is_paused);
        let rows = rows.flat_map(|status| status.groups.iter().map(move |row| (status.node, row)));
        let is_fit = |row: &GroupStatus| {
            row.group == group && row.role == GroupRole::Follower && !row.damaged
        };
        rows.filter(move |(_, row)| is_fit(row))
            .map(|(node, _)| node)
            .filter(|&node| priority(node) == priority(leader))
            .collect::<Vec<_>>()
    };
    let mut plan = Vec::new();
    for one in groups.iter().filter(|one| one.leader.is_some()) {
        let leader = one.leader.expect("just seen");
        let least = could(one.group, leader).into_iter().min_by_key(|node| counts[node]);
        // A move that only changes who has one more is none.
        let Some(to) = least.filter(|to| counts[to] + 1 < counts[&leader]) else { continue };
        *counts.get_mut(&leader).expect("it has a row") -= 1;
        *counts.get_mut(&to).expect("it has a row") += 1;
        plan.push((one.clone(), to));
    }
    plan
}

/// Has each of these groups led by whom the plan says, or by the best; without `yes` only says so.
fn hand_over(
    client: &mut Client,
    plan: Vec<(Led, Option<NodeId>)>,
    yes: bool,
    global: &Global,
) -> Result<Exit, Failure> {
    let mut moves = Vec::new();
    for (from, to) in plan {
        let (outcome, leader) = match (from.leader, to) {
            (Some(leader), Some(to)) if leader == to => (Ok("leads already"), Some(to)),
            _ if !yes => (Ok("planned"), to),
            _ => match client.transfer_leader(from.group, to, global.timeout) {
                Ok(done) => (Ok("done"), Some(done.leader)),
                Err(TransferError::Refused { refusal, sentence, leader }) => {
                    let failure = Failure::new(exit_of(refusal), sentence).cure(refusal.cure());
                    (Err(failure), leader)
                }
                Err(TransferError::Client(error)) => (Err(client::failure(error)), None),
            },
        };
        moves.push(Moved { from, outcome, leader });
    }
    match global.output {
        Output::Json => {
            let rows: Vec<Value> = moves.iter().map(moved_json).collect();
            output::json(&json!({"done": yes, "groups": rows}))?;
        }
        Output::Table if moves.is_empty() => output::text("nothing is to be moved")?,
        Output::Table => {
            let mut table = output::table(&["GROUP", "FROM", "TO", "OUTCOME"]);
            for one in &moves {
                let name = |node: Option<NodeId>, none: &str| {
                    node.map_or(none.to_owned(), |node| node.to_string())
                };
                let none = if yes { "-" } else { "the best" };
                let outcome = match &one.outcome {
                    Ok(outcome) => (*outcome).to_owned(),
                    Err(failure) => failure.message.clone(),
                };
                let (from, to) = (name(one.from.leader, "-"), name(one.leader, none));
                table.add_row([one.from.group.to_string(), from, to, outcome]);
            }
            let mut text = output::table_text(&table);
            if !yes {
                text += "\nnothing was done: say --yes to do it";
            }
            output::text(&text)?;
        }
    }
    match moves.into_iter().find_map(|one| one.outcome.err()) {
        // The line of JSON says it all.
        Some(failure) if global.output == Output::Json => Ok(failure.exit),
        Some(failure) => Err(failure),
        None => Ok(if yes { Exit::Ok } else { Exit::NotDone }),
    }
}

fn moved_json(one: &Moved) -> Value {
    json!({
        "group": one.from.group.get(),
        "from": one.from.leader.map(|node| node.0),
        "to": one.leader.map(|node| node.0),
        "outcome": one.outcome.as_ref().map_or("failed", |outcome| outcome),
        "error": one.outcome.as_ref().err().map(|failure| failure.message.clone()),
    })
}

/// A transfer that may do well in a moment is no answer, to a script.
fn exit_of(refusal: LeadRefusal) -> Exit {
    match refusal {
        LeadRefusal::Overtaken | LeadRefusal::UnderWay => Exit::Unavailable,
        _ => Exit::NotDone,
    }
}

fn address_of(
    client: &mut Client,
    one: &NodeArg,
    global: &Global,
) -> Result<(NodeId, String), Failure> {
    let node = NodeId(one.node);
    let Some(address) = client::member_address(client, global.group(), node)? else {
        let failure = Failure::new(Exit::NotDone, format!("node {node} is no member"));
        return Err(failure.cure("`ringraft node ls` shows who is"));
    };
    Ok((node, address))
}

fn priority(client: &mut Client, args: &PriorityArgs, global: &Global) -> Result<Exit, Failure> {
    let PriorityArgs { node: one, priority } = args;
    let (node, address) = address_of(client, one, global)?;
    if one.yes {
        client.set_priority(&address, *priority).map_err(client::failure)?;
    }
    match global.output {
        Output::Json => output::json(&json!({
            "done": one.yes, "node": node.0, "priority": priority,
        }))?,
        Output::Table if one.yes => {
            output::text(&format!("node {node} has priority {priority} until it starts anew"))?
        }
        Output::Table => output::text(&format!(
            "node {node} would have priority {priority}\nnothing was done: say --yes to do it"
        ))?,
    }
    Ok(if one.yes { Exit::Ok } else { Exit::NotDone })
}

fn pause(
    client: &mut Client,
    one: &NodeArg,
    is_paused: bool,
    global: &Global,
) -> Result<Exit, Failure> {
    let (node, address) = address_of(client, one, global)?;
    if one.yes {
        client.pause_elections(&address, is_paused).map_err(client::failure)?;
    }
    let word = if is_paused { "paused" } else { "resumed" };
    match global.output {
        Output::Json => output::json(&json!({
            "done": one.yes, "node": node.0, "elections": word,
        }))?,
        Output::Table if one.yes => {
            output::text(&format!("elections are {word} on node {node}"))?;
        }
        Output::Table => output::text(&format!(
            "elections would be {word} on node {node}\nnothing was done: say --yes to do it"
        ))?,
    }
    Ok(if one.yes { Exit::Ok } else { Exit::NotDone })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_net::status::SnapshotActivity;
    use ringraft_types::{Index, MemoryLevel, Revision, ShardId, Term, Ticks};

    fn status(node: u32, rows: &[(u64, GroupRole, u64)]) -> NodeStatus {
        let row = |&(group, role, term): &(u64, GroupRole, u64)| GroupStatus {
            group: GroupId(group),
            role,
            term: Term(term),
            leader: NodeId(0),
            commit: Index(0),
            applied: Index(0),
            last: Index(0),
            revision: Revision(0),
            state_hash: 0,
            lag_entries: 0,
            damaged: false,
            snapshot: Index(0),
            activity: SnapshotActivity::None,
            data_bytes: 11,
        };
        NodeStatus {
            node: NodeId(node),
            shard: ShardId(0),
            name: String::new(),
            uptime: Ticks(1),
            sync_p50_us: 0,
            sync_p99_us: 0,
            durable: true,
            is_paused: false,
            priority: 0,
            spreads: false,
            data_bytes: 1 << 20,
            data_bytes_max: 2 << 20,
            memory: MemoryLevel::Normal,
            groups: rows.iter().map(row).collect(),
        }
    }

    /// Goal: who leads too many hands over as few as can be; who is paused, damaged, a learner or of
    /// another priority gets none; what is as even as it can be stays.
    #[test]
    fn leaders_are_balanced_by_few_moves() {
        use GroupRole::{Follower, Leader, Learner};
        let all: Vec<GroupId> = (1..=7).map(GroupId).collect();
        let one = |role| all.iter().map(|group| (group.0, role, 3)).collect::<Vec<_>>();
        let statuses =
            [status(1, &one(Leader)), status(2, &one(Follower)), status(3, &one(Follower))];
        let moves = |statuses: &[NodeStatus]| {
            let plan = balanced(statuses, led(statuses, &all));
            plan.into_iter().map(|(from, to)| (from.group.0, to.0)).collect::<Vec<_>>()
        };
        assert_eq!(moves(&statuses), [(1, 2), (2, 3), (3, 2), (4, 3)]);
        for spoil in [
            |status: &mut NodeStatus| status.is_paused = true,
            |status: &mut NodeStatus| status.priority = 9,
            |status: &mut NodeStatus| status.groups.iter_mut().for_each(|row| row.damaged = true),
            |status: &mut NodeStatus| status.groups.iter_mut().for_each(|row| row.role = Learner),
        ] {
            let mut statuses = statuses.clone();
            spoil(&mut statuses[1]);
            assert_eq!(moves(&statuses), [(1, 3), (2, 3), (3, 3)]);
        }
        let mixed = |first: u64| {
            let role = |group: u64| if group < first { Leader } else { Follower };
            let other = |group: u64| if group < first { Follower } else { Leader };
            let rows = |role: &dyn Fn(u64) -> GroupRole| {
                all.iter().map(|group| (group.0, role(group.0), 3)).collect::<Vec<_>>()
            };
            [status(1, &rows(&role)), status(2, &rows(&other))]
        };
        assert_eq!(moves(&mixed(4)), [], "three and four");
        assert_eq!(moves(&mixed(6)), [(1, 2)], "five and two");
        assert_eq!(moves(&mixed(2)), [(2, 1), (3, 1)], "one and six");
    }

    /// Goal: of two that say that they lead, the newer one is believed; a group that nobody leads
    /// says so.
    #[test]
    fn the_newest_leader_is_told() {
        let statuses = [
            status(1, &[(1, GroupRole::Leader, 3)]),
            status(2, &[(1, GroupRole::Leader, 4)]),
            status(3, &[(1, GroupRole::Follower, 4)]),
        ];
        let found = led(&statuses, &[GroupId(1), GroupId(2)]);
        let expected = [
            Led { group: GroupId(1), leader: Some(NodeId(2)), term: 4 },
            Led { group: GroupId(2), leader: None, term: 0 },
        ];
        assert_eq!(found, expected);
        let preferences = preferences(&statuses);
        let texts: Vec<String> = preferences.iter().map(Preference::text).collect();
        let leads = |node, leads| format!("node {node} leads {leads}, priority 0");
        assert_eq!(texts, [leads(1, 1), leads(2, 1), leads(3, 0)]);
        assert!(!preferences.iter().any(Preference::says_something));
    }
}
