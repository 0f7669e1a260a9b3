//! The one reader of time.

use ringraft_types::Ticks;
use rustix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME, in microseconds: it goes on while the machine sleeps, so that a lease doesn't
/// outlive a suspend (C05), and no wall clock can set it (C01).
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("boot time isn't negative");
    let micros = u64::try_from(time.tv_nsec).expect("nanoseconds aren't negative") / 1_000;
    Ticks(seconds * 1_000_000 + micros)
}

/// Seconds since 1970 by the wall clock: for what people read, and nothing else, for it may jump.
pub fn unix_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two readings never go back.
    #[test]
    fn time_goes_on() {
        let first = now();
        assert!(first > Ticks::ZERO);
        assert!(now() >= first);
    }
}
