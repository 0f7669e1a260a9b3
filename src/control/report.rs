//! A node's numbers judged (`/livez`, `/readyz`) and told (`/status`).

use crate::control::routes::ALIVE_WITHIN;
use crate::control::{GroupRow, NodeNumbers, Percentiles, ShardNumbers};
use serde_json::{Value, json};

/// Groups that a failed check names; the rest are counted.
const NAMED_MAX: usize = 8;

/// One named check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// Why it failed; `None` if it passed.
    pub(crate) failure: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, failure: Option<String>) -> Self {
        Self { name: name.into(), failure }
    }
}

/// Is every shard's loop turning?
pub(crate) fn alive(node: &NodeNumbers) -> Vec<Check> {
    let started = (node.shards.is_empty()).then(|| "no shard has started yet".to_owned());
    let mut checks = vec![Check::new("started", started)];
    checks.extend(node.shards.iter().map(|shard| {
        let stuck = (shard.tick_age > ALIVE_WITHIN)
            .then(|| format!("its loop has not turned for {} ms", shard.tick_age.as_millis()));
        Check::new(format!("shard-{}", shard.shard), stuck)
    }));
    checks
}

/// Can every group be served, here or by the leader that is known here?
pub(crate) fn ready(node: &NodeNumbers) -> Vec<Check> {
    let mut checks = alive(node);
    let groups = || node.shards.iter().flat_map(|shard| &shard.groups);
    let failing = |what: &str, fails: fn(&GroupRow) -> bool| {
        let mut failing: Vec<u64> =
            groups().filter(|row| fails(row)).map(|row| row.group.get()).collect();
        failing.sort_unstable();
        let rest = failing.len().saturating_sub(NAMED_MAX);
        let named: Vec<String> = failing.iter().take(NAMED_MAX).map(u64::to_string).collect();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        (!named.is_empty()).then(|| format!("{what}: group {}{rest}", named.join(", ")))
    };
    let none = groups().next().is_none().then(|| "there are no groups yet".to_owned());
    checks.push(Check::new("groups", none));
    checks.push(Check::new("leaders", failing("no known leader", |row| row.leader.is_none())));
    checks.push(Check::new("logs", failing("damaged", |row| row.damaged)));
    let full = node.shards.iter().find(|shard| shard.wal.is_full);
    let full = full.map(|shard| format!("the disk of shard {} is full", shard.shard));
    checks.push(Check::new("space", full));
    checks
}

/// Everything, for machines.
pub(crate) fn status(node: &NodeNumbers) -> Value {
    json!({
        "node": node.node.get(),
        "name": node.name,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": node.uptime.as_millis() as u64,
        "durable": node.shards.iter().all(|shard| shard.wal.sync_method != "none"),
        "events_dropped": node.events_dropped,
        "shards": node.shards.iter().map(shard).collect::<Vec<_>>(),
    })
}

fn shard(shard: &ShardNumbers) -> Value {
    let stages = shard.stages.iter().map(|stage| {
        let mut row = percentiles(&stage.percentiles);
        row["count"] = stage.count.into();
        (stage.stage.name().to_owned(), row)
    });
    json!({
        "shard": shard.shard.get(),
        "core": shard.core,
        "tick_age_ms": shard.tick_age.as_millis() as u64,
        "pending_writes": shard.counters.pending_writes,
        "clients": shard.counters.clients_connected,
        "peers": shard.counters.peers_connected,
        "wal": {
            "sync_method": shard.wal.sync_method,
            "sync_us": percentiles(&shard.wal.sync),
            "batches": shard.wal.batches,
            "records": shard.wal.records,
            "bytes": shard.wal.bytes,
            "segments": shard.wal.segments,
            "segment_bytes": shard.wal.segment_bytes,
            "reclaiming_bytes": shard.wal.reclaiming_bytes,
            "torn_tails": shard.wal.torn_tails,
            "is_full": shard.wal.is_full,
        },
        "stages_us": stages.collect::<serde_json::Map<_, _>>(),
        "groups": shard.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

fn group(row: &GroupRow) -> Value {
    json!({
        "group": row.group.get(),
        "role": row.role,
        "leader": row.leader.map(|leader| leader.get()),
        "term": row.term.get(),
        "last": row.last.get(),
        "commit": row.commit.get(),
        "applied": row.applied.get(),
        "revision": row.revision.get(),
        "state_hash": format!("{:016x}", row.state_hash),
        "lag_entries": row.lag_entries,
        "damaged": row.damaged,
        "snapshot": row.snapshot.get(),
        "snapshots": row.activity.name(),
    })
}

fn percentiles(all: &Percentiles) -> Value {
    json!({
        "p50": all.p50_us,
        "p90": all.p90_us,
        "p99": all.p99_us,
        "p999": all.p999_us,
        "max": all.max_us,
    })
}
