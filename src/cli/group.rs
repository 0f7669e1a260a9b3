//! `ringraft group`: groups that are made, listed, moved and deleted while the cluster runs.

use super::Global;
use super::client;
use super::exit::{Exit, Failure};
use super::node::{ChangeArgs, groups, run_change};
use super::output::{self, Output};
use crate::changes::plan::{Goal, Newcomer};
use crate::config::Address;
use ringraft_net::client::{Client, GroupError, GroupMembers};
use ringraft_types::placement::GroupRecord;
use ringraft_types::{GroupId, NodeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How often it is looked whether a new group has a leader.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A group, as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupName {
    /// By its number.
    Id(GroupId),
    /// By the name that it was created with.
    Name(String),
}

impl FromStr for GroupName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u64>() {
            Ok(0) => Err("groups are counted from 1".to_owned()),
            Ok(id) => Ok(Self::Id(GroupId(id))),
            Err(_) if text == SYSTEM_NAME => Ok(Self::Id(GroupId::SYSTEM)),
            Err(_) => {
                let sound = ringraft_types::placement::check_name(text);
                sound.map_err(|error| format!("neither a group's number nor a name: {error}"))?;
                Ok(Self::Name(text.to_owned()))
            }
        }
    }
}

/// What people call the system group.
const SYSTEM_NAME: &str = "system";

impl GroupName {
    /// The group's number.
    pub(crate) fn find(&self, client: &mut Client) -> Result<GroupId, Failure> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(name) => client.group_named(name).map_err(failure)?.ok_or_else(|| {
                Failure::new(Exit::NotDone, format!("there is no group of the name {name}"))
                    .cure("`ringraft group ls` lists them")
            }),
        }
    }
}

/// What `ringraft group` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum GroupCommand {
    /// List all groups, with their names and where they are
    Ls,
    /// Make a group
    ///
    /// It is empty, and has the voters of the system group unless others are named. The nodes make it
    /// within a moment; the command waits until it has a leader.
    Create(CreateArgs),
    /// Show a group: who its members are, who leads, how far it is
    Describe(OneArgs),
    /// Delete a group and all its data, on all nodes
    ///
    /// A node that is away deletes it when it comes back. Its number is never given again.
    Delete(DeleteArgs),
    /// Have another node vote in a group in the place of one that does
    ///
    /// The new node gets the group's data first. Both must be members of the system group, as the
    /// nodes of a cluster are. Started again after an interruption, the command goes on.
    Move(MoveArgs),
}

/// What `ringraft group create` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// What to call it: letters, digits, '.', '-' and '_', a letter first; at most 64
    name: String,
    /// Who is to vote [default: the voters of the system group]
    #[arg(long, value_delimiter = ',', value_name = "ID,…",
        value_parser = clap::value_parser!(u32).range(1..))]
    voters: Option<Vec<u32>>,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    yes: bool,
}

/// A group.
#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The group's number or name
    #[arg(value_name = "GROUP")]
    group: GroupName,
}

/// What `ringraft group delete` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do it; without, it is only said what would be done
    #[arg(long)]
    yes: bool,
}

/// What `ringraft group move` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The voter that gives it up
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,
    /// The node that votes in its place
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    to: u32,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) fn run(command: &GroupCommand, global: &Global) -> Result<Exit, Failure> {
    let mut client = Client::connect(client::options(global)).map_err(client::failure)?;
    match command {
        GroupCommand::Ls => list(&mut client, global),
        GroupCommand::Create(args) => create(&mut client, args, global),
        GroupCommand::Describe(args) => describe(&mut client, args, global),
        GroupCommand::Delete(args) => delete(&mut client, args, global),
        GroupCommand::Move(args) => go(&mut client, args, global),
    }
}

/// Why the system group said no, and what to do.
pub(crate) fn failure(error: GroupError) -> Failure {
    let message = error.to_string();
    let (exit, cure) = match error {
        GroupError::Client(error) => return client::failure(error),
        GroupError::Name(_) => (Exit::Usage, "choose another name"),
        GroupError::Taken(_) => (Exit::NotDone, "choose another name, or use that group"),
        GroupError::Missing(_) => (Exit::NotDone, "`ringraft group ls` lists the groups"),
        GroupError::System(_) => (Exit::NotDone, "name another group"),
        GroupError::Stranger(_) => (
            Exit::NotDone,
            "`ringraft node ls --group system` shows whom it can have; `ringraft \
             node add` adds one",
        ),
        GroupError::Voters => (Exit::Usage, "name one to seven voters"),
        GroupError::Overtaken => (Exit::Unavailable, "try again"),
        GroupError::Unreadable(_) => {
            (Exit::NotDone, "use the newest version of ringraft that any node runs")
        }
    };
    Failure::new(exit, message).cure(cure)
}

