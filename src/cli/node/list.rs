//! `ringraft node ls`: who the members of each group are, and how far each of them is. Groups of
//! which all that is the same stand in one row.

use super::change::groups;
use super::show;
use crate::changes::ranges;
use crate::cli::Global;
use crate::cli::client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use indicatif::HumanCount;
use ringraft_net::client::{Client, GroupMembers};
use ringraft_net::members_wire::Member;
use ringraft_types::{Configuration, GroupId, Incarnation, NodeId, Phase};
use serde_json::{Value, json};

/// What is known of a group.
struct Found {
    group: GroupId,
    members: Result<GroupMembers, String>,
}

pub(super) fn run(global: &Global) -> Result<Exit, Failure> {
    let mut options = client::options(global);
    options.timeout = options.timeout.min(client::NODE_PATIENCE);
    let mut client = Client::connect(options).map_err(client::failure)?;
    let groups = groups(&mut client, global)?;
    let all = client.members_of_all(&groups);
    let mut found = Vec::new();
    for (group, members) in groups.into_iter().zip(all) {
        let members = match members {
            Ok(members) => Ok(members),
            Err(error) => of_anybody(&mut client, group, global).ok_or(error.to_string()),
        };
        found.push(Found { group, members });
    }
    match global.output {
        Output::Json => output::json(&to_json(&found))?,
        Output::Table => output::text(&to_table(&found))?,
    }
    let are_all_led =
        found.iter().all(|it| it.members.as_ref().is_ok_and(|members| members.is_from_leader));
    Ok(if are_all_led { Exit::Ok } else { Exit::Unavailable })
}

/// No leader answers: what the node with the newest configuration knows.
fn of_anybody(client: &mut Client, group: GroupId, global: &Global) -> Option<GroupMembers> {
    let endpoints = global.endpoints.iter();
    let answers = endpoints.filter_map(|it| client.members_at(&it.to_string(), group).ok());
    answers.max_by_key(|members| members.index)
}

/// What a member is, of a configuration.
fn role(configuration: &Configuration, node: NodeId) -> &'static str {
    let votes = configuration.voters().contains(&node);
    match (votes, configuration.outgoing().contains(&node), configuration.is_joint()) {
        (true, false, true) => "voter, joining",
        (true, ..) => "voter",
        (false, true, _) if configuration.learners().contains(&node) => "voter, to listen",
        (false, true, _) => "voter, leaving",
        (false, false, _) => "learner",
    }
}

/// Where a change of the group stands, if one does.
fn state(found: &GroupMembers) -> &'static str {
    match (found.members.configuration.phase(), found.is_committed) {
        (Phase::Held, true) => "held",
        (Phase::Joint | Phase::Held, _) => "joint",
        (Phase::Stable | Phase::Aborted, false) => "appended",
        (Phase::Stable | Phase::Aborted, true) => "settled",
    }
}

/// Groups whose rows say the same but for how far each member is.
fn alike<'a>(found: &'a [Found]) -> Vec<Vec<(GroupId, &'a GroupMembers)>> {
    let mut all: Vec<Vec<(GroupId, &'a GroupMembers)>> = Vec::new();
    for it in found {
        let Ok(members) = &it.members else { continue };
        let is_alike = |others: &&mut Vec<(GroupId, &GroupMembers)>| {
            let (_, other) = others[0];
            let [one, other_roles] = [members, other].map(|it| &it.members.configuration);
            members.members.members == other.members.members
                && one.voters() == other_roles.voters()
                && one.outgoing() == other_roles.outgoing()
                && one.learners() == other_roles.learners()
                && state(members) == state(other)
                && members.is_from_leader == other.is_from_leader
        };
        match all.iter_mut().find(is_alike) {
            Some(others) => others.push((it.group, members)),
            None => all.push(vec![(it.group, members)]),
        }
    }
    all
}

fn to_table(found: &[Found]) -> String {
    let header = ["GROUPS", "NODE", "ROLE", "LEADS", "BEHIND", "PEER", "CLIENT", "INCARNATION"];
    let mut table = output::table(&header);
    let mut notes = Vec::new();
    for groups in alike(found) {
        let names = ranges(groups.iter().map(|&(group, _)| group));
        let (_, first) = groups[0];
        for (at, member) in first.members.members.iter().enumerate() {
            let of = groups.iter().map(|&(_, members)| members);
            let leads = of.clone().filter(|it| it.leader == Some(member.node)).count();
            table.add_row([
                if at == 0 { names.clone() } else { String::new() },
                member.node.to_string(),
                role(&first.members.configuration, member.node).to_owned(),
                if leads == 0 { "-".to_owned() } else { leads.to_string() },
                behind(member.node, of.clone()),
                member.peer.clone(),
                member.client.clone(),
                incarnation(member, of),
            ]);
        }
        if state(first) != "settled" {
            let members = show::members(&first.members.configuration);
            let what = match state(first) {
                "held" => {
                    "a change is held, both majorities decide; `ringraft node commit` or \
                           `abort` ends it"
                }
                "joint" => "a change is under way, both majorities decide",
                _ => "a change isn't committed yet",
            };
            notes.push(format!("groups {names} ({members}): {what}"));
        }
        if !first.is_from_leader {
            notes.push(format!("groups {names}: no leader answers; a node that does says this"));
        }
    }
    for it in found {
        if let Err(why) = &it.members {
            notes.push(format!("group {}: {why}", it.group));
        }
    }
    std::iter::once(output::table_text(&table)).chain(notes).collect::<Vec<_>>().join("\n")
}

/// The most entries that a member lacks of what is committed, in any of the groups.
fn behind<'a>(node: NodeId, groups: impl Iterator<Item = &'a GroupMembers>) -> String {
    let mut most = 0;
    for group in groups {
        if !group.is_from_leader {
            return "?".to_owned();
        }
        let Some(peer) = group.peer(node) else { continue };
        if !peer.is_heard {
            return "SILENT".to_owned();
        }
        most = most.max(group.commit.0.saturating_sub(peer.matched.0));
    }
    HumanCount(most).to_string()
}

