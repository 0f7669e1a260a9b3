//! Latencies: nanoseconds in, percentiles out, three significant digits between one nanosecond and
//! a minute. Recording never allocates.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::LatencyMicros;

/// Longer latencies count as this one.
const NANOS_MAX: u64 = 60_000_000_000;

/// A histogram of latencies.
#[derive(Clone, Debug)]
pub struct Latencies {
    nanos: Histogram<u64>,
}

impl Latencies {
    /// An empty one, all its memory allocated.
    pub fn new() -> Self {
        Self { nanos: Histogram::new_with_bounds(1, NANOS_MAX, 3).expect("bounds are valid") }
    }

    /// Records `count` operations of one latency.
    #[inline]
    pub fn record(&mut self, latency: Duration, count: u64) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(NANOS_MAX).clamp(1, NANOS_MAX);
        self.nanos.record_n(nanos, count).expect("clamped to the bounds");
    }

    /// Adds what another one recorded.
    pub fn merge(&mut self, other: &Self) {
        self.nanos.add(&other.nanos).expect("same bounds");
    }

    /// Operations recorded.
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The percentiles of a report; zeros when nothing was recorded.
    pub fn percentiles(&self) -> LatencyMicros {
        let at = |quantile| micros(self.nanos.value_at_quantile(quantile));
        LatencyMicros {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.nanos.max()),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// Microseconds with one decimal.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percentiles of a known series are right to three digits, weights and merging included.
    #[test]
    fn percentiles_of_a_known_series() {
        let (mut one, mut other) = (Latencies::new(), Latencies::new());
        one.record(Duration::from_micros(100), 90);
        other.record(Duration::from_micros(200), 9);
        other.record(Duration::from_secs(3600), 1);
        one.merge(&other);
        let percentiles = one.percentiles();
        assert_eq!(one.count(), 100);
        assert!((percentiles.p50 - 100.0).abs() < 0.1, "{percentiles:?}");
        assert!((percentiles.p99 - 200.0).abs() < 0.2, "{percentiles:?}");
        assert!(percentiles.max >= 60e6 * 0.999, "{percentiles:?}");
    }
}
