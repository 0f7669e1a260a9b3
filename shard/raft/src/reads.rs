//! Linearizable reads without the log (ReadIndex, thesis 6.4).
//!
//! A read waits for a round of heartbeats that began after it arrived. A round's number is unique
//! within the term and ascends, so the answer to round r confirms every round up to r, and an old
//! answer confirms nothing newer.
//!
//! ```text
//!   tickets   [ a b c | d | e f   g h ]       front: oldest
//!   rounds      r=7     r=8   (next)          counts 3, 1; the rest waits for `begin`
//! ```
//! What other nodes ask for their own reads (`questions`) shares the rounds: of each node the newest
//! question waits for the next one, and its answer is for those before it as well.

use crate::message::Message;
use crate::output::{Envelope, Output, ReadReady};
use ringraft_types::{Index, NodeId, Term};
use std::collections::VecDeque;

/// Rounds under way; while there are so many, no node's question is taken: it asks again. Rounds of
/// this node's own reads have their bound in the reads.
const ROUNDS_ASKED_MAX: usize = 1024;

#[derive(Debug)]
struct Round {
    number: u64,
    /// The commit index when it began.
    index: Index,
    /// How many reads it confirms.
    count: usize,
    /// The questions that it answers.
    asks: Vec<Ask>,
}

/// A node's question.
#[derive(Clone, Copy, Debug)]
struct Ask {
    from: NodeId,
    question: u64,
}

/// A leader's reads, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    tickets: VecDeque<u64>,
    rounds: VecDeque<Round>,
    /// The newest question of each node that waits for a round.
    asks: Vec<Ask>,
    /// How many of `tickets`, the oldest, belong to `rounds`.
    begun: usize,
    /// The newest round's number; zero: none yet in this term.
    newest: u64,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn push(&mut self, ticket: u64) {
        self.tickets.push_back(ticket);
    }

    /// A node asks what its reads must see.
    pub(crate) fn ask(&mut self, from: NodeId, question: u64) {
        if self.rounds.len() >= ROUNDS_ASKED_MAX {
            return;
        }
        match self.asks.iter_mut().find(|ask| ask.from == from) {
            Some(ask) => ask.question = question,
            None => self.asks.push(Ask { from, question }),
        }
    }

    /// The newest round begun.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether reads wait for a round to begin.
    pub(crate) fn is_waiting(&self) -> bool {
        self.begun < self.tickets.len() || !self.asks.is_empty()
    }

    /// Whether rounds have begun that aren't confirmed.
    pub(crate) fn is_confirming(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Begins a round for all that wait.
    pub(crate) fn begin(&mut self, commit: Index) {
        assert!(self.is_waiting());
        self.newest += 1;
        let count = self.tickets.len() - self.begun;
        let asks = std::mem::take(&mut self.asks);
        self.rounds.push_back(Round { number: self.newest, index: commit, count, asks });
        self.begun = self.tickets.len();
    }

    /// Begins a round that no read waits for.
    pub(crate) fn begin_bare(&mut self) {
        self.newest += 1;
    }

    /// Enough voters answered round `number`, or a newer one, of this leader's term.
    pub(crate) fn confirm(&mut self, number: u64, term: Term, out: &mut Output) {
        while self.rounds.front().is_some_and(|round| round.number <= number) {
            let round = self.rounds.pop_front().expect("just seen");
            self.begun -= round.count;
            let tickets = self.tickets.drain(..round.count);
            out.reads.extend(tickets.map(|ticket| ReadReady { ticket, index: round.index }));
            out.send_now.extend(round.asks.into_iter().map(|Ask { from: to, question }| {
                let message = Message::ReadAnswer { term, question, index: round.index };
                Envelope { to, message }
            }));
        }
    }

    /// Leadership is lost: nobody answers these.
    pub(crate) fn lose(self, out: &mut Output) {
        out.reads_lost.extend(self.tickets);
    }
}
