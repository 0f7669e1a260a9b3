//! Changes who the members are, group after group: shows what would be done, does it when it is
//! told so, waits until it is through, and tells what came of every group.

use super::show;
use crate::changes::plan::{self, Allow, Goal, Next, Plan};
use crate::changes::{Bringing, Patience, Stuck};
use crate::cli::Global;
use crate::cli::client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringraft_net::client::{ChangeError, Client, GroupMembers};
use ringraft_net::members_wire::Refusal;
use ringraft_types::{GroupId, NodeId};
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

/// How a change is to be made.
#[derive(Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// Do it; without this, only the plan is shown
    #[arg(long)]
    yes: bool,
    /// Change the group only if the configuration of this entry is in force there [default: the one
    /// that is read]; needs --group
    #[arg(long, value_name = "ENTRY")]
    expected: Option<u64>,
    /// Allow new voters to be a majority by themselves: if they fail, nothing is decided
    #[arg(long)]
    allow_majority: bool,
    /// Allow new voters that haven't caught up or don't answer: nothing may be decided without them
    #[arg(long)]
    allow_unready: bool,
    /// How long to wait for a node to catch up, in each group
    #[arg(long, default_value = "60m", value_name = "TIME",
        value_parser = crate::cli::args::duration)]
    catch_up: Duration,
}

/// What came of a group.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is as wanted, by changes that were just made.
    Done(Box<GroupMembers>),
    /// It was as wanted already.
    Already(String),
    /// It would be changed.
    Planned,
    /// It isn't as wanted, or that isn't known.
    Failed(Failure),
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) group: GroupId,
    /// Who the members were at first, and what is to be done.
    pub(super) plan: Option<(GroupMembers, Plan)>,
    pub(super) outcome: Outcome,
}

pub(crate) fn run(goal: &Goal, args: &ChangeArgs, global: &Global) -> Result<Exit, Failure> {
    let allow = Allow { majority: args.allow_majority, unready: args.allow_unready };
    let mut client = Client::connect(client::options(global)).map_err(client::failure)?;
    let groups = groups(&mut client, global)?;
    if args.expected.is_some() && groups.len() > 1 {
        let failure = Failure::new(Exit::Usage, "an entry is of one group, and there are several");
        return Err(failure.cure("name the group with --group"));
    }
    let all = client.members_of_all(&groups);
    let found = groups.iter().zip(all).map(|(&group, found)| match found {
        Ok(found) => Work::planned(group, found, goal, args.expected, allow),
        Err(error) => Work { group, plan: None, outcome: Outcome::Failed(told(error.into())) },
    });
    let mut works: Vec<Work> = found.collect();
    let goal = share_addresses(&mut works, goal, args.expected, allow);
    if args.yes {
        carry_out(&mut client, &goal, &mut works, args, global);
    }
    tell(&works, args.yes, global.output)
}

impl Work {
    fn planned(
        group: GroupId,
        found: GroupMembers,
        goal: &Goal,
        expected: Option<u64>,
        allow: Allow,
    ) -> Self {
        let plan = plan::plan(goal, &found, allow);
        let outcome = match &plan.stop {
            _ if expected.is_some_and(|expected| expected != found.index.0) => {
                let (is, expected) = (found.index, expected.unwrap_or_default());
                let message = format!("entry {is} is in force, and {expected} was expected");
                let failure = Failure::new(Exit::NotDone, message);
                Outcome::Failed(failure.cure("read the members again: others have changed them"))
            }
            Next::Refuse { sentence, cure } => {
                Outcome::Failed(Failure::new(Exit::NotDone, sentence.clone()).cure(*cure))
            }
            Next::Nothing(why) if plan.titles.is_empty() && found.is_settled() => {
                Outcome::Already(why.clone())
            }
            _ => Outcome::Planned,
        };
        Self { group, plan: Some((found, plan)), outcome }
    }
}

/// All groups of the cluster, or those that were named.
pub(crate) fn groups(client: &mut Client, global: &Global) -> Result<Vec<GroupId>, Failure> {
    if !global.groups.is_empty() {
        let named: BTreeSet<GroupId> = global.group_ids().collect();
        return Ok(named.into_iter().collect());
    }
    let mut found = BTreeSet::new();
    let mut first_error = None;
    for answer in client.status_all() {
        match answer {
            Ok(status) => found.extend(status.groups.iter().map(|row| row.group)),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) if found.is_empty() => Err(client::failure(error)),
        _ => Ok(found.into_iter().collect()),
    }
}

