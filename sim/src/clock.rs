//! A process's clock: its own origin, its own rate, and jumps. It never goes back.

use ringraft_types::Ticks;

/// Parts per million of the true rate.
const TRUE_RATE: u64 = 1_000_000;

/// The clock of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it said when its rate changed last, or when it began.
    local: Ticks,
    /// True time then.
    since: Ticks,
    /// Its rate.
    rate: u64,
}

impl Clock {
    /// A clock that says `local` now.
    pub(crate) fn new(now: Ticks, local: Ticks, rate: u64) -> Self {
        assert!(rate > 0, "time goes on");
        Self { local, since: now, rate }
    }

    /// What it says.
    pub(crate) fn read(&self, now: Ticks) -> Ticks {
        Ticks(self.local.0 + now.since(self.since).0 * self.rate / TRUE_RATE)
    }

    /// When it will say this, or more.
    pub(crate) fn when(&self, local: Ticks) -> Ticks {
        if local == Ticks::NEVER {
            return Ticks::NEVER;
        }
        let span = local.since(self.local).0.saturating_mul(TRUE_RATE).div_ceil(self.rate);
        self.since.after(Ticks(span))
    }

    /// From now on it goes at this rate.
    pub(crate) fn set_rate(&mut self, now: Ticks, rate: u64) {
        *self = Self::new(now, self.read(now), rate);
    }

    /// It jumps ahead.
    pub(crate) fn jump(&mut self, now: Ticks, by: Ticks) {
        *self = Self::new(now, self.read(now).after(by), self.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says at the time at which it is to say something is that, at every rate.
    #[test]
    fn when_and_read_agree() {
        for rate in [700_000, 999_999, 1_000_000, 1_300_001] {
            let mut clock = Clock::new(Ticks(50), Ticks(1_000_000), rate);
            clock.jump(Ticks(60), Ticks(77));
            for span in [0, 1, 17, 1_000_003] {
                let local = clock.read(Ticks(60)).after(Ticks(span));
                let when = clock.when(local);
                assert!(clock.read(when) >= local, "rate {rate}, span {span}");
                assert!(clock.read(when) <= local.after(Ticks(2)), "rate {rate}, span {span}");
            }
        }
    }
}
