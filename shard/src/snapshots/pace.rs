//! How fast snapshots are taken and given: so many bytes in a second, so that the disk has time for
//! the writes that clients wait for; and faster while the log grows fast, so that it ends before the
//! log is twice as long as it may get.

use ringraft_types::Ticks;

/// What may follow at once after a pause, bytes.
const BURST_BYTES: i64 = 256 << 10;
/// The least that is waited for: a shard that does nothing else isn't woken for less.
const PAUSE_MIN: Ticks = Ticks::from_millis(1);
const SECOND: u64 = 1_000_000;

/// The rules of one pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceRules {
    /// Bytes in a second; zero: as fast as it goes.
    pub(super) bytes_per_second: u64,
    /// The log may grow by so many bytes until all is done; zero: by any number.
    pub(super) log_bytes: u64,
    /// How much all is, bytes.
    pub(super) whole_bytes: u64,
}

/// What may be done now.
#[derive(Debug)]
pub(super) struct Pace {
    /// In bytes; none or less: later.
    credit: i64,
    /// When it was counted last, and how many bytes the log had taken by then.
    at: Ticks,
    logged: u64,
}

impl Pace {
    pub(super) fn new(now: Ticks, logged: u64) -> Self {
        Self { credit: BURST_BYTES, at: now, logged }
    }

    /// Counts what has become possible by now. Returns when to come back, which is now if there is
    /// any credit.
    pub(super) fn look(&mut self, now: Ticks, logged: u64, rules: PaceRules) -> Ticks {
        let PaceRules { bytes_per_second, log_bytes, whole_bytes } = rules;
        if bytes_per_second == 0 {
            self.credit = BURST_BYTES;
            return now;
        }
        let credit = |bytes: u128| i64::try_from(bytes).unwrap_or(i64::MAX);
        let spent = u128::from(now.since(self.at).0);
        let by_time = credit(spent * u128::from(bytes_per_second) / u128::from(SECOND));
        if by_time > 0 {
            // What is less than a byte stays to be counted.
            self.at = now;
            // Time that isn't used is gone.
            self.credit = self.credit.max(self.credit.saturating_add(by_time).min(BURST_BYTES));
        }
        if log_bytes > 0 {
            let grown = u128::from(logged.saturating_sub(self.logged));
            let by_log = credit(grown * u128::from(whole_bytes) / u128::from(log_bytes));
            self.credit = self.credit.saturating_add(by_log);
        }
        self.logged = logged;
        if self.credit > 0 {
            return now;
        }
        let lacking = self.credit.unsigned_abs() + 1;
        let wait = u128::from(lacking) * u128::from(SECOND) / u128::from(bytes_per_second);
        let wait = Ticks(u64::try_from(wait).unwrap_or(u64::MAX));
        now.after(wait.max(PAUSE_MIN))
    }

    /// Whether more is due than time alone ever makes: the log grows fast.
    pub(super) fn is_behind(&self) -> bool {
        self.credit > BURST_BYTES
    }

    /// So many were.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub_unsigned(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: usize = 32 << 10;

    /// Bytes done until `until`, with a log that takes `log_per_ms` bytes in a millisecond, by one
    /// who comes back when told, or every millisecond if `is_busy`.
    fn done_until(until: u64, rules: PaceRules, log_per_ms: u64, is_busy: bool) -> u64 {
        let (mut pace, mut now, mut done) = (Pace::new(Ticks::ZERO, 0), Ticks::ZERO, 0);
        while now < Ticks(until) {
            let logged = now.0 / 1_000 * log_per_ms;
            let at = pace.look(now, logged, rules);
            if at <= now {
                pace.spend(SLICE);
                done += SLICE as u64;
            } else {
                now = if is_busy { at.min(now.after(Ticks::from_millis(1))) } else { at };
            }
        }
        done
    }

    /// In a second as much is done as may be, give or take a burst, however often it is looked at.
    #[test]
    fn time_sets_the_pace() {
        let rules = PaceRules { bytes_per_second: 64 << 20, log_bytes: 0, whole_bytes: 0 };
        for is_busy in [false, true] {
            let done = done_until(2 * SECOND, rules, 9_999, is_busy);
            let slack = BURST_BYTES as u64 + SLICE as u64;
            assert!(done >= 128 << 20 && done <= (128 << 20) + slack, "{done}");
        }
    }

    /// By the time that the log has grown by what it may, everything is done.
    #[test]
    fn the_log_sets_the_pace() {
        let (log_bytes, whole_bytes) = (100 << 20, 1 << 30);
        let rules = PaceRules { bytes_per_second: 1 << 20, log_bytes, whole_bytes };
        // 100 MiB in a second.
        let done = done_until(SECOND, rules, (100 << 20) / 1_000 + 1, true);
        assert!(done >= (1 << 30) - (2 << 20), "{done}");
        assert!(done <= (1 << 30) + (4 << 20), "{done}");
    }

    /// A pause is no reason for a flood.
    #[test]
    fn what_is_not_used_is_gone() {
        let rules = PaceRules { bytes_per_second: 1 << 20, log_bytes: 0, whole_bytes: 0 };
        let mut pace = Pace::new(Ticks::ZERO, 0);
        let late = Ticks::from_millis(3_600_000);
        assert_eq!(pace.look(late, 0, rules), late);
        assert!(!pace.is_behind());
        pace.spend(2 * BURST_BYTES as usize);
        assert_eq!(pace.look(late, 0, rules), late.after(Ticks(250_000)));
        let free = PaceRules { bytes_per_second: 0, ..rules };
        assert_eq!(pace.look(late, 0, free), late);
    }
}