/// A group's name, for people: the system group's and those of groups that were created.
fn name_of(group: GroupId, records: &BTreeMap<GroupId, GroupRecord>) -> &str {
    match records.get(&group) {
        _ if group == GroupId::SYSTEM => SYSTEM_NAME,
        Some(record) => &record.name,
        None => "",
    }
}

fn list(client: &mut Client, global: &Global) -> Result<Exit, Failure> {
    let records: BTreeMap<GroupId, GroupRecord> =
        client.group_records().map_err(failure)?.into_iter().collect();
    let live = records.iter().filter(|(_, record)| !record.is_deleted).map(|(&group, _)| group);
    let mut all: Vec<GroupId> = groups(client, global)?.into_iter().chain(live).collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|group| records.get(group).is_none_or(|record| !record.is_deleted));
    let members = client.members_of_all(&all);
    let mut rows = Vec::new();
    let mut exit = Exit::Ok;
    for (group, members) in all.into_iter().zip(members) {
        if members.as_ref().map_or(true, |members| !members.is_from_leader) {
            exit = Exit::Unavailable;
        }
        rows.push((group, members.ok()));
    }
    let voters = |members: &Option<GroupMembers>| {
        let members = members.as_ref().map(|found| found.members.configuration.voters().to_vec());
        members.unwrap_or_default()
    };
    match global.output {
        Output::Json => {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(group, members)| {
                    json!({
                        "group": group.get(),
                        "name": Some(name_of(*group, &records)).filter(|name| !name.is_empty()),
                        "voters": voters(members).iter().map(|node| node.0).collect::<Vec<_>>(),
                        "leader": members.as_ref().and_then(|it| it.leader).map(|node| node.0),
                    })
                })
                .collect();
            output::json(&json!({ "groups": rows }))?;
        }
        Output::Table => {
            let mut table = output::table(&["GROUP", "NAME", "VOTERS", "LEADER"]);
            for (group, members) in &rows {
                let voters: Vec<String> = voters(members).iter().map(NodeId::to_string).collect();
                let leader = members.as_ref().and_then(|it| it.leader);
                table.add_row([
                    group.to_string(),
                    name_of(*group, &records).to_owned(),
                    if voters.is_empty() { "?".to_owned() } else { voters.join(",") },
                    leader.map_or("-".to_owned(), |node| node.to_string()),
                ]);
            }
            output::text(&output::table_text(&table))?;
        }
    }
    Ok(exit)
}

fn create(client: &mut Client, args: &CreateArgs, global: &Global) -> Result<Exit, Failure> {
    let CreateArgs { name, voters, yes } = args;
    let voters: Option<Vec<NodeId>> =
        voters.as_ref().map(|voters| voters.iter().copied().map(NodeId).collect());
    if !yes {
        // Whatever can be refused is refused now.
        let sound = ringraft_types::placement::check_name(name);
        sound.map_err(|error| failure(GroupError::Name(error)))?;
        if let Some(taken) = client.group_named(name).map_err(failure)? {
            return Err(failure(GroupError::Taken(taken)));
        }
        match global.output {
            Output::Json => output::json(&json!({"done": false, "name": name}))?,
            Output::Table => output::text(&format!(
                "group {name} would be created\nnothing was done: say --yes to do it"
            ))?,
        }
        return Ok(Exit::NotDone);
    }
    let group = client.create_group(name, voters.as_deref()).map_err(failure)?;
    let until = Instant::now() + global.timeout;
    let leader = loop {
        let found = client.locate(group).ok().filter(|found| found.ready);
        if found.is_some() || Instant::now() >= until {
            break found.map(|found| found.leader);
        }
        std::thread::sleep(LOOK_EVERY);
    };
    match global.output {
        Output::Json => output::json(&json!({
            "done": true, "group": group.get(), "name": name,
            "leader": leader.map(|leader| leader.0),
        }))?,
        Output::Table => output::text(&match leader {
            Some(leader) => format!("group {group} is {name}; node {leader} leads it"),
            None => format!("group {group} is {name}; nobody leads it yet"),
        })?,
    }
    Ok(if leader.is_some() { Exit::Ok } else { Exit::Unavailable })
}

