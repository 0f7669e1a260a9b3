//! What is to be done in one group to get where the operator wants it: the next change, looked for
//! anew after each, so that a command that was interrupted goes on where things stand.

use crate::config::Address;
use ringraft_net::client::GroupMembers;
use ringraft_net::members_wire::{Member, MemberChange, Members};
use ringraft_types::{Configuration, Incarnation, Index, NodeId, Phase};

/// More changes than any goal takes.
const STEPS_MAX: usize = 5;

/// What the operator wants, of every group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A node listens.
    Add(Newcomer),
    /// A learner votes.
    Promote(NodeId),
    /// A voter only listens.
    Demote(NodeId),
    /// A node is no member.
    Remove(NodeId),
    /// A node votes in another one's place.
    Replace { old: NodeId, new: Newcomer },
    /// These are to vote and to listen, when it is committed.
    Prepare { voters: Vec<NodeId>, learners: Option<Vec<NodeId>> },
    /// The held change is carried through.
    Commit,
    /// The held change is given up.
    Abort,
}

/// A node that may not be a member yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newcomer {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// Where other nodes and clients reach it, if that was said.
    pub(crate) addresses: Option<(Address, Address)>,
}

/// What a leader does only when it is asked for by name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allow {
    pub(crate) majority: bool,
    pub(crate) unready: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) change: MemberChange,
    /// For people.
    pub(crate) title: String,
    /// What it is waited for.
    pub(crate) awaits: Awaits,
}

/// What a change is waited with for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// Nothing.
    Nothing,
    /// That this node, which runs, has caught up.
    CaughtUp(NodeId),
    /// That this node comes, and has caught up.
    There(NodeId),
}

/// What is next in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This.
    Change(Step),
    /// Nothing: what is wanted is so.
    Nothing(String),
    /// What is wanted can't be had here.
    Refuse { sentence: String, cure: &'static str },
}

fn refuse(sentence: impl Into<String>, cure: &'static str) -> Next {
    Next::Refuse { sentence: sentence.into(), cure }
}

/// What is next where these are the members.
pub(crate) fn next(goal: &Goal, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    if !configuration.members().any(|_| true) {
        return refuse(
            "the group has no members yet",
            "wait until a leader answers, or check that the node was formatted for this cluster",
        );
    }
    match (configuration.phase(), goal) {
        (Phase::Held, Goal::Commit) => {
            let title = format!("{} vote from now on", list(configuration.voters()));
            return Next::Change(Step {
                change: MemberChange::Commit,
                title,
                awaits: Awaits::Nothing,
            });
        }
        (Phase::Held, Goal::Abort) => {
            let title = format!("{} vote as before", list(configuration.outgoing()));
            return Next::Change(Step {
                change: MemberChange::Abort,
                title,
                awaits: Awaits::Nothing,
            });
        }
        (_, Goal::Commit | Goal::Abort) => return Next::Nothing("no change is held".to_owned()),
        (Phase::Held, Goal::Prepare { voters, learners }) => {
            let is_same = sorted(voters) == configuration.voters()
                && learners.as_ref().is_none_or(|it| sorted(it) == configuration.learners());
            if is_same {
                return Next::Nothing("the change is held already".to_owned());
            }
        }
        _ => {}
    }
    if configuration.phase() == Phase::Held {
        let sentence = format!("a change is held at entry {}", found.index);
        return refuse(sentence, "end it first, with `ringraft node commit` or `abort`");
    }
    match goal {
        Goal::Add(new) => add(new, found, allow),
        Goal::Promote(node) => promote(*node, found, allow),
        Goal::Demote(node) => demote(*node, found, allow),
        Goal::Remove(node) => remove(*node, found, allow),
        Goal::Replace { old, new } => replace(*old, new, found, allow),
        Goal::Prepare { voters, learners } => prepare(voters, learners.as_deref(), found, allow),
        Goal::Commit | Goal::Abort => unreachable!("they were decided above"),
    }
}

