//! Random parts of timeouts: a small generator of its own, seeded by the owner, so that one seed
//! replays everything. Not for secrets.

use ringraft_types::Ticks;

/// SplitMix64: one multiplication chain per number, and every seed is a good one.
#[derive(Debug)]
pub(crate) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number.
    pub(crate) fn number(&mut self) -> u64 {
        self.next()
    }

    /// A span in `[base, 2 * base)` (thesis 3.4: randomised, so that split votes are rare).
    pub(crate) fn between_one_and_two(&mut self, base: Ticks) -> Ticks {
        // The high half of the product is uniform in [0, base).
        let part = (u128::from(self.next()) * u128::from(base.0)) >> 64;
        Ticks(base.0 + part as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans stay within their bounds, and are not all the same.
    #[test]
    fn spans_are_within_bounds_and_vary() {
        let mut jitter = Jitter::new(7);
        let spans: Vec<u64> = (0..1000).map(|_| jitter.between_one_and_two(Ticks(100)).0).collect();
        assert!(spans.iter().all(|span| (100..200).contains(span)));
        assert!(spans.iter().any(|&span| span < 110) && spans.iter().any(|&span| span > 190));
    }
}
