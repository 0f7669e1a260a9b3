//! Gates hold back what may leave only after a batch is durable (I-03).
//!
//! A gate waits for a *sequence* of the log, never for an index and term: the same pair can be
//! appended twice. One queue per shard, in the order of sequences; the groups are told in the
//! order in which their batches were handed over. Never drops.

use ringraft_raft::Token;
use ringraft_types::Sequence;
use std::collections::VecDeque;

/// One batch of one group on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Opens when the log is durable up to here.
    pub(crate) sequence: Sequence,
    /// The group's slot.
    pub(crate) slot: usize,
    /// The group's name for the batch.
    pub(crate) token: Token,
}

/// The gates of one shard.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    queue: VecDeque<Gate>,
}

impl Gates {
    /// Holds a batch back until its sequence is durable. A later batch of the same group under
    /// the same sequence replaces the earlier one: its token covers it.
    ///
    /// # Panics
    /// If the sequence is below the newest gate's: the log hands them out in order.
    pub(crate) fn hold(&mut self, gate: Gate) {
        if let Some(last) = self.queue.back_mut() {
            assert!(last.sequence <= gate.sequence, "sequences are handed out in order");
            if last.sequence == gate.sequence && last.slot == gate.slot {
                assert!(last.token < gate.token, "tokens ascend within a group");
                last.token = gate.token;
                return;
            }
        }
        self.queue.push_back(gate);
    }

    /// The next gate that is open now.
    pub(crate) fn release(&mut self, durable: Sequence) -> Option<Gate> {
        if self.queue.front()?.sequence > durable {
            return None;
        }
        self.queue.pop_front()
    }

    /// The sequence of the newest batch held back.
    pub(crate) fn newest(&self) -> Option<Sequence> {
        self.queue.back().map(|gate| gate.sequence)
    }

    /// Whether something of this group (by slot) is held back.
    pub(crate) fn holds(&self, slot: usize) -> bool {
        self.queue.iter().any(|gate| gate.slot == slot)
    }

    /// Whether nothing is held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(sequence: u64, slot: usize, token: u64) -> Gate {
        Gate { sequence: Sequence(sequence), slot, token: Token(token) }
    }

    /// A gate opens with its sequence, in order, and never before (I-03).
    #[test]
    fn gates_open_in_order() {
        let mut gates = Gates::default();
        gates.hold(gate(1, 0, 1));
        gates.hold(gate(1, 0, 2));
        gates.hold(gate(1, 1, 1));
        gates.hold(gate(3, 0, 3));
        assert_eq!(gates.release(Sequence(0)), None);
        assert_eq!(gates.release(Sequence(2)), Some(gate(1, 0, 2)));
        assert_eq!(gates.release(Sequence(2)), Some(gate(1, 1, 1)));
        assert_eq!(gates.release(Sequence(2)), None);
        assert_eq!(gates.release(Sequence(3)), Some(gate(3, 0, 3)));
        assert!(gates.is_empty());
    }
}
