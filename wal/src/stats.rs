//! Counters of a log. Recording never allocates.

use hdrhistogram::Histogram;
use ringraft_types::Ticks;

/// The longest latency told apart, microseconds; longer ones count as this.
pub const LATENCY_MAX: u64 = 60_000_000;

/// What a log did since its start.
#[derive(Clone, Debug)]
pub struct LogStats {
    /// Blocks that became durable, seals included.
    pub blocks: u64,
    /// Seals among them.
    pub seals: u64,
    /// Records that became durable.
    pub records: u64,
    /// Bytes written to become so, padding included.
    pub bytes: u64,
    /// Syncs (or writes that sync) that they took; `records / syncs` is the effect of batching.
    pub syncs: u64,
    /// Short writes whose remainder was written again.
    pub short_writes: u64,
    /// Writes submitted again after EAGAIN or EINTR.
    pub retries: u64,
    /// Reads of old entries.
    pub reads: u64,
    /// Blocks read for them; what many ask for at once is read once.
    pub blocks_read: u64,
    /// Segments made.
    pub segments_made: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Attempts to make a segment that met a full disk.
    pub disk_full: u64,
    /// From submission to durable, microseconds; two digits.
    pub latency: Histogram<u64>,
    /// The newest of these.
    pub latency_newest: Ticks,
}

impl LogStats {
    pub(crate) fn new() -> Self {
        Self {
            blocks: 0,
            seals: 0,
            records: 0,
            bytes: 0,
            syncs: 0,
            short_writes: 0,
            retries: 0,
            reads: 0,
            blocks_read: 0,
            segments_made: 0,
            segments_removed: 0,
            disk_full: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX, 2)
                .expect("the bounds are constants that fit"),
            latency_newest: Ticks::ZERO,
        }
    }

    /// Records per sync so far; zero before the first.
    pub fn records_per_sync(&self) -> f64 {
        if self.syncs == 0 { 0.0 } else { self.records as f64 / self.syncs as f64 }
    }

    pub(crate) fn note_latency(&mut self, latency: Ticks) {
        self.latency.saturating_record(latency.0.max(1));
        self.latency_newest = latency;
    }
}
