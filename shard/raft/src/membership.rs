//! Who votes, as the log says. A configuration is in force as soon as it is in the log, committed
//! or not (thesis 4.1), and no longer than its entry is; so those before it are kept, back to the
//! newest that is committed.
//!
//! ```text
//!   index   1  2  3  4  5  6  7  8        older    = [the one of 2, the one of 4]
//!   entry   .  C  .  C  .  .  C  .        in force = that of 7
//!              commit = 3                 truncated from 6 on: that of 4 is in force again
//! ```
//! Every question about majorities is asked here: a joint configuration answers with the lesser of
//! its two (thesis 4.3), and nobody else knows.

use crate::quorum;
use crate::settings::Configured;
use ringraft_types::limits::NODES_MAX;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Configuration, Index, NodeId};

/// The configurations of a log that count still.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Those that may be in force again: the newest that is committed, then those after it. Empty:
    /// the one in force is committed.
    older: Vec<Configured>,
    /// The newest in the log.
    newest: Configured,
    /// Whether a step has to look after it: it changed, isn't committed, or is joint.
    is_moving: bool,
    /// Whether another one may be in force than when a step last looked.
    is_changed: bool,
    /// Whether the one in force was committed then.
    was_settled: bool,
}

/// Which voters said yes: a bit per position in either list of the configuration in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Votes {
    incoming: u16,
    outgoing: u16,
}

// A vote has a bit.
const _: () = assert!(NODES_MAX <= 16);

impl Membership {
    /// The configuration before the log, and those in its entries, ascending.
    pub(crate) fn new(before: Configured, logged: Vec<Configured>) -> Self {
        let mut membership = Self {
            older: Vec::new(),
            newest: before,
            is_moving: true,
            is_changed: false,
            was_settled: true,
        };
        for one in logged {
            membership.append(one);
        }
        (membership.is_changed, membership.was_settled) = (false, membership.is_settled());
        membership
    }

    /// The one in force.
    pub(crate) fn in_force(&self) -> &Configured {
        #[cfg(ringraft_plant)]
        if planted(Plant::ConfigurationWhenCommitted) {
            return self.older.first().unwrap_or(&self.newest);
        }
        &self.newest
    }

    /// Whether anything may be to do because of it: nearly never.
    pub(crate) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// Says whether another one is in force than when this was asked last, and whether it has been
    /// committed since. Nobody has to look any more if it is to stay as it is; `is_leaving`: it
    /// leaves out this leader.
    pub(crate) fn look(&mut self, is_leaving: bool) -> (bool, bool) {
        let is_settled = self.is_settled();
        let is_new = std::mem::take(&mut self.is_changed);
        let was_settled = std::mem::replace(&mut self.was_settled, is_settled);
        self.is_moving = is_leaving || !is_settled || self.newest.configuration.is_joint();
        (is_new, is_settled && (is_new || !was_settled))
    }

    fn configuration(&self) -> &Configuration {
        &self.in_force().configuration
    }

    /// Whether the one in force is committed, as far as this node knows.
    pub(crate) fn is_settled(&self) -> bool {
        self.older.is_empty()
    }

