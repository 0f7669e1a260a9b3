//! The starts of a node. A data directory that was put back from an older copy has forgotten what
//! the node promised since; by its starts it can be told (decision 0011).

use crate::bytes::u64_at;
use crate::ids::{Incarnation, NodeId};

/// One start of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Which one of its data directory: 1, 2, 3. Zero: none.
    pub number: u64,
    /// Drawn at random: two copies of a directory that are started from there on differ by it.
    pub nonce: u64,
}

impl Start {
    /// Bytes of a start on disk and on the wire.
    pub const BYTES: usize = 16;

    /// The number, then the nonce.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nonce.to_le_bytes());
        bytes
    }

    /// The start at this place.
    pub fn at(bytes: &[u8], at: usize) -> Self {
        Self { number: u64_at(bytes, at), nonce: u64_at(bytes, at + 8) }
    }
}

/// What a node remembers of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The newest start in which it was met.
    pub start: Start,
}

/// A start that a data directory doesn't hold though its node was met in it: the directory is an
/// older copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacked {
    /// The start.
    pub start: Start,
    /// Who met the node in it.
    pub by: NodeId,
}

/// The starts that a data directory remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    newest: u64,
    /// Of the newest ones, in their order.
    nonces: Vec<u64>,
}

impl Starts {
    /// Starts whose nonces are remembered at most.
    pub const REMEMBERED_MAX: usize = 1_024;

    /// What was written down: the newest number, and the nonces of the newest ones. `None` if
    /// these can't be a directory's starts.
    pub fn new(newest: u64, nonces: Vec<u64>) -> Option<Self> {
        let most = newest.min(Self::REMEMBERED_MAX as u64);
        (nonces.len() as u64 == most).then_some(Self { newest, nonces })
    }

    /// The node starts once more.
    pub fn begin(&mut self, nonce: u64) -> Start {
        self.newest += 1;
        if self.nonces.len() == Self::REMEMBERED_MAX {
            self.nonces.remove(0);
        }
        self.nonces.push(nonce);
        self.newest()
    }

    /// The newest start; zero if there was none.
    pub fn newest(&self) -> Start {
        let nonce = self.nonces.last().copied().unwrap_or_default();
        Start { number: self.newest, nonce }
    }

    /// The nonces that are remembered, of the newest starts in their order.
    pub fn nonces(&self) -> &[u64] {
        &self.nonces
    }

    /// Whether this directory's node was met in a start that the directory doesn't know: then it
    /// is an older copy. A start that is too old to be remembered is believed.
    pub fn lack(&self, met: Start) -> bool {
        let Some(back) = self.newest.checked_sub(met.number) else { return true };
        let place = (self.nonces.len() as u64).checked_sub(back + 1);
        place.is_some_and(|place| self.nonces[place as usize] != met.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(count: u64) -> Starts {
        let mut starts = Starts::default();
        for number in 1..=count {
            assert_eq!(starts.begin(number * 10), Start { number, nonce: number * 10 });
        }
        starts
    }

    /// Goal: a copy is told by the starts that it lacks, however often it was started itself.
    #[test]
    fn a_copy_is_told_by_what_it_lacks() {
        let mut original = begun(5);
        let mut copy = begun(3);
        for met in [1, 2, 3] {
            assert!(!copy.lack(Start { number: met, nonce: met * 10 }), "start {met} is common");
        }
        for again in 0..9 {
            for met in [4, 5] {
                let met = Start { number: met, nonce: met * 10 };
                assert!(copy.lack(met), "after {again} starts of the copy");
            }
            let own = copy.begin(1_000 + again);
            assert!(!copy.lack(own));
            assert!(original.lack(own));
        }
        let own = original.begin(60);
        assert!(!original.lack(own));
        assert!(!original.lack(Start::default()), "nobody met it");
    }

    /// Goal: what is remembered is bounded, and what left is believed.
    #[test]
    fn what_is_remembered_is_bounded() {
        let most = Starts::REMEMBERED_MAX as u64;
        let starts = begun(most + 2);
        assert_eq!(starts.nonces().len() as u64, most);
        assert!(!starts.lack(Start { number: 2, nonce: 1 }), "forgotten");
        assert!(starts.lack(Start { number: 3, nonce: 1 }), "the oldest remembered");
        assert!(!starts.lack(Start { number: 3, nonce: 30 }));
        let read = Starts::new(most + 2, starts.nonces().to_vec());
        assert_eq!(read, Some(starts));
        assert_eq!(Starts::new(2, vec![1]), None);
        assert_eq!(Starts::new(0, vec![1]), None);
        assert_eq!(Starts::new(0, Vec::new()), Some(Starts::default()));
    }
}
