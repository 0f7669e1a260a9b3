//! A node's numbers in the OpenMetrics text format, by Prometheus' own client library.
//!
//! Numbers are per shard, never per group and metric: 100,000 groups would be 100,000 lines each.
//! Only what an alert needs of groups is summed up here; `/status` has the rows.

use crate::control::feed::{BUCKETS_US, ShardCounters};
use crate::control::{NodeNumbers, Percentiles, ShardNumbers, StageHistogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// Encodes a node's numbers.
pub(crate) fn encode(node: NodeNumbers, log_lines_dropped: u64) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ringraft");
    registry.register_collector(Box::new(Metrics { node, log_lines_dropped }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Metrics {
    node: NodeNumbers,
    log_lines_dropped: u64,
}

/// A number of a shard: name, help, and where it is.
type Number<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A number that differs from its siblings by a label: the label's value, and where it is.
type Labelled<T> = (&'static str, fn(&T) -> u64);

/// What only grows. The encoder adds `_total`.
const COUNTERS: &[Number<ShardNumbers>] = &[
    ("turns", "Turns of the shard's loop", |shard| shard.counters.turns),
    ("writes_done", "Writes answered as done", |shard| shard.counters.writes_done),
    ("reads_done", "Reads answered", |shard| shard.counters.reads_done),
    ("elections", "Elections that groups stood for", |shard| shard.counters.elections),
    ("leader_changes", "Changes of leader seen", |shard| shard.counters.leader_changes),
    ("peer_frames_received", "Frames from other nodes", |shard| {
        shard.counters.peer_frames_received
    }),
    ("peer_received_bytes", "Bytes from other nodes", |shard| shard.counters.peer_bytes_received),
    ("peer_sent_bytes", "Bytes to other nodes", |shard| shard.counters.peer_bytes_sent),
    ("frames_refused", "Frames and handshakes that broke the protocol", |shard| {
        shard.counters.frames_refused
    }),
    ("accepts_failed", "Times that no descriptor was left for a connection", |shard| {
        shard.counters.accepts_failed
    }),
    ("slow_writes", "Writes slower than log.slow_write_ms", |shard| shard.counters.slow_writes),
    ("wal_stuck", "Times that the disk held a write for an election timeout", |shard| {
        shard.counters.disk_stuck
    }),
    ("shard_stood_still", "Times that a turn came 300 ms or more after it was due", |shard| {
        shard.counters.stood_still
    }),
    ("leader_transfers", "Groups handed over to another node", |shard| shard.counters.transfers),
    ("leader_transfers_spread", "Groups handed over by priority or to spread leaders", |shard| {
        shard.counters.transfers_spread
    }),
    ("leader_transfers_failed", "Groups that another node was to lead, and doesn't", |shard| {
        shard.counters.transfers_failed
    }),
    ("barriers_reached", "Barriers whose level was reached", |shard| {
        shard.counters.barriers_reached
    }),
    ("barriers_timed_out", "Barriers whose level was not reached while they waited", |shard| {
        shard.counters.barriers_timed_out
    }),
    ("groups_repaired", "Groups that lost entries to rot and have them again", |shard| {
        shard.counters.repairs
    }),
    ("divergences", "Groups here that held another state than a majority", |shard| {
        shard.counters.divergences
    }),
    (
        "divergences_undecided",
        "Groups led here whose replicas differ, without a majority",
        |shard| shard.counters.divergences_undecided,
    ),
    ("states_rebuilt", "Groups that held another state and were rebuilt", |shard| {
        shard.counters.states_rebuilt
    }),
    ("entries_mended", "Entries that couldn't be read and were written again", |shard| {
        shard.counters.entries_mended
    }),
    ("entries_lent", "Entries that other nodes couldn't read and were given", |shard| {
        shard.counters.entries_lent
    }),
    ("scrubbed_bytes", "Bytes of the log read to find rot", |shard| shard.counters.scrubbed_bytes),
    ("scrubbed_rotten_blocks", "Blocks found rotten so", |shard| shard.counters.scrubbed_rotten),
    ("scrubbed_rotten_snapshots", "Snapshots found rotten so", |shard| {
        shard.counters.scrubbed_rotten_snapshots
    }),
    ("scrub_passes", "Times that the whole log was read to find rot", |shard| {
        shard.counters.scrub_passes
    }),
    ("snapshots_taken", "Snapshots that became durable", |shard| shard.counters.snapshots_taken),
    ("snapshots_failed", "Snapshots that could not be written", |shard| {
        shard.counters.snapshots_failed
    }),
    ("snapshots_installed", "Snapshots of peers that took the place of a group's state", |shard| {
        shard.counters.snapshots_installed
    }),
    ("snapshot_installs_failed", "Attempts at installing a snapshot that failed", |shard| {
        shard.counters.installs_failed
    }),
    ("snapshot_written_bytes", "Bytes of the snapshots that became durable", |shard| {
        shard.counters.snapshot_bytes
    }),
    ("wal_batches", "Batches written to the log", |shard| shard.wal.batches),
    ("wal_records", "Records written to the log", |shard| shard.wal.records),
    ("wal_written_bytes", "Bytes written to the log, padding included", |shard| shard.wal.bytes),
    ("wal_torn_tails", "Tails cut after a crash", |shard| shard.wal.torn_tails),
];

/// What goes up and down.
const GAUGES: &[Number<ShardNumbers>] = &[
    ("tick_age_us", "Microseconds since the shard's loop turned", |shard| {
        u64::try_from(shard.tick_age.as_micros()).unwrap_or(u64::MAX)
    }),
    ("clients_connected", "Native client connections", |shard| shard.counters.clients_connected),
    ("peers_connected", "Peers connected", |shard| shard.counters.peers_connected),
    ("pending_writes", "Writes accepted and not yet answered", |shard| {
        shard.counters.pending_writes
    }),
    ("groups", "Groups on the shard", |shard| shard.groups.len() as u64),
    ("groups_led", "Groups led here", |shard| count(shard, |row| row.role == "leader")),
    ("groups_leaderless", "Groups without a known leader", |shard| {
        count(shard, |row| row.leader.is_none())
    }),
    ("elections_paused", "Whether groups don't stand for election, by request", |shard| {
        u64::from(shard.is_paused)
    }),
    ("data_bytes", "Bytes of data of all shards of the node", |shard| shard.memory.bytes),
    ("data_limit_bytes", "limits.data_bytes_max; 0: no limit", |shard| shard.memory.bytes_max),
    ("memory_level", "0, 1 from four fifths of the limit on, 2 while it is full", |shard| {
        shard.memory.level as u64
    }),
    ("peers_memory_full", "Other nodes that say that theirs is full", |shard| shard.full_peers),
    ("groups_mending", "Groups whose unreadable entries are asked of the other nodes", |shard| {
        shard.counters.repairs_under_way
    }),
    ("groups_hibernating", "Groups that are idle and cost no messages", |shard| {
        shard.counters.groups_hibernating
    }),
    ("groups_diverged", "Groups that hold another state, until they are rebuilt", |shard| {
        shard.counters.groups_diverged
    }),
    ("groups_damaged", "Groups whose log has rot", |shard| count(shard, |row| row.damaged)),
    ("lag_entries_max", "Entries that the worst group's slowest member lacks", |shard| {
        shard.groups.iter().map(|row| row.lag_entries).max().unwrap_or(0)
    }),
    ("wal_segments", "Segment files", |shard| shard.wal.segments),
    ("wal_segment_bytes", "Bytes of segment files", |shard| shard.wal.segment_bytes),
    ("wal_reclaiming_bytes", "Bytes of removed files that are still being given back", |shard| {
        shard.wal.reclaiming_bytes
    }),
    ("wal_full", "1 while the disk is full", |shard| u64::from(shard.wal.is_full)),
    ("wal_durable", "0 if sync is \"none\": acknowledged writes may be lost", |shard| {
        u64::from(shard.wal.sync_method != "none")
    }),
];

/// Requests that were refused, by reason.
const REFUSALS: &[Labelled<ShardCounters>] = &[
    ("busy", |counters| counters.refused_busy),
    ("memory_full", |counters| counters.refused_memory),
    ("not_leader", |counters| counters.refused_not_leader),
    ("other", |counters| counters.refused_other),
];

/// Percentiles of the time that the log takes to make a batch durable.
const QUANTILES: &[Labelled<Percentiles>] = &[
    ("0.5", |all| all.p50_us),
    ("0.9", |all| all.p90_us),
    ("0.99", |all| all.p99_us),
    ("0.999", |all| all.p999_us),
    ("1", |all| all.max_us),
];

fn count(shard: &ShardNumbers, matches: fn(&crate::control::GroupRow) -> bool) -> u64 {
    shard.groups.iter().filter(|row| matches(row)).count() as u64
}

type NoExemplarLabels = [(&'static str, &'static str); 0];

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_node(&mut encoder)?;
        for (name, help, of) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for shard in &self.node.shards {
                let labels = [("shard", shard.shard.get().to_string())];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoExemplarLabels, u64, u64>(&of(shard), None)?;
            }
        }
        for (name, help, of) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for shard in &self.node.shards {
                let labels = [("shard", shard.shard.get().to_string())];
                family.encode_family(&labels)?.encode_gauge(&of(shard))?;
            }
        }
        self.encode_refusals(&mut encoder)?;
        self.encode_sync(&mut encoder)?;
        self.encode_stages(&mut encoder)
    }
}