    /// All that may be in force, the newest last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Configured> {
        self.older.iter().chain([&self.newest])
    }

    /// The one that is in force where the log ends here; not before what is committed.
    pub(crate) fn at(&self, index: Index) -> &Configured {
        let mut all = self.all().take_while(|one| one.index <= index);
        let first = all.next().expect("the oldest is committed");
        all.last().unwrap_or(first)
    }

    /// The log's next entries hold this one.
    pub(crate) fn append(&mut self, next: Configured) {
        assert!(next.index > self.newest.index, "configurations are in the order of the log");
        self.older.push(std::mem::replace(&mut self.newest, next));
        (self.is_moving, self.is_changed) = (true, true);
    }

    /// The log ends before this entry now.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        #[cfg(ringraft_plant)]
        if planted(Plant::ConfigurationKept) {
            return;
        }
        while self.newest.index >= index {
            self.newest = self.older.pop().expect("a committed one is never removed (I-02)");
            (self.is_moving, self.is_changed) = (true, true);
        }
    }

    /// Entries up to here are committed: what was before the newest of them is of no use.
    #[inline]
    pub(crate) fn commit_to(&mut self, commit: Index) {
        if self.older.is_empty() {
            return;
        }
        self.forget_before(commit);
    }

    #[cold]
    fn forget_before(&mut self, commit: Index) {
        if self.newest.index <= commit {
            self.older.clear();
        } else {
            let committed = self.older.partition_point(|one| one.index <= commit);
            self.older.drain(..committed.saturating_sub(1));
        }
    }

    /// A snapshot took the place of the log up to `covered`, with what it knows; the log goes on up
    /// to `last`.
    pub(crate) fn install(&mut self, covered: Index, configured: &Configured, last: Index) {
        #[cfg(ringraft_plant)]
        if planted(Plant::SnapshotConfigurationIgnored) {
            return;
        }
        assert!(configured.index <= covered, "a snapshot knows what it covers");
        let is_later = |one: &&Configured| one.index > covered && one.index <= last;
        let later = self.all().filter(is_later).cloned().collect();
        let installed = Self::new(configured.clone(), later);
        let is_changed = self.is_changed || installed.newest.index != self.newest.index;
        *self = Self { is_changed, was_settled: self.was_settled, ..installed };
    }

    /// Whether this node gets the log, or might again.
    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        self.all().any(|one| one.configuration.is_member(node))
    }

    /// Whether this node may stand for election, by a configuration that means this life of it.
    /// One that the configuration in force leaves out may as long as it doesn't know that this is
    /// committed: it may be the only one that has the entry, and whom it names can't be elected
    /// without it (thesis 4.2.2).
    pub(crate) fn may_stand(&self, node: NodeId) -> bool {
        self.all().any(|one| one.configuration.is_voter(node) && !one.is_of_another)
    }

    /// Whether this node alone is a majority.
    pub(crate) fn is_alone(&self, node: NodeId) -> bool {
        let Configured { configuration, is_of_another, .. } = self.in_force();
        let is_alone = configuration.voters() == [node]
            && [&[], &[node][..]].contains(&configuration.outgoing());
        is_alone && !is_of_another
    }

    /// Marks a voter's yes; somebody else's counts for nothing.
    pub(crate) fn count(&self, votes: &mut Votes, node: NodeId) {
        let bit = |voters: &[NodeId]| {
            voters.iter().position(|&voter| voter == node).map_or(0, |position| 1 << position)
        };
        votes.incoming |= bit(self.configuration().voters());
        votes.outgoing |= bit(self.configuration().outgoing());
    }

    /// Whether a majority said yes, and of a joint configuration both.
    pub(crate) fn is_won(&self, votes: Votes) -> bool {
        let is_won = |bits: u16, voters: &[NodeId]| {
            bits.count_ones() as usize >= quorum::majority(voters.len())
        };
        let (voters, outgoing) = self.majorities();
        is_won(votes.incoming, voters) && (outgoing.is_empty() || is_won(votes.outgoing, outgoing))
    }

    /// The greatest value that a majority has reached, given each voter's own; of a joint
    /// configuration, that both have.
    pub(crate) fn agreed<T: Copy + Default + Ord>(&self, of: impl Fn(NodeId) -> T) -> T {
        self.reached(quorum::majority, of)
    }

    /// The same of those who are enough to commit: half of an even number, if that is so set.
    pub(crate) fn reached_to_commit<T: Copy + Default + Ord>(
        &self,
        commits_by_half: bool,
        of: impl Fn(NodeId) -> T,
    ) -> T {
        self.reached(if commits_by_half { quorum::half } else { quorum::majority }, of)
    }

    #[inline]
    fn reached<T: Copy + Default + Ord>(
        &self,
        enough: fn(usize) -> usize,
        of: impl Fn(NodeId) -> T,
    ) -> T {
        let (voters, outgoing) = self.majorities();
        let agreed = agreed_by(voters, enough, &of);
        #[cfg(ringraft_plant)]
        if planted(Plant::LearnerCounted) {
            let learners = self.configuration().learners();
            let room = NODES_MAX - voters.len();
            let counted = [voters, &learners[..learners.len().min(room)]].concat();
            return agreed_by(&counted, enough, &of);
        }
        if outgoing.is_empty() {
            return agreed;
        }
        agreed.min(agreed_by(outgoing, enough, &of))
    }

    /// Whose majorities decide.
    fn majorities(&self) -> (&[NodeId], &[NodeId]) {
        let configuration = self.configuration();
        let (voters, outgoing) = (configuration.voters(), configuration.outgoing());
        #[cfg(ringraft_plant)]
        if planted(Plant::NewMajorityOnly) {
            return (voters, &[]);
        }
        #[cfg(ringraft_plant)]
        if planted(Plant::OldMajorityOnly) && !outgoing.is_empty() {
            return (outgoing, &[]);
        }
        (voters, outgoing)
    }

    /// Walks everything; for debug assertions.
    pub(crate) fn is_sound(&self, commit: Index, last: Index) -> bool {
        let ascends = self.older.is_sorted_by(|a, b| a.index < b.index)
            && self.older.last().is_none_or(|one| one.index < self.newest.index);
        let is_bounded = self.all().skip(1).all(|one| one.index > commit);
        let is_held = self.newest.index <= last;
        let is_rooted = self.all().next().is_some_and(|one| one.index <= commit);
        ascends && is_bounded && is_held && is_rooted
    }
}

