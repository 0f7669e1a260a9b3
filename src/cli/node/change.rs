//! Changes who the members are, group after group: shows what would be done, does it when it is
//! told so, waits until it is through, and tells what came of every group.

use super::plan::{self, Allow, Awaits, Goal, Next, Plan, Step};
use super::show;
use crate::cli::Global;
use crate::cli::client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Output};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use ringraft_net::client::{ChangeError, Client, GroupMembers};
use ringraft_net::members_wire::Refusal;
use ringraft_types::{GroupId, Index, NodeId};
use std::collections::BTreeSet;
use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// Between two tries of a change that waits for a node to catch up.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// More changes than any goal takes, and what others may do in between.
const STEPS_MAX: usize = 8;

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

pub(super) fn run(goal: &Goal, args: &ChangeArgs, global: &Global) -> Result<Exit, Failure> {
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
        let named: BTreeSet<u64> = global.groups.iter().copied().collect();
        return Ok(named.into_iter().map(GroupId).collect());
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
        let mut hand = Hand { client, group: work.group, bar: bar.as_ref(), args, global };
        work.outcome = match hand.bring(goal, found, allow) {
            Ok(found) => Outcome::Done(Box::new(found)),
            Err(failure) => Outcome::Failed(failure),
        };
        if let Some(bar) = &bar {
            bar.inc(1);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// What changes one group.
struct Hand<'a> {
    client: &'a mut Client,
    group: GroupId,
    bar: Option<&'a ProgressBar>,
    args: &'a ChangeArgs,
    global: &'a Global,
}

impl Hand<'_> {
    fn say(&self, what: &str) {
        if let Some(bar) = self.bar {
            bar.set_message(format!("group {}: {what}", self.group));
            bar.tick();
        }
    }

    /// Makes change after change until the group is as wanted.
    fn bring(
        &mut self,
        goal: &Goal,
        planned: &GroupMembers,
        allow: Allow,
    ) -> Result<GroupMembers, Failure> {
        let mut found = self.settle(Index::ZERO)?;
        if planned.is_settled() && found.index != planned.index {
            let (was, is) = (planned.index, found.index);
            let message = format!("entry {is} is in force now, and the plan was for entry {was}");
            let failure = Failure::new(Exit::NotDone, message);
            return Err(failure.cure("others change the members too: look at the plan again"));
        }
        for _ in 0..STEPS_MAX {
            match plan::next(goal, &found, allow) {
                Next::Change(step) => {
                    self.say(&step.title);
                    let index = self.change(found.index, &step)?;
                    found = self.settle(index)?;
                }
                Next::Nothing(_) => return Ok(found),
                Next::Refuse { sentence, cure } => {
                    return Err(Failure::new(Exit::NotDone, sentence).cure(cure));
                }
            }
        }
        let failure = Failure::new(Exit::NotDone, "others go on changing the members");
        Err(failure.cure("have one operator at a time change them, and start the command again"))
    }

    /// Has a change made, as soon as the node that it waits for has caught up.
    fn change(&mut self, expected: Index, step: &Step) -> Result<Index, Failure> {
        let until = Instant::now() + self.args.catch_up;
        loop {
            let error = match self.client.change_members(self.group, expected, &step.change) {
                Ok(changed) => return Ok(changed.index),
                Err(error) => error,
            };
            let ChangeError::Refused { refusal, found, .. } = &error else {
                return Err(told(error));
            };
            let node = match (refusal, step.awaits) {
                (Refusal::Behind, Awaits::CaughtUp(node) | Awaits::There(node)) => node,
                (Refusal::Unreachable, Awaits::There(node)) => node,
                _ => return Err(told(error)),
            };
            if Instant::now() >= until {
                return Err(told(error).cure(
                    "see that the node runs and is reached, then start the command again: it goes \
                     on from here",
                ));
            }
            self.say(&lack(found, node));
            std::thread::sleep(TRY_EVERY);
        }
    }

    /// Waits until what is in force is through.
    fn settle(&mut self, index: Index) -> Result<GroupMembers, Failure> {
        self.client.wait_settled(self.group, index, self.global.timeout, |_| {}).map_err(told)
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
