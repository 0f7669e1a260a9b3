//! `ringraft node refresh`: the list of nodes in a node's file, brought in line with who the
//! members of the groups are. Who is a member stays said by the groups' logs; the list says where
//! else to look, and where its addresses differ, they count before the logs'.

mod edit;
mod rows;
mod store;

use super::change::groups;
use crate::changes::ranges;
use crate::cli::Global;
use crate::cli::client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use crate::config::{Address, Config, Machine, Member};
use ringraft_net::client::{Client, GroupMembers, Trouble};
use ringraft_net::handshake::RefusalCode;
use ringraft_types::{GroupId, NodeId};
use rows::{Fate, Row, Wishes};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Groups whose members are asked for at once.
const GROUPS_AT_ONCE: usize = 4_096;

/// What `ringraft node refresh` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RefreshArgs {
    /// The node's configuration file
    file: PathBuf,
    /// Do it; without this, only the plan is shown
    #[arg(long)]
    yes: bool,
    /// Take the groups' word for where a node is that the file puts elsewhere, too; not if nodes
    /// moved and only the files say so
    #[arg(long)]
    addresses: bool,
    /// Where a node that the file lacks serves HTTP [default: two ports above its client port]
    #[arg(long, value_delimiter = ',', value_name = "ID=HOST:PORT,…", value_parser = http)]
    http: Vec<(NodeId, Address)>,
}

/// Reads `ID=HOST:PORT`.
fn http(text: &str) -> Result<(NodeId, Address), String> {
    let (node, address) = text.split_once('=').ok_or("write ID=HOST:PORT, as in 4=h:7402")?;
    let number = node.parse().ok().filter(|&number| number != 0);
    let node = number.map(NodeId).ok_or_else(|| format!("{node:?} is no node's number"))?;
    Ok((node, address.parse().map_err(|error| format!("{error}"))?))
}

pub(super) fn run(args: &RefreshArgs, global: &Global) -> Result<Exit, Failure> {
    if !global.groups.is_empty() {
        let failure = Failure::new(Exit::Usage, "a file's list of nodes is for all groups");
        return Err(failure.cure("leave --group out"));
    }
    let (path, text) = store::read(&args.file)?;
    let config = Config::from_text(&args.file, &text, &Machine::any())?;
    let mut client = connect(&config, global)?;
    let known = known(&mut client, &config, args, global)?;
    let said = rows::said(&known);
    let lacks_some = said.keys().any(|&node| config.nodes.iter().all(|known| known.id != node));
    let names = if lacks_some { names(&mut client) } else { BTreeMap::new() };
    let http = args.http.iter().cloned().collect();
    let wishes = Wishes { takes_addresses: args.addresses, names, http };
    let rows = rows::rows(&config, &said, &wishes)?;
    let after = edited(&args.file, &text, &config, &rows)?;
    let is_in_line = after == text;
    if args.yes && !is_in_line {
        store::replace(&path, &text, &after)?;
    }
    let told = Told { args, config: &config, rows: &rows, known: &known, is_in_line };
    told.tell(global.output)
}

/// A client of the file's cluster, and of no other.
fn connect(config: &Config, global: &Global) -> Result<Client, Failure> {
    let mut options = client::options(global);
    options.cluster = Some(config.cluster);
    Client::connect(options).map_err(client::failure)
}

/// Who the members of every group are, as the leaders say; what is under way is waited for. A node
/// is taken out of the file only if no group at all names it, so all must answer.
fn known(
    client: &mut Client,
    config: &Config,
    args: &RefreshArgs,
    global: &Global,
) -> Result<Vec<(GroupId, GroupMembers)>, Failure> {
    let found = groups(client, global);
    let found = found.map_err(|failure| foreign(client, config, args).unwrap_or(failure))?;
    let all: BTreeSet<GroupId> = found.into_iter().chain(config.all_groups()).collect();
    let all: Vec<GroupId> = all.into_iter().collect();
    let mut known = Vec::new();
    for groups in all.chunks(GROUPS_AT_ONCE) {
        let answers = client.members_of_all(groups);
        for (&group, answer) in groups.iter().zip(answers) {
            let mut found = answer.map_err(|error| of_group(group, client::failure(error)))?;
            if !found.is_settled() {
                let settled = client.wait_settled(group, found.index, global.timeout, |_| {});
                found = settled.map_err(|error| {
                    let failure = Failure::new(Exit::Unavailable, error.to_string());
                    of_group(group, failure).cure(
                        "a change of members is under way: start the command again when \
                         `ringraft node ls` says that it is through",
                    )
                })?;
            }
            known.push((group, found));
        }
    }
    Ok(known)
}

fn of_group(group: GroupId, failure: Failure) -> Failure {
    let message = format!("group {group}: {}; the file is as it was", failure.message);
    Failure { message, ..failure }
}

/// The nodes at the endpoints are of another cluster than the file.
fn foreign(client: &Client, config: &Config, args: &RefreshArgs) -> Option<Failure> {
    let Trouble::Refused { address, code: RefusalCode::WrongCluster } = client.trouble()? else {
        return None;
    };
    let (file, cluster) = (args.file.display(), config.cluster.get());
    let message = format!("{address} is of another cluster than {file}, which says {cluster:032x}");
    let failure = Failure::new(Exit::NotDone, message);
    Some(failure.cure("name this cluster's nodes with --endpoints, or the other cluster's file"))
}

