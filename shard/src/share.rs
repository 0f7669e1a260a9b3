//! What all groups of a shard may have under way together, and how much of it one group may have
//! (decision 0029).
//!
//! A group may have at most as much as is left for the others. So one busy group gets a half, two
//! get a third each, and whoever comes next finds room: nobody can take all of it, nobody has to
//! give anything back, and nothing is kept of who had what.

use crate::group::Group;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};

/// What waits: writes that are proposed and not yet applied, with the bytes of their records; or frames
/// of reads, with theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Pending {
    /// The writes of one group.
    pub(crate) fn of(group: &Group) -> Self {
        Self { count: group.waiting.len(), bytes: group.waiting_bytes }
    }

    /// One more waits.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    /// So much waits no more.
    pub(crate) fn remove(&mut self, gone: Self) {
        self.count -= gone.count;
        self.bytes -= gone.bytes;
    }

    /// A group that had `before` has `now`.
    pub(crate) fn change(&mut self, before: Self, now: Self) {
        self.count = self.count + now.count - before.count;
        self.bytes = self.bytes + now.bytes - before.bytes;
    }

    /// Below this a group takes another, if it has `own` of all these, `all` groups together
    /// may have that many, and one alone `one`.
    pub(crate) fn most(self, own: Self, all: Self, one: Self) -> Self {
        #[cfg(ringraft_plant)]
        if planted(Plant::ShareIgnored) {
            return one;
        }
        Self {
            count: share(self.count - own.count, all.count).min(one.count),
            bytes: share(self.bytes - own.bytes, all.bytes).min(one.bytes),
        }
    }
}

/// Half of what the others leave.
const fn share(others: usize, all: usize) -> usize {
    all.saturating_sub(others).div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: busy groups come to equal parts, whoever came first, and leave one part free; all
    /// together never have more than they may.
    #[test]
    fn busy_groups_have_equal_parts() {
        let all = Pending { count: 1_200, bytes: 120_000 };
        let one = Pending { count: 1_000, bytes: 1_000_000 };
        let write = |own: &mut Pending, pending: &mut Pending| {
            let most = pending.most(*own, all, one);
            let is_taken = own.count < most.count && own.bytes < most.bytes;
            if is_taken {
                let before = *own;
                *own = Pending { count: own.count + 1, bytes: own.bytes + 100 };
                pending.change(before, *own);
            }
            is_taken
        };
        for busy in 1..8 {
            let (mut groups, mut pending) = (vec![Pending::default(); busy], Pending::default());
            // The first fills its part before anybody else comes.
            while write(&mut groups[0], &mut pending) {}
            assert_eq!(groups[0].count, 600, "a half");
            for turn in 0..10_000 {
                let at = turn % busy;
                // What was applied makes room: a write a turn.
                if groups[at].count > 1_200 / (busy + 1) {
                    let before = groups[at];
                    groups[at] = Pending { count: before.count - 1, bytes: before.bytes - 100 };
                    pending.change(before, groups[at]);
                }
                for _ in 0..10 {
                    write(&mut groups[at], &mut pending);
                }
                assert!(pending.count <= all.count && pending.bytes <= all.bytes);
            }
            for own in &groups {
                let part = 1_200 / (busy + 1);
                assert!(own.count.abs_diff(part) <= 2, "{busy} busy: {groups:?}");
            }
            let mut late = Pending::default();
            assert!(write(&mut late, &mut pending), "who comes next finds room");
        }
    }
}