fn describe(client: &mut Client, args: &OneArgs, global: &Global) -> Result<Exit, Failure> {
    let group = args.group.find(client)?;
    let records: BTreeMap<GroupId, GroupRecord> =
        client.group_records().map_err(failure)?.into_iter().collect();
    if records.get(&group).is_some_and(|record| record.is_deleted) {
        return Err(failure(GroupError::Missing(group)));
    }
    let found = client.members(group).map_err(client::failure)?;
    let statuses = client.status_all();
    let held: Vec<_> = (statuses.iter().flatten())
        .flat_map(|status| status.groups.iter().map(|row| (status.node, *row)))
        .filter(|(_, row)| row.group == group)
        .collect();
    let name = name_of(group, &records);
    match global.output {
        Output::Json => {
            let rows: Vec<Value> = held
                .iter()
                .map(|(node, row)| {
                    json!({
                        "node": node.0, "applied": row.applied.0, "revision": row.revision.0,
                        "data_bytes": row.data_bytes, "snapshot": row.snapshot.0,
                    })
                })
                .collect();
            let configuration = &found.members.configuration;
            let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
            output::json(&json!({
                "group": group.get(),
                "name": Some(name).filter(|name| !name.is_empty()),
                "created": group >= GroupId::FIRST_CREATED,
                "voters": numbers(configuration.voters()),
                "learners": numbers(configuration.learners()),
                "leader": found.leader.map(|node| node.0),
                "commit": found.commit.0,
                "nodes": rows,
            }))?;
        }
        Output::Table => {
            let origin = match group {
                GroupId::SYSTEM => "the system group",
                group if group >= GroupId::FIRST_CREATED => "created at run time",
                _ => "the nodes are configured with it",
            };
            let leader = found.leader.map_or("nobody".to_owned(), |node| format!("node {node}"));
            let title = if name.is_empty() { String::new() } else { format!(" {name}") };
            let mut text = format!("group {group}{title}: {origin}\n");
            text += &format!("led by {leader}, committed up to entry {}\n", found.commit);
            let mut table =
                output::table(&["NODE", "ROLE", "APPLIED", "REVISION", "DATA BYTES", "SNAPSHOT"]);
            for member in &found.members.members {
                let node = member.node;
                let is_voter = found.members.configuration.voters().contains(&node);
                let role = if is_voter { "voter" } else { "learner" };
                let row = held.iter().find(|(holder, _)| *holder == node).map(|(_, row)| row);
                let cell = |number: Option<u64>| number.map_or("?".to_owned(), |it| it.to_string());
                table.add_row([
                    node.to_string(),
                    role.to_owned(),
                    cell(row.map(|row| row.applied.0)),
                    cell(row.map(|row| row.revision.0)),
                    cell(row.map(|row| row.data_bytes)),
                    cell(row.map(|row| row.snapshot.0)),
                ]);
            }
            text += &output::table_text(&table);
            output::text(&text)?;
        }
    }
    Ok(if found.is_from_leader { Exit::Ok } else { Exit::Unavailable })
}

fn delete(client: &mut Client, args: &DeleteArgs, global: &Global) -> Result<Exit, Failure> {
    let group = args.one.group.find(client)?;
    if group == GroupId::SYSTEM {
        return Err(failure(GroupError::System(group)));
    }
    // That it is there is seen before anything is said or done.
    let found = client.members(group).map_err(client::failure)?;
    if args.yes {
        client.delete_group(group).map_err(failure)?;
    }
    match global.output {
        Output::Json => output::json(&json!({"done": args.yes, "group": group.get()}))?,
        Output::Table if args.yes => {
            output::text(&format!("group {group} is deleted, and its data with it"))?
        }
        Output::Table => {
            let nodes: Vec<String> =
                found.members.members.iter().map(|member| member.node.to_string()).collect();
            output::text(&format!(
                "group {group} would be deleted with all its data, on nodes {}\n\
                 nothing was done: say --yes to do it",
                nodes.join(", ")
            ))?
        }
    }
    Ok(if args.yes { Exit::Ok } else { Exit::NotDone })
}

fn go(client: &mut Client, args: &MoveArgs, global: &Global) -> Result<Exit, Failure> {
    let MoveArgs { one, from, to, change } = args;
    if from == to {
        let failure = Failure::new(Exit::Usage, "a node can't take its own place");
        return Err(failure.cure("name another node with --to"));
    }
    let group = one.group.find(client)?;
    let (old, new) = (NodeId(*from), NodeId(*to));
    let all = client.members(GroupId::SYSTEM).map_err(client::failure)?.members;
    let Some(known) = all.members.iter().find(|member| member.node == new) else {
        return Err(failure(GroupError::Stranger(new)));
    };
    let address = |text: &str| {
        Address::from_str(text).map_err(|error| {
            let message = format!("node {new} is known at {text:?}: {error}");
            Failure::new(Exit::NotDone, message).cure("`ringraft node add` says where a node is")
        })
    };
    let addresses = Some((address(&known.peer)?, address(&known.client)?));
    let new = Newcomer { node: new, incarnation: known.incarnation, addresses };
    let global = Global { groups: vec![GroupName::Id(group)], ..global.clone() };
    run_change(&Goal::Replace { old, new }, change, &global)
}
