//! What must hold of one state, and between two. Checked at the end of every step: in constant
//! time always, by walking in debug builds.

use crate::floor::Floor;
use crate::input::Input;
use crate::message::Message;
use crate::output::{Output, RoleKind};
use crate::raft::Raft;
use crate::role::Role;
use ringraft_types::{Index, NodeId, Term};

/// What a step must not break, as it was before it.
pub(crate) struct Before {
    term: Term,
    vote: Option<NodeId>,
    commit: Index,
    persisted: Index,
    last: Index,
    role: RoleKind,
    leader: Option<NodeId>,
    floor: Option<Floor>,
    /// The owner says, or a snapshot proves, that nothing unreadable is needed any more.
    may_be_read: bool,
}

impl Before {
    #[inline]
    pub(crate) fn of(raft: &Raft, input: &Input<'_>) -> Self {
        Self {
            term: raft.term(),
            vote: raft.vote(),
            commit: raft.commit(),
            persisted: raft.persisted(),
            last: raft.last(),
            role: raft.role(),
            leader: raft.leader(),
            floor: raft.replica.floor,
            may_be_read: matches!(input, Input::Mended | Input::Installed { .. }),
        }
    }

    /// Checks the state after the step and the step itself; notes whether the role changed.
    #[inline]
    pub(crate) fn check(self, raft: &Raft, out: &mut Output) {
        let role = raft.role();
        out.role_changed |=
            role != self.role || raft.term() != self.term || raft.leader() != self.leader;
        check_state(raft);
        self.check_step(raft, out);
        check_output(raft, out);
        debug_assert!(raft.replica.log().is_sound());
        debug_assert!(raft.replica.membership.is_sound(raft.commit(), raft.last()));
        if let Role::Leader(leader) = &raft.role {
            debug_assert!(leader.peers().iter().all(|peer| peer.is_sound(&raft.replica)));
        }
    }

    #[inline]
    fn check_step(&self, raft: &Raft, out: &Output) {
        // I-02: term, vote in term and commit never go back.
        assert!(raft.term() >= self.term);
        if raft.term() == self.term && self.vote.is_some() {
            assert_eq!(raft.vote(), self.vote);
        }
        assert!(raft.commit() >= self.commit);
        // I-02: the log and what is durable of it go back by an explicit truncation only, and
        // never below what is committed.
        match out.truncate_from {
            None => {
                assert!(raft.last() >= self.last);
                assert!(raft.persisted() >= self.persisted);
            }
            Some(index) => {
                assert!(index > self.commit);
                assert!(index <= self.last);
                // A pre-candidate still takes what a leader sent before it resigned.
                assert!(matches!(raft.role(), RoleKind::Follower | RoleKind::PreCandidate));
            }
        }
        // I-13: a floor is never lowered, and lifted only when the step says so. What was lost and
        // comes back can be proven; what can't be read can't: the owner has to say it.
        let (floor, before) = (raft.replica.floor, self.floor);
        assert_eq!(out.repaired, before.is_some() && floor.is_none());
        if let (Some(before), Some(now)) = (before, floor) {
            assert!(now.id() >= before.id());
        }
        if matches!(before, Some(Floor::Unreadable(_))) && !self.may_be_read {
            assert!(matches!(floor, Some(Floor::Unreadable(_))));
        }
        // Thesis 3.4: a leader of a term was its candidate.
        if raft.role() == RoleKind::Leader && self.role != RoleKind::Leader {
            assert_eq!(self.role, RoleKind::Candidate);
        }
        // Whatever changed is persisted.
        if raft.term() != self.term || raft.vote() != self.vote {
            assert!(out.hard_state.is_some());
        }
        assert_eq!(out.committed, (raft.commit() > self.commit).then_some(raft.commit()));
    }
}

/// One state.
#[inline]
fn check_state(raft: &Raft) {
    let durable = raft.replica.durable();
    // I-01.
    // The base moves where `Replica` says so, and nowhere else.
    debug_assert!(raft.base().index <= raft.commit().min(raft.persisted()));
    assert!(raft.commit() <= raft.last());
    assert!(raft.persisted() <= raft.last());
    assert!(durable.done() <= durable.newest());
    // Only the leader that this node follows now may answer what is asked (thesis 6.4).
    if !raft.questions.is_empty() {
        assert_eq!(raft.role(), RoleKind::Follower);
        assert_eq!(Some(raft.questions.whom()), raft.leader().map(|leader| (raft.term(), leader)));
    }
    match raft.role() {
        RoleKind::Follower => {}
        RoleKind::PreCandidate => assert!(raft.replica.may_campaign()),
        RoleKind::Candidate => assert_eq!(raft.vote(), Some(raft.replica.id)),
        RoleKind::Leader => {
            // I-13: who lost entries can't bring the others up to date.
            assert!(raft.replica.floor.is_none());
            // I-03, V4: it leads by a durable vote of its own.
            assert_eq!(raft.vote(), Some(raft.replica.id));
            assert!(durable.is_hard_state_durable());
            // Its newest entry is of its own term: it appends one first of all.
            assert_eq!(raft.term_at(raft.last()), Some(raft.term()));
        }
    }
}

/// I-14: what is in force is what the log says, wherever that may have changed.
pub(crate) fn check_members(raft: &Raft) {
    let index = raft.configuration_index();
    assert!(index <= raft.last());
    assert_eq!(raft.is_configuration_committed(), index <= raft.commit());
}

/// What a step asks for.
#[inline]
fn check_output(raft: &Raft, out: &Output) {
    let persists = out.truncate_from.is_some() || out.append.is_some() || out.hard_state.is_some();
    assert_eq!(persists, out.token.is_some(), "a batch has a token, and a token a batch");
    if let Some(span) = out.append {
        assert!(span.first <= span.last);
        assert_eq!(span.last, raft.last());
    }
    if let Some(token) = out.token {
        assert_eq!(token, raft.replica.durable().newest());
    }
    // Only a follower that lacks what was offered fetches a snapshot.
    debug_assert!(out.install.is_none_or(|install| {
        install.base.index > raft.commit() && raft.role() != RoleKind::Leader
    }));
    // I-03: what promises something not durable yet is gated, and nothing else is.
    debug_assert!(out.send_now.iter().all(|envelope| match envelope.message {
        Message::Vote { .. } | Message::VoteReply { granted: true, .. } =>
            raft.replica.durable().is_hard_state_durable(),
        _ => true,
    }));
}
