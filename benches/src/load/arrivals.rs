//! When the operations of an open loop are due.

use std::time::{Duration, Instant};

/// Even times, those of each connection between those of the others.
pub(super) struct Arrivals {
    from: Instant,
    period: Duration,
    taken: u32,
}

/// After so many a new count begins, so that the product stays exact.
const TAKEN_MAX: u32 = 1 << 20;

impl Arrivals {
    /// So many in a second, of connection `number`.
    pub(super) fn new(now: Instant, rate: f64, number: usize) -> Self {
        let period = Duration::from_secs_f64(1.0 / rate);
        // The golden ratio spreads the connections however many there are.
        let phase = period.mul_f64((number as f64 * 0.618_033_988_75).fract());
        Self { from: now + phase, period, taken: 0 }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Instant {
        self.from + self.period * self.taken
    }

    /// Takes the next one if it is due by now: when it was.
    pub(super) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next();
        if due > now {
            return None;
        }
        self.taken += 1;
        if self.taken == TAKEN_MAX {
            (self.from, self.taken) = (self.next(), 0);
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is late is due all the same, at the time at which it was.
    #[test]
    fn nothing_is_left_out() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start, 1_000.0, 0);
        assert_eq!(arrivals.take(start), Some(start));
        assert_eq!(arrivals.take(start), None);
        let late = start + Duration::from_millis(2_500_000);
        for at in 1..=2_500_000 {
            assert_eq!(arrivals.take(late), Some(start + Duration::from_millis(at)));
        }
        assert_eq!(arrivals.take(late), None);
        let other = Arrivals::new(start, 1_000.0, 1);
        assert!(other.next() > start && other.next() < start + Duration::from_millis(1));
    }
}
