//! Who votes. Every question about majorities is asked here, so that a joint configuration
//! (thesis 4.3) later answers with the lesser of two majorities and nobody else changes.

use crate::quorum;
use ringraft_types::NodeId;
use ringraft_types::limits::NODES_MAX;

/// The voters of a group.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Ascending, without repetition; at most [`NODES_MAX`].
    voters: Vec<NodeId>,
}

/// Which voters said yes: a bit per position in [`Membership`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Votes(u16);

// A vote has a bit.
const _: () = assert!(NODES_MAX <= 16);

impl Membership {
    pub(crate) fn new(voters: Vec<NodeId>) -> Self {
        assert!(voters.len() <= NODES_MAX, "{} voters, at most {NODES_MAX}", voters.len());
        assert!(voters.is_sorted_by(|a, b| a < b), "voters must ascend without repetition");
        Self { voters }
    }

    pub(crate) fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
    }

    /// Whether this node alone is a majority.
    pub(crate) fn is_alone(&self, node: NodeId) -> bool {
        self.voters == [node]
    }

    /// Marks a voter's yes; somebody else's counts for nothing.
    pub(crate) fn count(&self, votes: &mut Votes, node: NodeId) {
        if let Some(position) = self.voters.iter().position(|&voter| voter == node) {
            votes.0 |= 1 << position;
        }
    }

    /// Whether a majority said yes.
    pub(crate) fn is_won(&self, votes: Votes) -> bool {
        votes.0.count_ones() as usize >= quorum::majority(self.voters.len())
    }

    /// The greatest value that a majority has reached, given each voter's own.
    pub(crate) fn agreed<T: Copy + Default + Ord>(&self, of: impl Fn(NodeId) -> T) -> T {
        let mut values = [T::default(); NODES_MAX];
        let values = &mut values[..self.voters.len()];
        for (value, &voter) in values.iter_mut().zip(&self.voters) {
            *value = of(voter);
        }
        quorum::agreed(values)
    }
}