fn carry_out(
    client: &mut Client,
    goal: &Goal,
    works: &mut [Work],
    args: &ChangeArgs,
    global: &Global,
) {
    let allow = Allow { majority: args.allow_majority, unready: args.allow_unready };
    let planned = works.iter().filter(|work| matches!(work.outcome, Outcome::Planned)).count();
    let bar = stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{bar:24} {pos} of {len} groups  {msg}");
        let style = style.expect("the template is sound");
        ProgressBar::new(planned as u64).with_style(style)
    });
    for work in works.iter_mut().filter(|work| matches!(work.outcome, Outcome::Planned)) {
        let Some((found, _)) = &work.plan else { continue };
        let group = work.group;
        let mut say = |title: &str, awaited: Option<(NodeId, &GroupMembers)>| {
            if let Some(bar) = &bar {
                let what =
                    awaited.map_or_else(|| title.to_owned(), |(node, found)| lack(found, node));
                bar.set_message(format!("group {group}: {what}"));
                bar.tick();
            }
        };
        let patience = Patience { settle: global.timeout, catch_up: args.catch_up };
        let mut bringing = Bringing { client, group, allow, patience, say: &mut say };
        work.outcome = match bringing.bring(goal, found) {
            Ok(found) => Outcome::Done(Box::new(found)),
            Err(stuck) => Outcome::Failed(stuck.into()),
        };
        if let Some(bar) = &bar {
            bar.inc(1);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

impl From<Stuck> for Failure {
    fn from(stuck: Stuck) -> Self {
        let not_done = |cure: &str| Self::new(Exit::NotDone, stuck.to_string()).cure(cure);
        match stuck {
            Stuck::PlanIsOld { .. } => {
                not_done("others change the members too: look at the plan again")
            }
            Stuck::Refused { cure, .. } => not_done(cure),
            Stuck::Others => {
                not_done("have one operator at a time change them, and start the command again")
            }
            Stuck::Lags(error) => told(error).cure(
                "see that the node runs and is reached, then start the command again: it goes on \
                 from here",
            ),
            Stuck::Change(error) => told(error),
        }
    }
}

/// What a node lacks yet, for people.
fn lack(found: &GroupMembers, node: NodeId) -> String {
    match found.peer(node) {
        Some(peer) if peer.is_heard => {
            let lacks = found.commit.0.saturating_sub(peer.matched.0);
            format!("node {node} catches up, {} entries behind", HumanCount(lacks))
        }
        _ => format!("node {node} isn't heard of yet"),
    }
}

/// What the library says, with its exit code and its cure.
fn told(error: ChangeError) -> Failure {
    let message = error.to_string();
    match error {
        ChangeError::Refused { refusal, .. } => {
            let failure = Failure::new(Exit::NotDone, message);
            match refusal {
                Refusal::AddsMajority => failure.cure(
                    "change fewer voters at a time; --allow-majority allows it, and if the new \
                     ones fail then, the group has no majority",
                ),
                Refusal::Behind | Refusal::Unreachable | Refusal::NoReadyMajority => {
                    failure.cure(format!(
                        "{}; --allow-unready doesn't wait, and the group decides nothing until \
                         they are there",
                        refusal.cure()
                    ))
                }
                Refusal::WhichLife => failure.cure(format!(
                    "{}: --incarnation, with what `ringraft format` showed",
                    refusal.cure()
                )),
                _ => failure.cure(refusal.cure()),
            }
        }
        ChangeError::Overtaken { .. } => Failure::new(Exit::Unknown, message)
            .cure("`ringraft node ls` shows who the members are"),
        ChangeError::NotSettled { .. } => Failure::new(Exit::Unknown, message).cure(
            "`ringraft status` shows which nodes answer; the same command goes on where it stands",
        ),
        ChangeError::Client(error) => {
            let failure = client::failure(error);
            match failure.exit {
                Exit::Unknown => failure.cure("`ringraft node ls` shows who the members are"),
                _ => failure,
            }
        }
    }
}

/// Where a newcomer is reached may be known from another group.
fn share_addresses(works: &mut [Work], goal: &Goal, expected: Option<u64>, allow: Allow) -> Goal {
    let Goal::Replace { old, new } = goal else { return goal.clone() };
    if new.addresses.is_some() {
        return goal.clone();
    }
    let known = works.iter().find_map(|work| {
        let member = work.plan.as_ref()?.0.members.member(new.node)?;
        Some((member.peer.parse().ok()?, member.client.parse().ok()?))
    });
    let new = plan::Newcomer { addresses: known, ..new.clone() };
    let goal = Goal::Replace { old: *old, new };
    for work in works {
        if let Some((found, _)) = work.plan.take() {
            *work = Work::planned(work.group, found, &goal, expected, allow);
        }
    }
    goal
}

/// What came of all, worst first: what isn't known counts more than what was refused.
fn exit_code(works: &[Work]) -> Exit {
    let failures = || {
        works.iter().filter_map(|work| match &work.outcome {
            Outcome::Failed(failure) => Some(failure.exit),
            Outcome::Planned => Some(Exit::NotDone),
            Outcome::Done(_) | Outcome::Already(_) => None,
        })
    };
    let worst = [Exit::Unknown, Exit::NotDone].into_iter();
    let worst = worst.into_iter().find(|&exit| failures().any(|it| it == exit));
    worst.or_else(|| failures().next()).unwrap_or(Exit::Ok)
}

fn tell(works: &[Work], is_carried_out: bool, output: Output) -> Result<Exit, Failure> {
    let exit = exit_code(works);
    if output == Output::Json {
        output::json(&show::to_json(works))?;
        return Ok(exit);
    }
    output::text(&show::to_table(works))?;
    let failed = works.iter().filter(|work| matches!(work.outcome, Outcome::Failed(_))).count();
    let is_planned = works.iter().any(|work| matches!(work.outcome, Outcome::Planned));
    match (exit, failed) {
        (Exit::Ok, _) => Ok(exit),
        (exit, 0) if is_planned && !is_carried_out => {
            let failure = Failure::new(exit, "nothing was changed: this is the plan");
            Err(failure.cure("add --yes to carry it out"))
        }
        (exit, failed) => {
            let all = works.len();
            let message = format!("{failed} of {all} groups: not as wanted, for the reasons above");
            let failure = Failure::new(exit, message);
            Err(match is_carried_out {
                true => failure.cure("start the command again: it goes on where each group stands"),
                false => failure.cure("nothing was changed: see to the reasons first"),
            })
        }
    }
}

#[cfg(test)]
mod tests;