#[inline]
fn agreed_by<T: Copy + Default + Ord>(
    voters: &[NodeId],
    enough: fn(usize) -> usize,
    of: &impl Fn(NodeId) -> T,
) -> T {
    let mut values = [T::default(); NODES_MAX];
    let values = &mut values[..voters.len()];
    for (value, &voter) in values.iter_mut().zip(voters) {
        *value = of(voter);
    }
    quorum::agreed(values, enough(voters.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_types::Phase;

    fn ids(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn stable(index: u64, voters: &[u32]) -> Configured {
        let configuration = Configuration::first(ids(voters), Vec::new()).expect("it is sound");
        Configured { index: Index(index), configuration, is_of_another: false }
    }

    fn joint(voters: &[u32], outgoing: &[u32]) -> Membership {
        let (voters, outgoing) = (ids(voters), ids(outgoing));
        let joint = Configuration::new(Phase::Joint, voters, outgoing, Vec::new(), Index::ZERO);
        let configuration = joint.expect("it is sound");
        let joint = Configured { index: Index(3), configuration, is_of_another: false };
        Membership::new(joint, Vec::new())
    }

    /// Every subset of the voters of joint configurations, against a plain count of both halves.
    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        for (new, old) in
            [(&[1, 2, 3][..], &[3, 4, 5][..]), (&[4, 5], &[1, 2, 3]), (&[2], &[1, 2]), (&[1], &[2])]
        {
            let membership = joint(new, old);
            for subset in 0..64u32 {
                let says = |id: &&u32| subset & 1 << **id != 0;
                let has = |half: &[u32]| half.iter().filter(says).count() * 2 > half.len();
                let mut votes = Votes::default();
                for id in (1..6).filter(|id| says(&id)) {
                    membership.count(&mut votes, NodeId(id));
                }
                let expected = has(new) && has(old);
                assert_eq!(membership.is_won(votes), expected, "{subset:b} of {new:?}, {old:?}");
                let agreed = membership.agreed(|node| u8::from(says(&&node.0)));
                assert_eq!(agreed == 1, expected);
            }
        }
    }

    /// What is kept is what a truncation may bring back, and no more.
    #[test]
    fn configurations_come_and_go_with_their_entries() {
        let mut membership =
            Membership::new(stable(0, &[1]), vec![stable(4, &[2]), stable(6, &[3])]);
        membership.append(stable(9, &[4]));
        let in_force = |membership: &Membership| membership.in_force().index.0;
        let kept = |membership: &Membership| membership.all().count();
        assert_eq!((in_force(&membership), kept(&membership)), (9, 4));
        assert_eq!(
            [0, 3, 4, 5, 8, 20].map(|at| membership.at(Index(at)).index.0),
            [0, 0, 4, 4, 6, 9]
        );
        membership.commit_to(Index(5));
        assert_eq!((kept(&membership), membership.is_settled()), (3, false));
        membership.truncate_from(Index(10));
        assert_eq!(in_force(&membership), 9);
        membership.truncate_from(Index(6));
        assert_eq!((in_force(&membership), membership.is_settled()), (4, true));
        membership.append(stable(7, &[5]));
        assert!(
            membership.is_sound(Index(6), Index(7)) && !membership.is_sound(Index(7), Index(7))
        );
        membership.commit_to(Index(7));
        assert!(membership.is_settled() && membership.is_sound(Index(7), Index(7)));
    }

    /// A snapshot's configuration takes the place of what it covers; what follows in the log stays.
    #[test]
    fn a_snapshot_brings_its_configuration() {
        for (covered, last) in [(5, 9), (6, 9), (8, 9), (9, 9), (5, 5), (5, 8), (10, 10)] {
            let logged = vec![stable(4, &[2]), stable(6, &[3]), stable(9, &[4])];
            let mut membership = Membership::new(stable(0, &[1]), logged);
            membership.install(Index(covered), &stable(5, &[7]), Index(last));
            let indexes: Vec<u64> = membership.all().map(|one| one.index.0).collect();
            let later = [6, 9].into_iter().filter(|&index| index > covered && index <= last);
            assert_eq!(indexes, [5].into_iter().chain(later).collect::<Vec<_>>());
        }
    }
}
