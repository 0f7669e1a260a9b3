//! Reads on a node that doesn't lead: it asks its leader what they must see (thesis 6.4).
//!
//! A question is for all reads that came before it left, and its answer for all questions before
//! it as well. It is never for a read that came later: since then more may have been committed.
//!
//! ```text
//!   tickets   [ a b c | d | e f ]             front: oldest
//!   questions   q=7     q=8  (next)           counts 3, 1; the rest waits for `ask`
//!   answer to 7: a b c;  to 8: a b c d;  to 6, or to 9: nothing was asked so
//! ```
//! The leader of a term answers, and who asked it: a node that hears of another leader, or of a
//! newer term, or leads itself, has lost what it asked.
//!
//! A question or an answer that is lost is asked again, a heartbeat interval later, under the same
//! number. Numbers ascend, and begin somewhere else in each life of a node: an answer to a question
//! of an earlier life is nobody's.

use crate::jitter::Jitter;
use crate::message::Message;
use crate::output::{Envelope, Output, ReadReady};
use crate::settings::Settings;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use ringraft_types::{Index, NodeId, Term, Ticks};
use std::collections::VecDeque;

#[derive(Debug)]
struct Question {
    number: u64,
    /// When it was asked first.
    since: Ticks,
    /// How many reads it is for.
    count: usize,
}

/// The reads of a follower, oldest first.
#[derive(Debug)]
pub(crate) struct Questions {
    tickets: VecDeque<u64>,
    asked: VecDeque<Question>,
    /// How many of `tickets`, the oldest, belong to `asked`.
    begun: usize,
    /// The newest question's number, or where numbers begin.
    newest: u64,
    /// Of whom they are asked: the leader of this term.
    whom: (Term, NodeId),
    /// When the newest is asked again.
    again_at: Ticks,
}

impl Questions {
    /// None yet. `seed` differs between the lives of a node.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            tickets: VecDeque::new(),
            asked: VecDeque::new(),
            begun: 0,
            // Far from the others, and from the end of numbers.
            newest: Jitter::new(!seed).number() >> 1 & !0xFFFF,
            whom: (Term::ZERO, NodeId::ZERO),
            again_at: Ticks::NEVER,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Of whom they are asked, if there are any.
    pub(crate) fn whom(&self) -> (Term, NodeId) {
        self.whom
    }

    /// A read that the leader of this term is to be asked about.
    pub(crate) fn push(&mut self, ticket: u64, whom: (Term, NodeId)) {
        assert!(self.is_empty() || self.whom == whom, "what another leader was asked is lost");
        self.whom = whom;
        self.tickets.push_back(ticket);
    }

    /// Asks one question for all reads that came since the last.
    pub(crate) fn ask(&mut self, now: Ticks, settings: &Settings, out: &mut Output) {
        if self.begun == self.tickets.len() {
            return;
        }
        self.newest += 1;
        let count = self.tickets.len() - self.begun;
        self.asked.push_back(Question { number: self.newest, since: now, count });
        self.begun = self.tickets.len();
        self.send(now, settings, out);
    }

    fn send(&mut self, now: Ticks, settings: &Settings, out: &mut Output) {
        self.again_at = now.after(settings.heartbeat_interval);
        let (term, to) = self.whom;
        let message = Message::ReadAsk { term, question: self.newest };
        out.send_now.push(Envelope { to, message });
    }

    /// The leader of `whom` answered: everything up to `index` was committed after question
    /// `number` came to it.
    pub(crate) fn answer(
        &mut self,
        whom: (Term, NodeId),
        number: u64,
        index: Index,
        out: &mut Output,
    ) {
        let oldest = self.asked.front().map_or(u64::MAX, |question| question.number);
        if self.is_empty() || self.whom != whom || number < oldest || number > self.newest {
            return;
        }
        #[cfg(ringraft_plant)]
        let number = if planted(Plant::FollowerReadOldAnswer) { self.newest } else { number };
        while self.asked.front().is_some_and(|question| question.number <= number) {
            let tickets = self.pop();
            out.reads.extend(tickets.map(|ticket| ReadReady { ticket, index }));
        }
    }

    /// Asks again what is unanswered, and gives up what has been for an election timeout: a leader
    /// that leads answers sooner, and who doesn't hear from it may not know of the next.
    pub(crate) fn tick(&mut self, now: Ticks, settings: &Settings, out: &mut Output) {
        let timeout = settings.election_timeout;
        while self.asked.front().is_some_and(|question| now.since(question.since) >= timeout) {
            let tickets = self.pop();
            out.reads_lost.extend(tickets);
        }
        if !self.asked.is_empty() && now >= self.again_at {
            self.send(now, settings, out);
        }
    }

    /// When it wants a tick.
    pub(crate) fn wake_at(&self, settings: &Settings) -> Ticks {
        let ends_at = |question: &Question| question.since.after(settings.election_timeout);
        self.asked.front().map_or(Ticks::NEVER, |oldest| ends_at(oldest).min(self.again_at))
    }

    /// Nobody answers these any more.
    pub(crate) fn lose(&mut self, out: &mut Output) {
        out.reads_lost.extend(self.tickets.drain(..));
        self.asked.clear();
        self.begun = 0;
    }

    /// Takes the reads of the oldest question.
    fn pop(&mut self) -> impl Iterator<Item = u64> {
        let oldest = self.asked.pop_front().expect("the caller has seen one");
        self.begun -= oldest.count;
        self.tickets.drain(..oldest.count)
    }
}
