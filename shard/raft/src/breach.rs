//! What no node may say: judged before a message is stepped, so that another node's mistake, or
//! malice, costs its link and not this node.
//!
//! The assertions of the protocol stay behind this; they speak of this node's own mistakes then.
//! What can't be told from a sound message by one node alone (a false acknowledgement of an entry
//! that exists, a false vote) passes.

use crate::change;
use crate::input::{Entries, EntryHead};
use crate::message::{Append, AppendOutcome, Message};
use crate::raft::Raft;
use crate::role::Role;
use ringraft_types::{Index, LogId, NodeId, Term};

/// Terms and indexes above this come from a broken peer: no log gets there, and counting on from
/// them would end in an overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// A promise that the sender of a message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// A term that nobody can lead or stand in.
    #[error("term zero, in which nobody leads or stands")]
    TermZero,
    /// A number that no log reaches.
    #[error("the number {0}, which no log reaches")]
    OutOfReach(u64),
    /// Terms of a log never descend.
    #[error("a term goes back after entry {after}")]
    TermGoesBack {
        /// The last entry that is right.
        after: Index,
    },
    /// An entry of a later term than its leader's.
    #[error("an entry of term {entry} from a leader of term {term}")]
    TermAhead {
        /// The entry's.
        entry: Term,
        /// The leader's.
        term: Term,
    },
    /// The term has a leader, and it is another node (I-04).
    #[error("it claims to lead in term {term}, in which node {leader} leads")]
    SecondLeader {
        /// The term.
        term: Term,
        /// Who leads.
        leader: NodeId,
    },
    /// A leader's log must hold what is committed (I-05).
    #[error("its log differs at entry {index}, which is committed")]
    LacksCommitted {
        /// The entry.
        index: Index,
    },
    /// A log begins after an entry, and after a committed one only.
    #[error("its log begins after entry {base}, with entries up to {commit} committed")]
    BaseUncommitted {
        /// Where it says that its log begins.
        base: LogId,
        /// What it says is committed.
        commit: Index,
    },
    /// One change at a time, each from the configuration before it (V6).
    #[error("the configuration of entry {index} can't follow the one before it")]
    WrongConfiguration {
        /// The entry.
        index: Index,
    },
    /// An acknowledgement of what was never sent.
    #[error("it acknowledges entry {matched}, the newest is {last}")]
    NeverSent {
        /// What it acknowledges.
        matched: Index,
        /// This leader's newest entry.
        last: Index,
    },
    /// An answer to a read round that never began.
    #[error("it answers read round {round}, the newest is {newest}")]
    NeverAsked {
        /// What it answers.
        round: u64,
        /// This leader's newest round.
        newest: u64,
    },
}

