//! What becomes of each node of a file's list: decided here, written elsewhere.

use crate::cli::exit::{Exit, Failure};
use crate::config::{Address, Addresses, Config, Member};
use ringraft_net::client::GroupMembers;
use ringraft_types::limits::NODES_MAX;
use ringraft_types::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How far a node's HTTP port is from its client port, unless somebody says otherwise.
const HTTP_PORT_OFFSET: u16 = 2;

/// What becomes of a node of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Same,
    /// It stays as it is, though the groups don't say so; why.
    Kept(String),
    /// It is new.
    Added,
    /// It is reached elsewhere; where the file had it.
    Changed(Addresses),
    /// It goes.
    Removed,
}

/// A node of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// As it is to be; of one that goes, as it was.
    pub(super) member: Member,
    pub(super) fate: Fate,
}

/// Where a group says that a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first group that says so.
    pub(super) group: GroupId,
    pub(super) peer: String,
    pub(super) client: String,
}

/// What else is to be known.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// Where the groups put a node elsewhere than the file does, they are right.
    pub(super) takes_addresses: bool,
    /// What nodes call themselves.
    pub(super) names: BTreeMap<NodeId, String>,
    /// Where nodes serve HTTP.
    pub(super) http: BTreeMap<NodeId, Address>,
}

/// The members of all groups together, also those that leave yet, with every place that is said.
pub(super) fn said(known: &[(GroupId, GroupMembers)]) -> BTreeMap<NodeId, Vec<Place>> {
    let mut all: BTreeMap<NodeId, Vec<Place>> = BTreeMap::new();
    for (group, found) in known {
        for member in &found.members.members {
            let places = all.entry(member.node).or_default();
            let (peer, client) = (member.peer.clone(), member.client.clone());
            if !places.iter().any(|place| place.peer == peer && place.client == client) {
                places.push(Place { group: *group, peer, client });
            }
        }
    }
    all
}

/// The groups whose members aren't those of the first one.
pub(super) fn differing(known: &[(GroupId, GroupMembers)]) -> Vec<GroupId> {
    let nodes = |found: &GroupMembers| found.members.configuration.members().collect::<Vec<_>>();
    let first = known.first().map(|(_, found)| nodes(found)).unwrap_or_default();
    known.iter().filter(|(_, found)| nodes(found) != first).map(|&(group, _)| group).collect()
}

/// What becomes of every node, ascending by number.
///
/// # Errors
/// If where a node is isn't known, or isn't said alike, or two nodes would be at one place.
pub(super) fn rows(
    config: &Config,
    said: &BTreeMap<NodeId, Vec<Place>>,
    wishes: &Wishes,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for member in &config.nodes {
        let fate = fate(config, member, said.get(&member.id), wishes)?;
        let mut member = member.clone();
        let fate = match fate {
            Fate::Changed(now) => Fate::Changed(std::mem::replace(&mut member.addresses, now)),
            fate => fate,
        };
        rows.push(Row { member, fate });
    }
    for (&node, places) in said {
        if config.nodes.iter().all(|member| member.id != node) {
            let member = newcomer(node, places, wishes, &rows)?;
            rows.push(Row { member, fate: Fate::Added });
        }
    }
    rows.sort_by_key(|row| row.member.id);
    let is_new = |row: &Row| matches!(row.fate, Fate::Added | Fate::Changed(_));
    let is_asked = |node: &NodeId| rows.iter().any(|row| row.member.id == *node && is_new(row));
    if let Some(node) = wishes.http.keys().find(|node| !is_asked(node)) {
        let message = format!("--http: node {node} is neither added nor changed");
        let failure = Failure::new(Exit::Usage, message);
        return Err(failure.cure("leave it out; the plan without it shows who is"));
    }
    refuse_clashes(&rows)?;
    Ok(rows)
}

/// What becomes of a node that the file names. Of one that changes, where it is to be.
fn fate(
    config: &Config,
    member: &Member,
    places: Option<&Vec<Place>>,
    wishes: &Wishes,
) -> Result<Fate, Failure> {
    let is_own = member.id == config.node;
    let Some(places) = places else {
        return Ok(match is_own {
            true => Fate::Kept("it is no member, and this file is its own".to_owned()),
            false => Fate::Removed,
        });
    };
    let Addresses { peer, client, http } = &member.addresses;
    let is_here = |place: &Place| is_at(&place.peer, peer) && is_at(&place.client, client);
    let Some(place) = places.iter().find(|place| !is_here(place)) else { return Ok(Fate::Same) };
    if is_own || !wishes.takes_addresses {
        let why = match is_own {
            true => "the file is its own, and says where it listens",
            false => "the file's word counts; --addresses takes theirs",
        };
        let Place { group, peer, client } = place;
        return Ok(Fate::Kept(format!(
            "group {group} has it at peer {peer:?} and client {client:?}: {why}"
        )));
    }
    let (peer, client) = whereabouts(member.id, places)?;
    // Where it served HTTP is as far from where it is as it was, if it moved whole.
    let moved = || Address { host: client.host.clone(), port: http.port };
    let http = wishes.http.get(&member.id).cloned().unwrap_or_else(moved);
    Ok(Fate::Changed(Addresses { peer, client, http }))
}

