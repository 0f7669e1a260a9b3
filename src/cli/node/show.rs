//! Plans and outcomes of changes, for people and for machines.

use super::change::{Outcome, Work};
use crate::changes::plan::list;
use crate::changes::ranges;
use crate::cli::exit::error_json;
use crate::cli::output;
use ringraft_types::{Configuration, GroupId};
use serde_json::{Value, json};

/// Voters, then learners: "1, 2, 3 + 4".
pub(super) fn members(configuration: &Configuration) -> String {
    let voters = match configuration.is_joint() {
        true => format!("{} and {}", list(configuration.outgoing()), list(configuration.voters())),
        false => list(configuration.voters()),
    };
    match configuration.learners() {
        [] => voters,
        learners => format!("{voters} + {}", list(learners)),
    }
}

/// Groups of which the same is to be told, in the order of the first of each.
fn alike<K: PartialEq>(rows: impl Iterator<Item = (GroupId, K)>) -> Vec<(Vec<GroupId>, K)> {
    let mut all: Vec<(Vec<GroupId>, K)> = Vec::new();
    for (group, told) in rows {
        match all.iter_mut().find(|(_, other)| *other == told) {
            Some((groups, _)) => groups.push(group),
            None => all.push((vec![group], told)),
        }
    }
    all
}

/// From, to, and what came of it.
fn cells(work: &Work) -> [String; 3] {
    let Some((found, plan)) = &work.plan else {
        return ["-", "-", "NOT AS WANTED"].map(str::to_owned);
    };
    let (to, result) = match &work.outcome {
        Outcome::Done(found) => (members(&found.members.configuration), "done".to_owned()),
        Outcome::Already(why) => (members(&plan.end), why.clone()),
        Outcome::Planned if plan.titles.is_empty() => {
            (members(&plan.end), "the change under way goes through".to_owned())
        }
        Outcome::Planned => (members(&plan.end), plan.titles.join(", then ")),
        Outcome::Failed(_) => ("-".to_owned(), "NOT AS WANTED".to_owned()),
    };
    [members(&found.members.configuration), to, result]
}

pub(super) fn to_table(works: &[Work]) -> String {
    let mut table = output::table(&["GROUPS", "FROM", "TO", "RESULT"]);
    for (groups, [from, to, result]) in alike(works.iter().map(|work| (work.group, cells(work)))) {
        table.add_row([ranges(groups), from, to, result]);
    }
    let failures = works.iter().filter_map(|work| match &work.outcome {
        Outcome::Failed(failure) => Some((work.group, (&failure.message, &failure.cure))),
        _ => None,
    });
    let notes = alike(failures).into_iter().map(|(groups, (message, cure))| {
        let groups =
            if groups.len() == 1 { "group " } else { "groups " }.to_owned() + &ranges(groups);
        let cure = cure.as_ref().map_or(String::new(), |cure| format!("\n  cure: {cure}"));
        format!("{groups}: {message}{cure}")
    });
    std::iter::once(output::table_text(&table)).chain(notes).collect::<Vec<_>>().join("\n")
}

fn roles(configuration: &Configuration) -> Value {
    let numbers =
        |nodes: &[ringraft_types::NodeId]| nodes.iter().map(|node| node.get()).collect::<Vec<_>>();
    json!({
        "voters": numbers(configuration.voters()),
        "outgoing": numbers(configuration.outgoing()),
        "learners": numbers(configuration.learners()),
    })
}

pub(super) fn to_json(works: &[Work]) -> Value {
    let row = |work: &Work| {
        let mut row = json!({ "group": work.group.get() });
        if let Some((found, plan)) = &work.plan {
            row["entry"] = found.index.get().into();
            row["from"] = roles(&found.members.configuration);
            row["steps"] = plan.titles.clone().into();
            row["to"] = roles(&plan.end);
        }
        row["result"] = match &work.outcome {
            Outcome::Done(found) => {
                row["entry"] = found.index.get().into();
                row["to"] = roles(&found.members.configuration);
                "done"
            }
            Outcome::Already(_) => "already",
            Outcome::Planned => "planned",
            Outcome::Failed(failure) => {
                let cure = failure.cure.as_deref();
                row["failure"] = error_json(failure.exit, &failure.message, cure);
                "failed"
            }
        }
        .into();
        row
    };
    json!({ "groups": works.iter().map(row).collect::<Vec<_>>() })
}
