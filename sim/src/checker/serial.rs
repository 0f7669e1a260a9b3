//! Strict serializability of one group, by revisions.
//!
//! Whatever changes the machine makes one revision, and says which. So the order of a group's
//! calls is known, and one pass decides: play the writes back in order of revision, compare every
//! answer with the model's at its place, and see that no call stands before one that had ended when
//! it began. Time is that of sorting.
//!
//! Calls of unknown fate have no revision. Where nobody who was done has one, one of them must have
//! made it; values that were seen, and commands that a node applied, say which. Where they don't,
//! `search.rs` tries.

use std::collections::BTreeMap;

use ringraft_types::GroupId;

use super::facts::Facts;
use super::model::Model;
use super::plan::Plan;
use super::search::Search;
use super::violation::Violation;
use crate::history::{Ask, Call};

/// A group's calls in order.
#[derive(Debug)]
pub struct Serial<'a> {
    /// The calls that were done, and those of unknown fate that must have been, in order.
    pub order: Vec<&'a Call>,
    /// The machine at the end.
    pub model: Model,
    /// Calls of unknown fate that have a place in the order.
    pub placed: usize,
}

/// Checks a group's calls. `applied` are the commands that made revisions, as the nodes say, if
/// that is known; they only say which call of unknown fate made which.
///
/// # Errors
/// The first violation in the order of revisions; if calls of unknown fate can be placed in several
/// ways, that of the way that went furthest.
pub fn check<'a>(
    group: GroupId,
    calls: Vec<&'a Call>,
    applied: &BTreeMap<u64, &Ask>,
) -> Result<Serial<'a>, Violation> {
    let plan = Plan::new(calls)?;
    let facts = Facts::new(&plan)?;
    let unknown = plan.unknown.len();
    if plan.gaps() > unknown as u64 {
        let revision = (1..).find(|revision| !plan.claims.contains_key(revision));
        let revision = revision.expect("there are fewer claims than numbers");
        return Err(Violation::Gap { revision, unknown });
    }
    Search::new(group, &plan, &facts, applied).run()
}
