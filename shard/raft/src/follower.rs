//! A follower takes the leader's entries and word, and answers once its own disk is done.

use crate::input::EntryHead;
use crate::message::{Append, AppendOutcome, Message};
use crate::output::Output;
use crate::replica::Replica;
use ringraft_types::{Index, LogId, NodeId, Ticks};

#[derive(Debug)]
pub(crate) struct Follower {
    leader: Option<NodeId>,
    /// When the leader was last heard; means nothing without a leader.
    heard_at: Ticks,
    /// When to stand for election.
    election_at: Ticks,
}

impl Follower {
    /// Follows nobody yet.
    pub(crate) fn waiting(now: Ticks, election_at: Ticks) -> Self {
        Self { leader: None, heard_at: now, election_at }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn election_at(&self) -> Ticks {
        self.election_at
    }

    /// The term's leader was heard.
    pub(crate) fn hear(&mut self, leader: NodeId, now: Ticks, election_at: Ticks) {
        assert!(self.leader.is_none_or(|known| known == leader), "two leaders in a term (I-04)");
        self.leader = Some(leader);
        self.heard_at = now;
        self.election_at = election_at;
    }

    /// A vote was given: its candidate gets the time to win (thesis 3.4).
    pub(crate) fn postpone(&mut self, election_at: Ticks) {
        self.election_at = election_at;
    }

    /// Whether a leader other than `from` was heard within the election timeout: then nobody else
    /// gets a vote in a newer term (thesis 4.2.3).
    pub(crate) fn sticks_against(&self, from: NodeId, now: Ticks, replica: &Replica) -> bool {
        self.leader.is_some_and(|leader| leader != from)
            && now.since(self.heard_at) < replica.settings.election_timeout
    }
}

/// Takes an append of this term's leader (thesis 3.5, AppendEntries rules 2 to 5).
pub(crate) fn take_append(
    replica: &mut Replica,
    from: NodeId,
    append: Append,
    heads: &[EntryHead],
    out: &mut Output,
) {
    let Append { term, prev, commit, .. } = append;
    assert_eq!(term, replica.term());
    let log = replica.log();
    // Below the base everything is committed: the same in every log.
    if prev.index >= log.base().index && log.term_at(prev.index) != Some(prev.term) {
        assert!(prev.index > replica.commit(), "leader {from} lacks what is committed (I-05)");
        let hint = log.newest_at_most(prev.index, prev.term);
        reject(replica, from, append, hint, out);
        return;
    }
    let matched = Index(prev.index.0 + heads.len() as u64);
    let new = replica.log().last().0.max(prev.index.0).min(matched.0) - prev.index.0;
    let (held, mut rest) = heads.split_at(new as usize);
    // Two logs that agree at one entry agree at all before it: the last one held tells.
    let skipped = replica.log().base().index.0.saturating_sub(prev.index.0);
    let held = held.get(skipped as usize..).unwrap_or_default();
    let held_first = prev.index.0 + skipped + 1;
    let log = replica.log();
    let agrees = |position: usize| {
        log.term_at(Index(held_first + position as u64)) == Some(held[position].term)
    };
    if !held.is_empty() && !agrees(held.len() - 1) {
        let mut conflict = 0;
        while agrees(conflict) {
            conflict += 1;
        }
        let index = Index(held_first + conflict as u64);
        replica.truncate_from(index, out);
        rest = &heads[(index.0 - prev.index.0 - 1) as usize..];
    }
    if !rest.is_empty() {
        replica.append_heads(rest, out);
    }
    replica.commit_to(commit.min(matched), out);
    let outcome = AppendOutcome::Accepted { matched };
    let reply = Message::AppendReply { term, append_term: term, outcome, commit: replica.commit() };
    replica.send_gated(from, reply, matched, out);
}

/// Refuses an append. Nothing is promised but the term.
pub(crate) fn reject(
    replica: &Replica,
    from: NodeId,
    append: Append,
    hint: LogId,
    out: &mut Output,
) {
    let reply = Message::AppendReply {
        term: replica.term(),
        append_term: append.term,
        outcome: AppendOutcome::Rejected { prev: append.prev.index, hint },
        commit: replica.commit(),
    };
    replica.send_gated(from, reply, Index::ZERO, out);
}

/// Takes a heartbeat of this term's leader. It moves the commit index, never what is matched.
pub(crate) fn take_heartbeat(
    replica: &mut Replica,
    from: NodeId,
    commit: Index,
    round: u64,
    out: &mut Output,
) {
    // The leader has cut it to what this node acknowledged; after rot the log may be shorter.
    replica.commit_to(commit.min(replica.log().last()), out);
    let reply = Message::HeartbeatReply { term: replica.term(), round, commit: replica.commit() };
    replica.send_gated(from, reply, Index::ZERO, out);
}
