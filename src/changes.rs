//! Changes of who the members of a group are, step by step: what is next where a group stands, and
//! having that made, until the group is as wanted. The command line does it for an operator, and a
//! node for itself when it leaves. Nothing here prints, and nothing waits without a bound.
#![forbid(unsafe_code)]

mod bring;
pub(crate) mod plan;

pub(crate) use bring::{Bringing, Patience, Stuck};

use ringraft_types::GroupId;

/// Groups as "1-4, 7".
pub(crate) fn ranges(groups: impl IntoIterator<Item = GroupId>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for GroupId(group) in groups {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == group => *last = group,
            _ => runs.push((group, group)),
        }
    }
    let text = |&(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}
