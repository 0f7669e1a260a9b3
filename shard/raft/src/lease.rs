//! When a leader's rounds of heartbeats left: a majority's answer to one makes it sure, for a
//! while from then on, that nobody else leads (thesis 6.4.1).
//!
//! ```text
//!   round        4      5      6      7
//!   left at      0     50    100    150
//!   answered by a majority: 5       ->  sure until 50 + lease, and not until 52 + lease, when
//!                                       the answers came
//! ```
//! Only answers to heartbeats count: whoever gives one has heard its leader, and promises to stick
//! to it (`promise`). Which majorities, the configuration in force says when it is asked.

use ringraft_types::Ticks;
use std::collections::VecDeque;

/// Rounds that are remembered, of one lease: those that leave closer to each other count as the
/// first of them.
const ROUNDS_MAX: u64 = 64;

#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Rounds and when they left, ascending; none that couldn't give a lease any more.
    left: VecDeque<(u64, Ticks)>,
}

impl Lease {
    /// A round leaves now.
    pub(crate) fn leaves(&mut self, round: u64, now: Ticks, lease: Ticks) {
        // The oldest goes only when a later one is as useless: its successor covers what follows.
        while self.left.get(1).is_some_and(|&(_, at)| now.since(at) >= lease) {
            self.left.pop_front();
        }
        let is_apart = |&(_, at): &(u64, Ticks)| now.since(at) >= Ticks(lease.0 / ROUNDS_MAX);
        if self.left.back().is_none_or(is_apart) {
            self.left.push_back((round, now));
        }
        assert!(self.left.len() as u64 <= ROUNDS_MAX + 3, "rounds that are apart are few");
    }

    /// Until when this leader is sure, if a majority answered `round`.
    pub(crate) fn until(&self, round: u64, lease: Ticks) -> Option<Ticks> {
        let after = self.left.partition_point(|&(number, _)| number <= round);
        let (_, at) = *self.left.get(after.checked_sub(1)?)?;
        Some(at.after(lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round counts from when it left, or from a little earlier; never from later, and what is
    /// remembered is bounded.
    #[test]
    fn a_round_counts_from_when_it_left() {
        let timeout = Ticks(6400);
        let mut lease = Lease::default();
        for round in 1..=2000u64 {
            lease.leaves(round, Ticks(round * 10), timeout);
            assert!(lease.left.len() <= 67);
        }
        assert_eq!(lease.until(0, timeout), None, "nothing was answered");
        assert_eq!(lease.until(100, timeout), None, "forgotten, and of no use");
        for round in 1400..=2000u64 {
            let until = lease.until(round, timeout).expect("it is remembered");
            let left_at = until.since(timeout);
            assert!(left_at <= Ticks(round * 10));
            assert!(left_at.after(Ticks(100)) > Ticks(round * 10), "round {round}: {left_at}");
        }
    }
}
