//! Judges histories: whether every group is strictly serializable (V9), and whether every
//! acknowledged write was applied exactly once (V8).
//!
//! A history begins with empty groups, and names all clients that wrote to them. Values should be
//! unique, so that a value names its writer; nothing is wrongly called broken if they aren't, but
//! more calls of unknown fate fit a place then.

pub mod agree;
pub mod applied;
mod facts;
pub mod general;
pub mod model;
mod plan;
pub mod refusals;
mod search;
pub mod serial;
#[cfg(test)]
mod tests;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use ringraft_types::GroupId;

use crate::history::{Call, History, Outcome};
pub use agree::{Effort, Searched};
pub use applied::{Applied, Dump};
pub use violation::{By, Violation};

/// What was checked, when nothing was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Groups.
    pub groups: usize,
    /// Calls that were done.
    pub done: usize,
    /// Calls that were definitely not done.
    pub not_done: usize,
    /// Calls of unknown fate.
    pub unknown: usize,
    /// Calls of unknown fate of which it became clear that they were done.
    pub placed: usize,
    /// Revisions made.
    pub revisions: u64,
    /// Groups that the general checker searched at once.
    pub whole: usize,
    /// Windows in which it searched the others.
    pub windows: usize,
}

/// Checks a history, and what the nodes applied, where that is known.
///
/// # Errors
/// The first violation, by group.
pub fn check(history: &History, dumps: &[Dump], effort: Effort) -> Result<Verdict, Violation> {
    let mut verdict = Verdict::default();
    let mut groups: BTreeMap<GroupId, Vec<&Call>> = BTreeMap::new();
    for call in history.calls() {
        groups.entry(call.group).or_default().push(call);
        match call.outcome() {
            Outcome::Done(_) => verdict.done += 1,
            Outcome::NotDone(_) => verdict.not_done += 1,
            Outcome::Unknown(_) => verdict.unknown += 1,
        }
    }
    let dumped: BTreeSet<GroupId> = dumps.iter().map(|dump| dump.group).collect();
    for group in dumped {
        groups.entry(group).or_default();
    }
    for (group, calls) in groups {
        applied::check(group, &calls, dumps)?;
        refusals::check(&calls)?;
        let longest = applied::longest(group, dumps);
        let by_revision = longest.map(applied::by_revision).unwrap_or_default();
        let (serial, searched) = agree::check(group, calls, &by_revision, effort)?;
        verdict.groups += 1;
        verdict.placed += serial.placed;
        verdict.revisions += serial.model.revision();
        match searched {
            Searched::Whole => verdict.whole += 1,
            Searched::Windows(windows) => verdict.windows += windows,
        }
    }
    Ok(verdict)
}