/// The life of the member's data directory that is meant; the one that was met, if any will do.
fn incarnation<'a>(member: &Member, mut groups: impl Iterator<Item = &'a GroupMembers>) -> String {
    let met = || groups.find_map(|group| group.peer(member.node).map(|peer| peer.incarnation));
    let meant = Some(member.incarnation).filter(|&life| life != Incarnation::ZERO);
    match meant.or_else(met) {
        Some(Incarnation::ZERO) => "any".to_owned(),
        Some(life) => format!("{:016x}", life.get()),
        // Who leads doesn't meet itself.
        None => "-".to_owned(),
    }
}

fn to_json(found: &[Found]) -> Value {
    let hex = |number: u64| (number != 0).then(|| format!("{number:016x}"));
    let row = |it: &Found| {
        let found = match &it.members {
            Ok(found) => found,
            Err(error) => return json!({ "group": it.group.get(), "error": error }),
        };
        let configuration = &found.members.configuration;
        let member = |member: &Member| {
            let peer = found.peer(member.node);
            json!({
                "node": member.node.get(),
                "role": role(configuration, member.node),
                "peer": member.peer,
                "client": member.client,
                "incarnation": hex(member.incarnation.get()),
                "met": peer.and_then(|peer| hex(peer.incarnation.get())),
                "heard": peer.map(|peer| peer.is_heard),
                "behind": peer.map(|peer| found.commit.0.saturating_sub(peer.matched.0)),
            })
        };
        json!({
            "group": it.group.get(),
            "entry": found.index.get(),
            "state": state(found),
            "leader": found.leader.map(NodeId::get),
            "from_leader": found.is_from_leader,
            "commit": found.commit.get(),
            "members": found.members.members.iter().map(member).collect::<Vec<_>>(),
        })
    };
    json!({ "groups": found.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::plan::tests::found;
    use ringraft_net::members_wire::Peer;
    use ringraft_types::Index;

    fn led(group: u64, by: u32, behind: u64, members: GroupMembers) -> Found {
        let peers = members.members.members.iter().filter(|member| member.node.get() != by);
        let peer = |member: &Member| Peer {
            node: member.node,
            is_heard: member.node.get() != 3,
            matched: Index(5_000 - behind),
            commit: Index(5_000 - behind),
            incarnation: Incarnation(0xabc),
        };
        let peers = peers.map(peer).collect();
        let (leader, commit) = (Some(NodeId(by)), Index(5_000));
        let members = GroupMembers { leader, commit, peers, ..members };
        Found { group: GroupId(group), members: Ok(members) }
    }

    /// Goal: groups that are alike are one to the eye: who votes, who leads how many, who lags the
    /// most, who is silent; a change that stands still is told.
    #[test]
    fn groups_that_are_alike_share_their_rows() {
        let four = || found(Phase::Stable, &[1, 2, 3], &[], &[4]);
        let held = found(Phase::Held, &[1, 2], &[1, 3], &[]);
        let mut lost = four();
        lost.is_from_leader = false;
        let all = [
            led(1, 1, 7, four()),
            led(2, 2, 1_234, four()),
            led(3, 1, 0, four()),
            led(5, 1, 0, held),
            led(6, 1, 0, lost),
            Found { group: GroupId(9), members: Err("nobody answers".to_owned()) },
        ];
        let table = to_table(&all);
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[..8],
            [
                "GROUPS NODE ROLE LEADS BEHIND PEER CLIENT INCARNATION",
                "1-3 1 voter 2 1,234 h:11 h:10 0000000000000001",
                "2 voter 1 7 h:21 h:20 0000000000000002",
                "3 voter - SILENT h:31 h:30 0000000000000003",
                "4 learner - 1,234 h:41 h:40 0000000000000004",
                "5 1 voter 1 0 h:11 h:10 0000000000000001",
                "2 voter, joining - 0 h:21 h:20 0000000000000002",
                "3 voter, leaving - SILENT h:31 h:30 0000000000000003",
            ],
            "{table}"
        );
        assert!(table.contains("groups 5 (1, 3 and 1, 2): a change is held"), "{table}");
        assert!(table.contains("groups 6: no leader answers"), "{table}");
        assert!(table.contains("group 9: nobody answers"), "{table}");
        let json = to_json(&all);
        assert_eq!(json["groups"][3]["state"], "held");
        assert_eq!(json["groups"][1]["members"][3]["behind"], 1_234);
        assert_eq!(json["groups"][5]["error"], "nobody answers");
        assert_eq!(ranges([1, 2, 3, 7, 9, 10].map(GroupId)), "1-3, 7, 9-10");
    }
}