impl Raft {
    /// Whether a message may be stepped; `entries` are an append's. The owner asks before it steps
    /// anything that another node said, and closes the link to one who breaks its promises.
    ///
    /// # Errors
    /// If the sender broke a promise.
    pub fn judge(
        &self,
        from: NodeId,
        message: &Message,
        entries: Entries<'_>,
    ) -> Result<(), Breach> {
        let term = match *message {
            Message::PreVote { term, .. }
            | Message::Vote { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::TimeoutNow { term }
            | Message::ReadAsk { term, .. }
            | Message::ReadAnswer { term, .. }
            | Message::Install { term, .. }
            | Message::Append(Append { term, .. })
                if term == Term::ZERO =>
            {
                return Err(Breach::TermZero);
            }
            Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append(Append { term, .. })
            | Message::AppendReply { term, .. }
            | Message::Install { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::TimeoutNow { term }
            | Message::ReadAsk { term, .. }
            | Message::ReadAnswer { term, .. }
            | Message::HeartbeatReply { term, .. } => term,
        };
        if term.0 > NUMBER_MAX {
            return Err(Breach::OutOfReach(term.0));
        }
        match *message {
            Message::Heartbeat { term, .. } | Message::TimeoutNow { term } => {
                self.judge_leader(from, term)
            }
            Message::ReadAnswer { term, index, .. } => {
                if index.0 > NUMBER_MAX {
                    return Err(Breach::OutOfReach(index.0));
                }
                self.judge_leader(from, term)
            }
            Message::Append(append) => {
                self.judge_leader(from, append.term)?;
                judge_entries(&append, entries.heads)?;
                self.judge_history(append.term, append.prev, entries.heads)?;
                self.judge_configurations(&append, entries)
            }
            Message::Install { term, base, commit } => {
                self.judge_leader(from, term)?;
                judge_base(term, base, commit)?;
                let after = self.commit();
                let is_later = base.index > after && term >= self.term();
                if is_later && Some(base.term) < self.term_at(after) {
                    return Err(Breach::TermGoesBack { after });
                }
                self.judge_history(term, base, &[])
            }
            Message::AppendReply {
                term,
                append_term,
                outcome: AppendOutcome::Accepted { matched },
                ..
            } => {
                let last = self.last();
                let counts = term <= self.term() && append_term == self.term();
                if counts && matches!(self.role, Role::Leader(_)) && matched > last {
                    return Err(Breach::NeverSent { matched, last });
                }
                Ok(())
            }
            Message::HeartbeatReply { term, round, .. } => match &self.role {
                Role::Leader(leader) if term == self.term() && round > leader.newest_round() => {
                    Err(Breach::NeverAsked { round, newest: leader.newest_round() })
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// One leader in a term.
    fn judge_leader(&self, from: NodeId, term: Term) -> Result<(), Breach> {
        match self.leader() {
            Some(leader) if term == self.term() && leader != from => {
                Err(Breach::SecondLeader { term, leader })
            }
            _ => Ok(()),
        }
    }

    /// What is committed here is in the log of every leader of this term or a later one.
    fn judge_history(&self, term: Term, prev: LogId, heads: &[EntryHead]) -> Result<(), Breach> {
        if term < self.term() {
            return Ok(());
        }
        let log = self.replica.log();
        let committed = log.base().index.0..=self.commit().0;
        if committed.contains(&prev.index.0) && log.term_at(prev.index) != Some(prev.term) {
            return Err(Breach::LacksCommitted { index: prev.index });
        }
        // A leader begins after what is known to agree, so this is rarely more than nothing.
        for (index, head) in (prev.index.0 + 1..=self.commit().0).zip(heads) {
            if committed.contains(&index) && log.term_at(Index(index)) != Some(head.term) {
                return Err(Breach::LacksCommitted { index: Index(index) });
            }
        }
        Ok(())
    }
}

impl Raft {
    /// The configurations of an append follow each other, and the one that is in force before them
    /// in the leader's log, if this node knows it from a log or a snapshot.
    fn judge_configurations(&self, append: &Append, entries: Entries<'_>) -> Result<(), Breach> {
        let Append { term, prev, .. } = *append;
        let held = self.commit().max(prev.index);
        let agrees = held > prev.index || self.term_at(prev.index) == Some(prev.term);
        if entries.configurations.is_empty() || term < self.term() || !agrees {
            return Ok(());
        }
        let mut before = self.replica.membership.at(held);
        for next in entries.configurations.iter().filter(|one| one.index > self.commit()) {
            if before.index > Index::ZERO && !change::follows(&next.configuration, before) {
                return Err(Breach::WrongConfiguration { index: next.index });
            }
            before = next;
        }
        Ok(())
    }
}

/// A leader's log begins after an entry of an earlier term or its own, which is committed.
fn judge_base(term: Term, base: LogId, commit: Index) -> Result<(), Breach> {
    if commit.0 > NUMBER_MAX {
        return Err(Breach::OutOfReach(commit.0));
    }
    if base.term > term {
        return Err(Breach::TermAhead { entry: base.term, term });
    }
    let is_entry = base.index > Index::ZERO && base.term > Term::ZERO;
    if !is_entry || base.index > commit {
        return Err(Breach::BaseUncommitted { base, commit });
    }
    Ok(())
}

/// The entries of an append follow each other in the order of their terms.
fn judge_entries(append: &Append, heads: &[EntryHead]) -> Result<(), Breach> {
    let Append { term, prev, .. } = *append;
    let newest = prev.index.0.saturating_add(heads.len() as u64);
    if newest > NUMBER_MAX {
        return Err(Breach::OutOfReach(newest));
    }
    let mut before = prev.term;
    for (after, head) in (prev.index.0..).zip(heads) {
        if head.term < before {
            return Err(Breach::TermGoesBack { after: Index(after) });
        }
        before = head.term;
    }
    if before > term {
        return Err(Breach::TermAhead { entry: before, term });
    }
    Ok(())
}