/// What the nodes that answer are called: the groups don't say it.
fn names(client: &mut Client) -> BTreeMap<NodeId, String> {
    let statuses = client.status_all().into_iter().flatten();
    statuses.map(|status| (status.node, status.name)).collect()
}

/// The file's text with the rows as they are to be, judged as a node's start judges it.
fn edited(file: &Path, text: &str, config: &Config, rows: &[Row]) -> Result<String, Failure> {
    let by_hand = |why: String| {
        let message = format!("{}: the list of nodes can't be written: {why}", file.display());
        Failure::new(Exit::NotDone, message)
            .cure("write it by hand: one [[nodes]] table per node, as the plan has them")
    };
    let after = edit::edit(text, rows).map_err(by_hand)?;
    let found = Config::from_text(file, &after, &Machine::any())
        .map_err(|error| by_hand(error.to_string()))?;
    let nodes = rows.iter().filter(|row| row.fate != Fate::Removed);
    let nodes: Vec<Member> = nodes.map(|row| row.member.clone()).collect();
    if found != (Config { nodes, ..config.clone() }) {
        return Err(by_hand("it would change something else as well".to_owned()));
    }
    Ok(after)
}

/// What is told of it.
struct Told<'a> {
    args: &'a RefreshArgs,
    config: &'a Config,
    rows: &'a [Row],
    known: &'a [(GroupId, GroupMembers)],
    is_in_line: bool,
}

impl Told<'_> {
    fn tell(&self, output: Output) -> Result<Exit, Failure> {
        let is_left = !self.is_in_line && !self.args.yes;
        let exit = if is_left { Exit::NotDone } else { Exit::Ok };
        if output == Output::Json {
            output::json(&self.to_json())?;
            return Ok(exit);
        }
        output::text(&self.to_table())?;
        if is_left {
            let failure = Failure::new(exit, "nothing was changed: this is the plan");
            return Err(failure.cure("add --yes to carry it out"));
        }
        Ok(exit)
    }

    fn to_table(&self) -> String {
        let mut table = output::table(&["NODE", "NAME", "RESULT", "PEER", "CLIENT", "HTTP"]);
        let mut notes = Vec::new();
        for Row { member, fate } in self.rows {
            let said = match (fate, self.args.yes) {
                (Fate::Same | Fate::Kept(_), _) => "as it is",
                (Fate::Added, false) => "to be added",
                (Fate::Added, true) => "added",
                (Fate::Changed(_), false) => "to be changed",
                (Fate::Changed(_), true) => "changed",
                (Fate::Removed, false) => "to be removed",
                (Fate::Removed, true) => "removed",
            };
            match fate {
                Fate::Kept(why) => notes.push(format!("node {}: {why}", member.id)),
                Fate::Changed(from) => notes.push(format!(
                    "node {}: its addresses were peer {} and client {}",
                    member.id, from.peer, from.client
                )),
                Fate::Same | Fate::Added | Fate::Removed => {}
            }
            let addresses = &member.addresses;
            table.add_row([
                member.id.to_string(),
                member.name.clone(),
                said.to_owned(),
                addresses.peer.to_string(),
                addresses.client.to_string(),
                addresses.http.to_string(),
            ]);
        }
        let differ = rows::differing(self.known);
        if !differ.is_empty() {
            let groups = ranges(differ);
            let why = "the file has the nodes of all";
            notes.push(format!("groups {groups} have other members than the first: {why}"));
        }
        if self.is_in_line {
            let file = self.args.file.display();
            notes.push(format!("{file} is in line with the groups: nothing is to be done"));
        } else if self.args.yes {
            let file = self.args.file.display();
            notes.push(format!("wrote {file}; node {} reads it as it starts", self.config.node));
        }
        std::iter::once(output::table_text(&table)).chain(notes).collect::<Vec<_>>().join("\n")
    }

    fn to_json(&self) -> Value {
        let row = |Row { member, fate }: &Row| {
            let addresses = &member.addresses;
            let mut row = json!({
                "node": member.id.get(),
                "name": member.name,
                "peer": addresses.peer.to_string(),
                "client": addresses.client.to_string(),
                "http": addresses.http.to_string(),
            });
            row["change"] = match fate {
                Fate::Same => "none",
                Fate::Kept(why) => {
                    row["why"] = why.as_str().into();
                    "kept"
                }
                Fate::Added => "add",
                Fate::Removed => "remove",
                Fate::Changed(from) => {
                    let (peer, client) = (from.peer.to_string(), from.client.to_string());
                    row["from"] = json!({ "peer": peer, "client": client });
                    "change"
                }
            }
            .into();
            row
        };
        let result = match (self.is_in_line, self.args.yes) {
            (true, _) => "already",
            (false, true) => "done",
            (false, false) => "planned",
        };
        json!({
            "file": self.args.file.display().to_string(),
            "node": self.config.node.get(),
            "result": result,
            "groups": self.known.len(),
            "nodes": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}
