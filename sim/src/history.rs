//! A history: every call that clients made, what it asked for, when it began and ended, and what
//! became of it. This is what the checkers judge.
//!
//! Order is by [`Moment`]: the place of an event among all events of the history. A call that ended
//! at an earlier place than another one began went before it. The time beside it is for people, and
//! for putting several files together.
//!
//! As lines of JSON a history is written and read by [`lines`]; `docs/FORMAT.md` has the format.

mod ask;
mod bytes;
pub mod lines;
mod reply;
mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use ringraft_types::{GroupId, Index, Revision, Status, Ticks};

pub use ask::{
    Ask, Compare, CompareRelation, CompareTo, Consistency, Delete, KeySet, Operation, Put, Range,
    Txn,
};
pub use bytes::Bytes;
pub use reply::{KeyValue, ListReply, PutReply, Reply, TxnReply};
pub(crate) use show::json;

/// Names a call: its client, and the client's own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallName {
    /// Who asked.
    pub client: u64,
    /// The client's number for it; never used twice by a client.
    pub number: u64,
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.client, self.number)
    }
}

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Its place among all events of the history.
    pub order: u64,
    /// The time, which never goes back from one place to the next.
    pub at: Ticks,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with this answer.
    Done(Answer),
    /// Definitely not done, and never will be.
    NotDone(Reason),
    /// Done, not done, or yet to be done.
    Unknown(Reason),
}

/// What a call that was done was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The machine's revision after the write, or that the read saw.
    pub revision: Revision,
    /// The Raft index of the write, or that the read saw, if it is known.
    pub index: Option<Index>,
    /// The machine's result.
    pub reply: Reply,
}

/// Why a call was not done, or why that isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The deadline passed before an answer came.
    Deadline,
    /// A server said so.
    Refused(Status),
    /// The history, or the client's life, ended before the call did.
    Ended,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: CallName,
    /// The group asked.
    pub group: GroupId,
    /// What was asked.
    pub ask: Ask,
    /// When it began.
    pub invoked: Moment,
    /// When it ended, and how; `None` as long as it runs.
    pub ended: Option<(Moment, Outcome)>,
}

impl Call {
    /// What became of it; a call that still runs is unknown.
    pub fn outcome(&self) -> &Outcome {
        const RUNS: &Outcome = &Outcome::Unknown(Reason::Ended);
        self.ended.as_ref().map_or(RUNS, |(_, outcome)| outcome)
    }

    /// Its answer, if it was done.
    pub fn answer(&self) -> Option<&Answer> {
        match self.outcome() {
            Outcome::Done(answer) => Some(answer),
            Outcome::NotDone(_) | Outcome::Unknown(_) => None,
        }
    }
}

/// Where a call lies in its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallAt(pub usize);

/// All calls, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<Call>,
    running: BTreeMap<CallName, CallAt>,
    events: u64,
    now: Ticks,
}

/// Why an event doesn't fit a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Time goes back.
    #[error("an event at {at} us after one at {last} us: lines must be in order of time")]
    TimeGoesBack {
        /// The event's.
        at: Ticks,
        /// The one's before it.
        last: Ticks,
    },
    /// A call began that runs already.
    #[error("call {call} began again before it ended: a client's numbers must be its own")]
    BeganTwice {
        /// Which.
        call: CallName,
    },
    /// A call ended that doesn't run.
    #[error("call {call} ended, but doesn't run: a call begins once and ends once")]
    NotRunning {
        /// Which.
        call: CallName,
    },
}

impl History {
    /// A history without calls.
    pub fn new() -> Self {
        Self::default()
    }

    /// The calls in the order in which they began.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// A call began.
    ///
    /// # Errors
    /// If time goes back, or the call runs already; nothing is recorded then.
    pub fn invoke(
        &mut self,
        at: Ticks,
        name: CallName,
        group: GroupId,
        ask: Ask,
    ) -> Result<CallAt, HistoryError> {
        let call = CallAt(self.calls.len());
        if self.running.contains_key(&name) {
            return Err(HistoryError::BeganTwice { call: name });
        }
        let invoked = self.moment(at)?;
        self.running.insert(name, call);
        self.calls.push(Call { name, group, ask, invoked, ended: None });
        Ok(call)
    }

    /// A call ended.
    ///
    /// # Errors
    /// If time goes back, or the call doesn't run; nothing is recorded then.
    pub fn end(
        &mut self,
        at: Ticks,
        name: CallName,
        outcome: Outcome,
    ) -> Result<CallAt, HistoryError> {
        if !self.running.contains_key(&name) {
            return Err(HistoryError::NotRunning { call: name });
        }
        let moment = self.moment(at)?;
        let call = self.running.remove(&name).expect("it runs");
        self.calls[call.0].ended = Some((moment, outcome));
        Ok(call)
    }

    /// The place and time of the next event.
    fn moment(&mut self, at: Ticks) -> Result<Moment, HistoryError> {
        if at < self.now {
            return Err(HistoryError::TimeGoesBack { at, last: self.now });
        }
        self.now = at;
        let order = self.events;
        self.events += 1;
        Ok(Moment { order, at })
    }
}
