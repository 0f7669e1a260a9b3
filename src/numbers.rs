//! What a shard tells the control lane when it is asked: taken on the shard's thread, read by
//! people elsewhere.

use crate::control::{
    BUCKETS_US, GroupRow, Percentiles, ShardCounters, ShardNumbers, ShardSnapshots, SnapshotWish,
    StageHistogram, WalNumbers,
};
use crate::wires::Wires;
use hdrhistogram::Histogram;
use ringraft_shard::metrics::Stage;
use ringraft_shard::{Shard, SnapshotAsked};
use ringraft_types::{GroupId, NodeId, Ticks};
use ringraft_wal::device::Durability;
use ringraft_wal::device::uring::UringDevice;
use std::collections::BTreeMap;
use std::time::Duration;

/// A shard's numbers at one instant of its own clock.
#[derive(Debug)]
pub struct Taken {
    /// When they were taken: so they also say that the shard turns.
    pub at: Ticks,
    /// The numbers.
    pub numbers: ShardNumbers,
}

/// Takes a shard's numbers.
pub fn take(shard: &Shard<UringDevice, Wires>, now: Ticks) -> Taken {
    let status = shard.status(now);
    let metrics = shard.metrics();
    let stats = shard.log().stats();
    let peers_connected = shard.links.table.connected() as u64;
    let counters = ShardCounters {
        turns: metrics.turns,
        writes_done: metrics.writes_done,
        reads_done: metrics.reads_served,
        refused_busy: metrics.refused_busy,
        refused_memory: metrics.refused_memory,
        refused_not_leader: metrics.refused_not_leader,
        refused_other: metrics.refused_other,
        elections: metrics.elections,
        leader_changes: metrics.leader_changes,
        peer_frames_received: metrics.peer_frames,
        peer_bytes_received: metrics.peer_bytes,
        peer_bytes_sent: shard.links.peer_bytes_sent,
        frames_refused: shard.links.frames_refused,
        accepts_failed: shard.links.accepts_failed,
        slow_writes: metrics.slow_writes,
        disk_stuck: metrics.disk_stuck,
        stood_still: metrics.stood_still,
        transfers: metrics.transfers,
        transfers_failed: metrics.transfers_failed,
        transfers_spread: metrics.transfers_spread,
        barriers_reached: metrics.barriers_reached,
        barriers_timed_out: metrics.barriers_timed_out,
        repairs: metrics.repairs,
        repairs_under_way: shard.repairs_under_way(),
        divergences: metrics.divergences,
        divergences_undecided: metrics.divergences_undecided,
        states_rebuilt: metrics.states_rebuilt,
        groups_diverged: shard.groups_diverged(),
        groups_hibernating: shard.groups_hibernating(),
        entries_mended: metrics.entries_mended,
        entries_lent: metrics.entries_lent,
        scrubbed_bytes: metrics.scrubbed_bytes,
        scrubbed_rotten: metrics.scrubbed_rotten,
        scrubbed_rotten_snapshots: metrics.scrubbed_rotten_snapshots,
        scrub_passes: metrics.scrub_passes,
        snapshots_taken: metrics.snapshots_taken,
        snapshots_failed: metrics.snapshots_failed,
        snapshot_bytes: metrics.snapshot_bytes,
        snapshots_installed: metrics.snapshots_installed,
        installs_failed: metrics.installs_failed,
        clients_connected: shard.links.clients() as u64,
        peers_connected,
        pending_writes: shard.pending_writes(),
    };
    let groups = status.groups.iter().map(|group| GroupRow {
        group: group.group,
        role: group.role.name(),
        leader: (group.leader != NodeId::ZERO).then_some(group.leader),
        term: group.term,
        last: group.last,
        commit: group.commit,
        applied: group.applied,
        revision: group.revision,
        state_hash: group.state_hash,
        lag_entries: group.lag_entries,
        damaged: group.damaged,
        snapshot: group.snapshot,
        activity: group.activity,
    });
    let numbers = ShardNumbers {
        shard: status.shard,
        core: 0,
        tick_age: Duration::ZERO,
        answers: 0,
        is_paused: status.is_paused,
        memory: shard.memory(),
        full_peers: shard.full_peers() as u64,
        groups: groups.collect(),
        counters,
        stages: Stage::ALL
            .iter()
            .map(|&stage| histogram(stage, metrics.histogram(stage)))
            .collect(),
        wal: WalNumbers {
            sync_method: match shard.log().settings().durability {
                Durability::Dsync => "dsync",
                Durability::LinkedSync => "fdatasync",
                Durability::Blocking => "blocking",
                Durability::None => "none",
            },
            batches: stats.blocks,
            records: stats.records,
            bytes: stats.bytes,
            sync: percentiles(&stats.latency),
            segments: shard.segments(),
            segment_bytes: shard.segments() * shard.log().settings().segment_bytes,
            reclaiming_bytes: shard.device.reclaiming_bytes(),
            torn_tails: shard.torn_blocks(),
            is_full: shard.log().space_exhausted(),
        },
    };
    Taken { at: now, numbers }
}

/// Does what is wished, and takes what there is to be said of a shard's snapshots: of all groups,
/// or of those that the wish names.
pub fn snapshots(shard: &mut Shard<UringDevice, Wires>, wish: &SnapshotWish) -> ShardSnapshots {
    let wanted: Vec<GroupId> = match wish {
        SnapshotWish::Look => Vec::new(),
        SnapshotWish::TakeAll => shard.group_snapshots().map(|row| row.group).collect(),
        SnapshotWish::Take(groups) => groups.clone(),
    };
    let asked = wanted.into_iter().filter_map(|group| Some((group, shard.ask_snapshot(group)?)));
    let asked: BTreeMap<GroupId, SnapshotAsked> = asked.collect();
    let rows = shard.group_snapshots().map(|row| (asked.get(&row.group).copied(), row));
    let is_told = |asked: &Option<_>| asked.is_some() || *wish == SnapshotWish::Look;
    let groups = rows.filter(|(asked, _)| is_told(asked)).collect();
    ShardSnapshots { shard: shard.settings().shard, groups }
}

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50_us: histogram.value_at_quantile(0.5),
        p90_us: histogram.value_at_quantile(0.9),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

fn histogram(stage: Stage, values: &Histogram<u64>) -> StageHistogram {
    let mut buckets = [0; BUCKETS_US.len() + 1];
    let mut sum_us = 0;
    for value in values.iter_recorded() {
        let at = value.value_iterated_to();
        let count = value.count_at_value();
        sum_us += at * count;
        buckets[BUCKETS_US.partition_point(|&bound| bound < at)] += count;
    }
    StageHistogram { stage, count: values.len(), sum_us, buckets, percentiles: percentiles(values) }
}
