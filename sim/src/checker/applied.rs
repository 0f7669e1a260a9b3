//! What the nodes applied, against what clients were told: every acknowledged write exactly once,
//! no other write more often than it was asked for, and the same on every node (V7, V8).

use std::collections::BTreeMap;

use ringraft_types::{ClientId, GroupId, Index, NodeId, Revision, Status};

use super::model::Model;
use super::plan::boxed;
use super::violation::Violation;
use crate::history::{Ask, Call, Operation, Outcome, Reason};

/// A command that a node applied: one that its session let through, refused by the machine or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its entry.
    pub index: Index,
    /// The machine's revision after it.
    pub revision: Revision,
    /// Whose command it was.
    pub session: ClientId,
    /// Its number in the session.
    pub number: u64,
    /// The command.
    pub ask: Ask,
}

/// What one node applied for one group, from the first entry on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// Where.
    pub node: NodeId,
    /// For which group.
    pub group: GroupId,
    /// The commands in order.
    pub applied: Vec<Applied>,
}

/// The longest of a group's dumps.
pub fn longest(group: GroupId, dumps: &[Dump]) -> Option<&Dump> {
    let of_group = dumps.iter().filter(|dump| dump.group == group);
    of_group.max_by_key(|dump| dump.applied.len())
}

/// The commands that made revisions.
pub fn by_revision(dump: &Dump) -> BTreeMap<u64, &Ask> {
    let mut newest = Revision::ZERO;
    let made = dump
        .applied
        .iter()
        .filter(|applied| applied.revision > std::mem::replace(&mut newest, applied.revision));
    made.map(|applied| (applied.revision.0, &applied.ask)).collect()
}

/// Checks what the nodes applied for a group. Only what is acknowledged by the history's end is
/// looked for, on the node that applied most.
///
/// # Errors
/// The first violation.
pub fn check(group: GroupId, calls: &[&Call], dumps: &[Dump]) -> Result<(), Violation> {
    let Some(longest) = longest(group, dumps) else { return Ok(()) };
    for dump in dumps.iter().filter(|dump| dump.group == group) {
        let mut pairs = dump.applied.iter().zip(&longest.applied);
        if let Some(place) = pairs.position(|(one, other)| one != other) {
            let (first, second) = (dump.node, longest.node);
            return Err(Violation::NodesDiffer { group, first, second, place });
        }
    }
    check_sessions(longest)?;
    check_revisions(longest)?;
    check_acknowledged(calls, longest)?;
    check_times(calls, longest)
}

/// Every session's numbers rise by one.
fn check_sessions(dump: &Dump) -> Result<(), Violation> {
    let mut sessions: BTreeMap<ClientId, u64> = BTreeMap::new();
    for applied in &dump.applied {
        let newest = sessions.entry(applied.session).or_default();
        let (before, number) = (*newest, applied.number);
        // A session that was evicted can't come back, so its numbers never begin again either.
        if number != before + 1 {
            return Err(Violation::Session {
                group: dump.group,
                node: dump.node,
                session: applied.session,
                number,
                before,
                index: applied.index,
            });
        }
        *newest = number;
    }
    Ok(())
}

/// The machine came to the revisions that the model comes to.
fn check_revisions(dump: &Dump) -> Result<(), Violation> {
    let mut model = Model::default();
    let mut index = Index::ZERO;
    for applied in &dump.applied {
        // The machine may have refused to read a revision that it no longer has. The model has it.
        let before = reads_history(&applied.ask).then(|| model.clone());
        let _ = model.step(&applied.ask);
        if let Some(before) = before
            && before.revision() == applied.revision.0
        {
            model = before;
        }
        if model.revision() != applied.revision.0 || applied.index <= index {
            return Err(Violation::AppliedRevision {
                group: dump.group,
                node: dump.node,
                index: applied.index,
                revision: applied.revision.0,
                expected: model.revision(),
                ask: Box::new(applied.ask.clone()),
            });
        }
        index = applied.index;
    }
    Ok(())
}

/// Whether a command reads a revision that may be gone.
fn reads_history(ask: &Ask) -> bool {
    let Ask::Txn(txn) = ask else { return false };
    let mut operations = txn.then.iter().chain(&txn.otherwise);
    operations.any(|operation| matches!(operation, Operation::Range(range) if range.revision > 0))
}

/// Every acknowledged write lies where its answer says.
fn check_acknowledged(calls: &[&Call], dump: &Dump) -> Result<(), Violation> {
    for call in calls.iter().filter(|call| !call.ask.is_read()) {
        let Some(answer) = call.answer() else { continue };
        let Some(index) = answer.index else { continue };
        let at = dump.applied.binary_search_by_key(&index, |applied| applied.index);
        let is_there = at.is_ok_and(|at| {
            let applied = &dump.applied[at];
            applied.revision == answer.revision && applied.ask == call.ask
        });
        if !is_there {
            return Err(Violation::Lost { call: boxed(call), node: dump.node });
        }
    }
    Ok(())
}

/// No command was applied more often than it was asked for, or less often than it was acknowledged.
fn check_times(calls: &[&Call], dump: &Dump) -> Result<(), Violation> {
    // By command: applied, done, unknown.
    let mut times: BTreeMap<&Ask, [usize; 3]> = BTreeMap::new();
    for applied in &dump.applied {
        times.entry(&applied.ask).or_default()[0] += 1;
    }
    for call in calls.iter().filter(|call| !call.ask.is_read()) {
        let times = times.entry(&call.ask).or_default();
        match call.outcome() {
            Outcome::Done(_) => times[1] += 1,
            Outcome::Unknown(_) => times[2] += 1,
            // The machine refused it where it was applied: it had no effect there.
            Outcome::NotDone(Reason::Refused(Status::Compacted | Status::FutureRevision)) => {
                times[2] += 1;
            }
            Outcome::NotDone(_) => {}
        }
    }
    for (ask, [applied, done, unknown]) in times {
        // Barriers are the client library's too.
        let is_too_often = applied > done + unknown && *ask != Ask::Nothing;
        if applied < done || is_too_often {
            return Err(Violation::AppliedTimes {
                group: dump.group,
                node: dump.node,
                ask: Box::new(ask.clone()),
                applied,
                done,
                unknown,
            });
        }
    }
    Ok(())
}
