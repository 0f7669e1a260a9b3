//! Elections: first asking whether one could win (pre-vote, thesis 9.6), then standing.
//!
//! Asking changes nobody's term, so a node that can't win disturbs nobody. Standing persists the
//! own vote first; requests leave, and the own vote counts, only once it is durable (I-03).

use crate::membership::Votes;
use crate::message::Message;
use crate::output::{Envelope, Output};
use crate::replica::Replica;
use ringraft_types::{Index, NodeId, Ticks};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Pre-candidate.
    Asking,
    /// Candidate: the term is new, the vote is its own.
    Standing,
}

#[derive(Debug)]
pub(crate) struct Candidate {
    stage: Stage,
    votes: Votes,
    since: Ticks,
    /// When to begin again.
    election_at: Ticks,
}

impl Candidate {
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn election_at(&self) -> Ticks {
        self.election_at
    }

    /// Whether it has just asked for pre-votes: the question may still be on its way.
    pub(crate) fn has_just_asked(&self, now: Ticks, replica: &Replica) -> bool {
        let lately = replica.settings.heartbeat_interval;
        self.stage == Stage::Asking && now.since(self.since) < lately
    }

    /// Asks everybody for a pre-vote in the next term.
    pub(crate) fn ask(replica: &mut Replica, now: Ticks, out: &mut Output) -> Self {
        assert!(replica.may_campaign());
        let mut votes = Votes::default();
        replica.membership.count(&mut votes, replica.id);
        // Nothing is promised: no need to wait for the disk.
        let message = Message::PreVote { term: replica.term().next(), last: replica.vote_last() };
        out.send_now.extend(replica.others().map(|to| Envelope { to, message }));
        Self { stage: Stage::Asking, votes, since: now, election_at: replica.next_election(now) }
    }

    /// Enters the next term, votes for itself, asks everybody for a vote. `is_transfer`: its leader
    /// told it to.
    pub(crate) fn stand(
        replica: &mut Replica,
        now: Ticks,
        is_transfer: bool,
        out: &mut Output,
    ) -> Self {
        assert!(replica.may_campaign());
        let term = replica.term().next();
        replica.set_hard_state(term, Some(replica.id), out);
        let message = Message::Vote { term, last: replica.vote_last(), is_transfer };
        for to in replica.others() {
            replica.send_gated(to, message, Index::ZERO, out);
        }
        let election_at = replica.next_election(now);
        Self { stage: Stage::Standing, votes: Votes::default(), since: now, election_at }
    }

    /// Somebody granted what this stage asks for.
    pub(crate) fn count(&mut self, from: NodeId, replica: &Replica) {
        replica.membership.count(&mut self.votes, from);
    }

    /// Whether a majority granted. The own vote of a standing candidate counts once durable.
    pub(crate) fn is_won(&self, replica: &Replica) -> bool {
        let mut votes = self.votes;
        if self.stage == Stage::Standing {
            if !replica.durable().is_hard_state_durable() {
                return false;
            }
            replica.membership.count(&mut votes, replica.id);
        }
        replica.membership.is_won(votes)
    }

    /// The time is up. A candidate whose own vote isn't durable yet waits on: beginning again
    /// would wait for the same slow disk, once more.
    pub(crate) fn must_wait_for_disk(&self, replica: &Replica) -> bool {
        self.stage == Stage::Standing && !replica.durable().is_hard_state_durable()
    }

    pub(crate) fn wait_until(&mut self, election_at: Ticks) {
        self.election_at = election_at;
    }
}
