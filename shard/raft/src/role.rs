//! The roles. What only a leader knows exists only while it leads.

use crate::candidate::{Candidate, Stage};
use crate::follower::Follower;
use crate::leader::Leader;
use crate::output::RoleKind;
use crate::replica::Replica;
use ringraft_types::{NodeId, Ticks};

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per group: a box would save little, and cost the leader a step to all it knows"
)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

impl Role {
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::Candidate(candidate) => match candidate.stage() {
                Stage::Asking => RoleKind::PreCandidate,
                Stage::Standing => RoleKind::Candidate,
            },
            Self::Leader(_) => RoleKind::Leader,
        }
    }

    /// Who leads, as far as a node in this role knows.
    pub(crate) fn leader(&self, own: NodeId) -> Option<NodeId> {
        match self {
            Self::Follower(follower) => follower.leader(),
            Self::Candidate(_) => None,
            Self::Leader(_) => Some(own),
        }
    }

    /// When this role wants a tick.
    pub(crate) fn wake_at(&self, replica: &Replica) -> Ticks {
        match self {
            Self::Follower(follower) if replica.may_campaign() => follower.election_at(),
            Self::Follower(_) => Ticks::NEVER,
            Self::Candidate(candidate) => candidate.election_at(),
            Self::Leader(leader) => leader.wake_at(),
        }
    }
}