fn add(new: &Newcomer, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    let node = new.node;
    if let Some(member) = found.members.member(node) {
        let role = if configuration.is_voter(node) { "votes" } else { "listens" };
        let is_elsewhere = new.addresses.as_ref().is_some_and(|(peer, client)| {
            [peer.to_string(), client.to_string()] != [member.peer.clone(), member.client.clone()]
        });
        let is_other = ![Incarnation::ZERO, member.incarnation].contains(&new.incarnation);
        if is_elsewhere || is_other {
            let life = match member.incarnation {
                Incarnation::ZERO => String::new(),
                life => format!("as {:016x} ", life.get()),
            };
            let (peer, client) = (&member.peer, &member.client);
            let sentence = format!("node {node} {role} already, {life}at {peer} and {client}");
            return refuse(sentence, "remove it first, if another node is to have its number");
        }
        return Next::Nothing(format!("node {node} {role} already"));
    }
    let Some((peer, client)) = &new.addresses else {
        let sentence = format!("node {node} is no member, and it wasn't said where it is");
        return refuse(sentence, "say it with --peer HOST:PORT and --client HOST:PORT");
    };
    let member = Member {
        node,
        incarnation: new.incarnation,
        peer: peer.to_string(),
        client: client.to_string(),
    };
    let voters = configuration.voters().to_vec();
    let learners = with(configuration.learners(), node);
    let title = format!("node {node} listens");
    to(found, Some(member), voters, learners, title, allow)
}

fn promote(node: NodeId, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    if configuration.is_voter(node) {
        return Next::Nothing(format!("node {node} votes already"));
    }
    if !configuration.is_member(node) {
        return refuse(
            format!("node {node} is no member"),
            "add it first, with `ringraft node add`",
        );
    }
    let voters = with(configuration.voters(), node);
    let learners = without(configuration.learners(), node);
    match to(found, None, voters, learners, format!("node {node} votes"), allow) {
        Next::Change(step) => Next::Change(Step { awaits: Awaits::CaughtUp(node), ..step }),
        other => other,
    }
}

fn demote(node: NodeId, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    if !configuration.is_member(node) {
        return refuse(format!("node {node} is no member"), "`ringraft node ls` shows who is");
    }
    if !configuration.is_voter(node) {
        return Next::Nothing(format!("node {node} only listens already"));
    }
    let voters = without(configuration.voters(), node);
    let learners = with(configuration.learners(), node);
    to(found, None, voters, learners, format!("node {node} only listens"), allow)
}

fn remove(node: NodeId, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    if !configuration.is_member(node) {
        return Next::Nothing(format!("node {node} is no member"));
    }
    let voters = without(configuration.voters(), node);
    let learners = without(configuration.learners(), node);
    to(found, None, voters, learners, format!("node {node} leaves"), allow)
}

fn replace(old: NodeId, new: &Newcomer, found: &GroupMembers, allow: Allow) -> Next {
    let configuration = &found.members.configuration;
    let (is_there, is_gone) = (configuration.is_voter(new.node), !configuration.is_member(old));
    if is_there && is_gone {
        return Next::Nothing(format!("node {} votes, and node {old} is no member", new.node));
    }
    if is_gone {
        return refuse(
            format!("node {old} is no member, so that nobody can take its place"),
            "to have one more voter, use `ringraft node add` and `promote`",
        );
    }
    if is_there {
        return remove(old, found, allow);
    }
    if !configuration.is_voter(old) {
        return refuse(
            format!("node {old} only listens, so that nobody need take its place"),
            "use `ringraft node add` and `remove`",
        );
    }
    if !configuration.is_member(new.node) {
        return add(new, found, allow);
    }
    if let refused @ Next::Refuse { .. } = add(new, found, allow) {
        return refused;
    }
    let voters = with(&without(configuration.voters(), old), new.node);
    let learners = without(configuration.learners(), new.node);
    let title = format!("node {} votes once it has caught up, node {old} leaves", new.node);
    match to(found, None, voters, learners, title, allow) {
        Next::Change(step) => Next::Change(Step { awaits: Awaits::There(new.node), ..step }),
        other => other,
    }
}

