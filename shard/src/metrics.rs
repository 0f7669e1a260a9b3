//! What a shard measures of itself. Recording never allocates; reading copies.

use hdrhistogram::Histogram;
use ringraft_types::Ticks;

/// The stages of a write on its leader, in order, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From arrival on the shard to the proposal.
    Queue,
    /// From the proposal to the submission of its block.
    Append,
    /// From the submission to durable here.
    Sync,
    /// From the proposal to the commit: durable on a majority.
    Quorum,
    /// From the commit to apply.
    Apply,
    /// From apply to the submission of the reply.
    Reply,
    /// From arrival to the submission of the reply.
    Total,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 7] = [
        Stage::Queue,
        Stage::Append,
        Stage::Sync,
        Stage::Quorum,
        Stage::Apply,
        Stage::Reply,
        Stage::Total,
    ];

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Append => "append",
            Stage::Sync => "sync",
            Stage::Quorum => "quorum",
            Stage::Apply => "apply",
            Stage::Reply => "reply",
            Stage::Total => "total",
        }
    }
}

/// Counters and histograms of one shard. Histograms are in microseconds, 1 us to 60 s, two
/// significant digits: about 20 KiB each, none per group.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Turns taken.
    pub turns: u64,
    /// Snapshots that became durable.
    pub snapshots_taken: u64,
    /// Snapshots that could not be written.
    pub snapshots_failed: u64,
    /// Snapshots of peers that took the place of what a group had here.
    pub snapshots_installed: u64,
    /// Attempts at that which failed.
    pub installs_failed: u64,
    /// Bytes of those that became durable.
    pub snapshot_bytes: u64,
    /// Writes proposed here.
    pub writes_proposed: u64,
    /// Writes answered as applied here.
    pub writes_done: u64,
    /// Entries applied here.
    pub entries_applied: u64,
    /// Reads served here.
    pub reads_served: u64,
    /// Of them, those that were taken under a lease: nobody was asked for them.
    pub reads_by_lease: u64,
    /// Requests answered "busy".
    pub refused_busy: u64,
    /// Writes refused because the memory for data is full.
    pub refused_memory: u64,
    /// Requests answered "not leader".
    pub refused_not_leader: u64,
    /// Requests refused for any other reason.
    pub refused_other: u64,
    /// Frames taken from peers.
    pub peer_frames: u64,
    /// Bytes of those.
    pub peer_bytes: u64,
    /// Elections that groups here stood for.
    pub elections: u64,
    /// Changes of leader that groups here saw.
    pub leader_changes: u64,
    /// Appends that did not fit their link's outbox and were left to be sent again.
    pub appends_postponed: u64,
    /// Times that the disk held a write for longer than an election timeout.
    pub disk_stuck: u64,
    /// Turns that came 300 ms or more after they were due.
    pub stood_still: u64,
    /// Groups that were handed over to another node.
    pub transfers: u64,
    /// Groups that another node was to take over, and didn't.
    pub transfers_failed: u64,
    /// Groups handed over because of a priority, or to spread leaders.
    pub transfers_spread: u64,
    /// Barriers here whose level was reached.
    pub barriers_reached: u64,
    /// Barriers here whose level wasn't reached in the time that they waited.
    pub barriers_timed_out: u64,
    /// Groups that lost entries to rot and have them again.
    pub repairs: u64,
    /// Groups here that were found to hold another state than a majority.
    pub divergences: u64,
    /// Groups led here whose replicas hold different states, where nobody knows which is right.
    pub divergences_undecided: u64,
    /// Groups that were rebuilt after that.
    pub states_rebuilt: u64,
    /// Entries that couldn't be read and were written again.
    pub entries_mended: u64,
    /// Entries that peers couldn't read and were given.
    pub entries_lent: u64,
    /// Bytes of the log and of snapshots that were read to find rot.
    pub scrubbed_bytes: u64,
    /// Blocks that were found rotten so.
    pub scrubbed_rotten: u64,
    /// Snapshots that were found rotten so.
    pub scrubbed_rotten_snapshots: u64,
    /// Times that all of it was read so.
    pub scrub_passes: u64,
    /// Batches of writes that took longer than the threshold of the slow-write log.
    pub slow_writes: u64,
    stages: [Histogram<u64>; Stage::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are constants");
        Self {
            turns: 0,
            snapshots_taken: 0,
            snapshots_failed: 0,
            snapshots_installed: 0,
            installs_failed: 0,
            snapshot_bytes: 0,
            writes_proposed: 0,
            writes_done: 0,
            entries_applied: 0,
            reads_served: 0,
            reads_by_lease: 0,
            refused_busy: 0,
            refused_memory: 0,
            refused_not_leader: 0,
            refused_other: 0,
            peer_frames: 0,
            peer_bytes: 0,
            elections: 0,
            leader_changes: 0,
            appends_postponed: 0,
            disk_stuck: 0,
            stood_still: 0,
            transfers: 0,
            transfers_failed: 0,
            transfers_spread: 0,
            barriers_reached: 0,
            barriers_timed_out: 0,
            repairs: 0,
            divergences: 0,
            divergences_undecided: 0,
            states_rebuilt: 0,
            entries_mended: 0,
            entries_lent: 0,
            scrubbed_bytes: 0,
            scrubbed_rotten: 0,
            scrubbed_rotten_snapshots: 0,
            scrub_passes: 0,
            slow_writes: 0,
            stages: std::array::from_fn(|_| histogram()),
        }
    }
}

impl Metrics {
    /// Notes that `count` writes spent this long in a stage.
    pub fn stage(&mut self, stage: Stage, span: Ticks, count: u64) {
        self.stages[stage as usize].saturating_record_n(span.0.max(1), count);
    }

    /// A stage's histogram.
    pub fn histogram(&self, stage: Stage) -> &Histogram<u64> {
        &self.stages[stage as usize]
    }
}
