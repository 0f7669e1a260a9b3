//! The operations in flight and when each was submitted. The table has its memory from the start.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;

/// Calls in flight of one connection.
pub(super) struct Calls {
    submitted_at: HashMap<u64, Instant, Mixing>,
}

impl Calls {
    /// An empty table with room for `calls_max`.
    pub(super) fn new(calls_max: usize) -> Self {
        // Twice the room, so that the table is never rebuilt.
        Self { submitted_at: HashMap::with_capacity_and_hasher(2 * calls_max, Mixing) }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.submitted_at.len()
    }

    /// Adds one.
    pub(super) fn begin(&mut self, call: u64, at: Instant) {
        let previous = self.submitted_at.insert(call, at);
        assert!(previous.is_none(), "call {call} is in flight twice");
    }

    /// Takes one out: when it was submitted.
    pub(super) fn end(&mut self, call: u64) -> Instant {
        self.submitted_at.remove(&call).expect("only what is in flight ends")
    }
}

/// The golden ratio in 64 bits: an odd number that spreads neighbours.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes call numbers: they are ours, so nobody attacks the table.
#[derive(Clone, Copy)]
struct Mixing;

impl BuildHasher for Mixing {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(0)
    }
}

struct Mixed(u64);

impl Hasher for Mixed {
    fn write_u64(&mut self, number: u64) {
        let mixed = number.wrapping_mul(MIX);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