impl Metrics {
    fn encode_node(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let node = &self.node;
        let labels = [
            ("node", node.node.get().to_string()),
            ("name", node.name.clone()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let mut build = encoder.encode_descriptor("node", "The node", None, MetricType::Info)?;
        build.encode_info(&labels)?;
        let help = "Seconds since the process started";
        let mut uptime =
            encoder.encode_descriptor("uptime_seconds", help, None, MetricType::Gauge)?;
        uptime.encode_gauge(&node.uptime.as_secs_f64())?;
        let help = "Log events and lines that were dropped";
        let mut dropped =
            encoder.encode_descriptor("log_dropped", help, None, MetricType::Counter)?;
        for (kind, number) in [("event", node.events_dropped), ("line", self.log_lines_dropped)] {
            let labels = [("kind", kind)];
            let mut metric = dropped.encode_family(&labels)?;
            metric.encode_counter::<NoExemplarLabels, u64, u64>(&number, None)?;
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests refused, by reason";
        let mut family = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for shard in &self.node.shards {
            for (reason, of) in REFUSALS {
                let labels =
                    [("shard", shard.shard.get().to_string()), ("reason", (*reason).to_owned())];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoExemplarLabels, u64, u64>(&of(&shard.counters), None)?;
            }
        }
        Ok(())
    }

    fn encode_sync(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time from a batch's submission to durable, percentiles since the start";
        let mut family =
            encoder.encode_descriptor("wal_sync_seconds", help, None, MetricType::Gauge)?;
        for shard in &self.node.shards {
            for (quantile, of) in QUANTILES {
                let labels = [
                    ("shard", shard.shard.get().to_string()),
                    ("quantile", (*quantile).to_owned()),
                ];
                family.encode_family(&labels)?.encode_gauge(&seconds(of(&shard.wal.sync)))?;
            }
        }
        Ok(())
    }

    fn encode_stages(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time that writes spend in each stage of the commit path";
        let mut family =
            encoder.encode_descriptor("write_stage_seconds", help, None, MetricType::Histogram)?;
        for shard in &self.node.shards {
            for stage in &shard.stages {
                let labels = [
                    ("shard", shard.shard.get().to_string()),
                    ("stage", stage.stage.name().to_owned()),
                ];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_histogram::<NoExemplarLabels>(
                    seconds(stage.sum_us),
                    stage.count,
                    &buckets(stage),
                    None,
                )?;
            }
        }
        Ok(())
    }
}

fn buckets(stage: &StageHistogram) -> Vec<(f64, u64)> {
    let bounds = BUCKETS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
    bounds.zip(stage.buckets).collect()
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
