//! Chance: one generator per run, drawn in a fixed order. Whole numbers only, so that every build
//! draws the same.

/// The generator of one run.
#[derive(Debug)]
pub(crate) struct Random(oorandom::Rand64);

impl Random {
    /// The generator of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = oorandom::Rand64::new(u128::from(seed));
        // Neighbouring seeds begin alike.
        for _ in 0..8 {
            random.rand_u64();
        }
        Self(random)
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0.rand_u64()
    }

    /// What [`Random::any`] would give, and will.
    pub(crate) fn peek(&self) -> u64 {
        self.0.clone().rand_u64()
    }

    /// A number below `end`, which isn't zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below zero");
        self.0.rand_range(0..end)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.rand_range(low..high + 1)
    }

    /// Whether something happens that does in so many of a million cases.
    pub(crate) fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// Whether a coin falls on one side.
    pub(crate) fn coin(&mut self) -> bool {
        self.any() & 1 == 1
    }

    /// One of some, which aren't none.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Puts some into any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}