/// Whether a group's word is the file's, or none.
fn is_at(said: &str, address: &Address) -> bool {
    said.is_empty() || said.parse().is_ok_and(|said: Address| said == *address)
}

/// Where a node is, if all groups say the same and it can be written down.
fn whereabouts(node: NodeId, places: &[Place]) -> Result<(Address, Address), Failure> {
    let Some(place) = places.first() else { return Err(nowhere(node, "no address", "")) };
    if let Some(other) = places.get(1) {
        let message = format!(
            "node {node} is at peer {:?} and client {:?} for group {}, and at {:?} and {:?} for \
             group {}",
            place.peer, place.client, place.group, other.peer, other.client, other.group
        );
        let failure = Failure::new(Exit::NotDone, message);
        return Err(failure.cure(
            "write the node's [[nodes]] table by hand, with the addresses that are right, and \
             start the command again",
        ));
    }
    let peer = place.peer.parse().map_err(|_| nowhere(node, "peer", &place.peer))?;
    let client = place.client.parse().map_err(|_| nowhere(node, "client", &place.client))?;
    Ok((peer, client))
}

fn nowhere(node: NodeId, what: &str, said: &str) -> Failure {
    let message = format!("node {node} has no {what} address in its groups that is one: {said:?}");
    Failure::new(Exit::NotDone, message).cure(
        "write the node's [[nodes]] table by hand, or copy it from the file of a node that has \
         it, and start the command again",
    )
}

/// A member that the file lacks: the groups say where it is, itself what it is called.
fn newcomer(
    node: NodeId,
    places: &[Place],
    wishes: &Wishes,
    rows: &[Row],
) -> Result<Member, Failure> {
    let (peer, client) = whereabouts(node, places)?;
    let beside = || client.port_plus(HTTP_PORT_OFFSET);
    let Some(http) = wishes.http.get(&node).cloned().or_else(beside) else {
        let message = format!("node {node}: two ports above its client port {client} is no port");
        let failure = Failure::new(Exit::NotDone, message);
        return Err(failure.cure(format!("say where it serves HTTP: --http {node}=HOST:PORT")));
    };
    let is_taken = |name: &String| {
        rows.iter().any(|row| row.fate != Fate::Removed && row.member.name == *name)
    };
    let told = wishes.names.get(&node).filter(|name| !name.is_empty()).cloned();
    let mut names = told.into_iter().chain([format!("node-{node}")]);
    let Some(name) = names.find(|name| !is_taken(name)) else {
        let message = format!("node {node}: another node of the file is called node-{node}");
        let failure = Failure::new(Exit::NotDone, message);
        return Err(failure.cure("give that one another name in the file"));
    };
    Ok(Member { id: node, name, addresses: Addresses { peer, client, http } })
}

/// Two nodes can't be at one address, and a file names so many at most.
fn refuse_clashes(rows: &[Row]) -> Result<(), Failure> {
    let left: Vec<&Row> = rows.iter().filter(|row| row.fate != Fate::Removed).collect();
    if left.len() > NODES_MAX {
        let message = format!("{} nodes, and a file names {NODES_MAX} at most", left.len());
        return Err(Failure::new(Exit::NotDone, message).cure(
            "write the list by hand, with the voters and the node itself: the others are found \
             by the groups' logs",
        ));
    }
    let mut taken: BTreeSet<&Address> = BTreeSet::new();
    for Row { member, .. } in left {
        let Addresses { peer, client, http } = &member.addresses;
        if let Some(address) = [peer, client, http].into_iter().find(|&it| !taken.insert(it)) {
            let node = member.id;
            let message = format!("node {node}: {address} is another port's in the file already");
            return Err(Failure::new(Exit::NotDone, message).cure(format!(
                "say where it serves HTTP with --http {node}=HOST:PORT, or correct the row that \
                 has the address by hand"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