fn prepare(
    voters: &[NodeId],
    learners: Option<&[NodeId]>,
    found: &GroupMembers,
    allow: Allow,
) -> Next {
    let configuration = &found.members.configuration;
    let voters = sorted(voters);
    let learners = match learners {
        Some(learners) => sorted(learners),
        None => {
            let stay = |node: &&NodeId| !voters.contains(node);
            configuration.learners().iter().filter(stay).copied().collect()
        }
    };
    let is_stranger = |node: &&NodeId| !configuration.is_member(**node);
    if let Some(node) = voters.iter().chain(&learners).find(is_stranger) {
        return refuse(
            format!("node {node} is no member"),
            "add it first, with `ringraft node add`",
        );
    }
    if voters == configuration.voters() {
        return refuse(
            format!("{} vote already", list(&voters)),
            "only a change of voters can be held",
        );
    }
    let title = format!("{} are to vote, held until `ringraft node commit`", list(&voters));
    match to(found, None, voters, learners, title, allow) {
        Next::Change(mut step) => {
            if let MemberChange::To { is_held, .. } = &mut step.change {
                *is_held = true;
            }
            Next::Change(step)
        }
        other => other,
    }
}

/// These members from now on.
fn to(
    found: &GroupMembers,
    newcomer: Option<Member>,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    title: String,
    allow: Allow,
) -> Next {
    let configuration = match Configuration::first(voters, learners) {
        Ok(configuration) => configuration,
        Err(error) => {
            return refuse(format!("no group can have these members: {error}"), "name others");
        }
    };
    let known = found.members.members.iter().cloned().chain(newcomer);
    let members = known.filter(|member| configuration.is_member(member.node)).collect();
    let change = MemberChange::To {
        target: Members { configuration, members },
        is_held: false,
        allow_majority: allow.majority,
        allow_unready: allow.unready,
    };
    Next::Change(Step { change, title, awaits: Awaits::Nothing })
}

/// Every change on the way, if nobody interferes; where it ends; and why it can't be gone, if so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) titles: Vec<String>,
    pub(crate) end: Configuration,
    pub(crate) stop: Next,
}

/// Looks ahead: what follows if every change is made.
pub(crate) fn plan(goal: &Goal, found: &GroupMembers, allow: Allow) -> Plan {
    let mut at = settled(found);
    let mut titles = Vec::new();
    loop {
        match next(goal, &at, allow) {
            Next::Change(step) => {
                titles.push(step.title);
                assert!(titles.len() <= STEPS_MAX, "every goal comes to its end");
                at = after(&at, &step.change);
            }
            stop => return Plan { titles, end: at.members.configuration, stop },
        }
    }
}

/// Where a group will be when what is under way is through.
fn settled(found: &GroupMembers) -> GroupMembers {
    let mut found = found.clone();
    let configuration = &found.members.configuration;
    if configuration.phase() == Phase::Joint {
        let (voters, learners) = (configuration.voters(), configuration.learners());
        let through = Configuration::first(voters.to_vec(), learners.to_vec());
        found.members.configuration = through.expect("half of a sound configuration is sound");
    }
    found
}

fn after(found: &GroupMembers, change: &MemberChange) -> GroupMembers {
    let before = &found.members.configuration;
    let configuration = match change {
        MemberChange::To { target, is_held: false, .. } => target.configuration.clone(),
        MemberChange::To { target, is_held: true, .. } => {
            let (voters, learners) =
                (target.configuration.voters(), target.configuration.learners());
            let (voters, outgoing) = (voters.to_vec(), before.voters().to_vec());
            Configuration::new(Phase::Held, voters, outgoing, learners.to_vec(), found.index)
                .unwrap_or_else(|_| target.configuration.clone())
        }
        MemberChange::Commit => {
            let (voters, learners) = (before.voters().to_vec(), before.learners().to_vec());
            Configuration::first(voters, learners).expect("half of a sound one is sound")
        }
        MemberChange::Abort => {
            let learners = before.members().filter(|node| !before.outgoing().contains(node));
            Configuration::first(before.outgoing().to_vec(), learners.collect())
                .expect("a held change leaves room for the learners of its abort")
        }
    };
    let members = match change {
        MemberChange::To { target, .. } => target.members.clone(),
        _ => found.members.members.clone(),
    };
    let members = Members { configuration, members };
    GroupMembers { index: Index(found.index.0 + 1), members, ..found.clone() }
}

fn with(nodes: &[NodeId], node: NodeId) -> Vec<NodeId> {
    sorted(&[nodes, &[node]].concat())
}

fn without(nodes: &[NodeId], node: NodeId) -> Vec<NodeId> {
    nodes.iter().copied().filter(|&it| it != node).collect()
}

fn sorted(nodes: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Nodes as "1, 2, 4".
pub(crate) fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod tests;
