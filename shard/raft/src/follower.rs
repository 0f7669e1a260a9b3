//! A follower takes the leader's entries and word, and answers once its own disk is done.

use crate::input::{Entries, EntryHead};
use crate::log::Log;
use crate::message::{Append, AppendOutcome, Message};
use crate::output::{Envelope, Gated, Install, Output};
use crate::replica::Replica;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, LogId, NodeId, Term, Ticks};

#[derive(Debug)]
pub(crate) struct Follower {
    leader: Option<NodeId>,
    /// When to stand for election.
    election_at: Ticks,
    /// It waits for no heartbeats: the owner says if the leader's shard is silent.
    hibernates: bool,
}

impl Follower {
    /// Follows nobody yet.
    pub(crate) fn waiting(election_at: Ticks) -> Self {
        Self { leader: None, election_at, hibernates: false }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn election_at(&self) -> Ticks {
        self.election_at
    }

    /// The term's leader was heard.
    pub(crate) fn hear(&mut self, leader: NodeId, election_at: Ticks) {
        assert!(self.leader.is_none_or(|known| known == leader), "two leaders in a term (I-04)");
        self.leader = Some(leader);
        self.election_at = election_at;
        self.hibernates = false;
    }

    /// The term's leader, just heard, may be silent until `election_at`.
    pub(crate) fn hibernate(&mut self, election_at: Ticks) {
        assert!(self.leader.is_some(), "whoever hibernates rests on somebody");
        self.election_at = election_at;
        self.hibernates = true;
    }

    /// It waits for its leader again.
    pub(crate) fn wake(&mut self, election_at: Ticks) {
        self.election_at = election_at;
        self.hibernates = false;
    }

    pub(crate) fn hibernates(&self) -> bool {
        self.hibernates
    }

    /// A vote was given: its candidate gets the time to win (thesis 3.4).
    pub(crate) fn postpone(&mut self, election_at: Ticks) {
        self.election_at = election_at;
    }
}

/// Takes an append of this term's leader (thesis 3.5, AppendEntries rules 2 to 5).
pub(crate) fn take_append(
    replica: &mut Replica,
    from: NodeId,
    append: Append,
    entries: Entries<'_>,
    out: &mut Output,
) {
    let Append { term, prev, commit, .. } = append;
    let heads = entries.heads;
    assert_eq!(term, replica.term());
    let log = replica.log();
    // Below the base everything is committed: the same in every log.
    let agrees = log.term_at(prev.index) == Some(prev.term);
    #[cfg(ringraft_plant)]
    let agrees = agrees || (planted(Plant::PrevTermUnchecked) && prev.index <= log.last());
    if prev.index >= log.base().index && !agrees {
        assert!(prev.index > replica.commit(), "leader {from} lacks what is committed (I-05)");
        let hint = log.newest_at_most(prev.index, prev.term);
        reject(replica, from, term, prev.index, hint, out);
        return;
    }
    let matched = Index(prev.index.0 + heads.len() as u64);
    let missing = first_missing(replica.log(), prev.index, heads);
    if missing <= matched {
        if missing <= replica.log().last() {
            replica.truncate_from(missing, out);
        }
        assert_eq!(missing, replica.log().last().next(), "no gap in a log");
        replica.append_entries(entries.since(prev.index.next(), missing), out);
    }
    #[cfg(ringraft_plant)]
    if planted(Plant::TailTruncated) && missing > matched {
        let kept = matched.max(replica.commit());
        if kept < replica.log().last() {
            replica.truncate_from(kept.next(), out);
        }
    }
    #[cfg(ringraft_plant)]
    if planted(Plant::AppendCommitUncut) {
        replica.commit_to(commit.min(replica.log().last()), out);
    }
    replica.commit_to(commit.min(matched), out);
    replica.send_gated(from, accepted(replica, matched), matched, out);
}

/// The first of an append's entries that the log lacks or holds otherwise; the one after the
/// append if none. The log holds the append's `prev`, or it lies below the base.
fn first_missing(log: &Log, prev: Index, heads: &[EntryHead]) -> Index {
    let is_same =
        |index: Index| log.term_at(index) == Some(heads[(index.0 - prev.0 - 1) as usize].term);
    let matched = Index(prev.0 + heads.len() as u64);
    let mut first = prev.max(log.base().index).next();
    let held = matched.min(log.last());
    if held < first {
        return first.min(matched.next());
    }
    // Two logs that agree at one entry agree at all before it (I-05): the last one held tells.
    if is_same(held) {
        return held.next();
    }
    while is_same(first) {
        first = first.next();
    }
    first
}

/// The word that the log agrees with that of this term's leader up to `matched`.
fn accepted(replica: &Replica, matched: Index) -> Message {
    let term = replica.term();
    let outcome = AppendOutcome::Accepted { matched };
    Message::AppendReply { term, append_term: term, outcome, commit: replica.commit() }
}

/// Refuses an append after `prev`, or an install. Nothing is promised but the term.
pub(crate) fn reject(
    replica: &Replica,
    from: NodeId,
    append_term: Term,
    prev: Index,
    hint: LogId,
    out: &mut Output,
) {
    let reply = Message::AppendReply {
        term: replica.term(),
        append_term,
        outcome: AppendOutcome::Rejected { prev, hint },
        commit: replica.commit(),
    };
    replica.send_gated(from, reply, Index::ZERO, out);
}

/// Hears that this term's leader holds nothing up to `base` any more. Whoever has that much says
/// so, however often it is asked: the leader goes on from there, and the asking ends.
pub(crate) fn take_install(replica: &mut Replica, from: NodeId, base: LogId, out: &mut Output) {
    if replica.log().term_at(base.index) == Some(base.term) {
        replica.commit_to(base.index, out);
    }
    if base.index > replica.commit() {
        out.install = Some(Install { from, base });
        return;
    }
    replica.send_gated(from, accepted(replica, base.index), base.index, out);
}

/// Tells the leader, if there is one, that a snapshot up to `last` is loaded here; once what this
/// step persists is durable.
pub(crate) fn report_installed(
    replica: &Replica,
    leader: Option<NodeId>,
    last: Index,
    out: &mut Output,
) {
    let (Some(to), Some(token)) = (leader, out.token) else { return };
    let envelope = Envelope { to, message: accepted(replica, last) };
    out.send_after_persist.push(Gated { token, envelope });
}

/// What a heartbeat of this term's leader says.
pub(crate) struct Heard {
    pub(crate) commit: Index,
    pub(crate) round: u64,
    /// The leader asks for it, and nothing that this node does for others forbids it.
    pub(crate) may_hibernate: bool,
}

/// Takes a heartbeat of this term's leader. It moves the commit index, never what is matched. Says
/// whether it hibernates.
pub(crate) fn take_heartbeat(
    replica: &mut Replica,
    from: NodeId,
    Heard { commit, round, may_hibernate }: Heard,
    out: &mut Output,
) -> bool {
    // The leader has cut it to what this node acknowledged; after rot the log may be shorter.
    replica.commit_to(commit.min(replica.log().last()), out);
    let hibernates = may_hibernate && commit == replica.commit() && replica.is_at_rest();
    let (term, commit) = (replica.term(), replica.commit());
    let reply = Message::HeartbeatReply { term, round, commit, hibernates };
    replica.send_gated(from, reply, Index::ZERO, out);
    hibernates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::LogShape;

    /// Every append that a leader may send to this log, below its base and beyond its end.
    #[test]
    fn first_missing_is_as_a_walk_says() {
        let base = LogId::new(Term(2), Index(3));
        let runs = vec![(Index(4), Term(2)), (Index(6), Term(4))];
        let log = Log::new(LogShape { base, runs, last: Index(8) });
        let held = [1, 1, 2, 2, 2, 4, 4, 4];
        // The leader's log agrees up to `agree`, and is of term 5 from there on.
        for agree in 3..=8u64 {
            for prev in 0..=agree {
                for end in prev..=10 {
                    let term = |at: u64| if at <= agree { held[at as usize - 1] } else { 5 };
                    let heads: Vec<EntryHead> = (prev + 1..=end)
                        .map(|at| EntryHead { term: Term(term(at)), bytes: 48 })
                        .collect();
                    let walk = (agree + 1).min(end + 1);
                    assert_eq!(first_missing(&log, Index(prev), &heads), Index(walk));
                }
            }
        }
    }
}
