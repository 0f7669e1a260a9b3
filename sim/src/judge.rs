//! Judges a run's history. Every group by revisions and by what was applied, in linear time; a group
//! of few calls by the general checker beside that, and the two must agree.

use std::collections::BTreeMap;

use ringraft_types::GroupId;

use crate::checker::model::Model;
use crate::checker::{Dump, Violation, applied, general, refusals, serial};
use crate::history::{Call, History, Outcome};

/// Calls of a group that the general checker is asked about, at most: its search takes exponential
/// time in how many run beside each other.
const SEARCHED_MAX: usize = 24;
/// Of unknown fate among them.
const SEARCHED_UNKNOWN_MAX: usize = 2;

/// What was checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judged {
    /// Groups.
    pub(crate) groups: u64,
    /// Groups that the general checker agreed about.
    pub(crate) searched: u64,
}

/// Checks a history and what the nodes applied.
pub(crate) fn judge(history: &History, dumps: &[Dump]) -> Result<Judged, Violation> {
    let mut judged = Judged::default();
    let mut groups: BTreeMap<GroupId, Vec<&Call>> = BTreeMap::new();
    for call in history.calls() {
        groups.entry(call.group).or_default().push(call);
    }
    for (group, calls) in groups {
        judged.groups += 1;
        let of_group: Vec<Dump> =
            dumps.iter().filter(|dump| dump.group == group).cloned().collect();
        applied::check(group, &calls, &of_group)?;
        refusals::check(&calls)?;
        let longest = applied::longest(group, &of_group);
        let by_revision = longest.map(applied::by_revision).unwrap_or_default();
        let general =
            is_searched(&calls).then(|| general::is_linearizable(Model::default(), &calls));
        match (serial::check(group, calls, &by_revision), general) {
            (Err(violation), None | Some(false)) => return Err(violation),
            (Ok(_), None) => {}
            (Ok(_), Some(true)) => judged.searched += 1,
            (Ok(_), Some(false)) => {
                return Err(Violation::Disagree { group, serial: None, general: false });
            }
            (Err(violation), Some(true)) => {
                let serial = Some(Box::new(violation));
                return Err(Violation::Disagree { group, serial, general: true });
            }
        }
    }
    Ok(judged)
}

fn is_searched(calls: &[&Call]) -> bool {
    let is_unknown = |call: &&&Call| matches!(call.outcome(), Outcome::Unknown(_));
    calls.len() <= SEARCHED_MAX && calls.iter().filter(is_unknown).count() <= SEARCHED_UNKNOWN_MAX
}
