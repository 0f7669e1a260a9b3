//! What is durable of what was asked to be persisted.
//!
//! Each step that persists something gets a token; batches become durable in their order. A token
//! outstanding claims the log up to an index. A truncation lowers every claim above it: the same
//! index may be appended again, and an old completion must not be taken for the new entry's (the
//! append ABA race).
//!
//! ```text
//!   token      5      6      7            truncate from 8, append 8..9 (token 8)
//!   claims    ..7    ..9   ..10    ==>    5: ..7   6: ..7   7: ..7   8: ..9
//! ```

use crate::output::{Output, Token};
use ringraft_types::Index;
#[cfg(ringraft_plant)]
use ringraft_types::plant::{Plant, planted};
use std::collections::VecDeque;

/// Tokens given and what they will prove.
#[derive(Debug)]
pub(crate) struct Durable {
    /// The newest token given; zero: none yet.
    newest: Token,
    /// The newest token known to be durable. At most `newest`.
    done: Token,
    /// The token of the newest change of term or vote.
    hard: Token,
    /// Tokens given and not durable yet, ascending, each with the index up to which the log as it
    /// is now will be durable with it; the indexes don't descend.
    outstanding: VecDeque<(Token, Index)>,
    /// The log as it is now is durable up to here.
    persisted: Index,
}

impl Durable {
    /// Everything found at start is durable.
    pub(crate) fn new(persisted: Index) -> Self {
        Self {
            newest: Token(0),
            done: Token(0),
            hard: Token(0),
            outstanding: VecDeque::new(),
            persisted,
        }
    }

    pub(crate) fn persisted(&self) -> Index {
        self.persisted
    }

    pub(crate) fn newest(&self) -> Token {
        self.newest
    }

    pub(crate) fn done(&self) -> Token {
        self.done
    }

    /// Whether the newest term and vote are durable.
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        self.hard <= self.done
    }

    /// This step's batch holds the log up to `last`: gives the batch its token if it has none.
    pub(crate) fn cover(&mut self, last: Index, out: &mut Output) -> Token {
        if out.token.is_none() {
            self.newest = Token(self.newest.0 + 1);
            self.outstanding.push_back((self.newest, last));
            out.token = Some(self.newest);
        }
        let back = self.outstanding.back_mut().expect("a token given in this step is outstanding");
        assert!(back.1 <= last, "a claim is lowered by truncation only");
        back.1 = last;
        self.newest
    }

    /// This step's batch holds a new term or vote.
    pub(crate) fn cover_hard_state(&mut self, last: Index, out: &mut Output) {
        self.hard = self.cover(last, out);
    }

    /// Entries from `index` on are gone: nothing proves them any more.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        let last = index.previous();
        self.persisted = self.persisted.min(last);
        #[cfg(ringraft_plant)]
        if planted(Plant::GateByIndex) {
            return;
        }
        for (_, claim) in self.outstanding.iter_mut().rev() {
            if *claim <= last {
                break;
            }
            *claim = last;
        }
    }

    /// A durable snapshot holds the log up to here: so far nothing depends on the log itself.
    pub(crate) fn release(&mut self, through: Index) {
        self.persisted = self.persisted.max(through);
        for (_, claim) in &mut self.outstanding {
            if *claim >= through {
                break;
            }
            *claim = through;
        }
    }

    /// The batch of this token, and all before it, are durable. An old token changes nothing.
    #[inline]
    pub(crate) fn complete(&mut self, token: Token) {
        assert!(token <= self.newest, "{token:?} was never given, the newest is {:?}", self.newest);
        while let Some(&(oldest, claim)) = self.outstanding.front() {
            if oldest > token {
                break;
            }
            assert!(self.persisted <= claim);
            self.persisted = claim;
            self.outstanding.pop_front();
        }
        self.done = self.done.max(token);
    }

    /// What a promise about term, vote and the log up to `index` waits for; `None`: it is durable.
    pub(crate) fn gate(&self, index: Index) -> Option<Token> {
        let entries = if index <= self.persisted {
            self.done
        } else {
            let position = self.outstanding.partition_point(|&(_, claim)| claim < index);
            self.outstanding[position].0
        };
        let token = entries.max(self.hard);
        (token > self.done).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A completion from before a truncation proves nothing about what was appended after it.
    #[test]
    fn a_truncation_lowers_claims() {
        let mut durable = Durable::new(Index(3));
        let batch = |durable: &mut Durable, last| durable.cover(last, &mut Output::default());
        let first = batch(&mut durable, Index(7));
        let second = batch(&mut durable, Index(10));
        durable.truncate_from(Index(8));
        let third = batch(&mut durable, Index(9));
        assert_eq!(durable.gate(Index(3)), None);
        assert_eq!(durable.gate(Index(7)), Some(first));
        assert_eq!(durable.gate(Index(8)), Some(third));
        durable.complete(second);
        assert_eq!(durable.persisted(), Index(7));
        durable.complete(third);
        assert_eq!(durable.persisted(), Index(9));
        durable.complete(first);
        assert_eq!(durable.persisted(), Index(9));
    }

    /// What a snapshot holds is durable, whatever becomes of the batches that hold it as well.
    #[test]
    fn a_snapshot_raises_claims() {
        let mut durable = Durable::new(Index(3));
        let mut batch = |last| durable.cover(last, &mut Output::default());
        let (first, second, third) = (batch(Index(5)), batch(Index(8)), batch(Index(9)));
        durable.release(Index(7));
        assert_eq!((durable.persisted(), durable.gate(Index(7))), (Index(7), None));
        assert_eq!(durable.gate(Index(8)), Some(second));
        durable.complete(first);
        assert_eq!(durable.persisted(), Index(7));
        durable.release(Index(2));
        assert_eq!(durable.persisted(), Index(7));
        durable.complete(third);
        assert_eq!(durable.persisted(), Index(9));
    }
}
